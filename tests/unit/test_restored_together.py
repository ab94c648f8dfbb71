"""Small files that a task restores: made ordinary ones together, each of them right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
import xxhash
from fakes.store import FakeStore
from support.hydrating import CHUNK, MTIME_NS, Daemon, World, is_stub

from fsxsync.errors import AccessDenied, LocalChanged, ObjectChanged, ObjectDamaged, ObjectMissing, Throttled
from fsxsync.model.association import Association
from fsxsync.model.identity import Base, Local, base_of
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.ports import Priority
from fsxsync.sync import restoring
from fsxsync.sync.restoring import Outcome
from fsxsync.sync.served import Served
from fsxsync.tree import settle_together

NAMES = [f"f{number}" for number in range(20)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def restore(daemon: Daemon, name: str) -> None:
    assert await daemon.hydrator.restore(os.fsencode(name)) > 0


async def restore_all(
    daemon: Daemon, names: Sequence[str] = NAMES, goes_on: Callable[[], bool] = lambda: True
) -> dict[str, Outcome]:
    """As a task does."""
    outcomes = await daemon.hydrator.restore_many([os.fsencode(name) for name in names], goes_on)
    return dict(zip(names, outcomes, strict=True))


def is_whole(path: Path, body: bytes) -> bool:
    """An ordinary file that nothing tells from what it was."""
    return not is_stub(path) and path.stat().st_mtime_ns == MTIME_NS and path.read_bytes() == body


@pytest.fixture
def bodies() -> dict[str, bytes]:
    return {name: os.urandom(CHUNK // 2 - number) for number, name in enumerate(NAMES)}


@pytest.fixture
def paths(world: World, bodies: dict[str, bytes]) -> dict[str, Path]:
    return {name: world.stub(name, body) for name, body in bodies.items()}


async def write_rows(world: World, paths: dict[str, Path]) -> None:
    """The stubs are in sync with their objects."""
    for name in paths:
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))


def row_and_file(world: World, name: str) -> tuple[Base, Local]:
    row, now = world.catalog.files.get("dra-1", name.encode()), world.tree.identify(name.encode())
    assert row is not None
    assert now is not None
    return row, now


def all_whole(paths: dict[str, Path], bodies: dict[str, bytes], but: Sequence[str] = ()) -> bool:
    return all(is_whole(path, bodies[name]) != (name in but) for name, path in paths.items())


async def test_many_wait_for_the_disk_a_few_times_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {name: os.urandom(CHUNK - number) for number, name in enumerate(NAMES)}
    paths = {name: world.stub(name, body) for name, body in bodies.items()}
    flushed: list[int] = []
    marked: dict[int, list[bool]] = {}
    flush = settle_together._flush

    def watched(root: int, files: list[settle_together.Arrived]) -> None:
        flushed.append(len(files))
        for file in files:
            marked.setdefault(os.fstat(file.fd).st_ino, []).append(XATTR.decode() in os.listxattr(file.fd))
        flush(root, files)

    monkeypatch.setattr(settle_together, "_flush", watched)
    async with world.daemon() as daemon:
        wrong = paths["f7"]
        compare = daemon.shared.tree.compare_together
        spoilt: list[bool] = []

        def compare_spoilt(files: list[settle_together.Arrived]) -> object:
            for file in files:
                if os.fstat(file.fd).st_ino == wrong.stat().st_ino and not spoilt:
                    os.pwrite(file.fd, b"\0\0\0\0", 100)
                    spoilt.append(True)
            return compare(files)

        monkeypatch.setattr(type(daemon.shared.tree), "compare_together", lambda _, files: compare_spoilt(files))
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(restore, daemon, name)

    assert spoilt == [True]
    assert sum(flushed) == 2 * (len(NAMES) + 1), "each twice, and the wrong one twice again"
    assert len(flushed) < 2 * len(NAMES)
    assert {path.stat().st_ino: [True, False] for path in paths.values() if path != wrong} == {
        ino: seen for ino, seen in marked.items() if ino != wrong.stat().st_ino
    }, "the mark goes between the two"
    for name, path in paths.items():
        assert path.read_bytes() == bodies[name]
        assert XATTR.decode() not in os.listxattr(path)
        assert path.stat().st_mtime_ns == MTIME_NS


# ---------------------------------------------------------------- as a task does


async def test_all_of_them_come_each_once_and_wait_for_the_disk_together(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flush = settle_together._flush
    monkeypatch.setattr(
        settle_together, "_flush", lambda root, files: (flushed.append(len(files)), flush(root, files))[1]
    )
    (paths["f3"].parent / "ordinary").write_bytes(b"1")
    (paths["f3"].parent / "large").write_bytes(b"")
    large = world.stub("large", os.urandom(6 * CHUNK))
    async with world.daemon() as daemon:
        outcomes = await restore_all(daemon, [*NAMES, "ordinary", "absent", "large"])
        assert daemon.hydrator._active == {}
        assert (daemon.shared.restoring, daemon.shared.hydrating, daemon.shared.settling) == (set(), set(), 0)
        assert {priority for _, priority in daemon.mover.asked} == {Priority.BACKGROUND}
        assert daemon.served.counts.restored == len(NAMES) + 1

    assert outcomes == {name: len(body) for name, body in bodies.items()} | {
        "ordinary": 0,
        "absent": 0,
        "large": 6 * CHUNK,
    }
    assert all_whole(paths, bodies)
    assert not is_stub(large)
    assert sorted(daemon.mover.asked_keys) == sorted([*NAMES, *["large"] * 6])
    assert flushed == [len(NAMES)] * 2
    assert world.catalog.partials.all() == []


async def test_what_can_not_come_says_why_and_the_others_come(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """An object that is gone, one that is another version by now, one whose bytes are not what its checksum says, and a
    store that refuses some requests as too much."""
    world.store.outside_delete("f2")
    world.store.outside_put("f5", b"another")
    async with world.daemon() as daemon:
        daemon.mover.failures += [Throttled("GET", "503") for _ in range(6)]
        outcomes = await restore_all(daemon)
        events = (world.base / "events.jsonl").read_text()

    assert isinstance(outcomes.pop("f2"), ObjectMissing)
    assert isinstance(outcomes.pop("f5"), ObjectChanged)
    assert outcomes == {name: len(body) for name, body in bodies.items() if name not in {"f2", "f5"}}
    assert all_whole(paths, bodies, but=["f2", "f5"])
    assert is_stub(paths["f2"])
    assert is_stub(paths["f5"])
    assert "Throttled" not in events


async def test_damaged_bytes_are_loaded_again_and_an_object_that_stays_so_is_told(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    async with world.daemon() as daemon:
        daemon.mover.garbled = 3
        assert await restore_all(daemon) == {name: len(body) for name, body in bodies.items()}
        assert len(daemon.mover.asked) == len(NAMES) + 3
    assert all_whole(paths, bodies)

    path = world.stub("bad", b"never right")
    async with world.daemon() as daemon:
        daemon.mover.garbled = 1000
        outcomes = await restore_all(daemon, ["bad"])
    assert isinstance(outcomes["bad"], ObjectDamaged)
    assert is_stub(path)


async def test_what_lies_on_the_disk_is_compared_before_the_mark_goes(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        spoilt: list[int] = []
        compare = daemon.shared.tree.compare_together

        def compare_spoilt(files: Sequence[settle_together.Arrived]) -> object:
            for file in files:
                if file.key == "f4" and not spoilt:
                    spoilt.append(os.pwrite(file.fd, b"\0\0\0\0", 100))
            return compare(files)

        monkeypatch.setattr(type(daemon.shared.tree), "compare_together", lambda _, files: compare_spoilt(files))
        assert await restore_all(daemon) == {name: len(body) for name, body in bodies.items()}
        assert daemon.mover.asked_keys.count("f4") == 2
    assert spoilt == [4]
    assert all_whole(paths, bodies)


async def test_a_reader_goes_first_and_gets_what_is_asked_for_already(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """One file that is on its way, one that has not had its turn, and one that came and waits for the rest."""
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES[1:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_all, daemon)
            await daemon.idle()
            under_way = daemon.mover.asked_keys.copy()
            assert len(under_way) == 9, "eight, and one that came"
            waiting = NAMES[15]
            with daemon.reader(NAMES[0]) as come, daemon.reader(NAMES[2]) as asked, daemon.reader(waiting) as later:
                with trio.fail_after(10):
                    assert await come.read(0, CHUNK) == bodies[NAMES[0]]
                    await daemon.hydrator.make_resident(come.path, come.fd)
                assert is_whole(paths[NAMES[0]], bodies[NAMES[0]]), "it was settled alone: a writer may come in"
                got: list[bytes] = []

                async def read() -> None:
                    got.append(await later.read(0, CHUNK))

                nursery.start_soon(read)
                await daemon.idle()
                assert daemon.mover.asked[-1] == (0, Priority.FOREGROUND)
                assert daemon.mover.asked_keys[-1] == waiting
                daemon.mover.let_all()
                assert await asked.read(0, CHUNK) == bodies[NAMES[2]]
        await daemon.idle()
    assert got == [bodies[waiting]]
    assert sorted(daemon.mover.asked_keys) == sorted(NAMES), "none of them twice"
    assert all_whole(paths, bodies)


async def test_what_is_cut_replaced_or_removed_meanwhile_is_left_alone(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """O_TRUNC of one under way and of one that came, a new version exchanged in, a name that goes."""
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES[1:])
        outcomes: dict[str, Outcome] = {}

        async def act() -> None:
            outcomes.update(await restore_all(daemon))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            await daemon.idle()
            with trio.fail_after(10):
                for name in (NAMES[0], NAMES[1], NAMES[19]):
                    with paths[name].open("r+b") as stream:
                        await daemon.hydrator.discard(name.encode(), stream.fileno())
                        stream.write(b"new " + name.encode())
                replaced = paths[NAMES[18]]
                async with daemon.shared.let_go(replaced.stat().st_ino):
                    world.place_stub(NAMES[18], world.put(NAMES[18], b"version 2"))
                paths[NAMES[17]].unlink()
            daemon.mover.let_all()
        await daemon.idle()

    for name in (NAMES[0], NAMES[1], NAMES[19]):
        assert paths[name].read_bytes() == b"new " + name.encode()
        assert outcomes[name] == 0, "there is nothing to load any more"
    assert is_stub(replaced)
    assert replaced.stat().st_size == len(b"version 2")
    assert not paths[NAMES[17]].exists()
    assert all(is_whole(paths[name], bodies[name]) for name in NAMES[2:17])


async def test_what_was_moved_out_of_another_association_comes_from_there(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """Behind the mount: the row of its old name says whose it is."""
    moved, elsewhere = NAMES[3:9], FakeStore()
    await write_rows(world, paths)
    for name in moved:
        row, _ = row_and_file(world, name)
        world.catalog.files.delete("dra-1", row.path)
        world.catalog.files.put(row._replace(association="dra-2"))
        elsewhere.objects[name] = world.store.objects.pop(name)
    async with world.daemon() as daemon:
        other = Served(
            shared=daemon.shared,
            association=Association(id="dra-2", directory=b"other", bucket="bucket", prefix=""),
            store=elsewhere,
        )
        daemon.shared.served = {daemon.served.id: daemon.served, other.id: other}
        outcomes = await restore_all(daemon)

    assert outcomes == {name: len(body) for name, body in bodies.items()}
    assert all_whole(paths, bodies)


async def test_one_that_gets_another_mark_meanwhile_is_settled_like_the_others(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """A rename's copy was made: the object has another key and ETag, and the same bytes. A mark of another size is
    nobody's of ours: its file has its data, and is taken for an ordinary one."""
    moved, strange = NAMES[5], NAMES[6]
    await write_rows(world, paths)
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES)
        outcomes: dict[str, Outcome] = {}

        async def act() -> None:
            outcomes.update(await restore_all(daemon))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            await daemon.idle()
            row, _ = row_and_file(world, moved)
            world.catalog.files.put(row._replace(etag="another"))
            os.setxattr(paths[moved], XATTR, StubMark("another", row.size, "elsewhere").encode())
            os.setxattr(paths[strange], XATTR, StubMark("another", row.size + 9, "elsewhere").encode())
            daemon.mover.let_all()
        await daemon.idle()

    assert isinstance(outcomes.pop(strange), LocalChanged)
    assert outcomes == {name: len(body) for name, body in bodies.items() if name != strange}
    assert all_whole(paths, bodies)
    for name, body in bodies.items():
        row, now = row_and_file(world, name)
        if name != strange:
            assert (row.released, row.content_hash) == (False, xxhash.xxh3_128(body).digest())
            assert row.matches_local(now)
        assert row.etag == "another" or name != moved


