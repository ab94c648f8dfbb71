"""Our own operations on tasks: all types, deletes, dry runs. FSx's: `fsx_tasks`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import cast

from fsxsync.control import documents
from fsxsync.control.answers import Answer, Lines
from fsxsync.control.documents import Document
from fsxsync.control.members import ARCHIVE_PATH_MAX, Members
from fsxsync.control.peer import NotYours, limited_to
from fsxsync.control.protocol import FSXSYNC, fault
from fsxsync.errors import FsxSyncError, TaskExecuting
from fsxsync.model.task import Order, Task, TaskType
from fsxsync.ports import Administration, Planned

PATHS_MAX = 100_000
IDLE_MAX_S = 200 * 365 * 86_400
FAILURES_SHOWN = 100
PAGE = 500

FOR_EVERYBODY = frozenset({"Where", "CreateTask", "PlanTask", "Task", "CancelTask"})
"""What users may ask for who are neither root nor the daemon's (`peer`). Nothing of it tells of files that they don't
own, not even that these are there: some lie in directories that they may not enter."""
OPEN_MOST = 8
"""Tasks that such a user may have begun and not ended."""
_THEIRS = frozenset({TaskType.RELEASE, TaskType.RESTORE})


class TaskOperations:
    """``operations`` by name, as `Operations` has them."""

    def __init__(self, administration: Administration) -> None:
        self._board = administration.tasks
        self.operations: Mapping[str, Callable[[Members], Awaitable[Answer | Lines]]] = {
            "CreateTask": self._create,
            "PlanTask": self._plan,
            "Tasks": self._tasks,
            "Task": self._task,
            "CancelTask": self._cancel,
        }

    async def _create(self, members: Members) -> Answer:
        order = _order(members)
        if order.owner_uid is not None:
            self._check_open(order.owner_uid)
        return Answer({"task": documents.of_task(self._board.create(order, token=members.text("token")))})

    def _check_open(self, owner: int) -> None:
        tasks = self._board.page(None, PAGE)
        if sum(one.order.owner_uid == owner and not one.lifecycle.has_ended for one in tasks) >= OPEN_MOST:
            raise TaskExecuting("no task can be begun", f"{OPEN_MOST} of yours are not over yet")

    async def _plan(self, members: Members) -> Lines:
        return Lines(self._planned(_order(members)))

    async def _planned(self, order: Order) -> AsyncGenerator[Document, None]:
        """``{"planned": …}`` each; ``{"error": …}`` where it had to end."""
        planned = cast(AsyncGenerator[Planned, None], self._board.plan(order))
        try:
            async with aclosing(planned):
                async for one in planned:
                    yield {"planned": documents.of_planned(one)}
        except FsxSyncError as error:
            yield {"error": fault(error, FSXSYNC)[1]}

    async def _tasks(self, members: Members) -> Lines:
        members.only(())
        return Lines(self._all())

    async def _all(self) -> AsyncGenerator[Document, None]:
        after = None
        while page := self._board.page(after, PAGE):
            for task in page:
                yield {"task": documents.of_task(task)}
            after = (page[-1].created_ns, page[-1].id)

    async def _task(self, members: Members) -> Answer:
        """With ``failures``: the first so many rows of its report."""
        members.only({"task", "failures"})
        task = self._own(members)
        limit = members.whole("failures", 0, 100_000)
        shown = self._board.failures(task.id, FAILURES_SHOWN if limit is None else limit)
        return Answer({"task": documents.of_task(task) | {"failures": [documents.of_failure(one) for one in shown]}})

    async def _cancel(self, members: Members) -> Answer:
        members.only({"task"})
        return Answer({"task": documents.of_task(self._board.cancel(self._own(members).id))})

    def _own(self, members: Members) -> Task:
        task = self._board.get(members.required_text("task"))
        owner = limited_to()
        if owner is not None and task.order.owner_uid != owner:
            raise NotYours(f"task {task.id}", "somebody else began it")
        return task


_MEMBERS = frozenset({"type", "paths", "report", "idle_s", "deletes", "accept_deletes", "token"})


def _order(members: Members) -> Order:
    members.only(_MEMBERS)
    types = {one.value: one for one in TaskType}
    word = members.word("type", tuple(types))
    if word is None:
        raise members.refuse("type", "is missing")
    kind, owner = types[word], limited_to()
    if owner is not None and kind not in _THEIRS:
        raise NotYours(f"{word} is refused", "you are neither root nor the user who runs the daemon")
    report = members.text("report", r"s3://.+", longest=ARCHIVE_PATH_MAX)
    if owner is not None and report is not None:
        raise NotYours("a report in the repository is refused", "you are neither root nor the user who runs the daemon")
    idle_s = members.number("idle_s", 0, IDLE_MAX_S)
    if idle_s is not None and kind is not TaskType.RELEASE:
        raise members.refuse("idle_s", "only a release asks how long a file was idle")
    if members.flag("deletes") and kind not in {TaskType.EXPORT, TaskType.IMPORT, TaskType.RECONCILE}:
        raise members.refuse("deletes", "this moves data only")
    return Order(
        type=kind,
        paths=members.texts("paths", most=PATHS_MAX, longest=4357, may_be_empty=True) or (),
        report=report,
        idle_ns=int((idle_s or 0) * 1e9),
        deletes=bool(members.flag("deletes")) or kind is TaskType.RECONCILE,
        accept_deletes=bool(members.flag("accept_deletes")),
        owner_uid=owner,
    )
