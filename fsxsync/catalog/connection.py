"""One SQLite connection: nested transactions, and SQLite's failures as ours.

Used from the trio thread only (sqlite3 refuses any other), synchronously: no `await` inside a transaction,
or a neighbour's writes would join it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fsxsync.crashpoint import durable, is_armed
from fsxsync.errors import CatalogCorrupt, CatalogError, NoSpace

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]

_PRIMARY = 0xFF
"""The low byte of an extended result code is its family (sqlite.org/rescode.html)."""
_TABLE = re.compile(r"\A\s*(?:INSERT(?: OR \w+)? INTO|REPLACE INTO|UPDATE|DELETE FROM) (?!temp\.)(\w+)")
"""The table that a statement writes to, if it outlives the process."""
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_ENVIRONMENT = {
    sqlite3.SQLITE_PERM: "check the owner and mode of the state directory",
    sqlite3.SQLITE_BUSY: "somebody else holds it: close what has it open",
    sqlite3.SQLITE_LOCKED: "somebody else holds it: close what has it open",
    sqlite3.SQLITE_NOMEM: "free some memory",
    sqlite3.SQLITE_READONLY: "make the state directory writable",
    sqlite3.SQLITE_IOERR: "check the disk under the state directory",
    sqlite3.SQLITE_CANTOPEN: "check the owner and mode of the state directory",
}


class Connection:
    """Statements in, tuples out.

    Every method raises:
        CatalogCorrupt: the file is damaged. NoSpace: the disk is full. CatalogError: it can't be read or
        written.
    """

    def __init__(self, raw: sqlite3.Connection, path: Path) -> None:
        self.raw = raw
        self.path = path
        self.after_rollback: list[Callable[[], None]] = []
        """What caches rows in memory forgets here what was never committed."""
        self._depth = 0
        self._written: set[str] = set()
        """Tables that the transaction wrote to; known only where somebody counts crash points."""

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        with self.translated():
            return self.raw.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        with self.translated(), self._writing(sql):
            found: Row | None = self.raw.execute(sql, parameters).fetchone()
            return found

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement that writes; how many rows it touched."""
        with self.translated(), self._writing(sql):
            return self.raw.execute(sql, parameters).rowcount

    def run_many(self, sql: str, parameters: Iterable[Parameters]) -> int:
        """Run a statement for each of ``parameters``; how many rows all of them touched. Only inside a transaction,
        which makes it all or none."""
        assert self._depth, "each row would be a transaction of its own"
        with self.translated(), self._writing(sql):
            return self.raw.executemany(sql, parameters).rowcount

    def _writing(self, sql: str) -> AbstractContextManager[None]:
        """Outside a transaction a statement is one of its own, and so a durable step."""
        if not is_armed() or (found := _TABLE.search(sql)) is None:
            return nullcontext()
        if self._depth == 0:
            return durable(f"catalog.{found[1]}")
        self._written.add(found[1])
        return nullcontext()

    def _committing(self) -> AbstractContextManager[None]:
        if self._depth > 1 or not self._written:
            return nullcontext()
        written, self._written = sorted(self._written), set()
        return durable(f"catalog.{'+'.join(written)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or none of what is written inside. An inner block that fails takes back its own part only."""
        name = f"level{self._depth}"
        begin, end, undo = (
            (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}")
            if self._depth
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        with self.translated():
            self.raw.execute(begin)
        self._depth += 1
        try:
            yield
            with self.translated(), self._committing():
                self.raw.execute(end)
        except BaseException:
            self._undo(undo, end)
            raise
        finally:
            self._depth -= 1

    def _undo(self, undo: str, end: str) -> None:
        try:
            with self.translated():
                self._written.clear()
                if self.raw.in_transaction:  # a full or failing disk makes SQLite roll back by itself
                    self.raw.execute(undo)
                    if undo != "ROLLBACK":
                        self.raw.execute(end)
        finally:
            for forget in self.after_rollback:
                forget()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """SQLite's errors as ours; a broken constraint or statement is a bug and passes as it is."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from error

    def _translate(self, error: sqlite3.DatabaseError) -> CatalogError | NoSpace | None:
        # Errors of the Python module itself, like text that is no UTF-8, have no code.
        code = getattr(error, "sqlite_errorcode", None)
        family = None if code is None else code & _PRIMARY
        if family in _BROKEN or (code is None and "decode" in str(error)):
            return corrupt(self.path, str(error))
        if family == sqlite3.SQLITE_FULL:
            return NoSpace(f"catalog {self.path}", str(error))
        if family in _ENVIRONMENT:
            return CatalogError(f"catalog {self.path}", str(error), advice=_ENVIRONMENT[family])
        return None


def corrupt(path: Path, why: str) -> CatalogCorrupt:
    return CatalogCorrupt(f"catalog {path} can't be used", why)


def text(value: str) -> str:
    """A message as SQLite can hold it: names that are no UTF-8 may be in it as lone surrogates."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