async def test_what_is_set_on_some_of_them_meanwhile_is_a_change_of_theirs_alone(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """Of a mode or an owner that was set the row is not to say that it is the object's."""
    await write_rows(world, paths)
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_all, daemon)
            await daemon.idle()
            paths[NAMES[2]].chmod(0o600)
            os.chown(paths[NAMES[3]], 77, -1)
            os.chown(paths[NAMES[4]], -1, 77)
            daemon.mover.let_all()
        await daemon.idle()
        hinted = {entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 100)}

    assert hinted == {name.encode() for name in NAMES[2:5]}
    assert all_whole(paths, bodies)
    for name in NAMES:
        row, now = row_and_file(world, name)
        assert not row.released
        assert row.matches_local(now) != (name in NAMES[2:5])


async def test_what_is_begun_when_the_task_is_cancelled_is_finished_and_the_rest_left(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    goes_on = True
    outcomes: dict[str, Outcome] = {}
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES)

        async def act() -> None:
            outcomes.update(await restore_all(daemon, goes_on=lambda: goes_on))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            await daemon.idle()
            goes_on = False
            daemon.mover.let_all()
        assert daemon.hydrator._active == {}, "nobody holds what was left"
    assert outcomes == {name: len(bodies[name]) if name in NAMES[:8] else None for name in NAMES}
    assert all_whole(paths, bodies, but=NAMES[8:])


