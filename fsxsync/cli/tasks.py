"""``export``, ``import``, ``release``, ``restore``: data repository tasks; ``tasks`` and ``task`` look at them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import as_typed, tree_paths
from fsxsync.cli.options import AGE
from fsxsync.cli.output import AS_JSON
from fsxsync.cli.progress import follow
from fsxsync.control.client import Client, Document
from fsxsync.control.protocol import DaemonError
from fsxsync.errors import BadInput, TaskFailed
from fsxsync.model.task import TaskType
from fsxsync.telemetry.log import escape

PATHS_A_TASK = 5000
"""Of a list on stdin: a request has some hundred KiB at most, and a task that is done is out of the way."""
FAILURES_SHOWN = 10
FAILURES_TOLD = 100
"""Of one task in JSON, and by `task show`; its report has all of them."""


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What all four commands take."""
    for option in reversed(
        (
            click.option("--no-wait", is_flag=True, help="Print the task's id and return; 'tasks' shows how it goes."),
            click.option("--report", metavar="S3URI", help="Also put the completion report below s3://…"),
            click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing."),
            AS_JSON,
        )
    ):
        function = option(function)
    return function


DELETES = click.option("--deletes", is_flag=True, help="Bring deletes over too.")
ACCEPT = click.option("--accept-deletes", is_flag=True, help="However many there are.")
NULLS = click.option(
    "-0", "--null", "nulls", is_flag=True, help="With '-': names end in NUL, as find -print0 has them."
)


