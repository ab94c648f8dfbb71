"""An association: one directory of the tree linked to one bucket/prefix (FSx: data repository association)."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fsxsync.errors import AssociationOverlap, BadInput

DEFAULT_EXCLUDES = (".*.swp", "*~", ".nfs*", ".fuse_hidden*")
"""Left out unless an association says otherwise: what editors keep while a file is open, and names that a file system
makes for itself while a deleted file is open."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-_]{1,61}[a-z0-9]", re.IGNORECASE)
_FORBIDDEN = re.compile("[\0\x85\u2028\u2029\r\n]")


class Event(enum.Enum):
    """Which changes travel on their own (FSX-FACTS §2)."""

    NEW = "NEW"
    CHANGED = "CHANGED"
    DELETED = "DELETED"


ALL_EVENTS = frozenset(Event)


class Lifecycle(enum.Enum):
    CREATING = "CREATING"
    AVAILABLE = "AVAILABLE"
    MISCONFIGURED = "MISCONFIGURED"
    UPDATING = "UPDATING"
    DELETING = "DELETING"
    FAILED = "FAILED"


class OnConflict(enum.Enum):
    KEEP_BOTH = "keep-both"
    LOCAL = "local"
    REMOTE = "remote"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Policy:
    """What reconcile may do for one association."""

    imports: frozenset[Event] = ALL_EVENTS
    exports: frozenset[Event] = ALL_EVENTS
    on_conflict: OnConflict = OnConflict.KEEP_BOTH


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the repository. Holds names of credentials, never credentials."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    requester_pays: bool = False
    acl: str | None = None
    sse: str | None = None
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """Owner and modes of objects without POSIX metadata. None: the daemon's own user, 0644 and 0755."""

    uid: int | None = None
    gid: int | None = None
    file_mode: int = 0o644
    dir_mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes and ages in nanoseconds that take part in sync; None: no limit. Both ends belong to it."""

    min_size: int | None = None
    max_size: int | None = None
    min_age_ns: int | None = None
    max_age_ns: int | None = None

    def holds(self, size: int) -> bool:
        """The size is none that is left out."""
        return (self.min_size is None or size >= self.min_size) and (self.max_size is None or size <= self.max_size)


@dataclass(frozen=True, slots=True)
class Association:
    """``directory`` is the path below the tree's root, without slashes at its ends; b"" is the root itself.

    ``prefix`` ends in ``/`` or is empty. ``events`` is an SQS queue URL or None; ``poll_s`` 0 means never.
    """

    id: str
    directory: bytes
    bucket: str
    prefix: str
    policy: Policy = Policy()
    access: Access = Access()
    defaults: Defaults = Defaults()
    squash: tuple[int, int] | None = None
    """Owner and group of all that is imported, whatever its object says; None: the object's."""
    events: str | None = None
    events_made: bool = False
    """The queue and the bucket's notification were made by us (``--events create``), and go with the association."""
    poll_s: float = 60.0
    read_only: bool = False
    import_metadata: bool = True
    """FSx's BatchImportMetaDataOnCreate: import the listing when the association is made."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    default_excludes: bool = True
    limits: Limits = Limits()
    export_xattrs: bool = False
    """User extended attributes travel as user metadata, both ways."""
    restore_archived: str = "off"
    """``bulk``, ``standard``, ``expedited``: reading an archived object asks for its restore; ``off``: it fails."""
    restore_days: int = 7
    """How long what was restored stays readable; Intelligent-Tiering knows no such limit."""
    lifecycle: Lifecycle = Lifecycle.CREATING
    failure: str = ""
    """Why MISCONFIGURED or FAILED, at most 256 characters on the wire."""
    created_s: float = 0.0
    chunk_size_mib: int = 1024
    """FSx's ImportedFileChunkSize: stored and echoed; it means nothing on one host."""
    tags: tuple[tuple[str, str], ...] = ()
    client_token: str | None = None
    directory_ino: int = 0
    """Host inode of the directory when it was linked: another one there means an unmounted disk (DESIGN §3.6)."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def imported_owner(self) -> tuple[int | None, int | None]:
        """Who owns what comes in and says nothing of it, or is not asked; None: the daemon's own user."""
        return self.squash or (self.defaults.uid, self.defaults.gid)

    @property
    def file_system_path(self) -> str:
        return "/" + self.directory.decode("utf-8", "backslashreplace")

    def tree_path(self, path: bytes) -> bytes:
        """Path below the tree's root of ``path``, which is relative to this association's directory."""
        if not self.directory:
            return path
        return self.directory + b"/" + path if path else self.directory

    @property
    def start(self) -> int:
        """Where in a path of the tree, if it lies in here, the part begins that `relative` gives."""
        return len(self.directory) + 1 if self.directory else 0

    def relative(self, tree_path: bytes) -> bytes | None:
        """The inverse of `tree_path`; None if it lies elsewhere."""
        if not self.directory:
            return tree_path
        if tree_path == self.directory:
            return b""
        if tree_path.startswith(self.directory + b"/"):
            return tree_path[len(self.directory) + 1 :]
        return None


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket[/prefix[/]]`` -> (bucket, prefix), the prefix with its trailing slash or empty.

    Raises:
        BadInput: not such a URI, or characters that FSx excludes (FSX-FACTS §1.2 ArchivePath).
    """
    example = "write it as s3://bucket/prefix/"
    scheme, separator, rest = uri.partition("://")
    if separator == "" or scheme != "s3":
        raise BadInput(f"'{uri}' is no S3 URI", "it does not start with s3://", advice=example)
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadInput(f"'{uri}' is no S3 URI", "the bucket's name is missing or not allowed", advice=example)
    if _FORBIDDEN.search(uri) or len(uri) > 4357:
        raise BadInput(f"'{uri}' is no S3 URI", "it is too long or has control characters", advice=example)
    if prefix.startswith("/") or "//" in prefix:
        raise BadInput(f"'{uri}' is no S3 URI", "the prefix has an empty part ('//')", advice=example)
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    return bucket, prefix


def parse_directory(path: str) -> bytes:
    """``/datasets/a`` -> ``b"datasets/a"``; ``/`` -> ``b""``.

    Raises:
        BadInput: relative, ``.`` or ``..`` parts, a name over 255 bytes, or characters FSx excludes.
    """
    advice = "write it from the file system's root, like /datasets"
    if not path.startswith("/"):
        raise BadInput(f"'{path}' is no path in the file system", "it does not start with /", advice=advice)
    if _FORBIDDEN.search(path) or len(path) > 4096:
        raise BadInput(f"'{path}' is no path in the file system", "too long or control characters", advice=advice)
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if part in {".", ".."} or len(part.encode("utf-8", "surrogateescape")) > 255:
            raise BadInput(
                f"'{path}' is no path in the file system", f"the part '{part}' is not allowed", advice=advice
            )
    return b"/".join(part.encode("utf-8", "surrogateescape") for part in parts)


def _nested(one: str | bytes, other: str | bytes) -> bool:
    return one == other or one.startswith(other) or other.startswith(one)  # type: ignore[arg-type]


def check_overlap(new: Association, existing: Iterable[Association]) -> None:
    """Refuse equal or nested paths, and equal or nested prefixes of one bucket (FSX-FACTS §1.1).

    Raises:
        AssociationOverlap
    """
    for other in existing:
        if other.id == new.id:
            continue
        mine, theirs = (
            new.directory + b"/" if new.directory else b"",
            other.directory + b"/" if other.directory else b"",
        )
        if _nested(mine, theirs):
            raise AssociationOverlap(
                f"{new.file_system_path} can't be associated",
                f"it overlaps with {other.file_system_path} of {other.id}",
            )
        same_store = (new.bucket, new.access.endpoint_url) == (other.bucket, other.access.endpoint_url)
        if same_store and _nested(new.prefix, other.prefix):
            raise AssociationOverlap(f"{new.uri} can't be associated", f"it overlaps with {other.uri} of {other.id}")
