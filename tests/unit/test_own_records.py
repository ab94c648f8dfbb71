"""What a restore does to files is no news: inotify's records of it are dropped by the state that is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import Daemon, World

from fsxsync.model.identity import base_of
from fsxsync.sync import intake as intake_module
from fsxsync.sync.intake import Intake

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def in_sync(world: World) -> dict[str, Path]:
    paths = {name: world.stub(name, name.encode() * 100) for name in NAMES}
    for name in NAMES:
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
    return paths


def told(world: World, daemon: Daemon) -> list[bytes]:
    """Of all paths, those that become hints."""
    intake = Intake(daemon.shared, lambda _: daemon.served)
    for name in NAMES:
        intake.noticed(name.encode())
    intake.flush()
    return sorted(entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 100))


async def test_files_as_a_restore_left_them_are_no_news_and_no_row_is_read_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = await in_sync(world)
    async with world.daemon() as daemon:
        await daemon.hydrator.restore_many([name.encode() for name in NAMES], lambda: True)
        asked: list[bytes] = []
        get_many = world.catalog.files.get_many
        monkeypatch.setattr(
            world.catalog.files, "get_many", lambda name, some: (asked.extend(some), get_many(name, some))[1]
        )
        assert told(world, daemon) == []
        assert asked == []

        paths["a"].write_bytes(b"written behind the mount")
        paths["b"].chmod(0o600)
        os.setxattr(paths["c"], b"user.mine", b"1")
        paths["d"].rename(paths["e"])
        assert told(world, daemon) == [b"a", b"b", b"c", b"d", b"e"]
        assert sorted(asked) == [b"a", b"b", b"c", b"d", b"e"]


async def test_what_an_association_left_is_news_to_the_next_one_of_its_directory(world: World) -> None:
    """A directory whose files were loaded to end its association, and which was associated anew right after, had some
    that were never exported."""
    async with world.daemon() as daemon:
        for name in NAMES:
            (world.tree.root / name).write_bytes(b"loaded")
            local = world.tree.identify(name.encode())
            assert local is not None
            daemon.shared.own_work.note("dra-0", [(name.encode(), name.encode(), local)])

        assert told(world, daemon) == [name.encode() for name in NAMES]


async def test_files_that_are_being_restored_are_no_news_unless_something_else_happens_to_them(world: World) -> None:
    paths = await in_sync(world)
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES)
        daemon.hydrator.start(lambda: _restore(daemon), "restore")
        await daemon.idle()
        assert len(daemon.shared.restoring) == len(NAMES)
        assert told(world, daemon) == []

        paths["a"].chmod(0o600)
        paths["b"].unlink()
        assert told(world, daemon) == [b"a", b"b"]
        daemon.mover.let_all()
        await daemon.idle()
    assert paths["a"].read_bytes() == b"a" * 100


async def _restore(daemon: Daemon) -> None:
    await daemon.hydrator.restore_many([name.encode() for name in NAMES], lambda: True)


async def test_much_that_is_missing_from_a_directory_that_appears_is_for_a_scan(world: World) -> None:
    """Which has a brake: another disk may lie there, or none."""
    (world.tree.root / "d").mkdir()
    for number in range(12):
        name = f"d/{number}"
        world.stub(name, b"data")
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
        (world.tree.root / name).unlink()
    scans: list[str] = []
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake = Intake(daemon.shared, lambda _: daemon.served)
        intake.on_overflow = lambda: scans.append("wanted")
        nursery.start_soon(intake.run)
        intake.appeared(b"d")
        with trio.fail_after(30):
            while not intake.is_idle:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert scans == ["wanted"]
    assert world.catalog.changelog.pending("dra-1", b"", 100) == []


async def test_what_went_from_a_directory_before_it_was_watched_is_noticed(world: World) -> None:
    """An import made the directory and a file in it, and somebody removed the file within a moment: no record told of
    that, and the object stayed."""
    (world.tree.root / "d").mkdir()
    for name in ("d/gone", "d/stays"):
        world.stub(name, b"data")
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
    (world.tree.root / "d/gone").unlink()
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake = Intake(daemon.shared, lambda _: daemon.served)
        nursery.start_soon(intake.run)
        intake.appeared(b"d")
        with trio.fail_after(30):
            while not intake.is_idle:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 100)] == [b"d/gone"]


async def test_what_is_being_restored_waits_once_for_the_restore(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own records came before it was known to be ours, and cost a look and a row of each file."""
    await in_sync(world)
    monkeypatch.setattr(intake_module, "FLUSH_BUSY_S", 0.01)
    asked: list[list[bytes]] = []
    get_many = world.catalog.files.get_many
    monkeypatch.setattr(
        world.catalog.files, "get_many", lambda name, some: (asked.append(sorted(some)), get_many(name, some))[1]
    )
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake = daemon.hydrator._intake
        nursery.start_soon(intake.run)
        daemon.mover.held = set(NAMES)
        daemon.hydrator.start(lambda: _restore(daemon), "restore")
        await daemon.idle()
        for name in NAMES:
            intake.noticed(name.encode())
        intake.changed(b"other")
        await until(lambda: intake.is_idle)
        assert asked == [[b"other"], [name.encode() for name in NAMES]]
        daemon.mover.let_all()
        nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not is_so():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_a_burst_is_taken_in_step_by_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of records held up whoever read a file meanwhile."""
    taken: list[int] = []
    turns = 0
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake = daemon.hydrator._intake
        look_at = intake._look_at
        monkeypatch.setattr(intake, "_look_at", lambda paths: (taken.append(turns), look_at(paths))[1])
        burst = [b"f%d" % number for number in range(5 * intake_module.STEP)]
        for path in burst:
            (world.tree.root / os.fsdecode(path)).touch()
            intake.noticed(path)
        nursery.start_soon(intake.run)
        with trio.fail_after(60):
            while not intake.is_idle:
                turns += 1
                await trio.lowlevel.checkpoint()
        assert (len(taken), len(set(taken)) >= 3) == (5, True), "trio shuffles its rounds: two may follow each other"
        assert world.catalog.changelog.count("dra-1")[0] == len(burst)
        nursery.cancel_scope.cancel()


async def test_what_our_own_work_left_is_taken_in_faster_than_what_has_to_be_looked_at(world: World) -> None:
    """At a hundred files for each turn of all others, what told of a release fell behind it, until its files were no
    longer known to be released by us: each was looked at, and its row was read."""
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake, files = daemon.hydrator._intake, []
        for path in (b"f%d" % number for number in range(4 * intake_module.OWN_STEP)):
            (world.tree.root / os.fsdecode(path)).touch()
            intake.noticed(path)
            local = world.tree.identify(path)
            assert local is not None
            files.append((path, path, local))
        daemon.shared.own_work.note("dra-1", files)
        turns = 0
        nursery.start_soon(intake.run)
        with trio.fail_after(60):
            while len(intake._in_hand) == 0:
                await trio.lowlevel.checkpoint()
            while not intake.is_idle:
                turns += 1
                await trio.lowlevel.checkpoint()
        assert turns < len(files) // intake_module.STEP // 2, "trio shuffles its rounds: some may have two turns"
        assert world.catalog.changelog.count("dra-1")[0] == 0
        nursery.cancel_scope.cancel()


async def test_who_asks_for_all_that_was_done_has_it_in_the_midst_of_a_burst(world: World) -> None:
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        intake = daemon.hydrator._intake
        burst = [b"f%d" % number for number in range(5 * intake_module.STEP)]
        for path in burst:
            (world.tree.root / os.fsdecode(path)).touch()
            intake.noticed(path)
        nursery.start_soon(intake._flush_in_steps)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        intake.flush()
        assert intake.is_idle
        assert world.catalog.changelog.count("dra-1")[0] == len(burst)
