"""The catalog's file: what is refused, what survives, what a statement may cost."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from fsxsync.catalog import (
    associations,
    brief,
    changelog,
    conflicts,
    files,
    migrations,
    numbers,
    problems,
    refused_keys,
    uploads,
)
from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import APPLICATION_ID, Catalog
from fsxsync.errors import CatalogCorrupt, CatalogError, NoSpace
from fsxsync.model.identity import Base, Kind
from fsxsync.model.open_conflict import Conflict, ConflictKind

A = "dra-00000000000000001"


def base(path: bytes) -> Base:
    return Base(A, path, Kind.FILE, 1, 2, 3, 4, 0o644, 0, 0, "e", 2, 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(file: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(file)
    yield catalog
    catalog.close()


# ---------------------------------------------------------------- opening


def test_nobody_else_can_read_it(catalog: Catalog, file: Path) -> None:
    catalog.facts.set("x", 1)

    for found in file.parent.iterdir():
        assert stat.S_IMODE(found.stat().st_mode) == 0o600, found


def test_a_mode_that_somebody_widened_is_narrowed(file: Path) -> None:
    file.touch(0o644)

    Catalog.open(file).close()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_is_opened_again_as_it_was_left(file: Path) -> None:
    first = Catalog.open(file)
    first.files.put(base(b"a"))
    first.close()

    again = Catalog.open(file)

    assert again.files.get(A, b"a") == base(b"a")
    assert again.check() == []
    again.close()


def test_what_is_no_database_is_refused_by_name(file: Path) -> None:
    file.write_bytes(b"these are not the bytes you are looking for" * 100)

    with pytest.raises(CatalogCorrupt, match=r"catalog\.db .*move catalog\.db"):
        Catalog.open(file)


def test_another_programs_database_is_refused_and_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE files (name TEXT)")
        raw.commit()
    before = file.read_bytes()

    with pytest.raises(CatalogCorrupt, match="another program"):
        Catalog.open(file)

    assert file.read_bytes() == before


def test_a_newer_schema_asks_for_an_upgrade(file: Path) -> None:
    Catalog.open(file).close()
    with closing(sqlite3.connect(file)) as raw:
        newer = Migrations("fsxsync.catalog")
        newer(name="m9999_from_the_future")(lambda _: None)
        newer.apply(Database(raw))

    with pytest.raises(CatalogError, match=r"m9999_from_the_future.*upgrade fsxsync") as raised:
        Catalog.open(file)
    assert not isinstance(raised.value, CatalogCorrupt)


def test_a_migration_that_fails_names_the_file(file: Path) -> None:
    Catalog.open(file).close()
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("DELETE FROM _sqlite_migrations WHERE name = 'm0004_rest'")
        raw.commit()

    with pytest.raises(CatalogCorrupt, match=r"catalog\.db.*schema.*uploads already exists"):
        Catalog.open(file)


def test_files_of_an_older_version_say_nothing_of_extended_attributes(file: Path) -> None:
    row = (1, b"f", 0, 7, 3, 1, 2, 0o644, 0, 0, "e", 3, 4, 1, "STANDARD", 0)
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        migrations.catalog.apply(Database(raw, execute_plugins=False), stop_before="m0007_xattrs")
        raw.execute("INSERT INTO numbers (number, id) VALUES (1, 'dra-1')")
        raw.execute(
            "INSERT INTO files (association, sort_key, kind, ino, size, mtime_ns, ctime_ns, mode, uid, gid, etag,"
            " remote_size, last_modified_ns, posix_known, storage_class, released)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    with closing(Catalog.open(file)) as catalog:
        found = catalog.files.get("dra-1", b"f")

    assert found is not None
    assert (found.etag, found.posix.xattrs) == ("e", None)


def test_uploads_of_an_older_version_are_still_known(file: Path) -> None:
    rows = [("intent 0123", "dra-1", b"a", "p/a", 1), ("id", "dra-1", b"b", "p/b", 2)]
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        older = Database(raw, execute_plugins=False)
        migrations.catalog.apply(older, stop_before="m0005_resumable_uploads")
        raw.executemany(
            "INSERT INTO uploads (upload_id, association, path, key, started_ns) VALUES (?, ?, ?, ?, ?)", rows
        )
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    with closing(Catalog.open(file)) as catalog:
        found = catalog.uploads.all("dra-1")

    assert found == [uploads.Upload(1, "dra-1", "p/a", None, 1), uploads.Upload(2, "dra-1", "p/b", "id", 2)]


def test_conflicts_of_an_older_version_are_still_open(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        older = Database(raw, execute_plugins=False)
        migrations.catalog.apply(older, stop_before="m0009_conflicts")
        raw.execute("INSERT INTO numbers (id) VALUES ('dra-1')")
        raw.executemany(
            "INSERT INTO problems (association, path, kind, code, message, detected_ns, kept_as)"
            " VALUES (1, ?, ?, '', '', ?, ?)",
            [(b"a", "conflict", 5, b"a.conflict"), (b"b", "conflict", 6, None), (b"c", "lost", 7, None)],
        )
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    with closing(Catalog.open(file)) as catalog:
        found = catalog.conflicts.all("dra-1")
        left = [problem.path for problem in catalog.problems.list("dra-1")]

    assert found == [
        Conflict("dra-1", b"a", ConflictKind.KEPT, 5, b"a.conflict"),
        Conflict("dra-1", b"b", ConflictKind.BLOCKED, 6),
    ]
    assert left == [b"b", b"c"]


def test_a_state_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="No such file or directory"):
        Catalog.open(tmp_path / "missing" / "catalog.db")


# ---------------------------------------------------------------- damage and full disks


def test_damage_found_later_is_told_as_such(file: Path) -> None:
    catalog = Catalog.open(file)
    catalog.files.put_many(base(b"%06d" % number) for number in range(5000))
    catalog.close()
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\xaa" * (size // 4))
    again = Catalog.open(file)

    with pytest.raises(CatalogCorrupt):
        list(again.files.iterate(A))

    assert again.check() != []
    again.close()


def test_a_truncated_file_is_corrupt(file: Path) -> None:
    catalog = Catalog.open(file)
    catalog.files.put_many(base(b"%06d" % number) for number in range(5000))
    catalog.close()
    os.truncate(file, file.stat().st_size // 2)

    with pytest.raises(CatalogCorrupt):  # noqa: PT012  at the start or at the first statement that needs the rest
        again = Catalog.open(file)
        try:
            list(again.files.iterate(A))
        finally:
            again.close()


def test_a_full_disk_takes_back_the_whole_transaction(catalog: Catalog) -> None:
    catalog.files.put(base(b"a"))
    pages = catalog._connection.row("PRAGMA page_count")
    assert pages is not None
    catalog._connection.row(f"PRAGMA max_page_count = {pages[0] + 20}")

    with pytest.raises(NoSpace, match="full"):
        catalog.files.put_many(base(b"%06d" % number) for number in range(5000))

    assert catalog.files.count(A) == 1
    catalog.files.put(base(b"b"))
    assert catalog.files.count(A) == 2


def test_a_bug_is_not_called_damage(catalog: Catalog) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        catalog._connection.run("INSERT INTO files (association, sort_key) VALUES (1, 'a')")


def test_another_thread_is_refused(catalog: Catalog) -> None:
    caught: list[BaseException] = []

    def use() -> None:
        try:
            catalog.facts.get("x")
        except sqlite3.ProgrammingError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()

    assert len(caught) == 1


# ---------------------------------------------------------------- transactions


def test_a_transaction_spans_all_parts(catalog: Catalog) -> None:
    with pytest.raises(KeyError), catalog.transaction():  # noqa: PT012  the block is what is tested
        catalog.files.put(base(b"a"))
        catalog.changelog.add([Hint(A, b"a", local=True, remote=False)], now_ns=1, delay_ns=0, cap_ns=0)
        catalog.facts.set("x", 1)
        raise KeyError

    assert catalog.files.count(A) == 0
    assert catalog.changelog.pending(None, b"", 9) == []
    assert catalog.facts.get("x") is None


def test_an_inner_block_that_fails_takes_back_its_own_part(catalog: Catalog) -> None:
    with catalog.transaction():
        catalog.facts.set("outer", 1)
        with pytest.raises(KeyError), catalog.transaction():  # noqa: PT012
            catalog.facts.set("inner", 1)
            raise KeyError
        with catalog.transaction(), catalog.transaction():
            catalog.facts.set("deep", 1)

    assert [catalog.facts.get(name) for name in ("outer", "inner", "deep")] == [1, None, 1]


def test_nothing_of_a_transaction_is_seen_before_its_end(catalog: Catalog, file: Path) -> None:
    with closing(sqlite3.connect(file)) as reader:
        with catalog.transaction():
            with catalog.transaction():
                catalog.facts.set("x", 1)
            assert reader.execute("SELECT count(*) FROM facts").fetchone() == (0,)
        assert reader.execute("SELECT count(*) FROM facts").fetchone() == (1,)


WRITER = """
import sys
from pathlib import Path
from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import APPLICATION_ID, Catalog

