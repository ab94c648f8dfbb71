"""Are the bytes of a file those of its object? Asked before a stub's mark goes, and before a small file is shown."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from fsxsync.errors import ObjectDamaged, RepositoryError
from fsxsync.model.checksum import Algorithm, Checksum
from fsxsync.model.stub import StubMark
from fsxsync.ports import ObjectStore
from fsxsync.transfer import checksums
from fsxsync.tree.beneath import translated

SMALL = 64 << 10
"""Bytes that are hashed sooner than a thread is found for it."""
PATIENCE_S = 10.0
"""A store that does not answer holds up nobody who wants to write: all bytes are here."""


async def fits(fd: int, size: int, crc64nvme: int, told: Sequence[Checksum]) -> bool | None:
    """Compare a file with what its object's headers told; ``crc64nvme`` is the file's. None: nothing to tell by.

    Raises:
        LocalChanged: the file is shorter. TreeError.
    """
    chosen = checksums.choose(told)
    if chosen is None:
        return None
    if chosen.algorithm is Algorithm.CRC64NVME:
        return crc64nvme.to_bytes(8, "big") == chosen.value
    with translated("comparing a file with its object", b""):
        if size <= SMALL:
            return checksums.compute(fd, size, chosen.algorithm) == chosen.value
        return await trio.to_thread.run_sync(checksums.compute, fd, size, chosen.algorithm) == chosen.value


async def checksums_of(store: ObjectStore, mark: StubMark) -> tuple[Checksum, ...]:
    """What the store tells of the version that a stub stands for; nothing where it can't be asked, or has another."""
    with trio.move_on_after(PATIENCE_S):
        try:
            remote = await store.head(mark.key)
        except RepositoryError:
            return ()
        if remote is not None and (remote.etag, remote.size) == (mark.etag, mark.size):
            return remote.checksums
    return ()


def damaged_object(key: str, told: Sequence[Checksum]) -> ObjectDamaged:
    return ObjectDamaged(f"download of {key}", f"its bytes don't fit its checksum, {checksums.choose(told)}")
