"""Released files on their way back: only what is needed, once, in the right order, never a mix, a hole or a half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from fakes.store import FakeStore
from support.hydrating import BOOT, CHUNK, MTIME_NS, Daemon, World, is_stub

from fsxsync.errors import AccessDenied, EndpointUnreachable, LocalChanged, ObjectChanged, ObjectDamaged
from fsxsync.model.association import Association
from fsxsync.model.identity import base_of
from fsxsync.model.stub import XATTR
from fsxsync.ports import Priority
from fsxsync.sync.partials import ON_DISK
from fsxsync.sync.readahead import FILL_AT_ONCE
from fsxsync.sync.served import Served

COUNT = 40
BODY = os.urandom(CHUNK * COUNT - 777)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    """Time passes when nothing happens, worker threads included."""
    return trio.testing.MockClock(autojump_threshold=0.1)


def span(index: int) -> tuple[int, int]:
    return index * CHUNK, CHUNK


# ---------------------------------------------------------------- reading


async def test_two_readers_of_a_chunk_cause_one_download(world: World) -> None:
    world.stub("f", BODY)
    got = []
    async with world.daemon() as daemon:
        daemon.mover.passing = set()

        async def read(offset: int) -> None:
            with daemon.reader("f") as reader:
                got.append(await reader.read(offset, 100) == BODY[offset : offset + 100])

        async with trio.open_nursery() as readers:
            for number in range(5):
                readers.start_soon(read, 9 * CHUNK + 1000 * number)
            await daemon.mover.until(1)
            daemon.mover.let_all()

    assert got == [True] * 5
    assert daemon.mover.chunks.count(9) == 1


async def test_a_reader_that_goes_away_takes_no_download_with_it(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as one, daemon.reader("f") as other:
            async with trio.open_nursery() as readers:
                scope = trio.CancelScope()

                async def leave() -> None:
                    with scope:
                        await one.read(*span(30))

                got = []

                async def stay() -> None:
                    got.append(await other.read(*span(30)))

                readers.start_soon(leave)
                await daemon.mover.until(1)
                readers.start_soon(stay)
                await daemon.idle()
                scope.cancel()
                await daemon.idle()
                daemon.mover.let_all()

    assert got == [BODY[30 * CHUNK : 31 * CHUNK]]
    assert daemon.mover.chunks.count(30) == 1


async def test_what_somebody_waits_for_is_asked_at_once_and_the_rest_has_a_limit(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as reader, daemon.reader("f") as second:
            async with trio.open_nursery() as readers:
                readers.start_soon(reader.read, *span(20))
                await daemon.idle()
                assert (20, Priority.FOREGROUND) in daemon.mover.asked
                assert [priority for chunk, priority in daemon.mover.asked if chunk != 20] == (
                    [Priority.BACKGROUND] * FILL_AT_ONCE
                )

                readers.start_soon(second.read, *span(38))
                await daemon.idle()
                assert daemon.mover.asked[-1] == (38, Priority.FOREGROUND)

                daemon.mover.let(20, 38)
                daemon.mover.let(
                    next(chunk for chunk in daemon.mover.chunks if chunk not in {20, 38})
                )  # one of the fill: another takes its place, the rest waits
                await daemon.idle()
                assert daemon.mover.under_way == FILL_AT_ONCE
                daemon.mover.let_all()
        await daemon.idle()

    assert len(set(daemon.mover.chunks)) == len(daemon.mover.chunks)


async def test_the_rest_comes_while_somebody_has_it_open(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        with daemon.reader("f") as reader:
            assert await reader.read(*span(7)) == BODY[7 * CHUNK : 8 * CHUNK]
            with trio.fail_after(10):
                while is_stub(path):
                    await daemon.idle()

    assert sorted(daemon.mover.chunks) == list(range(COUNT))
    assert path.read_bytes() == BODY
    assert path.stat().st_mtime_ns == MTIME_NS
    assert world.catalog.partials.all() == []


async def test_all_files_together_have_a_limit_for_what_nobody_waits_for(world: World) -> None:
    names = [f"f{number}" for number in range(5)]
    for name in names:
        world.stub(name, BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with ExitStack() as stack:
            async with trio.open_nursery() as readers:
                for name in names:
                    readers.start_soon(stack.enter_context(daemon.reader(name)).read, *span(20))
                await daemon.idle()
                waited = sum(priority is Priority.FOREGROUND for _, priority in daemon.mover.asked)
                most = daemon.shared.settings.association_requests * 3 // 4
                assert (waited, len(daemon.mover.asked)) == (len(names), len(names) + most)
                daemon.mover.let_all()
            await daemon.idle()

        assert [name for name in names if is_stub(world.base / "tree" / name)] == []


async def test_nothing_comes_for_a_file_that_nobody_has_open(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {7}
        with daemon.reader("f") as reader:
            await reader.read(*span(7))
            await daemon.mover.until(1 + FILL_AT_ONCE)
        daemon.mover.let_all()
        await daemon.idle()

        assert len(daemon.mover.asked) == 1 + FILL_AT_ONCE


async def test_a_sequential_reader_is_read_ahead_and_the_window_grows(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as readers:
                for index in range(3):
                    readers.start_soon(reader.read, *span(index))
                    await daemon.idle()
                    daemon.mover.let(index)
                    await daemon.idle()
                ahead = {chunk for chunk, priority in daemon.mover.asked if priority is Priority.PRELOAD}
                daemon.mover.let_all()

    assert ahead
    assert ahead <= set(range(1, 3 + 8))


async def test_a_small_file_is_whole_and_right_when_it_is_open(world: World) -> None:
    path = world.stub("f", b"small")
    async with world.daemon() as daemon:
        daemon.mover.garbled = 1
        with daemon.reader("f") as reader:
            await daemon.hydrator.open_for_read(b"f", reader.fd)
            assert os.pread(reader.fd, 100, 0) == b"small"
        await daemon.idle()

    assert len(daemon.mover.asked) == 2  # the first was not what the object's checksum says
    assert not is_stub(path)


async def test_a_file_of_one_chunk_that_stays_wrong_is_never_shown(world: World) -> None:
    path = world.stub("f", b"small")
    async with world.daemon() as daemon:
        daemon.mover.garbled = 100
        with daemon.reader("f") as reader:
            with pytest.raises(ObjectDamaged):
                await daemon.hydrator.open_for_read(b"f", reader.fd)
            with pytest.raises(ObjectDamaged):
                await reader.read(0, 5)
        assert len(daemon.mover.asked) == 2  # no third try for a reader that insists

    assert is_stub(path)
    assert [problem.kind for problem in world.catalog.problems.get("dra-1", b"f")] == ["damaged-object"]


async def test_a_failure_is_the_readers_and_the_next_one_tries_again(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.failures = [AccessDenied("download", "no") for _ in range(1 + FILL_AT_ONCE)]
        with daemon.reader("f") as reader:
            with pytest.raises(AccessDenied):
                await reader.read(*span(5))
            await daemon.idle()
            daemon.mover.failures.clear()

            assert await reader.read(*span(5)) == BODY[5 * CHUNK : 6 * CHUNK]

    events = (world.base / "events.jsonl").read_text().splitlines()
    assert len([line for line in events if "S3RestoreAccessDenied" in line]) == 1


# ---------------------------------------------------------------- ending


async def test_throwing_the_data_away_ends_the_downloads(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as readers:

                async def read() -> None:
                    with pytest.raises(LocalChanged):
                        await reader.read(*span(5))

                readers.start_soon(read)
                await daemon.mover.until(1 + FILL_AT_ONCE)
                fd = os.open(path, os.O_RDWR)
                await daemon.hydrator.discard(b"f", fd)
                os.write(fd, b"mine")
                os.close(fd)

        assert daemon.mover.ended == 1 + FILL_AT_ONCE
    assert path.read_bytes() == b"mine"
    assert not is_stub(path)
    assert world.catalog.partials.all() == []


async def test_who_waits_for_the_whole_file_is_told_that_it_was_thrown_away(world: World) -> None:
    path = world.stub("f", BODY)
    told = []
    async with world.daemon() as daemon:
        daemon.mover.passing = set(range(COUNT - 1))
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as tasks:

                async def load() -> None:
                    with pytest.raises(LocalChanged):
                        await daemon.hydrator.make_resident(b"f", reader.fd)
                    told.append("thrown away")

                tasks.start_soon(load)
                await daemon.mover.until(COUNT)
                await daemon.idle()
                fd = os.open(path, os.O_RDWR)
                await daemon.hydrator.discard(b"f", fd)
                os.close(fd)

    assert told == ["thrown away"]


async def test_a_directory_that_goes_ends_the_downloads(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as readers:

                async def read() -> None:
                    with pytest.raises(LocalChanged):
                        await reader.read(*span(5))

                readers.start_soon(read)
                await daemon.mover.until(1)
                await daemon.hydrator.drop_below(b"")

        assert daemon.mover.under_way == 0
        assert daemon.mover.ended > 0


async def test_the_file_may_be_replaced_while_it_is_loaded(world: World, tmp_path: Path) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            await reader.read(*span(0))
            ino = path.stat().st_ino
            replaced = trio.Event()

            async def replace() -> None:
                async with daemon.hydrator.let_go(ino):
                    assert not _is_open_for_writing(ino)
                    path.rename(tmp_path / "old")
                replaced.set()

            async with trio.open_nursery() as tasks:
                tasks.start_soon(replace)
                await daemon.idle()
                assert not replaced.is_set()
                daemon.mover.let_all()

            assert await reader.read(*span(30)) == BODY[30 * CHUNK : 31 * CHUNK]


def _is_open_for_writing(ino: int) -> bool:
    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.stat(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        info = Path(f"/proc/self/fdinfo/{name}").read_text()
        flags = int(info.split("flags:")[1].split()[0], 8)
        if found.st_ino == ino and flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_PATH:
            return True
    return False


# ---------------------------------------------------------------- the object moves on


def other_body() -> bytes:
    return bytes(byte ^ 0xFF for byte in BODY)


async def test_an_object_that_changed_is_said_and_hinted(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            assert await reader.read(*span(0)) == BODY[:CHUNK]
            world.put("f", other_body())
            daemon.mover.let_all()

            with pytest.raises(ObjectChanged):
                await reader.read(*span(30))
            assert await reader.read(*span(0)) == BODY[:CHUNK]  # what came before is of one version

    assert [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 10)] == [b"f"]


async def test_a_versioned_object_is_read_to_its_end(tmp_path: Path) -> None:
    world = World(tmp_path, versioned=True)
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            await reader.read(*span(0))
            world.put("f", other_body())
            daemon.mover.let_all()
            await daemon.hydrator.make_resident(b"f", reader.fd)

    assert path.read_bytes() == BODY
    world.close()


async def test_a_partial_stub_whose_object_changed_while_no_daemon_ran_is_no_mix(world: World) -> None:
    world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            await reader.read(*span(0))
    world.put("f", other_body())
    async with world.daemon() as daemon:
        with daemon.reader("f") as reader:
            assert await reader.read(*span(0)) == BODY[:CHUNK]
            with pytest.raises(ObjectChanged):
                await reader.read(*span(1))


async def test_a_new_key_of_the_same_bytes_goes_on_where_the_old_one_was(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            await reader.read(*span(0))
            mark = world.put("renamed", BODY)
            world.store.outside_delete("f")
            os.setxattr(path, XATTR, mark.encode())
            daemon.mover.let_all()

            assert await reader.read(*span(30)) == BODY[30 * CHUNK : 31 * CHUNK]
    assert daemon.mover.chunks.count(0) == 1


# ---------------------------------------------------------------- damage


async def test_bytes_that_were_damaged_on_their_way_are_loaded_once_more(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.garbled = 1
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(b"f", reader.fd)

    assert path.read_bytes() == BODY
    assert not is_stub(path)
    assert len(daemon.mover.asked) == 2 * COUNT
    assert daemon.front.data_dropped == [path.stat().st_ino]


async def test_an_object_that_is_damaged_is_refused_shown_and_tried_again_later(
    world: World, patient_clock: trio.testing.MockClock
) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.garbled = 10**6
        with daemon.reader("f") as reader:
            with pytest.raises(ObjectDamaged):
                await daemon.hydrator.make_resident(b"f", reader.fd)
            with pytest.raises(ObjectDamaged):
                await reader.read(*span(3))
        assert len(daemon.mover.asked) == 2 * COUNT
        assert is_stub(path)
        assert [problem.kind for problem in world.catalog.problems.get("dra-1", b"f")] == ["damaged-object"]
        assert world.catalog.partials.all() == []
        await trio.sleep(200)
        await daemon.idle()
        assert path.stat().st_blocks * 512 < CHUNK
        assert path.stat().st_mtime_ns == MTIME_NS

        with daemon.reader("f") as reader, pytest.raises(ObjectDamaged):  # no byte before all were compared
            await reader.read(*span(3))
        daemon.mover.garbled = 0
        await trio.sleep(200)
        await daemon.idle()
        with daemon.reader("f") as reader:
            assert await reader.read(*span(3)) == BODY[3 * CHUNK : 4 * CHUNK]
        assert not is_stub(path)
        assert world.catalog.problems.get("dra-1", b"f") == []


@pytest.mark.parametrize("becomes", ["another", "gone", "unreachable"])
async def test_a_store_that_has_nothing_to_compare_with_holds_nothing_up(world: World, becomes: str) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.garbled = 1  # which nobody can tell then
        with daemon.reader("f") as reader:

            def change() -> None:
                if becomes == "another":
                    world.put("f", other_body())
                elif becomes == "gone":
                    world.store.outside_delete("f")
                else:
                    world.store.failures = [EndpointUnreachable("HEAD", "no answer")]

            daemon.mover.after = (COUNT, change)
            await daemon.hydrator.make_resident(b"f", reader.fd)

    assert not is_stub(path)
    assert len(daemon.mover.asked) == COUNT


async def test_bytes_that_the_disk_does_not_give_back_are_found(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.after = (COUNT, lambda: overwrite(path, b"\0", 3 * CHUNK))
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(b"f", reader.fd)

    assert path.read_bytes() == BODY
    assert len(daemon.mover.asked) == 2 * COUNT


def overwrite(path: Path, data: bytes, offset: int) -> None:
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, data, offset)
    os.close(fd)


# ---------------------------------------------------------------- restarts


async def first_half(daemon: Daemon) -> None:
    daemon.mover.passing = set(range(COUNT // 2))
    with daemon.reader("f") as reader:
        for index in range(COUNT // 2):
            assert await reader.read(*span(index)) == BODY[index * CHUNK : (index + 1) * CHUNK]
        await daemon.idle()


async def read_all(daemon: Daemon) -> None:
    with daemon.reader("f") as reader:
        for index in range(COUNT):
            assert await reader.read(*span(index)) == BODY[index * CHUNK : (index + 1) * CHUNK]
        await daemon.idle()


@pytest.mark.parametrize("boot_id", [BOOT, "another"])
async def test_what_was_here_when_the_daemon_ended_in_order_is_here_again(world: World, boot_id: str) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        await first_half(daemon)
    (row,) = world.catalog.partials.all()
    assert row.boot_id == ON_DISK
    assert row.resident_bytes == COUNT // 2 * CHUNK
    async with world.daemon(boot_id=boot_id) as daemon:
        assert daemon.hydrator.resident_bytes(path.stat().st_ino) == COUNT // 2 * CHUNK
        await read_all(daemon)

    assert sorted(daemon.mover.chunks) == list(range(COUNT // 2, COUNT))
    assert path.stat().st_mtime_ns == MTIME_NS


async def test_a_kill_loses_no_more_than_what_was_not_written_down(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.killed_daemon() as daemon:
        await first_half(daemon)
        daemon.write_down()
    assert path.stat().st_mtime_ns != MTIME_NS  # half chunks were on their way
    async with world.daemon() as daemon:
        assert path.stat().st_mtime_ns == MTIME_NS
        await read_all(daemon)

    assert sorted(daemon.mover.chunks) == list(range(COUNT // 2, COUNT))


async def test_after_a_reboot_without_an_end_nothing_is_believed(world: World) -> None:
    path = world.stub("f", BODY)
    async with world.killed_daemon() as daemon:
        await first_half(daemon)
        daemon.write_down()
    async with world.daemon(boot_id="another") as daemon:
        assert path.stat().st_blocks * 512 < CHUNK
        assert path.stat().st_mtime_ns == MTIME_NS
        assert world.catalog.partials.all() == []
        await read_all(daemon)

    assert sorted(daemon.mover.chunks) == list(range(COUNT))


async def test_a_row_that_is_wrong_costs_a_download_and_serves_no_zeros(world: World) -> None:
    """As after a power cut that took the row's end back: the file was released once more since."""
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        await first_half(daemon)
    with path.open("r+b") as stream:
        stream.truncate(0)
        stream.truncate(len(BODY))
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    async with world.daemon() as daemon:
        await read_all(daemon)

    assert sorted(daemon.mover.chunks) == list(range(COUNT))


