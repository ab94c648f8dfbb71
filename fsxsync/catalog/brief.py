"""Rows of the table `files` in brief: what they are compared by, a hundred thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fsxsync.catalog.connection import Connection
from fsxsync.catalog.files import below
from fsxsync.catalog.numbers import Numbers
from fsxsync.model.shallow import DIRECTORY, Shallow

_COLUMNS = (
    "sort_key, kind, files.ino, files.size, files.mtime_ns, ctime_ns, mode, uid, gid, files.etag, remote_size,"
    " last_modified_ns, files.version_id, released"
)
# All find their rows by the primary key (association, sort_key), and partials by theirs (ino).
_SELECT = f"SELECT {_COLUMNS}, NULL FROM files WHERE association = ?"  # noqa: S608  names are ours
_WITH_BYTES = f"""SELECT {_COLUMNS}, partials.resident_bytes
    FROM files LEFT JOIN partials ON released AND partials.ino = files.ino WHERE association = ?"""  # noqa: S608
_THESE = f"{_WITH_BYTES} AND sort_key IN"
_WITHIN = f"{_WITH_BYTES} AND sort_key >= ? AND sort_key <= ? ORDER BY sort_key LIMIT ?"
_FROM = f"{_SELECT} AND sort_key >= ? ORDER BY sort_key LIMIT ?"
_BETWEEN = f"{_SELECT} AND sort_key >= ? AND sort_key < ? ORDER BY sort_key LIMIT ?"
PAGE = 1000


class Brief(NamedTuple):
    """As much of a `Base` as tree and listing are compared with; it takes a tenth of the time to read."""

    sort_key: bytes
    kind: int
    """Index in `KINDS`."""
    ino: int
    """Signed, as SQLite has it: those over 2**63 match nothing here, and get a closer look."""
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    etag: str | None
    remote_size: int
    last_modified_ns: int
    version_id: str | None
    released: int
    resident_bytes: int | None
    """Of a stub that was read in part, where `get_many` told it."""

    @property
    def is_implied(self) -> bool:
        """See `Base.is_implied`."""
        return self.kind == DIRECTORY and self.etag is None

    def matches_listing(self, etag: str, size: int, last_modified_ns: int) -> bool:
        """See `Known.matches_listing`."""
        return self.etag == etag and self.remote_size == size and last_modified_ns <= self.last_modified_ns

    def matches(self, found: Shallow) -> bool:
        """See `Base.matches_local`."""
        if self[1:9] == found[:8]:
            return True
        return self.kind == DIRECTORY == found.kind and (self.ino, *self[6:9]) == (found.ino, *found[5:8])


class Briefs:
    """Reads only; `Files` writes."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers

    def get_many(self, association: str, sort_keys: Sequence[bytes]) -> dict[bytes, Brief]:
        """Those of these that have a row, by their sort keys, which are in order; maybe others that lie between them.
        As many of them as a batch has."""
        if not sort_keys:
            return {}
        number = self._numbers.get(association)
        # A range takes half the time of as many keys, unless it is full of what nobody asked for.
        most = 2 * len(sort_keys)
        rows = self._connection.rows(_WITHIN, (number, sort_keys[0], sort_keys[-1], most))
        if len(rows) == most:
            rows = self._connection.rows(f"{_THESE} ({', '.join('?' * len(sort_keys))})", (number, *sort_keys))
        return {row[0]: Brief._make(row) for row in rows}

    def iterate(self, association: str, under: bytes = b"") -> Iterator[list[Brief]]:
        """The row of that path and those below it, all of them without one, in pages and in the order of an S3
        listing. Rows written meanwhile show up if they come later."""
        number = self._numbers.get(association)
        if under:
            # 'a' sorts before 'a-b' and 'a.b', which lie not in it; 'a/' and all below it have their own range.
            if itself := self._connection.rows(_BETWEEN, (number, under, under + b"\0", 1)):
                yield [Brief._make(row) for row in itself]
            start, end = below(under)
            while rows := self._connection.rows(_BETWEEN, (number, start, end, PAGE)):
                yield [Brief._make(row) for row in rows]
                start = rows[-1][0] + b"\0"
            return
        start = b""
        while rows := self._connection.rows(_FROM, (number, start, PAGE)):
            yield [Brief._make(row) for row in rows]
            start = rows[-1][0] + b"\0"
