"""Data repository tasks: written down, begun in turn, gone on with after a restart (`ports.TaskBoard`).

A task goes through its stages batch by batch. After each batch its counters, its failures and how far it came are one
transaction: after ``kill -9`` the batch that was under way is done once more, which finds done what is done.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import trio

from fsxsync.errors import (
    BadInput,
    FsxSyncError,
    TaskEnded,
    TaskExecuting,
    TaskFailed,
    TaskNotFound,
    TaskTokenUsed,
    TaskUnsupported,
)
from fsxsync.model.association import Lifecycle
from fsxsync.model.task import KEPT_NS, Cursor, Failure, Order, Step, Task, TaskLifecycle, TaskType
from fsxsync.ports import Planned
from fsxsync.sync import obeying
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.in_order import in_order
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.task_report import local_report, tell_of_failure, upload_report, write_report
from fsxsync.sync.task_stages import Batch, Done, Stage
from fsxsync.sync.task_targets import find, place_of_uri, stages_of
from fsxsync.sync.under_way import UnderWay

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Tasks that execute at the same time; the others are PENDING."""
SETTLE_S = 60.0
"""How long a task waits at its beginning for what was done in the tree before it to be known."""
USABLE_S = 300.0
"""How long it waits for an association that can't be used: after a restart the network may come later than we do."""
LOOK_S = 0.1
USABLE = frozenset({Lifecycle.AVAILABLE, Lifecycle.UPDATING})
SWEEP_S = 3600.0


