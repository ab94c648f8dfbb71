"""Tasks in the catalog: what a restart, a list and a report need of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsxsync.catalog.database import Catalog
from fsxsync.model.task import WARNING, Counts, Cursor, Failure, Order, Step, Task, TaskType

ORDER = Order(TaskType.RELEASE, ("d/\udcff",), "s3://b/r", 5, deletes=True, tags=(("k", "v"),))
FIRST = Task("task-1", ORDER, 10, updated_ns=10, token="t")  # noqa: S106


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "catalog.db")
    yield opened
    opened.close()


def test_a_task_goes_on_after_a_restart_as_it_was(catalog: Catalog, tmp_path: Path) -> None:
    catalog.tasks.add(FIRST)
    begun = replace(FIRST.step(Step.BEGIN, 11), counts=Counts(9, 2, 1, 7), cursor=Cursor(1, b"d/\xff/"))
    failures = [Failure(b"d/\xff", "ResourceBusy", "open"), Failure(b"w", "S3Error", "", status=WARNING)]
    catalog.tasks.update(begun, failures[:1])
    catalog.tasks.update(begun, failures[1:])
    catalog.close()

    again = Catalog.open(tmp_path / "catalog.db")
    assert again.tasks.open() == [begun]
    assert list(again.tasks.failures("task-1")) == failures
    assert list(again.tasks.failures("task-1", 1)) == failures[:1]
    assert again.tasks.by_token("t") == begun
    again.close()


def test_pages_come_in_order_of_creation(catalog: Catalog) -> None:
    tasks = [Task(f"task-{name}", ORDER, created) for name, created in (("b", 1), ("a", 2), ("c", 2), ("d", 3))]
    for task in reversed(tasks):
        catalog.tasks.add(task)

    assert list(catalog.tasks.all()) == tasks
    assert catalog.tasks.page((2, "task-a"), 1) == [tasks[2]]


def test_a_token_belongs_to_one_task(catalog: Catalog) -> None:
    catalog.tasks.add(FIRST)
    with pytest.raises(sqlite3.IntegrityError):
        catalog.tasks.add(replace(FIRST, id="task-2"))


def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(catalog: Catalog) -> None:
    ended = FIRST.step(Step.BEGIN, 11).step(Step.FAIL, 20, failure="why")
    for task in (ended, replace(FIRST, id="task-2", token=None)):
        catalog.tasks.add(task)
        catalog.tasks.update(task, [Failure(b"f", "S3Error", "")])
        catalog.tasks.add_gone(task.id, 0, [b"g"])

    assert catalog.tasks.forget_ended_before(20) == []
    assert catalog.tasks.forget_ended_before(21) == ["task-1"]
    assert [task.id for task in catalog.tasks.all()] == ["task-2"]
    assert list(catalog.tasks.failures("task-1")) == []
    assert catalog.tasks.gone("task-1", 0, b"", 9) == []
    assert catalog.tasks.gone("task-2", 0, b"", 9) == [b"g"]


def test_what_is_gone_is_counted_once_and_by_stage(catalog: Catalog) -> None:
    catalog.tasks.add_gone("task-1", 0, [b"b", b"a", b"c/"])
    catalog.tasks.add_gone("task-1", 0, [b"a"])
    catalog.tasks.add_gone("task-1", 1, [b"x"])

    assert catalog.tasks.count_gone("task-1", 0) == 3
    assert catalog.tasks.gone("task-1", 0, b"a", 1) == [b"b"]
    catalog.tasks.forget_gone("task-1")
    assert catalog.tasks.count_gone("task-1", 1) == 0
