"""Data repository tasks as values: the life cycle, the counters, the words of a report."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from itertools import product

import pytest

from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.release import Seen, Use, is_idle, refuse_object, refuse_release
from fsxsync.model.task import (
    DAY_NS,
    REPORT_CODES,
    TRANSITIONS,
    WARNING,
    Counts,
    Failure,
    Order,
    Step,
    Task,
    TaskLifecycle,
    TaskType,
    report_code,
    report_row,
)

ORDER = Order(TaskType.RELEASE, ("a", "b/\udcff"), "s3://b/r", 7 * DAY_NS, owner_uid=3, tags=(("k", "v"),))


@pytest.mark.parametrize(("lifecycle", "step"), list(product(TaskLifecycle, Step)))
def test_every_step_of_every_state(lifecycle: TaskLifecycle, step: Step) -> None:
    task = Task("task-1", ORDER, 5, lifecycle=lifecycle, counts=Counts(9, 2, 1))
    if (lifecycle, step) not in TRANSITIONS:
        with pytest.raises(KeyError):
            task.step(step, 7)
        return
    after = task.step(step, 7, failure="why")
    assert not lifecycle.has_ended  # what has ended stays as it ended
    assert after.lifecycle is TRANSITIONS[lifecycle, step]
    assert (after.ended_ns == 7) == after.lifecycle.has_ended
    assert (after.counts.total == 3) == (after.lifecycle in {TaskLifecycle.SUCCEEDED, TaskLifecycle.FAILED})
    assert (after.failure == "why") == (after.lifecycle is TaskLifecycle.FAILED)
    assert lifecycle is not TaskLifecycle.CANCELING or after.lifecycle in {
        TaskLifecycle.CANCELING,
        TaskLifecycle.CANCELED,
    }


def test_a_task_that_is_gone_on_with_keeps_its_start() -> None:
    begun = Task("task-1", ORDER, 5).step(Step.BEGIN, 6)
    assert begun.step(Step.BEGIN, 9).started_ns == 6


def test_what_is_done_is_never_more_than_the_total() -> None:
    assert Counts(10).plus(succeeded=3, failed=1, moved=5) == Counts(10, 3, 1, 5)
    assert Counts(2, 2).plus(failed=3) == Counts(5, 2, 3)


def test_an_order_is_written_down_whole() -> None:
    assert Order.decode(ORDER.encode()) == ORDER
    assert ORDER.fingerprint != replace(ORDER, idle_ns=1).fingerprint


def test_the_same_paths_in_another_order_are_the_same_task() -> None:
    assert ORDER.is_duplicate_of(replace(ORDER, paths=("b/\udcff", "a"), report=None))
    assert not ORDER.is_duplicate_of(replace(ORDER, paths=("a",)))
    assert not ORDER.is_duplicate_of(replace(ORDER, type=TaskType.RESTORE))


@pytest.mark.parametrize(
    ("path", "row"),
    [
        (b"dir1/file", b"dir1/file,failed,ResourceBusy\r\n"),
        (b"@filename.txt", b'"""@filename.txt""",failed,ResourceBusy\r\n'),  # FSx's own example
        (b"=1,2", b'"""=1,2""",failed,ResourceBusy\r\n'),
        (b'+a"b', b'"""+a""""b""",failed,ResourceBusy\r\n'),
        (b"a,b", b'"a,b",failed,ResourceBusy\r\n'),
        (b'a"b\n', b'"a""b\n",failed,ResourceBusy\r\n'),
        (b"d/@x", b"d/@x,failed,ResourceBusy\r\n"),
        (b"\xff", b"\xff,failed,ResourceBusy\r\n"),
    ],
)
def test_a_report_row_is_quoted_as_fsx_does(path: bytes, row: bytes) -> None:
    assert report_row(Failure(path, "ResourceBusy", "it is open")) == row
    [read] = csv.reader(io.StringIO(row.decode("latin-1"), newline=""))
    assert len(read) == 3


def test_a_warning_says_that_it_succeeded() -> None:
    warned = Failure(b"f", "S3ObjectInUnsupportedTier", "", status=WARNING)
    assert report_row(warned) == b"f,succeeded with warning,S3ObjectInUnsupportedTier\r\n"


