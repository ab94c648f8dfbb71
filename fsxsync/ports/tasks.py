"""What the control server asks of the tasks. Implementation: sync/tasks.py; fake: tests/fakes/tasks.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

from fsxsync.model.task import Failure, Order, Task


@dataclass(frozen=True, slots=True)
class Planned:
    """What a task would do with one path of the tree: ``action`` is a verb; ``code`` and ``why``: what would fail,
    or, where it is not ``refuse``, what the report would warn of."""

    path: bytes
    action: str
    size: int = 0
    code: str = ""
    why: str = ""


class TaskBoard(Protocol):
    """Data repository tasks of one daemon. All raise FsxSyncError."""

    def create(self, order: Order, *, token: str | None = None) -> Task:
        """Write it down; it begins by itself. The same ``token`` again gives the task that it made.

        Raises:
            BadInput: a path or the report's place is off, or the token came with another order.
            TaskExecuting: the same is being done. TaskUnsupported: not here.
        """

    def plan(self, order: Order) -> AsyncIterator[Planned]:
        """What it would do, and nothing is done."""

    def get(self, task_id: str) -> Task:
        """Raises TaskNotFound."""

    def page(self, after: tuple[int, str] | None, limit: int) -> list[Task]:
        """In order of creation, from the one after (created_ns, id) on."""

    def failures(self, task_id: str, limit: int | None = None) -> Iterator[Failure]: ...

    def associations_of(self, task: Task) -> frozenset[str]:
        """Ids of the associations that its paths lie in, as they are now."""

    def cancel(self, task_id: str) -> Task:
        """What is in flight is finished, nothing is taken back. Raises TaskNotFound, TaskEnded."""
