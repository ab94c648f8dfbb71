# ruff: noqa: S603, S607 - ls(1)
"""Stubs through a real mount: when data is asked for, who waits, and what an error does."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.hydrator import CHUNK, make_stub
from support.mounting import Mounted, error_of

from fsxsync.model.stub import XATTR

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")


@pytest.fixture(autouse=True, params=["auto", "off"])
def data_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test on each of the two data paths."""
    monkeypatch.setenv("FSXSYNC_TEST_PASSTHROUGH", request.param)


SMALL = b"small object\n"
LARGE = bytes(range(256)) * (10 * CHUNK // 256)
MTIME_NS = 1_234_567_890_123_456_789


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with two released files: ``small``, of one chunk, and ``large``, of ten."""
    with Mounted(tmp_path) as mounted:
        for name, body in (("small", SMALL), ("large", LARGE)):
            make_stub(mounted.tree / name, name, len(body), MTIME_NS)
            mounted.put_object(name, body)
        yield mounted


def is_stub(path: Path) -> bool:
    return os.fsdecode(XATTR) in os.listxattr(path)


def in_background(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start ``act``; what it returned or raised is in the list when the thread has ended."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(act())
        except OSError as error:
            outcome.append(error.errno)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_for_loads(mounted: Mounted, count: int) -> None:
    while mounted.ask("loads") < count:
        os.sched_yield()


def test_a_stub_looks_like_its_file_and_costs_nothing_to_look_at(mounted: Mounted) -> None:
    status = (mounted.path / "large").stat()

    assert (status.st_size, status.st_mtime_ns) == (len(LARGE), MTIME_NS)
    assert status.st_blocks >= 1
    assert os.listxattr(mounted.path / "large") == []
    subprocess.run(["ls", "-lR", mounted.path], check=True, stdout=subprocess.DEVNULL)
    assert mounted.ask("loads") == 0


def test_reading_loads(mounted: Mounted) -> None:
    assert (mounted.path / "small").read_bytes() == SMALL
    assert (mounted.path / "large").read_bytes() == LARGE

    for name, body in (("small", SMALL), ("large", LARGE)):
        assert not is_stub(mounted.tree / name)
        assert (mounted.tree / name).read_bytes() == body
        assert (mounted.path / name).stat().st_mtime_ns == MTIME_NS
    assert (mounted.path / "large").read_bytes() == LARGE
    asked = mounted.calls("ensure")
    (mounted.path / "large").read_bytes()
    assert mounted.calls("ensure") == asked  # resident: nobody asks any more


def test_opening_loads_what_is_small_and_nothing_of_what_is_large(mounted: Mounted) -> None:
    with open(mounted.path / "small", "rb"):
        assert mounted.ask("loads") == 1
    with open(mounted.path / "large", "rb"):
        assert mounted.ask("loads") == 1


def test_a_read_waits_for_its_own_part_only_and_mtime_stands_still(mounted: Mounted) -> None:
    fd = os.open(mounted.path / "large", os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(fd, 4096, 9 * CHUNK) == LARGE[9 * CHUNK : 9 * CHUNK + 4096]
        assert mounted.ask("loads") < 10
        assert os.fstat(fd).st_mtime_ns == MTIME_NS
    finally:
        os.close(fd)
    assert is_stub(mounted.tree / "large")


def test_two_readers_cause_one_download_and_both_get_the_bytes(mounted: Mounted) -> None:
    mounted.ask("close_gate")
    readers = [in_background((mounted.path / "large").read_bytes) for _ in range(2)]
    wait_for_loads(mounted, 1)

    mounted.ask("open_gate")
    for thread, _ in readers:
        thread.join()

    assert [outcome for _, outcome in readers] == [[LARGE], [LARGE]]
    assert mounted.ask("loads") == 10


def test_while_a_reader_waits_everything_else_goes_on(mounted: Mounted) -> None:
    mounted.ask("close_gate")
    readers = [in_background((mounted.path / "small").read_bytes), in_background((mounted.path / "large").read_bytes)]
    wait_for_loads(mounted, 2)

    (mounted.path / "other").write_bytes(b"1")
    os.rename(mounted.path / "other", mounted.path / "another")
    os.rename(mounted.path / "large", mounted.path / "moved")
    assert sorted(os.listdir(mounted.path)) == ["another", "moved", "small"]
    assert (mounted.path / "moved").stat().st_size == len(LARGE)
    mounted.ask("open_gate")
    for thread, _ in readers:
        thread.join()

    assert [outcome for _, outcome in readers] == [[SMALL], [LARGE]]


def test_an_error_of_the_repository_is_the_readers_errno_and_passes(mounted: Mounted) -> None:
    for error, number in (
        ("EndpointUnreachable", errno.EHOSTUNREACH),
        ("NoSpace", errno.ENOSPC),
        ("ObjectChanged", errno.ESTALE),
    ):
        mounted.ask("fail", error=error)
        assert error_of((mounted.path / "small").read_bytes) == number
        with open(mounted.path / "large", "rb", buffering=0) as file:
            assert error_of(file.read, 10) in {number, errno.EIO}  # readahead turns what it was into EIO
    mounted.ask("fail", error=None)

    assert (mounted.path / "small").read_bytes() == SMALL
    assert (mounted.path / "large").read_bytes() == LARGE


def test_mmap_of_a_stub_reads_its_data(mounted: Mounted) -> None:
    with open(mounted.path / "large", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[5 * CHUNK : 5 * CHUNK + 300] == LARGE[5 * CHUNK : 5 * CHUNK + 300]


def test_a_writer_is_let_in_when_the_file_is_whole(mounted: Mounted) -> None:
    mounted.ask("close_gate")

    def append() -> None:
        with open(mounted.path / "large", "ab") as file:
            assert not is_stub(mounted.tree / "large")
            file.write(b"appended")

    thread, outcome = in_background(append)
    wait_for_loads(mounted, 1)
    assert mounted.calls("writer_opened") == []
    mounted.ask("open_gate")
    thread.join()

    assert outcome == [None]
    assert (mounted.tree / "large").read_bytes() == LARGE + b"appended"


def test_a_writer_that_waited_is_told_by_the_name_that_the_file_has_then(mounted: Mounted) -> None:
    mounted.ask("close_gate")
    thread, _ = in_background(lambda: os.close(os.open(mounted.path / "large", os.O_WRONLY)))
    wait_for_loads(mounted, 1)
    os.rename(mounted.path / "large", mounted.path / "moved")
    mounted.ask("open_gate")
    thread.join()

    assert [path for _, (path, _) in mounted.calls("writer_opened")] == ["moved"]


def test_a_second_writer_does_not_slip_in_before_the_first(mounted: Mounted) -> None:
    mounted.ask("close_gate")

    def write_at(offset: int) -> None:
        fd = os.open(mounted.path / "large", os.O_WRONLY)
        os.pwrite(fd, b"written", offset)
        os.close(fd)

    writers = [in_background(lambda offset=offset: write_at(offset)) for offset in (10, 5 * CHUNK)]
    wait_for_loads(mounted, 1)
    mounted.ask("open_gate")
    for thread, _ in writers:
        thread.join()

    expected = bytearray(LARGE)
    expected[10:17] = expected[5 * CHUNK : 5 * CHUNK + 7] = b"written"
    assert (mounted.tree / "large").read_bytes() == expected


def test_who_truncates_waits_for_who_came_first(mounted: Mounted) -> None:
    mounted.ask("close_gate")
    first = in_background(lambda: os.close(os.open(mounted.path / "large", os.O_WRONLY)))
    wait_for_loads(mounted, 1)
    second = in_background(lambda: (mounted.path / "large").write_bytes(b"new"))
    while mounted.ask("open_handles", ino=(mounted.tree / "large").stat().st_ino) < 2:
        os.sched_yield()

    mounted.ask("open_gate")
    for thread, _ in (first, second):
        thread.join()

    assert (first[1], second[1]) == ([None], [3])
    assert (mounted.tree / "large").read_bytes() == b"new"


def test_times_set_while_a_stub_is_open_show_at_once(mounted: Mounted) -> None:
    with open(mounted.path / "large", "rb") as file:
        os.utime(file.fileno(), ns=(1, 2))

        assert os.fstat(file.fileno()).st_mtime_ns == 2
    assert (mounted.tree / "large").stat().st_mtime_ns == 2


def test_a_failed_open_for_writing_leaves_no_writer_and_no_handle(mounted: Mounted) -> None:
    mounted.ask("fail", error="AccessDenied")

    assert error_of(os.open, mounted.path / "large", os.O_WRONLY) == errno.EACCES

    assert mounted.calls("writer_opened") == []
    assert mounted.ask("open_handles", ino=(mounted.tree / "large").stat().st_ino) == 0
    assert is_stub(mounted.tree / "large")


def test_truncating_at_open_downloads_nothing(mounted: Mounted) -> None:
    (mounted.path / "large").write_bytes(b"new")

    assert mounted.ask("loads") == 0
    assert mounted.calls("discard") == [["discard", ["large"]]]
    assert not is_stub(mounted.tree / "large")
    assert (mounted.tree / "large").read_bytes() == b"new"


def test_truncate_to_nothing_and_to_a_size(mounted: Mounted) -> None:
    os.truncate(mounted.path / "small", 0)
    assert mounted.ask("loads") == 0
    os.truncate(mounted.path / "large", 100)

    assert (mounted.tree / "small").read_bytes() == b""
    assert (mounted.tree / "large").read_bytes() == LARGE[:100]
    assert not is_stub(mounted.tree / "small")
    assert not is_stub(mounted.tree / "large")
    assert len(mounted.calls("writer_opened")) == len(mounted.calls("writer_closed")) == 2


def test_metadata_names_and_links_of_a_stub_need_no_data(mounted: Mounted) -> None:
    path = mounted.path / "large"
    os.chmod(path, 0o600)
    os.utime(path, ns=(1, 2))
    os.setxattr(path, "user.note", b"x")
    os.link(path, mounted.path / "link")
    os.rename(path, mounted.path / "moved")
    os.unlink(mounted.path / "link")

    assert mounted.ask("loads") == 0
    assert is_stub(mounted.tree / "moved")
    assert (mounted.path / "moved").stat().st_mtime_ns == 2
    assert (mounted.path / "moved").read_bytes() == LARGE


def test_a_stub_unlinked_while_open_is_read_to_its_end(mounted: Mounted) -> None:
    with open(mounted.path / "large", "rb") as file:
        os.unlink(mounted.path / "large")

        assert file.read() == LARGE


def test_a_new_stub_exchanged_in_is_read_anew_and_the_old_one_to_its_end(mounted: Mounted) -> None:
    with open(mounted.path / "large", "rb", buffering=0) as old:
        assert old.read(10) == LARGE[:10]
        newer = LARGE[::-1]
        make_stub(mounted.tree / "staged", "newer", len(newer))
        mounted.put_object("newer", newer)
        os.rename(mounted.tree / "staged", mounted.tree / "large")
        mounted.ask("invalidate_entry", parent_ino=mounted.tree.stat().st_ino, name="large")
        while os.stat(mounted.path / "large").st_ino == os.fstat(old.fileno()).st_ino:
            os.sched_yield()

        assert (mounted.path / "large").read_bytes() == newer
        old.seek(0)
        assert b"".join(iter(lambda: old.read(CHUNK), b"")) == LARGE


def test_pages_may_be_dropped_while_a_read_waits_for_them(mounted: Mounted) -> None:
    mounted.ask("close_gate")
    thread, outcome = in_background((mounted.path / "large").read_bytes)
    wait_for_loads(mounted, 1)
    mounted.ask("invalidate_inode", ino=(mounted.tree / "large").stat().st_ino, data=True)
    mounted.ask("invalidate_inode", ino=(mounted.tree / "small").stat().st_ino, data=True)
    assert (mounted.path / "small").stat().st_size == len(SMALL)
    mounted.ask("open_gate")
    thread.join()

    assert outcome == [LARGE]


def test_ending_while_a_reader_waits_fails_the_reader_and_unmounts(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        make_stub(mounted.tree / "large", "large", len(LARGE))
        mounted.put_object("large", LARGE)
        mounted.ask("close_gate")
        thread, outcome = in_background((mounted.path / "large").read_bytes)
        wait_for_loads(mounted, 1)
        mounted.ask("invalidate_inode", ino=(mounted.tree / "large").stat().st_ino, data=True)
    thread.join()

    assert len(outcome) == 1
    assert outcome[0] in {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
    assert not os.path.ismount(mounted.path)


def test_many_waiting_readers_do_not_hold_up_reads_of_resident_files(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the kernel's limit may need root to be raised")
    with Mounted(tmp_path) as mounted:
        (mounted.tree / "resident").write_bytes(LARGE)
        for number in range(40):
            make_stub(mounted.tree / f"{number}", f"{number}", len(LARGE))
            mounted.put_object(f"{number}", LARGE)
        mounted.ask("close_gate")
        readers = [in_background((mounted.path / f"{number}").read_bytes) for number in range(40)]
        wait_for_loads(mounted, 40)

        assert (mounted.path / "resident").read_bytes() == LARGE
        mounted.ask("open_gate")
        for thread, _ in readers:
            thread.join()

    assert [outcome for _, outcome in readers] == [[LARGE]] * 40
