"""The mount with its files resident, beside the bare directory and other programs that mount a bucket with a cache.

All are mounted at once, on one versitygw; each has its turn in every round, one case after the other. ``cold`` is after
page cache and names were dropped from the kernel's memory, ``warm`` right after everything was read once. What was
written is uploaded before anybody's next turn; nobody is timed for that but a program that uploads within its close,
and fio's figures end before the close.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from support.built_servers import VersityServer, built_program

from bench.fio import MIB, Measured, Work, require_fio, run_fio
from bench.harness import CannotRun, Report, have_memory_at_hand
from bench.mount_peers import peer_mounts
from bench.mount_places import BUCKET, Place, Stock, bare_directory, drop_caches, our_mount, read_whole
from bench.mount_small import FIGURES, Figure, measure_small

ROUNDS = 3
READ_BYTES = 256 * MIB
WRITE_BYTES = 256 * MIB
SMALL_FILES = 10_000
MEMORY_BESIDE = 64 * MIB
"""What fio and a daemon take beside the pages of the files."""
COLD_TRIES = 4
JOBS = (1, 4)
SEQUENTIAL_BLOCK = 128 * 1024  # cat's and cp's
RANDOM_BLOCK = 4096
_BARE = 0.9
_PROCESSOR = 1.2
_TWICE = 2.0

Taken = dict[str, dict[str, list[Measured]]]
"""By ``cold`` and ``warm``, then by place."""


def run(report: Report) -> None:
    """Everything of the issue "The mount at the speed of the disk"."""
    require_fio()
    if os.geteuid() != 0:
        raise CannotRun("it drops the kernel's caches and mounts, which root may")
    works = _works(report.share)
    stock = Stock(
        read={name: size for work in works if work.reads for name, size in work.files.items()},
        write={name: size for work in works if not work.reads for name, size in work.files.items()},
        entries=max(100, int(SMALL_FILES * report.share)),
    )
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-bench-")))
        built_program("versitygw", build=True)
        server = stack.enter_context(VersityServer(base / "versitygw"))
        s3 = server.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        ours = stack.enter_context(our_mount(server, s3, stock))
        places = [ours, bare_directory(base / "bare", stock), *peer_mounts(stack, base, server.url, stock)]
        for work in works:
            _measure(report, work, places)
        _small(report, stock, places)


def _works(share: float) -> list[Work]:
    def whole(size: int) -> int:
        return max(1, int(size * share) // (max(JOBS) * MIB)) * max(JOBS) * MIB

    read, write = whole(READ_BYTES), whole(WRITE_BYTES)
    return [
        Work(name, pattern, block, jobs, read if pattern.endswith("read") else write)
        for name, pattern, block in (
            ("sequential read", "read", SEQUENTIAL_BLOCK),
            ("random read", "randread", RANDOM_BLOCK),
            ("sequential write", "write", SEQUENTIAL_BLOCK),
            ("random write", "randwrite", RANDOM_BLOCK),
        )
        for jobs in JOBS
    ]


def _in_turn(places: list[Place], number: int) -> list[Place]:
    """Another one begins in each round, and every other round goes backwards: it matters after whom one comes.

    Seen on a virtual machine with busy neighbours: 0.03 to 0.5 s of system time for the same cold 256 MiB of the bare
    directory, all in _copy_to_iter. Populating memory after the caches were dropped does not help.
    """
    first = number % len(places)
    turn = places[first:] + places[:first]
    return turn[::-1] if number % 2 else turn


# ---------------------------------------------------------------- fio


def _measure(report: Report, work: Work, places: list[Place]) -> None:
    taken: Taken = {"cold": defaultdict(list), "warm": defaultdict(list)}
    for number in range(report.rounds):
        for place in _in_turn(places, number):
            directory = place.read if work.reads else place.write
            taken["cold"][place.name].append(_cold(work, place, directory))
            for name in work.files:
                read_whole(directory / name)
            taken["warm"][place.name].append(_turn(work, place, directory, again=True))
    for state, found in taken.items():
        _rows(report, work, state, found)


def _cold(work: Work, place: Place, directory: Path) -> Measured:
    """Of the tries the one that took the least processor: a page that the machine's host had taken back costs more than
    to read it, and which pages one gets is chance. Peers, of which no goal here is a multiple, have one try."""
    tries: list[Measured] = []
    for _ in range(COLD_TRIES if place.name in {"ours", "bare"} else 1):
        drop_caches()
        have_memory_at_hand(work.size + MEMORY_BESIDE)
        tries.append(_turn(work, place, directory, again=False))
    return min(tries, key=lambda measured: measured.cpu_s / measured.moved)


def _turn(work: Work, place: Place, directory: Path, *, again: bool) -> Measured:
    """fio once; processor time is its jobs' and the daemon's, what kernel threads do for them is not in it."""
    before = place.processor_s()
    measured = run_fio(work, directory, again=again)
    daemon_s = place.processor_s() - before
    if not work.reads:
        place.settle()
    return Measured(measured.bytes_per_s, measured.operations_per_s, measured.moved, cpu_s=measured.cpu_s + daemon_s)


def _rows(report: Report, work: Work, state: str, found: Mapping[str, list[Measured]]) -> None:
    case = f"{work.case}, {state}"
    if work.sequential:
        speed = {name: median(run.bytes_per_s for run in runs) / MIB for name, runs in found.items()}
        _add(report, case, "fio, 128 KiB", "MiB/s", speed, goal=_BARE * speed["bare"])
    else:
        rate = {name: median(run.operations_per_s for run in runs) for name, runs in found.items()}
        _add(report, case, "fio, 4 KiB", "1/s", rate, goal=_BARE * rate["bare"])
    if work.reads and work.sequential and work.jobs == 1:
        gib = 1024 * MIB
        processor = {name: median(run.cpu_s * gib / run.moved for run in runs) for name, runs in found.items()}
        _add(report, case, "processor, with daemon", "s/GiB", processor, goal=_PROCESSOR * processor["bare"])


# ---------------------------------------------------------------- small files


def _small(report: Report, stock: Stock, places: list[Place]) -> None:
    taken: dict[Figure, dict[str, list[float]]] = {figure: defaultdict(list) for figure in FIGURES}
    for number in range(report.rounds):
        for place in _in_turn(places, number):
            for figure, value in measure_small(place, stock, number).items():
                taken[figure][place.name].append(value)
    for figure, found in taken.items():
        values = {name: median(each) for name, each in found.items()}
        goal = figure.goal
        if goal is not None and figure.is_time:
            goal *= stock.entries / SMALL_FILES
        peers = [value for name, value in values.items() if name not in {"ours", "bare"}]
        doubled: dict[str, float] = {}
        if peers:
            doubled = (
                {"half the best peer's": min(peers) / _TWICE}
                if figure.is_time
                else {"twice the best peer": _TWICE * max(peers)}
            )
        _add(report, figure.case, figure.metric, figure.unit, values, goal=goal, **doubled)


def _add(
    report: Report,
    case: str,
    metric: str,
    unit: str,
    values: Mapping[str, float],
    goal: float | None,
    **goals: float,
) -> None:
    """Ours, then the bare directory, so that the ratio is to it, then what was set as the goal, then the peers."""
    others = dict(values)
    ours, bare = others.pop("ours"), others.pop("bare")
    goal_set = {} if goal is None else {"goal": goal}
    report.add(case, metric, unit, ours, **{"bare": bare} | goal_set | goals | others)
