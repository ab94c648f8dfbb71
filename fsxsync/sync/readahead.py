"""Who reads a file from front to end, how far ahead of them chunks are asked for, and whose turn it is: decisions only.

A reader that runs into a chunk that is not there yet is ahead of us: its window doubles, until it no longer has to
wait or the window holds what may be under way at once. A reader that jumps has no window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fsxsync.ports import Priority

WINDOW_MAX = 16
"""Chunks ahead of one reader …"""
WINDOW_BYTES_MAX = 256 << 20
"""… and bytes: what 25 Gbit/s carry in 85 ms, and a store takes no longer to answer."""
SLACK = 1 << 20
"""The kernel sends the reads of its own read-ahead side by side, and a few of them overtake others."""
FILL_AT_ONCE = 8
"""Chunks of one file that nobody waits for, under way at a time; with those of read-ahead they may be more."""

READERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Stream:
    """One open file's reading. ``position`` is the end of what it has read in one go, ``window`` how many chunks past
    it are wanted ahead, ``grown_at`` the chunk for which the window grew last."""

    position: int = 0
    window: int = 0
    grown_at: int = -1


def window_max(chunk_size: int) -> int:
    """Chunks that a window may have."""
    return max(1, min(WINDOW_MAX, WINDOW_BYTES_MAX // chunk_size))


def after_read(stream: Stream, offset: int, length: int, *, missed: int | None, chunk_size: int) -> Stream:
    """The stream after a read; ``missed`` is the first chunk of it that is not there yet."""
    end = offset + length
    if not -SLACK <= offset - stream.position <= SLACK:
        return Stream(position=end)
    position = max(stream.position, end)
    if missed is None or missed <= stream.grown_at:
        return replace(stream, position=position)
    window = min(max(1, stream.window * 2), window_max(chunk_size))
    return Stream(position, window, missed)


def ahead_of(stream: Stream, chunk_size: int, count: int) -> range:
    """Numbers of the chunks, of ``count``, that are wanted ahead of a reader; the one it is in counts as its own."""
    first = -(-stream.position // chunk_size)
    return range(min(first, count), min(first + stream.window, count))


class Readers:
    """The open files of one inode, as far as their reading tells what comes next."""

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}

    def note(self, reader: int, offset: int, length: int, *, missed: int | None, chunk_size: int) -> None:
        """One read of ``reader``, its descriptor. Nobody tells when that is closed: of those that were not heard of
        for the longest time, too many are forgotten."""
        stream = self._streams.pop(reader, Stream())
        self._streams[reader] = after_read(stream, offset, length, missed=missed, chunk_size=chunk_size)
        while len(self._streams) > READERS_MAX:
            del self._streams[next(iter(self._streams))]

    def wanted(self, chunk_size: int, count: int) -> Iterator[range]:
        """Chunks wanted ahead, of the reader that came last first."""
        for stream in reversed(self._streams.values()):
            if stream.window:
                yield ahead_of(stream, chunk_size, count)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a file would like to have next that nobody waits for. ``under_way`` counts such chunks of it already."""

    priority: Priority
    under_way: int
    ino: int


def choose(wishes: Iterable[Wish]) -> Wish | None:
    """Whose chunk takes a place that is free: what a reader will need soon before the rest of a file, and the file that
    has the least before others."""
    wanted = [wish for wish in wishes if wish.priority < Priority.BACKGROUND or wish.under_way < FILL_AT_ONCE]
    return min(wanted, key=lambda wish: (wish.priority, wish.under_way, wish.ino), default=None)
