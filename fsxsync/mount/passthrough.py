"""Whether and which files the kernel serves by itself, once they are open: FUSE passthrough, Linux 6.9 and later.

An open inode is in one of two modes, as long as anybody has it open: its pages are the mount's, filled by our
answers, or its reads and writes go straight to the host's file. The kernel answers EIO to an open in the other mode
(fs/fuse/iomode.c), so the first one to open it decides.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fsxsync import _core

WORDS = ("auto", "on", "off")
"""What ``-o passthrough=`` takes. On: rather no mount than one without."""

_WHY_NOT = {
    errno.ENOSYS: "the kernel can't: it needs Linux 6.9 or later, built with CONFIG_FUSE_PASSTHROUGH",
    errno.EPERM: "it needs CAP_SYS_ADMIN",
    errno.ELOOP: "the tree's file system is stacked on another one, like overlayfs",
}


def why_not(tree_root: Path) -> str:
    """Why the kernel would not serve files of this tree by itself; empty if it would. Tried, not guessed."""
    if os.geteuid() != 0:
        return _WHY_NOT[errno.EPERM]
    try:
        fd = os.open(tree_root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return f"no file without a name can be made in the tree ({error.strerror})"
    try:
        _core.passthrough_probe(fd)
    except OSError as error:
        return _WHY_NOT.get(error.errno or 0, f"the kernel refuses it ({error.strerror})")
    finally:
        os.close(fd)
    return ""
