"""`ports.TaskBoard` in memory: tasks that end when a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from fsxsync.errors import BadInput, TaskEnded, TaskExecuting, TaskNotFound, TaskTokenUsed
from fsxsync.model.task import Counts, Failure, Order, Step, Task
from fsxsync.ports import Planned

NOTHING = Counts()


class FakeTasks:
    """``ends_at_once``: a task has ended when it is asked for the first time."""

    def __init__(self) -> None:
        self.rows: dict[str, Task] = {}
        self.failed: dict[str, list[Failure]] = {}
        self.planned: list[Planned] = []
        self.orders: list[Order] = []
        self.ends_at_once = False
        self.refusal: BadInput | None = None

    def create(self, order: Order, *, token: str | None = None) -> Task:
        self.orders.append(order)
        if self.refusal is not None:
            raise self.refusal
        for known in self.rows.values():
            if token is not None and known.token == token:
                if known.order != order:
                    raise TaskTokenUsed("ClientRequestToken can't be used", "it was used before")
                return known
        for known in self.rows.values():
            if not known.lifecycle.has_ended and order.is_duplicate_of(known.order):
                raise TaskExecuting("it can't be begun", f"{known.id} is doing the same")
        number = len(self.rows) + 1
        created_ns = 1_700_000_000_250_000_000 + number
        made = Task(f"task-{number:017x}", order, created_ns, updated_ns=created_ns, token=token)
        self.rows[made.id] = made
        return made

    def end(self, task_id: str, counts: Counts = NOTHING, *failures: Failure) -> None:
        task = self.get(task_id).step(Step.BEGIN, 1_700_000_001_000_000_000)
        task = replace(task, counts=counts)
        self.failed[task_id] = list(failures)
        step = Step.FAIL if counts.failed else Step.SUCCEED
        why = f"{counts.failed} files failed" if counts.failed else ""
        self.rows[task_id] = task.step(step, 1_700_000_002_000_000_000, failure=why)

    async def plan(self, order: Order) -> AsyncIterator[Planned]:
        self.orders.append(order)
        if self.refusal is not None:
            raise self.refusal
        for one in self.planned:
            yield one

    def get(self, task_id: str) -> Task:
        if task_id not in self.rows:
            raise TaskNotFound(f"task {task_id}", "there is none of that id")
        return self.rows[task_id]

    def page(self, after: tuple[int, str] | None, limit: int) -> list[Task]:
        rows = sorted(self.rows.values(), key=lambda task: (task.created_ns, task.id))
        return [task for task in rows if after is None or (task.created_ns, task.id) > after][:limit]

    def failures(self, task_id: str, limit: int | None = None) -> Iterator[Failure]:
        return iter(self.failed.get(task_id, [])[:limit])

    def associations_of(self, task: Task) -> frozenset[str]:
        return frozenset({"dra-00000000000000001"})

    def cancel(self, task_id: str) -> Task:
        task = self.get(task_id)
        if task.lifecycle.has_ended:
            raise TaskEnded(f"task {task_id} can't be cancelled", f"it is {task.lifecycle.value}")
        self.rows[task_id] = task.step(Step.CANCEL, 1_700_000_003_000_000_000)
        return self.rows[task_id]
