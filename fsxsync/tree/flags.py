"""Flags of files and directories (`model.flags`), and what these inherit from above."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from fsxsync import _core
from fsxsync.model.flags import XATTRS, Flags
from fsxsync.model.stub import XATTR
from fsxsync.tree.beneath import ABSENT, open_pinned, proc_path, shown, tree_error

_NAMES = tuple(os.fsdecode(name) for name in XATTRS)
_NO_FLAGS = Flags()
_LOOKED = (XATTR, *XATTRS)
_FLAGS = [Flags(*(bool(present & 1 << place) for place in range(len(XATTRS)))) for present in range(1 << len(XATTRS))]
_NONE = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})
"""It carries none, can carry none (a symlink), or can't be asked: then only what lies above it counts."""


class FlagReader:
    """Reads flags. Directories are asked once each: made anew for every decision, and dropped after it."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._directories: dict[bytes, Flags] = {}
        self._read: dict[bytes, Flags] = {}

    def read(self, paths: Sequence[bytes]) -> None:
        """Read those of many at once, so that `of` need not for each."""
        looked = _core.look_many(self._root_fd, [path or b"." for path in paths], _LOOKED)
        for path, found in zip(paths, looked, strict=True):
            if not isinstance(found, int):  # else `of` says what is wrong
                self._read[path] = _NO_FLAGS if found is None else _FLAGS[found[11] >> 1]

    def of(self, path: bytes) -> Flags:
        """The flags of what stands at the path, its own and inherited ones. Raises TreeError."""
        return self._own(path) | (self.inside(path.rpartition(b"/")[0]) if path else Flags())

    def inside(self, path: bytes) -> Flags:
        """What all has that lies directly in the directory. Raises TreeError."""
        unread: list[bytes] = []
        while (found := self._directories.get(path)) is None and path:
            unread.append(path)
            path = path.rpartition(b"/")[0]
        if found is None:
            found = self._directories[path] = self._own(path)
        for directory in reversed(unread):  # one by one: it may lie deeper than Python can call itself
            found = self._directories[directory] = self._own(directory) | found
        return found

    def _own(self, path: bytes) -> Flags:
        if (read := self._read.get(path)) is not None:
            return read
        try:
            fd = open_pinned(self._root_fd, path)
        except OSError as error:
            if error.errno in ABSENT:
                return _NO_FLAGS
            raise tree_error(error, f"looking at {shown(path)}") from error
        try:
            names = os.listxattr(proc_path(fd))
            return Flags(*(name in names for name in _NAMES)) if names else _NO_FLAGS
        except OSError as error:
            if error.errno in _NONE:
                return _NO_FLAGS
            raise tree_error(error, f"looking at {shown(path)}") from error
        finally:
            os.close(fd)
