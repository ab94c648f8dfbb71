"""Somebody changes a file in the middle of a request about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from model.deciding import Decider
from model.gates import Gate
from model.sides import EXPECTED, FAILED
from model.steps import step
from model.task_steps import RESTORE

MET_WITHIN_S = 1.0
"""The daemon may be down, or have other worries; then it is a change like any other."""


@dataclass
class Meddler(Decider):
    """`change_during` is one step: the request is brought about, held, and let go after the change."""

    readers: list[threading.Thread] = field(default_factory=list)
    loaded: list[tuple[str, bytes]] = field(default_factory=list)
    """What they got."""

    @step
    def change_during(self, request: str, path: str, moment: str, how: str, size: int, other: str) -> None:
        """``request``: a kind of `gates`. ``how``: one of `CHANGES`. ``other`` is where the file is renamed to, by
        ``how``, or before a copy."""
        bring_about: dict[str, Callable[[], None]] = {
            "PUT": lambda: self.write(path, size),
            "COMPLETE": lambda: self.write(path, size),
            "COPY": lambda: self.rename(path, other),
            "GET": lambda: self._put_and_load(path, size),
        }
        with self._held(Gate(request, self.place_of(path), moment), cuts=how in CUTS) as gate:
            bring_about[request]()
            at = other if request == "COPY" else path
            if self.is_up and not self.store.down:
                self._until_met(gate, at, loads=request == "GET")
            CHANGES[how](self, at, path if request == "COPY" else other)

    @contextmanager
    def _held(self, gate: Gate, *, cuts: bool) -> Iterator[Gate]:
        self.store.gate = gate
        try:
            yield gate
        finally:
            gate.open()
            for reader in self.readers:
                reader.join(30)
                assert not reader.is_alive(), "a reader waits, and nothing is held any more"
            self.readers.clear()
        for path, content in self.loaded:
            # Who cuts a file off under a reader leaves him with as much of it as he had read, and where the kernel did
            # not know yet that it is shorter, with zeros behind that.
            had = content.rstrip(b"\0")
            if not (cuts and any(whole.startswith(had) for whole in self.contents)):
                self._check_read(path, content)
        self.loaded.clear()

    def _put_and_load(self, path: str, size: int) -> None:
        self.put(path, size)
        self.deliver()

    def _until_met(self, gate: Gate, path: str, *, loads: bool) -> None:
        end = time.monotonic() + MET_WITHIN_S
        while not gate.is_met(0.02) and time.monotonic() < end:
            if loads and self.way == "mount" and not any(reader.is_alive() for reader in self.readers):
                reader = threading.Thread(target=self._load, args=(self.made.directory / self.name, path))
                self.readers.append(reader)
                reader.start()
            elif loads and self.way == "behind":  # in watch mode an import loads it
                self._begin_task(RESTORE, path)

    def _load(self, mount: Path, path: str) -> None:
        """Through the mount, also when the daemon dies meanwhile: behind it a stub reads as zeros."""
        try:
            self.loaded.append((path, (mount / path).read_bytes()))
        except OSError as error:
            if error.errno not in EXPECTED | FAILED:
                self.loaded.append((path, repr(error).encode()))


CUTS = frozenset({"write", "truncate"})
CHANGES: dict[str, Callable[[Meddler, str, str], None]] = {
    "write": lambda world, path, _: world.write(path, 3000),
    "rewrite": lambda world, path, _: world.rewrite(path),
    "append": lambda world, path, _: world.append(path, 500),
    "truncate": lambda world, path, _: world.truncate(path, 40),
    "replace": lambda world, path, _: world.replace(path, 100),
    "rename": lambda world, path, other: world.rename(path, other),
    "unlink": lambda world, path, _: world.unlink(path),
    "chmod": lambda world, path, _: world.chmod(path, 0o600),
    "put": lambda world, path, _: world.put(path, 5000),
    "delete": lambda world, path, _: world.delete(path),
    "change_metadata": lambda world, path, _: world.change_metadata(path, 0o640),
}
