"""Small files that are restored together, and what happens to them or around them at the same moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from support.hydrating import Daemon, World, is_stub
from trio.testing import wait_all_tasks_blocked

from fsxsync import _core
from fsxsync.catalog.changelog import Entry
from fsxsync.errors import FsxSyncError, LocalChanged, Throttled
from fsxsync.model.identity import base_of
from fsxsync.ports import End, Fetched, Priority, Sink
from fsxsync.sync import restoring
from fsxsync.sync.acting import Next
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.look import look
from fsxsync.sync.restoring import Outcome
from fsxsync.transfer.gets import Getter
from fsxsync.transfer.lanes import Lane

BODY = b"the only copy"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def in_sync(world: World, name: str, body: bytes) -> Path:
    path = world.stub(name, body)
    local, remote = world.tree.identify(name.encode()), await world.store.head(name)
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
    return path


def pending(world: World) -> list[bytes]:
    return [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 10)]


@pytest.mark.parametrize("over", [True, False], ids=["over another", "to a free name"])
async def test_a_rename_told_while_the_new_name_is_restored_keeps_the_object(world: World, *, over: bool) -> None:
    """Its hint was dropped as our own work: the object of the old name was deleted before the new one had its data."""
    path = await in_sync(world, "f", BODY)
    if over:
        await in_sync(world, "g", b"another one")
    outcomes: list[Outcome] = []
    async with world.daemon() as daemon:
        daemon.mover.held = {"f"}
        path.rename(path.with_name("g"))
        daemon.hydrator.renamed(b"f", b"g", exchanged=False)

        async def restore() -> None:
            outcomes.extend(await daemon.hydrator.restore_many([b"g"], lambda: True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore)
            await daemon.idle()
            daemon.hydrator._intake.flush()
            assert pending(world) == [b"f", b"g"]

            gone = await look(daemon.served, Entry("dra-1", b"f", True, False, None, 0, 0, 1, 0, None, None, ""))

            assert gone.next is Next.LATER
            assert await world.store.head("f") is not None
            daemon.mover.failures.append(Throttled("GET", "503"))
            daemon.mover.let_all()
    assert outcomes == [len(BODY)]
    assert path.with_name("g").read_bytes() == BODY


def fails_at_first(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for together does not come; what is asked for alone takes its time."""

    async def many(
        _store: object,
        wanted: Sequence[object],
        _priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        for number in range(len(wanted)):
            if begin(number, lambda **_: None) is not None:
                await trio.lowlevel.checkpoint()
                came(number, None)

    monkeypatch.setattr(daemon.mover, "fetch_many", many)
    daemon.mover.passing = set()


async def test_as_many_are_open_as_can_be_loaded_where_none_comes_at_the_first_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{number}" for number in range(1000)]
    for name in names:
        world.stub(name, b"x")
    async with world.daemon() as daemon:
        fails_at_first(daemon, monkeypatch)
        outcomes: list[Outcome] = []

        async def restore() -> None:
            outcomes.extend(await daemon.hydrator.restore_many(list(map(os.fsencode, names)), lambda: True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore)
            await daemon.idle()
            assert len(daemon.shared.hydrating) <= restoring.SLICES * restoring.SLICE + restoring.ALONE
            daemon.mover.let_all()
    assert outcomes == [1] * len(names)


async def test_a_file_that_waits_long_for_its_turn_is_not_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{number}" for number in range(100)]
    paths = [world.stub(name, b"x") for name in names]
    async with world.daemon() as daemon:
        fails_at_first(daemon, monkeypatch)
        outcomes: list[Outcome] = []

        async def restore() -> None:
            outcomes.extend(await daemon.hydrator.restore_many(list(map(os.fsencode, names)), lambda: True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore)
            await daemon.idle()
            idle = daemon.hydrator._idle
            for one in daemon.hydrator._active.values():
                one.last_use -= 61
            for one in [one for one in daemon.hydrator._active.values() if idle._is_idle(one)]:
                daemon.hydrator.forget(one)  # as the idle loop does
            daemon.mover.let_all()
    assert outcomes == [1] * len(names)
    assert not any(map(is_stub, paths))


async def test_a_disk_that_can_not_be_asked_ends_no_daemon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.stub("f", BODY)

    def broken(_fd: int) -> os.statvfs_result:
        raise OSError(errno.EIO, "Input/output error")

    async with world.daemon() as daemon:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstatvfs", broken)
            [outcome] = await daemon.hydrator.restore_many([b"f"], lambda: True)
        assert isinstance(outcome, FsxSyncError)
        assert is_stub(path)


async def test_files_whose_data_did_not_come_to_the_disk_are_loaded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush of the file system tells of an error once, and it may have told somebody else."""
    paths = [world.stub(name, BODY) for name in ("f", "g")]
    errors, unmark = _core.write_errors, _core.unmark_many
    told: list[bool] = []

    def one_is_bad_at_first(fds: Sequence[int]) -> list[int]:
        assert errors(fds) == [0] * len(fds)
        told.append(True)
        return [errno.EIO if len(told) == 1 else 0, *[0] * (len(fds) - 1)]

    async with world.daemon() as daemon:

        def unmarked(xattr: bytes, files: Sequence[Any]) -> Any:
            assert len(daemon.mover.asked) == 4, "both were asked for once more"
            return unmark(xattr, files)

        monkeypatch.setattr(_core, "write_errors", one_is_bad_at_first)
        monkeypatch.setattr(_core, "unmark_many", unmarked)
        outcomes = await daemon.hydrator.restore_many([b"f", b"g"], lambda: True)

    assert told
    assert outcomes == [len(BODY)] * 2
    assert [path.read_bytes() for path in paths] == [BODY] * 2
    assert not any(map(is_stub, paths))


async def test_new_times_wait_for_an_answer_that_brings_the_old_ones(world: World) -> None:
    """A daemon that died between the answer and the settling left the old ones for good: the row had the new ones."""
    path = await in_sync(world, "f", BODY)
    ino, new_ns = path.stat().st_ino, 1_500_000_000 * 10**9
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        daemon.mover.held = {"f"}
        nursery.start_soon(daemon.hydrator.restore_many, [b"f"], lambda: True)
        await daemon.idle()
        with pytest.raises(LocalChanged, match="just coming"):
            daemon.shared.give_times(ino, new_ns, new_ns)
        daemon.mover.let_all()
        await daemon.idle()
        daemon.shared.give_times(ino, new_ns, new_ns)
    assert path.read_bytes() == BODY
    assert path.stat().st_mtime_ns != new_ns


async def test_times_given_through_the_mount_stay_though_the_data_does_not_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await in_sync(world, "f", BODY)
    ino, new_ns = path.stat().st_ino, 1_500_000_000 * 10**9
    told: list[int] = []
    came = Hydration.came_whole

    async with world.daemon() as daemon:

        def given(hydration: Hydration, end: End, fetched: Fetched | None) -> None:
            os.utime(path, ns=(0, 0))  # as the answer left it
            daemon.hydrator.retimed(ino, atime_ns=new_ns, mtime_ns=new_ns)
            came(hydration, end, fetched)
            told.append(path.stat().st_mtime_ns)

        monkeypatch.setattr(Hydration, "came_whole", given)
        fails_at_first(daemon, monkeypatch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.hydrator.restore_many, [b"f"], lambda: True)
            await daemon.idle()
            daemon.mover.let_all()
    assert told == [new_ns]


async def test_who_reads_a_file_whose_request_is_held_behind_others_does_not_wait_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [await in_sync(world, name, BODY) for name in ("f", "g")]
    ends: list[End] = []

    async def many(
        _store: object,
        wanted: Sequence[object],
        _priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        left, over = set(range(len(wanted))), trio.Event()

        def end(number: int, *, only_held: bool = False) -> None:
            if number in left and not (number == 0 and only_held):  # the first one is sent
                left.discard(number)
                came(number, None)
                if not left:
                    over.set()

        for number in range(len(wanted)):
            ends.append(partial(end, number))
            assert begin(number, ends[number]) is not None
        await over.wait()

    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "fetch_many", many)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.hydrator.restore_many, [b"f", b"g"], lambda: True)
            await daemon.idle()
            with daemon.reader("g") as held, daemon.reader("f") as sent:
                with trio.fail_after(30):
                    await daemon.hydrator.open_for_read(b"g", held.fd)
                assert os.pread(held.fd, 100, 0) == BODY
                assert daemon.mover.asked == [(0, Priority.FOREGROUND)]
                nursery.start_soon(daemon.hydrator.open_for_read, b"f", sent.fd)
                await daemon.idle()
                assert len(daemon.mover.asked) == 1, "its answer is on its way"
                ends[0]()
                await daemon.idle()
    assert [path.read_bytes() for path in paths] == [BODY] * 2


class Carrier:
    """A pool that answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def submit_gets(
        self, _gets: object, _priority: Priority, taken: Sequence[Any], *, lane: int, at_once: int
    ) -> list[int]:
        assert (lane, at_once) == (1, 1) or not taken
        self.taken += taken
        return list(range(1, len(taken) + 1))

    def cancel(self, _job: int, *, only_held: bool = False) -> None:
        assert not only_held
        self.answer()

    def answer(self) -> None:
        result: Any = SimpleNamespace(error=_core.TRANSFER_OK, status=200, headers=(), body=b"", crc64nvme=0)
        self.taken.pop(0).came(result)


async def test_a_call_goes_on_whose_turn_another_one_waited_for_that_was_cancelled() -> None:
    lane, carrier = Lane(1), Carrier()
    getter = Getter(carrier, lane, 1)
    first = trio.CancelScope()
    over, done = trio.Event(), trio.Event()

    def prepare(_number: int, _end: End) -> Any:
        return None, None

    async def get(count: int) -> None:
        await getter.get_many(count, Priority.BACKGROUND, prepare, lambda *_: None)

    async def cancelled() -> None:
        with first:
            await get(3)

    async def goes_on() -> None:
        await get(1)
        done.set()

    async def in_front() -> None:
        async with lane.turn(Priority.FOREGROUND):
            await over.wait()

    async with trio.open_nursery() as nursery:
        for act in (cancelled, goes_on, in_front):
            nursery.start_soon(act)
            await wait_all_tasks_blocked()
        carrier.answer()
        getter.pump()
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        over.set()
        await wait_all_tasks_blocked()
        carrier.answer()
        getter.pump()
        with trio.fail_after(30):
            await done.wait()
