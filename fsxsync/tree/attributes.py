"""Our own extended attributes in the tree, for `fsxsync check`: each has its place, and belongs nowhere else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from fsxsync.crashpoint import durable
from fsxsync.model.flags import XATTRS
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import RESERVED_PREFIX, XATTR
from fsxsync.tree.beneath import ABSENT, open_pinned, proc_path, shown, tree_error
from fsxsync.tree.identify import identify_fd

_TELLS_NOTHING = frozenset({errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a path, and the reserved attributes on it that belong elsewhere."""

    local: Local
    misplaced: tuple[bytes, ...] = ()


def see(root_fd: int, dev: int, path: bytes) -> Seen | None:
    """Look at a path below the root; None if nothing stands there. Blocking.

    Raises:
        TreeError: the answer is unknown. PathEscapes.
    """
    try:
        fd = open_pinned(root_fd, path)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise tree_error(error, f"looking at {shown(path)}") from error
    try:
        local = identify_fd(fd, dev)
        return Seen(local, _misplaced(fd, local))
    except OSError as error:
        raise tree_error(error, f"looking at {shown(path)}") from error
    finally:
        os.close(fd)


def see_all(root_fd: int, dev: int, paths: Iterable[bytes]) -> list[Seen | None]:
    """The same for many: one hop to a worker thread."""
    return [see(root_fd, dev, path) for path in paths]


def take_off(root_fd: int, path: bytes, seen: Seen) -> None:
    """Remove the reserved attributes that were ``seen`` where none belongs; never a file's mark. Blocking.

    Raises:
        TreeError: it is not there any more, or the file system refused.
    """
    try:
        fd = open_pinned(root_fd, path)
        try:
            with durable("tree.xattrs"):
                for name in _misplaced(fd, seen.local):
                    if name in seen.misplaced:
                        os.removexattr(proc_path(fd), name)
        finally:
            os.close(fd)
    except OSError as error:
        raise tree_error(error, f"taking an attribute off {shown(path)}") from error


def _misplaced(fd: int, local: Local) -> tuple[bytes, ...]:
    if local.kind not in {Kind.FILE, Kind.DIRECTORY}:
        return ()  # user attributes are only on these two (xattr(7))
    try:
        names = os.listxattr(proc_path(fd))
    except OSError as error:
        if error.errno in _TELLS_NOTHING:
            return ()
        raise
    reserved = [name for name in map(os.fsencode, names) if name.startswith(RESERVED_PREFIX) and name not in XATTRS]
    return tuple(name for name in reserved if name != XATTR or local.kind is not Kind.FILE)
