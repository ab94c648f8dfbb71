/* crc64nvme.c under ASan and UBSan, against the definition bit by bit. Every buffer is allocated to
 * the byte, so a read beside it is reported. With the argument "overrun" it reads beside one on
 * purpose: the run that calls us makes sure that somebody is watching. */
#include "crc64nvme.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 700
#define POLY UINT64_C(0x9a6c9329ac4bc9b5)

static uint64_t
by_definition(uint64_t crc, const unsigned char *data, size_t length)
{
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) ? POLY : 0);
        }
    }
    return ~crc;
}

static int failures;

static void
check(bool holds, const char *what, size_t length)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s, length %zu\n", what, length);
        failures++;
    }
}

/* xorshift64: the same bytes in every run */
static void
fill(unsigned char *data, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        data[i] = (unsigned char)seed;
    }
}

static unsigned char *
allocate(size_t length)
{
    unsigned char *data = malloc(length > 0 ? length : 1);
    if (data == NULL) {
        abort();
    }
    return data;
}

static void
every_length_and_alignment(void)
{
    for (size_t start = 0; start < 16; start++) {
        for (size_t length = 0; length <= LONGEST; length++) {
            unsigned char *data = allocate(start + length);
            fill(data, start + length, length + 1);
            uint64_t seed = length % 3 == 0 ? 0 : UINT64_MAX / (length + 1);
            uint64_t expected = by_definition(seed, data + start, length);
            check(fsx_crc64nvme_update(seed, data + start, length) == expected, "update", length);
            check(fsx_crc64nvme_update_portable(seed, data + start, length) == expected, "portable",
                  length);
            free(data);
        }
    }
}

static void
every_cut_combines(void)
{
    unsigned char *data = allocate(LONGEST);
    fill(data, LONGEST, 42);
    uint64_t whole = by_definition(0, data, LONGEST);
    for (size_t cut = 0; cut <= LONGEST; cut++) {
        uint64_t first = fsx_crc64nvme_update(0, data, cut);
        uint64_t second = fsx_crc64nvme_update(0, data + cut, LONGEST - cut);
        check(fsx_crc64nvme_combine(first, second, LONGEST - cut) == whole, "combine", cut);
        check(fsx_crc64nvme_update(first, data + cut, LONGEST - cut) == whole, "continue", cut);
    }
    free(data);
}

static void
published_values(void)
{
    static unsigned char zeros[4096];
    unsigned char ones[4096];
    memset(ones, 0xff, sizeof ones);
    check(fsx_crc64nvme_update(0, "123456789", 9) == UINT64_C(0xae8b14860a799888), "check value",
          9);
    /* NVM Command Set Specification 1.0, figure 121 */
    check(fsx_crc64nvme_update(0, zeros, 4096) == UINT64_C(0x6482d367eb22b64e), "zeros", 4096);
    check(fsx_crc64nvme_update(0, ones, 4096) == UINT64_C(0xc0ddba7302eca3ac), "ones", 4096);
    check(fsx_crc64nvme_combine(0, 0, UINT64_MAX) == 0, "nothing moved far is nothing", 0);
}

int
main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "overrun") == 0) {
        unsigned char *data = allocate(100);
        fill(data, 100, 1);
        return (int)(fsx_crc64nvme_update(0, data, 101) & 1);
    }
    published_values();
    every_length_and_alignment();
    every_cut_combines();
    printf("crc64nvme (%s): %d failures\n", fsx_crc64nvme_implementation(), failures);
    return failures != 0;
}
