"""``status``: the daemon, and whether anything needs a person."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.output import AS_JSON
from fsxsync.control.client import Document

GUARDS = ("put_if_match", "put_if_none_match", "complete_if_match", "complete_if_none_match", "delete_if_match")
"""Conditions without which a write or delete is preceded by a look."""


@click.command(short_help="Tell how the daemon is doing.")
@AS_JSON
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> None:
    """Tell how the daemon is doing. Exit code 1 if anything needs a person.

    \b
    Example:
      fsxsync status || fsxsync events --level WARN
    """
    instance: Instance = context.obj
    told = instance.client.status()
    if as_json:
        output.document(told)
    else:
        output.fields(_lines(told))
    context.exit(1 if told["needs_person"] else 0)


def _lines(told: Document) -> Iterator[tuple[str, str]]:
    yield "version", f"{told['version']}, pid {told['pid']}, up {output.age(time.time() - told['started_s'])}"
    yield "state dir", told["state_dir"]
    yield "mount", told["mount"] or "none"
    yield "tree", told["tree"]
    reason = told["data_path_reason"]
    yield "data path", told["data_path"] + (f" ({reason})" if reason else "")
    yield "watch", told["watch"]
    yield "cache", f"{output.size(told['cache_bytes'])} used, {output.size(told['cache_free_bytes'])} free"
    if told["transfers"]:
        yield "transfers", ", ".join(_transfer(*pair) for pair in told["transfers"].items())
    yield "open", f"{told['open_for_writing']} files for writing"
    for row in told["associations"]:
        yield "association", _association(row)
    if not told["associations"]:
        yield "association", "none"
    for complaint in told["needs_person"]:
        yield "needs you", complaint


def _transfer(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{name.removeprefix('bytes_').removesuffix('_per_s')} {output.size(value)}/s"
    shown = output.size(value) if name.startswith("bytes") else f"{value:g}"
    return f"{name.replace('_', ' ')} {shown}"


def _association(row: Document) -> str:
    features = output.words(word for word, is_there in (row["features"] or {}).items() if is_there)
    oldest = f", the oldest since {output.age(row['oldest_pending_s'])}" if row["pending"] else ""
    lines = [
        f"{row['id']} {row['path']} <-> {row['repository']}: {row['state']}",
        f"pending {row['pending']} ({row['pending_imports']} in, {row['pending_exports']} out){oldest}",
        f"conflicts {row['conflicts']}, errors {row['errors']}, not exportable {row['not_exportable']}",
        f"held {row['held']}, restoring {row['restoring']}",
        f"imported {row['imported']}, exported {row['exported']}",
        f"source {row['source'] or 'none'}; the store obeys {features}",
    ]
    if unguarded := [word for word in GUARDS if row["features"] and not row["features"][word]]:
        # The window that DESIGN §3.2 leaves open on such a store; docs/SEMANTICS.md says what can happen in it.
        lines.append(f"looked at right before, with a window of one request: {output.words(unguarded)}")
    if row["failure"]:
        lines.append(row["failure"])
    lines += [f"{item['path']}: {item['error']}" for item in row["recent_errors"]]
    return "\n".join(lines)
