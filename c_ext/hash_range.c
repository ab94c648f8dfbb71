#include "hash_range.h"

#include "crc64nvme.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_SIZE ((size_t)256 * 1024) /* stays in L2 while two hashes go over it */

enum fsx_range_status
fsx_hash_range_read(struct fsx_hash_range *range)
{
    enum fsx_range_status status = FSX_RANGE_NOMEM;
    XXH3_state_t *state = NULL;
    unsigned char *buffer = malloc(READ_SIZE);

    range->done = 0;
    if (buffer == NULL) {
        goto done;
    }
    if (range->want_xxh3) {
        state = XXH3_createState();
        if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
            goto done;
        }
    }
    while (range->done < range->length) {
        int64_t left = range->length - range->done;
        int64_t left_of_part = range->part_size - range->done % range->part_size;
        int64_t least = left < left_of_part ? left : left_of_part;
        size_t want = least < (int64_t)READ_SIZE ? (size_t)least : READ_SIZE;
        ssize_t got = pread(range->fd, buffer, want, (off_t)(range->offset + range->done));
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            range->error = errno;
            status = FSX_RANGE_ERRNO;
            goto done;
        }
        if (got == 0) { /* the file was cut under us: an error, never the hash of less */
            status = FSX_RANGE_SHORT;
            goto done;
        }
        if (state != NULL && XXH3_128bits_update(state, buffer, (size_t)got) != XXH_OK) {
            goto done;
        }
        if (range->crcs != NULL) {
            uint64_t *crc = &range->crcs[range->done / range->part_size];
            *crc = fsx_crc64nvme_update(*crc, buffer, (size_t)got);
        }
        range->done += got;
    }
    if (state != NULL) {
        XXH128_canonicalFromHash(&range->digest, XXH3_128bits_digest(state));
    }
    status = FSX_RANGE_OK;
done:
    XXH3_freeState(state);
    free(buffer);
    return status;
}
