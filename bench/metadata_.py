"""Names and attributes through the mount, and in the bare directory behind it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.harness import Report, running, timed
from bench.server import StaticServer

FILES = 10_000
CREATED = 1000
_BEHIND = "directory behind it"


def run(report: Report) -> None:
    """Released files, imported before; new files are local only until the end."""
    with StaticServer(FILES) as server, running() as fsx:
        fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=600)
        fsx.settle(timeout=600)
        mount, bare = fsx.directory / "data", fsx.tree / "data"
        for case in ("first", "again"):
            _compare(report, f"ls -lR of {FILES} files, {case}", "files/s", FILES, _list, mount, bare)
        _compare(report, f"stat of {FILES} files, again", "files/s", FILES, _stat, mount, bare)
        (fsx.directory / "local").mkdir()
        _compare(
            report, f"create of {CREATED} files", "files/s", CREATED, _create, fsx.directory / "local", bare.parent
        )
        _compare(
            report, f"unlink of {CREATED} files", "files/s", CREATED, _unlink, fsx.directory / "local", bare.parent
        )


def _compare(
    report: Report, case: str, unit: str, count: int, act: Callable[[Path], object], mount: Path, bare: Path
) -> None:
    ours = count / timed(lambda: act(mount))
    report.add(case, "through the mount", unit, ours, **{_BEHIND: count / timed(lambda: act(bare))})


def _list(directory: Path) -> None:
    subprocess.run(["ls", "-lR", directory], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607


def _stat(directory: Path) -> None:
    for parent, _, names in os.walk(directory):
        for name in names:
            os.stat(os.path.join(parent, name))


def _create(directory: Path) -> None:
    for number in range(CREATED):
        os.close(os.open(directory / f"new{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def _unlink(directory: Path) -> None:
    for number in range(CREATED):
        (directory / f"new{number}").unlink()
