"""What the kernel allows: our mount beside the least that a FUSE server can do, ``fuse_floor.c``, on the same files.

``floor, statx`` makes one system call of the file system for a request, ``floor, memory`` none. Both look for the
next request for 50 microseconds before they sleep, and processors are kept awake for them, as our channel does;
``floor, asleep`` sleeps at once, and so may the processors. Where other programs run,
``chrt -r 5 python -m bench floor`` keeps them out of the way.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median

from bench import ROOT
from bench.fio import MIB, Work, require_fio, run_fio
from bench.harness import CannotRun, Report, running, until
from bench.mount_places import SMALL_FILE, drop_caches, make_file, read_whole
from bench.mount_small import CREATE, READ_WARM, STAT, UNLINK, Figure, create_small, rate, read_small

ROUNDS = 5
FILES = 5000
LOOK_US = 50
_PASSED = ("f99999", "f99998", "f99997", "f99996")
"""A file for each job. The floor serves no other names; fio wants its own, so it is given links."""
_PASSED_BYTES = 64 * MIB
_WORKS = [
    Work(name, pattern, block, jobs, jobs * _PASSED_BYTES)
    for name, pattern, block in (
        ("random read", "randread", 4096),
        ("random write", "randwrite", 4096),
        ("sequential read", "read", 128 * 1024),
        ("sequential write", "write", 128 * 1024),
    )
    for jobs in (1, len(_PASSED))
]
"""Of what is in memory, which no server sees."""


def run(report: Report) -> None:
    """Small files, and reads and writes of what is in memory."""
    require_fio()
    if os.geteuid() != 0:
        raise CannotRun("it mounts and drops the kernel's caches, which root may")
    files = [f"f{number:05d}" for number in range(max(100, int(FILES * report.share)))]
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-bench-")))
        program = base / "fuse_floor"
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "bench/fuse_floor.c"], check=True)  # noqa: S603, S607
        fsx = stack.enter_context(running("passthrough=auto"))
        places = {"ours": fsx.directory / "own", "bare": base / "bare"}
        for place in places.values():
            _stock_up(place, files)
        for name, memory, look_us in (("statx", 0, LOOK_US), ("memory", len(files), LOOK_US), ("asleep", 0, 0)):
            behind = base / name
            _stock_up(behind, files)
            places[f"floor, {name}"] = stack.enter_context(
                _floor(program, base / f"at-{name}", behind, memory, look_us)
            )
        taken: dict[Figure, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number in range(report.rounds):
            turn = list(places.items())
            turn = turn[number % len(turn) :] + turn[: number % len(turn)]
            for name, place in turn:
                with _awake() if name in {"floor, statx", "floor, memory"} else nullcontext():
                    found = _round(place, files, from_memory=name.endswith("memory"))
                for figure, value in found.items():
                    taken[figure][name].append(value)
        for figure, found in taken.items():
            values = {name: median(each) for name, each in found.items()}
            report.add(figure.case, figure.metric, figure.unit, values.pop("ours"), **values)


_WARM = [
    Figure(f"{work.case}, warm", f"fio, {work.block >> 10} KiB", "MiB/s" if work.sequential else "1/s")
    for work in _WORKS
]


def _round(place: Path, files: list[str], *, from_memory: bool) -> dict[Figure, float]:
    """Names made here stand above those in stock, which a floor answers from memory."""
    stock = [str(place / name) for name in files]
    made = [str(place / f"f{number + 10 * len(files):05d}") for number in range(len(files))]
    found: dict[Figure, float] = {}
    drop_caches()
    found[STAT] = rate(os.stat, stock)
    if from_memory:
        return found  # its files hold nothing
    found[READ_WARM] = rate(read_small, stock)
    found[CREATE] = rate(create_small, made)
    found[UNLINK] = rate(os.unlink, made)
    for work, figure in zip(_WORKS, _WARM, strict=True):
        with tempfile.TemporaryDirectory(prefix="fsxsync-bench-") as links:
            for name, passed in zip(work.files, _PASSED, strict=False):
                (Path(links) / name).symlink_to(place / passed)
                read_whole(place / passed)
            measured = run_fio(work, Path(links), again=True)
            found[figure] = measured.bytes_per_s / MIB if work.sequential else measured.operations_per_s
    return found


def _stock_up(place: Path, files: list[str]) -> None:
    place.mkdir(parents=True)
    for name in files:
        (place / name).write_bytes(os.urandom(SMALL_FILE))
    for name in _PASSED:
        make_file(place / name, _PASSED_BYTES)


@contextmanager
def _awake() -> Iterator[None]:
    """As `c_ext/channel_awake.c`, for the whole block."""
    try:
        device = os.open("/dev/cpu_dma_latency", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # then ours does without, too
        yield
        return
    try:
        os.write(device, b"\0\0\0\0")
        yield
    finally:
        os.close(device)


@contextmanager
def _floor(program: Path, mountpoint: Path, behind: Path, memory: int, look_us: int) -> Iterator[Path]:
    """The server with its mount, both of which go with the block."""
    mountpoint.mkdir()
    server = subprocess.Popen([program, mountpoint, behind, str(memory), str(look_us)])  # noqa: S603
    try:
        until(lambda: os.path.ismount(mountpoint) or server.poll() is not None, timeout_s=10)
        if server.poll() is not None:
            raise CannotRun("the floor's server could not mount; it says why above")
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=False)  # noqa: S603, S607
        server.wait(timeout=10)
