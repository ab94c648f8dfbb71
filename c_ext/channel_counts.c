#include "channel_counts.h"

#include "channel_wire.h"

#include <stddef.h>
#include <time.h>

static const char *const names[FSX_OPCODES] = {
    [FUSE_LOOKUP] = "lookup",
    [FUSE_FORGET] = "forget",
    [FUSE_GETATTR] = "getattr",
    [FUSE_UNLINK] = "unlink",
    [FUSE_OPEN] = "open",
    [FUSE_RELEASE] = "release",
    [FUSE_FLUSH] = "flush",
    [FUSE_OPENDIR] = "opendir",
    [FUSE_RELEASEDIR] = "releasedir",
    [FUSE_CREATE] = "create",
    [FUSE_BATCH_FORGET] = "forget_batch",
    [FUSE_FALLOCATE] = "fallocate",
    [FUSE_READDIRPLUS] = "readdirplus",
    [FUSE_LSEEK] = "lseek",
    [FUSE_COPY_FILE_RANGE] = "copy_file_range",
    [FSX_SYNCFS] = "syncfs",
    [FSX_COPY_FILE_RANGE_64] = "copy_file_range_64",
};

uint64_t
fsx_counts_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void
fsx_counts_note(struct fsx_counts *counts, uint32_t opcode, uint64_t since)
{
    uint64_t took = fsx_counts_now() - since;
    unsigned bucket = 0;

    if (opcode >= FSX_OPCODES) {
        return;
    }
    if (took >> 10 != 0) {
        bucket = 64u - (unsigned)__builtin_clzll(took >> 10);
    }
    if (bucket >= FSX_BUCKETS) {
        bucket = FSX_BUCKETS - 1;
    }
    atomic_fetch_add_explicit(&counts->buckets[opcode][bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counts->total_ns[opcode], took, memory_order_relaxed);
}

const char *
fsx_counts_name(uint32_t opcode)
{
    return opcode < FSX_OPCODES ? names[opcode] : NULL;
}
