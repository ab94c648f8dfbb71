"""Multipart uploads that were begun: what is left of them costs money in the bucket until a later try completes them
or they are aborted."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.catalog.connection import Connection
from fsxsync.catalog.files import signed, unsigned

_INTENDED = "INSERT INTO uploads (association, key, started_ns) VALUES (?, ?, ?) RETURNING number"
_STARTED = "UPDATE uploads SET upload_id = ?, part_size = ?, headers = ? WHERE number = ?"
_FINISHED = "DELETE FROM uploads WHERE number = ?"
_COLUMNS = "number, association, key, upload_id, started_ns, part_size, headers"
# Primary key (upload, number).
_PARTS = "SELECT number, length, etag, crc64nvme FROM upload_parts WHERE upload = ? ORDER BY number"
# Nothing for an upload that was forgotten with its association.
_SENT = """INSERT OR REPLACE INTO upload_parts (upload, number, length, etag, crc64nvme)
    SELECT number, ?, ?, ?, ? FROM uploads WHERE number = ?"""
# Index uploads_key (association, key), which ends in the number.
_TO_KEY = f"SELECT {_COLUMNS} FROM uploads WHERE association = ? AND key = ? ORDER BY number"  # noqa: S608  ours
_OF = f"SELECT {_COLUMNS} FROM uploads WHERE association = ? ORDER BY number"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM uploads ORDER BY number"  # noqa: S608
_DELETE_ALL = "DELETE FROM uploads WHERE association = ?"


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store took, ``length`` bytes; ``etag`` without quotes."""

    number: int
    length: int
    etag: str
    crc64nvme: int


@dataclass(frozen=True, slots=True)
class Upload:
    """``key`` is the whole object key. ``upload_id`` is None while the store has not told it: an intent. ``part_size``
    and ``headers`` (a digest) are None where nobody can go on with it."""

    number: int
    association: str
    key: str
    upload_id: str | None
    started_ns: int
    part_size: int | None = None
    headers: bytes | None = None


class Uploads:
    """As many rows as uploads are under way or were interrupted, and one a part of those."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def intended(self, association: str, key: str, now_ns: int) -> int:
        """Remember an upload before it is started. Its number."""
        row = self._connection.row(_INTENDED, (association, key, now_ns))
        assert row is not None
        return int(row[0])

    def started(self, number: int, upload_id: str, *, part_size: int, headers: bytes) -> None:
        """The store told the id of an intended one."""
        self._connection.run(_STARTED, (upload_id, part_size, headers, number))

    def sent(self, number: int, part: Part) -> None:
        """The store took a part, in place of an older one of that number."""
        self._connection.run(_SENT, (part.number, part.length, part.etag, signed(part.crc64nvme), number))

    def parts(self, number: int) -> list[Part]:
        """What the store took of one upload, in order."""
        rows = self._connection.rows(_PARTS, (number,))
        return [Part(part, length, etag, unsigned(crc)) for part, length, etag, crc in rows]

    def finished(self, number: int) -> None:
        """It was completed or aborted: forget it and its parts."""
        self._connection.run(_FINISHED, (number,))

    def to_key(self, association: str, key: str) -> list[Upload]:
        """The uploads to one object, the oldest first."""
        return [Upload(*row) for row in self._connection.rows(_TO_KEY, (association, key))]

    def all(self, association: str | None = None) -> list[Upload]:
        """The oldest first."""
        rows = self._connection.rows(_ALL) if association is None else self._connection.rows(_OF, (association,))
        return [Upload(*row) for row in rows]

    def delete_all(self, association: str) -> None:
        self._connection.run(_DELETE_ALL, (association,))