class TaskRunner:
    """One per daemon, in the trio thread."""

    def __init__(
        self,
        shared: Shared,
        served: Mapping[str, Served],
        hydrator: StubHydrator,
        settle_local: Callable[[], Awaitable[None]],
    ) -> None:
        self._shared = shared
        self._served = served
        self._hydrator = hydrator
        self._settle_local = settle_local
        self._tasks = shared.catalog.tasks
        self._running: set[str] = set()
        self._under_way: dict[str, dict[int, UnderWay]] = {}
        """Of these: what is known of batches that are not written down yet."""
        self._cancelled: set[str] = set()
        """Of those, the ones that nothing more is begun of."""
        self._changed = trio.Event()

    # ------------------------------------------------------------- ports.TaskBoard

    def create(self, order: Order, *, token: str | None = None) -> Task:
        """See `ports.TaskBoard.create`."""
        if token is not None and (known := self._tasks.by_token(token)) is not None:
            if known.order.fingerprint != order.fingerprint:
                raise TaskTokenUsed("ClientRequestToken can't be used", "it was used with other parameters before")
            return known
        self._check(order)
        for other in self._tasks.open():
            if order.is_duplicate_of(other.order):
                raise TaskExecuting(f"{order.type.value} can't be begun", f"{other.id} is doing the same")
        now_ns = self._shared.now_ns()
        task = Task(f"task-{secrets.token_hex(9)[:17]}", order, now_ns, updated_ns=now_ns, token=token)
        self._tasks.add(task)
        self._wake()
        return task

    def _check(self, order: Order) -> None:
        if order.type is TaskType.RELEASE and self._shared.eager:
            raise TaskUnsupported(
                "files can't be released", "in watch mode nobody could load them again", advice="use 'fsxsync mount'"
            )
        if not self._served:
            raise BadInput(f"{order.type.value} can't be begun", "there is no association")
        if order.report is not None:
            place_of_uri(order.report.rstrip("/"), self._served.values())
        targets = find(order, self._served)
        if not targets.parts and len(targets.failures) == 1:
            failure = targets.failures[0]
            raise BadInput(f"/{failure.path.decode('utf-8', 'backslashreplace')}", failure.message)

    async def plan(self, order: Order) -> AsyncIterator[Planned]:
        """See `ports.TaskBoard.plan`."""
        self._check(order)
        await self._settle()
        targets = find(order, self._served)
        for failure in targets.failures:
            yield Planned(failure.path, "refuse", 0, failure.code, failure.message)
        task = Task("", order, self._shared.now_ns())
        for stage in stages_of(task, targets.parts, self._served.__getitem__, self._hydrator):
            async with aclosing(stage.batches(b"")) as batches:
                async for batch in batches:
                    for failure in batch.failures:
                        if not failure.is_warning:  # the stage tells of those
                            yield Planned(failure.path, "refuse", 0, failure.code, failure.message)
                    async with aclosing(stage.plan(batch)) as planned:
                        async for one in planned:
                            yield one

    def get(self, task_id: str) -> Task:
        """See `ports.TaskBoard.get`."""
        return self._now(self._known(task_id))

    def _known(self, task_id: str) -> Task:
        """As it is written down. Raises TaskNotFound."""
        task = self._tasks.get(task_id)
        if task is None:
            raise TaskNotFound(f"task {task_id}", "there is none of that id")
        return task

    def _now(self, task: Task) -> Task:
        counts = task.counts
        for batch in self._under_way.get(task.id, {}).values():
            counts = batch.counted(counts)
        return replace(task, counts=counts)

    def page(self, after: tuple[int, str] | None, limit: int) -> list[Task]:
        """See `ports.TaskBoard.page`."""
        return [self._now(task) for task in self._tasks.page(after, limit)]

    def failures(self, task_id: str, limit: int | None = None) -> Iterator[Failure]:
        """See `ports.TaskBoard.failures`."""
        return self._tasks.failures(self._known(task_id).id, limit)

    def associations_of(self, task: Task) -> frozenset[str]:
        """See `ports.TaskBoard.associations_of`."""
        try:
            return frozenset(find(task.order, self._served).parts)
        except BadInput:
            return frozenset()

    def cancel(self, task_id: str) -> Task:
        """See `ports.TaskBoard.cancel`."""
        task = self._known(task_id)
        if task.lifecycle.has_ended:
            raise TaskEnded(f"task {task_id} can't be cancelled", f"it is {task.lifecycle.value}")
        task = task.step(Step.CANCEL, self._shared.now_ns())
        self._tasks.update(task)
        if not task.lifecycle.has_ended:
            self._cancelled.add(task_id)
        self._wake()
        return self._now(task)

    # ------------------------------------------------------------- running

    def _wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Execute what there is to do, until cancelled. What is under way then is gone on with at the next start."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                self._changed = trio.Event()
                for task in self._tasks.open():
                    if len(self._running) < AT_ONCE and task.id not in self._running:
                        self._running.add(task.id)
                        nursery.start_soon(self._execute, task.id, name=task.id)
                await self._changed.wait()

    async def _sweep(self) -> None:
        while True:
            for task_id in self._tasks.forget_ended_before(self._shared.now_ns() - KEPT_NS):
                directory = local_report(self._shared, Task(task_id, Order(TaskType.EXPORT), 0)).parent
                await trio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
            await trio.sleep(SWEEP_S)

    async def _execute(self, task_id: str) -> None:
        try:
            failure = ""
            try:
                await self._work(task_id)
            except FsxSyncError as error:
                failure = str(error)
                log.warning("a task can't go on", extra={"task": task_id, "reason": failure})
            await self._end(task_id, failure)
        finally:
            self._running.discard(task_id)
            self._under_way.pop(task_id, None)
            self._cancelled.discard(task_id)
            self._wake()

    def _goes_on(self, task_id: str) -> bool:
        """For one that is being executed. Asked before every file, and so answered from memory."""
        return task_id not in self._cancelled

    async def _work(self, task_id: str) -> None:
        task = self._known(task_id)
        if task.lifecycle is TaskLifecycle.CANCELING:
            return
        is_new = task.lifecycle is TaskLifecycle.PENDING
        task = task.step(Step.BEGIN, self._shared.now_ns())
        self._tasks.update(task)
        await self._settle()
        await self._until_usable(task, find(task.order, self._served).parts)
        if not self._goes_on(task_id):
            return
        if task.order.type.may_export:
            for one in [self._served[name] for name in find(task.order, self._served).parts]:
                await obeying.before_writes(one)
        targets = find(task.order, self._served)  # no await before the stages are made: one may have been deleted
        stages = stages_of(task, targets.parts, self._served.__getitem__, self._hydrator)
        if is_new or (task.cursor == Cursor() and task.counts.succeeded + task.counts.failed == 0):
            total = len(targets.failures)
            for stage in stages:
                total += await stage.estimate(lambda: self._goes_on(task_id))
            task = self._known(task_id)  # somebody may have cancelled it meanwhile
            counts = replace(task.counts.plus(failed=len(targets.failures)), total=total)
            task = replace(task, counts=counts)
            self._write(task, targets.failures)
        for number, stage in enumerate(stages):
            if number < task.cursor.stage:
                continue
            after = task.cursor.after if number == task.cursor.stage else b""
            await self._run_stage(task_id, number, stage, after)
            if not self._goes_on(task_id):
                return
            task = self._known(task_id)

    async def _run_stage(self, task_id: str, number: int, stage: Stage, after: bytes) -> None:
        def goes_on() -> bool:
            return self._goes_on(task_id)

        under_way = self._under_way.setdefault(task_id, {})

        async def perform(batch: Batch) -> Done:
            under_way[id(batch)] = UnderWay(goes_on)
            return await stage.perform(batch, under_way[id(batch)])

        def record(batch: Batch, done: Done) -> None:
            del under_way[id(batch)]
            failures = [*batch.failures, *done.failures]
            failed = sum(not failure.is_warning for failure in failures)
            task = self._known(task_id)
            counts = task.counts.plus(succeeded=batch.quiet + done.succeeded, failed=failed, moved=done.moved)
            self._write(replace(task, counts=counts, cursor=Cursor(number, batch.after)), failures)

        if not after:  # else it was believed before a restart, and some of it is done
            stage.check()
        async with aclosing(stage.batches(after)) as batches, in_order(stage.at_once, perform, record) as begin:
            async for batch in batches:
                await self._shared.courtesy.give_way()
                if not goes_on():
                    return
                if batch.gone:
                    self._tasks.add_gone(task_id, number, batch.gone)
                await begin(batch)
        self._write(replace(self._known(task_id), cursor=Cursor(number + 1)), ())

    def _write(self, task: Task, failures: list[Failure] | tuple[()]) -> None:
        self._tasks.update(replace(task, updated_ns=self._shared.now_ns()), failures)

    async def _settle(self) -> None:
        with trio.move_on_after(SETTLE_S):
            await self._settle_local()

    async def _until_usable(self, task: Task, parts: Mapping[str, object]) -> None:
        """Wait for the associations, or until the task is cancelled.

        Raises:
            TaskFailed: one of them can't be used.
        """
        unusable = ""
        with trio.move_on_after(USABLE_S):
            while self._goes_on(task.id):
                states = [self._served[name].association for name in parts if name in self._served]
                not_yet = [one for one in states if one.lifecycle not in USABLE]
                unusable = "; ".join(
                    f"{one.file_system_path} is {one.lifecycle.value}: {one.failure}" for one in not_yet
                )
                if not unusable:
                    return
                await trio.sleep(LOOK_S)
        if unusable and self._goes_on(task.id):
            raise TaskFailed(f"task {task.id}", unusable, advice="'fsxsync associations' says more")

    # ------------------------------------------------------------- the end of it

    async def _end(self, task_id: str, failure: str) -> None:
        """Write the report, and then the end: who sees that it ended finds the report."""
        task = self._known(task_id)
        await self._shared.front.told()  # who looks at the files then is shown them as they are
        try:
            file = write_report(self._shared, task, self._tasks.failures(task_id))
            if task.order.report is not None:
                await upload_report(self._shared, self._served.values(), task, file)
        except FsxSyncError as error:
            tell_of_failure(self._shared, task, error)
            failure = failure or f"the completion report could not be written: {error}"
        task = self._known(task_id)  # somebody may have cancelled it meanwhile
        if task.counts.failed and not failure:
            failure = f"{task.counts.failed} of {task.counts.succeeded + task.counts.failed} files failed"
        self._tasks.forget_gone(task_id)
        self._tasks.update(task.step(Step.FAIL if failure else Step.SUCCEED, self._shared.now_ns(), failure=failure))
