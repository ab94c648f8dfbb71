"""`_core.read_directory`: a whole directory in one call."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from fsxsync import _core
from fsxsync.model.shallow import Shallow

MARKS = (b"user.one", b"user.two")


def read(path: Path, marks: tuple[bytes, ...] = (), *, dev: int | None = None) -> dict[bytes, Shallow]:
    fd = os.open(path, os.O_RDONLY)
    try:
        keys, packed = _core.read_directory(fd, os.fstat(fd).st_dev if dev is None else dev, b"p/", marks)
    finally:
        os.close(fd)
    found = [Shallow._make(fields) for fields in struct.iter_unpack(_core.DIRECTORY_ENTRY, packed)]
    assert keys == sorted(keys)
    return dict(zip(keys, found, strict=True))


def test_it_says_what_lstat_says(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    os.utime(tmp_path / "f", ns=(-5, -(10**9) - 1))
    (tmp_path / "f").chmod(0o4751)
    os.link(tmp_path / "f", tmp_path / "again")
    (tmp_path / "d").mkdir()
    (tmp_path / "d!").touch()
    (tmp_path / "l").symlink_to("nowhere")
    (tmp_path / os.fsdecode(b"\xff" * 255)).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    found = read(tmp_path)
    assert list(found) == [b"p/again", b"p/d!", b"p/d/", b"p/f", b"p/l", b"p/s", b"p/" + b"\xff" * 255]
    assert [one.kind for one in found.values()] == [0, 0, 1, 0, 2, 3, 0]
    for key, one in found.items():
        seen = os.lstat(os.path.join(os.fsencode(tmp_path), key[2:].rstrip(b"/")))
        assert one[1:] == (
            seen.st_ino,
            seen.st_size,
            seen.st_mtime_ns,
            seen.st_ctime_ns,
            seen.st_mode & 0o7777,
            seen.st_uid,
            seen.st_gid,
            seen.st_nlink,
            seen.st_atime_ns,
            seen.st_blocks,
            0,
        )
    assert {one.kind for one in read(tmp_path, dev=0).values()} == {3}


def test_it_says_who_carries_which_mark(tmp_path: Path) -> None:
    for name, carried in {"a": [], "b": [MARKS[0]], "c": [MARKS[1]], "d": [*MARKS, b"user.other"]}.items():
        (tmp_path / name).touch()
        for mark in carried:
            os.setxattr(tmp_path / name, mark, b"")
    (tmp_path / "e").mkdir()
    os.setxattr(tmp_path / "e", MARKS[1], b"x")
    (tmp_path / "l").symlink_to("b")
    assert [one.marks for one in read(tmp_path, MARKS).values()] == [0, 1, 2, 3, 2, 0]
    assert {one.marks for one in read(tmp_path).values()} == {0}


def test_many_entries_and_none(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    names = [f"{number:0200d}" for number in range(3000)]  # several system calls
    for name in names:
        (tmp_path / name).touch()
    assert list(read(tmp_path)) == [b"p/" + name.encode() for name in names]


def test_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for error, path in ((errno.ENOTDIR, tmp_path / "f"), (errno.ENOENT, tmp_path / "gone")):
        if error == errno.ENOENT:
            path.mkdir()
        fd = os.open(path, os.O_RDONLY)
        try:
            if error == errno.ENOENT:
                path.rmdir()
            with pytest.raises(OSError) as raised:  # noqa: PT011  the errno is looked at
                _core.read_directory(fd, 0, b"", ())
            assert raised.value.errno == error
        finally:
            os.close(fd)
    with pytest.raises(ValueError, match="8 marks"):
        _core.read_directory(-1, 0, b"", (b"m",) * 9)
    with pytest.raises(TypeError):
        _core.read_directory(-1, 0, b"", ("text",))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.read_directory(-1, 0, b"", ())
