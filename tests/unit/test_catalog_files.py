"""Files: one base a path, in the order of an S3 listing, whatever happens."""

from __future__ import annotations

import inspect
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsxsync.catalog import files, read_rows
from fsxsync.catalog.database import Catalog
from fsxsync.catalog.files import Files, sort_key
from fsxsync.model.identity import Base, Kind, Local, Posix

A, B = "dra-00000000000000001", "dra-00000000000000002"


def base(path: bytes, kind: Kind = Kind.FILE, *, association: str = A, ino: int = 7, released: bool = False) -> Base:
    return Base(
        association=association,
        path=path,
        kind=kind,
        ino=ino,
        size=3,
        mtime_ns=1,
        ctime_ns=2,
        mode=0o644,
        uid=1000,
        gid=1000,
        etag="e",
        remote_size=3,
        last_modified_ns=4,
        released=released,
    )


def directory(path: bytes) -> Base:
    return base(path, Kind.DIRECTORY)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


INT = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BASES = st.builds(
    Base,
    association=st.sampled_from([A, B]),
    path=st.binary(min_size=1).filter(lambda path: not path.endswith(b"/")),
    kind=st.sampled_from(Kind),
    ino=st.integers(0, 2**64 - 1),
    size=st.integers(0, 2**56),  # of files on a real disk: their sum is kept
    mtime_ns=INT,
    ctime_ns=INT,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    etag=st.none() | TEXT,
    remote_size=INT,
    last_modified_ns=INT,
    version_id=st.none() | TEXT,
    posix=st.builds(Posix, *[st.none() | INT] * 5, st.none() | TEXT),
    posix_known=st.booleans(),
    storage_class=TEXT,
    released=st.booleans(),
    content_hash=st.none() | st.binary(min_size=16, max_size=16),
    target=st.none() | st.binary(),
)


def test_every_field_comes_back_as_it_was_put() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog.open(Path(folder) / "catalog.db")

        @settings(deadline=None, max_examples=100)
        @given(BASES)
        def round_trip(row: Base) -> None:
            catalog.files.put(row)

            assert catalog.files.get(row.association, row.path) == row
            assert row in catalog.files.by_inode(row.ino)

        round_trip()
        catalog.close()


def test_rows_come_in_the_order_of_an_s3_listing(catalog: Catalog) -> None:
    rows = [
        directory(b"a"),
        base(b"a.b"),
        base(b"a-b"),
        base(b"a/c"),
        base(b"a0"),
        base("ä".encode()),
        base(b"\xff"),
    ]
    catalog.files.put_many(rows)

    keys = [sort_key(row) for row in catalog.files.iterate(A, page=2)]

    assert keys == [b"a-b", b"a.b", b"a/", b"a/c", b"a0", "ä".encode(), b"\xff"]


def test_under_means_the_path_itself_and_what_lies_below(catalog: Catalog) -> None:
    catalog.files.put_many(
        [base(b"a-b"), directory(b"a"), base(b"a/c"), directory(b"a/d"), base(b"a/d/e"), base(b"a0")]
    )

    assert [row.path for row in catalog.files.iterate(A, b"a", page=1)] == [b"a", b"a/c", b"a/d", b"a/d/e"]
    assert [row.path for row in catalog.files.iterate(A, b"a-b")] == [b"a-b"]
    assert [row.path for row in catalog.files.after(A, b"a/c", 1, b"a")] == [b"a/d"]
    assert catalog.files.after(A, b"a0", 10, b"a") == []


def test_a_file_row_above_other_rows_is_part_of_its_own_subtree(catalog: Catalog) -> None:
    catalog.files.put_many([base(b"a"), base(b"a-b"), base(b"a/c")])

    assert [row.path for row in catalog.files.iterate(A, b"a", page=1)] == [b"a", b"a/c"]


def test_a_path_is_a_file_or_a_directory_never_both(catalog: Catalog) -> None:
    catalog.files.put(base(b"a"))
    catalog.files.put(directory(b"a"))
    assert list(catalog.files.iterate(A)) == [directory(b"a")]

    catalog.files.put_many([base(b"a")])
    assert list(catalog.files.iterate(A)) == [base(b"a")]

    catalog.files.put_many([directory(b"b"), base(b"b")])
    assert catalog.files.get(A, b"b") == base(b"b")
    assert catalog.files.count(A) == 2


