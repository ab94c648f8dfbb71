"""Metadata that both sides changed: what only one of them changed reaches the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import MTIME_NS, World

from fsxsync.catalog.changelog import Entry
from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.identity import Kind, Posix, base_of
from fsxsync.ports import ObjectHeaders
from fsxsync.sync.acting import Next
from fsxsync.sync.look import look

TOLD = Entry("dra-1", b"d", True, True, None, 0, 0, 1, 0, None, None, "")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("wins", [OnConflict.REMOTE, OnConflict.LOCAL, OnConflict.KEEP_BOTH])
async def test_a_mode_that_was_set_here_is_exported_though_the_marker_is_new(world: World, wins: OnConflict) -> None:
    """Also where the repository wins: its marker has other times, and the mode that both knew."""
    directory = world.base / "tree/d"
    directory.mkdir(mode=0o755)
    status = directory.stat()
    known = Posix(0o755, status.st_uid, status.st_gid, MTIME_NS)
    await world.store.put("d/", b"", ObjectHeaders(posix=known, kind=Kind.DIRECTORY), replaces=None)
    local, remote = world.tree.identify(b"d"), await world.store.head("d/")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"d", local, remote))

    directory.chmod(0o700)
    newer = known._replace(mtime_ns=MTIME_NS + 10**9)
    await world.store.put("d/", b"", ObjectHeaders(posix=newer, kind=Kind.DIRECTORY), replaces=remote)
    async with world.daemon() as daemon:
        for _ in range(3):
            outcome = await look(daemon.served, TOLD, policy=Policy(on_conflict=wins))
    assert outcome.next is Next.DONE

    there = await world.store.head("d/")
    assert there is not None
    assert (directory.stat().st_mode & 0o777, there.posix.mode) == (0o700, 0o700)
