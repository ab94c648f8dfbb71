# ruff: noqa: S603, S607 - mount(8), python
"""Files that the kernel reads and writes by itself: every mix of handles behaves as on the host's file system."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes.hydrator import CHUNK, FakeHydrator, make_stub
from support.mounting import Mounted, error_of, wait_until

from fsxsync import _core
from fsxsync.errors import FuseUnavailable
from fsxsync.mount import passthrough
from fsxsync.mount.mountpoint import clear_dead_mount
from fsxsync.mount.session import Session, serve_mount

NOBODY = 65534
BLOCK = 4096


def why_not_here() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    return passthrough.why_not(Path(tempfile.gettempdir()))


pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "-")


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="fsxsync-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=["on", "off"])
def mounted(request: pytest.FixtureRequest, open_to_all: Path) -> Iterator[Mounted]:
    """A mount on each of the two data paths."""
    with Mounted(open_to_all, allow_other=True, passthrough=request.param) as mounted:
        yield mounted


@pytest.fixture
def passing(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with passthrough."""
    with Mounted(tmp_path, passthrough="on") as mounted:
        yield mounted


def as_nobody(code: str, *arguments: object) -> None:
    become = f"import os, sys\nos.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
    done = subprocess.run([sys.executable, "-c", become + code, *map(str, arguments)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def open_at(path: Path, flags: int, stack: ExitStack) -> int:
    fd = os.open(path, flags, 0o644)
    stack.callback(os.close, fd)
    return fd


def serves(mounted: Mounted) -> int:
    """Requests for bytes that the mount's process answered."""
    return int(mounted.ask("bytes_served"))


# ---------------------------------------------------------------- the kernel serves


def test_bytes_of_a_resident_file_do_not_come_through_the_process(passing: Mounted) -> None:
    body = os.urandom(3 * CHUNK + 5)
    (passing.path / "f").write_bytes(body)

    assert (passing.path / "f").read_bytes() == (passing.tree / "f").read_bytes() == body
    with open(passing.path / "f", "r+b", buffering=0) as file:
        file.seek(CHUNK)
        file.write(b"new")
    assert (passing.tree / "f").read_bytes() == body[:CHUNK] + b"new" + body[CHUNK + 3 :]
    assert serves(passing) == 0


def test_what_is_being_loaded_comes_through_the_process_until_all_have_closed_it(passing: Mounted) -> None:
    body = bytes(range(256)) * (4 * CHUNK // 256)
    make_stub(passing.tree / "f", "f", len(body))
    passing.put_object("f", body)

    with open(passing.path / "f", "rb", buffering=0) as first:
        assert first.read(10) == body[:10]
        with open(passing.path / "f", "rb") as second:
            assert second.read() == body
        with open(passing.path / "f", "r+b", buffering=0) as writer:  # resident by now; the mode stays
            writer.write(b"written")
        assert os.pread(first.fileno(), 7, 0) == b"written"
        served = serves(passing)
        assert served > 0
    wait_until(lambda: passing.ask("open_handles", ino=(passing.tree / "f").stat().st_ino) == 0)

    assert (passing.path / "f").read_bytes() == b"written" + body[7:]
    assert serves(passing) == served


def test_a_small_stub_is_loaded_at_open_and_passes(passing: Mounted) -> None:
    make_stub(passing.tree / "f", "f", 5)
    passing.put_object("f", b"small")

    with open(passing.path / "f", "rb") as file:
        assert file.read() == b"small"

    assert serves(passing) == 0


def test_a_released_file_is_loaded_for_its_writer_and_passes(passing: Mounted) -> None:
    body = bytes(range(256)) * (4 * CHUNK // 256)
    make_stub(passing.tree / "f", "f", len(body))
    passing.put_object("f", body)

    with open(passing.path / "f", "ab") as file:
        file.write(b"tail")

    assert (passing.path / "f").read_bytes() == (passing.tree / "f").read_bytes() == body + b"tail"
    assert serves(passing) == 0


# ---------------------------------------------------------------- every mix of handles


@pytest.mark.parametrize(
    "first", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC]
)
@pytest.mark.parametrize("second", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_DIRECT])
def test_two_handles_with_different_flags(mounted: Mounted, first: int, second: int) -> None:
    body = b"0" * BLOCK
    (mounted.path / "f").write_bytes(body)
    with ExitStack() as stack, mmap.mmap(-1, BLOCK) as aligned:
        handles = [open_at(mounted.path / "f", flags, stack) for flags in (first, second)]
        expected = b"" if first & os.O_TRUNC else body
        for number, (fd, flags) in enumerate(zip(handles, (first, second), strict=True), 1):
            if flags & os.O_ACCMODE == os.O_RDONLY:
                continue
            aligned[:] = b"%d" % number * BLOCK
            assert os.write(fd, aligned) == BLOCK
            if flags & os.O_APPEND:
                expected += b"%d" % number * BLOCK
            else:
                expected = b"%d" % number * BLOCK + expected[BLOCK:]
            assert os.fstat(fd).st_size == (mounted.path / "f").stat().st_size == len(expected)
        for fd, flags in zip(handles, (first, second), strict=True):
            if flags & os.O_ACCMODE != os.O_WRONLY and expected:
                os.preadv(fd, [aligned], 0)
                assert aligned[:] == expected[:BLOCK]
            elif flags & os.O_ACCMODE == os.O_WRONLY:
                assert error_of(os.pread, fd, 1, 0) == errno.EBADF

    assert (mounted.tree / "f").read_bytes() == (mounted.path / "f").read_bytes() == expected


def test_two_who_append_lose_nothing(mounted: Mounted) -> None:
    def append(letter: bytes) -> None:
        with open(mounted.path / "log", "ab", buffering=0) as file:
            file.writelines(letter * 99 + b"\n" for _ in range(300))

    threads = [threading.Thread(target=append, args=[letter]) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = (mounted.tree / "log").read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 99] * 300 + [b"b" * 99] * 300


def test_size_and_times_are_right_at_once(mounted: Mounted) -> None:
    def agrees() -> bool:
        ours, host = os.stat(mounted.path / "f"), os.stat(mounted.tree / "f")
        return all(
            getattr(ours, name) == getattr(host, name)
            for name in ("st_size", "st_blocks", "st_mtime_ns", "st_ctime_ns")
        )

    (mounted.path / "f").write_bytes(b"x" * BLOCK)
    assert agrees()
    with open(mounted.path / "f", "r+b", buffering=0) as file:
        for number in range(20):
            file.write(b"y" * 1000)
            assert agrees(), number
            assert os.fstat(file.fileno()).st_size == max(BLOCK, 1000 * (number + 1))
        file.truncate(10)
        assert agrees()
        assert os.lseek(file.fileno(), 0, os.SEEK_END) == 10
    assert agrees()


def test_a_store_through_a_shared_mapping_is_seen_in_bytes_and_times(passing: Mounted) -> None:
    (passing.path / "f").write_bytes(b"x" * BLOCK)
    os.utime(passing.path / "f", ns=(1, 2))
    assert (passing.path / "f").stat().st_mtime_ns == 2  # from now on the kernel knows them, for a minute
    with open(passing.path / "f", "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5] = b"store"

        assert os.pread(file.fileno(), 5, 0) == b"store"
        assert (passing.path / "f").read_bytes()[:6] == b"storex"
        assert (passing.path / "f").stat().st_mtime_ns == (passing.tree / "f").stat().st_mtime_ns > 2


def test_a_private_mapping_changes_nothing(mounted: Mounted) -> None:
    (mounted.path / "f").write_bytes(b"x" * BLOCK)
    with (
        open(mounted.path / "f", "rb") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        mapped[:3] = b"own"
        assert mapped[:4] == b"ownx"

    assert (mounted.tree / "f").read_bytes() == b"x" * BLOCK


def test_a_mapping_that_outlives_its_descriptor_is_a_writer(mounted: Mounted) -> None:
    (mounted.path / "f").write_bytes(b"x" * BLOCK)
    ino = (mounted.tree / "f").stat().st_ino
    wait_until(lambda: mounted.ask("open_handles", ino=ino) == 0)
    code = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "at = libc.mmap(None, 4096, 3, 1, fd, ctypes.c_long(0))\n"
        "os.close(fd)\n"
        "print('closed', flush=True); sys.stdin.readline()\n"
        "ctypes.memmove(at, b'late', 4)\n"
    )
    before = len([call for call in mounted.calls("writer_closed") if call[1][0] == "f"])
    with subprocess.Popen(
        [sys.executable, "-c", code, mounted.path / "f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "closed\n"
        with open(mounted.path / "f", "rb") as file:  # an open and close in between changes nothing
            file.read()
        closed = [call for call in mounted.calls("writer_closed") if call[1][0] == "f"]
        assert len(closed) == before
        assert mounted.ask("open_handles", ino=ino) >= 1
        process.communicate("\n")

    wait_until(lambda: len([call for call in mounted.calls("writer_closed") if call[1][0] == "f"]) == before + 1)
    assert (mounted.tree / "f").read_bytes()[:5] == b"latex"
    wait_until(lambda: mounted.ask("open_handles", ino=ino) == 0)


def test_renamed_and_unlinked_while_open(mounted: Mounted) -> None:
    with open(mounted.path / "f", "w+b", buffering=0) as file:
        file.write(b"one")
        os.rename(mounted.path / "f", mounted.path / "g")
        file.write(b"two")
        assert (mounted.path / "g").read_bytes() == b"onetwo"
        os.unlink(mounted.path / "g")
        file.write(b"three")
        (mounted.path / "g").write_bytes(b"another")

        assert os.pread(file.fileno(), 100, 0) == b"onetwothree"
        assert os.fstat(file.fileno()).st_nlink == 0
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
            assert again.read() == b"onetwothree"
    assert (mounted.path / "g").read_bytes() == (mounted.tree / "g").read_bytes() == b"another"


def test_truncated_while_open(mounted: Mounted) -> None:
    with open(mounted.path / "f", "w+b", buffering=0) as file:
        file.write(b"x" * 10_000)
        os.truncate(mounted.path / "f", 5_000)
        assert os.fstat(file.fileno()).st_size == 5_000
        assert len(os.pread(file.fileno(), 10_000, 0)) == 5_000
        os.ftruncate(file.fileno(), 20_000)
        assert os.pread(file.fileno(), 20_000, 0) == b"x" * 5_000 + bytes(15_000)
        (mounted.path / "f").write_bytes(b"new")
        assert os.pread(file.fileno(), 20_000, 0) == b"new"


def test_a_forked_child_writes_through_the_inherited_descriptor(mounted: Mounted) -> None:
    with open(mounted.path / "f", "wb", buffering=0) as file:
        file.write(b"parent ")
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'child ')"], stdout=file.fileno(), check=True)
        file.write(b"again")

    assert (mounted.tree / "f").read_bytes() == b"parent child again"


def test_a_program_runs_from_the_mount_and_is_busy_meanwhile(mounted: Mounted) -> None:
    program = mounted.path / "sleep"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    wait_until(lambda: mounted.ask("open_handles", ino=program.stat().st_ino) == 0)
    with subprocess.Popen([program, "1000"]) as process:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(program))
        assert error_of(os.open, program, os.O_WRONLY) == errno.ETXTBSY
        process.kill()


def test_locks_of_two_handles_exclude_each_other(mounted: Mounted) -> None:
    with open(mounted.path / "f", "wb") as one, open(mounted.path / "f", "r+b") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        assert error_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN


# ---------------------------------------------------------------- what pyfuse3 has no operation for


def test_space_is_allocated_and_holes_are_punched(passing: Mounted) -> None:
    with open(passing.path / "f", "w+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 10 * BLOCK)
        assert os.fstat(file.fileno()).st_size == 10 * BLOCK
        assert (passing.tree / "f").stat().st_blocks * 512 >= 10 * BLOCK
        file.write(b"x" * 10 * BLOCK)
        _core.fallocate(file.fileno(), _core.FALLOC_FL_PUNCH_HOLE | _core.FALLOC_FL_KEEP_SIZE, 2 * BLOCK, 3 * BLOCK)

        assert os.pread(file.fileno(), 10 * BLOCK, 0) == b"x" * 2 * BLOCK + bytes(3 * BLOCK) + b"x" * 5 * BLOCK
        assert (passing.tree / "f").stat().st_blocks == os.fstat(file.fileno()).st_blocks <= 7 * BLOCK // 512
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 2 * BLOCK
        assert os.lseek(file.fileno(), 2 * BLOCK, os.SEEK_DATA) == 5 * BLOCK
        assert error_of(os.lseek, file.fileno(), 10 * BLOCK, os.SEEK_DATA) == errno.ENXIO
    with open(passing.path / "f", "rb") as file:
        assert error_of(_core.fallocate, file.fileno(), 0, 0, BLOCK) == errno.EBADF


def test_holes_of_what_is_not_here_yet_are_not_shown(passing: Mounted) -> None:
    body = bytes(range(256)) * (4 * CHUNK // 256)
    make_stub(passing.tree / "f", "f", len(body))
    passing.put_object("f", body)
    with open(passing.path / "f", "rb", buffering=0) as file:
        assert os.lseek(file.fileno(), 5, os.SEEK_DATA) == 5
        assert os.lseek(file.fileno(), 5, os.SEEK_HOLE) == len(body)
        assert error_of(os.lseek, file.fileno(), len(body), os.SEEK_HOLE) == errno.ENXIO
    assert passing.ask("loads") == 0


def test_copy_file_range_of_here_and_of_elsewhere(passing: Mounted) -> None:
    body = os.urandom(4 * CHUNK)
    (passing.path / "resident").write_bytes(body)
    make_stub(passing.tree / "released", "released", len(body))
    passing.put_object("released", body)
    for name in ("resident", "released"):
        with open(passing.path / name, "rb") as source, open(passing.path / "copy", "wb") as target:
            done = 0
            while count := os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
                done += count
        assert done == len(body)
        assert (passing.path / "copy").read_bytes() == (passing.tree / "copy").read_bytes() == body


# ---------------------------------------------------------------- set-id bits


@pytest.mark.parametrize("change", ["write", "append", "truncate", "ftruncate", "open", "fallocate", "copy"])
def test_another_users_change_clears_set_id_bits(mounted: Mounted, change: str) -> None:
    path = mounted.path / "f"
    path.write_bytes(b"x" * BLOCK)
    path.chmod(0o6777)
    act = {
        "write": "os.write(os.open(sys.argv[1], os.O_WRONLY), b'y')",
        "append": "os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), b'y')",
        "truncate": "os.truncate(sys.argv[1], 5)",
        "ftruncate": "os.ftruncate(os.open(sys.argv[1], os.O_WRONLY), 5)",
        "open": "os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)",
        "fallocate": "os.posix_fallocate(os.open(sys.argv[1], os.O_RDWR), 0, 9000)",
        "copy": "fd = os.open(sys.argv[1], os.O_RDWR); os.copy_file_range(fd, fd, 10, 0, 50)",
    }[change]
    as_nobody(act, path)

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((mounted.tree / "f").stat().st_mode) == 0o777


def test_root_changes_a_file_and_its_set_id_bits_stay(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.write_bytes(b"x" * BLOCK)
    path.chmod(0o6755)
    with open(path, "r+b") as file:
        file.write(b"y")
    os.truncate(path, 10)

    assert stat.S_IMODE(path.stat().st_mode) == 0o6755
    os.chown(path, NOBODY, NOBODY)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((mounted.tree / "f").stat().st_mode) == 0o755


def chmod_while_a_stranger_has_it_open(path: Path, before: str, after: str) -> None:
    """A stranger does ``before``, the owner sets the set-user-id bit, the stranger does ``after``."""
    code = (
        f"import os, sys\nos.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        f"{before}\nprint('open', flush=True); sys.stdin.readline()\n{after}\n"
    )
    path.write_bytes(b"x" * BLOCK)
    path.chmod(0o777)
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        path.chmod(0o4777)
        process.communicate("\n")


def test_set_id_bits_are_not_given_while_a_stranger_may_write_unseen(mounted: Mounted) -> None:
    path = mounted.path / "f"

    chmod_while_a_stranger_has_it_open(path, "fd = os.open(sys.argv[1], os.O_WRONLY)", "os.write(fd, b'y')")

    assert stat.S_IMODE((mounted.tree / "f").stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o777


def test_a_reader_does_not_keep_set_id_bits_for_a_stranger_who_writes_later(mounted: Mounted) -> None:
    path = mounted.path / "f"

    chmod_while_a_stranger_has_it_open(
        path, "fd = os.open(sys.argv[1], os.O_RDONLY)", "os.write(os.open(sys.argv[1], os.O_WRONLY), b'y')"
    )

    assert (mounted.tree / "f").read_bytes()[:1] == b"y"
    assert stat.S_IMODE((mounted.tree / "f").stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o777


# ---------------------------------------------------------------- sync sees it


def test_a_writer_counts_from_open_to_close_and_a_close_is_a_hint(passing: Mounted) -> None:
    (passing.path / "f").write_bytes(b"1")
    ino = (passing.tree / "f").stat().st_ino
    wait_until(lambda: passing.ask("open_handles", ino=ino) == 0)
    opened, changed = len(passing.calls("writer_opened")), len(passing.calls("changed"))
    file = open(passing.path / "f", "r+b", buffering=0)  # noqa: SIM115 - closed below
    assert len(passing.calls("writer_opened")) == opened + 1
    closed = len(passing.calls("writer_closed"))
    file.write(b"2")
    assert len(passing.calls("writer_closed")) == closed
    file.close()

    assert len(passing.calls("changed")) == changed + 1  # before close(2) returned
    wait_until(lambda: len(passing.calls("writer_closed")) == closed + 1)


def test_closing_an_unwritten_file_is_no_hint(passing: Mounted) -> None:
    (passing.path / "f").write_bytes(b"1")
    before = len(passing.calls("changed"))
    with open(passing.path / "f", "r+b"):
        pass
    assert len(passing.calls("changed")) == before


def test_what_is_exchanged_in_is_seen_by_the_next_open_and_old_handles_keep_the_old(passing: Mounted) -> None:
    (passing.path / "f").write_bytes(b"old")
    with open(passing.path / "f", "r+b", buffering=0) as old:
        (passing.tree / "staged").write_bytes(b"new one")
        _core.renameat2(-1, bytes(passing.tree / "staged"), -1, bytes(passing.tree / "f"), _core.RENAME_EXCHANGE)
        passing.ask("invalidate_entry", parent_ino=passing.tree.stat().st_ino, name="f")
        wait_until(lambda: (passing.path / "f").stat().st_ino != os.fstat(old.fileno()).st_ino)

        assert (passing.path / "f").read_bytes() == b"new one"
        old.write(b"OLD")
        assert os.pread(old.fileno(), 10, 0) == b"OLD"
    assert (passing.tree / "f").read_bytes() == b"new one"
    assert (passing.tree / "staged").read_bytes() == b"OLD"


# ---------------------------------------------------------------- the connection


def test_ten_thousand_opens_leave_nothing_behind(passing: Mounted) -> None:
    (passing.path / "f").write_bytes(b"1")
    ino = (passing.tree / "f").stat().st_ino
    wait_until(lambda: passing.ask("open_handles", ino=ino) == 0)
    before = len(os.listdir(f"/proc/{passing.process.pid}/fd"))
    for number in range(10_000):
        os.close(os.open(passing.path / "f", (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[number % 3]))

    wait_until(lambda: passing.ask("open_handles", ino=ino) == 0)
    assert len(os.listdir(f"/proc/{passing.process.pid}/fd")) == before
    assert passing.ask("backings") == 0
    with open(passing.tree / "f", "r+b") as alone:  # nor does the kernel hold it open
        fcntl.fcntl(alone, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(alone, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_large_messages_pass(passing: Mounted) -> None:
    body = os.urandom(5 * CHUNK)
    make_stub(passing.tree / "f", "f", len(body))
    passing.put_object("f", body)
    with open(passing.path / "f", "rb", buffering=0) as file:  # a reader makes it stay in the other mode
        file.read(1)
        with open(passing.path / "f", "r+b", buffering=0) as writer:
            assert writer.write(body[::-1]) == len(body)
    assert (passing.tree / "f").read_bytes() == body[::-1]
    os.mkdir(passing.path / "d")
    value = os.urandom(3000)
    os.setxattr(passing.path / "d", "user.long", value)
    assert os.getxattr(passing.path / "d", "user.long") == value
    names = {f"{number:04}" + "x" * 200 for number in range(2000)}
    for name in names:
        (passing.tree / "d" / name).touch()
    assert set(os.listdir(passing.path / "d")) == names


def test_many_at_once_and_a_flood_of_forgets(passing: Mounted) -> None:
    for number in range(2000):
        (passing.tree / f"{number}").touch()

    def look() -> None:
        for number in range(2000):
            os.stat(passing.path / f"{number}")

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: passing.ask("table_size") < 500)
    look()


def test_a_reader_that_is_killed_while_it_waits_leaves_the_mount_alive(passing: Mounted) -> None:
    make_stub(passing.tree / "f", "f", 4 * CHUNK)
    passing.put_object("f", bytes(4 * CHUNK))
    passing.ask("close_gate")
    with subprocess.Popen(["cat", passing.path / "f"], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: passing.ask("loads") > 0)
        process.kill()
        passing.ask("open_gate")
    (passing.path / "g").write_bytes(b"alive")
    assert (passing.path / "g").read_bytes() == b"alive"


@pytest.mark.parametrize("how", ["umount", "fusermount3 -u", "umount -l"])
def test_unmounting_from_outside_ends_it(tmp_path: Path, how: str) -> None:
    with Mounted(tmp_path, passthrough="on") as mounted:
        (mounted.path / "f").write_bytes(b"kept")
        wait_until(lambda: mounted.ask("open_handles", ino=(mounted.tree / "f").stat().st_ino) == 0)
        subprocess.run([*how.split(), mounted.path], check=True)
        assert mounted.process.wait() == 0
    assert os.listdir(mounted.path) == []


def test_aborted_from_outside_while_a_file_is_open(tmp_path: Path) -> None:
    with Mounted(tmp_path, passthrough="on") as mounted, ExitStack() as stack:
        fd = os.open(mounted.path / "f", os.O_CREAT | os.O_RDWR)
        stack.callback(error_of, os.close, fd)
        os.write(fd, b"written")
        Path(f"/sys/fs/fuse/connections/{os.minor(os.stat(mounted.path).st_dev)}/abort").write_text("1")
        assert mounted.process.wait() == 0
        assert not os.path.ismount(mounted.path)
    assert (mounted.tree / "f").read_bytes() == b"written"


def test_killed_while_files_are_open_and_mounted_anew(tmp_path: Path) -> None:
    with Mounted(tmp_path, passthrough="on") as mounted, ExitStack() as stack:
        fd = os.open(mounted.path / "f", os.O_CREAT | os.O_RDWR)
        stack.callback(error_of, os.close, fd)
        os.write(fd, b"written")
        mounted.kill()
        assert error_of(os.listdir, mounted.path) == errno.ENOTCONN
        clear_dead_mount(mounted.path)
        with Mounted(tmp_path, passthrough="on") as again:
            assert (again.path / "f").read_bytes() == b"written"


def test_ending_with_files_open_hangs_nobody(tmp_path: Path) -> None:
    with Mounted(tmp_path, passthrough="on") as mounted:
        file = open(mounted.path / "f", "w+b", buffering=0)  # noqa: SIM115 - it outlives the mount
        file.write(b"written")
    assert not os.path.ismount(mounted.path)
    assert error_of(os.fsync, file.fileno()) in {errno.ENOTCONN, errno.ECONNABORTED}
    assert error_of(file.close) in {errno.ENOTCONN, errno.ECONNABORTED}


# ---------------------------------------------------------------- where it can't be


def prepared(tmp_path: Path, word: str) -> Session:
    for name in ("tree", "mount", "state"):
        (tmp_path / name).mkdir(exist_ok=True)
    session = Session()
    session.prepare(
        tmp_path / "tree",
        tmp_path / "mount",
        state_dir=tmp_path / "state",
        attr_timeout_s=1.0,
        allow_other=False,
        passthrough=word,
    )
    return session


def test_the_data_path_and_its_reason_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(tmp_path, "auto").data_path == ("passthrough", "")
    assert prepared(tmp_path, "off").data_path == ("fuse", "no passthrough: it is switched off")

    def refuse(number: int) -> Callable[[int], Any]:
        def probe(fd: int) -> None:
            raise OSError(number, os.strerror(number))

        return probe

    for number, reason in ((errno.ENOSYS, "Linux 6.9"), (errno.EPERM, "CAP_SYS_ADMIN"), (errno.ELOOP, "overlayfs")):
        monkeypatch.setattr(_core, "passthrough_probe", refuse(number))
        path, why = prepared(tmp_path, "auto").data_path
        assert path == "fuse"
        assert reason in why
        with pytest.raises(FuseUnavailable, match=reason):
            prepared(tmp_path, "on")


async def test_where_mounting_for_it_fails_it_is_mounted_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(_core, "mount", refuse)
    with pytest.raises(FuseUnavailable, match="not here"):
        await serve_mount(prepared(tmp_path, "on"), FakeHydrator())
    session = prepared(tmp_path, "auto")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_mount, session, FakeHydrator())
        assert session.data_path == ("fuse", "no passthrough: mounting for it failed ([Errno 1] not here)")
        assert await trio.to_thread.run_sync(os.path.ismount, tmp_path / "mount")
        nursery.cancel_scope.cancel()
    assert not await trio.to_thread.run_sync(os.path.ismount, tmp_path / "mount")


def test_a_tree_on_a_stacked_file_system_is_served_without(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "tree"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    done = subprocess.run(["mount", "-t", "overlay", "none", "-o", layers, tmp_path / "tree"], check=False)
    if done.returncode != 0:
        pytest.skip("no overlayfs here")
    try:
        assert prepared(tmp_path, "auto").data_path[0] == "fuse"
        with pytest.raises(FuseUnavailable):
            prepared(tmp_path, "on")
        with Mounted(tmp_path, passthrough="auto") as mounted:
            (mounted.path / "f").write_bytes(b"works")
            assert (mounted.tree / "f").read_bytes() == (mounted.path / "f").read_bytes() == b"works"
    finally:
        _core.umount2(bytes(tmp_path / "tree"), _core.MNT_DETACH)
