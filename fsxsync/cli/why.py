"""``why``: what is known of one path, and what it means."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.events import event_line, events_of_path
from fsxsync.cli.hostpaths import tree_paths
from fsxsync.cli.output import AS_JSON
from fsxsync.control.client import Document
from fsxsync.errors import BadInput

EVENTS = 5
"""The last ones of the path that are shown."""


@click.command(short_help="Explain the state of a path.")
@click.argument("path", metavar="PATH")
@AS_JSON
@click.pass_obj
def why(instance: Instance, /, path: str, *, as_json: bool) -> None:
    """Explain a path in words: what it is here, in the repository and when both last agreed; why it is not exported,
    pending, failed, lost, in conflict, excluded or released; what would be done next, and what to do.

    Looks at the object now, and changes nothing.

    \b
    Example:
      fsxsync why /fsx/datasets/a.bin
      fsxsync why --json /fsx/datasets/a.bin | jq -r '.why[]'
    """
    client = instance.client
    (tree_path,) = tree_paths([path], client.where())
    told = client.why(tree_path)
    if not any(told[name] for name in ("local", "remote", "remote_error", "base", "pending")):
        raise BadInput(path, "no such file or directory, here or in the repository")
    events = events_of_path(instance.state_dir, "/" + tree_path.decode("utf-8", "surrogateescape"), EVENTS)
    told["advice"] = [advice.replace("PATH", path) for advice in told["advice"]]
    if as_json:
        output.document(told | {"path": os.path.abspath(path), "events": events})
    else:
        output.fields(_pairs(path, told, [event_line(event) for event in events]))


def _pairs(path: str, told: Document, events: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield "path", path
    yield "is", told["state"]
    if told["association"]:
        yield "in", f"{told['association']}: {told['directory']} <-> {told['repository']}"
        yield "key", told["key"] or "none"
    yield "here", _version(told["local"])
    yield "synced", _version(told["base"])
    yield "object", "unknown" if told["remote_error"] else _version(told["remote"])
    yield "why", "\n".join(told["why"])
    yield "next", told["next"]
    if told["advice"]:
        yield "to do", "\n".join(told["advice"])
    if events:
        yield "events", "\n".join(events)


def _version(version: Document | None) -> str:
    if version is None:
        return "none"
    seconds = version.get("mtime_s", version.get("last_modified_s", 0))
    parts = [
        version["kind"],
        output.size(version["size"]) if version["kind"] == "file" else "",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        f"mode {version['mode']}" if "mode" in version else "",
        f"etag {version['etag']}" if version.get("etag") else "",
        f"version {version['version_id']}" if version.get("version_id") else "",
        "released" if version.get("released") else "",
        version.get("storage_class", ""),
    ]
    return ", ".join(part for part in parts if part)
