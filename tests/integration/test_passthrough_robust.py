# ruff: noqa: S603, S607 - umount(8), our own programs
"""The relay under what a machine does to a daemon: signals, full sockets, large requests, unmounting, death."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.hydrator import CHUNK, make_stub
from support.applications import GONE, Applications
from support.mounting import Mounted, error_of

from fsxsync import _core
from fsxsync.mount.mountpoint import clear_dead_mount
from fsxsync.mount.passthrough import why_not

KILLS = 5
LONGEST_XATTR = 65_536
"""XATTR_SIZE_MAX."""
HARMLESS = [signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT]


def why_not_here() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    return why_not(Path(tempfile.gettempdir()))


pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "-")


@pytest.fixture
def passing(tmp_path: Path) -> Iterator[Mounted]:
    with Mounted(tmp_path, passthrough="on") as mounted:
        yield mounted


def wait_until_served_by_us(mounted: Mounted, name: str, body: bytes) -> int:
    """A descriptor of a file whose reads and writes come through the process for as long as it is open."""
    make_stub(mounted.tree / name, name, len(body))
    mounted.put_object(name, body)
    fd = os.open(mounted.path / name, os.O_RDONLY)
    assert os.pread(fd, 1, 0) == body[:1]
    return fd


# ---------------------------------------------------------------- signals


def test_signals_that_reach_any_of_its_threads_lose_no_request(passing: Mounted) -> None:
    body = os.urandom(8 * CHUNK)
    keeper = wait_until_served_by_us(passing, "f", body)
    threads = [int(name) for name in os.listdir(f"/proc/{passing.process.pid}/task")]
    tgkill = ctypes.CDLL(None).syscall
    ended = threading.Event()

    def disturb() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            for thread in threads:
                tgkill(234, passing.process.pid, thread, int(HARMLESS[number % len(HARMLESS)]))
            if number % 20 == 0:
                os.kill(passing.process.pid, signal.SIGSTOP)
                os.kill(passing.process.pid, signal.SIGCONT)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        for number in range(40):
            turned = body[number:] + body[:number]
            with open(passing.path / "f", "r+b", buffering=0) as file:
                assert file.write(turned) == len(turned)
                assert os.pread(file.fileno(), len(turned), 0) == turned
            (passing.path / f"{number}").write_bytes(turned[:5000])
            assert len(os.listdir(passing.path)) == number + 2
    finally:
        ended.set()
        disturbing.join()
        os.close(keeper)
    assert (passing.tree / "f").read_bytes() == turned


# ---------------------------------------------------------------- large and many


def test_more_requests_than_the_socket_holds_wait_for_their_turn(passing: Mounted) -> None:
    """libfuse reads nothing for a while: 64 writers of 128 KiB are eight times what the socket takes."""
    body = os.urandom(64 * 2 * CHUNK)
    keeper = wait_until_served_by_us(passing, "f", body)
    piece = 2 * CHUNK
    with open(passing.path / "f", "r+b", buffering=0) as file, ThreadPoolExecutor(64) as writers:
        stalled = threading.Thread(target=passing.ask, args=["stall"], kwargs={"seconds": 1.0})
        stalled.start()
        done = list(
            writers.map(
                lambda at: os.pwrite(file.fileno(), body[at : at + piece][::-1], at), range(0, len(body), piece)
            )
        )
        stalled.join()

    assert done == [piece] * 64
    expected = b"".join(body[at : at + piece][::-1] for at in range(0, len(body), piece))
    assert (passing.tree / "f").read_bytes() == expected
    os.close(keeper)


def test_the_largest_requests_there_are(tmp_path: Path) -> None:
    """On tmpfs, whose attributes may be as long as the kernel allows."""
    (tmp_path / "tree").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "tree"], check=True)
    try:
        with Mounted(tmp_path, passthrough="on") as mounted:
            value = os.urandom(LONGEST_XATTR)
            (mounted.path / "f").touch()
            os.setxattr(mounted.path / "f", "user.long", value)
            assert os.getxattr(mounted.path / "f", "user.long") == value
            assert os.getxattr(mounted.tree / "f", "user.long") == value
            for number in range(200):
                os.setxattr(mounted.path / "f", f"user.{number:03}" + "n" * 240, b"")
            assert len(os.listxattr(mounted.path / "f")) == 201

            body = os.urandom(16 * CHUNK)
            keeper = wait_until_served_by_us(mounted, "large", body)
            with open(mounted.path / "large", "r+b", buffering=0) as file:
                assert file.write(body[::-1]) == len(body)
                assert os.pread(file.fileno(), len(body), 0) == body[::-1]
            os.close(keeper)

            (mounted.path / "d").mkdir()
            names = {f"{number:04}".encode() + b"x" * 250 for number in range(5000)}
            for name in names:
                (mounted.tree / "d" / os.fsdecode(name)).touch()
            fd = os.open(mounted.path / "d", os.O_RDONLY | os.O_DIRECTORY)
            found: set[bytes] = set()
            offset = 0
            while entries := _core.getdents(fd, offset, 1 << 20):
                found |= {entry[0] for entry in entries}
                offset = entries[-1][3]
            os.close(fd)
            assert found - {b".", b".."} == names
    finally:
        _core.umount2(bytes(tmp_path / "tree"), _core.MNT_DETACH)


# ---------------------------------------------------------------- interrupts

_READER = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
fd = os.open(sys.argv[1], os.O_RDONLY)
print("up", flush=True)
os._exit(os.pread(fd, 10, 200_000) != b"z" * 10)
"""


