"""Tasks of all types, their cancellation, and what a task may be refused for."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from model.giving import Giver
from model.sides import WAIT_S
from model.steps import step
from support.instance import eventually

from fsxsync.control.protocol import DaemonError
from fsxsync.errors import NoDaemon

RELEASE, RESTORE = "RELEASE_DATA_FROM_FILESYSTEM", "RESTORE_DATA"
EXPORT, IMPORT, RECONCILE = "EXPORT_TO_REPOSITORY", "IMPORT_METADATA_FROM_REPOSITORY", "RECONCILE"
TYPES = (RELEASE, RESTORE, EXPORT, IMPORT, RECONCILE)
_READ_LISTING = frozenset({IMPORT, RECONCILE})
"""What is nowhere in the tree may be in the bucket."""
REQUESTS_S = 1.0
"""A task that is to be cancelled in its middle may have less to ask for, or be kept waiting."""


@dataclass
class TaskMaker(Giver):
    """Tasks go on after a restart: all of them have ended when a world comes to rest."""

    tasks: list[str] = field(default_factory=list)
    """That may not have ended yet."""

    @step
    def release(self, path: str) -> None:
        self._task(RELEASE, path)
        for file in [path] if path and not (self.behind / path).is_dir() else self.tree():
            with suppress(OSError):
                mark = self.mark(file)
                if mark is not None and mark.etag not in self.by_digest:
                    self._body(mark)  # as long as it is there

    @step
    def restore(self, path: str) -> None:
        self._task(RESTORE, path)

    @step
    def export_task(self, path: str, *, deletes: bool) -> None:
        self._task(EXPORT, path, deletes=deletes)

    @step
    def import_task(self, path: str, *, deletes: bool) -> None:
        self._task(IMPORT, path, deletes=deletes)

    @step
    def reconcile(self, path: str) -> None:
        """While everybody goes on; see also `World.agree`."""
        self._task(RECONCILE, path)

    @step
    def cancel_task(self, kind: str, path: str, requests: int) -> None:
        """Begin one, and cancel it after so many requests of the daemon: what it has begun is finished, and nothing is
        half done."""
        before = self.store.requests
        task = self._begin_task(kind, path)
        if task is None:
            return
        end = time.monotonic() + REQUESTS_S
        while self.store.requests < before + requests and time.monotonic() < end:
            time.sleep(0.002)
        try:
            told = self.client.cancel_task(task)
            assert told["lifecycle"] in {"CANCELING", "CANCELED"}, told
        except NoDaemon:
            self._is_really_down()
        except DaemonError as error:
            if error.code not in {"DataRepositoryTaskEnded", *(["NoDiskSpace"] if self.was_full else [])}:
                raise

    def _task(self, kind: str, path: str, *, deletes: bool = False) -> None:
        """Have it begun, and wait a moment for its end: files may be in use, the store away, the daemon down."""
        task = self._begin_task(kind, path, deletes=deletes)
        if task is None:
            return
        try:
            eventually(lambda: self.client.task(task)["ended"], 5)
        except AssertionError:
            pass  # it goes on
        except NoDaemon:
            self._is_really_down()

    def _begin_task(self, kind: str, path: str, *, deletes: bool = False) -> str | None:
        """None: it can't be done, for a reason that there is."""
        was_there = os.path.lexists(self.behind / path)
        order = {"type": kind, "paths": [f"{self.name}/{path}".rstrip("/")], "deletes": deletes}
        try:
            made = self.client.create_task(order)
        except NoDaemon:
            self._is_really_down()
            return None
        except DaemonError as error:
            is_there = was_there and os.path.lexists(self.behind / path)  # an import may have brought it meanwhile
            if error.code not in self._reasons_against(kind, is_there=is_there):
                raise
            return None
        task: str = made["id"]
        self.tasks.append(task)
        return task

    def _reasons_against(self, kind: str, *, is_there: bool) -> set[str]:
        reasons = set()
        if kind == RELEASE and self.way == "watch":
            reasons.add("UnsupportedOperation")
        if not is_there and kind not in _READ_LISTING:
            reasons.add("BadRequest")
        if self.tasks:
            reasons.add("DataRepositoryTaskExecuting")
        if self.was_full:
            reasons.add("NoDiskSpace")
        return reasons

    def _is_really_down(self) -> None:
        """Nobody answers: the daemon has died, or does so this moment."""
        eventually(lambda: not self.is_up, 10)

    def _end_tasks(self) -> None:
        """Nobody shall look meanwhile."""
        for task in self.tasks:
            eventually(lambda task=task: self.client.task(task)["ended"], WAIT_S)
        self.tasks.clear()

    def _reconciled(self, paths: list[str], moments: int) -> dict[str, Any]:
        """What became of such a task over these paths of the tree, though the daemon dies ``moments`` steps after it
        was asked for (0: it does not)."""
        order = {"type": RECONCILE, "paths": paths, "token": uuid.uuid4().hex}
        self.crash.arm(moments)
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            self.start()
            try:
                task = self.client.create_task(order)["id"]  # once, however often it is asked for
                told = self.client.task(task, failures=100)
            except NoDaemon:
                self._is_really_down()
                continue
            except DaemonError as error:
                if error.code != "DataRepositoryTaskExecuting":
                    raise
                told = {"error": str(error)}  # of one that the daemon died of while it was asked for, and which goes on
                time.sleep(0.1)
                continue
            if told["ended"]:
                self.crash.arm(0)
                return told
            time.sleep(0.02)
        raise AssertionError(f"a task does not end: {told}")
