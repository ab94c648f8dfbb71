"""Whose object is it that a crash left under a new name?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsxsync.catalog.database import Catalog
from fsxsync.model.association import Association
from fsxsync.model.identity import Base, Kind, Posix, Remote
from fsxsync.model.move import Move

POSIX = Posix(0o640, 1, 2, 1_700_000_000_123_456_789, 1_700_000_000_987_654_321)
ROW = Base(
    association="dra-1",
    path=b"new \xff",
    kind=Kind.FILE,
    ino=2**63 + 5,
    size=5,
    mtime_ns=3,
    ctime_ns=4,
    mode=0o640,
    uid=1,
    gid=2,
    etag="source-2",
    remote_size=5,
    last_modified_ns=7,
    version_id="v",
    posix=POSIX,
    content_hash=b"\x00\x80\xff" + b"h" * 13,
)
MOVE = Move(source=b"old", row=ROW, started_ns=9)
COPY = Remote(Kind.FILE, etag="copy", size=5, last_modified_ns=8, posix=POSIX)


def test_a_copy_is_known_whatever_its_etag() -> None:
    assert MOVE.made(COPY)


@pytest.mark.parametrize(
    "other",
    [
        COPY._replace(size=6),
        COPY._replace(kind=Kind.SYMLINK),
        COPY._replace(posix_known=False),
        COPY._replace(posix=Posix()),
        *(
            COPY._replace(posix=POSIX._replace(**{name: 1000}))
            for name in ("mode", "uid", "gid", "mtime_ns", "atime_ns")
        ),
    ],
)
def test_what_differs_is_somebody_elses(other: Remote) -> None:
    assert not MOVE.made(other)


def test_the_source_is_the_version_that_was_copied() -> None:
    assert MOVE.is_source(COPY._replace(etag="source-2"))
    assert not MOVE.is_source(COPY)
    assert not MOVE.is_source(None)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "catalog.db")
    opened.associations.put(Association(id="dra-1", directory=b"d", bucket="b", prefix=""))
    yield opened
    opened.close()


def test_a_note_is_read_back_as_it_was(catalog: Catalog) -> None:
    catalog.moves.put(MOVE)
    assert catalog.moves.get("dra-1", b"new \xff") == MOVE
    assert catalog.moves.of_source("dra-1", b"old") == [MOVE]
    assert catalog.moves.all("dra-1") == [MOVE]
    later = replace(MOVE, source=b"older")
    catalog.moves.put(later)
    assert catalog.moves.of_source("dra-1", b"old") == []
    catalog.moves.delete("dra-1", b"new \xff")
    assert catalog.moves.get("dra-1", b"new \xff") is None


def test_notes_go_with_their_association(catalog: Catalog) -> None:
    catalog.moves.put(MOVE)
    catalog.associations.delete("dra-1")
    assert catalog.moves.all("dra-1") == []


def test_what_is_brought_to_the_disk_is_in_the_log(catalog: Catalog, tmp_path: Path) -> None:
    """As another process sees the files after a power cut: the log holds the note."""
    catalog.moves.put(MOVE)
    catalog.bring_to_disk()
    for suffix in ("", "-wal"):
        (tmp_path / f"copy.db{suffix}").write_bytes((tmp_path / f"catalog.db{suffix}").read_bytes())
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT path, source FROM moves").fetchall() == [(b"new \xff", b"old")]
