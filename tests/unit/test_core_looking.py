"""What `_core` says of what stands at a path, and its batches: marks, holes, and marks taken off again."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsxsync import _core

MARK, FLAG = b"user.fsxsync.stub", b"user.fsxsync.norelease"
NAMES = (MARK, FLAG)
MTIME_NS = 1_600_000_000_123_456_789


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd, tmp_path
    os.close(fd)


def test_what_stands_at_a_path_is_what_stat_and_the_attributes_say(root: tuple[int, Path]) -> None:
    fd, top = root
    (top / "d").mkdir()
    file = top / "d/f"
    file.write_bytes(b"x" * 5000)
    os.setxattr(file, MARK, b"the mark")
    os.setxattr(file, FLAG, b"")
    os.setxattr(top / "d", FLAG, b"")
    (top / "link").symlink_to("nowhere")

    status = file.stat()
    looked = _core.look(fd, b"d/f", NAMES)
    assert looked is not None
    assert looked[:11] == (
        *(status.st_mode, status.st_dev, status.st_ino, 5000, status.st_mtime_ns, status.st_ctime_ns),
        *(status.st_uid, status.st_gid, 1, status.st_atime_ns, status.st_blocks),
    )
    assert looked[11:] == (0b11, b"the mark", None)
    directory = _core.look(fd, b"d", NAMES)
    assert directory is not None
    assert directory[11:] == (0b10, None, None)
    link = _core.look(fd, b"link", NAMES)
    assert link is not None
    assert stat.S_ISLNK(link[0])
    assert link[11:] == (0, None, b"nowhere")
    unmarked = _core.look(fd, b"d", (MARK,))
    assert unmarked is not None
    assert unmarked[11:] == (0, None, None)


def test_many_are_looked_at_in_their_order_and_what_is_not_there_is_none(root: tuple[int, Path]) -> None:
    fd, top = root
    for name in ("a", "b"):
        (top / name).write_bytes(b"")
    (top / "link").symlink_to(".")
    paths = [b"b", b"absent", b"a/below a file", b"link/a", b"x" * 300, b"a"]

    looked = _core.look_many(fd, paths, NAMES)

    assert [one if one is None or isinstance(one, int) else one[2] for one in looked] == [
        *((top / "b").stat().st_ino, None, None, None, None, (top / "a").stat().st_ino),
    ]
    assert _core.look_many(fd, [b"../a"], NAMES) == [errno.EXDEV]
    with pytest.raises(OSError, match="cross-device"):
        _core.look(fd, b"../a", NAMES)
    with pytest.raises(TypeError):
        _core.look_many(fd, ["text"], NAMES)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="null byte"):
        _core.look_many(fd, [b"a\0b"], NAMES)
    for names in ((), (MARK,) * 9):
        with pytest.raises(TypeError):
            _core.look(fd, b"a", names)


def test_a_file_of_many_or_large_attributes_is_looked_at_like_any_other(root: tuple[int, Path]) -> None:
    fd, top = root
    file = top / "f"
    file.write_bytes(b"")
    large = os.urandom(3000)
    os.setxattr(file, MARK, large)
    try:
        for number in range(100):
            os.setxattr(file, f"user.a rather long name of an attribute, number {number}", b"")
    except OSError:  # as many as the file system has room for
        assert number > 5

    looked = _core.look(fd, b"f", NAMES)

    assert looked is not None
    assert looked[11:] == (0b01, large, None)


def test_what_is_no_regular_file_is_not_opened(root: tuple[int, Path]) -> None:
    fd, top = root
    (top / "d").mkdir()
    os.mkfifo(top / "fifo")
    (top / "f").write_bytes(b"12")
    (top / "link").symlink_to("f")
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))

    names = [b"fifo", b"d", b"link", b"socket", b"no"]
    refused = [None, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENOENT]
    assert _core.open_marked(fd, names, MARK) == refused
    assert len(os.listdir("/proc/self/fd")) == before

    *others, opened = _core.open_marked(fd, [*names, b"f"], MARK)
    assert others == refused
    assert isinstance(opened, tuple)
    assert opened[1][3] == 2
    assert opened[2] is None
    os.setxattr(opened[0], MARK, b"m")
    assert os.pwrite(opened[0], b"3", 2) == 1
    os.close(opened[0])
    [again] = _core.open_marked(fd, [b"f"], MARK)
    assert isinstance(again, tuple)
    assert again[2] == b"m"
    os.close(again[0])


def judged(
    path: Path, mark: bytes = b"m", **changed: int
) -> tuple[bytes, int, int, int, int, int, int, int, int, bytes]:
    status = path.stat()
    known = {
        "ino": status.st_ino,
        "size": status.st_size,
        "mtime": status.st_mtime_ns,
        "ctime": status.st_ctime_ns,
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "nlink": 1,
    } | changed
    ino, size, mtime, ctime, mode, uid, gid, nlink = known.values()
    return os.fsencode(path.name), ino, size, mtime, ctime, mode, uid, gid, nlink, b"m"


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"ino": 1}, _core.MARK_REPLACED),
        ({"nlink": 2}, _core.MARK_LINKED),
        *(({name: 7}, _core.MARK_CHANGED) for name in ("size", "mtime", "ctime", "mode", "uid", "gid")),
    ],
)
def test_only_what_is_as_judged_is_marked(root: tuple[int, Path], changed: dict[str, int], wanted: int) -> None:
    fd, top = root
    file = top / "f"
    file.write_bytes(b"data")
    before = len(os.listdir("/proc/self/fd"))

    assert _core.mark_released(fd, top.stat().st_dev, MARK, b"", [judged(file, **changed)]) == [(wanted, -1, 0, 0)]

    assert os.listxattr(file) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert _core.mark_released(fd, 1, MARK, b"", [judged(file)])[0][0] == _core.MARK_REPLACED


@pytest.mark.parametrize(
    ("kept", "wanted"), [(b"user.kept", _core.MARK_KEPT), (b"user.other", _core.MARK_ALONE), (b"", _core.MARK_ALONE)]
)
def test_what_is_to_be_kept_is_not_marked(root: tuple[int, Path], kept: bytes, wanted: int) -> None:
    fd, top = root
    (top / "f").write_bytes(b"data")
    os.setxattr(top / "f", "user.kept", b"")

    [(what, held, number, _)] = _core.mark_released(fd, top.stat().st_dev, MARK, kept, [judged(top / "f")])

    assert (what, number) == (wanted, 0)
    if what == _core.MARK_KEPT:
        assert held == -1
        assert os.listxattr(top / "f") == ["user.kept"]
    else:
        os.close(held)


def test_each_file_of_a_call_has_its_own_outcome(root: tuple[int, Path]) -> None:
    fd, top = root
    for name in ("a", "b", "c", "marked"):
        (top / name).write_bytes(b"d" * 100_000)
        os.utime(top / name, ns=(MTIME_NS, MTIME_NS))
    os.setxattr(top / "marked", MARK, b"already")
    (top / "gone").write_bytes(b"")
    files = [judged(top / name) for name in ("a", "b", "gone", "c", "marked")]
    (top / "gone").unlink()

    with (top / "b").open("rb"):  # open elsewhere
        marked = _core.mark_released(fd, top.stat().st_dev, MARK, b"", files)

    assert [(what, number) for what, _, number, _ in marked] == [
        (_core.MARK_ALONE, 0),
        (_core.MARK_OPEN, 0),
        (_core.MARK_UNOPENED, errno.ENOENT),
        (_core.MARK_ALONE, 0),
        (_core.MARK_FAILED, errno.EEXIST),
    ]
    assert [os.getxattr(top / name, MARK) for name in ("a", "c", "marked")] == [b"m", b"m", b"already"]
    a, c = marked[0][1], marked[3][1]
    os.pwrite(c, b"written under our lease, by a descriptor of our own", 0)

    punched = _core.punch_released(
        MARK,
        [(held, True, 100_000, MTIME_NS, ctime_ns) for _, held, _, ctime_ns in (marked[0], marked[3])],
        time.monotonic() + 30,
    )

    assert [(what, number) for what, number, _ in punched] == [(_core.PUNCH_DONE, 0), (_core.PUNCH_WRITTEN, 0)]
    assert punched[0][2] is not None
    status = (top / "a").stat()
    assert (status.st_size, status.st_mtime_ns, status.st_blocks) == (100_000, MTIME_NS, punched[0][2][10])
    assert status.st_blocks < 16
    assert punched[0][2][5] == status.st_ctime_ns
    assert (top / "c").read_bytes().startswith(b"written")
    assert os.listxattr(top / "c") == []
    for closed in (a, c):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(closed)


def test_nothing_is_punched_after_the_deadline(root: tuple[int, Path]) -> None:
    fd, top = root
    (top / "f").write_bytes(b"data" * 5000)
    mtime_ns = (top / "f").stat().st_mtime_ns
    [(_, held, _, ctime_ns)] = _core.mark_released(fd, top.stat().st_dev, MARK, b"", [judged(top / "f")])

    files = [(held, True, 20_000, mtime_ns, ctime_ns)]
    [(what, _, status)] = _core.punch_released(MARK, files, time.monotonic() - 1)

    assert what == _core.PUNCH_LATE
    assert status is not None
    assert (top / "f").read_bytes() == b"data" * 5000
    assert os.getxattr(top / "f", MARK) == b"m"


@pytest.mark.parametrize(("mark", "size"), [(b"another", 4), (b"m", 5), (b"mm", 4), (b"", 4)])
def test_a_mark_goes_only_if_it_and_the_size_are_the_ones_that_are_meant(
    root: tuple[int, Path], mark: bytes, size: int
) -> None:
    _, top = root
    file = top / "f"
    file.write_bytes(b"data")
    os.setxattr(file, MARK, b"m")
    own = os.open(file, os.O_RDWR)
    try:
        refused = _core.unmark_many(MARK, [(own, mark, size, MTIME_NS, MTIME_NS)])
        assert refused == [(_core.UNMARK_OTHER, 0, None)]
        assert os.getxattr(file, MARK) == b"m"
        [(what, _, status)] = _core.unmark_many(MARK, [(own, b"m", 4, MTIME_NS, MTIME_NS + 1)])
    finally:
        os.close(own)
    assert what == _core.UNMARK_DONE
    assert os.listxattr(file) == []
    assert status is not None
    assert (status[4], status[9]) == (MTIME_NS, MTIME_NS + 1) == (file.stat().st_mtime_ns, file.stat().st_atime_ns)
    assert _core.unmark_many(MARK, [(-1, b"m", 4, 0, 0)]) == [(_core.UNMARK_FAILED, errno.EBADF, None)]


def test_many_files_are_hashed_and_what_is_shorter_or_unreadable_is_told(root: tuple[int, Path]) -> None:
    _, top = root
    body = os.urandom(700_000)
    (top / "f").write_bytes(body)
    reading, writing = os.open(top / "f", os.O_RDONLY), os.open(top / "f", os.O_WRONLY)
    try:
        found = _core.hash_many([(reading, 700_000), (reading, 5), (reading, 700_001), (writing, 1), (reading, 0)])
    finally:
        os.close(reading)
        os.close(writing)

    assert found == [
        (_core.xxh3_128(body), _core.crc64nvme(body)),
        (_core.xxh3_128(body[:5]), _core.crc64nvme(body[:5])),
        0,
        errno.EBADF,
        (_core.xxh3_128(b""), 0),
    ]
    for wrong in ([(0, -1)], [(0,)], 7):
        with pytest.raises((TypeError, ValueError)):
            _core.hash_many(wrong)  # type: ignore[arg-type]


def test_files_whose_data_came_to_the_disk_have_no_errors_of_writing(root: tuple[int, Path]) -> None:
    fd, top = root
    with (top / "a").open("wb") as one, (top / "b").open("wb") as other:
        one.write(b"d" * 100_000)
        one.flush()
        _core.syncfs(fd)
        assert _core.write_errors([one.fileno(), other.fileno()]) == [0, 0]
    assert _core.write_errors([]) == []
    assert _core.write_errors([-1, 2**40]) == [errno.EBADF, errno.EBADF]
    with pytest.raises(TypeError):
        _core.write_errors(["a"])  # type: ignore[list-item]
