"""A whole object into a file that nobody sees yet, checked before anybody does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from fsxsync.errors import ObjectDamaged, ObjectMissing
from fsxsync.model.identity import Remote
from fsxsync.model.parts import chunk_size_for, plan_chunks
from fsxsync.model.stub import StubMark
from fsxsync.ports import ChunkJob, ObjectStore, Priority
from fsxsync.sync.served import Served
from fsxsync.transfer import checksums

Owners = Mapping[tuple[int, str], Sequence[str]]
"""Inode and ETag of stubs -> associations that have rows of them."""


async def load_object(served: Served, key: str, remote: Remote, fd: int) -> None:
    """Load the object and compare it with its checksum, where it has one; bytes that were damaged on their way are
    right the second time.

    Raises:
        ObjectDamaged: they were not. RepositoryError. NoSpace.
    """
    for _ in range(2):
        await _load(served, key, remote, fd)
        if await trio.to_thread.run_sync(checksums.matches, fd, remote.size, remote.checksums) is not False:
            return
    raise ObjectDamaged(f"download of {key}", f"its bytes don't fit its {checksums.choose(remote.checksums)}")


async def _load(served: Served, key: str, remote: Remote, fd: int) -> None:
    async def fetch(offset: int, length: int) -> None:
        job = ChunkJob(served.store, key, remote.etag, remote.version_id, remote.size, fd, offset, length)
        await served.shared.mover.fetch(job, Priority.PRELOAD)

    try:
        async with trio.open_nursery() as nursery:
            for chunk in plan_chunks(remote.size, chunk_size_for(remote.size, served.shared.settings.chunk_size)):
                nursery.start_soon(fetch, chunk.offset, chunk.length)
    except* Exception as failures:
        raise first_leaf(failures) from failures


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a nursery's group: they fail for one reason, and callers act on its class."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def object_of(store: ObjectStore, mark: StubMark) -> Remote | None:
    """What a stub can be loaded from: the object if it still is that version, else the version itself, which a bucket
    keeps below a newer one or a delete marker. None: it is gone."""
    asked = [None] if mark.version_id is None else [None, mark.version_id]
    for version_id in asked if mark.key else ():
        seen = await store.head(mark.key, version_id=version_id)
        if seen is not None and (seen.etag, seen.size) == (mark.etag, mark.size):
            return seen
    return None


def owner_of(served: Served | None, ino: int, mark: StubMark, owners: Owners | None = None) -> Served:
    """The association whose store has a stub's data: the one that it stands in, or that it was moved out of behind us,
    as its old name's row tells. ``owners``: what `Files.released_owners` says, where it was asked for many at a time.

    Raises:
        ObjectMissing: it stands in none.
    """
    if served is None:
        raise ObjectMissing(f"reading {mark.key}", "its association is gone")
    if owners is None:
        owners = served.shared.catalog.files.released_owners([ino])
    names = owners.get((ino, mark.etag), ())
    return served if not names or served.id in names else served.shared.served.get(names[0], served)
