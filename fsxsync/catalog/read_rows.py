"""Rows that were read a moment ago and not written since: who read them need not read them once more before it acts."""

from __future__ import annotations

from collections.abc import Iterable

from fsxsync.catalog.connection import Connection
from fsxsync.model.identity import Base

MOST = 32_768
"""Rows of all associations together. Who was forgotten is read again."""


class ReadRows:
    """By number of the association and path. Whoever writes a row says so before; whoever is done with one, too. Of
    what another connection writes, an administrator's say, SQLite tells."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[int, dict[bytes, Base]] = {}
        self._version = 0
        # A row may have been read that was never committed. First: the others read, and may fail.
        connection.after_rollback.insert(0, self._rows.clear)

    def notice_others(self) -> None:
        """To be called before rows are read to be remembered, and before it is asked whether they are current."""
        row = self._connection.row("PRAGMA data_version")
        assert row is not None
        if row[0] != self._version:
            self._version = row[0]
            self._rows.clear()

    def remember(self, number: int, rows: Iterable[Base]) -> None:
        """These were read just now."""
        if sum(map(len, self._rows.values())) >= MOST:
            self._rows.clear()
        self._rows.setdefault(number, {}).update((row.path, row) for row in rows)

    def current(self, number: int | None, rows: Iterable[Base]) -> dict[bytes, Base]:
        """By path those of which this very row was remembered, and nobody wrote to its path since. Of the others
        nothing is said."""
        known = self._rows.get(number, {}) if number is not None else {}
        return {path: row for row in rows if known.get(path := row.path) is row}

    def forget(self, number: int | None, paths: Iterable[bytes]) -> None:
        if number is None or (rows := self._rows.get(number)) is None:
            return
        for path in paths:
            rows.pop(path, None)
        if not rows:
            del self._rows[number]

    def forget_all(self, number: int | None) -> None:
        if number is not None:
            self._rows.pop(number, None)
