"""The base of every synced path: what both sides were when they last agreed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fsxsync.catalog.connection import Connection, Row
from fsxsync.catalog.numbers import Numbers
from fsxsync.catalog.read_rows import ReadRows
from fsxsync.model.identity import KINDS, Base, Kind, Local, Posix

_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}

_COLUMNS = (
    "association, sort_key, kind, ino, size, mtime_ns, ctime_ns, mode, uid, gid, etag, remote_size,"
    " last_modified_ns, version_id, posix_mode, posix_uid, posix_gid, posix_mtime_ns, posix_atime_ns,"
    " posix_xattrs, posix_known, storage_class, released, content_hash, target"
)
_NAMES = _COLUMNS.replace(" ", "").split(",")
_MARKS = ", ".join("?" * len(_NAMES))
_SET = ", ".join(f"{name} = excluded.{name}" for name in _NAMES[2:])

# All below find their rows by the primary key (association, sort_key), but by_inode: index files_ino (ino).
_SELECT = f"SELECT {_COLUMNS} FROM files"  # noqa: S608  names are ours
_GET = f"{_SELECT} WHERE association = ? AND sort_key IN (?, ?)"
_AT_ONCE = 500
_FROM = f"{_SELECT} WHERE association = ? AND sort_key >= ? ORDER BY sort_key LIMIT ?"
_BETWEEN = f"{_SELECT} WHERE association = ? AND sort_key >= ? AND sort_key < ? ORDER BY sort_key LIMIT ?"
_KNOWN = """SELECT sort_key, etag, remote_size, last_modified_ns FROM files WHERE association = ? AND sort_key > ?
    ORDER BY sort_key LIMIT ?"""
_BY_INODE = f"{_SELECT} WHERE ino = ?"
_LOADING = """SELECT sort_key, ino, etag, content_hash, mode, uid, gid FROM files
    WHERE association = ? AND sort_key IN"""
_RELEASED = "SELECT association, sort_key, ino, etag, content_hash FROM files WHERE released AND ino IN"
_PUT = f"""INSERT INTO files ({_COLUMNS}) VALUES ({_MARKS})
    ON CONFLICT (association, sort_key) DO UPDATE SET {_SET}"""  # noqa: S608
_SET_LOCAL = """UPDATE files SET size = ?, mtime_ns = ?, ctime_ns = ?, released = ?
    WHERE association = ? AND sort_key = ? AND ino = ?"""
_SET_LOADED = """UPDATE files SET size = ?, mtime_ns = ?, ctime_ns = ?, released = 0, content_hash = ?
    WHERE association = ? AND sort_key = ? AND ino = ?"""
_SET_LOADED_AS_KNOWN = """UPDATE files SET size = ?, mtime_ns = ?, ctime_ns = ?, released = 0, content_hash = ?
    WHERE etag = ? AND mode = ? AND uid = ? AND gid = ? AND association = ? AND sort_key = ? AND ino = ?"""
_SET_HASH = "UPDATE files SET content_hash = ? WHERE association = ? AND sort_key = ? AND ino = ?"
_DELETE_ONE = "DELETE FROM files WHERE association = ? AND sort_key = ?"
_DELETE = "DELETE FROM files WHERE association = ? AND sort_key IN (?, ?)"
_DELETE_ALL = "DELETE FROM files WHERE association = ?"
_COUNT_BETWEEN = "SELECT count(*) FROM files WHERE association = ? AND sort_key >= ? AND sort_key < ?"
_COUNT_ALL_OBJECTS = """SELECT count(*) FILTER (WHERE substr(sort_key, -1) != x'2f'),
    count(*) FILTER (WHERE substr(sort_key, -1) = x'2f' AND etag IS NOT NULL)
    FROM files WHERE association = ?"""
_COUNT_OBJECTS = f"{_COUNT_ALL_OBJECTS} AND sort_key >= ? AND sort_key < ?"
_ANY_BETWEEN = "SELECT 1 FROM files WHERE association = ? AND sort_key > ? AND sort_key < ? LIMIT 1"
_ANY = "SELECT 1 FROM files WHERE association = ? LIMIT 1"


class Known(NamedTuple):
    """As much of a row as a listing can be compared with; a whole `Base` takes five times as long."""

    sort_key: bytes
    etag: str | None
    remote_size: int
    last_modified_ns: int

    @property
    def path(self) -> bytes:
        return self.sort_key.removesuffix(b"/")

    @property
    def is_directory(self) -> bool:
        return self.sort_key.endswith(b"/")

    @property
    def is_implied(self) -> bool:
        """See `Base.is_implied`."""
        return self.etag is None

    def matches_listing(self, etag: str, size: int, last_modified_ns: int) -> bool:
        """A listing shows the version that this row knows.

        A row written by our own PUT holds the end of the second in which the store answered instead of the
        object's last-modified, so a listing may show an earlier time; never a later one.
        """
        return self.etag == etag and self.remote_size == size and last_modified_ns <= self.last_modified_ns


class Loading(NamedTuple):
    """As much of a file's row as tells whether what was loaded is its object; see `Base`."""

    path: bytes
    ino: int
    etag: str | None
    content_hash: bytes | None
    mode: int
    uid: int
    gid: int


