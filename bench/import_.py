"""Bulk import of a listing: stubs and rows until the association is AVAILABLE, then the metadata that follows."""

from __future__ import annotations

from bench.harness import Report, cpu_s, daemon_pid, memory_mib, running, stopwatch
from bench.server import StaticServer

OBJECTS_PER_S = 5000


def run(report: Report) -> None:
    """Import once, with the daemon's defaults."""
    case = f"listing of {report.objects} objects"
    with StaticServer(report.objects) as server, running() as fsx:
        pid = daemon_pid(fsx)
        before, elapsed = cpu_s(pid), stopwatch()
        fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
        listed_s = elapsed()
        report.add(case, "stubs and rows", "objects/s", report.objects / listed_s, goal=OBJECTS_PER_S)
        report.add(case, "daemon's processor", "s", cpu_s(pid) - before)
        fsx.settle(timeout=3600)
        report.add(case, "all metadata there", "s", elapsed())
        report.add(case, "metadata follows", "objects/s", report.objects / (elapsed() - listed_s))
        report.add(case, "peak Rss", "MiB", memory_mib(pid)["Peak"])
