"""What a bulk import stands on: many stubs in one directory at once, looks that wait for the end of the listing, and
the rows as a listing is compared with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import Catalog
from fsxsync.errors import LocalChanged, TreeError
from fsxsync.model.identity import Base, Kind, base_of
from fsxsync.model.stub import StubMark
from fsxsync.sync.bulk import import_new
from fsxsync.tree.tree import NewStub, Tree

A = "dra-00000000000000001"
HELD = 1000


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree.open(tmp_path / "tree", tmp_path / "staging", instance=None, new_instance="one")
    yield tree
    tree.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


def stub(name: bytes) -> NewStub:
    mark = StubMark(etag="e", size=5000, key=f"p/{name.decode('utf-8', 'replace')}")
    return NewStub(name, mark, mode=0o4640, uid=-1, gid=-1, mtime_ns=10**18 + 1, atime_ns=10**18 + 2)


# ---------------------------------------------------------------- stubs


def test_stubs_are_placed_as_a_look_finds_them(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/d").mkdir()
    os.utime(tmp_path / "tree/d", ns=(5, 7))

    placed = tree.place_stubs(b"d", [stub(b"a"), stub(b"b")])

    assert placed == [tree.identify(b"d/a"), tree.identify(b"d/b")]
    assert [local.stub for local in placed if local] == [stub(b"a").mark, stub(b"b").mark]
    assert (tmp_path / "tree/d").stat().st_mtime_ns == 7
    assert os.listdir(tmp_path / "staging") == []


def test_a_taken_name_is_left_alone_and_the_others_are_made(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_text("mine")

    placed = tree.place_stubs(b"", [stub(b"a"), stub(b"b")])

    assert placed == [None, tree.identify(b"b")]
    assert (tmp_path / "tree/a").read_text() == "mine"
    assert os.listdir(tmp_path / "staging") == []


def test_no_stub_is_made_below_a_file_or_a_symlink(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/file").touch()

    for directory, error in ((b"link", TreeError), (b"file", LocalChanged), (b"gone", LocalChanged)):
        with pytest.raises(error):
            tree.place_stubs(directory, [stub(b"a")])

    assert os.listdir(tmp_path / "outside") == []
    assert os.listdir(tmp_path / "staging") == []


def test_a_failure_leaves_nothing_staged_and_what_was_placed_before(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(TreeError):
        tree.place_stubs(b"", [stub(b"a"), stub(b"n" * 256)])

    assert os.listdir(tmp_path / "tree") == ["a"]
    assert os.listdir(tmp_path / "staging") == []


# ---------------------------------------------------------------- looks that wait


def hold(catalog: Catalog, *paths: bytes, now_ns: int = 10) -> None:
    catalog.changelog.hold(A, paths, now_ns=now_ns, until_ns=HELD)


def due(catalog: Catalog, now_ns: int) -> list[bytes]:
    return [entry.path for entry in catalog.changelog.claim(now_ns, 10, [A])]


def test_a_held_path_is_pending_and_not_due_until_it_is_released(catalog: Catalog) -> None:
    hold(catalog, b"a", b"b", b"c")

    assert catalog.changelog.count(A) == (3, 0, 3)
    assert due(catalog, 900) == []
    assert [catalog.changelog.release(A, HELD, 900, 2) for _ in range(3)] == [2, 1, 0]
    assert sorted(due(catalog, 900)) == [b"a", b"b", b"c"]


def test_a_held_path_is_due_at_the_latest_when_its_time_is_over(catalog: Catalog) -> None:
    hold(catalog, b"a")

    assert due(catalog, HELD) == [b"a"]


def test_another_hint_makes_a_held_path_due_as_if_it_had_not_been_held(catalog: Catalog) -> None:
    hold(catalog, b"a")
    catalog.changelog.add([Hint(A, b"a", local=True, remote=False)], now_ns=50, delay_ns=10, cap_ns=30)

    assert catalog.changelog.next_due_ns([A]) == 60
    assert catalog.changelog.release(A, HELD, 55, 10) == 0
    assert catalog.changelog.count(A) == (1, 1, 1)


def test_a_path_that_is_due_is_not_held_back(catalog: Catalog) -> None:
    catalog.changelog.add([Hint(A, b"a", local=True, remote=False)], now_ns=5, delay_ns=10, cap_ns=30)
    hold(catalog, b"a")

    assert catalog.changelog.next_due_ns([A]) == 15
    (entry,) = catalog.changelog.claim(15, 1, [A])
    assert (entry.local, entry.remote) == (True, True)


def test_a_path_that_somebody_looks_at_is_looked_at_again(catalog: Catalog) -> None:
    catalog.changelog.add([Hint(A, b"a", local=False, remote=True)], now_ns=5, delay_ns=0, cap_ns=0)
    (entry,) = catalog.changelog.claim(5, 1, [A])
    hold(catalog, b"a")

    assert not catalog.changelog.done(entry)
    assert due(catalog, 20) == [b"a"]


def test_nothing_is_held_for_a_deleted_association(catalog: Catalog) -> None:
    hold(catalog, b"a")
    catalog.associations.delete(A)
    hold(catalog, b"a")

    assert catalog.changelog.count(A) == (0, 0, 0)


# ---------------------------------------------------------------- rows against a listing


def row(path: bytes, kind: Kind = Kind.FILE, etag: str | None = "e") -> Base:
    return Base(A, path, kind, 1, 5, 0, 0, 0o644, 0, 0, etag, remote_size=5, last_modified_ns=7 * 10**9)


def test_rows_come_in_listing_order_as_far_as_a_listing_tells(catalog: Catalog) -> None:
    catalog.files.put_many([row(b"a", Kind.DIRECTORY, None), row(b"a-b"), row(b"a/c"), row(b"m", Kind.DIRECTORY)])

    found = list(catalog.files.iterate_known(A, page=1))

    assert [(known.sort_key, known.path, known.is_implied) for known in found] == [
        (b"a-b", b"a-b", False),
        (b"a/", b"a", True),
        (b"a/c", b"a/c", False),
        (b"m/", b"m", False),
    ]


@pytest.mark.parametrize(
    ("etag", "size", "last_modified_s", "same"),
    [
        ("e", 5, 7, True),
        ("e", 5, 6, True),
        ("e", 5, 8, False),
        ("f", 5, 7, False),
        ("e", 6, 7, False),
    ],
)
def test_a_listing_shows_the_version_of_a_row_or_not(
    catalog: Catalog, etag: str, size: int, last_modified_s: int, same: bool
) -> None:
    catalog.files.put(row(b"a"))
    (known,) = catalog.files.iterate_known(A)

    assert known.matches_listing(etag, size, last_modified_s * 10**9) is same


async def test_a_stale_page_brings_back_nothing_that_somebody_removed(tmp_path: Path) -> None:
    """An event brought the object in between, and the file was removed: the row tells that it was here."""
    world = World(tmp_path)
    try:
        path = world.stub("f", b"data")
        page = [(b"f", listed) for batch in world.store.list_pages("") for listed in batch]
        local, remote = world.tree.identify(b"f"), await world.store.head("f")
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", b"f", local, remote))
        path.unlink()
        async with world.daemon() as daemon:
            assert list(await import_new(daemon.served, page, until_ns=HELD)) == [b"f"]
            row = world.catalog.files.get("dra-1", b"f")

        assert not path.exists()
        assert row is not None
        assert row.ino == local.ino
    finally:
        world.close()
