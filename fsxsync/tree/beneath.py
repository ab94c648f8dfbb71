"""Every path below the tree's root is opened here: beneath the root, and through no symlink (DESIGN §3.7).

Descriptors are O_PATH wherever possible: they pin an inode, so that what was checked is what is changed, whatever
happens to the name meanwhile. `proc_path` names such an inode for the calls that take no descriptor of this kind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from fsxsync import _core
from fsxsync.errors import FsxSyncError, LocalChanged, NoSpace, PathEscapes, TreeError

RESOLVE = _core.RESOLVE_BENEATH | _core.RESOLVE_NO_SYMLINKS | _core.RESOLVE_NO_MAGICLINKS
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Nothing of ours stands at such a path. ELOOP too: below a symlink there is no path of the tree."""

_DOTS = {b".", b".."}
_BETWEEN = b"/\n"
_ODD = (b"\n/", b"\n.", b"/.", b"\0")
"""One of these is in paths joined by `_BETWEEN` if `check_path` refuses one of them."""
_MOVED = frozenset(
    {
        errno.EEXIST,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.ESTALE,
        errno.EAGAIN,
        errno.ETXTBSY,
    }
)


def shown(path: bytes) -> str:
    """A path as messages show it."""
    return "/" + path.decode("utf-8", "backslashreplace")


def tree_error(error: OSError, what: str) -> FsxSyncError:
    """The error of errors.py that an OSError of this room means. Raise it ``from`` the OSError."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(what, why)
    if error.errno in {errno.ELOOP, errno.EXDEV}:
        return PathEscapes(what, "a symlink, a mount or '..' leads out of the tree")
    if error.errno in _MOVED:
        return LocalChanged(what, why)
    translated = TreeError(what, why)
    translated.errno = error.errno or errno.EIO
    return translated


@contextmanager
def translated(what: str, path: bytes) -> Iterator[None]:
    """Turn every OSError of the block into an error of errors.py."""
    try:
        yield
    except OSError as error:
        raise tree_error(error, f"{what} {shown(path)}") from error


def check_path(path: bytes) -> None:
    """Refuse what is no path below the root.

    Raises:
        PathEscapes: absolute, a ``.`` or ``..`` component, a NUL.
    """
    if path.startswith(b"/") or b"\0" in path or (b"." in path and not _DOTS.isdisjoint(path.split(b"/"))):
        raise PathEscapes(f"the path {shown(path)}", "it is no path below the tree's root")


def check_paths(paths: Collection[bytes]) -> None:
    """The same for each of many, in a tenth of the time where no name begins with a dot.

    Raises:
        PathEscapes.
    """
    together = _BETWEEN.join((b"", *paths))
    if any(odd in together for odd in _ODD):
        for path in paths:
            check_path(path)


def split(path: bytes) -> tuple[bytes, bytes]:
    """(parent, name). The name is one that a call relative to a descriptor may be given.

    Raises:
        PathEscapes: as `check_path`, or no name at all.
    """
    check_path(path)
    parent, _, name = path.rpartition(b"/")
    if not name:
        raise PathEscapes(f"the path {shown(path)}", "it has no name at its end")
    return parent, name


def open_beneath(root_fd: int, path: bytes, flags: int) -> int:
    """Open ``path`` (b"" is the root). Raises OSError, PathEscapes."""
    check_path(path)
    return _core.openat2(root_fd, path or b".", flags, 0, RESOLVE)


def open_pinned(root_fd: int, path: bytes) -> int:
    """An O_PATH descriptor on what stands at the path itself, a symlink included. Raises OSError, PathEscapes."""
    return open_beneath(root_fd, path, os.O_PATH | os.O_NOFOLLOW)


@contextmanager
def parent_of(root_fd: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory that a path lies in (O_PATH), and the name in it. Raises OSError, PathEscapes."""
    parent, name = split(path)
    fd = open_beneath(root_fd, parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)


def proc_path(fd: int) -> str:
    """A name for the inode behind any descriptor, for calls that refuse O_PATH ones."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def keeping_times(directory_fd: int) -> Iterator[None]:
    """Give a directory its times back after entries were moved in or out: imports do not touch them."""
    before = os.fstat(directory_fd)
    yield
    try:
        os.utime(proc_path(directory_fd), ns=(before.st_atime_ns, before.st_mtime_ns))
    except PermissionError:
        return  # another user's directory that we may write to: its times are what the kernel made them
