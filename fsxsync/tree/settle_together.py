"""Settling (`stubs.unmark`) many files at a time: the disk is waited for twice in all, not twice for each."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from fsxsync import _core
from fsxsync.crashpoint import each_durable
from fsxsync.errors import FsxSyncError, LocalChanged
from fsxsync.model.identity import Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree import stubs
from fsxsync.tree.beneath import translated, tree_error
from fsxsync.tree.identify import local_of_core
from fsxsync.tree.moments import Moments


class Garbled(LocalChanged):
    """What lies on the disk is not what was written there."""

    def __init__(self, key: str) -> None:
        super().__init__(f"loading {key}", "its bytes are not those that came from the store")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A stub of ``size`` bytes that are all here; ``crc`` is their CRC64NVME as they came, times are the object's."""

    fd: int
    size: int
    key: str
    mtime_ns: int
    atime_ns: int
    crc: int


def compare(root_fd: int, files: Sequence[Arrived]) -> list[bytes | FsxSyncError]:
    """The XXH3-128 of each, whose bytes are durable then; or what is wrong with it, `Garbled` for one. Blocking.

    Raises:
        NoSpace. TreeError: not all of it may be durable.
    """
    read = _core.hash_many([(file.fd, file.size) for file in files])
    digests = [_compared(file, found) for file, found in zip(files, read, strict=True)]
    _flush(root_fd, files)
    return digests


def _compared(file: Arrived, found: tuple[bytes, int] | int) -> bytes | FsxSyncError:
    if isinstance(found, int):
        if found == 0:
            return LocalChanged("hashing a file", "it became shorter meanwhile")
        return tree_error(OSError(found, os.strerror(found)), "hashing a file")
    digest, crc = found
    return digest if crc == file.crc else Garbled(file.key)


def unmark(
    root_fd: int, dev: int, moments: Moments, files: Sequence[Arrived], marks: Sequence[StubMark | None]
) -> list[Local | FsxSyncError | None]:
    """As `stubs.unmark` for each that has a mark here, after `compare`: its state, or why it stays a stub. Blocking.

    Raises:
        NoSpace. TreeError: not all of it may be durable.
    """
    states: list[Local | FsxSyncError | None] = [None] * len(files)
    asked = [(place, file, mark) for place, (file, mark) in enumerate(zip(files, marks, strict=True)) if mark]
    told = each_durable("stub.unmark", _unmark, [(file, mark) for _, file, mark in asked])
    for (place, file, mark), (what, number, status) in zip(asked, told, strict=True):
        if status is not None:
            states[place] = local_of_core(status, dev)
        elif what == _core.UNMARK_OTHER or number == errno.EACCES:
            states[place] = _look_closer(file, dev, moments, mark)
        else:
            states[place] = tree_error(OSError(number, os.strerror(number)), f"settling {file.key}")
    _flush(root_fd, files)
    return states


def _unmark(files: Sequence[tuple[Arrived, StubMark]]) -> list[tuple[int, int, _core._Status | None]]:
    asked = [(file.fd, mark.encode(), mark.size, file.mtime_ns, file.atime_ns) for file, mark in files]
    return _core.unmark_many(XATTR, asked)


def _look_closer(file: Arrived, dev: int, moments: Moments, mark: StubMark) -> Local | FsxSyncError:
    """Its mark is not byte for byte what we would write today, or it is a read-only file of an ordinary user's."""
    try:
        return stubs.unmark(file.fd, dev, moments, mark, mtime_ns=file.mtime_ns, atime_ns=file.atime_ns, flushes=False)
    except FsxSyncError as error:
        return error


def _flush(root_fd: int, files: Sequence[Arrived]) -> None:
    with translated("flushing", b""):
        if len(files) == 1:
            os.fsync(files[0].fd)  # a flush of everything may have to wait for what others write (DESIGN §5)
        else:
            _core.syncfs(root_fd)
            for number in _core.write_errors([file.fd for file in files]):
                if number:
                    raise OSError(number, os.strerror(number))