catalog = Catalog.open(Path(sys.argv[1]))
number = 0
while True:
    hints = [Hint("dra-1", b"%d/%d" % (number, part), True, False) for part in range(7)]
    catalog.changelog.add(hints, now_ns=number, delay_ns=0, cap_ns=0)
    print(number, flush=True)
    number += 1
"""


def test_what_was_committed_survives_a_kill(file: Path) -> None:
    with subprocess.Popen(  # noqa: S603  our own interpreter
        [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout]
        writer.wait()

    catalog = Catalog.open(file)

    batches = catalog.changelog.count("dra-1")[0] / 7
    assert told[-1] + 1 <= batches <= told[-1] + 2  # one may be written and not told yet, none is half
    assert batches == int(batches)
    assert catalog.check() == []
    catalog.close()


# ---------------------------------------------------------------- plans


SMALL = {
    "associations._ALL": "as many rows as associations",
    "numbers._ALL": "as many rows as associations",
    "uploads._ALL": "as many rows as uploads under way, at the start",
    "uploads._OF": "the same; sorted",
    "changelog._LAST_SEQ": "once, at the start",
    "files._SELECT": "the beginning of a statement",
    "brief._SELECT": "the same",
    "brief._WITH_BYTES": "the same",
    "brief._THESE": "the same",
    "files._LOADING": "the same",
    "files._RELEASED": "the same",
    "files._COMPARED": "the same",
}


def statements() -> list[tuple[str, str]]:
    """Every statement that can meet a million rows: all that are constants of these rooms."""
    found: list[tuple[str, str]] = []
    for module in (files, brief, changelog, conflicts, problems, uploads, associations, numbers, refused_keys):
        for name, value in vars(module).items():
            if isinstance(value, str) and value.lstrip().startswith(("SELECT ", "UPDATE ", "DELETE ")):
                found.append((f"{module.__name__.rpartition('.')[2]}.{name}", value))
    return [(name, sql) for name, sql in found if name not in SMALL]


def plan_of(catalog: Catalog, sql: str) -> list[str]:
    names = set(re.findall(r":(\w+)", sql))
    parameters = dict.fromkeys(names, 0) if names else [0] * sql.count("?")
    return [str(row[3]) for row in catalog._connection.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]


@pytest.mark.parametrize(("name", "sql"), [pytest.param(*pair, id=pair[0]) for pair in statements()])
def test_a_statement_seeks_and_neither_scans_nor_sorts(catalog: Catalog, name: str, sql: str) -> None:
    plan = plan_of(catalog, sql)

    assert plan
    assert " OR " not in sql, "of a path or a range below it SQLite reads the whole association"
    for step in plan:
        assert step.startswith("SEARCH"), plan


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (files._BY_INODE, "files_ino"),
        (f"{files._RELEASED} (?, ?)", "files_ino (ino=?)"),
        (f"{files._LOADING} (?, ?)", "PRIMARY KEY (association=? AND sort_key=?)"),
        (changelog._DUE, "changelog_due"),
        (changelog._NEXT_DUE, "changelog_due"),
        (changelog._WAKE, "changelog_due"),
        (changelog._OLDEST, "changelog_oldest"),
        (changelog._OLDEST_REMOTE, "changelog_oldest"),
        (changelog._OLDEST_LOCAL, "changelog_oldest"),
        (changelog._ERRORS, "changelog_errors"),
        (changelog._BY_INODE, "changelog_ino"),
        (problems._COUNT_KIND, "problems_kind"),
        (conflicts._DELETE_COPY, "conflicts_kept"),
        (refused_keys._SEE, "PRIMARY KEY (association=? AND key=?)"),
        (refused_keys._FORGET_UNSEEN, "refused_keys_seen"),
        (conflicts._BELOW, "PRIMARY KEY (association=? AND path>? AND path<?)"),
        (uploads._TO_KEY, "uploads_key"),
        (uploads._PARTS, "PRIMARY KEY (upload=?)"),
        (files._COUNT_OBJECTS, "PRIMARY KEY (association=? AND sort_key>? AND sort_key<?)"),
        (files._BETWEEN, "PRIMARY KEY (association=? AND sort_key>? AND sort_key<?)"),
        (changelog._BELOW, "PRIMARY KEY (association=? AND path>? AND path<?)"),
    ],
)
def test_a_statement_uses_the_index_that_its_comment_names(catalog: Catalog, sql: str, index: str) -> None:
    assert index in " ".join(plan_of(catalog, sql))


def test_every_migration_is_applied(catalog: Catalog) -> None:
    assert migrations.catalog.pending(Database(catalog._connection.raw)) == []