async def test_a_daemon_that_ends_leaves_stubs_with_their_times(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES[3:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_all, daemon)
            await daemon.idle()
            nursery.cancel_scope.cancel()
    assert all(path.stat().st_mtime_ns == MTIME_NS for path in paths.values())
    assert all(is_stub(path) for path in list(paths.values())[11:])

    async with world.daemon() as daemon:
        await restore_all(daemon)
    assert all_whole(paths, bodies)


async def test_who_waits_for_his_turn_is_not_taken_for_one_that_rests(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes], autojump_clock: trio.testing.MockClock
) -> None:
    """Its descriptor stays open, and what came of it is not given back."""
    async with world.daemon() as daemon:
        daemon.mover.held = set(NAMES[1:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_all, daemon)
            await daemon.mover.until(9)
            await trio.sleep(600)
            assert len(daemon.hydrator._active) == len(NAMES)
            for name in (NAMES[0], NAMES[1], NAMES[19]):
                assert not daemon.shared.drop_partial(name.encode(), paths[name].stat().st_ino)
            daemon.mover.let_all()
    assert all_whole(paths, bodies)


async def test_a_store_that_can_not_be_asked_at_all_is_told_for_each(
    world: World, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:

        async def refuse(*_: object) -> None:
            await trio.lowlevel.checkpoint()
            raise AccessDenied("GET", "403")

        monkeypatch.setattr(daemon.mover, "fetch_many", refuse)
        monkeypatch.setattr(daemon.mover, "fetch", refuse)
        outcomes = await restore_all(daemon)
    assert all(isinstance(outcome, AccessDenied) for outcome in outcomes.values())
    assert all(map(is_stub, paths.values()))


async def test_files_that_go_before_any_of_them_was_asked_for_harm_nobody(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes]
) -> None:
    """Their descriptors are closed by then."""
    async with world.daemon() as daemon:
        restorer = daemon.hydrator._restorer
        carried, gone = restorer._carry, NAMES[:3]

        async def cut_first(part: restoring._Slice) -> None:
            for name in gone:
                with paths[name].open("r+b") as stream:
                    await daemon.hydrator.discard(name.encode(), stream.fileno())
            await carried(part)

        restorer._carry = cut_first  # type: ignore[method-assign]
        outcomes = await restore_all(daemon)
    assert outcomes == {name: 0 if name in gone else len(bodies[name]) for name in NAMES}
    assert all(paths[name].read_bytes() == b"" for name in gone)
    assert all(is_whole(paths[name], bodies[name]) for name in NAMES[3:])


async def test_a_disk_that_is_full_is_asked_for_room_by_each(
    world: World, paths: dict[str, Path], bodies: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        monkeypatch.setattr(restoring, "kept_free", lambda _: 1 << 62)
        assert await restore_all(daemon) == {name: len(body) for name, body in bodies.items()}
    assert all_whole(paths, bodies), "each found out by itself that there is room"
