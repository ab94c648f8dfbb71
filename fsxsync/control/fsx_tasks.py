"""FSx's operations on data repository tasks (FSX-FACTS §4.1, §10)."""

from __future__ import annotations

import base64
import fnmatch
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fsxsync.control.fsx_documents import Document, Place
from fsxsync.control.members import ARCHIVE_PATH_MAX, Members
from fsxsync.control.protocol import MESSAGE_MAX, IncompatibleParameter
from fsxsync.errors import TaskTokenUsed, TaskUnsupported
from fsxsync.model.task import DAY_NS, Order, Task, TaskLifecycle, TaskType
from fsxsync.ports import TaskBoard

TASK_ID = r"task-[0-9a-f]{17,}"
TOKEN = r"[A-Za-z0-9_.-]+"  # noqa: S105 - the pattern of a ClientRequestToken
OF_FSX = (TaskType.EXPORT, TaskType.IMPORT, TaskType.RELEASE)
NOT_HERE = "AUTO_RELEASE_DATA"
"""File Cache has it, FSx for Lustre has not."""
FILTERS = ("file-system-id", "task-lifecycle", "data-repository-association-id", "file-cache-id")
PATHS_MAX = 100
PAGE_MAX = 50
FORMAT, SCOPE = "REPORT_CSV_20191124", "FAILED_FILES_ONLY"
DAYS_MAX = 36_500
_NO_LINES = r"[^\x85\u2028\u2029\r\n]*"


class FsxTasks:
    """``operations`` by name, as `FsxApi` has them. ``check_file_system`` raises FileSystemNotFound."""

    def __init__(self, board: TaskBoard, place: Place, check_file_system: Callable[[str], None]) -> None:
        self._board = board
        self._place = place
        self._check_file_system = check_file_system
        self.operations: Mapping[str, Callable[[Members], Awaitable[Document]]] = {
            "CreateDataRepositoryTask": self._create,
            "DescribeDataRepositoryTasks": self._describe,
            "CancelDataRepositoryTask": self._cancel,
        }

    async def _create(self, members: Members) -> Document:
        self._check_file_system(members.required_text("FileSystemId", r"fs-[0-9a-f]{8,}", longest=21))
        order = _order(members)
        token = members.text("ClientRequestToken", TOKEN, longest=63)
        try:
            task = self._board.create(order, token=token)
        except TaskTokenUsed as error:
            raise IncompatibleParameter("ClientRequestToken", error.why) from error
        return {"DataRepositoryTask": of_task(task, self._place)}

    async def _describe(self, members: Members) -> Document:
        ids = members.texts("TaskIds", TASK_ID, most=50, longest=128)
        filters = members.inners("Filters", most=3) or ()
        size = min(members.whole("MaxResults", 1, 2**31 - 1) or PAGE_MAX, PAGE_MAX)
        after = _position(members)
        wanted = [self._filter(one) for one in filters]
        known = [self._board.get(task_id) for task_id in ids] if ids else None
        if known is not None:
            known = sorted(known, key=_place_of)
            known = [task for task in known if after is None or _place_of(task) > after]
        found: list[Task] = []
        while len(found) <= size:
            page = self._board.page(after, PAGE_MAX) if known is None else known
            found += (task for task in page if all(passes(task) for passes in wanted))
            if known is not None or not page:
                break
            after = _place_of(page[-1])
        answer: Document = {"DataRepositoryTasks": [of_task(task, self._place) for task in found[:size]]}
        if len(found) > size:
            answer["NextToken"] = _token(found[size - 1])
        return answer

    def _filter(self, one: Members) -> Callable[[Task], bool]:
        name = one.required_text("Name")
        if name not in FILTERS:
            raise one.refuse("Name", f"'{name}' is none of {', '.join(FILTERS)}")
        values = one.texts("Values", r"[0-9a-zA-Z*.\\/?\-_]+", most=20, longest=128) or ()

        def matches(text: str) -> bool:
            return any(fnmatch.fnmatchcase(text, value) for value in values)

        match name:
            case "task-lifecycle":
                return lambda task: matches(task.lifecycle.value)
            case "data-repository-association-id":
                return lambda task: any(map(matches, self._board.associations_of(task)))
            case "file-cache-id":
                return lambda _task: False
            case _:
                for value in values:
                    if value.startswith("fs-") and not set(value) & {"*", "?"}:
                        self._check_file_system(value)
                return lambda _task: matches(self._place.file_system_id)

    async def _cancel(self, members: Members) -> Document:
        task = self._board.cancel(members.required_text("TaskId", TASK_ID, longest=128))
        return {"TaskId": task.id, "Lifecycle": task.lifecycle.value}


