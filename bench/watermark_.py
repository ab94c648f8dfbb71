"""Release by watermark: how full the disk gets while somebody writes several times as much as it holds, as fast as he
can. The disk is a file system of its own, on a loop device."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.instance import Instance

from bench.harness import CannotRun, Report, stopwatch
from bench.server import StaticServer

DISK = 2 << 30
SIZE = 4 << 20
TIMES = 2
"""So many times the disk's size is written."""
HIGH, LOW = 60, 40
LOOK_S = 0.02


def run(report: Report) -> None:
    """One writer, files of 4 MiB."""
    if os.geteuid() != 0:
        raise CannotRun("only root mounts disks")
    case = f"{TIMES} x {DISK >> 30} GiB in files of {SIZE >> 20} MiB, cache_high {HIGH} %, cache_low {LOW} %"
    with StaticServer(0) as server, _instance() as fsx:
        fsx.ok("associate", "s3://bench/written/", "/d", "--endpoint-url", server.url, "--poll", "0")
        with _watched(fsx.tree) as seen:
            elapsed = stopwatch()
            body = os.urandom(SIZE)
            for number in range(TIMES * DISK // SIZE):
                (fsx.directory / f"d/{number}").write_bytes(body)
            written_s = elapsed()
            fsx.settle(timeout=600)
        report.add(case, "most of the disk in use", "%", max(seen), goal=HIGH)
        report.add(case, "written", "MiB/s", TIMES * DISK / written_s / (1 << 20))
        report.add(case, "written and exported", "MiB/s", TIMES * DISK / elapsed() / (1 << 20))


@contextmanager
def _instance() -> Iterator[Instance]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-bench-")))
        image = base / "disk"
        with image.open("wb") as stream:
            stream.truncate(DISK)
        (base / "state").mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)  # noqa: S603, S607
        subprocess.run(["mount", "-o", "loop", image, base / "state"], check=True)  # noqa: S603, S607
        stack.callback(subprocess.run, ["umount", "-l", base / "state"], check=True)
        env = {"FSXSYNC_EXPORT_DELAY_S": "1", "FSXSYNC_CACHE_HIGH": f"{HIGH}%", "FSXSYNC_CACHE_LOW": f"{LOW}%"}
        made = Instance(base, env=env)
        stack.callback(made.clean_up)
        made.start()
        yield made


@contextmanager
def _watched(tree: Path) -> Iterator[list[float]]:
    """Percent of the disk in use, as df counts it, looked at all the time."""
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_S):
            disk = os.statvfs(tree)
            used = disk.f_blocks - disk.f_bfree
            seen.append(100 * used / (used + disk.f_bavail))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
