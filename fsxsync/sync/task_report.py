"""Completion reports (FSX-FACTS §4.5): always in the state directory, in the repository where that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fsxsync.crashpoint import durable
from fsxsync.errors import FsxSyncError, TreeError
from fsxsync.model.identity import Kind, Posix
from fsxsync.model.task import Failure, Task, report_row
from fsxsync.ports import ObjectHeaders
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.task_targets import place_of_uri

DIRECTORY = "reports"


def local_report(shared: Shared, task: Task) -> Path:
    """Where the report lies in the state directory."""
    return Path(shared.settings.state_dir) / DIRECTORY / task.id / task.order.type.report_name


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_report(shared: Shared, task: Task, failures: Iterable[Failure]) -> Path:
    """Write the local copy, in place of one that a crash left half-written.

    Raises:
        TreeError: the disk did not take it.
    """
    file = local_report(shared, task)
    try:
        for directory in (file.parent.parent, file.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        temporary = file.with_suffix(".new")
        with open(temporary, "wb", opener=_private) as stream:
            stream.writelines(report_row(failure) for failure in failures)
            stream.flush()
            os.fsync(stream.fileno())
        with durable("report.write"):
            temporary.rename(file)
    except OSError as error:
        raise TreeError(f"report {file}", error.strerror or str(error), advice="check the state directory") from error
    return file


async def upload_report(shared: Shared, served: Iterable[Served], task: Task, file: Path) -> None:
    """Put it to ``{Path}/task-id/failures.csv``. One that an interrupted try of ours has left there is replaced.

    Raises:
        BadInput: the place lies in no linked repository (any more). RepositoryError.
    """
    assert task.order.report is not None
    owner, rest = place_of_uri(task.order.report.rstrip("/"), served)
    key = owner.association.prefix + "/".join(filter(None, (rest.strip("/"), task.id, file.name)))
    headers = ObjectHeaders(Posix(), Kind.FILE, content_type="text/csv")
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        replaces = await owner.store.head(key)
        if size == 0:
            await owner.store.put(key, b"", headers, replaces=replaces)
        else:
            await shared.mover.upload(owner.store, key, fd, size, headers, replaces=replaces, still=lambda: None)
    finally:
        os.close(fd)


def tell_of_failure(shared: Shared, task: Task, error: FsxSyncError) -> None:
    """One line in the event log."""
    shared.eventlog.emit(
        code="S3CompletionReportUploadFailure",
        flow="export",
        association="",
        path=task.order.report or "",
        message=f"{task.id}: {error}",
    )
