#include "channel_screen.h"

#include "channel_answer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel asks for security.capability before the first write to each file it met, and ls -l for
 * security.selinux. The mount shows none of these attributes (mount/metadata.py), so nobody has to
 * be woken for it. */
int
fsx_screen_security(uint32_t opcode, const char *buffer, size_t length)
{
    static const char prefix[] = "security.", selinux[] = "security.selinux";
    size_t at = sizeof(struct fuse_in_header) + sizeof(struct fuse_getxattr_in);

    if (opcode != FUSE_GETXATTR || length < at + sizeof prefix ||
        memcmp(buffer + at, prefix, sizeof prefix - 1) != 0) {
        return 0;
    }
    /* That it is unknown here altogether ls asks once, and not of each file. */
    return length == at + sizeof selinux && memcmp(buffer + at, selinux, sizeof selinux) == 0
               ? EOPNOTSUPP
               : ENODATA;
}

/* A page that an application had written, and that the kernel brings out when it may. */
static bool
is_of_a_page(const char *buffer, size_t length)
{
    struct fuse_write_in write;

    if (length < sizeof(struct fuse_in_header) + sizeof write) {
        return false;
    }
    memcpy(&write, buffer + sizeof(struct fuse_in_header), sizeof write);
    return (write.write_flags & FUSE_WRITE_CACHE) != 0;
}

/* A daemon that touches its own mount may wait for itself, unkillably. What ends something is no
 * touch, and what belongs to nobody must not be lost. */
bool
fsx_screen_is_our_own(pid_t process, const struct fuse_in_header *head, const char *buffer,
                      size_t length)
{
    switch (head->opcode) {
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_INTERRUPT:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return false;
    default:
        return head->pid != 0 && !(head->opcode == FUSE_WRITE && is_of_a_page(buffer, length)) &&
               syscall(SYS_tgkill, process, head->pid, 0) == 0;
    }
}

/* A thread that was killed, or is gone. Any other signal has to wait: programs do not expect
 * open(2) and truncate(2) of a file to be interrupted. */
static bool
is_dying(uint32_t pid)
{
    char path[48], line[128];
    unsigned long long pending = 0;
    FILE *status;

    (void)snprintf(path, sizeof path, "/proc/%u/status", pid);
    status = fopen(path, "re");
    if (status == NULL) {
        return true;
    }
    while (fgets(line, sizeof line, status) != NULL &&
           sscanf(line, "SigPnd: %llx", &pending) != 1) {
    }
    (void)fclose(status);
    return (pending >> (SIGKILL - 1) & 1) != 0; /* the kernel makes one of all fatal signals */
}

/* Whoever was killed while it waits for data need not wait for it to die: pyfuse3 does not know
 * INTERRUPT. False: nothing was done. */
bool
fsx_screen_gives_up(struct fsx_pending *awaited, int device, const char *buffer, size_t length)
{
    struct fuse_interrupt_in in;
    uint32_t pid;

    if (length < sizeof(struct fuse_in_header) + sizeof in) {
        return false;
    }
    memcpy(&in, buffer + sizeof(struct fuse_in_header), sizeof in);
    pid = fsx_pending_waits(awaited, in.unique);
    if (pid == 0 || !is_dying(pid) || !fsx_pending_give_up(awaited, in.unique)) {
        return false;
    }
    fsx_answer_error(device, in.unique, EINTR);
    return true;
}