@click.command(short_help="Bring what is new or changed to the repository.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@DELETES
@ACCEPT
@NULLS
@task_options
@click.pass_obj
def export(instance: Instance, /, paths: Sequence[str], **options: Any) -> None:
    """Export what is new or changed at and below PATH, also where automatic export is off or still to come.

    Changes on both sides are conflicts, as they always are: no object is overwritten that was not seen.
    "-" reads paths from stdin.

    \b
    Examples:
      fsxsync export /fsx/results
      fsxsync export --deletes --dry-run /fsx/results
    """
    run_task(instance, TaskType.EXPORT, paths, options)


@click.command("import", short_help="Bring the repository's listing to the tree.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@DELETES
@ACCEPT
@NULLS
@task_options
@click.pass_obj
def import_(instance: Instance, /, paths: Sequence[str], **options: Any) -> None:
    """Import what is new or changed in the repository at and below PATH (without: everywhere). Data is loaded on
    first use, as ever. PATH may be an s3:// address in a linked repository.

    \b
    Examples:
      fsxsync import /fsx/datasets
      fsxsync import s3://bucket/datasets/2026/ --deletes
    """
    run_task(instance, TaskType.IMPORT, paths, options)


@click.command(short_help="Free the space of files that the repository has.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--idle-for",
    "idle_s",
    type=AGE,
    help="Only files that nobody read, wrote or changed for longer than that: 7d, 12h.",
)
@NULLS
@task_options
@click.pass_obj
def release(instance: Instance, /, paths: Sequence[str], **options: Any) -> None:
    """Free the space of files at and below PATH. They stay as they are to look at, and are loaded again on use.

    Refused, with the reason in the report, is whatever the repository does not have for certain: files that were
    never exported or changed since, are open or pending, or whose object is gone. "-" reads paths from stdin.

    \b
    Examples:
      fsxsync release /fsx/datasets --idle-for 7d
      find /fsx -size +1G -print0 | fsxsync release -0 -
    """
    run_task(instance, TaskType.RELEASE, paths, options)


@click.command(short_help="Load the data of released files.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@NULLS
@task_options
@click.pass_obj
def restore(instance: Instance, /, paths: Sequence[str], **options: Any) -> None:
    """Load the data of released files at and below PATH, many at a time, behind what somebody waits for in a read.
    "-" reads paths from stdin.

    \b
    Examples:
      fsxsync restore /fsx/datasets/tonight
      fsxsync restore - < files-of-the-job
    """
    run_task(instance, TaskType.RESTORE, paths, options)


@click.command(short_help="Bring both sides together, deletes included.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@ACCEPT
@NULLS
@task_options
@click.pass_obj
def reconcile(instance: Instance, /, paths: Sequence[str], **options: Any) -> None:
    """Compare tree and repository at and below PATH (without: everywhere), and bring over what differs, both ways and
    deletes included, whatever of that the associations do by themselves.

    \b
    Example:
      fsxsync reconcile --dry-run /fsx/datasets
    """
    run_task(instance, TaskType.RECONCILE, paths, options)


def run_task(instance: Instance, kind: TaskType, paths: Sequence[str], options: dict[str, Any]) -> None:
    """Begin a task, or several for a long list, one after the other; follow each to its end.

    Raises:
        TaskFailed: some of its files failed, or it could not go on.
    """
    client = instance.client
    status = client.where()
    named = paths or (str(status["mount"] or status["tree"]),)
    wanted: Document = {"type": kind.value, "report": options["report"]}
    wanted |= {name: True for name in ("deletes", "accept_deletes") if options.get(name)}
    if options.get("idle_s") is not None:
        wanted["idle_s"] = options["idle_s"]
    root = os.path.realpath(status["mount"] or status["tree"])
    pieces = ((piece, _asked(piece, status)) for piece in _pieces(named, nulls=options["nulls"]))
    if options["dry_run"]:
        plans = (_plan_one(client, typed, {**wanted, "paths": asked}) for typed, asked in pieces)
        _show_plan(chain.from_iterable(plans), root, as_json=options["as_json"])
        return
    ended = [_run_one(client, typed, {**wanted, "paths": asked}, root, options) for typed, asked in pieces]
    if options["as_json"]:
        output.document(ended[0] if len(ended) == 1 else ended)
    if not options["no_wait"]:
        _check(ended)


def _plan_one(client: Client, typed: Sequence[str], wanted: Document) -> Iterator[Document]:
    with as_typed(typed, list(map(os.fsencode, wanted["paths"]))):
        for line in client.plan_task(wanted):
            if "error" in line:
                raise DaemonError(line["error"])
            yield line["planned"]


def _run_one(client: Client, typed: Sequence[str], wanted: Document, root: str, options: dict[str, Any]) -> Document:
    with as_typed(typed, list(map(os.fsencode, wanted["paths"]))):
        task = client.create_task(wanted)
    if not options["as_json"]:
        click.echo(task["id"])
    if options["no_wait"]:
        return task
    task = follow(client, task["id"], is_quiet=options["as_json"])
    if task["lifecycle"] == "SUCCEEDED":
        return task
    task = client.task(task["id"], failures=FAILURES_TOLD)
    if not options["as_json"]:
        _complain(task, root)
    return task


def _check(ended: Sequence[Document]) -> None:
    for task in ended:
        if task["lifecycle"] != "SUCCEEDED":
            raise TaskFailed(f"{task['id']} is {task['lifecycle']}", task["failure"])


def _complain(task: Document, root: str) -> None:
    """The first failures, a line each: what failed, and why."""
    for failure in task["failures"][:FAILURES_SHOWN]:
        path = os.path.join(root, failure["path"])
        click.echo(f"fsxsync: {escape(path)}: {failure['code']}: {escape(failure['message'])}", err=True)
    if len(task["failures"]) > FAILURES_SHOWN:
        click.echo(f"fsxsync: and more: 'fsxsync task show {task['id']}'", err=True)


def _asked(names: Sequence[str], status: Document) -> list[str]:
    """Paths of the tree, and ``s3://`` addresses as they are."""
    local = [name for name in names if not name.startswith("s3://")]
    found = dict(zip(local, tree_paths(local, status), strict=True))
    return [os.fsdecode(found[name]) if name in found else name for name in names]


def _pieces(names: Sequence[str], *, nulls: bool) -> Iterator[list[str]]:
    """The names, those on stdin in the place of '-', so many as one task takes at a time."""
    piece: list[str] = []
    for name in names:
        for one in _listed(nulls=nulls) if name == "-" else (name,):
            piece.append(one)
            if len(piece) == PATHS_A_TASK:
                yield piece
                piece = []
    if piece:
        yield piece
    elif names == ("-",):
        raise BadInput("there is nothing to do", "the list on stdin is empty", advice="give it a path a line")


def _listed(*, nulls: bool) -> Iterator[str]:
    end, rest = (b"\0" if nulls else b"\n"), b""
    while block := os.read(sys.stdin.fileno(), 1 << 16):
        *whole, rest = (rest + block).split(end)
        yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)


def _show_plan(planned: Iterator[Document], root: str, *, as_json: bool) -> None:
    rows = (one | {"path": os.path.join(root, one["path"])} for one in planned)
    if as_json:
        output.documents(rows)
        return
    counts: dict[str, int] = {}
    size = 0
    for row in rows:
        counts[row["action"]] = counts.get(row["action"], 0) + 1
        size += row["size"] if row["code"] is None else 0
        why = f": {row['code']}: {row['why']}" if row["code"] else ""
        click.echo(f"{row['action']} {escape(row['path'])}{escape(why)}")
    told = ", ".join(f"{action} {count}" for action, count in sorted(counts.items())) or "nothing to do"
    click.echo(f"dry run: {told} ({output.size(size)}); nothing was done", err=True)


# ------------------------------------------------------------- looking at tasks


@click.command("tasks", short_help="List data repository tasks.")
@AS_JSON
@click.pass_obj
def tasks(instance: Instance, /, *, as_json: bool) -> None:
    """List tasks, those of the last 14 days included, the newest last.

    \b
    Example:
      fsxsync tasks --json | jq -r '.[] | select(.lifecycle == "FAILED") | .id'
    """
    found = instance.client.tasks()
    if as_json:
        output.documents(found)
        return
    columns = ("id", "type", "lifecycle", "total", "succeeded", "failed", "bytes", "start", "end")
    output.table(columns, map(_row, found))


def _row(task: Document) -> tuple[str, ...]:
    return (
        task["id"],
        task["type"],
        task["lifecycle"],
        str(task["total"]),
        str(task["succeeded"]),
        str(task["failed"]),
        output.size(task["bytes"]),
        _time(task["start_s"]),
        _time(task["end_s"]),
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


@click.group(short_help="Look at a task, or cancel it.")
def task() -> None:
    """Look at one data repository task, or cancel it."""


@task.command("show", short_help="Show a task and what failed.")
@click.argument("task_id", metavar="ID")
@AS_JSON
@click.pass_obj
def task_show(instance: Instance, /, task_id: str, *, as_json: bool) -> None:
    """Show a task and the first hundred files that failed; the report in the state directory has all of them.

    \b
    Example:
      fsxsync task show task-0123456789abcdef0
    """
    found = instance.client.task(task_id, failures=FAILURES_TOLD)
    if as_json:
        output.document(found)
        return
    failures = [f"{one['path']}: {one['code']}: {one['message']}" for one in found["failures"]]
    paths = ["/" + path if "://" not in path else path for path in found["paths"]]
    output.fields(
        (
            ("id", found["id"]),
            ("type", found["type"]),
            ("lifecycle", found["lifecycle"]),
            ("paths", "\n".join(map(escape, paths)) or "/"),
            ("files", f"{found['succeeded']} succeeded, {found['failed']} failed, of {found['total']}"),
            ("bytes", output.size(found["bytes"])),
            ("created", _time(found["created_s"])),
            ("start", _time(found["start_s"])),
            ("end", _time(found["end_s"])),
            ("report", str(instance.state_dir / "reports" / found["id"]) if found["ended"] else "-"),
            ("failure", found["failure"] or "-"),
            ("failed", "\n".join(map(escape, failures)) or "-"),
        )
    )


@task.command("cancel", short_help="Cancel a task.")
@click.argument("task_id", metavar="ID")
@AS_JSON
@click.pass_obj
def task_cancel(instance: Instance, /, task_id: str, *, as_json: bool) -> None:
    """Begin nothing more of a task. What is in flight is finished, and nothing is taken back.

    \b
    Example:
      fsxsync task cancel task-0123456789abcdef0
    """
    told = instance.client.cancel_task(task_id)
    if as_json:
        output.document(told)
    else:
        click.echo(f"{told['id']} is {told['lifecycle']}")
