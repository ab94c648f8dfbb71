/* LD_PRELOAD: /dev/fuse as it was before Linux 6.9. INIT does not offer FUSE_PASSTHROUGH, and no
 * ioctl knows of backing files. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PASSTHROUGH_IN_FLAGS2 (1u << (37 - 32))
#define FLAGS2_AT (sizeof(struct fuse_in_header) + 4 * sizeof(uint32_t))
#define BACKING_OPEN 1 /* FUSE_DEV_IOC_BACKING_OPEN and _CLOSE, which old headers lack */
#define BACKING_CLOSE 2

static int
is_fuse(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(10, 229);
}

ssize_t
read(int fd, void *buffer, size_t size)
{
    ssize_t got = syscall(SYS_read, fd, buffer, size);
    struct fuse_in_header head;
    uint32_t flags2;
    char *bytes = buffer;

    if (got < (ssize_t)(FLAGS2_AT + sizeof flags2) || !is_fuse(fd)) {
        return got;
    }
    memcpy(&head, bytes, sizeof head);
    if (head.opcode == FUSE_INIT) {
        memcpy(&flags2, bytes + FLAGS2_AT, sizeof flags2);
        flags2 &= ~PASSTHROUGH_IN_FLAGS2;
        memcpy(bytes + FLAGS2_AT, &flags2, sizeof flags2);
    }
    return got;
}

int
ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((_IOC_NR(request) == BACKING_OPEN || _IOC_NR(request) == BACKING_CLOSE) && is_fuse(fd)) {
        errno = ENOTTY;
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
