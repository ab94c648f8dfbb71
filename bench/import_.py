"""Bulk import of a listing: stubs and rows until the association is AVAILABLE, then the metadata that follows."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Report, cpu_s, daemon_pid, memory_mib, running, stopwatch, timed
from bench.server import StaticServer

OBJECTS_PER_S = 5000
ASK_EVERY_S = 0.02


def run(report: Report) -> None:
    """Import once, with the daemon's defaults; somebody uses the mount meanwhile."""
    case = f"listing of {report.objects} objects"
    with StaticServer(report.objects) as server, running() as fsx:
        pid = daemon_pid(fsx)
        before, elapsed = cpu_s(pid), stopwatch()
        with _lookups(fsx.directory) as during_import:
            fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
            listed_s = elapsed()
        report.add(case, "stubs and rows", "objects/s", report.objects / listed_s, goal=OBJECTS_PER_S)
        report.add(case, "daemon's processor", "us/object", (cpu_s(pid) - before) / report.objects * 1e6)
        _add_lookups(report, f"{case}, meanwhile", during_import)
        with _lookups(fsx.directory) as during_metadata:
            fsx.settle(timeout=3600)
        report.add(case, "all metadata there", "s", elapsed())
        report.add(case, "metadata follows", "objects/s", report.objects / (elapsed() - listed_s))
        _add_lookups(report, f"{case}, metadata, meanwhile", during_metadata)
        report.add(case, "highest Rss", "MiB", memory_mib(pid)["Peak"])


@contextmanager
def _lookups(mount: Path) -> Iterator[list[float]]:
    """Ask the mount for a name that is not there, again and again: the kernel keeps no answer, the daemon gives it."""
    times: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(ASK_EVERY_S):
            times.append(timed((mount / "nothing").exists))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def _add_lookups(report: Report, case: str, times: list[float]) -> None:
    report.add(case, "lookup, median", "ms", statistics.median(times) * 1000)
    report.add(case, "lookup, 99 of 100", "ms", statistics.quantiles(times, n=100)[98] * 1000)
    report.add(case, "lookup, worst", "ms", max(times) * 1000)