def sort_key(base: Base) -> bytes:
    """Where a row stands in a walk: as its key, below the prefix, stands in an S3 listing."""
    return base.path + b"/" if base.kind is Kind.DIRECTORY else base.path


class Files:
    """Rows are `Base`; at most one a path. Rows of an association that was deleted are not written any
    more."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers
        self._read = ReadRows(connection)

    sort_key = staticmethod(sort_key)

    def get(self, association: str, path: bytes) -> Base | None:
        """The row of a path, be it a file's or a directory's."""
        row = self._connection.row(_GET, (self._numbers.get(association), path, path + b"/"))
        return self._base(row) if row is not None else None

    def get_many(self, association: str, paths: Sequence[bytes]) -> dict[bytes, Base]:
        """The rows of those paths that have one. For a batch: as many questions as `get` would be take a hundred times
        as long as their answers."""
        found: dict[bytes, Base] = {}
        number = self._numbers.get(association)
        for part in _parts(paths):
            keys = [key for path in part for key in (path, path + b"/")]
            sql = f"{_SELECT} WHERE association = ? AND sort_key IN ({', '.join('?' * len(keys))})"
            for row in self._connection.rows(sql, (number, *keys)):
                base = self._base(row)
                found[base.path] = base
        return found

    def unwritten(self, association: str, rows: Iterable[Base]) -> dict[bytes, Base]:
        """Of rows that `after` read and remembered those that were not written since, by path. Nothing is read; that
        one is not among them says nothing."""
        number = self._numbers.get(association)
        self._read.notice_others()
        return self._read.current(number, rows)

    def forget_read(self, association: str, paths: Iterable[bytes] | None = None) -> None:
        """They need not be remembered any more; None: none of the association."""
        number = self._numbers.get(association)
        if paths is None:
            self._read.forget_all(number)
        else:
            self._read.forget(number, paths)

    def put(self, base: Base) -> None:
        """Write a path's row in place of the one it had."""
        row = self._row(base)
        if row is not None:
            self._read.forget(row[0], [base.path])
            with self._connection.transaction():
                self._connection.run(_DELETE_ONE, _other_form(row))
                self._connection.run(_PUT, row)

    def put_many(self, bases: Iterable[Base]) -> None:
        """Write many rows; all or none."""
        with self._connection.transaction():
            # By path: if one comes twice, as a file and as a directory, the last counts.
            rows = {(base.association, base.path): row for base in bases if (row := self._row(base)) is not None}
            for (_, path), row in rows.items():
                self._read.forget(row[0], [path])
            self._connection.run_many(_DELETE_ONE, [_other_form(row) for row in rows.values()])
            self._connection.run_many(_PUT, rows.values())

    def set_local_many(self, association: str, states: Iterable[tuple[bytes, Local]]) -> None:
        """As `Base.with_local` for the rows of files by their paths; one that is of another inode stays as it is.
        Mode and owner stay: what was set meanwhile is a change to be exported."""
        number = self._numbers.get(association)
        rows = [
            (local.size, local.mtime_ns, local.ctime_ns, local.stub is not None, number, path, signed(local.ino))
            for path, local in states
        ]
        self._set_many(_SET_LOCAL, number, rows)

    def set_loaded_many(self, association: str, loaded: Iterable[tuple[bytes, Local, bytes]]) -> None:
        """The data of files is here now, by their paths, with the XXH3-128 of each. Mode and owner of the rows stay:
        what was set of these meanwhile is a change to be exported."""
        number = self._numbers.get(association)
        rows = [
            (local.size, local.mtime_ns, local.ctime_ns, digest, number, path, signed(local.ino))
            for path, local, digest in loaded
        ]
        self._set_many(_SET_LOADED, number, rows)

    def set_loaded_as_known(self, association: str, loaded: Sequence[tuple[bytes, Local, bytes, str]]) -> bool:
        """As `set_loaded_many`, with the ETag of each one's object, for rows of that object that have the file's mode
        and owner. False: not all have, and only those that have were written."""
        number = self._numbers.get(association)
        rows = [
            (
                *(local.size, local.mtime_ns, local.ctime_ns, digest, etag, local.mode, local.uid, local.gid),
                *(number, path, signed(local.ino)),
            )
            for path, local, digest, etag in loaded
        ]
        return self._set_many(_SET_LOADED_AS_KNOWN, number, rows) == len(rows)

    def _set_many(self, sql: str, number: int | None, rows: Sequence[Row]) -> int:
        """Rows of files of one association, that end with number, path and inode. How many there were."""
        self._read.forget(number, [row[-2] for row in rows])
        with self._connection.transaction():
            return self._connection.run_many(sql, rows)

    def loading(self, association: str, paths: Sequence[bytes]) -> dict[bytes, Loading]:
        """Of the rows of files at those paths what counts at the end of a restore."""
        found: dict[bytes, Loading] = {}
        for part in _parts(paths):
            sql = f"{_LOADING} ({', '.join('?' * len(part))})"
            for path, ino, *more in self._connection.rows(sql, (self._numbers.get(association), *part)):
                found[path] = Loading(path, unsigned(ino), *more)
        return found

    def note_hashes(self, arrived: Mapping[int, tuple[str, bytes]]) -> list[int]:
        """Write the XXH3-128 of stubs into their rows, by inode, each with the ETag of the object that it is of. The
        inodes of which a row has another ETag and another hash."""
        others: list[int] = []
        hashes: list[Row] = []
        for part in _parts(list(arrived)):
            sql = f"{_RELEASED} ({', '.join('?' * len(part))})"
            for number, key, ino, etag, content_hash in self._connection.rows(sql, [signed(ino) for ino in part]):
                wanted, digest = arrived[unsigned(ino)]
                if content_hash == digest:
                    continue
                if etag == wanted:
                    hashes.append((digest, number, key, ino))
                else:
                    others.append(unsigned(ino))
        self._set_hashes(hashes)
        return others

    def set_hash_many(self, hashes: Iterable[tuple[Base, bytes]]) -> None:
        """The content hash of rows that are files'."""
        self._set_hashes(
            [(digest, self._numbers.get(row.association), row.path, signed(row.ino)) for row, digest in hashes]
        )

    def _set_hashes(self, rows: Sequence[Row]) -> None:
        for _, number, path, _ in rows:
            self._read.forget(number, [path])
        with self._connection.transaction():
            self._connection.run_many(_SET_HASH, rows)

    def delete(self, association: str, path: bytes) -> None:
        """Forget a path; not what lies below it."""
        self.forget_read(association, [path])
        self._connection.run(_DELETE, (self._numbers.get(association), path, path + b"/"))

    def delete_all(self, association: str) -> None:
        self.forget_read(association)
        self._connection.run(_DELETE_ALL, (self._numbers.get(association),))

    def after(
        self, association: str, start_after: bytes, limit: int, under: bytes = b"", *, remember: bool = False
    ) -> list[Base]:
        """Up to ``limit`` rows with a sort key strictly after ``start_after``, in the order of an S3 listing.

        With ``under``: the row of that path and those below it. With ``remember`` it can be told later that they were
        not written since (`unwritten`), until `forget_read`.
        """
        number = self._numbers.get(association)
        if remember:
            self._read.notice_others()
        start = start_after + b"\0"  # the next possible key
        if not under:
            rows = self._connection.rows(_FROM, (number, start, limit))
        else:
            # 'a' sorts before 'a-b' and 'a.b', which lie not in it; 'a/' and all below it have their own
            # range.
            itself = self._connection.rows(_BETWEEN, (number, max(start, under), under + b"\0", limit))
            low, high = below(under)
            rows = itself + self._connection.rows(_BETWEEN, (number, max(start, low), high, limit - len(itself)))
        bases = [self._base(row) for row in rows]
        if remember and number is not None:
            self._read.remember(number, bases)
        return bases

    def iterate(self, association: str, under: bytes = b"", page: int = 1000) -> Iterator[Base]:
        """All rows in the order of an S3 listing, flat in memory. Rows written meanwhile show up if they
        come later."""
        start = b""
        while rows := self.after(association, start, page, under):
            yield from rows
            start = sort_key(rows[-1])

    def iterate_known(self, association: str, page: int = 1000) -> Iterator[Known]:
        """The same for all rows, as far as a listing tells."""
        number, start = self._numbers.get(association), b""
        while rows := self._connection.rows(_KNOWN, (number, start, page)):
            yield from map(Known._make, rows)
            start = rows[-1][0]

    def resident_bytes(self, association: str) -> int:
        """See `Numbers.resident_bytes`."""
        return self._numbers.resident_bytes(association)

    def by_inode(self, ino: int) -> list[Base]:
        """Rows of every association whose local side was that host inode."""
        return [self._base(row) for row in self._connection.rows(_BY_INODE, (signed(ino),))]

    def released_owners(self, inodes: Sequence[int]) -> dict[tuple[int, str], list[str]]:
        """Inode and ETag -> associations that have a row of a stub of that inode, for an object of that ETag."""
        owners: dict[tuple[int, str], list[str]] = {}
        for part in _parts(inodes):
            sql = f"{_RELEASED} ({', '.join('?' * len(part))})"
            for number, _, ino, etag, _ in self._connection.rows(sql, [signed(ino) for ino in part]):
                owners.setdefault((unsigned(ino), etag), []).append(self._numbers.id_of(number))
        return owners

    def by_inode_many(self, inodes: Sequence[int]) -> list[Base]:
        """The same for many."""
        found: list[Base] = []
        for part in _parts(inodes):
            sql = f"{_SELECT} WHERE ino IN ({', '.join('?' * len(part))})"
            found += (self._base(row) for row in self._connection.rows(sql, [signed(ino) for ino in part]))
        return found

    def children_exist(self, association: str, path: bytes) -> bool:
        """There is a row strictly below the directory."""
        number = self._numbers.get(association)
        if not path:
            return self._connection.row(_ANY, (number,)) is not None
        return self._connection.row(_ANY_BETWEEN, (number, *below(path))) is not None

    def count(self, association: str) -> int:
        return self._numbers.counts(association)[0]

    def count_under(self, association: str, under: bytes) -> int:
        """Rows of that path and below it; b"" is everything."""
        if not under:
            return self.count(association)
        number = self._numbers.get(association)
        itself = self._connection.row(_COUNT_BETWEEN, (number, under, under + b"\0"))
        inside = self._connection.row(_COUNT_BETWEEN, (number, *below(under)))
        assert itself is not None
        assert inside is not None
        return int(itself[0]) + int(inside[0])

    def count_objects(self, association: str, under: bytes) -> tuple[int, int]:
        """(rows of files, rows of directories that have a marker) of that path and below it, which are read one and
        all; b"" is everything."""
        number = self._numbers.get(association)
        if under:
            itself = self._connection.row(_COUNT_OBJECTS, (number, under, under + b"\0"))
            found = [itself, self._connection.row(_COUNT_OBJECTS, (number, *below(under)))]
        else:
            found = [self._connection.row(_COUNT_ALL_OBJECTS, (number,))]
        return sum(row[0] for row in found if row), sum(row[1] for row in found if row)

    def counts(self, association: str) -> tuple[int, int]:
        """(rows, those that are released)."""
        return self._numbers.counts(association)[:2]

    def _row(self, base: Base) -> tuple[Any, ...] | None:
        number = self._numbers.get_or_make(base.association)
        if number is None:
            return None
        if not base.path:
            raise ValueError("an association's own directory has no row")
        posix = base.posix
        return (
            number,
            base.path + b"/" if base.kind is Kind.DIRECTORY else base.path,
            _KIND_NUMBERS[base.kind],
            signed(base.ino),
            base.size,
            base.mtime_ns,
            base.ctime_ns,
            base.mode,
            base.uid,
            base.gid,
            base.etag,
            base.remote_size,
            base.last_modified_ns,
            base.version_id,
            posix.mode,
            posix.uid,
            posix.gid,
            posix.mtime_ns,
            posix.atime_ns,
            posix.xattrs,
            base.posix_known,
            base.storage_class,
            base.released,
            base.content_hash,
            base.target,
        )

    def _base(self, row: Row) -> Base:
        kind = KINDS[row[2]]
        return Base._make(
            (
                self._numbers.id_of(row[0]),
                row[1][:-1] if kind is Kind.DIRECTORY else row[1],
                kind,
                unsigned(row[3]),
                *row[4:14],
                Posix._make(row[14:20]),
                row[20] != 0,
                row[21],
                row[22] != 0,
                row[23],
                row[24],
            )
        )


Item = TypeVar("Item")


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """As many as are asked for in one statement."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _other_form(row: Row) -> tuple[int, bytes]:
    """The primary key that the path would have as a directory, or, if it is one, as a file."""
    number, key = row[0], row[1]
    return number, key[:-1] if key.endswith(b"/") else key + b"/"


def below(path: bytes) -> tuple[bytes, bytes]:
    """First key of a directory's own range, and the first one after it: '0' follows '/'."""
    return path + b"/", path + b"0"


def signed(ino: int) -> int:
    """Inode numbers have 64 unsigned bits, SQLite's integers are signed."""
    return ino - 2**64 if ino >= 2**63 else ino


def unsigned(ino: int) -> int:
    return ino + 2**64 if ino < 0 else ino
