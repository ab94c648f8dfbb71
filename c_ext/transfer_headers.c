#include "transfer_headers.h"

#include <string.h>
#include <strings.h>

#define LONGEST_METHOD 16

/* libcurl writes these from what it knows of the body; a second opinion would break the framing. */
static const char *const written_by_libcurl[] = {"content-length", "transfer-encoding", "expect",
                                                 "connection"};

/* Digits at *text, at least one, to a number; *text moves on. False on overflow. */
static bool
parse_number(const char **text, int64_t *number)
{
    const char *at = *text;
    int64_t value = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        int64_t digit = *at - '0';
        if (value > (INT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (at == *text) {
        return false;
    }
    *text = at;
    *number = value;
    return true;
}

static bool
skip(const char **text, char expected)
{
    if (**text != expected) {
        return false;
    }
    (*text)++;
    return true;
}

bool
fsx_headers_parse_content_range(const char *value, struct fsx_content_range *range)
{
    if (strncasecmp(value, "bytes", 5) != 0) { /* range units are case-insensitive */
        return false;
    }
    value += 5;
    if (!skip(&value, ' ') || !parse_number(&value, &range->first) || !skip(&value, '-') ||
        !parse_number(&value, &range->last) || !skip(&value, '/')) {
        return false;
    }
    if (skip(&value, '*')) {
        range->total = -1;
    }
    else if (!parse_number(&value, &range->total) || range->last >= range->total) {
        return false;
    }
    return *value == '\0' && range->first <= range->last;
}

/* RFC 9110 §5.6.2 */
static bool
is_token_character(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

const char *
fsx_headers_refuse(const char *header, size_t length)
{
    size_t name = 0;

    while (name < length && is_token_character(header[name])) {
        name++;
    }
    if (name == 0 || name == length || header[name] != ':') {
        return "a header is 'Name: value'";
    }
    for (size_t i = name + 1; i < length; i++) {
        if (header[i] == '\r' || header[i] == '\n' || header[i] == '\0') {
            return "a header's value has no CR, LF or NUL";
        }
    }
    for (size_t i = 0; i < sizeof written_by_libcurl / sizeof *written_by_libcurl; i++) {
        const char *reserved = written_by_libcurl[i];
        if (strlen(reserved) == name && strncasecmp(header, reserved, name) == 0) {
            return "Content-Length, Transfer-Encoding, Expect and Connection follow from the body";
        }
    }
    return NULL;
}

bool
fsx_headers_is_method(const char *method)
{
    size_t length = strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return length > 0 && length <= LONGEST_METHOD && method[length] == '\0';
}
