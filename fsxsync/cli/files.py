"""``state`` and ``wait``: what becomes of files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence

import click

from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import named, tree_paths
from fsxsync.cli.output import AS_JSON, written_documents
from fsxsync.control.client import Document
from fsxsync.control.protocol import DaemonError
from fsxsync.errors import BadInput, StillPending
from fsxsync.model.flags import NAMES
from fsxsync.telemetry.log import escape

SHOWN = 3
"""How many pending paths the one line of a time-out names."""


@click.command(short_help="Tell where the data of files is.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@AS_JSON
@click.option("-r", "--recursive", is_flag=True, help="Also everything below directories.")
@click.option(
    "--set",
    "flag_set",
    type=click.Choice(NAMES),
    help="norelease: its data is never released. noarchive: it is not exported.",
)
@click.option("--clear", "flag_cleared", type=click.Choice(NAMES), help="Take that back.")
@click.pass_context
def state(
    context: click.Context,
    paths: Sequence[str],
    *,
    as_json: bool,
    recursive: bool,
    flag_set: str | None,
    flag_cleared: str | None,
) -> None:
    """Tell where the data of files is, in the words of `lfs hsm_state`.

    released: here is only a stub, the data is in the repository. exists, archived: the repository has the
    file. dirty: the file was changed since. lost_from_hsm: the object is gone. Nothing: never exported.
    never_release, never_archive: what --set said of it, or of a directory above it.

    \b
    Example:
      fsxsync state /fsx/datasets/a.bin
      fsxsync state --set norelease /fsx/datasets
      fsxsync state -r --json /fsx/datasets | jq '[.[] | select(.pending)] | length'
    """
    instance: Instance = context.obj
    client = instance.client
    asked = tree_paths(paths, client.where())
    for path in paths:
        _flag(path, flag_set, flag_cleared)
    failures: list[Document] = []
    found = _named(client.state_lines(asked, recursive=recursive), paths, asked, failures)
    if as_json:
        written_documents(found)
    else:
        for rows in found:
            click.echo("".join(map(_told, json.loads(b"[%b]" % b",".join(rows)))), nl=False)
    for failure in failures:
        click.echo(f"fsxsync: {escape(str(named(DaemonError(failure), paths, asked)))}", err=True)
    context.exit(1 if failures else 0)


def _flag(path: str, flag_set: str | None, flag_cleared: str | None) -> None:
    """Through the mount, with the rights of whoever asks. Raises FsxSyncError."""
    try:
        if flag_set is not None:
            os.setxattr(path, f"user.fsxsync.{flag_set}", b"1", follow_symlinks=False)
        if flag_cleared is not None:
            os.removexattr(path, f"user.fsxsync.{flag_cleared}", follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return  # it was not set
        word = f"--set {flag_set}" if flag_set else f"--clear {flag_cleared}"
        raise BadInput(f"state {word} {path}", error.strerror or str(error), advice="ask its owner") from error


def _told(row: Document) -> str:
    return f"{escape(row['path'])}: (0x{row['state']:08x}) {' '.join(row['flags'])}".rstrip() + "\n"


def _named(
    batches: Iterator[list[bytes]], paths: Sequence[str], asked: Sequence[bytes], failures: list[Document]
) -> Iterator[list[bytes]]:
    """Each state as JSON, with the name that the user would write for it.

    The path comes first in a line, so that the name is put there without reading the rest: there may be a million.
    """
    head, itself, inside = b"\n", b"", b""  # no line has it
    for lines in batches:
        found: list[bytes] = []
        for line in lines:
            if not line.startswith(head):
                answer = json.loads(line)
                if "error" in answer:
                    failures.append(answer["error"])
                    continue
                index = answer["index"]
                head = b'{"index": %d, "state": {"path": "%b' % (index, _inner(os.fsdecode(asked[index])))
                itself = b'{"path": "' + _inner(paths[index])
                inside = itself if itself.endswith(b"/") else itself + b"/"
            rest = line[len(head) : -1]
            found.append(itself + rest if rest.startswith(b'"') else inside + rest.lstrip(b"/"))
        yield found


def _inner(text: str) -> bytes:
    """As it stands between the quotes of JSON."""
    return json.dumps(text)[1:-1].encode()


@click.command(short_help="Wait until nothing is pending.")
@click.argument("path", required=False)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 30 * 86400),
    default=3600,
    show_default=True,
    metavar="S",
    help="Seconds after which to give up, with exit code 1.",
)
@click.pass_obj
def wait(instance: Instance, /, path: str | None, *, timeout_s: float) -> None:
    """Return when nothing is pending below PATH (without: anywhere), in either direction.

    All changes that were made before, on both sides, are then on the other side: queue and listing are read up
    to now first. Says what is pending still if that takes too long.

    \b
    Example:
      cp results.csv /fsx/out/ && fsxsync wait /fsx/out --timeout 60
    """
    client = instance.client
    tree_path = tree_paths([path], client.where())[0] if path is not None else b""
    left = client.wait(tree_path, timeout_s)
    if left:
        named = ", ".join(_reason(item) for item in left[:SHOWN])
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise StillPending(f"changes are pending after {timeout_s:g} s", named + more)


def _reason(item: Document) -> str:
    why = item["error"] or item["waiting_for"]
    return f"{item['path']} ({why})" if why else str(item["path"])
