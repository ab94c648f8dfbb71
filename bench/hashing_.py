"""How fast the C core hashes on one core: from memory, and in one pass over a file in memory (tmpfs)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

from bench.harness import Report
from fsxsync import _core

SIZE = 512 << 20
PIECE = 256 << 10
"""What the transfer engine has in its hands at a time: it comes from the socket and lies in the cache."""
PART = 8 << 20
GOAL_GB = 5.0


def run(report: Report) -> None:
    """One thread, its own processor seconds, the best of so many rounds: others on the machine only slow it down."""
    data = os.urandom(1 << 20) * (SIZE >> 20)
    piece = memoryview(data)[:PIECE]
    times = SIZE // PIECE

    def add(case: str, what: str, act: Callable[[], object]) -> None:
        report.add(case, what, "GB/s", SIZE / 1e9 / _best_s(act, report.rounds), goal=GOAL_GB)

    add("512 MiB of memory", "XXH3-128", lambda: _core.xxh3_128(data))
    add("512 MiB of memory", "CRC64NVME", lambda: _core.crc64nvme(data))
    add("256 KiB in the cache", "XXH3-128", lambda: [_core.xxh3_128(piece) for _ in range(times)])
    add("256 KiB in the cache", "CRC64NVME", lambda: [_core.crc64nvme(piece) for _ in range(times)])
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        fd = file.fileno()
        buffer = bytearray(1 << 20)
        bare_s = _best_s(lambda: _read_all(fd, buffer), report.rounds)
        for what, act in {
            "both in one pass": lambda: _core.hash_range(fd, 0, SIZE),
            "both, of each part as well": lambda: _core.hash_parts(fd, 0, SIZE, PART),
        }.items():
            ours = SIZE / 1e9 / _best_s(act, report.rounds)
            report.add("512 MiB file on tmpfs", what, "GB/s", ours, goal=GOAL_GB, pread=SIZE / 1e9 / bare_s)


def _best_s(act: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.thread_time()
        act()
        taken.append(time.thread_time() - began)
    return min(taken)


def _read_all(fd: int, buffer: bytearray) -> None:
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        offset += count
