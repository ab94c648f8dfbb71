"""What the catalog keeps of stubs that were read in part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsxsync.catalog import partials
from fsxsync.catalog.database import Catalog
from fsxsync.catalog.partials import Partial

PARTIAL = Partial(2**64 - 1, b"d/\xff", "etag", None, 10_000, 4096, 10**18 + 1, 10**18 + 2, "boot", {0: 2**64 - 1})


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.integers(0, 5000), st.integers(0, 2**64 - 1)))
def test_a_row_is_read_as_it_was_written(catalog: Catalog, crcs: dict[int, int]) -> None:
    written = replace(PARTIAL, size=6000 * 4096, crcs=crcs)

    catalog.partials.put_many([written])

    assert catalog.partials.get(written.ino) == written
    assert catalog.partials.resident_bytes(written.ino) == 4096 * len(crcs)


@pytest.mark.parametrize(
    ("here", "resident_bytes"), [([], 0), ([0], 4096), ([2], 1808), ([0, 2], 5904), ([0, 1, 2], 10_000)]
)
def test_the_last_chunk_may_be_shorter(here: list[int], resident_bytes: int) -> None:
    assert replace(PARTIAL, crcs=dict.fromkeys(here, 5)).resident_bytes == resident_bytes


def test_rows_are_replaced_listed_and_deleted(catalog: Catalog) -> None:
    other = replace(PARTIAL, ino=5, version_id="v")
    catalog.partials.put_many([PARTIAL, other])
    catalog.partials.put_many([replace(other, crcs={})])
    assert set(map(repr, catalog.partials.all())) == {repr(PARTIAL), repr(replace(other, crcs={}))}

    catalog.partials.delete(5)

    assert catalog.partials.get(5) is None
    assert catalog.partials.resident_bytes(5) is None
    assert catalog.partials.all() == [PARTIAL]


def test_a_row_that_contradicts_itself_claims_nothing(catalog: Catalog) -> None:
    catalog.partials.put_many([PARTIAL])
    catalog._connection.run("UPDATE partials SET here = x'ff'")

    found = catalog.partials.get(PARTIAL.ino)

    assert found is not None
    assert found.crcs == {}


@pytest.mark.parametrize("statement", [partials._GET, partials._RESIDENT, partials._DELETE])
def test_a_row_is_found_by_its_key(catalog: Catalog, statement: str) -> None:
    plan = [row[3] for row in catalog._connection.rows(f"EXPLAIN QUERY PLAN {statement}", (5,))]

    assert plan == ["SEARCH partials USING INTEGER PRIMARY KEY (rowid=?)"]
