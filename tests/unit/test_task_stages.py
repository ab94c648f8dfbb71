"""Paths of a task and what is below them: tree and catalog merged, thousands of paths as one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hydrating import World

from fsxsync.model.identity import Kind, base_of
from fsxsync.model.task import Order, Task, TaskType
from fsxsync.sync.served import Served
from fsxsync.sync.task_data import ReleaseStage, RestoreStage
from fsxsync.sync.task_stages import Entry, Place, count, entries
from fsxsync.sync.task_targets import find

TOPS = ["u", "u-x", "u.", "v", "w"]
INSIDE = ["a", "b/c"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class Top(NamedTuple):
    """What stood at a name when it was synced, and what stands there now: "", "file" or "directory"."""

    known: str
    here: str


def make(root: Path, name: str, what: str) -> None:
    if what == "file":
        (root / name).write_bytes(b"x")
    elif what == "directory":
        for inside in INSIDE:
            (root / name / inside).parent.mkdir(parents=True, exist_ok=True)
            (root / name / inside).write_bytes(b"x")


def empty(root: Path) -> None:
    for found in root.iterdir():
        if found.is_dir():
            shutil.rmtree(found)
        elif found.name in TOPS:
            found.unlink()


async def synced(world: World, daemon_served: Served, tops: dict[str, Top]) -> None:
    """Rows as of ``known``, a tree as of ``here``."""
    root = world.tree.root
    empty(root)
    world.catalog.files.delete_all(daemon_served.id)
    for name, top in tops.items():
        make(root, name, top.known)
    for path in below(root, TOPS):
        local = world.tree.identify(path)
        assert local is not None
        world.catalog.files.put(base_of(daemon_served.id, path, local, None))
    empty(root)
    for name, top in tops.items():
        make(root, name, top.here)


def below(root: Path, names: Sequence[str]) -> list[bytes]:
    found: list[Path] = []
    for name in names:
        if os.path.lexists(root / name):
            found += [root / name, *(root / name).rglob("*")]
    return [os.fsencode(path.relative_to(root)) for path in found]


def key(entry: Entry) -> bytes:
    return entry.key


@given(
    tops=st.dictionaries(st.sampled_from(TOPS), st.builds(Top, *[st.sampled_from(["", "file", "directory"])] * 2)),
    asked=st.lists(st.sampled_from(TOPS), min_size=1, unique=True),
    size=st.integers(1, 4),
    cut=st.integers(0, 30),
)
@settings(deadline=None, max_examples=150)
def test_paths_are_merged_with_what_is_known_of_them(
    made: World, tops: dict[str, Top], asked: list[str], size: int, cut: int
) -> None:
    """Also where a file took the place of a directory, so that its rows sort behind those of the next path."""
    trio.run(_merge, made, tops, asked, size, cut)


async def _merge(made: World, tops: dict[str, Top], asked: list[str], size: int, cut: int) -> None:
    async with made.daemon() as daemon:
        served = daemon.served
        await synced(made, served, tops)
        unders = find(Order(TaskType.EXPORT, paths=tuple(asked)), {served.id: served}).parts.get(served.id, [])
        if not unders:
            return
        batches = [found async for found in entries(served, unders, b"", size)]

        told = [entry for found in batches for entry in found]
        here = {path: made.tree.identify(path) for path in below(made.tree.root, asked)}
        rows = {
            row.path: row for under in asked for row in made.catalog.files.after(served.id, b"", 99, under.encode())
        }
        assert {(entry.path, entry.local.ino) for entry in told if entry.local} == {
            (path, local.ino) for path, local in here.items() if local
        }
        assert {entry.base for entry in told if entry.base} == set(rows.values())
        assert len(told) == len({(entry.path, entry.key) for entry in told})
        for entry in told:
            assert not entry.local or not entry.base or entry.path == entry.base.path
            assert entry.local or entry.base
        for path in here.keys() & rows.keys():
            is_same_kind = (here[path].kind is Kind.DIRECTORY) == (rows[path].kind is Kind.DIRECTORY)
            assert (sum(entry.path == path for entry in told) == 1) == is_same_kind
        assert max(map(len, batches), default=0) <= 2 * size
        counted = await count(served, unders, lambda _path, _state: True, lambda: True)
        assert counted == len(here)

        # It goes on behind what was done, also where a path is gone by now.
        if told and unders:
            at = told[cut % len(told)]
            place = Place.parse(Place.within(set(unders), at.key).encode())
            left, key = place.rest(unders)
            rest = [entry async for found in entries(served, left, key, size) for entry in found]
            ordered = [entry async for found in entries(served, sorted(unders), b"", size) for entry in found]
            done = [(entry.path, entry.key) for entry in ordered].index((at.path, at.key))
            assert [entry.key for entry in rest] == [entry.key for entry in ordered[done + 1 :]]
            left, key = place.rest([under for under in unders if under != place.under])
            assert left == sorted(under for under in unders if under > place.under)
            assert key == b""


async def test_a_list_of_files_is_read_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cost a thread, and a reading of all rows: a list of thousands took a hundred times as long as their
    directory."""
    names = [f"f{number:03}" for number in range(300)]
    for name in names:
        world.stub(name, b"body")
    started: list[str] = []
    start = trio.lowlevel.start_thread_soon

    def counting(act: Callable[[], Any], deliver: Callable[[Any], object], name: str) -> None:
        started.append(name)
        start(act, deliver, name)

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", counting)
    async with world.daemon() as daemon:
        served = daemon.served
        for name in names:
            local, remote = world.tree.identify(name.encode()), await world.store.head(name)
            assert local is not None
            assert remote is not None
            world.catalog.files.put(base_of(served.id, name.encode(), local, remote))
        task = Task("task-0", Order(TaskType.RESTORE, paths=tuple(names)), 0)
        unders = find(task.order, {served.id: served}).parts[served.id]
        for stage in (ReleaseStage(served, unders, task), RestoreStage(served, unders, task, daemon.hydrator)):
            assert await stage.estimate(lambda: True) == len(names)
            batches = [batch async for batch in stage.batches(b"")]
            assert len(batches) == 1
            assert batches[0].quiet + len(batches[0].todo) == len(names)
        assert await count(served, unders, lambda _path, _state: True, lambda: True) == len(names)
    assert len(started) <= 8


def test_a_task_of_an_older_version_is_gone_through_once_more() -> None:
    """Its cursor was a sort key alone: taken for a path, it would have passed over all that was left."""
    assert Place.parse(b"d/f").rest([b""]) == ([b""], b"")
    assert Place.parse(b"d/f").rest([b"a", b"d"]) == ([b"a", b"d"], b"")
    assert Place.parse(Place(b"", b"d/f").encode()).rest([b""]) == ([b""], b"d/f")
