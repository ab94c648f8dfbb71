/* What stat(2) says, as the tuple that Python makes a Local of. */
#ifndef FSX_LOOK_H
#define FSX_LOOK_H

#include "module.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* (mode, device, inode, size, mtime_ns, ctime_ns, uid, gid, nlink, atime_ns, blocks) and up to
 * three more; new references, which are stolen, NULL for fewer. NULL with an exception set. */
PyObject *fsx_status_tuple(const struct stat *status, PyObject *more[3]);

/* An open below root_fd, through no symlink. A descriptor, or -1 with errno. */
int fsx_open_beneath(int root_fd, const char *path, int flags);

int64_t fsx_time_ns(const struct timespec *time);

struct timespec fsx_timespec(int64_t ns);

#endif
