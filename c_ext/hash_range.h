/* XXH3-128 and CRC-64/NVME of a range of a file, read once. Knows no Python. */
#ifndef FSX_HASH_RANGE_H
#define FSX_HASH_RANGE_H

#include <stdbool.h>
#include <stdint.h>
#include <xxhash.h>

#define FSX_ONE_PART INT64_MAX

enum fsx_range_status { FSX_RANGE_OK, FSX_RANGE_SHORT, FSX_RANGE_ERRNO, FSX_RANGE_NOMEM };

struct fsx_hash_range {
    int fd;
    int64_t offset;
    int64_t length;
    int64_t part_size; /* FSX_ONE_PART: all of it */
    bool want_xxh3;
    XXH128_canonical_t digest; /* out, if wanted */
    uint64_t *crcs;            /* out, one a part, zeros before; NULL if not wanted */
    int64_t done;              /* out: bytes read, also on failure */
    int error;                 /* out: errno for FSX_RANGE_ERRNO */
};

/* Blocks. FSX_RANGE_SHORT: the file ends before the range does. */
enum fsx_range_status fsx_hash_range_read(struct fsx_hash_range *range);

#endif
