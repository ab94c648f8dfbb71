"""The daemon's memory with many files imported, before and after everything was looked at through the mount."""

from __future__ import annotations

import os
import subprocess

from support.instance import Instance

from bench.harness import Report, daemon_pid, memory_mib, running
from bench.server import StaticServer

GOAL_MIB = 300


def run(report: Report) -> None:
    """The worst case: nothing is forgotten by the kernel in between."""
    with StaticServer(report.objects) as server, running() as fsx:
        _note(report, fsx, "empty")
        fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
        _note(report, fsx, f"{report.objects} files imported")
        fsx.settle(timeout=3600)
        _note(report, fsx, "and their metadata")
        for turn in ("", " again"):
            subprocess.run(["ls", "-lR", fsx.directory], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607
            _note(report, fsx, f"after ls -lR of everything{turn}")
        os.sync()


def _note(report: Report, fsx: Instance, case: str) -> None:
    found = memory_mib(daemon_pid(fsx))
    report.add(case, "Rss", "MiB", found["Rss"], goal=GOAL_MIB)
    report.add(case, "Pss", "MiB", found["Pss"], goal=GOAL_MIB)
    report.add(case, "highest Rss so far", "MiB", found["Peak"], goal=GOAL_MIB)
