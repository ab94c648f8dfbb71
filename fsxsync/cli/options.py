"""Options of an association: `associate` takes all of them, `association update` those that can change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fsxsync.control.wanted import ACLS, ID_MAX, POLL_MAX_S, RESTORE_DAYS_MAX, RESTORES
from fsxsync.model.association import DEFAULT_EXCLUDES, Event, OnConflict

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


class Owner(Matching):
    """``UID:GID``, or ``none``."""

    def __init__(self) -> None:
        super().__init__("UID:GID|none", r"[0-9]{1,10}:[0-9]{1,10}|none", "an owner like 65534:65534, or none")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if text != "none" and max(map(int, text.split(":"))) > ID_MAX:
            self.fail(f"'{text}' has an id over {ID_MAX}", param, ctx)
        return text


class Amount(click.ParamType[int]):
    """A number with a unit, as a whole number of the smallest one; ``none`` is 0."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name = name
        self._units = units
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        matched = re.fullmatch(r"([0-9]{1,18})([A-Za-z]*)", str(value))
        if value == "none":
            return 0
        if matched is None or matched[2] not in self._units:
            self.fail(f"'{value}' is not {self._example}, or none", param, ctx)
        return int(matched[1]) * self._units[matched[2]]


SIZE = Amount(
    "SIZE",
    {unit + end: 1024**power for power, unit in enumerate(["", "K", "M", "G", "T"]) for end in ("", "B", "iB")},
    "a size like 500, 64K or 2G",
)
AGE = Amount(
    "AGE", {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}, "a time like 30, 15m, 12h, 7d or 2w"
)
SOURCE = Matching("sqs:QUEUE_URL|create", r"sqs:https?://[^/\s]+/\S+|create|none", "sqs:QUEUE_URL or create (or none)")
ENDPOINT = Matching(
    "URL", r"https?://[^/\s@?#]+(/[^\s?#]*)?", "an http:// or https:// URL without credentials or query"
)
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
    click.option(
        "--include", multiple=True, metavar="GLOB", help="Sync only what matches; repeatable. '' for no such limit."
    ),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches; repeatable. '' for none."),
    click.option(
        "--default-excludes/--no-default-excludes",
        default=None,
        help=f"Leave out {', '.join(DEFAULT_EXCLUDES)}, too (default: yes).",
    ),
    click.option("--min-size", type=SIZE, metavar="SIZE", help="Leave out smaller files and objects, e.g. 64K."),
    click.option("--max-size", type=SIZE, metavar="SIZE", help="Leave out larger ones, e.g. 5G; none = no limit."),
    click.option(
        "--min-age", "min_age_s", type=AGE, metavar="AGE", help="Let content wait until it is that old, e.g. 15m."
    ),
    click.option(
        "--max-age", "max_age_s", type=AGE, metavar="AGE", help="Leave out what is older when first seen, e.g. 30d."
    ),
    click.option("--endpoint-url", type=ENDPOINT, help="An S3-compatible store that is not AWS."),
    click.option("--region", type=REGION, help="The bucket's region."),
    click.option("--profile", metavar="NAME", help="A profile of ~/.aws/config; credentials are not stored."),
    click.option("--anonymous", is_flag=True, default=None, help="Send requests without credentials; read-only."),
    click.option(
        "--requester-pays",
        is_flag=True,
        default=None,
        help="Say with each request that you pay for it, as such buckets want it.",
    ),
    click.option("--acl", type=click.Choice(ACLS), metavar="NAME", help="Canned ACL of new objects."),
    click.option("--sse", type=SSE, metavar="AES256|aws:kms[:KEY]", help="Server-side encryption of new objects."),
    click.option("--storage-class", type=STORAGE_CLASS, help="Storage class of new objects."),
    click.option(
        "--export-xattrs/--no-export-xattrs",
        default=None,
        help="Let extended attributes (user.*) travel as user metadata, both ways, up to S3's 2 KiB (default: no).",
    ),
    click.option(
        "--restore-archived",
        type=click.Choice(RESTORES),
        help="What reading a file whose object is archived asks for (default off: an error).",
    ),
    click.option(
        "--restore-days",
        type=click.IntRange(1, RESTORE_DAYS_MAX),
        metavar="DAYS",
        help="How long what was restored stays readable (default 7).",
    ),
    click.option("--uid", type=USER, metavar="ID", help="Owner of files whose objects have no POSIX metadata."),
    click.option("--gid", type=USER, metavar="ID", help="Group of such files."),
    click.option("--file-mode", type=MODE, help="Mode of such files (default 0644)."),
    click.option("--dir-mode", type=MODE, help="Mode of such directories (default 0755)."),
    click.option(
        "--squash",
        type=Owner(),
        metavar="UID:GID|none",
        help="Owner of all that is imported, whatever its object says (default none: the object's).",
    ),
)


def association_options(command: Command) -> Command:
    """Put them all on a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def members(given: dict[str, Any]) -> Document:
    """What was given, in the words of a request. What was not given is not in it."""
    renamed = {"import_": "import"}
    for name in ("include", "exclude"):
        if given.get(name) == ("",):
            given = given | {name: []}
    return {
        renamed.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and not (name in {"include", "exclude"} and value == ())
    }
