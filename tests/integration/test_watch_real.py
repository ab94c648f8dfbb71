# ruff: noqa: S603, S607 - mount(8) and unshare(1)
"""The watcher against a real inotify: what is done in a tree is reported, all of it, at the path where it is."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsxsync import _core
from fsxsync.tree import watch, watch_cover, watch_walk
from fsxsync.tree.watch import Watcher

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@dataclass
class Seen:
    """What the callbacks were told, in order and by kind."""

    changed: list[bytes] = field(default_factory=list)
    moved: list[tuple[bytes, bytes, bool]] = field(default_factory=list)
    subtrees: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    overflows: int = 0

    def overflow(self) -> None:
        self.overflows += 1

    def clear(self) -> None:
        for told in (self.changed, self.moved, self.subtrees, self.gone):
            told.clear()
        self.overflows = 0


@dataclass
class World:
    """A directory on disk with what a watcher needs of a tree."""

    root: Path
    root_fd: int
    dev: int
    staging_name: bytes | None = b".staging"
    seen: Seen = field(default_factory=Seen)

    def watcher(self) -> Watcher:
        seen = self.seen
        return Watcher(
            self,
            on_change=seen.changed.append,
            on_moved=lambda old, new, is_directory: seen.moved.append((old, new, is_directory)),
            on_subtree=seen.subtrees.append,
            on_gone=seen.gone.append,
            on_overflow=seen.overflow,
        )

    @asynccontextmanager
    async def watched(self, *roots: bytes) -> AsyncIterator[Watcher]:
        watcher = self.watcher()
        for directory in roots or (b"",):
            watcher.add_root(directory)
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            for directory in roots or (b"",):
                await watcher.watched(directory)
            yield watcher
            nursery.cancel_scope.cancel()

    async def after(self, watcher: Watcher) -> Seen:
        with trio.fail_after(30):
            await watcher.barrier()
        return self.seen


@pytest.fixture
def world() -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="fsxsync-watch-", dir="/tmp"))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield World(root, fd, os.fstat(fd).st_dev)
    os.close(fd)
    shutil.rmtree(root)


def exchange(world: World, one: bytes, other: bytes) -> None:
    _core.renameat2(world.root_fd, one, world.root_fd, other, _core.RENAME_EXCHANGE)


# ------------------------------------------------------------- files


async def test_a_file_is_reported_when_its_writer_closes_it(world: World) -> None:
    async with world.watched() as watcher:
        with (world.root / "f").open("wb", buffering=0) as file:
            file.write(b"half")
            os.fchmod(file.fileno(), 0o600)
            assert (await world.after(watcher)).changed == []

        assert (await world.after(watcher)).changed == [b"f"]


async def test_a_file_that_stays_open_is_reported_when_it_is_renamed(world: World) -> None:
    async with world.watched() as watcher:
        with (world.root / "log").open("wb"):
            (world.root / "log").rename(world.root / "log.1")
            seen = await world.after(watcher)

            assert (seen.changed, seen.moved) == ([], [(b"log", b"log.1", False)])


async def test_whatever_is_created_without_a_writer_is_reported_at_once(world: World) -> None:
    (world.root / "f").write_bytes(b"x")
    async with world.watched() as watcher:
        (world.root / "link").hardlink_to(world.root / "f")
        (world.root / "symlink").symlink_to("f")
        os.mkfifo(world.root / "fifo")
        os.mknod(world.root / "node", 0o600)
        (world.root / "d").mkdir()

        seen = await world.after(watcher)
        assert set(seen.changed) == {b"link", b"symlink", b"fifo", b"node", b"d"}


async def test_a_link_whose_first_name_is_removed_at_once_is_not_taken_for_a_file_being_written(world: World) -> None:
    (world.root / "f").write_bytes(b"x")
    async with world.watched() as watcher:
        (world.root / "g").hardlink_to(world.root / "f")
        (world.root / "f").unlink()

        assert set((await world.after(watcher)).changed) == {b"f", b"g"}


async def test_a_file_without_a_name_is_reported_once_it_has_one_and_its_writer_is_through(world: World) -> None:
    async with world.watched() as watcher:
        fd = os.open(world.root, os.O_TMPFILE | os.O_WRONLY)
        os.write(fd, b"data")
        os.link(f"/proc/self/fd/{fd}", world.root / "f", src_dir_fd=world.root_fd, follow_symlinks=True)
        assert (await world.after(watcher)).changed == []
        os.close(fd)

        assert (await world.after(watcher)).changed == [b"f"]


async def test_attributes_and_removal_of_a_file(world: World) -> None:
    (world.root / "f").write_bytes(b"x")
    async with world.watched() as watcher:
        (world.root / "f").chmod(0o600)
        assert (await world.after(watcher)).changed == [b"f"]

        (world.root / "f").unlink()
        assert (await world.after(watcher)).changed == [b"f", b"f"]


async def test_a_rename_over_another_file_is_a_pair(world: World) -> None:
    (world.root / "f").write_bytes(b"1")
    (world.root / "g").write_bytes(b"2")
    async with world.watched() as watcher:
        (world.root / "f").rename(world.root / "g")

        assert (await world.after(watcher)).moved == [(b"f", b"g", False)]


async def test_what_comes_out_of_staging_is_reported_where_it_arrives_and_what_goes_in_where_it_left(
    world: World,
) -> None:
    (world.root / ".staging").mkdir()
    (world.root / "old").write_bytes(b"old")
    async with world.watched() as watcher:
        (world.root / ".staging" / "a").write_bytes(b"new")
        (world.root / ".staging" / "b").write_bytes(b"new")
        (world.root / ".staging" / "a").rename(world.root / "new")
        exchange(world, b".staging/b", b"old")

        seen = await world.after(watcher)
        assert set(seen.changed) == {b"new", b"old"}
        assert seen.moved == []
        assert watcher.watches == 1


# ------------------------------------------------------------- directories


async def test_all_levels_of_mkdir_p_are_watched_before_the_subtree_is_reported(world: World) -> None:
    async with world.watched() as watcher:
        (world.root / "a/b/c/d").mkdir(parents=True)
        seen = await world.after(watcher)
        assert watcher.watches == 5
        assert b"a" in seen.subtrees
        assert b"a" in seen.changed

        (world.root / "a/b/c/d/f").write_bytes(b"x")
        assert b"a/b/c/d/f" in (await world.after(watcher)).changed


async def test_a_directory_moved_in_from_outside_is_watched_and_its_content_is_unknown(world: World) -> None:
    (world.root / "in").mkdir()
    (world.root / "out/a/b").mkdir(parents=True)
    async with world.watched(b"in") as watcher:
        (world.root / "out/a").rename(world.root / "in/a")
        seen = await world.after(watcher)
        assert (seen.changed, seen.subtrees) == ([b"in/a"], [b"in/a"])

        (world.root / "in/a/b/f").write_bytes(b"x")
        assert b"in/a/b/f" in (await world.after(watcher)).changed


async def test_a_directory_moved_out_is_gone_and_no_longer_watched(world: World) -> None:
    (world.root / "in/a/b").mkdir(parents=True)
    (world.root / "out").mkdir()
    async with world.watched(b"in") as watcher:
        assert watcher.watches == 3
        (world.root / "in/a").rename(world.root / "out/a")
        seen = await world.after(watcher)
        assert (seen.changed, seen.gone) == ([b"in/a"], [b"in/a"])
        assert watcher.watches == 1

        seen.clear()
        (world.root / "out/a/b/f").write_bytes(b"x")
        assert (await world.after(watcher)) == Seen()


async def test_a_directory_moved_out_and_in_again_is_watched_under_its_new_name(world: World) -> None:
    (world.root / "in/a/b").mkdir(parents=True)
    async with world.watched(b"in") as watcher:
        (world.root / "in/a").rename(world.root / "a")
        (world.root / "a").rename(world.root / "in/z")
        seen = await world.after(watcher)
        assert (seen.gone, seen.subtrees) == ([b"in/a"], [b"in/z"])

        (world.root / "in/z/b/f").write_bytes(b"x")
        assert b"in/z/b/f" in (await world.after(watcher)).changed


async def test_a_directory_moved_between_two_roots_is_a_pair_and_keeps_its_watches(world: World) -> None:
    (world.root / "one/a/b").mkdir(parents=True)
    (world.root / "two").mkdir()
    async with world.watched(b"one", b"two") as watcher:
        (world.root / "one/a").rename(world.root / "two/z")
        (world.root / "two/z/b/f").write_bytes(b"x")

        seen = await world.after(watcher)
        assert seen.moved == [(b"one/a", b"two/z", True)]
        assert (seen.changed, seen.gone, seen.subtrees) == ([b"two/z/b/f"], [], [])
        assert watcher.watches == 4


async def test_a_directory_over_an_empty_one_keeps_its_watches(world: World) -> None:
    (world.root / "a/b").mkdir(parents=True)
    (world.root / "empty").mkdir()
    async with world.watched() as watcher:
        (world.root / "a").rename(world.root / "empty")
        seen = await world.after(watcher)
        assert seen.moved == [(b"a", b"empty", True)]
        assert watcher.watches == 3

        seen.clear()
        (world.root / "empty/b/f").write_bytes(b"x")
        assert b"empty/b/f" in (await world.after(watcher)).changed


async def test_two_directories_exchanged_are_each_watched_where_they_are_now(world: World) -> None:
    (world.root / "a/in-a").mkdir(parents=True)
    (world.root / "b/in-b").mkdir(parents=True)
    async with world.watched() as watcher:
        exchange(world, b"a", b"b")
        seen = await world.after(watcher)
        assert set(seen.moved) == {(b"a", b"b", True), (b"b", b"a", True)}
        assert watcher.watches == 5

        seen.clear()
        (world.root / "a/in-b/f").write_bytes(b"x")
        (world.root / "b/in-a/f").write_bytes(b"x")
        (world.root / "a/g").write_bytes(b"x")
        assert set((await world.after(watcher)).changed) == {b"a/in-b/f", b"b/in-a/f", b"a/g"}


async def test_a_directory_made_again_under_the_same_name_is_watched_anew(world: World) -> None:
    (world.root / "d").mkdir()
    async with world.watched() as watcher:
        for _ in range(50):
            (world.root / "d").rmdir()
            (world.root / "d").mkdir()
            (world.root / "d/e").mkdir()
            (world.root / "d/e").rmdir()
        await world.after(watcher)
        assert watcher.watches == 2
        world.seen.clear()

        (world.root / "d/f").write_bytes(b"x")
        assert (await world.after(watcher)).changed == [b"d/f"]


async def test_a_removed_directory_that_somebody_holds_open_is_forgotten(world: World) -> None:
    (world.root / "d").mkdir()
    async with world.watched() as watcher:
        fd = os.open(world.root / "d", os.O_RDONLY)
        (world.root / "d").rmdir()
        seen = await world.after(watcher)
        os.fchmod(fd, 0o700)
        await world.after(watcher)
        os.close(fd)

        await world.after(watcher)
        assert set(seen.changed) == {b"d"}
        assert watcher.watches == 1


async def test_attributes_of_directories_are_reported_once_those_of_the_root_too(world: World) -> None:
    (world.root / "one/d").mkdir(parents=True)
    async with world.watched(b"one") as watcher:
        (world.root / "one/d").chmod(0o700)
        (world.root / "one").chmod(0o700)

        assert (await world.after(watcher)).changed == [b"one/d", b"one"]


@pytest.fixture
def mounted(world: World) -> Iterator[Path]:
    """Another file system below the root."""
    place = world.root / "d"
    place.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "none", place], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_mounted_file_system_below_is_not_watched(world: World, mounted: Path) -> None:
    (mounted / "e").mkdir()
    async with world.watched() as watcher:
        (mounted / "e/f").write_bytes(b"x")
        seen = await world.after(watcher)

        assert (watcher.watches, seen.changed) == (1, [])


# ------------------------------------------------------------- roots


async def test_a_root_that_is_removed_asks_for_a_scan_and_can_be_added_again(world: World) -> None:
    (world.root / "one/d").mkdir(parents=True)
    async with world.watched(b"one") as watcher:
        (world.root / "one").rename(world.root / "elsewhere")
        seen = await world.after(watcher)
        assert (seen.overflows, seen.gone, watcher.watches) == (1, [], 0)

        (world.root / "elsewhere").rename(world.root / "one")
        watcher.add_root(b"one")
        await watcher.watched(b"one")
        (world.root / "one/d/f").write_bytes(b"x")
        assert b"one/d/f" in (await world.after(watcher)).changed


async def test_a_root_below_a_renamed_directory_is_found_again_by_adding_it(world: World) -> None:
    (world.root / "up/one/d").mkdir(parents=True)
    async with world.watched(b"up/one") as watcher:
        (world.root / "up").rename(world.root / "down")
        (world.root / "up/one/e").mkdir(parents=True)
        watcher.add_root(b"up/one")
        await watcher.watched(b"up/one")
        assert watcher.watches == 2

        (world.root / "up/one/e/f").write_bytes(b"x")
        (world.root / "down/one/d/f").write_bytes(b"x")
        assert (await world.after(watcher)).changed == [b"up/one/e/f"]


async def test_nothing_of_a_removed_root_is_reported(world: World) -> None:
    (world.root / "one/d").mkdir(parents=True)
    (world.root / "two").mkdir()
    async with world.watched(b"one", b"two") as watcher:
        watcher.remove_root(b"one")
        (world.root / "one/d/f").write_bytes(b"x")
        (world.root / "two/f").write_bytes(b"x")

        assert (await world.after(watcher)).changed == [b"two/f"]
        assert watcher.watches == 1


# ------------------------------------------------------------- load


async def test_a_barrier_has_everything_that_a_busy_writer_did_before_it(world: World) -> None:
    (world.root / "d").mkdir()
    made: list[bytes] = []

    def write() -> None:
        for number in range(5000):
            if number % 100 == 0:
                (world.root / f"d/{number}").mkdir()
            name = f"d/{number - number % 100}/f{number}"
            (world.root / name).touch()
            made.append(name.encode())

    async with world.watched() as watcher:
        writer = threading.Thread(target=write)
        writer.start()
        rounds = 0
        while writer.is_alive():
            before = len(made)
            seen = await world.after(watcher)
            rounds += 1
            known = set(seen.changed)
            subtrees = tuple(path + b"/" for path in seen.subtrees)
            assert [path for path in made[:before] if path not in known and not path.startswith(subtrees)] == []
        writer.join()

    assert rounds > 1


async def test_other_tasks_run_while_a_burst_is_processed(world: World) -> None:
    async with world.watched() as watcher:
        for number in range(4000):
            (world.root / f"{number}").touch()
        counts: list[int] = []

        async def count() -> None:
            while True:
                counts.append(len(world.seen.changed))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await world.after(watcher)
            nursery.cancel_scope.cancel()

        assert len(world.seen.changed) == 4000
        # trio shuffles who runs first in each of its rounds: two turns may follow each other.
        assert max(after - before for before, after in itertools.pairwise(counts)) <= 2 * watch.TAKEN_AT_ONCE


async def test_who_makes_many_records_whenever_the_watcher_lets_others_run_does_not_overrun_the_queue(
    world: World,
) -> None:
    """As a release does: what is read at a time is taken before others run, else they are faster than we are."""
    files = [world.root / f"{number:03d}" for number in range(750)]
    for file in files:
        file.touch()
    async with world.watched() as watcher:
        taken = -1
        for _ in range(60):
            with trio.fail_after(60):
                while len(world.seen.changed) == taken:
                    await trio.lowlevel.checkpoint()
            taken = len(world.seen.changed)
            for mode in (0o600, 0o640):  # records of 32 bytes: 48,000 of the 61,440 read at a time
                for file in files:
                    file.chmod(mode)
        await world.after(watcher)
        assert (watcher.overflows, len(set(world.seen.changed))) == (0, 750)


async def test_all_that_is_queued_is_read_before_others_have_their_turn(world: World) -> None:
    """These may take a tenth of a second, in which a release on a fast disk queues thousands of records: read some
    hundreds in each turn, they were lost, and the tree was scanned again and again."""
    files = [world.root / f"{number:04d}" for number in range(QUEUE // 4)]
    for file in files:
        file.touch()
    async with world.watched() as watcher:
        await world.after(watcher)
        world.seen.clear()
        for mode in (0o600, 0o640, 0o600):
            for file in files:
                file.chmod(mode)
        with trio.fail_after(60):
            while not world.seen.changed:
                await trio.lowlevel.checkpoint()
        assert watcher._queued() == 0
        assert len((await world.after(watcher)).changed) == len(files), "and what tells of one file is one record"


async def test_lost_records_ask_for_a_scan_and_directories_missed_are_watched_and_reported(world: World) -> None:
    (world.root / "old/d").mkdir(parents=True)
    async with world.watched() as watcher:
        (world.root / "f").touch()
        for _ in range(QUEUE // 2 + 1):  # two kinds in turns, so that the kernel merges none
            (world.root / "f").chmod(0o600)
            (world.root / "f").write_bytes(b"x")
        (world.root / "new/e").mkdir(parents=True)
        (world.root / "old/d").rename(world.root / "new/d")
        (world.root / "old").rmdir()
        seen = await world.after(watcher)
        assert (watcher.overflows, seen.overflows) == (1, 1)
        assert watcher.watches == 4
        assert b"new" in seen.subtrees

        seen.clear()
        (world.root / "new/d/f").touch()
        (world.root / "new/e/f").touch()
        assert set((await world.after(watcher)).changed) == {b"new/d/f", b"new/e/f"}


_BELOW_A_LIMIT = """
import sys, trio, pathlib, test_watch_real as real, fsxsync.tree.watch_cover as watch, os
pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("5")
async def main():
    root = pathlib.Path(sys.argv[1])
    fd = os.open(root, os.O_RDONLY)
    world = real.World(root, fd, os.fstat(fd).st_dev)
    async with world.watched() as watcher:
        seen = await world.after(watcher)
        assert watcher.watches == 5, watcher.watches
        assert "fs.inotify.max_user_watches" in watcher.degraded_reason
        (root / "fresh").mkdir()
        seen = await world.after(watcher)
        assert b"fresh" in seen.subtrees and b"fresh" in seen.changed
        while seen.overflows < 2:
            await trio.sleep(0.01)
        pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("100")
        while watcher.degraded_reason:
            await trio.sleep(0.01)
        assert watcher.watches == 12, watcher.watches
        (root / "9" / "f").touch()
        assert b"9/f" in (await world.after(watcher)).changed
