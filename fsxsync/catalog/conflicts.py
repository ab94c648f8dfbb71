"""Open conflicts: what `fsxsync conflicts` lists."""

from __future__ import annotations

from collections.abc import Collection

from fsxsync.catalog.connection import Connection, Row
from fsxsync.catalog.files import below, signed, unsigned
from fsxsync.catalog.numbers import Numbers
from fsxsync.model.open_conflict import Conflict, ConflictKind, LocalVersion, RemoteVersion

_COLUMNS = (
    "association, path, kept_as, kind, detected_ns, local_ino, local_size, local_mtime_ns,"
    " remote_etag, remote_size, remote_modified_ns, remote_version_id"
)
# Primary key (association, path, kept_as), but by the copy: index conflicts_kept (association, kept_as).
_PUT = f"INSERT OR REPLACE INTO conflicts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  names are ours
_AT = f"SELECT {_COLUMNS} FROM conflicts WHERE association = ? AND path = ? ORDER BY kept_as"  # noqa: S608
_BELOW = f"""SELECT {_COLUMNS} FROM conflicts WHERE association = ? AND path >= ? AND path < ?
    ORDER BY path, kept_as"""  # noqa: S608
_LIST = f"SELECT {_COLUMNS} FROM conflicts WHERE association = ? ORDER BY path, kept_as"  # noqa: S608
_PATHS = "SELECT DISTINCT path FROM conflicts WHERE association = ? ORDER BY path LIMIT ?"
_COUNT = "SELECT count(*) FROM conflicts WHERE association = ?"
_DELETE = "DELETE FROM conflicts WHERE association = ? AND path = ? AND kept_as = ?"
_DELETE_COPY = "DELETE FROM conflicts WHERE association = ? AND kept_as = ?"
_DELETE_ALL = "DELETE FROM conflicts WHERE association = ?"


class Conflicts:
    """At most one for each path and copy."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers

    def put(self, conflict: Conflict) -> None:
        """Write one in place of what was known of that path and copy."""
        local, remote = conflict.local, conflict.remote
        with self._connection.transaction():
            number = self._numbers.get_or_make(conflict.association)
            if number is None:
                return
            row = (
                *(number, conflict.path, conflict.kept_as, conflict.kind.value, conflict.detected_ns),
                *((signed(local.ino), local.size, local.mtime_ns) if local else (None,) * 3),
                *((remote.etag, remote.size, remote.last_modified_ns, remote.version_id) if remote else (None,) * 4),
            )
            self._connection.run(_PUT, row)

    def at(self, association: str, path: bytes) -> list[Conflict]:
        """Those of one path."""
        return self._conflicts(self._connection.rows(_AT, (self._numbers.get(association), path)))

    def below(self, association: str, path: bytes) -> list[Conflict]:
        """Those of all paths strictly below a directory."""
        return self._conflicts(self._connection.rows(_BELOW, (self._numbers.get(association), *below(path))))

    def all(self, association: str) -> list[Conflict]:
        """By path."""
        return self._conflicts(self._connection.rows(_LIST, (self._numbers.get(association),)))

    def paths(self, association: str, limit: int) -> list[bytes]:
        """The first paths that are in conflict."""
        return [row[0] for row in self._connection.rows(_PATHS, (self._numbers.get(association), limit))]

    def count(self, association: str) -> int:
        row = self._connection.row(_COUNT, (self._numbers.get(association),))
        assert row is not None
        return int(row[0])

    def delete(self, association: str, path: bytes, kept_as: bytes = b"") -> None:
        """Close one; without ``kept_as`` what was moved nowhere."""
        self._connection.run(_DELETE, (self._numbers.get(association), path, kept_as))

    def delete_copy(self, association: str, kept_as: bytes) -> None:
        """The copy is gone: whatever it was kept for is closed."""
        if kept_as:
            self._connection.run(_DELETE_COPY, (self._numbers.get(association), kept_as))

    def delete_all(self, association: str) -> None:
        self._connection.run(_DELETE_ALL, (self._numbers.get(association),))

    def _conflicts(self, rows: Collection[Row]) -> list[Conflict]:
        return [self._conflict(row) for row in rows]

    def _conflict(self, row: Row) -> Conflict:
        return Conflict(
            association=self._numbers.id_of(row[0]),
            path=row[1],
            kept_as=row[2],
            kind=ConflictKind(row[3]),
            detected_ns=row[4],
            local=None if row[5] is None else LocalVersion(unsigned(row[5]), row[6], row[7]),
            remote=None if row[8] is None else RemoteVersion(row[8], row[9], row[10], row[11]),
        )
