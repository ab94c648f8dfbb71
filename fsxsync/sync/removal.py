"""Taking an association away without losing what is only in the repository, and without deleting an object."""

from __future__ import annotations

import os

import trio

from fsxsync.errors import LocalChanged, StillPending
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.served import Served, Shared

PARALLEL = 16


def released_count(served: Served) -> int:
    """Files whose data is only in the repository."""
    return served.shared.catalog.files.counts(served.id)[1]


async def hydrate_all(served: Served, hydrator: StubHydrator) -> None:
    """Load every released file. Raises what the first failing download raised."""
    tree = served.shared.tree
    slots = trio.Semaphore(PARALLEL)

    async def load(tree_path: bytes) -> None:
        async with slots:
            local = tree.identify(tree_path)
            if local is None or local.stub is None:
                return
            fd = tree.open_read(tree_path, local)
            try:
                await hydrator.make_resident(tree_path, fd)
            finally:
                os.close(fd)

    async with trio.open_nursery() as nursery:
        for row in served.shared.catalog.files.iterate(served.id):
            if row.released:
                nursery.start_soon(load, served.tree_path(row.path))
                await trio.lowlevel.checkpoint()


async def remove_tree(shared: Shared, directory: bytes) -> None:
    """Remove everything below an association's directory, and the directory. The association is gone already,
    so that no hint turns this into deletes of objects (DESIGN §3.6).

    Raises:
        StillPending: some of it is in use, and stays.
    """
    found: list[bytes] = []
    batches = shared.tree.walk_batches(directory)
    while batch := await trio.to_thread.run_sync(next, batches, None):
        found.extend(path for path, _ in batch)
    in_use = sum(not _remove(shared, path) for path in reversed(found))
    if directory and not in_use:
        _remove(shared, directory)
    if in_use:
        raise StillPending(
            f"data below /{directory.decode('utf-8', 'backslashreplace')}",
            f"{in_use} files and directories are in use and stay; the association is deleted",
            advice="remove them by hand",
        )


def _remove(shared: Shared, path: bytes) -> bool:
    """False if somebody uses it, or put something into it."""
    local = shared.tree.identify(path)
    if local is None:
        return True
    try:
        shared.tree.remove(path, local)
    except LocalChanged:
        return False
    shared.invalidate(path, local.ino, data=True)
    return True
