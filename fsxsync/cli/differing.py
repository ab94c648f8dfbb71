"""``diff``: where do tree and repository differ?"""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import tree_paths
from fsxsync.cli.output import AS_JSON, documents
from fsxsync.control.client import Document
from fsxsync.control.protocol import DaemonError
from fsxsync.telemetry.log import escape


@click.command(short_help="Compare tree and repository.")
@click.argument("path", required=False)
@AS_JSON
@click.pass_context
def diff(context: click.Context, path: str | None, *, as_json: bool) -> None:
    """Compare tree and repository below PATH (without: everywhere). Changes nothing.

    A line for each difference: A only local, R only remote, L local changed, M remote changed, C both changed, T a
    file on one side and a directory on the other. What filters leave out is not compared. Exit code 0 if there is no
    difference, 1 if there is one.

    \b
    Example:
      fsxsync diff /fsx/datasets || fsxsync wait /fsx/datasets
    """
    instance: Instance = context.obj
    status = instance.client.where()
    root = os.path.realpath(status["mount"] or status["tree"] or "/")
    count = 0

    def found() -> Iterator[Document]:
        nonlocal count
        for line in instance.client.diff(tree_paths([path], status)[0] if path is not None else b""):
            if "error" in line:
                raise DaemonError(line["error"])
            count += 1
            yield line["difference"] | {"path": os.path.join(root, line["difference"]["path"])}

    if as_json:
        documents(found())
    else:
        for one in found():
            click.echo(f"{one['change']} {escape(one['path'])}")
    context.exit(1 if count else 0)
