"""Who else has a file open? The kernel tells through file leases, which are granted to nobody else's harm only.

A lease is held for microseconds. Whoever opens the file meanwhile waits for us; the kernel's notice of that goes to
SIGURG, which is ignored by default: the default SIGIO would end the daemon. Source: fcntl(2), "Leases".
"""

from __future__ import annotations

import errno
import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from fsxsync.errors import LocalChanged


def is_open_for_writing(fd: int) -> bool:
    """Somebody has the file open for writing. ``fd`` is O_RDONLY. False also where the kernel won't tell (another
    user's file without CAP_LEASE, a file system without leases)."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@contextmanager
def alone_with(fd: int, what: str) -> Iterator[bool]:
    """Nobody else has the file open, and whoever opens it meanwhile waits until the block ends. True: so it is.

    Where the kernel grants no lease (see `is_open_for_writing`) the block runs without: its own checks must do.

    Raises:
        LocalChanged: somebody has it open.
    """
    held = True
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise LocalChanged(what, "it is open") from error
        held = False
    try:
        yield held
    finally:
        if held:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def is_wanted(fd: int) -> bool:
    """Somebody waits for the end of our lease (`alone_with`), or did not wait any longer."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK
