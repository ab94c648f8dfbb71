"""Options of an association: `associate` takes all of them, `association update` those that can change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fsxsync.control.wanted import ACLS, ID_MAX, POLL_MAX_S, RESTORES
from fsxsync.model.association import Event, OnConflict

Command = TypeVar("Command", bound=Callable[..., Any])
Document = dict[str, object]

EVENT_WORDS = tuple(event.value.lower() for event in Event)


class EventList(click.ParamType[tuple[str, ...]]):
    """``new,changed,deleted``, a part of it, or ``none``."""

    name = "new,changed,deleted|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip().lower() for word in str(value).split(",")]
        if words == ["none"]:
            return ()
        for word in words:
            if word not in EVENT_WORDS:
                self.fail(f"'{word}' is none of {', '.join(EVENT_WORDS)}, or none alone", param, ctx)
        return tuple(word for word in EVENT_WORDS if word in words)


class Matching(click.ParamType[str]):
    """A word that a pattern describes; ``name`` is how the help shows it."""

    def __init__(self, name: str, pattern: str, wanted: str) -> None:
        self.name = name
        self._pattern = re.compile(pattern)
        self._wanted = wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._pattern.fullmatch(str(value)):
            self.fail(f"'{value}' is not {self._wanted}", param, ctx)
        return str(value)


SOURCE = Matching("sqs:QUEUE_URL|create", r"sqs:https?://[^/\s]+/\S+|create|none", "sqs:QUEUE_URL or create (or none)")
ENDPOINT = Matching("URL", r"https?://[^/\s]+\S*", "an http:// or https:// URL")
REGION = Matching("NAME", r"[A-Za-z0-9-]+", "a region's name like eu-central-1")
SSE = Matching("AES256|aws:kms[:KEY]", r"AES256|aws:kms(:.+)?", "AES256, aws:kms or aws:kms:KEY")
STORAGE_CLASS = Matching("NAME", r"[A-Z0-9_]+", "a storage class like STANDARD_IA")
MODE = Matching("MODE", r"(0o?)?[0-7]{3,4}", "an octal mode like 0644")
USER = click.IntRange(0, ID_MAX)

_OPTIONS = (
    click.option(
        "--import",
        "import_",
        type=EventList(),
        metavar="new,changed,deleted|none",
        help="Which changes of objects reach the files.",
    ),
    click.option(
        "--export",
        type=EventList(),
        metavar="new,changed,deleted|none",
        help="Which changes of files reach the objects.",
    ),
    click.option(
        "--events",
        type=SOURCE,
        metavar="sqs:QUEUE_URL|create",
        help="The queue that tells of changes of objects; 'create' makes one, and the bucket's notification.",
    ),
    click.option(
        "--poll",
        "poll_s",
        type=click.FloatRange(0, POLL_MAX_S),
        metavar="SECONDS",
        help="How often to read the listing; 0 = never. Default: 60 without --events, else 0.",
    ),
    click.option(
        "--on-conflict",
        type=click.Choice([choice.value for choice in OnConflict]),
        help="Whose version takes the path if both sides changed (default keep-both).",
    ),
    click.option("--include", multiple=True, metavar="GLOB", help="Sync only what matches; repeatable. See above."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches; repeatable."),
    click.option("--endpoint-url", type=ENDPOINT, help="An S3-compatible store that is not AWS."),
    click.option("--region", type=REGION, help="The bucket's region."),
    click.option("--profile", metavar="NAME", help="A profile of ~/.aws/config; credentials are not stored."),
    click.option("--anonymous", is_flag=True, default=None, help="Send requests without credentials."),
    click.option("--requester-pays", is_flag=True, default=None, help="Pay for requests of the bucket."),
    click.option("--acl", type=click.Choice(ACLS), metavar="NAME", help="Canned ACL of new objects."),
    click.option("--sse", type=SSE, metavar="AES256|aws:kms[:KEY]", help="Server-side encryption of new objects."),
    click.option("--storage-class", type=STORAGE_CLASS, help="Storage class of new objects."),
    click.option(
        "--restore-archived",
        type=click.Choice(RESTORES),
        help="What reading a file whose object is archived asks for (default off: an error).",
    ),
    click.option("--uid", type=USER, metavar="ID", help="Owner of files whose objects have no POSIX metadata."),
    click.option("--gid", type=USER, metavar="ID", help="Group of such files."),
    click.option("--file-mode", type=MODE, help="Mode of such files (default 0644)."),
    click.option("--dir-mode", type=MODE, help="Mode of such directories (default 0755)."),
)


def association_options(command: Command) -> Command:
    """Put them all on a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def members(given: dict[str, Any]) -> Document:
    """What was given, in the words of a request. What was not given is not in it."""
    renamed = {"import_": "import"}
    return {
        renamed.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and not (name in {"include", "exclude"} and not value)
    }
