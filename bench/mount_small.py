"""Small files in the benchmark of the mount: each function is one figure of one place. The same loops for everybody."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.harness import timed
from bench.mount_places import SMALL_FILE, Place, Stock, drop_caches

_BODY = os.urandom(SMALL_FILE)


@dataclass(frozen=True, slots=True)
class Figure:
    """Files a second; ``ls -l`` alone is in seconds, less is better."""

    case: str
    metric: str
    unit: str
    goal: float | None = None

    @property
    def is_time(self) -> bool:
        return self.unit == "s"


CREATE = Figure("small files: create", "and write 4 KiB, close", "files/s", 4000)
READ_COLD = Figure("small files: open, read, close, cold", "of 4 KiB", "files/s")
READ_WARM = Figure("small files: open, read, close, warm", "of 4 KiB", "files/s", 5000)
STAT = Figure("small files: stat, cold", "of names that are known", "files/s", 15_000)
LIST = Figure("small files: ls -l, cold", "of all", "s", 0.4)
UNLINK = Figure("small files: unlink", "one by one", "files/s", 5000)
FIGURES = (CREATE, READ_COLD, READ_WARM, STAT, LIST, UNLINK)


def measure_small(place: Place, stock: Stock, number: int) -> dict[Figure, float]:
    """One round. Creates and unlinks ``place.handled`` files; stat and ``ls -l`` are of all of the stock."""
    new = place.own / f"new{number}"
    new.mkdir()
    created = [str(new / name) for name in stock.names[: place.handled]]
    some = [str(place.entries / name) for name in stock.names[: place.handled]]
    everything = [str(place.entries / name) for name in stock.names]
    found: dict[Figure, float] = {}
    found[CREATE] = rate(create_small, created)
    place.settle()
    drop_caches()
    found[READ_COLD] = rate(read_small, some)
    found[READ_WARM] = rate(read_small, some)
    drop_caches()
    found[STAT] = rate(os.stat, everything)
    drop_caches()
    found[LIST] = timed(lambda: _list(place.entries))
    found[UNLINK] = rate(os.unlink, created)
    place.settle()
    new.rmdir()
    return found


def rate(act: Callable[[str], object], files: list[str]) -> float:
    """Files a second, one after the other."""
    return len(files) / timed(lambda: _each(act, files))


def _each(act: Callable[[str], object], files: Iterable[str]) -> None:
    for file in files:
        act(file)


def create_small(file: str) -> None:
    """A new file of 4 KiB."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, _BODY)
    os.close(descriptor)


def read_small(file: str) -> None:
    """All of a small file. Raises AssertionError if it is not whole."""
    descriptor = os.open(file, os.O_RDONLY)
    data = os.read(descriptor, SMALL_FILE)
    os.close(descriptor)
    assert len(data) == SMALL_FILE


def _list(directory: Path) -> None:
    subprocess.run(["ls", "-l", directory], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607
