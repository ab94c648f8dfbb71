"""Whether and which files the kernel serves by itself, once they are open: FUSE passthrough, Linux 6.9 and later.

An open inode is in one of two modes, as long as anybody has it open: its pages are the mount's, filled by our
answers, or its reads and writes go straight to the host's file. The kernel answers EIO to an open in the other mode
(fs/fuse/iomode.c), so the first one to open it decides.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from pyfuse3 import InodeT

from fsxsync import _core
from fsxsync.mount.descriptors import proc_path

log = logging.getLogger(__name__)

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


class Backings:
    """The files that the kernel was given. Without a channel it is given none."""

    def __init__(self) -> None:
        self._channel: _core.Channel | None = None

    def attach(self, channel: _core.Channel) -> None:
        self._channel = channel

    def detach(self) -> None:
        """The channel is about to be closed, and with it the kernel forgets them all."""
        self._channel = None

    def open(self, fd: int, *, is_for_reading: bool) -> int:
        """A backing id for the file behind ``fd``; 0: it is served by us.

        What the kernel keeps must not count as somebody who writes (`mappings.Mappings`), so it gets a descriptor for
        reading: ``fd`` itself or a new one. It opens the file anew for each handle, in that handle's own mode.
        """
        if self._channel is None:
            return 0
        try:
            if is_for_reading:
                return self._channel.backing_open(fd)
            own = os.open(proc_path(fd), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return self._channel.backing_open(own)
            finally:
                os.close(own)
        except OSError as error:
            log.warning("a file is served without passthrough", extra={"why": str(error)})
            return 0

    def close(self, backing_id: int) -> None:
        if self._channel is not None:
            self._channel.backing_close(backing_id)

    def forget_attributes(self, nodeid: InodeT) -> bool:
        """Make the kernel ask for an inode's attributes the next time, before this returns. Never blocks. False if
        there is no way but the queue of `invalidate.KernelCache`."""
        if self._channel is None:
            return False
        try:
            self._channel.invalidate_inode(nodeid, True)
        except OSError as error:
            if error.errno != errno.ENOENT:  # it does not know the inode, or does not any more
                raise
        return True
