"""A daemon whose commands can be run in this process: a real control server, and an engine in memory."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import trio
from fakes.administration import FakeAdministration

from fsxsync.cli.main import run
from fsxsync.control.server import serve_control
from fsxsync.telemetry.eventlog import EventLog


@dataclass
class Daemon:
    """A thread that serves a `FakeAdministration` as `fsxsync mount` would serve the engine."""

    state_dir: Path
    mount: Path
    admin: FakeAdministration = field(default_factory=FakeAdministration)
    _ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.admin.mount = str(self.mount)
        self.admin.tree = str(self.state_dir / "tree")
        self.admin.state_dir = str(self.state_dir)
        self._thread = threading.Thread(target=lambda: trio.run(self._run))

    async def _run(self) -> None:
        lock = os.open(self.state_dir / "daemon.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        eventlog = EventLog(self.state_dir / "events.jsonl", max_bytes=1 << 20, keep=1)
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    serve_control,
                    self.admin,
                    self.state_dir / "control.sock",
                    eventlog=eventlog,
                    instance="f" * 32,
                )
            )
            self._ready.set()
            await self.admin.stopping.wait()
            nursery.cancel_scope.cancel()
        os.close(lock)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.run("unmount")
        self._thread.join(10)
        assert not self._thread.is_alive()

    def run(self, *arguments: str) -> int:
        return run(["--state-dir", str(self.state_dir), *arguments])
