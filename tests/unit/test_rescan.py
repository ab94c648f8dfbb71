"""A scan of the tree while something else changes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import MTIME_NS, World, is_stub

from fsxsync.model.identity import Local, base_of
from fsxsync.sync.intake import Intake
from fsxsync.sync.rescan import ScanRefused, rescan
from fsxsync.tree.tree import Tree


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def synced(world: World, name: str) -> None:
    world.stub(name, b"data")
    local, remote = world.tree.identify(name.encode()), await world.store.head(name)
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))


@pytest.mark.parametrize("stays", [True, False])
async def test_what_an_import_puts_there_while_it_runs_is_not_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """The directory was read before the stubs came, and the rows after: that once stopped an association's first
    import as a mass delete. What really went still does."""
    await synced(world, "a")
    names = [f"b{number:03d}" for number in range(150)]
    read = [(path, local) for path, local in world.tree.walk(b"")]
    for name in names:
        await synced(world, name)
    rows = {name: world.catalog.files.get("dra-1", name.encode()) for name in names}
    for name in names:
        world.catalog.files.delete("dra-1", name.encode())

    def late(_: Tree, __: bytes, ___: int = 500) -> Iterator[list[tuple[bytes, Local]]]:
        for name, row in rows.items():
            assert row is not None
            trio.from_thread.run_sync(world.catalog.files.put, row)  # a walk is a worker thread's
            if not stays:
                (world.base / "tree" / name).unlink()
        yield read

    async with world.daemon() as daemon:
        intake = Intake(daemon.shared, lambda _: daemon.served)

        monkeypatch.setattr(Tree, "walk_batches", late)
        if stays:
            assert await rescan(daemon.served, intake) == 1
        else:
            with pytest.raises(ScanRefused, match="150 of 151 known files are gone"):
                await rescan(daemon.served, intake)
    assert world.catalog.changelog.count("dra-1")[0] == 0


@pytest.mark.parametrize("ended", ["killed", "in order", "touched"])
async def test_a_file_that_came_when_its_daemon_was_killed_has_its_own_time(world: World, ended: str) -> None:
    """Loaded in one piece nothing is remembered of it, and each `kill -9` would make it a newer file."""
    await synced(world, "f")
    path = world.base / "tree/f"
    life = world.killed_daemon if ended == "killed" else world.daemon
    if ended == "touched":
        os.utime(path, ns=(7, 7))
    else:
        async with life() as daemon:
            daemon.mover.passing = set()
            with daemon.reader("f") as reader:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(reader.read, 0, 4)
                    await daemon.mover.until(1)
                    await daemon.idle()
                    tasks.cancel_scope.cancel()
        if ended == "killed":
            with path.open("r+b") as stream:
                stream.write(b"da")

    async with world.daemon() as daemon:
        await rescan(daemon.served, Intake(daemon.shared, lambda _: daemon.served))
    assert path.stat().st_mtime_ns == (7 if ended == "touched" else MTIME_NS)
    assert is_stub(path)
    if ended == "killed":
        assert path.read_bytes()[:2] == b"da"  # nothing is destroyed
