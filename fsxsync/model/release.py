"""May the data of a file go? Pure: what is known of the file on the one side, the first reason against it on the other.

Only what the repository certainly has may go (DESIGN §5): the file is as it was when both sides last agreed, nobody
uses it, nothing is about to happen to it, and its object is there in exactly that version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fsxsync.model.identity import Base, Kind, Local

_FILE = Kind.FILE  # judged by the hundred thousand: the enumeration is asked for its members in five times as long
ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that can't be read without a restore: what was released would not come back by itself."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``code`` is one of a completion report's (FSX-FACTS §4.2, §4.5)."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Use:
    """What goes on at a file, asked right before the decision."""

    is_open: bool = False
    """An application has it open, for reading or writing, or mapped."""
    is_loading: bool = False
    is_pending: bool = False
    """A hint waits at one of its names."""
    is_kept: bool = False
    """Somebody said norelease of it, or of a directory above it."""
    is_moving: bool = False
    """It was renamed, and its object is still to follow."""


class Seen(NamedTuple):
    """The object as the repository has it at this moment."""

    etag: str
    size: int
    storage_class: str = "STANDARD"
    archived: bool = False


class Unseen(NamedTuple):
    """The object could not be asked for; ``code`` is one of a completion report's."""

    code: str
    why: str


def refuse_release(local: Local, names: Sequence[Base], use: Use) -> Refusal | None:  # noqa: C901  a list of reasons
    """The first reason against releasing a resident file; None if only its objects are still to be looked at.

    ``names`` are the rows of all its names that there are rows of, that of the asked one first.
    """
    if local.kind is not _FILE:
        return Refusal("OperationNotPermitted", "it is no regular file")
    if use.is_kept:
        return Refusal("OperationNotPermitted", "it is kept here: norelease is set on it or above it")
    if use.is_moving:
        return Refusal("S3ObjectUpdateInProgressFromFileRename", "it was renamed, and its object is still to follow")
    if not names:
        return Refusal("OperationNotPermitted", "it was never exported")
    if use.is_loading:
        return Refusal("ResourceBusy", "its data is being loaded")
    if use.is_open:
        return Refusal("ResourceBusy", "it is open")
    for row in names:
        if row.kind is not _FILE or row.etag is None or row.remote_size != row.size:
            return Refusal("OperationNotPermitted", "it was never exported")
        if row.released or not row.matches_local(local):
            return Refusal("OperationNotPermitted", "it was changed since its export")
    if use.is_pending:
        return Refusal("ResourceBusy", "a change of it is pending")
    if len(names) != local.nlink:
        return Refusal("OperationNotPermitted", "it has another name (a hard link) that was never exported")
    return None


def refuse_object(row: Base, seen: Seen | Unseen | None) -> Refusal | None:
    """The reason against it that lies in the repository: the version that the file holds must be there."""
    if isinstance(seen, Unseen):
        return Refusal(seen.code, seen.why)
    if seen is None:
        return Refusal("SourceObjectDeletedBeforeReleasing", "its object is gone")
    if (seen.etag, seen.size) != (row.etag, row.remote_size):
        return Refusal("SourceObjectDeletedBeforeReleasing", "its object is another version now")
    if seen.archived or seen.storage_class in ARCHIVE_CLASSES:
        return Refusal("S3ObjectInUnsupportedTier", f"its object's storage class is {seen.storage_class}")
    return None


def idle_since_ns(local: Local) -> int:
    """When somebody last did something with a file, as FSx counts it (FSX-FACTS §4.2)."""
    return max(local.atime_ns, local.mtime_ns, local.ctime_ns)


def is_idle(local: Local, *, created_ns: int, idle_ns: int) -> bool:
    """Nobody touched it for longer than ``idle_ns`` when the task was made. 0: regardless of its age."""
    return idle_ns == 0 or created_ns - idle_since_ns(local) > idle_ns
