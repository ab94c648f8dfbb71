"""Data repository tasks, durable: what was asked for, how far each came, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fsxsync.catalog.connection import Connection, Row, text
from fsxsync.model.task import Counts, Cursor, Failure, Order, Task, TaskLifecycle

_COLUMNS = (
    "id, created_ns, lifecycle, started_ns, ended_ns, updated_ns, total, succeeded, failed, moved, stage, after,"
    " failure, token, request"
)
_PUT = f"INSERT INTO tasks ({_COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608  names are ours
_UPDATE = """UPDATE tasks SET lifecycle = ?, started_ns = ?, ended_ns = ?, updated_ns = ?, total = ?, succeeded = ?,
    failed = ?, moved = ?, stage = ?, after = ?, failure = ? WHERE id = ?"""
_GET = f"SELECT {_COLUMNS} FROM tasks WHERE id = ?"  # noqa: S608
# Index tasks_created (created_ns, id).
_AFTER = f"SELECT {_COLUMNS} FROM tasks WHERE (created_ns, id) > (?, ?) ORDER BY created_ns, id LIMIT ?"  # noqa: S608
# Index tasks_open (ended_ns).
_OPEN = f"SELECT {_COLUMNS} FROM tasks WHERE ended_ns IS NULL ORDER BY created_ns, id"  # noqa: S608
_OLD = "SELECT id FROM tasks WHERE ended_ns < ?"
_DELETE = "DELETE FROM tasks WHERE id = ?"
# Index tasks_token (token).
_BY_TOKEN = f"SELECT {_COLUMNS} FROM tasks WHERE token = ?"  # noqa: S608
# Primary key (task, number).
_FAIL = """INSERT INTO task_failures (task, number, path, status, code, message)
    SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4, ?5 FROM task_failures WHERE task = ?1"""
_FAILURES = """SELECT number, path, code, message, status FROM task_failures WHERE task = ? AND number > ?
    ORDER BY number LIMIT ?"""
_DROP_FAILURES = "DELETE FROM task_failures WHERE task = ?"
# Primary key (task, stage, path).
_GONE = "INSERT OR IGNORE INTO task_gone (task, stage, path) VALUES (?, ?, ?)"
_GONE_AFTER = "SELECT path FROM task_gone WHERE task = ? AND stage = ? AND path > ? ORDER BY path LIMIT ?"
_GONE_COUNT = "SELECT count(*) FROM task_gone WHERE task = ? AND stage = ?"
_GONE_FILES = f"{_GONE_COUNT} AND substr(path, -1) != x'2f'"
_DROP_GONE_STAGE = "DELETE FROM task_gone WHERE task = ? AND stage = ?"
_DROP_GONE = "DELETE FROM task_gone WHERE task = ?"

PAGE = 1000


class Tasks:
    """As many rows as tasks ended within 14 days or are to be done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, task: Task) -> None:
        self._connection.run(
            _PUT,
            (task.id, task.created_ns, *_progress(task), task.token, task.order.encode()),
        )

    def update(self, task: Task, failures: Iterable[Failure] = ()) -> None:
        """Write down how far it came, together with what failed since."""
        with self._connection.transaction():
            self._connection.run(_UPDATE, (*_progress(task), task.id))
            for failure in failures:
                self._connection.run(
                    _FAIL, (task.id, failure.path, failure.status, failure.code, text(failure.message))
                )

    def get(self, task_id: str) -> Task | None:
        row = self._connection.row(_GET, (task_id,))
        return _task(row) if row is not None else None

    def by_token(self, token: str) -> Task | None:
        row = self._connection.row(_BY_TOKEN, (token,))
        return _task(row) if row is not None else None

    def page(self, after: tuple[int, str] | None, limit: int) -> list[Task]:
        """In order of creation, from the one after (created_ns, id) on."""
        return [_task(row) for row in self._connection.rows(_AFTER, (*(after or (0, "")), limit))]

    def all(self) -> Iterator[Task]:
        """In order of creation, flat in memory."""
        after = None
        while found := self.page(after, PAGE):
            yield from found
            after = (found[-1].created_ns, found[-1].id)

    def open(self) -> list[Task]:
        """Those that have not ended, in order of creation."""
        return [_task(row) for row in self._connection.rows(_OPEN)]

    def forget_ended_before(self, time_ns: int) -> list[str]:
        """Drop those that ended before; their ids."""
        ids = [row[0] for row in self._connection.rows(_OLD, (time_ns,))]
        for task_id in ids:
            with self._connection.transaction():
                self._connection.run(_DROP_FAILURES, (task_id,))
                self._connection.run(_DROP_GONE, (task_id,))
                self._connection.run(_DELETE, (task_id,))
        return ids

    # ------------------------------------------------------------- what failed

    def failures(self, task_id: str, limit: int | None = None) -> Iterator[Failure]:
        """In the order in which they came, flat in memory."""
        number, left = 0, limit
        while left is None or left > 0:
            rows = self._connection.rows(_FAILURES, (task_id, number, PAGE if left is None else min(PAGE, left)))
            if not rows:
                return
            for row in rows:
                yield Failure(*row[1:])
            number = rows[-1][0]
            left = None if left is None else left - len(rows)

    # ------------------------------------------------------------- what is gone on one side

    def add_gone(self, task_id: str, stage: int, paths: Iterable[bytes]) -> None:
        """Paths of an association that one side lacks, or has in an older version: a later stage acts on them, on
        deletes once their number is known to be plausible."""
        with self._connection.transaction():
            self._connection.run_many(_GONE, [(task_id, stage, path) for path in paths])

    def gone(self, task_id: str, stage: int, after: bytes, limit: int) -> list[bytes]:
        return [row[0] for row in self._connection.rows(_GONE_AFTER, (task_id, stage, after, limit))]

    def count_gone(self, task_id: str, stage: int) -> int:
        row = self._connection.row(_GONE_COUNT, (task_id, stage))
        assert row is not None
        return int(row[0])

    def count_gone_files(self, task_id: str, stage: int) -> int:
        """Without the directories among them, whose sort keys end with a slash."""
        row = self._connection.row(_GONE_FILES, (task_id, stage))
        assert row is not None
        return int(row[0])

    def forget_gone(self, task_id: str, stage: int | None = None) -> None:
        if stage is None:
            self._connection.run(_DROP_GONE, (task_id,))
        else:
            self._connection.run(_DROP_GONE_STAGE, (task_id, stage))


def _progress(task: Task) -> tuple[object, ...]:
    counts = task.counts
    return (
        task.lifecycle.value,
        task.started_ns,
        task.ended_ns,
        task.updated_ns,
        counts.total,
        counts.succeeded,
        counts.failed,
        counts.moved,
        task.cursor.stage,
        task.cursor.after,
        text(task.failure),
    )


def _task(row: Row) -> Task:
    return Task(
        id=row[0],
        created_ns=row[1],
        lifecycle=TaskLifecycle(row[2]),
        started_ns=row[3],
        ended_ns=row[4],
        updated_ns=row[5],
        counts=Counts(*row[6:10]),
        cursor=Cursor(row[10], row[11]),
        failure=row[12],
        token=row[13],
        order=Order.decode(row[14]),
    )
