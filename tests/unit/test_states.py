"""`States`: of a whole tree, from what a walk reads and the catalog knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.problems import Problem
from fsxsync.model.identity import base_of
from fsxsync.ports import FileState
from fsxsync.sync import states
from fsxsync.sync.states import States


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


@pytest.mark.parametrize("noisy", [states.NOISY, 3, 1])
async def test_what_is_pending_or_wrong_is_told_among_what_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch, noisy: int
) -> None:
    """Where too much is pending to be read at once, each is asked for."""
    monkeypatch.setattr(states, "NOISY", noisy)
    for name in "abcd":
        await synced(world, name)
    hint = Hint("dra-1", b"b", local=True, remote=False)
    world.catalog.changelog.add([hint, Hint("dra-1", b"bb", local=True, remote=False)], now_ns=1, delay_ns=0, cap_ns=0)
    world.catalog.problems.put(Problem("dra-1", b"c", "lost", "InternalError", "its object is gone", 1))
    async with world.daemon() as daemon:
        told = States(world.tree, lambda _: daemon.served, daemon.hydrator.resident_bytes)

        found: dict[str, FileState] = {one.path: one async for some in told.told([b""], recursive=True) for one in some}

    assert [path for path in found if path] == ["a", "b", "c", "d"]
    assert [found[path].pending for path in "abcd"] == [False, True, False, False]
    assert [found[path].error for path in "abcd"] == [None, None, "its object is gone", None]
    assert found["c"].flags == ("released", "exists", "lost_from_hsm")
    assert found["a"]._replace(path="d", key="d", etag=found["d"].etag) == found["d"]


async def test_batches_end_anywhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "d", "z"):
        await synced(world, name)
    (world.base / "tree/deep/er").mkdir(parents=True)
    (world.base / "tree/deep/er/f").touch()
    async with world.daemon() as daemon:
        told = States(world.tree, lambda _: daemon.served, daemon.hydrator.resident_bytes)
        whole = [one async for some in told.told([b""], recursive=True) for one in some]
        monkeypatch.setattr(states, "BATCH", 1)

        assert [one async for some in told.told([b""], recursive=True) for one in some] == whole

    assert [one.path for one in whole] == ["", "a", "d", "deep", "deep/er", "deep/er/f", "z"]
