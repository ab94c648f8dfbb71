"""An object that goes while it is imported, when its directories are there already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import ObjectChanged
from fsxsync.sync import importer
from fsxsync.sync.acting import Next
from fsxsync.sync.look import look

A = "dra-1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def told(name: str) -> Entry:
    return Entry(A, name.encode(), False, True, None, 0, 0, 1, 0, None, None, "")


async def goes_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """``d/e/f`` is about to be placed when its object goes, and is looked at again."""

    async def gone(*_: object) -> None:
        world.store.outside_delete("d/e/f")
        raise ObjectChanged("reading of d/e/f", "it is not there")

    world.store.outside_put("d/e/f", b"theirs")
    async with world.daemon() as daemon:
        with monkeypatch.context() as patch:
            patch.setattr(importer, "stage", gone)
            with pytest.raises(ObjectChanged):
                await look(daemon.served, told("d/e/f"))
        assert (world.tree.root / "d/e").is_dir()
        assert (await look(daemon.served, told("d/e/f"))).next is Next.DONE


async def test_what_went_before_it_came_leaves_no_directories(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await goes_meanwhile(world, monkeypatch)
    assert list(world.tree.root.iterdir()) == []
    assert world.catalog.files.count(A) == 0


async def test_directories_that_others_lie_in_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.outside_put("d/x", b"theirs, too")
    async with world.daemon() as daemon:
        assert (await look(daemon.served, told("d/x"))).next is Next.DONE
    await goes_meanwhile(world, monkeypatch)
    assert [path.name for path in (world.tree.root / "d").iterdir()] == ["x"]
    assert {base.path for base in world.catalog.files.iterate(A)} == {b"d", b"d/x"}


@pytest.mark.parametrize("made", ["a file", "a mode"])
async def test_directories_that_somebody_uses_here_stay(
    world: World, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    remove = importer.remove_needless_parents

    def used(*arguments: object) -> None:
        if made == "a file":
            (world.tree.root / "d/e/mine").write_bytes(b"mine")
        else:
            (world.tree.root / "d/e").chmod(0o700)
        remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importer, "remove_needless_parents", used)
    await goes_meanwhile(world, monkeypatch)
    assert (world.tree.root / "d/e").is_dir()
    assert {base.path for base in world.catalog.files.iterate(A)} == {b"d", b"d/e"}
