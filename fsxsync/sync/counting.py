"""Reads of released files: was there what they asked for, and how long did they wait?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fsxsync.sync.hydration import Hydration


@contextmanager
def counted(hydration: Hydration, needed: range, length: int) -> Iterator[None]:
    """Count a reader that needs these chunks, ``length`` bytes of them, and how long it waits inside."""
    counts = hydration.counts
    if hydration.has(needed):
        counts.hits += 1
        counts.hit_bytes += length
        yield
        return
    counts.misses += 1
    counts.miss_bytes += length
    began_ns = time.perf_counter_ns()
    try:
        yield
    finally:
        counts.waits.note(time.perf_counter_ns() - began_ns)
