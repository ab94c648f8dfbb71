"""Blocks for a full disk: what makes room there needs some itself, for the marks of what it releases and for rows."""

from __future__ import annotations

import os
from pathlib import Path

from fsxsync import _core

SIZE = 4 << 20
"""A mark takes a block at most; so many are made before anything is freed (`sync.releaser`) that this is plenty."""
SHARE = 64
"""No more than that part of a small disk."""
AHEAD = 8 << 20
"""SQLite begins its log anew when it has 4 MiB."""
AHEAD_SHARE = 16


def allocate_ahead(fd: int) -> None:
    """Blocks for what will be appended to a file. Blocking. Raises OSError: there is no room for all of them; what
    there is has been taken."""
    status, disk = os.fstat(fd), os.fstatvfs(fd)
    ahead = min(AHEAD, disk.f_blocks * disk.f_frsize // AHEAD_SHARE)
    if status.st_blocks * 512 < status.st_size + ahead // 2:
        _core.fallocate(fd, _core.FALLOC_FL_KEEP_SIZE, status.st_size, ahead)


class Reserve:
    """A file of nothing but allocated blocks. ``take`` and ``lend`` block."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def take(self) -> None:
        """Allocate it, or what of it there is room for. Raises OSError: what there was room for is taken."""
        fd = os.open(self._place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            disk = os.fstatvfs(fd)
            size = min(SIZE, disk.f_blocks * disk.f_frsize // SHARE)
            if os.fstat(fd).st_blocks * 512 < size:
                _core.fallocate(fd, _core.FALLOC_FL_KEEP_SIZE, 0, size)
        finally:
            os.close(fd)

    def lend(self) -> None:
        """Give the blocks to whoever needs some now. Raises OSError."""
        self._place.unlink(missing_ok=True)
