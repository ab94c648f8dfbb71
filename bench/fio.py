"""fio for the benchmark of the mount: buffered reads and writes of files that are there, and what they took.

Whatever would make the page cache other than the benchmark left it is switched off: fio would drop the files from it
first (``invalidate``), and tell the kernel its pattern (``fadvise_hint``), which few programs do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.harness import CannotRun

MIB = 1 << 20
_LONGEST_S = 1.5
"""A run ends then, whatever it has done: the speed is known, and there are some hundred runs. One that may begin anew
goes on until then: four jobs write their files within 30 ms, and the start of a process takes some of these."""


@dataclass(frozen=True, slots=True)
class Work:
    """What fio does: a pattern by so many jobs, each with a file of its own; together they have ``size`` bytes."""

    name: str
    pattern: str
    block: int
    jobs: int
    size: int

    @property
    def case(self) -> str:
        return f"{self.name}, {self.jobs} job{'s' if self.jobs > 1 else ''}"

    @property
    def reads(self) -> bool:
        return self.pattern.endswith("read")

    @property
    def sequential(self) -> bool:
        return not self.pattern.startswith("rand")

    @property
    def files(self) -> dict[str, int]:
        """Names and sizes."""
        return {f"j{self.jobs}.{number}": self.size // self.jobs for number in range(self.jobs)}


@dataclass(frozen=True, slots=True)
class Measured:
    """``cpu_s`` is the processor time of fio's jobs, user and system."""

    bytes_per_s: float
    operations_per_s: float
    moved: int
    cpu_s: float


def require_fio() -> None:
    """Raises CannotRun if it isn't there."""
    if shutil.which("fio") is None:
        raise CannotRun("there is no fio: apt-get install fio")


def run_fio(work: Work, directory: Path, *, again: bool) -> Measured:
    """Let fio go through the files that are there, once, or ``again`` and again."""
    done = subprocess.run(  # noqa: S603
        [  # noqa: S607
            "fio",
            # Not "bench": where a job's name is that of a directory here, fio takes it for the file.
            *("--name=fsxsync-mount", "--output-format=json", "--ioengine=psync", "--direct=0", "--group_reporting"),
            *("--invalidate=0", "--fadvise_hint=0", "--fallocate=none", "--allow_file_create=0"),
            *(f"--directory={directory}", f"--filename_format=j{work.jobs}.$jobnum"),
            *(f"--rw={work.pattern}", f"--bs={work.block}", f"--numjobs={work.jobs}"),
            *(f"--size={work.size // work.jobs}", f"--runtime={int(_LONGEST_S * 1000)}ms"),
            *(["--time_based"] if again else []),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    job = json.loads(done.stdout)["jobs"][0]
    direction = job["read" if work.reads else "write"]
    return Measured(
        bytes_per_s=direction["bw_bytes"],
        operations_per_s=direction["iops"],
        moved=direction["io_bytes"],
        # Percents of all jobs' run time together, which is in milliseconds.
        cpu_s=(job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000,
    )
