"""The bytes of a stub that are there already: whether they still are what came, and giving their space back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.model.stub import XATTR
from fsxsync.tree.beneath import translated
from fsxsync.tree.identify import read_mark

BLOCK_MAX = 64 * 1024
"""Blocks of file systems are no larger than pages, and these are no larger than this."""


def chunk_crc64nvme(fd: int, offset: int, length: int) -> int | None:
    """CRC64NVME of a range; None if the file ends before it does. Blocking. Raises OSError."""
    try:
        return _core.crc64nvme_range(fd, offset, length)
    except EOFError:
        return None


def combined_crc64nvme(chunks: Iterable[tuple[int, int]]) -> int:
    """Of a file from those of its pieces, each with its length, in order."""
    crc = 0
    for piece, length in chunks:
        crc = _core.crc64nvme_combine(crc, piece, length)
    return crc


def holds_data(fd: int) -> bool:
    """Anything at all was written to the file, as far as its file system tells holes from data. Raises OSError."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def punch_all(fd: int, size: int) -> None:
    """A hole for all the data of a file. To the end of its last block: a part of a block is only zeroed, and kept.
    Raises OSError."""
    length = -(-size // BLOCK_MAX) * BLOCK_MAX
    _core.fallocate(fd, _core.FALLOC_FL_PUNCH_HOLE | _core.FALLOC_FL_KEEP_SIZE, 0, length)


def cut(fd: int) -> None:
    """Make an empty file of a stub. Raises OSError.

    Cut first: a crash in between leaves a mark on an empty file, which is imported again; the other order would leave a
    file of zeros without a mark (DESIGN §3.4).
    """
    with durable("stub.cut"):
        os.ftruncate(fd, 0)
    try:
        with durable("stub.unmark"):
            os.removexattr(fd, XATTR)
    except OSError as error:
        if error.errno != errno.ENODATA:  # it was loaded meanwhile
            raise


def put_back(fd: int, what: bytes, *, mtime_ns: int, atime_ns: int, punch: bool) -> None:
    """Give a stub the times it has to have, and with ``punch`` a hole for all its data. A file that carries no mark is
    left alone: what it holds is somebody's.

    Raises:
        NoSpace. TreeError.
    """
    with translated("restoring", what):
        if read_mark(fd) is None:
            return
        size = os.fstat(fd).st_size
        if punch and size:
            with durable("stub.punch"):
                punch_all(fd, size)
        os.utime(fd, ns=(atime_ns, mtime_ns))
