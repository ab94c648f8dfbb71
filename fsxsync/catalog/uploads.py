"""Multipart uploads that were begun: what is still here after a crash costs money in the bucket until it
is aborted."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.catalog.connection import Connection

_STARTED = "INSERT OR REPLACE INTO uploads (upload_id, association, path, key, started_ns) VALUES (?, ?, ?, ?, ?)"
_FINISHED = "DELETE FROM uploads WHERE upload_id = ?"
_COLUMNS = "association, path, key, upload_id, started_ns"
_OF = f"SELECT {_COLUMNS} FROM uploads WHERE association = ? ORDER BY started_ns"  # noqa: S608  names are ours
_ALL = f"SELECT {_COLUMNS} FROM uploads ORDER BY started_ns"  # noqa: S608
_DELETE_ALL = "DELETE FROM uploads WHERE association = ?"


INTENT = "intent "
"""Ids that begin so stand for an upload that was about to be started: the store knows its id, we may not."""


@dataclass(frozen=True, slots=True)
class Upload:
    """``key`` is the whole object key."""

    association: str
    path: bytes
    key: str
    upload_id: str
    started_ns: int


class Uploads:
    """As many rows as uploads are under way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, association: str, path: bytes, key: str, upload_id: str, now_ns: int) -> None:
        """Remember an upload before its first part is sent."""
        self._connection.run(_STARTED, (upload_id, association, path, key, now_ns))

    def finished(self, upload_id: str) -> None:
        """It was completed or aborted."""
        self._connection.run(_FINISHED, (upload_id,))

    def all(self, association: str | None = None) -> list[Upload]:
        """The oldest first. Right after a start: those that nobody will end."""
        rows = self._connection.rows(_ALL) if association is None else self._connection.rows(_OF, (association,))
        return [Upload(*row) for row in rows]

    def delete_all(self, association: str) -> None:
        self._connection.run(_DELETE_ALL, (association,))
