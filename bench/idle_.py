"""What a daemon costs that has nothing to do: many files, an event queue, a listing poll now and then."""

from __future__ import annotations

import time

from support.instance import Instance, bucket_with_events
from support.moto_server import MotoServer

from bench.harness import Report, cpu_s, daemon_pid, running, stopwatch
from bench.server import StaticServer

GOAL_PERCENT = 1.0


def run(report: Report) -> None:
    """A large association polled as by default, and one with an SQS queue; then the large one without polls."""
    with MotoServer() as moto, StaticServer(report.objects) as server, running() as fsx:
        url = bucket_with_events(moto, "bench-idle", "bench-idle")
        fsx.associate(moto, "s3://bench-idle/", "/events", "--events", f"sqs:{url}")
        fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
        fsx.settle(timeout=3600)
        _watch(report, fsx, f"{report.objects} files, SQS", report.seconds)
        fsx.ok("association", "update", "/data", "--poll", "60", timeout=3600)
        fsx.settle(timeout=3600)
        # A poll of a large listing comes less often than every 60 s: watch long enough for its share of the time.
        _watch(report, fsx, f"{report.objects} files, SQS and a poll", 5 * report.seconds)


def _watch(report: Report, fsx: Instance, case: str, seconds: float) -> None:
    pid = daemon_pid(fsx)
    before, elapsed = cpu_s(pid), stopwatch()
    time.sleep(seconds)
    report.add(
        case, f"processor in {seconds:g} s", "% of core", 100 * (cpu_s(pid) - before) / elapsed(), goal=GOAL_PERCENT
    )