watch.RESCAN_S = 0.1
trio.run(main)
print("done")
"""


def test_without_enough_watches_it_says_so_scans_often_and_recovers(world: World) -> None:
    for number in range(10):
        (world.root / str(number)).mkdir()

    ran = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", _BELOW_A_LIMIT, world.root],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    if "unshare" in ran.stderr:
        pytest.skip("user namespaces are not allowed here")
    assert (ran.stdout, ran.stderr) == ("done\n", "")


async def test_a_large_directory_is_listed_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_walk, "_LISTING_BYTES", 512)
    for number in range(200):
        (world.root / f"{number}/deep").mkdir(parents=True)

    async with world.watched() as watcher:
        assert watcher.watches == 401


# ------------------------------------------------------------- anything at all

NAMES = ["a", "b", "c"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
operations = st.one_of(
    st.tuples(st.just("mkdir"), paths),
    st.tuples(st.just("write"), paths),
    st.tuples(st.just("chmod"), paths),
    st.tuples(st.just("remove"), paths),
    st.tuples(st.just("rmtree"), paths),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("exchange"), paths, paths),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("symlink"), paths),
    st.tuples(st.just("out"), paths),
    st.tuples(st.just("in"), paths),
    st.tuples(st.just("barrier")),
)


def perform(world: World, operation: tuple[str, ...]) -> None:  # noqa: C901 - a list of what can be done
    """Do it if it can be done; what can't is no change."""
    kind, *names = operation
    here = [world.root / "in" / name for name in names]
    outside = world.root / "out"
    try:
        match kind:
            case "mkdir":
                here[0].mkdir(parents=True)
            case "write":
                here[0].write_bytes(os.urandom(8))
            case "chmod":
                here[0].chmod(here[0].stat().st_mode ^ 0o011)
            case "remove":
                here[0].rmdir() if here[0].is_dir() and not here[0].is_symlink() else here[0].unlink()
            case "rmtree":
                shutil.rmtree(here[0])
            case "rename":
                here[0].rename(here[1])
            case "exchange":
                exchange(world, b"in/" + names[0].encode(), b"in/" + names[1].encode())
            case "link":
                here[1].hardlink_to(here[0])
            case "symlink":
                here[0].symlink_to("nowhere")
            case "out":
                here[0].rename(outside / str(len(list(outside.iterdir()))))
            case "in":
                next(outside.iterdir()).rename(here[0])
    except (OSError, StopIteration):
        return


