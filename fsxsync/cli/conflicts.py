"""``conflicts`` and ``conflicts resolve``: paths with two versions, and which one it shall be."""

from __future__ import annotations

import os
import time

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import tree_paths
from fsxsync.cli.output import AS_JSON
from fsxsync.control.client import Document
from fsxsync.telemetry.log import escape

COLUMNS = ("detected", "path", "kind", "here", "in the repository", "kept as")


@click.group(invoke_without_command=True, short_help="List the open conflicts, or resolve one.")
@AS_JSON
@click.pass_context
def conflicts(context: click.Context, *, as_json: bool) -> None:
    """List paths of which two versions are kept, until somebody decides.

    kept: the object took the path, the file lies beside it. blocked: the policy lets neither move. clash: a file
    here and a directory there, or the other way round.

    \b
    Examples:
      fsxsync conflicts --json | jq -r '.[].path'
      fsxsync conflicts resolve /fsx/notes.txt --keep local
    """
    if context.invoked_subcommand is not None:
        return
    instance: Instance = context.obj
    status = instance.client.where()
    rows = [_on_host(row, status) for row in instance.client.conflicts()]
    if as_json:
        output.document(rows)
    elif rows:
        output.table(COLUMNS, [_row(row) for row in rows])


def _on_host(row: Document, status: Document) -> Document:
    root = os.path.realpath(status["mount"] or status["tree"])
    kept_as = os.path.join(root, row["kept_as"]) if row["kept_as"] else None
    return row | {"path": os.path.join(root, row["path"]), "kept_as": kept_as}


def _row(row: Document) -> tuple[str, ...]:
    local, remote = row["local"], row["remote"]
    return (
        _moment(row["detected_s"]),
        row["path"],
        row["kind"],
        f"{output.size(local['size'])}, {_moment(local['mtime_s'])}" if local else "-",
        f"{output.size(remote['size'])}, {_moment(remote['last_modified_s'])}" if remote else "-",
        os.path.basename(row["kept_as"]) if row["kept_as"] else "-",
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@conflicts.command(short_help="Decide which version it shall be.")
@click.argument("path")
@click.option(
    "--keep",
    required=True,
    type=click.Choice(["local", "remote", "both"]),
    help="local: the version made here; remote: the object; both: leave both, under two names.",
)
@click.pass_obj
def resolve(instance: Instance, /, path: str, *, keep: str) -> None:
    """Decide on the conflict of PATH, which is the path itself or its conflict copy.

    Nothing is done if either version was changed since it was listed, or is open for writing: list again, decide
    again. The object follows as after any change made here; 'fsxsync wait PATH' returns when it has.

    \b
    Example:
      fsxsync conflicts resolve /fsx/notes.txt --keep remote && fsxsync wait /fsx
    """
    status = instance.client.where()
    asked = tree_paths([path], status)[0]
    for row in instance.client.resolve(asked, keep):
        click.echo(f"{escape(_on_host(row, status)['path'])}: {keep} kept")
