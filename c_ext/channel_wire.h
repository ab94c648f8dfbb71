/* The kernel's FUSE protocol, as far as the channel reads or writes it. */
#ifndef FSX_CHANNEL_WIRE_H
#define FSX_CHANNEL_WIRE_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* What the headers of older hosts lack (include/uapi/linux/fuse.h of Linux 6.18). Names of our own,
 * so that newer headers do no harm. Flags from bit 32 on travel in flags2. */
#define FSX_INIT_EXT (UINT64_C(1) << 30)
#define FSX_PASSTHROUGH (UINT64_C(1) << 37)
#define FSX_OPEN_PASSTHROUGH (UINT32_C(1) << 7)
/* Together with passthrough an open may carry these and no other (fs/fuse/iomode.c). */
#define FSX_OPEN_WITH_PASSTHROUGH (FSX_OPEN_PASSTHROUGH | FOPEN_DIRECT_IO | FOPEN_NOFLUSH)
#define FSX_COPY_FILE_RANGE_64 53u
#define FSX_SYNCFS 50u

struct fsx_init_in {
    uint32_t major, minor, max_readahead, flags, flags2, unused[11];
};

struct fsx_init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, max_stack_depth;
    uint16_t request_timeout, unused[11];
};

struct fsx_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};

struct fsx_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};

#define FSX_DEV_IOC_BACKING_OPEN _IOW(229, 1, struct fsx_backing_map)
#define FSX_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

/* A file handle, which the kernel only carries: our descriptor, a bit that says that its close(2)
 * need not be told, and above it the backing id, 0 for none (mount/handles.py). */
#define FSX_FH_NO_FLUSH (UINT64_C(1) << 31)

static inline int
fsx_fh_fd(uint64_t fh)
{
    return (int)(fh & INT32_MAX);
}

static inline int32_t
fsx_fh_backing(uint64_t fh)
{
    return (int32_t)(fh >> 32);
}

/* The most that one READ or WRITE carries. A message over a socket of this size never needs more
 * than 8 pages in a row (net/unix/af_unix.c), so that it does not fail where memory is in pieces.
 */
#define FSX_CHANNEL_PAYLOAD ((size_t)64 << 10)
/* What the kernel has to hand over at once: a WRITE with its headers, or a SETXATTR with its name.
 */
#define FSX_CHANNEL_MESSAGE (FSX_CHANNEL_PAYLOAD + 4096)

/* What the kernel offers in its INIT request; 0 if that is none. */
uint64_t fsx_init_offered(const void *request, size_t length);

/* Add to libfuse's answer to INIT what it does not know, and fit the sizes to the channel. `reply`
 * has room for `room` bytes; the new length. */
size_t fsx_init_rewrite(void *reply, size_t length, size_t room, uint64_t offered);

/* Answer INIT without libfuse, for a connection that is only tried; the length. */
size_t fsx_init_answer(void *reply, size_t room, const void *request, uint64_t offered);

/* Where the answer to OPEN or CREATE names a backing id in its handle, say so to the kernel. */
void fsx_open_rewrite(void *reply, size_t length, uint32_t opcode);

#endif
