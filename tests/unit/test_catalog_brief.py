"""Rows in brief: the same as rows, as far as they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsxsync.catalog.database import Catalog
from fsxsync.model.identity import Kind, Local, Remote, base_of
from fsxsync.model.shallow import Shallow

A = "dra-a"
LOCAL = Local(Kind.FILE, 7, 3, 10**18, 2 * 10**18, 0o644, 1, 2)
ROW = base_of(A, b"f", LOCAL, Remote(Kind.FILE, "e", 3, 5))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ino": 8},
        {"size": 4},
        {"mtime_ns": 1},
        {"ctime_ns": 1},
        {"mode": 0o600},
        {"uid": 9},
        {"gid": 9},
        {"nlink": 2, "atime_ns": 5, "blocks": 8},
    ],
)
def test_a_row_in_brief_fits_what_the_row_fits(catalog: Catalog, kind: Kind, change: dict[str, int]) -> None:
    base, local = ROW._replace(kind=kind), LOCAL._replace(kind=kind, **change)  # type: ignore[arg-type]
    catalog.files.put(base)
    ((brief,),) = catalog.briefs.iterate(A)

    assert brief.matches(Shallow.of(local)) is base.matches_local(local)
    assert Shallow.of(local).local() == local
    assert catalog.briefs.get_many(A, [catalog.files.sort_key(base)]) == {brief.sort_key: brief}


def test_an_inode_that_sqlite_has_signed_fits_nothing(catalog: Catalog) -> None:
    catalog.files.put(ROW._replace(ino=2**63))
    ((brief,),) = catalog.briefs.iterate(A)

    assert not brief.matches(Shallow.of(LOCAL._replace(ino=2**63)))


@pytest.mark.parametrize("under", [b"", b"a", b"a/b", b"nowhere"])
def test_rows_come_in_the_order_and_number_of_all(
    catalog: Catalog, under: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsxsync.catalog.brief.PAGE", 2)
    paths = [b"a", b"a-b", b"a/b", b"a/b/c", b"a/b/d", b"a/c", b"b", b"c", b"d"]
    directories = {b"a", b"a/b"}
    catalog.files.put_many(
        ROW._replace(path=path, kind=Kind.DIRECTORY if path in directories else Kind.FILE) for path in paths
    )
    pages = list(catalog.briefs.iterate(A, under))

    found = [row.sort_key for page in pages for row in page]
    assert found == [catalog.files.sort_key(row) for row in catalog.files.iterate(A, under)]
    assert all(0 < len(page) <= 2 for page in pages)
    for keys in (
        [],
        [b"a", b"a/"],
        [b"a/", b"d"],
        [b"a/", b"a/b/", b"a/b/c", b"d", b"nowhere"],
    ):  # few rows between, or many
        rows = catalog.briefs.get_many(A, keys)
        assert {key for key in keys if key in rows} == set(keys) - {b"a", b"nowhere"}
        assert all(row.sort_key == key for key, row in rows.items())
