"""What the channel answers by itself, as applications and the handlers meet it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.hydrator import make_stub
from support.mounting import Mounted, error_of, wait_until

FILES = 300


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    with Mounted(tmp_path, passthrough="on") as made:
        yield made


def passed_on(mounted: Mounted) -> int:
    return int(mounted.ask("channel")["requests"])


def test_names_attributes_and_resident_files_cost_python_nothing(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()  # Python names the directory to the channel
    before = passed_on(mounted)

    for number in range(FILES):
        (directory / f"f{number}").write_bytes(b"x" * number)
    for number in range(FILES):
        assert (directory / f"f{number}").read_bytes() == b"x" * number
    assert sum(file.stat().st_size for file in directory.iterdir()) == sum(range(FILES))
    assert not (directory / "absent").exists()
    for number in range(0, FILES, 2):
        (directory / f"f{number}").unlink()

    assert passed_on(mounted) == before
    assert len(os.listdir(mounted.tree / "d")) == FILES // 2 + 1


def test_what_was_made_and_closed_without_python_is_known_to_it(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()

    with (directory / "f").open("wb") as file:
        ino = os.fstat(file.fileno()).st_ino
        assert mounted.ask("open_handles", ino=ino) == 1
        assert mounted.calls("writer_opened")[-1] == ["writer_opened", ["d/f", ino]]
        file.write(b"1")
    changed = len(mounted.calls("changed"))

    wait_until(lambda: mounted.ask("open_handles", ino=ino) == 0)
    assert mounted.calls("writer_closed")[-1] == ["writer_closed", ["d/f", ino]]
    assert mounted.calls("changed")[-1] == ["changed", ["d/f"]]
    assert changed >= 2  # made, and closed after a write

    os.rename(directory / "f", directory / "g")
    assert mounted.calls("renamed")[-1] == ["renamed", ["d/f", "d/g", False]]
    (directory / "g").unlink()
    assert mounted.calls("changed")[-1] == ["changed", ["d/g"]]


def test_a_name_that_was_absent_shows_as_soon_as_sync_tells(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()
    assert not (directory / "new").exists()

    (mounted.tree / "d" / "new").write_bytes(b"1")
    mounted.ask("invalidate_entry", parent_ino=(mounted.tree / "d").stat().st_ino, name="new")

    wait_until((directory / "new").exists)
    assert (directory / "new").read_bytes() == b"1"


def test_where_writing_becomes_forbidden_nothing_is_made_any_more(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()

    mounted.ask("forbid", read_only=["d"], roots=[], bugs=[])
    assert error_of(os.open, directory / "f", os.O_CREAT | os.O_WRONLY) == errno.EROFS

    mounted.ask("forbid", read_only=[], roots=[], bugs=[])
    (directory / "f").touch()


def test_a_stub_in_a_directory_that_the_channel_serves_is_loaded_by_python(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()
    data = os.urandom(200_000)
    mounted.put_object("key", data)
    make_stub(mounted.tree / "d" / "s", "key", len(data), mtime_ns=123_000_000_000)

    with (directory / "s").open("rb", buffering=0) as file:
        assert file.read(10) == data[:10]
        # Its times stand still while they move on the host: only Python knows them.
        assert os.stat(directory / "s").st_mtime_ns == os.fstat(file.fileno()).st_mtime_ns == 123_000_000_000
        with os.scandir(directory) as entries:
            times = {entry.name: entry.stat().st_mtime_ns for entry in entries}
        assert times["s"] == 123_000_000_000
    assert (directory / "s").read_bytes() == data
    assert (directory / "s").stat().st_mtime_ns == 123_000_000_000


def test_a_number_that_is_given_again_is_another_file(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    (directory / "first").touch()
    seen = set()
    for round_ in range(50):  # behind the mount, where the host gives numbers again at once
        behind = mounted.tree / "d" / "f"
        behind.write_bytes(b"%d" % round_)
        mounted.ask("invalidate_entry", parent_ino=(mounted.tree / "d").stat().st_ino, name="f")
        assert (directory / "f").read_bytes() == b"%d" % round_
        seen.add(behind.stat().st_ino)
        behind.unlink()

    assert len(seen) < 50, "the test did not meet what it is about"


def test_a_daemon_that_touches_its_own_mount_is_refused_and_nobody_hangs(mounted: Mounted) -> None:
    (mounted.path / "f").touch()

    assert mounted.ask("touch_own_mount", name="absent") == errno.EDEADLK
    assert mounted.ask("channel")["refused"] >= 1
    assert (mounted.path / "f").exists()


def test_many_processes_at_once_leave_tree_and_table_in_step(mounted: Mounted) -> None:
    directory = mounted.path / "d"
    directory.mkdir()
    steps = ("echo $i > $1.$i", "mv $1.$i $1.m$i", "cat $1.m$i", "ls -l . > /dev/null 2>&1 || true", "rm $1.m$i")
    script = f"for i in $(seq 150); do {'; '.join(steps)}; done"
    shell = shutil.which("sh") or "sh"
    workers = [
        subprocess.Popen([shell, "-ec", script, shell, f"w{number}"], cwd=directory, stdout=subprocess.PIPE)  # noqa: S603
        for number in range(4)
    ]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert out.split() == [b"%d" % number for number in range(1, 151)]

    assert os.listdir(directory) == os.listdir(mounted.tree / "d") == []
    opened, closed = len(mounted.calls("writer_opened")), len(mounted.calls("writer_closed"))
    assert opened == closed == 4 * 150
    assert mounted.ask("backings") == 0
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: mounted.ask("table_size") <= 3)


@pytest.mark.parametrize("flags", ["O_RDONLY", "O_WRONLY"])
def test_who_is_killed_while_it_opens_a_released_file_dies_at_once(mounted: Mounted, flags: str) -> None:
    mounted.put_object("key", b"x" * 1000)
    make_stub(mounted.tree / "s", "key", 1000)
    ino = (mounted.tree / "s").stat().st_ino
    mounted.ask("close_gate")
    script = f"import os, sys; os.open(sys.argv[1], os.{flags})"
    with subprocess.Popen([sys.executable, "-c", script, mounted.path / "s"]) as opener:  # noqa: S603
        wait_until(lambda: mounted.ask("loads") > 0)
        opener.kill()
        assert opener.wait(30) == -signal.SIGKILL

    mounted.ask("open_gate")
    wait_until(lambda: mounted.ask("open_handles", ino=ino) == 0)
    assert (mounted.path / "s").read_bytes() == b"x" * 1000
    assert len(mounted.calls("writer_opened")) == len(mounted.calls("writer_closed"))
