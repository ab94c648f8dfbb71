"""What all benchmarks share: rows and their JSON, the machine's facts, an instance, what /proc tells of a daemon."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from support.built_servers import built_program
from support.instance import Instance

from bench import ROOT

MEMORY = Path("/dev/shm")  # noqa: S108  where what is measured is not the disk
GOAL = "goal"
"""Among the others: the figure that was set for this row."""
_MIB = 1 << 20
_PACKAGES = ("fsxsync", "boto3", "botocore", "moto", "pyfuse3", "trio", "awscrt")
_PROGRAMS = ("versitygw", "s5cmd", "rclone")


class CannotRun(Exception):
    """A benchmark lacks something here; the message says what, and where it comes from."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is ours to the first of the others; None without others."""

    case: str
    metric: str
    unit: str
    ours: float
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        first = next(iter(self.others.values()), None)
        return self.ours / first if first else None


@dataclass(slots=True)
class Report:
    """Where a benchmark puts its rows, and how large it shall be."""

    objects: int
    seconds: float
    share: float = 1.0
    """Of what the benchmarks of transfer and mount move; less is for trying them out."""
    rounds: int = 5
    """How often each of those that are compared has its turn."""
    only: str = ""
    """The part of `tasks` that is wanted; empty: all."""
    on_row: Callable[[Row], None] = lambda _row: None
    rows: list[Row] = field(default_factory=list)

    def add(self, case: str, metric: str, unit: str, ours: float, **others: float) -> None:
        """A figure and what it is compared with, measured in the same run (or ``goal``)."""
        row = Row(case, metric, unit, ours, others)
        self.rows.append(row)
        self.on_row(row)


def row_document(row: Row) -> dict[str, Any]:
    """The row as it stands in the JSON."""
    document = asdict(row)
    document["ratio"] = row.ratio
    return document


def printed(row: Row) -> str:
    """The row as a line of the table."""
    others = "  ".join(f"{name} {value:,.4g}" for name, value in row.others.items())
    ratio = f"x{row.ratio:.2f}" if row.ratio is not None else ""
    return f"{row.case:<44} {row.metric:<26} {row.ours:>12,.4g} {row.unit:<10} {ratio:>8}  {others}".rstrip()


def write_json(
    file: Path, facts: Mapping[str, Any], installed: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """One document: ``machine``, ``versions``, ``rows``."""
    file.write_text(json.dumps({"machine": facts, "versions": installed, "rows": rows}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    directory = tempfile.gettempdir()
    found = subprocess.run(["stat", "-fc", "%T", directory], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_kib >> 10,
        "kernel": platform.release(),
        "file_system": found.stdout.strip(),
        "load": os.getloadavg()[0],
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions() -> dict[str, str]:
    """What was measured."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name in _PROGRAMS:
        if (program := built_program(name)) is not None:
            found[name] = program.name.removeprefix(f"{name}-")
    commit = subprocess.run(  # noqa: S603
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return found | {"commit": commit.stdout.strip()}


# ---------------------------------------------------------------- an instance to measure


@contextmanager
def running(*options: str, **env: str) -> Iterator[Instance]:
    """A mounted instance with the settings that users get, in a directory of its own, which goes with the block.

    ``options`` are those of ``mount -o``.
    """
    defaults = {
        "FSXSYNC_EXPORT_DELAY_S": "1",
        "FSXSYNC_EXPORT_CAP_S": "30",
        "FSXSYNC_QUEUE_WAIT_S": "20",
        "FSXSYNC_RETRY_S": "1",
    }
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-bench-")))
        made = Instance(base, env=defaults | env, options=("-o", ",".join(options)) if options else ())
        stack.callback(made.clean_up)
        made.start()
        yield made


def stopwatch() -> Callable[[], float]:
    """Seconds since the call."""
    start = time.perf_counter()
    return lambda: time.perf_counter() - start


def timed(act: Callable[[], object]) -> float:
    """How many seconds it takes."""
    elapsed = stopwatch()
    act()
    return elapsed()


def until(check: Callable[[], bool], *, timeout_s: float = 60.0, step_s: float = 0.01) -> None:
    """Ask until it holds. Raises TimeoutError."""
    elapsed = stopwatch()
    while not check():
        if elapsed() > timeout_s:
            raise TimeoutError("what the benchmark waits for does not come")
        time.sleep(step_s)


def have_memory_at_hand(size: int) -> None:
    """Take so many bytes of memory and give them back. What was free for some seconds a virtual machine may have given
    back to its host: whoever takes it next waits 5 us for each page of it, and that shall be nobody's loss."""
    with tempfile.TemporaryFile(dir=MEMORY) as file:
        for _ in range(0, size, _MIB):
            file.write(bytes(_MIB))


# ---------------------------------------------------------------- /proc


def processor_clock_s(pid: int) -> float:
    """What `cpu_s` tells, to the microsecond: all threads of the process, those that ended too.

    The clock's number is made as clock_getcpuclockid(3) makes it: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
    """
    return time.clock_gettime(~pid << 3 | 2)


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> dict[str, float]:
    """``Rss`` and ``Pss`` now, and ``Peak``, the highest Rss so far."""
    found: dict[str, float] = {}
    for file, names in (("smaps_rollup", ("Rss", "Pss")), ("status", ("VmHWM",))):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in names:
                found["Peak" if name == "VmHWM" else name] = int(value.split()[0]) / 1024
    return found


def daemon_pid(fsx: Instance) -> int:
    assert fsx.daemon is not None
    return fsx.daemon.pid