def snapshot(world: World) -> dict[bytes, tuple[int, ...]]:
    """State by path, without what follows from other paths: link counts, and times and sizes of directories."""
    found = {}
    for directory, directories, files in os.walk(os.fsencode(world.root / "in")):
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            state = (status.st_ino, status.st_mode)
            if name in files:
                state += (status.st_size, status.st_mtime_ns)
            found[os.path.relpath(path, os.fsencode(world.root))] = state
    return found


def covered(seen: Seen, before: set[bytes], after: set[bytes]) -> set[bytes]:
    """The paths that somebody looks at who follows every hint, with the listing and the catalog at hand."""

    def below(directory: bytes, where: set[bytes]) -> set[bytes]:
        return {path for path in where if path.startswith(directory + b"/")}

    looked = set(seen.changed)
    for old, new, is_directory in seen.moved:
        looked |= {old, new}
        if is_directory:
            looked |= below(old, before) | below(new, after)
    for directory in seen.subtrees:
        looked |= below(directory, after)
    for directory in seen.gone:
        looked |= below(directory, before)
    return looked


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(start=st.lists(operations, max_size=12), done=st.lists(operations, max_size=25), meanwhile=st.booleans())
def test_whatever_is_done_every_path_that_differs_afterwards_is_hinted_at(
    start: list[tuple[str, ...]], done: list[tuple[str, ...]], meanwhile: bool
) -> None:
    root = Path(tempfile.mkdtemp(prefix="fsxsync-watch-", dir="/tmp"))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    world = World(root, fd, os.fstat(fd).st_dev)
    (root / "in").mkdir()
    (root / "out").mkdir()

    async def main() -> None:
        for operation in start:
            perform(world, operation)
        async with world.watched(b"in") as watcher:
            await world.after(watcher)
            world.seen.clear()
            before = snapshot(world)
            for operation in done:
                if operation[0] == "barrier":
                    await world.after(watcher)
                elif meanwhile:
                    await trio.to_thread.run_sync(perform, world, operation)
                else:
                    perform(world, operation)
            seen = await world.after(watcher)
            after = snapshot(world)

            differ = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
            looked = covered(seen, before.keys(), after.keys())
            # The kernel tells of one name of a file. Who looks there finds the inode, and knows its other names.
            inodes = {after[path][0] for path in looked & after.keys()}
            same = {path for path in before.keys() & after.keys() if before[path][0] == after[path][0] in inodes}
            assert differ - looked - same == set()
            directories = sum((mode & 0o170000) == 0o040000 for _, mode, *_ in after.values())
            assert watcher.watches == 1 + directories

    try:
        trio.run(main)
    finally:
        os.close(fd)
        shutil.rmtree(root)


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_directory_that_goes_before_what_was_in_it_was_looked_at_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_held: bool
) -> None:
    """What lay in it was removed before it was watched, and it right after: nobody else tells of the first. Where
    somebody has it open, its watch ends later than its name."""
    held: list[int] = []

    def look(inotify: Any, *arguments: Any) -> Any:
        found = watch_walk.look(inotify, *arguments)
        if any(seen.path == b"d" for seen in found):
            if is_held:
                held.append(os.open(world.root / "d", os.O_RDONLY))
            (world.root / "d").rmdir()
        return found

    async with world.watched() as watcher:
        monkeypatch.setattr(watch_cover, "look", look)
        (world.root / "d").mkdir()
        seen = await world.after(watcher)
        for fd in held:
            os.close(fd)

        assert (b"d" in seen.gone, b"d" in seen.subtrees) == (True, False)
