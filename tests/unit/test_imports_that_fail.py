"""An import that fails, at whatever step and as often as it is tried, leaves nothing in the staging directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
from support.hydrating import Daemon, World

from fsxsync import _core
from fsxsync.errors import LocalChanged, NoSpace, TreeError
from fsxsync.model.identity import Local, Remote, base_of
from fsxsync.sync import importer
from fsxsync.sync.reconcile import Action, Verdict

NAME = b"f"
OLD, NEW = b"what is here", b"what comes, longer"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def here(world: World, name: bytes = NAME) -> Local:
    local = world.tree.identify(name)
    assert local is not None
    return local


async def there(world: World) -> Remote:
    remote = await world.store.head(NAME.decode())
    assert remote is not None
    return remote


async def import_new(world: World, daemon: Daemon) -> None:
    action = Action(Verdict.IMPORT, None, None, await there(world))
    await importer.import_object(daemon.served, NAME, action)


async def import_over(world: World, daemon: Daemon) -> None:
    action = Action(Verdict.IMPORT, None, here(world), await there(world))
    await importer.import_object(daemon.served, NAME, action)


async def keep_both(world: World, daemon: Daemon) -> None:
    action = Action(Verdict.IMPORT, None, here(world), await there(world))
    await importer.keep_both(daemon.served, NAME, action)


async def load_moved(world: World, daemon: Daemon) -> None:
    await importer.load_moved(daemon.served, NAME, here(world), daemon.served)


async def load_astray(world: World, daemon: Daemon) -> None:
    base = base_of("dra-1", NAME, here(world), await there(world))

    async def found(_ino: int) -> bytes:
        return NAME

    daemon.shared.outside.path_of = found  # type: ignore[method-assign]
    await importer.load_astray(daemon.served, base)


def no_room(*_args: Any, **_more: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def dress_fails(patch: pytest.MonkeyPatch, world: World) -> None:
    def dress(*_: Any) -> NoReturn:
        raise TreeError("staging", "an error of the disk")

    patch.setattr(importer, "dress", dress)
    patch.setattr(world.tree, "dress_staged", dress)


def finish_fails(patch: pytest.MonkeyPatch, _world: World) -> None:
    patch.setattr(os, "fsync", no_room)


def note_fails(patch: pytest.MonkeyPatch, _world: World) -> None:
    """Of what stood there; and of placing, whose directory may have to grow."""
    patch.setattr(os, "write", no_room)
    rename = _core.renameat2

    def renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
        if flags == _core.RENAME_NOREPLACE and old_fd != new_fd:
            no_room()
        rename(old_fd, old, new_fd, new, flags)

    patch.setattr(_core, "renameat2", renameat2)


def exchange_fails(patch: pytest.MonkeyPatch, _world: World) -> None:
    patch.setattr(_core, "renameat2", no_room)


IMPORTS: dict[str, Callable[[World, Daemon], Awaitable[None]]] = {
    "new": import_new,
    "over": import_over,
    "both": keep_both,
    "moved": load_moved,
    "astray": load_astray,
}


def prepare(world: World, what: str) -> bytes:
    """What stands at the path then."""
    if what in {"moved", "astray"}:
        world.stub(NAME.decode(), NEW)
        return b"\0" * len(NEW)
    world.put(NAME.decode(), NEW)
    if what == "new":
        return b""
    (world.tree.root / NAME.decode()).write_bytes(OLD)
    return OLD


def stands(world: World) -> bytes:
    path = world.tree.root / NAME.decode()
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("failing", [dress_fails, finish_fails, note_fails, exchange_fails])
@pytest.mark.parametrize("what", IMPORTS)
async def test_an_import_that_fails_leaves_nothing_staged(
    world: World, what: str, failing: Callable[[pytest.MonkeyPatch, World], None]
) -> None:
    before = prepare(world, what)
    async with world.daemon() as daemon:
        daemon.shared.eager = True

        for _ in range(3):
            with pytest.MonkeyPatch.context() as patch:
                failing(patch, world)
                with pytest.raises((NoSpace, TreeError)):
                    await IMPORTS[what](world, daemon)
            assert os.listdir(world.base / "staging") == []
            assert stands(world) == before
            assert list(world.catalog.conflicts.all("dra-1")) == []

        await IMPORTS[what](world, daemon)
    assert stands(world) == NEW
    assert os.listdir(world.base / "staging") == []
    kept = sorted(path.read_bytes() for path in world.tree.root.iterdir())
    assert kept == (sorted([OLD, NEW]) if what == "both" else [NEW])


@pytest.mark.parametrize("what", ["over", "both"])
async def test_an_import_that_is_cancelled_leaves_nothing_staged(world: World, what: str) -> None:
    prepare(world, what)
    async with world.daemon() as daemon:
        daemon.shared.eager = True
        daemon.shared.let_go = partial(_waits, world)  # type: ignore[assignment]

        with trio.move_on_after(0.2) as scope:
            await IMPORTS[what](world, daemon)

        assert scope.cancelled_caught
        assert os.listdir(world.base / "staging") == []
        assert stands(world) == OLD
        assert list(world.catalog.conflicts.all("dra-1")) == []


class _waits:  # noqa: N801  as `Shared.let_go`
    def __init__(self, world: World, _ino: int) -> None:
        self._world = world

    async def __aenter__(self) -> None:
        assert len(os.listdir(self._world.base / "staging")) == 1
        await trio.sleep_forever()

    async def __aexit__(self, *_: object) -> None:
        return


async def test_a_copy_that_was_kept_before_something_failed_stays_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its conflict is what tells of it."""
    prepare(world, "both")

    def as_placed(*_: Any) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(world.tree._places, "_as_placed", as_placed)
    async with world.daemon() as daemon:
        with pytest.raises(TreeError):
            await keep_both(world, daemon)
    (conflict,) = world.catalog.conflicts.all("dra-1")
    assert (world.tree.root / os.fsdecode(conflict.kept_as)).read_bytes() == OLD
    assert os.listdir(world.base / "staging") == []


async def test_a_name_that_is_taken_leaves_no_conflict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(world, "both")
    free_name = importer.conflicts.free_name

    def taken(served: Any, path: bytes) -> bytes:
        name = free_name(served, path)
        (world.tree.root / os.fsdecode(name)).write_bytes(b"somebody was faster")
        return name

    monkeypatch.setattr(importer.conflicts, "free_name", taken)
    async with world.daemon() as daemon:
        with pytest.raises(LocalChanged):
            await keep_both(world, daemon)
    assert list(world.catalog.conflicts.all("dra-1")) == []
    assert stands(world) == OLD
    assert os.listdir(world.base / "staging") == []
