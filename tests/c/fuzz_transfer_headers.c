/* What C reads of HTTP, on inputs of any kind: no crash (ASan, UBSan), and what it accepts is so.
 *
 * With libFuzzer: clang -fsanitize=fuzzer,address,undefined -Ic_ext tests/c/fuzz_transfer_headers.c
 * c_ext/transfer_headers.c. Without it (FSX_FUZZ_MAIN), main() below makes the same inputs in every
 * run: seeds, changed a little, many times. */
#include "transfer_headers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s\n", what);
        abort();
    }
}

static void
try_content_range(const char *text)
{
    struct fsx_content_range range, again;
    char written[100];

    if (!fsx_headers_parse_content_range(text, &range)) {
        return;
    }
    require(range.first >= 0 && range.first <= range.last, "a range has a first byte and a last");
    require(range.total == -1 || range.last < range.total, "a range lies in its object");
    if (range.total == -1) {
        (void)snprintf(written, sizeof written, "bytes %" PRId64 "-%" PRId64 "/*", range.first,
                       range.last);
    }
    else {
        (void)snprintf(written, sizeof written, "bytes %" PRId64 "-%" PRId64 "/%" PRId64,
                       range.first, range.last, range.total);
    }
    require(fsx_headers_parse_content_range(written, &again) && again.first == range.first &&
                again.last == range.last && again.total == range.total,
            "what is read can be written and read again");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* to the byte: a read beside it is reported */
    char *bare = malloc(size > 0 ? size : 1);

    require(text != NULL && bare != NULL, "there is memory");
    if (size > 0) {
        memcpy(text, data, size);
        memcpy(bare, data, size);
    }
    text[size] = '\0';
    try_content_range(text);
    if (fsx_headers_refuse(bare, size) == NULL) {
        require(memchr(bare, ':', size) != NULL, "a header has a colon");
        require(memchr(bare, '\n', size) == NULL && memchr(bare, '\r', size) == NULL &&
                    memchr(bare, '\0', size) == NULL,
                "a header is one line");
    }
    if (fsx_headers_is_method(text)) {
        require(strlen(text) <= 16 && strchr(text, ' ') == NULL, "a method is a word");
    }
    free(bare);
    free(text);
    return 0;
}

#ifdef FSX_FUZZ_MAIN

#define ROUNDS 2000000
#define LONGEST 64

static uint64_t
next_random(uint64_t *state) /* xorshift64 */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

int
main(void)
{
    static const char *const seeds[] = {
        "bytes 0-9/100",
        "bytes 0-0/*",
        "bytes 9223372036854775806-9223372036854775806/9223372036854775807",
        "bytes */100",
        "BYTES 5-4/3",
        "x-amz-meta-a: b",
        "Content-Length:",
        "GET",
        "Host: a",
        "bytes 00-1/2",
        "bytes 1-2/3 ",
        "DELETE",
    };
    static const char alphabet[] = "0123456789-/* :bytesA\r\n\t\x7f\xff";
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    struct fsx_content_range range;

    require(fsx_headers_parse_content_range(seeds[0], &range) && range.last == 9 &&
                range.total == 100,
            "the plain case");
    require(!fsx_headers_parse_content_range("bytes 0-9223372036854775808/*", &range),
            "2^63 is no offset");
    require(fsx_headers_refuse("Transfer-Encoding: x", 20) != NULL, "framing is not the caller's");
    for (long round = 0; round < ROUNDS; round++) {
        uint8_t input[LONGEST + 8];
        const char *seed = seeds[next_random(&state) % (sizeof seeds / sizeof *seeds)];
        size_t size = strlen(seed) < LONGEST ? strlen(seed) : LONGEST;
        memcpy(input, seed, size);
        for (uint64_t changes = next_random(&state) % 4; changes > 0; changes--) {
            size_t at = size > 0 ? next_random(&state) % size : 0;
            switch (next_random(&state) % 3) {
            case 0:
                input[at] = (uint8_t)alphabet[next_random(&state) % sizeof alphabet];
                break;
            case 1: /* leave out */
                if (size > 0) {
                    memmove(input + at, input + at + 1, --size - at);
                }
                break;
            default: /* put in */
                if (size < LONGEST) {
                    memmove(input + at + 1, input + at, size++ - at);
                    input[at] = (uint8_t)alphabet[next_random(&state) % sizeof alphabet];
                }
            }
        }
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("fuzz_transfer_headers: %d inputs\n", ROUNDS);
    return 0;
}

#endif
