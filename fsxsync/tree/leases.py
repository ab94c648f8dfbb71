"""Who else has a file open? The kernel tells through file leases, which are granted to nobody else's harm only.

Whoever opens the file while a lease is held waits for us; the kernel's notice of that goes to SIGURG, which is ignored
by default: the default SIGIO would end the daemon. Source: fcntl(2), "Leases". The lease that keeps a file for a
release is taken in C (`_core.mark_released`).
"""

from __future__ import annotations

import errno
import fcntl
import signal


def is_open_for_writing(fd: int) -> bool:
    """Somebody has the file open for writing. ``fd`` is O_RDONLY. False also where the kernel won't tell (another
    user's file without CAP_LEASE, a file system without leases)."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return True  # we were stopped for longer than fs.lease-break-time, and whoever had waited was let in
    return False
