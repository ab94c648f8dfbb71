"""``events``: the event log, read from its files, so that it tells also why a daemon is not there."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsxsync.cli.context import Instance
from fsxsync.cli.hostpaths import tree_paths
from fsxsync.cli.output import AS_JSON
from fsxsync.control.protocol import DaemonError
from fsxsync.control.wanted import find
from fsxsync.errors import AssociationNotFound, BadInput, NoDaemon
from fsxsync.telemetry.log import escape

if TYPE_CHECKING:
    from fsxsync.telemetry.eventlog import Event, EventLog

EVERY_S = 0.2
"""How often `--follow` looks at the file."""
KEPT_MAX = 100
"""Rotated files that a daemon may have been told to keep."""
LEVELS = ("INFO", "WARN", "ERROR")
ROTATED_MAX_BYTES = 1 << 30


@click.command(short_help="Show the event log.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new events as they come.")
@AS_JSON
@click.option("--association", metavar="ID|PATH", help="Only events of this association.")
@click.option("--level", type=click.Choice(LEVELS), help="Only these and worse ones.")
@click.pass_obj
def events(instance: Instance, /, *, follow: bool, as_json: bool, association: str | None, level: str | None) -> None:
    """Show the event log, the oldest event first, with FSx's codes. Needs no daemon, but to know an association by its
    path: that in the file system, or where it is on this host.

    --json prints one list; with --follow, which has no end, it prints one object a line.

    \b
    Example:
      fsxsync events --level WARN
      fsxsync events --follow --json | jq -r .message
    """
    if not instance.state_dir.is_dir():
        raise BadInput(
            "no events can be shown",
            f"there is no state directory {instance.state_dir}",
            advice="name another --state-dir",
        )
    if association is not None:
        association = _by_path(instance, association) if "/" in association else _by_id(instance, association)
    found = _events(instance.state_dir, level, association, follow=follow)
    if as_json and not follow:
        _print_list(found)
        return
    for event in found:
        click.echo(json.dumps(_document(event)) if as_json else _line(event))


def _by_id(instance: Instance, word: str) -> str:
    """The id, if there is such an association, or was when the log was written. Raises FsxSyncError."""
    try:
        return str(instance.client.association(word)["id"])
    except NoDaemon:
        unknown = None
    except DaemonError as error:
        unknown = error
    if next(_events(instance.state_dir, None, word, follow=False), None) is not None:
        return word
    if unknown is not None:
        raise unknown
    with contextlib.suppress(AssociationNotFound):  # who knows: its daemon is not there
        find(word, ())
    return word


def _by_path(instance: Instance, word: str) -> str:
    """The id of the association at a path of the file system, as it is named when it is made, or else at one of this
    host, as a shell completes it. Raises FsxSyncError."""
    client = instance.client
    try:
        return str(client.association(word)["id"])
    except DaemonError as unknown:
        try:
            (tree_path,) = tree_paths([word], client.where())
        except BadInput:
            raise unknown from None
        return str(client.association("/" + os.fsdecode(tree_path))["id"])


def events_of_path(state_dir: Path, path: str, count: int) -> list[dict[str, object]]:
    """The last events of one path, the oldest of them first; ``path`` is from the file system's root, as os.fsdecode
    gives it."""
    wanted = {path, escape(path)}  # an older version wrote it escaped
    found = (_document(event) for event in _events(state_dir, None, None, follow=False) if event.path in wanted)
    return list(collections.deque(found, maxlen=count))


def event_line(event: Mapping[str, object]) -> str:
    """One event as `why` shows it below its path."""
    return "  ".join(escape(str(event[name])) for name in ("time", "level", "code", "message"))


def _events(state_dir: Path, level: str | None, association: str | None, *, follow: bool) -> Iterator[Event]:
    file = state_dir / "events.jsonl"
    cursor = 0
    while True:
        seen = _mark(file)
        while page := _page(file, cursor):
            cursor = page[-1].seq
            yield from (event for event in page if _fits(event, level, association))
        if not follow:
            return
        while _mark(file) == seen:
            time.sleep(EVERY_S)


def _fits(event: Event, level: str | None, association: str | None) -> bool:
    if association is not None and event.association != association:
        return False
    return level is None or event.level not in LEVELS or LEVELS.index(event.level) >= LEVELS.index(level)


def _page(file: Path, cursor: int) -> list[Event]:
    """The next events. The daemon may rotate the files while they are read, one after the other, and then those of
    one file are passed over; but their numbers rise by one, so that is seen, and read again. Numbers that are missing
    for good (a line that a power cut tore) are missing the second time too."""
    before: list[Event] | None = None
    while True:
        try:
            page, _ = _open(file).read(cursor)
        except FileNotFoundError:  # moved away between the look and the open
            continue
        numbers = [event.seq for event in page]
        if (before is not None and page[: len(before)] == before) or numbers == list(
            range(cursor + 1, cursor + 1 + len(page))
        ):
            return page
        before = page


def _open(file: Path) -> EventLog:
    from fsxsync.telemetry.eventlog import EventLog  # noqa: PLC0415 - it takes trio along

    return EventLog(file, max_bytes=ROTATED_MAX_BYTES, keep=KEPT_MAX)


def _mark(file: Path) -> tuple[int, int] | None:
    """Another one as soon as the file has grown or was rotated."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size


def _print_list(found: Iterator[Event]) -> None:
    separator = "[\n"
    for event in found:
        click.echo(separator + json.dumps(_document(event)), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _document(event: Event) -> dict[str, object]:
    return {
        "seq": event.seq,
        "time": _time(event),
        "time_ns": event.time_ns,
        "level": event.level,
        "code": event.code,
        "type": event.type,
        "flow": event.flow,
        "association": event.association,
        "path": event.path,
        "key": event.key,
        "message": event.message,
    }


def _line(event: Event) -> str:
    parts = (_time(event), f"{event.level:<5}", event.code, event.association, event.path, event.message)
    return "  ".join(escape(part) for part in parts if part)


def _time(event: Event) -> str:
    seconds, rest = divmod(event.time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 10**6:03d}Z"
