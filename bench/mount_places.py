"""Where the benchmark of the mount works: the bare directory, our mount, and (mount_peers.py) those of others.

All have the same three folders: files for fio to read, small files, both of which are objects of the bucket, and a
folder of their own to write in. All lie on the same file system, and so does what the server keeps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.built_servers import VersityServer

from bench.fio import MIB
from bench.harness import daemon_pid, processor_clock_s, running

BUCKET = "bench"
READ = "read"
ENTRIES = "entries"
WRITE = "write"
SMALL_FILE = 4096
DRAIN_CAP_S = 120
"""So long the uploads of what was written may take before the next case begins all the same, which is said."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is to read and to overwrite: names and sizes for fio, and how many small files."""

    read: Mapping[str, int]
    write: Mapping[str, int]
    entries: int

    @property
    def names(self) -> list[str]:
        return [f"f{number:05d}" for number in range(self.entries)]


@dataclass(frozen=True, slots=True)
class Place:
    """One of those that are compared. ``handled`` is how many small files it is given to create, open and unlink."""

    name: str
    root: Path
    own: Path
    handled: int
    pid: int | None = None
    drain: Callable[[], bool] = lambda: True
    """Wait until all is uploaded; False if `DRAIN_CAP_S` is over."""

    @property
    def read(self) -> Path:
        return self.root / READ

    @property
    def entries(self) -> Path:
        return self.root / ENTRIES

    @property
    def write(self) -> Path:
        return self.own / WRITE

    def processor_s(self) -> float:
        """What its daemon used so far; a directory has none."""
        return 0.0 if self.pid is None else processor_clock_s(self.pid)

    def settle(self) -> None:
        """After writing: nothing of it shall go on while the next is measured."""
        if not self.drain():
            print(f"# {self.name} still uploads after {DRAIN_CAP_S} s", flush=True)
        os.sync()


def bare_directory(root: Path, stock: Stock) -> Place:
    """A directory with the same files, with nothing before it."""
    own = root / "own"
    _stock_up(root, own, stock)
    return Place("bare", root, own, stock.entries)


@contextmanager
def our_mount(server: VersityServer, s3: Any, stock: Stock) -> Iterator[Place]:
    """fsxsync by passthrough where the kernel has it; fills the bucket, so its files are all resident.

    Each folder is an association: the other places' objects are no business of ours.
    """
    with running("passthrough=auto") as fsx:
        root = fsx.directory
        for name in (READ, ENTRIES, "ours"):
            s3.put_object(Bucket=BUCKET, Key=f"{name}/")  # a directory, also where a peer wants a marker for that
            fsx.ok("associate", f"s3://{BUCKET}/{name}", f"/{name}", "--endpoint-url", server.url, "--poll", "0")

        def drain() -> bool:
            return fsx.run("wait", "--timeout", str(DRAIN_CAP_S), timeout=DRAIN_CAP_S + 30).code == 0

        print(f"# our data path: {fsx.ok('status').out.partition('data path')[2].splitlines()[0].strip()}", flush=True)
        place = Place("ours", root, root / "ours", stock.entries, daemon_pid(fsx), drain)
        _stock_up(root, place.own, stock)
        fsx.settle(timeout=600)
        yield place


def _stock_up(root: Path, own: Path, stock: Stock) -> None:
    for directory in (root / READ, root / ENTRIES, own / WRITE):
        directory.mkdir(parents=True, exist_ok=True)
    for name, size in stock.read.items():
        make_file(root / READ / name, size)
    for name, size in stock.write.items():
        make_file(own / WRITE / name, size)
    for name in stock.names:
        (root / ENTRIES / name).write_bytes(os.urandom(SMALL_FILE))


def make_file(file: Path, size: int) -> None:
    """Bytes that nobody can compress or leave out."""
    with file.open("wb", buffering=0) as target:
        for _ in range(0, size, MIB):
            target.write(os.urandom(MIB))


def read_whole(file: Path) -> None:
    """Once through it: afterwards it is in the page cache, and whoever keeps files keeps this one."""
    buffer = bytearray(MIB)
    with file.open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass


def drop_caches() -> None:
    """Nothing of any file, name or attribute stays in the kernel's memory: proc_sys_vm(5). Needs root."""
    os.sync()  # only clean pages go
    Path("/proc/sys/vm/drop_caches").write_text("3")
