"""inotify's records merged, and files that still stand as they were (`_core`, c_ext/records.c)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inotify_simple import Event, INotify, flags, parse_events

from fsxsync import _core
from fsxsync.errors import PathEscapes
from fsxsync.tree.identify import identify, standing

PLAIN = flags.ATTRIB | flags.CLOSE_WRITE
RECORDS = st.lists(
    st.tuples(
        st.integers(-1, 3),
        st.sampled_from(
            [
                *(flags.ATTRIB, flags.CLOSE_WRITE, flags.CREATE, flags.DELETE, flags.MOVED_FROM, flags.MOVED_TO),
                *(flags.ATTRIB | flags.ISDIR, flags.Q_OVERFLOW, flags.IGNORED),
            ]
        ),
        st.integers(0, 2**32 - 1),
        st.sampled_from([b"", b"a", b"b", b"\xff\xfe", b"n" * 255]),
    ),
    max_size=60,
)


def raw(records: list[tuple[int, int, int, bytes]]) -> bytes:
    """As the kernel writes them: names are padded with NUL to a multiple of 16."""
    data = b""
    for wd, mask, cookie, name in records:
        padded = name + b"\0" * (16 - len(name) % 16) if name else b""
        data += struct.pack("iIII", wd, mask, cookie, len(padded)) + padded
    return data


def merged(records: list[Event]) -> list[tuple[int, int, int, bytes]]:
    """The rule, simply."""
    told: list[tuple[int, int, int, bytes]] = []
    places: dict[tuple[int, bytes], int] = {}
    for wd, mask, cookie, text in records:
        name = os.fsencode(text)
        if mask & ~PLAIN or not name:
            places.clear()
            told.append((wd, mask, cookie, name))
        elif (place := places.get((wd, name))) is not None:
            before = told[place]
            told[place] = (wd, before[1] | mask, before[2], name)
        else:
            places[wd, name] = len(told)
            told.append((wd, mask, cookie, name))
    return told


@given(RECORDS)
def test_records_of_one_name_become_one_and_nothing_else_changes(
    records: list[tuple[int, int, int, bytes]],
) -> None:
    data = raw(records)
    assert _core.merged_records(data) == merged(parse_events(data))


def test_names_that_share_a_place_are_all_told() -> None:
    names = [b"%d" % number for number in range(200)]
    told = _core.merged_records(raw([(1, flags.ATTRIB, 0, name) for name in names] * 2))
    assert {name for *_, name in told} == set(names)
    assert len(told) < 2 * len(names)


@pytest.mark.parametrize("cut", [1, 15, 17, 31])
def test_a_record_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="ends within a record"):
        _core.merged_records(raw([(1, flags.ATTRIB, 0, b"a")])[:cut])


def test_what_the_kernel_tells_of_a_file_is_one_record(tmp_path: Path) -> None:
    with INotify(nonblocking=True) as inotify:
        wd = inotify.add_watch(tmp_path, flags.ATTRIB | flags.CLOSE_WRITE | flags.CREATE)
        (tmp_path / "f").write_bytes(b"data")
        (tmp_path / "f").chmod(0o600)
        (tmp_path / "f").write_bytes(b"more")
        told = _core.merged_records(os.read(inotify.fileno(), 4096))
    assert told == [(wd, flags.CREATE, 0, b"f"), (wd, PLAIN, 0, b"f")]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_bytes(b"data")
        yield fd, tmp_path
    finally:
        os.close(fd)


def replaced(file: Path) -> None:
    os.rename(file, file.with_name("other"))
    file.write_bytes(b"data")


def symlinked(file: Path) -> None:
    file.parent.rename(file.parent.with_name("e"))
    file.parent.symlink_to("e")


CHANGES = {
    "mode": lambda file: file.chmod(0o600),
    "time": lambda file: os.utime(file, ns=(0, 0)),
    "size": lambda file: os.truncate(file, 3),
    "attribute": lambda file: os.setxattr(file, "user.a", b""),
    "removed": lambda file: file.unlink(),
    "replaced": replaced,
    "another name": lambda file: os.link(file, file.with_name("g")),
    "a symlink above it": symlinked,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_stands_until_anything_happens_to_it(root: tuple[int, Path], change: str) -> None:
    fd, top = root
    dev = top.stat().st_dev
    local = identify(fd, dev, b"d/f")
    assert local is not None
    assert standing(fd, dev, [(b"d/f", *local.state), (b"d/gone", *local.state)]) == [b"d/f"]
    assert standing(fd, dev + 1, [(b"d/f", *local.state)]) == []

    CHANGES[change](top / "d" / "f")

    assert standing(fd, dev, [(b"d/f", *local.state)]) == []


def test_what_lies_outside_is_not_asked_for(root: tuple[int, Path]) -> None:
    fd, top = root
    local = identify(fd, top.stat().st_dev, b"d/f")
    assert local is not None
    with pytest.raises(PathEscapes):
        standing(fd, top.stat().st_dev, [(b"../d/f", *local.state)])
