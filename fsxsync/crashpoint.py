"""The durable steps of the daemon, by name, and a way to die at any of them: for tests of what a crash leaves behind.

Whoever changes something that outlives the process (a request that the store obeys, a commit, a name or a mark in the
tree) says so: `with durable("object.put"):`. Two moments belong to each step: `object.put:before` and, if it went well,
`object.put:after`. Unless FSXSYNC_CRASHPOINTS names a file, that costs one comparison.

The file (`SIZE` bytes, little-endian) is shared with the test. It writes the number of the moment to die at (8 bytes;
0: none), the nanoseconds by which the clock is wrong (8) and, after 32 bytes, the name of the moments that count, NULs
behind it (empty: all). We write the number of the last one that counted (8) and how often a daemon died here (8). At
that moment the process kills itself, so that nothing it has in hand is finished. All moments are appended to the file
with ``.log`` behind its name, a line each.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NoReturn, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

VARIABLE = "FSXSYNC_CRASHPOINTS"
SIZE = 160
_HEAD = struct.Struct("<qqqq")
_NUMBER, _DEATHS = slice(16, 24), slice(24, 32)
_NAME = slice(_HEAD.size, SIZE)

POINTS = frozenset(
    {
        # requests that change the bucket
        "object.put",
        "object.copy",
        "object.delete",
        "upload.start",
        "upload.part",
        "upload.complete",
        "upload.abort",
        "object.restore",
        "probe.write",
        # a bucket's events, routed to us
        "route.queue",
        "route.policy",
        "route.rule",
        "route.drop-queue",
        # what the queue is told: of these objects nobody will be told again
        "event.delete",
        # commits, named after the tables that are in them, joined by "+"
        "catalog.associations",
        "catalog.changelog",
        "catalog.conflicts",
        "catalog.facts",
        "catalog.files",
        "catalog.moves",
        "catalog.numbers",
        "catalog.partials",
        "catalog.problems",
        "catalog.task_failures",
        "catalog.task_gone",
        "catalog.tasks",
        "catalog.upload_parts",
        "catalog.uploads",
        "catalog.uses",
        # the staging directory
        "staging.make",
        "staging.write-note",
        "staging.drop-note",
        "staging.drop-old",
        "staging.take-back",
        # names in the tree
        "tree.mkdir",
        "tree.rmdir",
        "tree.place",
        "tree.exchange",
        "tree.take-out",
        "tree.put-back",
        "tree.keep",
        "tree.move",
        "tree.swap",
        "tree.metadata",
        "tree.xattrs",
        # the data of released files
        "stub.chunk",
        "stub.mark",
        "stub.unmark",
        "stub.remark",
        "stub.cut",
        "stub.punch",
        "stub.finish",
        # completion reports
        "report.write",
        # what applications do through the mount
        "mount.name",
        "mount.metadata",
        "mount.data",
    }
)
"""Every step there is; a test sees to it that each is one that it dies at."""


class _Steps:
    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._shared = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._log = os.open(path + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()  # some steps are taken by worker threads

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._reached(f"{name}:before")
        yield
        self._reached(f"{name}:after")

    def now_ns(self) -> int:
        return time.time_ns() + int(_HEAD.unpack_from(self._shared)[1])

    def _reached(self, moment: str) -> None:
        assert set(moment.partition(":")[0].removeprefix("catalog.").split("+")) <= _WORDS, f"{moment} is not in POINTS"
        with self._lock:
            os.write(self._log, f"{moment}\n".encode())
            deadly, _, number, deaths = _HEAD.unpack_from(self._shared)
            if self._shared[_NAME].rstrip(b"\0").decode() not in {"", moment}:
                return
            self._put(_NUMBER, number + 1)
            if number + 1 == deadly:
                self._put(_DEATHS, deaths + 1)
                _die()

    def _put(self, place: slice, value: int) -> None:
        # Not struct's pack_into, which makes the place zero before: the test may read it in that moment.
        self._shared[place] = value.to_bytes(8, "little")


_WORDS = {point.removeprefix("catalog.") for point in POINTS}


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the signal may reach another thread first
        time.sleep(1)


_steps: _Steps | None = None
_NOTHING = nullcontext()


def arm(path: str | None) -> None:
    """From now on count steps in that file (`VARIABLE`); None: never mind."""
    global _steps  # noqa: PLW0603  one process, one death
    _steps = _Steps(path) if path else None


def is_armed() -> bool:
    """Somebody counts: names that take time to find are worth it."""
    return _steps is not None


def now_ns() -> int:
    """The clock of the wall, nanoseconds since the epoch; wrong if the test wants it to be."""
    return time.time_ns() if _steps is None else _steps.now_ns()


def durable(name: str) -> AbstractContextManager[None]:
    """Inside, the step of that name (one of `POINTS`) is taken; leaving it by an error means that it was not."""
    return _NOTHING if _steps is None else _steps.step(name)


def each_durable(name: str, act: Callable[[Sequence[Item]], list[Outcome]], items: Sequence[Item]) -> list[Outcome]:
    """What ``act`` gives for all items, in one call; where somebody counts, each of them is a step."""
    if _steps is None:
        return act(items) if items else []
    outcomes: list[Outcome] = []
    for item in items:
        with durable(name):
            outcomes += act([item])
    return outcomes
