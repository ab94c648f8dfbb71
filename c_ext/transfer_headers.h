/* What C itself reads of HTTP: libcurl does the rest. Knows neither Python nor libcurl. */
#ifndef FSX_TRANSFER_HEADERS_H
#define FSX_TRANSFER_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FSX_TRANSFER_MAX_HEADERS 128
#define FSX_TRANSFER_MAX_HEADER_BYTES ((size_t)64 * 1024) /* of one request, and of one answer */

struct fsx_content_range {
    int64_t first;
    int64_t last;
    int64_t total; /* -1: the server wrote '*' */
};

/* Read the value of a Content-Range, RFC 9110 §14.4: "bytes 0-9/100". Anything else is false. */
bool fsx_headers_parse_content_range(const char *value, struct fsx_content_range *range);

/* Why a request header "Name: value" of `length` bytes must not be sent; NULL if it may. */
const char *fsx_headers_refuse(const char *header, size_t length);

/* Whether `method` is one to send: one to sixteen capital letters. */
bool fsx_headers_is_method(const char *method);

#endif