def test_rows_written_during_a_walk_do_not_disturb_it(catalog: Catalog) -> None:
    catalog.files.put_many(base(b"%03d" % number) for number in range(10))
    seen: list[bytes] = []

    for row in catalog.files.iterate(A, page=2):
        seen.append(row.path)
        catalog.files.delete(A, row.path)
        catalog.files.put(row._replace(path=b"0" + row.path))

    assert [path for path in seen if len(path) == 3] == [b"%03d" % number for number in range(10)]


LOCAL = Local(Kind.FILE, 7, 3, 4, 5, 0o644, 0, 0)
WRITERS: dict[str, Callable[[Files, Base], object]] = {
    "put": lambda files, row: files.put(row._replace(size=4)),
    "put, a directory now": lambda files, row: files.put(directory(row.path)),
    "put_many": lambda files, row: files.put_many([row._replace(size=4)]),
    "put_many, a directory now": lambda files, row: files.put_many([directory(row.path)]),
    "set_local_many": lambda files, row: files.set_local_many(A, [(row.path, LOCAL)]),
    "set_loaded_many": lambda files, row: files.set_loaded_many(A, [(row.path, LOCAL, b"h" * 16)]),
    "set_loaded_as_known": lambda files, row: files.set_loaded_as_known(A, [(row.path, LOCAL, b"h" * 16, "other")]),
    "set_hash_many": lambda files, row: files.set_hash_many([(row, b"h" * 16)]),
    "note_hashes": lambda files, row: files.note_hashes({row.ino: (row.etag or "", b"h" * 16)}),
    "delete": lambda files, row: files.delete(A, row.path),
    "delete_all": lambda files, row: files.delete_all(row.association),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_row_that_was_read_is_known_to_be_unwritten_until_somebody_writes_it(catalog: Catalog, writer: str) -> None:
    files = catalog.files
    files.put_many([base(b"a")._replace(released=True), base(b"b")._replace(ino=8)])
    a, b = files.after(A, b"", 10, remember=True)
    assert files.unwritten(A, [a, b]) == {b"a": a, b"b": b}
    assert files.unwritten(B, [a, b]) == {}

    WRITERS[writer](files, a)

    assert files.unwritten(A, [a, b]) == ({} if writer == "delete_all" else {b"b": b})


def test_whoever_writes_rows_is_known() -> None:
    writes = re.compile(r"\b(INTO|UPDATE|DELETE FROM)\s+files\b").search
    sources = {file.name for file in Path(files.__file__).parents[1].rglob("*.py") if writes(file.read_text())}
    assert sources == {"files.py"}

    statements = {name for name, value in vars(files).items() if isinstance(value, str) and writes(value)}
    assert "_PUT" in statements
    writers = {
        name
        for name, method in vars(Files).items()
        if inspect.isfunction(method)
        and (writes(source := inspect.getsource(method)) or statements & set(re.findall(r"\w+", source)))
    }
    assert writers == {writer.split(",")[0] for writer in WRITERS} - {"note_hashes", "set_hash_many"} | {"_set_hashes"}


def test_what_another_connection_wrote_is_not_unwritten(catalog: Catalog, tmp_path: Path) -> None:
    """An administrator's, say."""
    catalog.files.put_many([base(b"a"), base(b"b")])
    read = catalog.files.after(A, b"", 10, remember=True)
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as other, other:
        other.execute("UPDATE files SET etag = 'other' WHERE sort_key = ?", (b"a",))

    assert catalog.files.unwritten(A, read) == {}
    read = catalog.files.after(A, b"", 10, remember=True)
    assert len(catalog.files.unwritten(A, read)) == 2


def test_rows_that_nobody_remembered_or_that_were_read_again_are_told_nothing_of(catalog: Catalog) -> None:
    files = catalog.files
    files.put_many([base(b"a"), base(b"b"), base(b"c")])
    unremembered = files.after(A, b"", 10)
    assert files.unwritten(A, unremembered) == {}

    a, b, c = files.after(A, b"", 10, remember=True)
    again = files.after(A, b"", 1, remember=True)
    assert files.unwritten(A, [a, b, c]) == {b"b": b, b"c": c}
    assert files.unwritten(A, again) == {b"a": again[0]}

    files.forget_read(A, [b"b"])
    assert files.unwritten(A, [a, b, c]) == {b"c": c}
    files.forget_read(A)
    assert files.unwritten(A, [a, b, c, *again]) == {}


def test_a_row_that_was_read_before_it_was_taken_back_is_not_there(catalog: Catalog) -> None:
    read: list[Base] = []

    def write_and_fail() -> None:
        with catalog.transaction():
            catalog.files.put(base(b"a"))
            read.extend(catalog.files.after(A, b"", 10, remember=True))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert len(read) == 1
    assert catalog.files.unwritten(A, read) == {}


def test_as_many_rows_are_remembered_as_are_worked_on(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_rows, "MOST", 3)
    catalog.files.put_many(base(b"%d" % number) for number in range(6))
    first = catalog.files.after(A, b"", 3, remember=True)
    assert len(catalog.files.unwritten(A, first)) == 3
    others = catalog.files.after(A, b"2", 3, remember=True)
    assert set(catalog.files.unwritten(A, first + others)) == {b"3", b"4", b"5"}


def test_children_are_strictly_below(catalog: Catalog) -> None:
    catalog.files.put_many([directory(b"a"), base(b"a-"), base(b"a0")])
    assert not catalog.files.children_exist(A, b"a")

    catalog.files.put(directory(b"a/b"))
    assert catalog.files.children_exist(A, b"a")
    assert not catalog.files.children_exist(A, b"a/b")
    assert catalog.files.children_exist(A, b"")
    assert not catalog.files.children_exist(B, b"")


def test_associations_do_not_see_each_other(catalog: Catalog) -> None:
    catalog.files.put(base(b"a"))
    catalog.files.put(base(b"a", association=B))

    catalog.files.delete_all(A)

    assert catalog.files.get(A, b"a") is None
    assert catalog.files.get(B, b"a") is not None
    assert [row.association for row in catalog.files.by_inode(7)] == [B]


def test_the_bytes_that_are_here_are_counted(catalog: Catalog) -> None:
    for name, released in ((b"a", False), (b"b", True), (b"c", False)):
        catalog.files.put(base(name, released=released))
    assert catalog.files.resident_bytes(A) == 6
    catalog.files.put(base(b"a")._replace(size=1000))
    catalog.files.put(base(b"b"))
    assert catalog.files.resident_bytes(A) == 1006
    catalog.files.put(base(b"a", released=True))
    catalog.files.delete(A, b"b")
    assert catalog.files.resident_bytes(A) == 3
    catalog.files.delete_all(A)
    assert catalog.files.resident_bytes(A) == 0


def test_released_files_are_counted(catalog: Catalog) -> None:
    catalog.files.put_many([base(b"a", released=True), base(b"b", released=True), base(b"c")])
    assert catalog.files.counts(A) == (3, 2)

    catalog.files.put(base(b"a"))
    catalog.files.delete(A, b"b")
    assert catalog.files.counts(A) == (2, 0)


def test_many_rows_are_written_wholly_or_not_at_all(catalog: Catalog) -> None:
    def rows() -> Iterator[Base]:
        yield base(b"a")
        raise KeyError

    with pytest.raises(KeyError):
        catalog.files.put_many(rows())

    assert catalog.files.count(A) == 0
    catalog.files.put(base(b"a"))  # what was known in memory of the row's association was taken back too
    assert catalog.files.get(A, b"a") == base(b"a")


PATHS = st.sampled_from([b"a", b"a-", b"a/b", b"a/b/c", b"a0", b"b", b"b/\xff"])
ASSOCIATIONS = st.sampled_from([A, B])
ROWS = st.builds(
    base,
    PATHS,
    st.sampled_from(Kind),
    association=ASSOCIATIONS,
    ino=st.integers(1, 3),
    released=st.booleans(),
)


class FilesMachine(RuleBasedStateMachine):
    """Against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "catalog.db"
        self.catalog = Catalog.open(self.file)
        self.model: dict[tuple[str, bytes], Base] = {}
        self.read: list[Base] = []

    def teardown(self) -> None:
        self.catalog.close()
        self.folder.cleanup()

    @rule(row=ROWS)
    def put(self, row: Base) -> None:
        self.catalog.files.put(row)
        self.model[row.association, row.path] = row

    @rule(rows=st.lists(ROWS))
    def put_many(self, rows: list[Base]) -> None:
        self.catalog.files.put_many(rows)
        self.model |= {(row.association, row.path): row for row in rows}

    @rule(association=ASSOCIATIONS, path=PATHS)
    def delete(self, association: str, path: bytes) -> None:
        self.catalog.files.delete(association, path)
        self.model.pop((association, path), None)

    @rule(association=ASSOCIATIONS)
    def delete_all(self, association: str) -> None:
        self.catalog.files.delete_all(association)
        self.model = {key: row for key, row in self.model.items() if key[0] != association}

    @rule(rows=st.lists(ROWS, min_size=1))
    def put_in_a_transaction_that_fails(self, rows: list[Base]) -> None:
        with pytest.raises(KeyError), self.catalog.transaction():  # noqa: PT012  the block is what is tested
            self.catalog.files.put_many(rows)
            raise KeyError

    @precondition(lambda self: self.model)
    @rule()
    def open_again(self) -> None:
        self.read.clear()
        self.catalog.close()
        self.catalog = Catalog.open(self.file)

    @rule(
        association=ASSOCIATIONS,
        under=st.just(b"") | PATHS,
        start=st.just(b"") | PATHS,
        limit=st.integers(1, 4),
    )
    def walk(self, association: str, under: bytes, start: bytes, limit: int) -> None:
        wanted = sorted(
            (
                row
                for (owner, path), row in self.model.items()
                if owner == association and (not under or path == under or path.startswith(under + b"/"))
            ),
            key=sort_key,
        )

        assert list(self.catalog.files.iterate(association, under, page=limit)) == wanted
        later = [row for row in wanted if sort_key(row) > start]
        assert self.catalog.files.after(association, start, limit, under) == later[:limit]

    @rule(association=ASSOCIATIONS, limit=st.integers(1, 4))
    def remember(self, association: str, limit: int) -> None:
        rows = self.catalog.files.after(association, b"", limit, remember=True)
        assert list(self.catalog.files.unwritten(association, rows).values()) == rows
        self.read += rows

    @invariant()
    def what_is_unwritten_is_there(self) -> None:
        for association in (A, B):
            for path, row in self.catalog.files.unwritten(association, self.read).items():
                assert self.model[association, path] == row

    @invariant()
    def agrees(self) -> None:
        files = self.catalog.files
        for association in (A, B):
            mine = {path: row for (owner, path), row in self.model.items() if owner == association}
            assert files.counts(association) == (len(mine), sum(row.released for row in mine.values()))
            assert {row.path: row for row in files.iterate(association)} == mine
            for path in (b"a", b"a/b", b"b"):
                assert files.get(association, path) == mine.get(path)
                children = any(other.startswith(path + b"/") for other in mine)
                assert files.children_exist(association, path) == children
        for ino in (1, 2, 3):
            same = {key for key, row in self.model.items() if row.ino == ino}
            assert {(row.association, row.path) for row in files.by_inode(ino)} == same


TestFilesMachine = FilesMachine.TestCase
TestFilesMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_what_counts_at_the_end_of_a_restore_is_read_in_brief(catalog: Catalog) -> None:
    rows = [base(b"d/%d" % number, ino=10 + number, released=True) for number in range(700)]
    large = base(b"large", ino=2**64 - 5, released=True)
    catalog.files.put_many([*rows, large, base(b"other", association=B, ino=12, released=True)])

    found = catalog.files.loading(A, [b"d/3", b"absent", b"large", *(row.path for row in rows)])

    assert len(found) == 701
    for row in (rows[3], rows[699], large):
        told = found[row.path]
        assert told == (row.path, row.ino, row.etag, row.content_hash, row.mode, row.uid, row.gid)


def test_hashes_go_to_the_released_rows_of_that_object_and_others_are_named(catalog: Catalog) -> None:
    old, new = b"o" * 16, b"n" * 16
    named = base(b"named", ino=2**64 - 5, released=True)._replace(etag="e1", content_hash=None)
    known = base(b"known", ino=2, released=True)._replace(etag="another", content_hash=new)
    linked = base(b"linked", ino=3, released=True)._replace(etag="another", content_hash=old)
    here = base(b"here", ino=4)._replace(etag="e4", content_hash=old)
    catalog.files.put_many([named, known, linked, here])

    others = catalog.files.note_hashes(
        {row.ino: (f"e{number}", new) for number, row in enumerate((named, known, linked, here), 1)}
    )

    assert others == [3]
    hashes = {row.path: row.content_hash for row in catalog.files.after(A, b"", 10)}
    assert hashes == {b"named": new, b"known": new, b"linked": old, b"here": old}
    assert catalog.files.note_hashes({}) == []