def test_reports_have_fsx_words_only() -> None:
    assert report_code("ResourceBusy") == "ResourceBusy"
    assert {report_code(code) for code in ("NoDiskSpace", "Conflict", "BadRequest", "something new")} <= REPORT_CODES


# ---------------------------------------------------------------- may it go?

LOCAL = Local(Kind.FILE, 10, 5, 1, 2, 0o644, 0, 0)
BASE = Base("dra-1", b"f", Kind.FILE, 10, 5, 1, 2, 0o644, 0, 0, "e", 5, 1)
SEEN = Seen("e", 5)


def test_what_is_synced_and_left_alone_may_go() -> None:
    assert refuse_release(LOCAL, [BASE], Use()) is None
    assert refuse_object(BASE, SEEN) is None


@pytest.mark.parametrize(
    ("local", "names", "use", "code"),
    [
        (LOCAL._replace(kind=Kind.SYMLINK), [BASE], Use(), "OperationNotPermitted"),
        (LOCAL, [], Use(), "OperationNotPermitted"),
        (LOCAL, [], Use(is_moving=True), "S3ObjectUpdateInProgressFromFileRename"),
        (LOCAL, [BASE], Use(is_moving=True, is_open=True), "S3ObjectUpdateInProgressFromFileRename"),
        (LOCAL, [BASE], Use(is_open=True), "ResourceBusy"),
        (LOCAL, [BASE], Use(is_loading=True), "ResourceBusy"),
        (LOCAL, [BASE], Use(is_pending=True), "ResourceBusy"),
        (LOCAL, [BASE._replace(etag=None)], Use(), "OperationNotPermitted"),
        (LOCAL, [BASE._replace(remote_size=4)], Use(), "OperationNotPermitted"),
        (LOCAL, [BASE._replace(released=True)], Use(), "OperationNotPermitted"),
        (LOCAL._replace(size=6), [BASE], Use(), "OperationNotPermitted"),
        (LOCAL._replace(ctime_ns=3), [BASE], Use(), "OperationNotPermitted"),
        (LOCAL._replace(mode=0o600), [BASE], Use(is_pending=True), "OperationNotPermitted"),
        (LOCAL._replace(nlink=2), [BASE], Use(), "OperationNotPermitted"),
        (LOCAL._replace(nlink=2), [BASE, BASE._replace(path=b"g", ctime_ns=1)], Use(), "OperationNotPermitted"),
    ],
)
def test_each_reason_against_it_has_its_code(local: Local, names: list[Base], use: Use, code: str) -> None:
    refusal = refuse_release(local, names, use)
    assert refusal is not None
    assert refusal.code == code


def test_a_file_whose_names_all_are_synced_may_go() -> None:
    assert refuse_release(LOCAL._replace(nlink=2), [BASE, BASE._replace(path=b"g", etag="e2")], Use()) is None


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (None, "SourceObjectDeletedBeforeReleasing"),
        (Seen("other", 5), "SourceObjectDeletedBeforeReleasing"),
        (Seen("e", 6), "SourceObjectDeletedBeforeReleasing"),
        (Seen("e", 5, "DEEP_ARCHIVE"), "S3ObjectInUnsupportedTier"),
        (Seen("e", 5, "INTELLIGENT_TIERING", archived=True), "S3ObjectInUnsupportedTier"),
    ],
)
def test_its_object_must_be_there_and_readable(seen: Seen | None, code: str) -> None:
    refusal = refuse_object(BASE, seen)
    assert refusal is not None
    assert refusal.code == code


@pytest.mark.parametrize("field", ["atime_ns", "mtime_ns", "ctime_ns"])
def test_the_last_of_all_times_counts_and_counts_strictly(field: str) -> None:
    old = LOCAL._replace(atime_ns=0, mtime_ns=0, ctime_ns=0)
    touched = old._replace(**{field: 3 * DAY_NS})
    for idle_ns, is_it in ((2 * DAY_NS - 1, True), (2 * DAY_NS, False), (0, True)):
        assert is_idle(touched, created_ns=5 * DAY_NS, idle_ns=idle_ns) is is_it
