"""Parts and chunks: they cover the bytes once, within S3's limits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.errors import NotExportable
from fsxsync.model.parts import (
    GIB,
    MIB,
    OBJECT_MAX,
    PART_MAX,
    PART_MIN,
    PARTS_MAX,
    Part,
    candidate_part_sizes,
    is_multipart_etag,
    plan_chunks,
    plan_parts,
)


def covers(parts: list[Part], size: int) -> bool:
    return (
        parts[0].offset == 0
        and all(one.offset + one.length == two.offset for one, two in pairwise(parts))
        and parts[-1].offset + parts[-1].length == size
        and [part.number for part in parts] == list(range(1, len(parts) + 1))
    )


SIZES = st.one_of(st.integers(1, GIB), st.integers(GIB, OBJECT_MAX), st.sampled_from([80000 * MIB, 80000 * MIB + 1]))


@given(SIZES, st.integers(1, 6 * GIB))
def test_parts_cover_the_file_within_the_limits_of_s3(size: int, part_size: int) -> None:
    parts = plan_parts(size, part_size)

    assert covers(parts, size)
    assert len(parts) <= PARTS_MAX
    assert all(PART_MIN <= part.length <= PART_MAX for part in parts[:-1])
    assert parts[-1].length <= PART_MAX


def test_the_part_size_is_kept_while_it_suffices() -> None:
    assert plan_parts(20 * MIB, 8 * MIB) == [
        Part(1, 0, 8 * MIB),
        Part(2, 8 * MIB, 8 * MIB),
        Part(3, 16 * MIB, 4 * MIB),
    ]
    assert plan_parts(80_000 * MIB, 8 * MIB)[0].length == 8 * MIB
    assert plan_parts(80_000 * MIB + 1, 8 * MIB)[0].length == 9 * MIB


def test_an_empty_file_is_one_empty_part() -> None:
    assert plan_parts(0, 8 * MIB) == [Part(1, 0, 0)]


def test_more_than_s3_takes_is_refused() -> None:
    assert len(plan_parts(OBJECT_MAX, 8 * MIB)) == PARTS_MAX
    with pytest.raises(NotExportable) as refused:
        plan_parts(OBJECT_MAX + 1, 8 * MIB)

    assert refused.value.code == "FileSizeTooLarge"


@given(st.integers(1, 100 * MIB), st.integers(100_000, 16 * MIB))
def test_chunks_cover_the_file(size: int, chunk_size: int) -> None:
    chunks = plan_chunks(size, chunk_size)

    assert covers(chunks, size)
    assert all(chunk.length == chunk_size for chunk in chunks[:-1])


def test_an_empty_file_has_no_chunks() -> None:
    assert plan_chunks(0, 8 * MIB) == []


@pytest.mark.parametrize(
    ("etag", "wanted"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e-1", True),
        ("d41d8cd98f00b204e9800998ecf8427e-10000", True),
        ("d41d8cd98f00b204e9800998ecf8427e", False),
        ("d41d8cd98f00b204e9800998ecf8427e-0", False),
        ("d41d8cd98f00b204e9800998ecf8427e-", False),
        ("x-1", False),
        ("", False),
    ],
)
def test_multipart_etags_are_told_by_their_count(etag: str, wanted: bool) -> None:
    assert is_multipart_etag(etag) is wanted


@given(st.integers(0, OBJECT_MAX), st.integers(-1, 12_000))
def test_candidates_give_the_wanted_count_and_are_few(size: int, count: int) -> None:
    candidates = candidate_part_sizes(size, count)

    assert len(candidates) <= 8
    assert len(set(candidates)) == len(candidates)
    assert all(-(-size // part_size) == count for part_size in candidates)


@given(SIZES.filter(lambda size: size > 16 * MIB), st.sampled_from([8 * MIB, 16 * MIB]))
def test_our_own_plan_is_always_a_candidate(size: int, part_size: int) -> None:
    parts = plan_parts(size, part_size)

    assert parts[0].length in candidate_part_sizes(size, len(parts))


def test_one_part_has_one_layout() -> None:
    assert candidate_part_sizes(3, 1) == [3]
