"""Associations, uploads, facts and problems: what is put comes back, what is deleted leaves nothing."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import Catalog
from fsxsync.catalog.documents import decode, encode
from fsxsync.catalog.problems import Problem
from fsxsync.catalog.uploads import Part, Upload
from fsxsync.errors import CatalogCorrupt
from fsxsync.model.association import Access, Association, Defaults, Event, Lifecycle, OnConflict, Policy
from fsxsync.model.identity import Base, Kind

A, B = "dra-00000000000000001", "dra-00000000000000002"

PART = Part(2, 8, "etag", 2**64 - 1)
PLAIN = Association(id=A, directory=b"data", bucket="bucket", prefix="prefix/")
ASSOCIATIONS = st.builds(
    Association,
    id=st.just(A),
    directory=st.binary(),
    policy=st.builds(Policy, st.frozensets(st.sampled_from(Event)), st.frozensets(st.sampled_from(Event))),
    access=st.builds(Access),
    defaults=st.builds(Defaults, st.none() | st.integers(0, 2**32), st.none() | st.integers(0, 2**32)),
    poll_s=st.floats(0, 1e6),
    created_s=st.floats(0, 1e12),
    lifecycle=st.sampled_from(Lifecycle),
    tags=st.lists(st.tuples(st.text(), st.text())).map(tuple),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(file: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(file)
    yield catalog
    catalog.close()


def test_every_field_of_an_association_comes_back() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog.open(Path(folder) / "catalog.db")

        @settings(deadline=None, max_examples=100)
        @given(ASSOCIATIONS)
        def round_trip(association: Association) -> None:
            catalog.associations.put(association)

            assert catalog.associations.get(A) == association
            assert catalog.associations.all() == [association]

        round_trip()
        catalog.close()


@settings(deadline=None)
@given(st.from_type(Association).filter(lambda made: not math.isnan(made.poll_s + made.created_s)))
def test_every_field_that_the_type_has_survives_json(association: Association) -> None:
    assert decode(Association, json.loads(json.dumps(encode(association)))) == association


def test_what_a_later_version_added_is_left_out_and_what_it_lacks_has_its_default() -> None:
    document = encode(PLAIN)
    document["from_the_future"] = {"a": 1}
    document["policy"]["also"] = [1]
    del document["tags"], document["policy"]["on_conflict"]

    assert decode(Association, document) == PLAIN


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"id": 1}', '{"id": "x"}', '{"policy": {"imports": ["NONSENSE"]}}', "null"]
)
def test_a_damaged_document_is_a_damaged_catalog(catalog: Catalog, damage: str) -> None:
    catalog.associations.put(PLAIN)
    catalog._connection.run("UPDATE associations SET document = ?", (damage,))

    with pytest.raises(CatalogCorrupt, match="association"):
        catalog.associations.all()


def test_they_come_in_the_order_in_which_they_were_made(catalog: Catalog) -> None:
    first, second = replace(PLAIN, id=B), PLAIN
    catalog.associations.put(first)
    catalog.associations.put(second)
    changed = replace(first, lifecycle=Lifecycle.AVAILABLE, policy=Policy(on_conflict=OnConflict.NEWEST))
    catalog.associations.put(changed)

    assert catalog.associations.all() == [changed, second]
    assert catalog.associations.get("dra-nobody") is None


def fill(catalog: Catalog, association: str) -> None:
    catalog.files.put(Base(association, b"a", Kind.FILE, 1, 2, 3, 4, 0o644, 0, 0, "e", 2, 5))
    catalog.changelog.add([Hint(association, b"a", local=True, remote=True, ino=1)], now_ns=1, delay_ns=0, cap_ns=0)
    number = catalog.uploads.intended(association, "k", 1)
    catalog.uploads.started(number, f"upload-{association}", part_size=8, headers=b"h")
    catalog.uploads.sent(number, PART)
    catalog.problems.put(Problem(association, b"a", "conflict", "Conflict", "m", 1))


def test_delete_takes_everything_of_one_and_nothing_of_others(catalog: Catalog) -> None:
    for association in (A, B):
        catalog.associations.put(replace(PLAIN, id=association))
        fill(catalog, association)

    catalog.associations.delete(A)

    assert [association.id for association in catalog.associations.all()] == [B]
    assert [row.association for row in catalog.files.by_inode(1)] == [B]
    assert [entry.association for entry in catalog.changelog.pending(None, b"", 9)] == [B]
    assert [upload.association for upload in catalog.uploads.all()] == [B]
    assert [catalog.uploads.parts(number) for number in (1, 2)] == [[], [PART]]
    assert [problem.association for problem in catalog.problems.list()] == [B]
    assert (catalog.files.count(A), catalog.changelog.count(A)) == (0, (0, 0, 0))


def test_what_a_late_task_writes_for_a_deleted_association_is_dropped(catalog: Catalog) -> None:
    catalog.associations.put(PLAIN)
    fill(catalog, A)
    (entry,) = catalog.changelog.claim(9, 9, [A])
    catalog.associations.delete(A)

    fill(catalog, A)
    catalog.changelog.retry(entry, error="e", code="c", at_ns=1)

    assert not catalog.changelog.done(entry)
    assert catalog.files.by_inode(1) == []
    assert catalog.changelog.by_inode(1) == []
    assert catalog.problems.count() == 0


def test_a_delete_that_is_taken_back_leaves_all_as_it_was(catalog: Catalog) -> None:
    catalog.associations.put(PLAIN)

    with pytest.raises(KeyError), catalog.transaction():  # noqa: PT012  the block is what is tested
        catalog.associations.delete(A)
        raise KeyError

    fill(catalog, A)
    assert catalog.associations.all() == [PLAIN]
    assert catalog.files.count(A) == 1


def test_the_rows_of_a_deleted_association_do_not_come_back_under_a_new_one(catalog: Catalog) -> None:
    catalog.associations.put(PLAIN)
    fill(catalog, A)
    catalog.associations.delete(A)

    catalog.associations.put(replace(PLAIN, id=B))

    assert list(catalog.files.iterate(B)) == []


def test_uploads_are_known_until_they_end(catalog: Catalog) -> None:
    first = catalog.uploads.intended(A, "prefix/a", 1)
    second = catalog.uploads.intended(A, "prefix/b", 2)
    third = catalog.uploads.intended(B, "prefix/a", 3)
    catalog.uploads.started(second, "id", part_size=8, headers=b"h")

    catalog.uploads.finished(first)

    kept = [Upload(second, A, "prefix/b", "id", 2, 8, b"h"), Upload(third, B, "prefix/a", None, 3)]
    assert catalog.uploads.all() == kept
    assert catalog.uploads.all(A) == kept[:1]
    assert catalog.uploads.to_key(B, "prefix/a") == kept[1:]
    assert catalog.uploads.to_key(A, "prefix/a") == []


def test_two_stores_may_give_the_same_id(catalog: Catalog) -> None:
    for association in (A, B):
        number = catalog.uploads.intended(association, "k", 1)
        catalog.uploads.started(number, "1", part_size=8, headers=b"h")

    assert [(upload.association, upload.upload_id) for upload in catalog.uploads.all()] == [(A, "1"), (B, "1")]


def test_parts_are_known_as_they_were_sent_last(catalog: Catalog) -> None:
    number, other = (catalog.uploads.intended(A, key, 1) for key in ("a", "b"))
    for part in (PART, Part(1, 8, "first", 0), replace(PART, etag="again", crc64nvme=2**63)):
        catalog.uploads.sent(number, part)
    catalog.uploads.sent(other, PART)

    assert catalog.uploads.parts(number) == [Part(1, 8, "first", 0), Part(2, 8, "again", 2**63)]
    assert catalog.uploads.parts(other) == [PART]


def test_a_part_that_comes_late_meets_no_other_upload(catalog: Catalog) -> None:
    ended = catalog.uploads.intended(A, "k", 1)
    catalog.uploads.sent(ended, PART)
    catalog.uploads.finished(ended)
    number = catalog.uploads.intended(A, "k", 2)

    catalog.uploads.sent(ended, PART)
    catalog.uploads.started(ended, "id", part_size=8, headers=b"h")

    assert catalog.uploads.all() == [Upload(number, A, "k", None, 2)]
    assert (catalog.uploads.parts(ended), catalog.uploads.parts(number)) == ([], [])


@pytest.mark.parametrize("value", [None, True, 1.5, "ä", ["a", {"b": None}]])
def test_facts_are_json_values(catalog: Catalog, value: object) -> None:
    catalog.facts.set("name", 0)
    catalog.facts.set("name", value)

    assert catalog.facts.get("name") == value
    assert catalog.facts.get("other") is None


def test_problems_are_one_a_path_and_kind(catalog: Catalog) -> None:
    conflict = Problem(A, b"a", "conflict", "Conflict", "first", 1, b"a.conflict")
    for problem in (
        conflict,
        replace(conflict, message="again"),
        replace(conflict, kind="lost"),
        replace(conflict, association=B),
    ):
        catalog.problems.put(problem)

    assert catalog.problems.list(A, "conflict") == [replace(conflict, message="again")]
    assert [problem.kind for problem in catalog.problems.get(A, b"a")] == ["conflict", "lost"]
    assert [problem.association for problem in catalog.problems.list(None, "conflict")] == [A, B]
    assert (catalog.problems.count(A, "conflict"), catalog.problems.count(A), catalog.problems.count()) == (
        1,
        2,
        3,
    )

    catalog.problems.clear(A, b"a", ["conflict"])
    assert [problem.kind for problem in catalog.problems.list(A)] == ["lost"]
    catalog.problems.clear(A, b"a")
    assert catalog.problems.list(A) == []


def test_reported_paths_of_all_and_below_a_directory(catalog: Catalog) -> None:
    for path, kind in (
        (b"a", "lost"),
        (b"d", "lost"),
        (b"d/a", "held"),
        (b"d/b", "refused"),
        (b"d/b", "lost"),
        (b"d-", "damaged"),
    ):
        catalog.problems.put(Problem(A, path, kind, "C", "m", 1))

    assert catalog.problems.under(A, b"", b"", 10) == [b"a", b"d", b"d-", b"d/b"]  # what is held has its own rounds
    assert catalog.problems.under(A, b"", b"a", 2) == [b"d", b"d-"]
    assert catalog.problems.under(A, b"d", b"", 10) == [b"d/a", b"d/b"]
    assert catalog.problems.under(A, b"d", b"d/a", 10) == [b"d/b"]
    assert catalog.problems.under(B, b"", b"", 10) == []
    catalog.problems.clear(A, b"d/b", but=("lost",))
    assert [problem.kind for problem in catalog.problems.get(A, b"d/b")] == ["lost"]
