"""What is counted while the daemon works. Counting costs an addition; whoever asks (`telemetry.metrics`) pays more."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

BUCKETS = 25
"""Of a histogram: bucket k counts what took less than 1024 ns << k, the last one all the rest (over 8.6 s). The
channel counts in the same ones (c_ext/channel_counts.h)."""
RATE_S = 10
"""Seconds over which a rate is taken: a chunk of 8 MiB is noted when it has come, all at once."""
UNANSWERED = "none"
"""The status of a request that nobody answered."""


class Histogram:
    """Durations, in buckets of powers of two."""

    __slots__ = ("buckets", "total_ns")

    def __init__(self, buckets: list[int] | None = None, total_ns: int = 0) -> None:
        self.buckets = buckets or [0] * BUCKETS
        self.total_ns = total_ns

    def note(self, duration_ns: int) -> None:
        self.buckets[min((duration_ns >> 10).bit_length(), BUCKETS - 1)] += 1
        self.total_ns += duration_ns

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def upto(self) -> list[tuple[float, int]]:
        """``(seconds, how many took at most that)``, every second bucket, infinity last: as many as are worth a time
        series each."""
        told, seen = [], 0
        for number, count in enumerate(self.buckets[:-1]):
            seen += count
            if number % 2 == 0:
                told.append(((1024 << number) / 1e9, seen))
        return [*told, (float("inf"), self.count)]


class Rate:
    """Bytes a second, of the last `RATE_S` seconds."""

    __slots__ = ("_last_s", "_seconds")

    def __init__(self) -> None:
        self._seconds = [0] * RATE_S
        self._last_s = 0

    def note(self, count: int, now_s: int) -> None:
        """``now_s``: of a clock that never goes back."""
        self._forget(now_s)
        self._seconds[now_s % RATE_S] += count

    def per_s(self, now_s: int) -> float:
        self._forget(now_s)
        return sum(self._seconds) / RATE_S

    def _forget(self, now_s: int) -> None:
        for second in range(max(self._last_s, now_s - RATE_S) + 1, now_s + 1):
            self._seconds[second % RATE_S] = 0
        self._last_s = max(self._last_s, now_s)


class Requests:
    """Requests to a repository by operation and status, and the bytes they moved. Any thread may note one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.bytes_down = 0
        self.bytes_up = 0
        self.down = Rate()
        self.up = Rate()

    def note(self, operation: str, status: str, now_s: int, *, down: int = 0, up: int = 0) -> None:
        """``operation`` in S3's own words, ``status`` of HTTP or UNANSWERED; ``down``, ``up``: bytes of bodies."""
        with self._lock:
            self._counts[operation, status] += 1
            if down:
                self.bytes_down += down
                self.down.note(down, now_s)
            if up:
                self.bytes_up += up
                self.up.note(up, now_s)

    def counts(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)


@dataclass(slots=True)
class Measures:
    """Of one association, since the daemon started. Bytes are those of whole files or objects, whether or not all of
    them had to move; `Requests` counts those that did."""

    imported: int = 0
    imported_bytes: int = 0
    exported: int = 0
    exported_bytes: int = 0
    deleted_local: int = 0
    deleted_remote: int = 0
    renamed: int = 0
    """Objects that were copied on the server because their files were renamed."""
    released: int = 0
    released_bytes: int = 0
    restored: int = 0
    restored_bytes: int = 0
    conflicts: int = 0
    echoes_dropped: int = 0
    hits: int = 0
    hit_bytes: int = 0
    """Reads of released files whose bytes were here already."""
    misses: int = 0
    miss_bytes: int = 0
    """Those that had to wait for the repository."""
    waits: Histogram = field(default_factory=Histogram)
    """How long each of these waited."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By flow and code; each attempt is one."""
    requests: Requests = field(default_factory=Requests)