def _order(members: Members) -> Order:
    word = members.required_text("Type")
    if word == NOT_HERE:
        raise TaskUnsupported(f"{NOT_HERE} can't be begun", "this is no file cache", advice="use RELEASE_DATA_…")
    types = {one.value: one for one in OF_FSX}
    if word not in types:
        raise members.refuse("Type", f"'{word}' is none of {', '.join(types)}")
    kind = types[word]
    if "CapacityToRelease" in members:
        raise members.refuse("CapacityToRelease", "only file caches have it")
    release = members.inner("ReleaseConfiguration")
    if release is not None and kind is not TaskType.RELEASE:
        raise members.refuse("ReleaseConfiguration", f"it is for {TaskType.RELEASE.value} only")
    return Order(
        type=kind,
        paths=members.texts("Paths", _NO_LINES, most=PATHS_MAX, longest=4096, may_be_empty=True) or (),
        report=_report(members),
        idle_ns=_idle_ns(release),
        tags=_tags(members),
    )


def _report(members: Members) -> str | None:
    report = members.inner("Report")
    if report is None:
        raise members.refuse("Report", "is missing")
    enabled = report.flag("Enabled")
    if enabled is None:
        raise report.refuse("Enabled", "is missing")
    path = report.text("Path", longest=ARCHIVE_PATH_MAX)
    for name, only in (("Format", FORMAT), ("Scope", SCOPE)):
        word = report.word(name, (only,))
        if enabled and word is None:
            raise report.refuse(name, "is missing, as the report is enabled")
    if not enabled:
        return None
    if path is None:
        raise report.refuse("Path", "is missing, as the report is enabled")
    if not path.startswith("s3://"):
        raise report.refuse("Path", f"'{path}' does not start with s3://")
    return path


def _idle_ns(release: Members | None) -> int:
    duration = release.inner("DurationSinceLastAccess") if release is not None else None
    if duration is None:
        return 0
    duration.word("Unit", ("DAYS",))
    return (duration.whole("Value", 0, DAYS_MAX) or 0) * DAY_NS


def _tags(members: Members) -> tuple[tuple[str, str], ...]:
    tags: dict[str, str] = {}
    for tag in members.inners("Tags", most=50) or ():
        key = tag.required_text("Key", longest=128)
        if key in tags:
            raise members.refuse("Tags", f"the key '{key}' stands there twice")
        tags[key] = tag.text("Value", longest=256, may_be_empty=True) or ""
    return tuple(tags.items())


def of_task(task: Task, place: Place) -> Document:
    """As FSx shows it. Types that FSx lacks keep their name."""
    order, counts = task.order, task.counts
    report: dict[str, Any] = {"Enabled": order.report is not None}
    if order.report is not None:
        report |= {"Path": order.report, "Format": FORMAT, "Scope": SCOPE}
    document: Document = {
        "TaskId": task.id,
        "Lifecycle": task.lifecycle.value,
        "Type": order.type.value,
        "CreationTime": task.created_ns / 1e9,
        "ResourceARN": place.task_arn(task.id),
        "Tags": [{"Key": key, "Value": value} for key, value in order.tags],
        "FileSystemId": place.file_system_id,
        "Paths": [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in order.paths],
        "Report": report,
        "Status": {
            "TotalCount": counts.total,
            "SucceededCount": counts.succeeded,
            "FailedCount": counts.failed,
            "LastUpdatedTime": task.updated_ns / 1e9,
        },
    }
    if task.started_ns is not None:
        document["StartTime"] = task.started_ns / 1e9
    if task.ended_ns is not None:
        document["EndTime"] = task.ended_ns / 1e9
    if task.lifecycle is TaskLifecycle.FAILED:
        document["FailureDetails"] = {"Message": task.failure[:MESSAGE_MAX] or "it failed"}
    if order.type is TaskType.RELEASE:
        days = order.idle_ns // DAY_NS
        document["ReleaseConfiguration"] = {"DurationSinceLastAccess": {"Unit": "DAYS", "Value": days}}
    return document


Position = tuple[int, str]


def _place_of(task: Task) -> Position:
    return task.created_ns, task.id


def _token(last: Task) -> str:
    return base64.b64encode(f"{last.created_ns} {last.id}".encode()).decode()


def _position(members: Members) -> Position | None:
    token = members.text("NextToken", longest=255)
    if token is None:
        return None
    try:
        created, task_id = base64.b64decode(token, validate=True).decode().split(" ")
        return int(created), task_id
    except ValueError as error:  # of base64, UTF-8, split and int alike
        raise members.refuse("NextToken", "it is none that was given out here") from error
