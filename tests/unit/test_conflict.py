"""Names of conflict copies: readable, never too long, never growing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.model.conflict import conflict_name, is_conflict_name

NOW_S = 1795456349  # 2026-11-23T17:52:29Z
SUFFIX = b".conflict-20261123T175229Z-node1"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"report.txt", b"report" + SUFFIX + b".txt"),
        (b"Makefile", b"Makefile" + SUFFIX),
        (b".bashrc", b".bashrc" + SUFFIX),
        (b".config.toml", b".config" + SUFFIX + b".toml"),
        (b"a.tar.gz", b"a.tar" + SUFFIX + b".gz"),
        (b"dot.", b"dot." + SUFFIX),
        (
            b"Dr. No went to a rather long walk in the park",
            b"Dr. No went to a rather long walk in the park" + SUFFIX,
        ),
        (b"\xff.bin", b"\xff" + SUFFIX + b".bin"),
    ],
)
def test_the_suffix_stands_before_the_extension(name: bytes, wanted: bytes) -> None:
    assert conflict_name(name, NOW_S, "node1.cluster.local", 0) == wanted


def test_attempts_differ() -> None:
    names = {conflict_name(b"f" * 255, NOW_S, "h" * 300, attempt) for attempt in range(1000)}

    assert len(names) == 1000


def test_a_conflict_copys_conflict_copy_has_one_suffix() -> None:
    name = b"report.txt"
    for attempt in range(5):
        name = conflict_name(name, NOW_S + attempt, "other-host", attempt)

    assert name == b"report.conflict-20261123T175233Z-other-host-4.txt"


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1).filter(
    lambda name: len(name.encode()) <= 255
)


@given(NAMES, st.integers(0, 2**33), st.text(max_size=80), st.integers(0, 999))
def test_every_name_fits_and_stays_utf8(name: str, now_s: int, host: str, attempt: int) -> None:
    copy = conflict_name(name.encode(), now_s, host, attempt)

    assert len(copy) <= 255
    assert copy.decode()
    assert b"/" not in copy
    assert is_conflict_name(copy)


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_a_name_does_not_grow_on_itself(name: bytes) -> None:
    first = conflict_name(name, NOW_S, "node1", 0)

    assert conflict_name(first, NOW_S, "node1", 0) == first


@pytest.mark.parametrize(
    "name", [b"report.txt", b"f.conflict-today-node1", b"f.conflict-20261123T175229Z-", b"conflict"]
)
def test_ordinary_names_are_no_conflict_copies(name: bytes) -> None:
    assert not is_conflict_name(name)
