"""What stands at a path, now: `Local` without following a symlink, and the hash of a file's bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TypeAlias

from fsxsync import _core
from fsxsync.errors import LocalChanged
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.beneath import check_path, check_paths, proc_path, shown, tree_error

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_OTHER = Kind.OTHER  # the enumeration is asked for its members in five times as long
_MARK = (XATTR,)


def local_of(status: os.stat_result, dev: int, *, stub: StubMark | None = None, target: bytes | None = None) -> Local:
    """`Local` from what stat says. What lies on another device than ``dev`` is OTHER: it is not our tree."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.OTHER) if status.st_dev == dev else Kind.OTHER
    return Local(
        kind=kind,
        ino=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        atime_ns=status.st_atime_ns,
        blocks=status.st_blocks,
        stub=stub,
        target=target,
    )


def identify(root_fd: int, dev: int, path: bytes) -> Local | None:
    """What stands at the path; None if nothing does, or if a component above it is no directory.

    Everything is read from one pinned inode, so that no half of it belongs to another file.

    Raises:
        TreeError: the answer is unknown (EACCES, EIO). Never taken for "gone". PathEscapes.
    """
    check_path(path)
    try:
        found = _core.look(root_fd, path or b".", _MARK)
    except OSError as error:
        raise tree_error(error, f"looking at {shown(path)}") from error
    return None if found is None else _local_from(found, dev)


def identify_many(root_fd: int, dev: int, paths: Sequence[bytes]) -> list[Local | None]:
    """The same for each of many. Raises TreeError: one of the answers is unknown. PathEscapes."""
    check_paths(paths)
    looked: list[Local | None] = []
    for path, found in zip(paths, _core.look_many(root_fd, [path or b"." for path in paths], _MARK), strict=True):
        if isinstance(found, int):
            raise tree_error(OSError(found, os.strerror(found)), f"looking at {shown(path)}")
        looked.append(None if found is None else _local_from(found, dev))
    return looked


Stood: TypeAlias = tuple[bytes, int, int, int, int, int, int, int]
"""A regular file with one name: its path, and its `State`."""


def standing(root_fd: int, dev: int, files: Sequence[Stood]) -> list[bytes]:
    """Paths of those that still stand there, unchanged. Raises PathEscapes."""
    check_paths([one[0] for one in files])
    return [one[0] for one, stands in zip(files, _core.stand(root_fd, dev, files), strict=True) if stands]


def _local_from(found: _core._Looked, dev: int) -> Local:
    *_, mark, target = found
    return local_of_core(found[:11], dev, stub=None if mark is None else StubMark.decode(mark), target=target)


def local_of_core(
    status: _core._Status, dev: int, *, stub: StubMark | None = None, target: bytes | None = None
) -> Local:
    """`local_of` for what `_core` says of a file."""
    mode, device, ino, size, mtime_ns, ctime_ns, uid, gid, nlink, atime_ns, blocks = status
    kind = _KINDS.get(stat.S_IFMT(mode), _OTHER) if device == dev else _OTHER
    mode = stat.S_IMODE(mode)
    # By place: names take twice as long, and this is done for each file of each look.
    return Local(kind, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, atime_ns, blocks, stub, target)


def identify_fd(fd: int, dev: int) -> Local:
    """The same for an open descriptor, O_PATH ones included. Raises OSError."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return local_of(status, dev, stub=read_mark(fd))
    if stat.S_ISLNK(status.st_mode):
        return local_of(status, dev, target=os.readlink(b"", dir_fd=fd))
    return local_of(status, dev)


def read_mark(fd: int) -> StubMark | None:
    """The stub mark of a regular file, None if it has none. Raises OSError.

    A file that we may not read can't be asked (user xattrs obey the file's mode). It counts as unmarked: who may not
    read it can't export it either, and `open_read` asks again.
    """
    try:
        return StubMark.decode(os.getxattr(proc_path(fd), XATTR))
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES}:
            return None
        raise


def same_file(one: Local, other: Local | None) -> bool:
    """The same bytes under the same metadata, as far as a file tells that was renamed in between.

    ctime is left out: the rename itself changes it.
    """
    return other is not None and (
        (one.kind, one.ino, one.size, one.mtime_ns, one.mode, one.uid, one.gid, one.stub, one.target)
        == (
            other.kind,
            other.ino,
            other.size,
            other.mtime_ns,
            other.mode,
            other.uid,
            other.gid,
            other.stub,
            other.target,
        )
    )


def hash_file(fd: int, size: int) -> tuple[bytes, int]:
    """(XXH3-128, CRC64NVME) of the first ``size`` bytes. Blocking, without the GIL.

    Raises:
        LocalChanged: the file is shorter. TreeError.
    """
    try:
        return _core.hash_range(fd, 0, size)
    except EOFError as error:
        raise LocalChanged("hashing a file", "it became shorter meanwhile") from error
    except OSError as error:
        raise tree_error(error, "hashing a file") from error
