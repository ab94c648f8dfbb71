"""Open conflicts in the catalog: one for each path and copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsxsync.catalog.database import Catalog
from fsxsync.model.identity import Kind, Remote
from fsxsync.model.open_conflict import Conflict, ConflictKind, LocalVersion, RemoteVersion

A, B = "dra-00000000000000001", "dra-00000000000000002"
KEPT = Conflict(A, b"d/f", ConflictKind.KEPT, 5, b"d/f.c", LocalVersion(2**64 - 1, 4, 7), RemoteVersion("e", 6, 8, "v"))
CLASH = Conflict(A, b"d/x/y", ConflictKind.CLASH, 6)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "catalog.db")
    yield opened
    opened.close()


def test_a_path_may_have_several_copies(catalog: Catalog) -> None:
    second = replace(KEPT, kept_as=b"d/f.c-1")
    for conflict in (CLASH, second, KEPT, replace(KEPT, association=B)):
        catalog.conflicts.put(conflict)

    assert catalog.conflicts.all(A) == [KEPT, second, CLASH]
    assert catalog.conflicts.at(A, b"d/f") == [KEPT, second]
    assert catalog.conflicts.below(A, b"d/x") == [CLASH]
    assert (catalog.conflicts.count(A), catalog.conflicts.count(B), catalog.conflicts.count("dra-0")) == (3, 1, 0)


def test_what_is_shown_anew_takes_the_place_of_the_old(catalog: Catalog) -> None:
    catalog.conflicts.put(KEPT)
    catalog.conflicts.put(KEPT.seen(None, None))

    assert catalog.conflicts.all(A) == [replace(KEPT, local=None, remote=None)]


def test_closing_takes_one_copy_and_a_copy_that_is_gone_all_that_it_was_kept_for(catalog: Catalog) -> None:
    for conflict in (KEPT, replace(KEPT, path=b"d/g"), replace(KEPT, kept_as=b""), CLASH):
        catalog.conflicts.put(conflict)

    catalog.conflicts.delete(A, b"d/f")
    assert [(one.path, one.kept_as) for one in catalog.conflicts.all(A)] == [
        (b"d/f", b"d/f.c"),
        (b"d/g", b"d/f.c"),
        (b"d/x/y", b""),
    ]
    catalog.conflicts.delete_copy(A, b"")
    catalog.conflicts.delete_copy(A, b"d/f.c")
    assert catalog.conflicts.all(A) == [CLASH]


def test_the_conflicts_of_an_association_go_with_it(catalog: Catalog) -> None:
    catalog.conflicts.put(KEPT)
    catalog.associations.delete(A)
    catalog.conflicts.put(KEPT)

    assert catalog.conflicts.all(A) == []


def test_an_objects_version_is_told_by_etag_and_size() -> None:
    seen = RemoteVersion("e", 6, 8, "v")

    assert seen.is_of(Remote(Kind.FILE, "e", 6, 999))
    assert not seen.is_of(Remote(Kind.FILE, "f", 6, 8))
    assert not seen.is_of(Remote(Kind.FILE, "e", 7, 8))
    assert not seen.is_of(None)
