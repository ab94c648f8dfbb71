"""What a measured process of the transfer benchmark is told, and what it says: JSON in, JSON out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

MIB = 1 << 20
_TICK_S = 0.001
_IDLE_TICKS = 300


@dataclass(frozen=True, slots=True)
class Task:
    """Move objects between a bucket and the files of their names in a directory."""

    action: str
    """``download`` or ``upload``."""
    url: str
    bucket: str
    keys: list[str]
    sizes: list[int]
    etags: list[str]
    """Of what is to be downloaded."""
    directory: str
    threads: int
    warm_key: str
    """A small object to ask for before the clock starts: the first request of a process costs more than others."""
    limit: int = 0
    """Bytes a second; 0: as fast as it goes."""
    timer: bool = False
    """Also measure how late a timer of 1 ms is in the meantime, which costs some processor."""


@dataclass(slots=True)
class Measured:
    """What a run took."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    loop_busy: float = 0.0
    """Share of the time in which the event loop's thread ran."""
    loop_late: float = 0.0
    """Share of the time that a timer of 1 ms was late, beyond its lateness when nothing is done."""
    bystander_late: float = 0.0
    """The same of a process that only looks on: for that the machine is to blame, which has too few processors."""
    peak_mib: float = 0.0
    """Highest resident memory above that before."""


@dataclass(slots=True)
class Gauge:
    """Measures one block of a process."""

    timer: bool
    measured: Measured = field(default_factory=Measured)

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[None]:
        before = _reset_peak_kib()
        async with AsyncExitStack() as stack:
            late: dict[str, float] = {}
            if self.timer:
                await stack.enter_async_context(_bystander(late))
                await stack.enter_async_context(_lateness(late))
            start, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
            yield
            seconds = time.perf_counter() - start
            self.measured.cpu_s = time.process_time() - cpu
            self.measured.loop_busy = (time.thread_time() - thread) / seconds
            self.measured.seconds = seconds
            self.measured.peak_mib = (_status_kib("VmHWM") - before) / 1024
        self.measured.loop_late, self.measured.bystander_late = late.get("here", 0.0), late.get("bystander", 0.0)


@asynccontextmanager
async def _lateness(late: dict[str, float]) -> AsyncIterator[None]:
    """Let a timer go off every millisecond; its lateness, as a share of the time, becomes ``late["here"]``."""
    lateness: list[float] = []
    await _tick(lateness, _IDLE_TICKS)
    idle = sum(lateness) / len(lateness)
    lateness.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, lateness, sys.maxsize)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        nursery.cancel_scope.cancel()
    late["here"] = max(0.0, sum(lateness) - idle * len(lateness)) / seconds


async def _tick(lateness: list[float], count: int) -> None:
    for _ in range(count):
        due = trio.current_time() + _TICK_S
        await trio.sleep_until(due)
        lateness.append(trio.current_time() - due)


@asynccontextmanager
async def _bystander(late: dict[str, float]) -> AsyncIterator[None]:
    """Have the same measured by another process; ``late["bystander"]``."""
    process = subprocess.Popen(  # noqa: ASYNC220  the clock does not run yet
        [sys.executable, "-m", "bench.transfer_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has started its timer
    yield
    told, _ = process.communicate()  # it ends with its standard input
    late["bystander"] = float(told)


async def _look_on() -> None:
    late: dict[str, float] = {}
    async with _lateness(late):
        print(flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
    print(late["here"])


def _reset_peak_kib() -> int:
    """Forget the highest resident memory so far; what it is now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_kib("VmRSS")


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def main(run: Callable[[Task, Gauge], Awaitable[None]]) -> None:
    """Carry out the task on standard input and print what it took."""
    task = Task(**json.load(sys.stdin))
    gauge = Gauge(task.timer)
    trio.run(run, task, gauge)
    print(json.dumps(dataclasses.asdict(gauge.measured)))


if __name__ == "__main__":
    trio.run(_look_on)