def test_readers_that_are_interrupted_again_and_again_get_their_bytes(passing: Mounted) -> None:
    body = b"z" * 4 * CHUNK
    for number in range(20):
        make_stub(passing.tree / f"{number}", f"{number}", len(body))
        passing.put_object(f"{number}", body)
    passing.ask("close_gate")
    readers = [
        subprocess.Popen(["python3", "-c", _READER, passing.path / f"{number}"], stdout=subprocess.PIPE)
        for number in range(20)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"up\n"
    for _ in range(50):  # as long as they wait, others are served
        (passing.path / "other").write_bytes(b"alive")
        assert (passing.path / "other").read_bytes() == b"alive"
        time.sleep(0.01)
    for reader in readers[::2]:
        reader.kill()
    for reader in readers[::2]:
        assert reader.wait(20) == -signal.SIGKILL  # while the data still does not come
    passing.ask("open_gate")

    assert [reader.wait(20) for reader in readers[1::2]] == [0] * 10
    for reader in readers:
        assert reader.stdout is not None
        reader.stdout.close()


# ---------------------------------------------------------------- ends


def test_a_busy_mount_can_not_be_unmounted_and_goes_on(passing: Mounted) -> None:
    with open(passing.path / "f", "w+b", buffering=0) as file:
        file.write(b"one")
        done = subprocess.run(["umount", passing.path], check=False, capture_output=True, text=True)
        assert done.returncode != 0
        assert "busy" in done.stderr
        file.write(b"two")
        (passing.path / "g").write_bytes(b"works")

    assert (passing.tree / "f").read_bytes() == b"onetwo"
    assert (passing.tree / "g").read_bytes() == b"works"


def test_unmounted_lazily_it_serves_whoever_still_is_there(tmp_path: Path) -> None:
    with Mounted(tmp_path, passthrough="on") as mounted:
        with open(mounted.path / "f", "w+b", buffering=0) as file:
            directory = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY)
            subprocess.run(["umount", "-l", mounted.path], check=True)
            assert os.listdir(mounted.path) == []
            file.write(b"written")
            os.fsync(file.fileno())
            assert os.pread(file.fileno(), 7, 0) == b"written"
            assert os.listdir(directory) == ["f"]
            os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
            os.close(directory)
            assert mounted.process.poll() is None
        assert mounted.process.wait(20) == 0
    assert sorted(os.listdir(mounted.tree)) == ["f", "made"]


@pytest.mark.parametrize("data_path", ["on", "off"])
def test_killed_while_it_tells_the_kernel_to_forget(tmp_path: Path, data_path: str) -> None:
    """A thread of it waits then for the lock of a directory, whose holder waits for an answer: see mount/deathwatch."""
    for _ in range(KILLS):
        with Mounted(tmp_path, passthrough=data_path) as mounted, Applications() as programs:
            parent = mounted.tree.stat().st_ino
            for number in range(4):
                programs.start("make", mounted.path / f"f{number}")
            for number in range(200):
                mounted.ask("invalidate_entry", parent_ino=parent, name=f"f{number % 4}-{number % 50}")
            mounted.kill()

            programs.wait("make")
            assert error_of(os.listdir, mounted.path) in {errno.ENOTCONN, errno.ECONNABORTED}
            assert set(programs.end().values()) <= GONE
            clear_dead_mount(mounted.path)


# ---------------------------------------------------------------- nothing is left

CYCLES = int(os.environ.get("FSXSYNC_TEST_CYCLES", "3000"))


def resident_kib(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def test_opening_and_closing_leaves_nothing_behind(passing: Mounted) -> None:
    """FSXSYNC_TEST_CYCLES sets how often."""
    names = [f"{number}" for number in range(50)]
    for name in names:
        (passing.path / name).write_bytes(b"1")
    pid = passing.process.pid

    def cycle(count: int) -> tuple[int, int, int]:
        """(resident KiB, descriptors, backing files) afterwards."""
        for number in range(count):
            if number % 1000 == 0:
                passing.ask("forget_calls")
            fd = os.open(passing.path / names[number % 50], (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[number % 3])
            if number % 3:
                os.write(fd, b"2")
            os.close(fd)
        for name in names:
            ino = (passing.tree / name).stat().st_ino
            while passing.ask("open_handles", ino=ino):
                time.sleep(0.01)
        return resident_kib(pid), len(os.listdir(f"/proc/{pid}/fd")), passing.ask("backings")

    before = cycle(3000)  # all that is made once is made then
    after = cycle(CYCLES)

    print(f"{CYCLES} cycles: {before} -> {after} (KiB, descriptors, backing files)")  # noqa: T201
    assert after[1:] == before[1:]
    assert after[2] == 0
    assert after[0] - before[0] < 2048