async def test_rows_of_stubs_that_are_gone_or_cut_otherwise_are_swept(world: World) -> None:
    paths = [world.stub(name, BODY) for name in ("f", "gone", "moved")]
    async with world.daemon() as daemon:
        daemon.mover.passing = {0}
        for path in paths:
            with daemon.reader(path.name) as reader:
                await reader.read(*span(0))
    assert len(world.catalog.partials.all()) == 3
    paths[1].unlink()
    async with world.daemon(chunk_size=2 * CHUNK):
        assert world.catalog.partials.all() == []
    assert paths[0].stat().st_blocks * 512 < CHUNK


async def test_a_file_that_nobody_reads_is_let_go_and_remembered(
    world: World, patient_clock: trio.testing.MockClock
) -> None:
    path = world.stub("f", BODY)
    async with world.daemon() as daemon:
        daemon.mover.passing = {5}
        with daemon.reader("f") as reader:
            await reader.read(*span(5))
        daemon.mover.let_all()
        await trio.sleep(200)
        await daemon.idle()
        (row,) = world.catalog.partials.all()
        assert row.boot_id == ON_DISK
        assert daemon.shared.hydrating == set()
        assert daemon.hydrator.resident_bytes(path.stat().st_ino) == row.resident_bytes >= CHUNK
        with daemon.reader("f") as reader:
            await reader.read(*span(5))

    assert daemon.mover.chunks.count(5) == 1


async def test_what_was_moved_out_of_another_association_is_read_from_its_store(world: World) -> None:
    path = world.stub("f", BODY)
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    async with world.daemon() as daemon:
        association = Association(id="dra-2", directory=b"other", bucket="other", prefix="")
        other = Served(shared=daemon.shared, association=association, store=FakeStore())
        daemon.shared.served = {"dra-1": daemon.served, "dra-2": other}
        daemon.hydrator._served_for = lambda _: other
        (path.parent / "other").mkdir()
        path.rename(path.parent / "other/g")
        with daemon.reader("other/g") as reader:
            assert await reader.read(*span(3)) == BODY[3 * CHUNK : 4 * CHUNK]
