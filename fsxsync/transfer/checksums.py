"""A file's bytes against the checksum that a store told of the whole object."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence

import awscrt.checksums

from fsxsync import _core
from fsxsync.errors import LocalChanged
from fsxsync.model.checksum import Algorithm, Checksum

_BLOCK = 1 << 20

_LENGTHS = {
    Algorithm.CRC64NVME: 8,
    Algorithm.CRC32C: 4,
    Algorithm.CRC32: 4,
    Algorithm.MD5: 16,
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
}
"""Bytes of each digest. A value of another length (part of a composite one, say) is compared with nothing."""


def choose(checksums: Sequence[Checksum]) -> Checksum | None:
    """The one that costs least to compute, in `Algorithm`'s order; None if there is none that a file can have."""
    if not checksums:
        return None
    fitting = {checksum.algorithm: checksum for checksum in checksums if len(checksum.value) == _length(checksum)}
    return next((fitting[algorithm] for algorithm in Algorithm if algorithm in fitting), None)


def compute(fd: int, size: int, algorithm: Algorithm) -> bytes:
    """The digest of the first ``size`` bytes of a file, the highest byte first; the file's position stays where it is.

    Blocking, for a worker thread; other threads run meanwhile.

    Raises:
        LocalChanged: the file is shorter. OSError: it can't be read.
    """
    if algorithm is Algorithm.CRC64NVME:
        try:
            return _core.crc64nvme_range(fd, 0, size).to_bytes(8, "big")
        except EOFError as error:
            raise _shorter() from error
    if algorithm is Algorithm.CRC32:
        return _crc(zlib.crc32, fd, size)
    if algorithm is Algorithm.CRC32C:
        return _crc(awscrt.checksums.crc32c, fd, size)
    digest = hashlib.new(algorithm.value, usedforsecurity=False)
    for block in _blocks(fd, size):
        digest.update(block)
    return digest.digest()


def of_body(body: bytes) -> int:
    """CRC64NVME of what is sent in one request."""
    return _core.crc64nvme(body)


def matches(fd: int, size: int, checksums: Sequence[Checksum]) -> bool | None:
    """Are the first ``size`` bytes the object's? None: there is no checksum to tell by. Blocking.

    Raises:
        LocalChanged, OSError: as `compute`.
    """
    chosen = choose(checksums)
    return None if chosen is None else compute(fd, size, chosen.algorithm) == chosen.value


def _length(checksum: Checksum) -> int:
    return _LENGTHS[checksum.algorithm]


def _crc(update: Callable[[bytes, int], int], fd: int, size: int) -> bytes:
    crc = 0
    for block in _blocks(fd, size):
        crc = update(block, crc)
    return crc.to_bytes(4, "big")


def _blocks(fd: int, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size:
        block = os.pread(fd, min(_BLOCK, size - offset), offset)
        if not block:
            raise _shorter()
        offset += len(block)
        yield block


def _shorter() -> LocalChanged:
    return LocalChanged("reading a file", "it became shorter meanwhile")
