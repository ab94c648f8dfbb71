"""What is asked for ahead of readers, and in which order: decisions, as tables."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.catalog.partials import Partial
from fsxsync.model.identity import Kind, Local
from fsxsync.model.parts import CHUNK_GROWN_MAX, CHUNKS_MAX, GIB, MIB, chunk_size_for
from fsxsync.model.stub import StubMark
from fsxsync.ports import Priority
from fsxsync.sync.partials import ON_DISK, Fate, fate_of
from fsxsync.sync.readahead import (
    FILL_AT_ONCE,
    SLACK,
    WINDOW_MAX,
    Readers,
    Stream,
    Wish,
    after_read,
    ahead_of,
    choose,
    window_max,
)

CHUNK = 8 * MIB
READ = 128 * 1024

# ---------------------------------------------------------------- the window


@pytest.mark.parametrize(
    ("stream", "offset", "missed", "then"),
    [
        # from the front, and the data is not there: that is how most files are read
        (Stream(), 0, 0, Stream(READ, 1, 0)),
        # it is there: no need to be further ahead
        (Stream(), 0, None, Stream(READ, 0, -1)),
        (Stream(5 * CHUNK, 4, 4), 5 * CHUNK, None, Stream(5 * CHUNK + READ, 4, 4)),
        # the reader runs into what is not there: twice as far
        (Stream(CHUNK, 1, 0), CHUNK, 1, Stream(CHUNK + READ, 2, 1)),
        (Stream(2 * CHUNK, 2, 1), 2 * CHUNK, 2, Stream(2 * CHUNK + READ, 4, 2)),
        (Stream(9 * CHUNK, 16, 8), 9 * CHUNK, 9, Stream(9 * CHUNK + READ, 16, 9)),
        # many small reads wait for one chunk: that counts once
        (Stream(CHUNK + READ, 2, 1), CHUNK + READ, 1, Stream(CHUNK + 2 * READ, 2, 1)),
        # reads of the kernel's own read-ahead overtake each other
        (Stream(CHUNK + READ, 2, 1), CHUNK + 2 * READ, 1, Stream(CHUNK + 3 * READ, 2, 1)),
        (Stream(CHUNK + 3 * READ, 2, 1), CHUNK + READ, 1, Stream(CHUNK + 3 * READ, 2, 1)),
        # a jump, either way: no window; where it goes on from there, it is a reader from front to end again
        (Stream(CHUNK, 8, 0), 5 * CHUNK, 5, Stream(5 * CHUNK + READ, 0, -1)),
        (Stream(5 * CHUNK, 8, 5), 0, None, Stream(READ, 0, -1)),
        (Stream(), SLACK + 1, 0, Stream(SLACK + 1 + READ, 0, -1)),
        (Stream(5 * CHUNK + READ, 0, -1), 5 * CHUNK + READ, 5, Stream(5 * CHUNK + 2 * READ, 1, 5)),
    ],
)
def test_the_window_of_a_reader(stream: Stream, offset: int, missed: int | None, then: Stream) -> None:
    assert after_read(stream, offset, READ, missed=missed, chunk_size=CHUNK) == then


def test_the_window_grows_until_the_reader_no_longer_waits() -> None:
    stream = Stream()
    here: set[int] = set()
    waited = []
    for offset in range(0, 40 * CHUNK, READ):
        chunk = offset // CHUNK
        stream = after_read(stream, offset, READ, missed=None if chunk in here else chunk, chunk_size=CHUNK)
        if chunk not in here:
            waited.append(chunk)
        here |= {chunk, *ahead_of(stream, CHUNK, 40)}

    assert waited == [0]
    assert stream.window == 1


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20))
def test_a_random_reader_is_not_read_ahead(jumps: list[int]) -> None:
    stream = Stream()
    for chunk, _ in itertools.pairwise(itertools.accumulate(jumps, lambda one, two: one + two + 1)):
        stream = after_read(stream, chunk * CHUNK, READ, missed=chunk, chunk_size=CHUNK)

        assert ahead_of(stream, CHUNK, 10**6) == range(0)


def test_a_window_has_a_limit_in_chunks_and_in_bytes() -> None:
    assert window_max(64 * 1024) == WINDOW_MAX
    assert window_max(64 * MIB) == 4
    assert window_max(GIB) == 1


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (Stream(0, 2, 0), range(2)),
        (Stream(READ, 2, 0), range(1, 3)),
        (Stream(CHUNK, 2, 0), range(1, 3)),
        (Stream(9 * CHUNK, 4, 8), range(9, 10)),
        (Stream(11 * CHUNK, 4, 8), range(10, 10)),
    ],
)
def test_what_is_wanted_ahead_ends_with_the_file(stream: Stream, wanted: range) -> None:
    assert ahead_of(stream, CHUNK, 10) == wanted


def test_each_open_file_is_followed_by_itself() -> None:
    readers = Readers()
    for chunk in range(3):  # two programs side by side in one file
        readers.note(7, chunk * CHUNK, CHUNK, missed=chunk, chunk_size=CHUNK)
        readers.note(8, (50 + chunk) * CHUNK, CHUNK, missed=50 + chunk, chunk_size=CHUNK)

    assert list(readers.wanted(CHUNK, 100)) == [range(53, 55), range(3, 7)]


# ---------------------------------------------------------------- whose turn


PRELOAD, BACKGROUND = Priority.PRELOAD, Priority.BACKGROUND


@pytest.mark.parametrize(
    ("wishes", "chosen"),
    [
        ([], None),
        ([Wish(BACKGROUND, 0, 1)], 1),
        ([Wish(BACKGROUND, 0, 1), Wish(PRELOAD, 5, 2)], 2),  # a reader is about to need it
        ([Wish(BACKGROUND, 3, 1), Wish(BACKGROUND, 2, 2)], 2),  # the one that has least
        ([Wish(PRELOAD, 3, 1), Wish(PRELOAD, 2, 2)], 2),
        ([Wish(BACKGROUND, FILL_AT_ONCE, 1)], None),  # one file does not take all places
        ([Wish(PRELOAD, FILL_AT_ONCE, 1)], 1),
    ],
)
def test_whose_chunk_is_next(wishes: list[Wish], chosen: int | None) -> None:
    wish = choose(wishes)

    assert (wish.ino if wish else None) == chosen


# ---------------------------------------------------------------- the size of chunks


@pytest.mark.parametrize(
    ("size", "configured", "chunk_size"),
    [
        (0, 8 * MIB, 2 * MIB),
        (1, 8 * MIB, 2 * MIB),
        (16 * MIB, 8 * MIB, 2 * MIB),
        (32 * MIB, 8 * MIB, 2 * MIB),
        (32 * MIB + 1, 8 * MIB, 8 * MIB),
        (32 * GIB, 8 * MIB, 8 * MIB),
        (32 * GIB + 1, 8 * MIB, 16 * MIB),
        (128 * GIB + 1, 8 * MIB, 64 * MIB),
        (2048 * GIB, 8 * MIB, 64 * MIB),
        (10_000 * GIB, 256 * MIB, 256 * MIB),
        (1, 64 * 1024, 64 * 1024),
        (1, 100 * 1024, 64 * 1024),
        (10**9, 65 * 1024, 17 * 4096 * 4),
    ],
)
def test_chunks_are_as_large_as_the_file_wants_them(size: int, configured: int, chunk_size: int) -> None:
    assert chunk_size_for(size, configured) == chunk_size


@given(st.integers(0, 50 * 1024 * GIB), st.integers(64 * 1024, GIB))
def test_chunks_end_on_pages_and_are_not_too_many(size: int, configured: int) -> None:
    chunk_size = chunk_size_for(size, configured)

    assert chunk_size % 4096 == 0
    assert size <= CHUNKS_MAX * chunk_size or chunk_size >= CHUNK_GROWN_MAX


# ---------------------------------------------------------------- what is remembered


MARK = StubMark(etag="e", size=10 * CHUNK, key="k", version_id="v")
STUB = Local(Kind.FILE, 1, 10 * CHUNK, 2, 3, 0o644, 0, 0, stub=MARK)


@pytest.mark.parametrize(
    ("changes", "local", "boot_id", "fate"),
    [
        ({}, STUB, "now", Fate.KEEP),
        ({}, STUB, "later", Fate.DROP),
        ({"boot_id": ON_DISK}, STUB, "later", Fate.KEEP),
        ({"mtime_ns": 5}, STUB, "now", Fate.KEEP),  # a killed daemon left it moved
        ({"etag": "old"}, STUB, "now", Fate.DROP),
        ({"version_id": None}, STUB, "now", Fate.DROP),
        ({"size": 10 * CHUNK - 1}, STUB, "now", Fate.DROP),
        ({"chunk_size": CHUNK // 4}, STUB, "now", Fate.DROP),
        ({"ino": 2}, STUB, "now", Fate.SWEEP),
        ({}, None, "now", Fate.SWEEP),
        ({}, STUB._replace(stub=None), "now", Fate.SWEEP),
    ],
)
def test_what_a_new_daemon_makes_of_a_row(
    changes: dict[str, Any], local: Local | None, boot_id: str, fate: Fate
) -> None:
    row = Partial(1, b"f", "e", "v", 10 * CHUNK, CHUNK, 2, 2, "now", {0: 7})

    assert fate_of(replace(row, **changes), local, CHUNK, boot_id) is fate
