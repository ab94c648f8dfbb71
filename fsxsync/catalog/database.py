"""The catalog: one SQLite file in the state directory, opened by one daemon.

Lost with it is only knowledge: tree and repository hold all data, and what is equal on both sides is adopted
again. A write that returned survives the death of the process. A power cut may take back the last moments
(WAL with synchronous=NORMAL does not wait for the disk), but never tears: the scan and the listing at the
next start find the same differences again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlite_utils import Database

from fsxsync.catalog import migrations
from fsxsync.catalog.associations import Associations
from fsxsync.catalog.brief import Briefs
from fsxsync.catalog.changelog import Changelog
from fsxsync.catalog.conflicts import Conflicts
from fsxsync.catalog.connection import Connection, corrupt
from fsxsync.catalog.facts import Facts
from fsxsync.catalog.files import Files
from fsxsync.catalog.moves import Moves
from fsxsync.catalog.numbers import Numbers
from fsxsync.catalog.partials import Partials
from fsxsync.catalog.problems import Problems
from fsxsync.catalog.refused_keys import RefusedKeys
from fsxsync.catalog.tasks import Tasks
from fsxsync.catalog.uploads import Uploads
from fsxsync.catalog.uses import Uses
from fsxsync.errors import CatalogError

APPLICATION_ID = 0x46535853
""""FSXS": tells this file from any other SQLite database."""
BUSY_S = 5.0
"""How long an administrator's transaction on the file may hold us up; readers never do (WAL)."""
CACHE_KIB = 16 * 1024
WAL_KEPT_BYTES = 64 * 1024 * 1024
"""A bulk import may grow the write-ahead log; it is cut to this size afterwards."""


class Catalog:
    """What is known. Used from the thread that opened it, synchronously; every statement is short.

    Every method raises:
        CatalogCorrupt: the file is damaged. NoSpace: the disk is full. CatalogError: it can't be read or
        written.
    """

    def __init__(self, connection: Connection, fd: int) -> None:
        self._connection = connection
        self._fd = fd
        """Open on the file for as long as SQLite has it open: to close any descriptor of it sooner would let go of
        SQLite's locks (fcntl(2))."""
        numbers = Numbers(connection)
        self.files = Files(connection, numbers)
        self.briefs = Briefs(connection, numbers)
        self.changelog = Changelog(connection, numbers)
        self.uploads = Uploads(connection)
        self.facts = Facts(connection)
        self.partials = Partials(connection)
        self.problems = Problems(connection, numbers)
        self.conflicts = Conflicts(connection, numbers)
        self.moves = Moves(connection, numbers)
        self.refused_keys = RefusedKeys(connection)
        self.tasks = Tasks(connection)
        self.uses = Uses(connection)
        self.associations = Associations(
            connection,
            numbers,
            files=self.files,
            changelog=self.changelog,
            uploads=self.uploads,
            problems=self.problems,
            conflicts=self.conflicts,
            moves=self.moves,
            refused_keys=self.refused_keys,
        )

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open or make the file, mode 0600, and bring its schema up to date.

        Raises:
            CatalogCorrupt: no such database, or a damaged one. CatalogError: it is from a newer version,
            or can't be opened.
        """
        try:
            # SQLite would make it readable for all, and gives its -wal and -shm files the same mode.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CatalogError(
                f"catalog {path}", error.strerror or str(error), advice="check the state directory"
            ) from error
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            try:
                os.fchmod(fd, 0o600)
                raw = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            except (OSError, sqlite3.Error) as error:
                raise CatalogError(f"catalog {path}", str(error), advice="check the state directory") from error
            undo.callback(raw.close)
            connection = Connection(raw, path)
            _configure(connection)
            _migrate(connection)
            undo.pop_all()
            return cls(connection, fd)

    def close(self) -> None:
        """Close the file; the write-ahead log is merged into it."""
        try:
            with self._connection.translated():
                self._connection.raw.close()
        finally:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or none of what is written inside, by every part of the catalog; may be nested. No `await`
        inside."""
        with self._connection.transaction():
            yield

    def bring_to_disk(self) -> None:
        """What was committed survives a power cut when this returns. Blocking, and the one method for worker threads:
        it touches the log's file, not SQLite. (What a checkpoint took out of it meanwhile is on the disk already.)

        Raises:
            CatalogError: the disk did not take it.
        """
        try:
            fd = os.open(f"{self._connection.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise CatalogError(
                f"catalog {self._connection.path}", error.strerror or str(error), advice="check the disk under it"
            ) from error

    def reserve(self, allocate_ahead: Callable[[int], None]) -> None:
        """Have blocks allocated for the next writes, so that they find room on a full disk too: of both files, given
        as descriptors. For worker threads: it does not touch SQLite.

        Raises:
            OSError: what ``allocate_ahead`` raises.
        """
        wal = os.open(f"{self._connection.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            allocate_ahead(wal)
        finally:
            os.close(wal)
        allocate_ahead(self._fd)

    def check(self) -> list[str]:
        """What SQLite finds damaged in the file; reads all of it (a second for some hundred MB)."""
        return [row[0] for row in self._connection.rows("PRAGMA quick_check(20)") if row[0] != "ok"]


def _configure(connection: Connection) -> None:
    """Refuse what is not ours before anything is written to it."""
    found = connection.row("PRAGMA application_id")
    tables = connection.row("SELECT count(*) FROM sqlite_schema")
    assert found is not None
    assert tables is not None
    if found[0] != APPLICATION_ID and (found[0] != 0 or tables[0] > 0):
        raise corrupt(connection.path, "it is another program's database")
    mode = connection.row("PRAGMA journal_mode = WAL")
    if mode != ("wal",):
        raise CatalogError(
            f"catalog {connection.path}",
            "its file system does not carry SQLite's write-ahead log",
            advice="use a state directory on a local file system",
        )
    connection.run("PRAGMA synchronous = NORMAL")
    connection.run(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.run(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    if found[0] != APPLICATION_ID:
        connection.run(f"PRAGMA application_id = {APPLICATION_ID}")


def _migrate(connection: Connection) -> None:
    # Without plugins: what an administrator installed for the sqlite-utils command has no business in here.
    database = Database(connection.raw, recursive_triggers=False, execute_plugins=False)
    with connection.translated():
        newer = migrations.unknown(database)
        if newer:
            raise CatalogError(
                f"catalog {connection.path}",
                f"a newer version of fsxsync wrote it ({', '.join(sorted(newer))})",
                advice="upgrade fsxsync",
            )
        try:
            migrations.catalog.apply(database)
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}:
                raise corrupt(connection.path, f"its schema can't be brought up to date: {error}") from error
            raise
