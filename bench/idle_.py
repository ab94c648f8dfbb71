"""What a daemon costs that has nothing to do: many files, an event queue, a listing poll now and then."""

from __future__ import annotations

import time

from support.instance import Instance, bucket_with_events
from support.moto_server import MotoServer

from bench.harness import Report, cpu_s, daemon_pid, running, stopwatch
from bench.server import StaticServer
from fsxsync.sync.sources import POLL_COST_SHARE

GOAL_PERCENT = 1.0


def run(report: Report) -> None:
    """A large association that is polled, and one with an SQS queue.

    A poll of many objects comes less often than every minute, so the minute watched may hold none: what one costs is
    measured apart, and what all of them may take follows from the share of the time that the daemon gives them.
    """
    case = f"{report.objects} files, SQS and a poll"
    with MotoServer() as moto, StaticServer(report.objects) as server, running() as fsx:
        url = bucket_with_events(moto, "bench-idle", "bench-idle")
        fsx.associate(moto, "s3://bench-idle/", "/events", "--events", f"sqs:{url}")
        fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "60", timeout=3600)
        fsx.settle(timeout=3600)
        pid = daemon_pid(fsx)
        before, elapsed = cpu_s(pid), stopwatch()
        fsx.settle(timeout=3600)  # which reads the listing once more
        poll_cpu_s, poll_s = cpu_s(pid) - before, elapsed()
        report.add(case, "processor of one poll", "s", poll_cpu_s)
        share = 100 * poll_cpu_s / max(60.0, poll_s * POLL_COST_SHARE)
        report.add(case, "processor of all polls", "% of core", share, goal=GOAL_PERCENT)
        report.add(
            case, f"processor in {report.seconds:g} s", "% of core", _watch(fsx, report.seconds), goal=GOAL_PERCENT
        )


def _watch(fsx: Instance, seconds: float) -> float:
    """Per cent of a core."""
    pid = daemon_pid(fsx)
    before, elapsed = cpu_s(pid), stopwatch()
    time.sleep(seconds)
    return 100 * (cpu_s(pid) - before) / elapsed()
