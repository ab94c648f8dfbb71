"""Files that were created and not closed yet.

A regular file is looked at when its writer closes it. But not every CREATE is followed by a CLOSE_WRITE: a link
whose other name was removed at once, a file of O_TMPFILE that got its name by linkat(2), mknod(2). So who is created
and does not close is asked whether anybody writes to it, and reported once nobody does.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator

from fsxsync.tree.beneath import ABSENT, open_pinned, proc_path, tree_error
from fsxsync.tree.leases import is_open_for_writing
from fsxsync.tree.watches import Directory, Watches

AGAIN_S = 1.0
AGAIN_MAX_S = 60.0


class Created:
    """The files by place, with the pause until the next question in seconds."""

    def __init__(self, watches: Watches, root_fd: int) -> None:
        self._watches = watches
        self._root_fd = root_fd
        self._new: dict[tuple[Directory, bytes], float] = {}
        self._written: dict[tuple[Directory, bytes], tuple[float, float]] = {}
        self.next_s = math.inf
        """When somebody must be asked again, in trio's time."""

    def add(self, parent: Directory, name: bytes) -> None:
        self._new[parent, name] = AGAIN_S

    def __bool__(self) -> bool:
        return bool(self._new or self._written)

    def __contains__(self, place: tuple[Directory, bytes]) -> bool:
        return place in self._new or place in self._written

    def discard(self, parent: Directory, name: bytes) -> None:
        """It was reported, or its name is gone."""
        self._new.pop((parent, name), None)
        self._written.pop((parent, name), None)

    def due(self, now_s: float, *, everything: bool) -> Iterator[bytes | None]:
        """Ask, one file a step: the paths that are to be looked at, None for those that are not, or not yet.

        Raises:
            TreeError: the tree can't be read.
        """
        asked, self._new = self._new, {}
        if everything or self.next_s <= now_s:
            for place, (at_s, pause_s) in list(self._written.items()):
                if everything or at_s <= now_s:
                    del self._written[place]
                    asked[place] = pause_s
        for place, pause_s in asked.items():
            parent, name = place
            directory = self._watches.path(parent)
            if directory is None:
                continue
            path = directory + b"/" + name if directory else name
            if self._is_being_written(path):
                self._written[place] = (now_s + pause_s, min(2 * pause_s, AGAIN_MAX_S))
                yield None
            else:
                yield path
        self.next_s = min((at_s for at_s, _ in self._written.values()), default=math.inf)

    def _is_being_written(self, path: bytes) -> bool:
        """A regular file with one name that somebody has open for writing: CLOSE_WRITE is to come."""
        try:
            pinned = open_pinned(self._root_fd, path)
        except OSError as error:
            if error.errno in ABSENT:
                return False  # a removed file is reported once more, which harms nobody
            raise tree_error(error, "looking at a new file") from error
        try:
            status = os.fstat(pinned)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                return False
            fd = os.open(proc_path(pinned), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            # Somebody's lease or a file that is not ours to read: the look that follows says what is wrong with it.
            if error.errno in {errno.EAGAIN, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EIO, *ABSENT}:
                return error.errno == errno.EAGAIN
            raise tree_error(error, "looking at a new file") from error
        finally:
            os.close(pinned)
        try:
            return is_open_for_writing(fd)
        finally:
            os.close(fd)
