"""Releasing and restoring, by tasks, and what a task may be refused for."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from model.giving import Giver
from model.sides import WAIT_S
from model.steps import step
from support.instance import eventually

from fsxsync.control.protocol import DaemonError
from fsxsync.errors import NoDaemon

RELEASE, RESTORE = "RELEASE_DATA_FROM_FILESYSTEM", "RESTORE_DATA"


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

    def _task(self, kind: str, path: str) -> None:
        """Have it begun, and wait a moment for its end: files may be in use, the store away, the daemon down."""
        task = self._begin_task(kind, path)
        if task is None:
            return
        try:
            eventually(lambda: self.client.task(task)["ended"], 5)
        except AssertionError:
            pass  # it goes on
        except NoDaemon:
            self._is_really_down()

    def _begin_task(self, kind: str, path: str) -> str | None:
        """None: it can't be done, for a reason that there is."""
        was_there = os.path.lexists(self.behind / path)
        try:
            made = self.client.create_task({"type": kind, "paths": [f"{self.name}/{path}".rstrip("/")]})
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
        if not is_there:
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
        """They move data only, but nobody shall look meanwhile."""
        for task in self.tasks:
            eventually(lambda task=task: self.client.task(task)["ended"], WAIT_S)
        self.tasks.clear()
