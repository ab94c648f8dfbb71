"""An open conflict: two versions of one path are kept, and nobody has said yet which one it shall be (DESIGN §8)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from fsxsync.model.identity import Local, Remote


class ConflictKind(enum.Enum):
    """What keeps the two versions apart."""

    KEPT = "kept"
    """The object took the path, the file lies beside it as a conflict copy. Open as long as that copy is there."""
    BLOCKED = "blocked"
    """Each version is where it was: the policy lets neither side move."""
    CLASH = "clash"
    """Each version is where it was: a file here and a directory there, or two keys of which one holds the other."""


class Keep(enum.Enum):
    """What a person wants to become of the two."""

    LOCAL = "local"
    REMOTE = "remote"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """A file's content, as far as it is told without reading it. A rename leaves all of this alone."""

    ino: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, local: Local | None) -> LocalVersion | None:
        return None if local is None else cls(local.ino, local.size, local.mtime_ns)


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """An object's content."""

    etag: str
    size: int
    last_modified_ns: int
    version_id: str | None = None

    @classmethod
    def of(cls, remote: Remote | None) -> RemoteVersion | None:
        if remote is None:
            return None
        return cls(remote.etag, remote.size, remote.last_modified_ns, remote.version_id)

    def is_of(self, remote: Remote | None) -> bool:
        """Last-modified is left out: our own writes know it by the second only."""
        return remote is not None and (self.etag, self.size) == (remote.etag, remote.size)


@dataclass(frozen=True, slots=True)
class Conflict:
    """``kept_as`` is where the local version lies; b"" where nothing was moved.

    ``local`` and ``remote`` are the versions that `fsxsync conflicts` shows, and that a person decides on: should
    either be another one when the decision is carried out, it is not, and the list shows the new one.
    """

    association: str
    path: bytes
    kind: ConflictKind
    detected_ns: int
    kept_as: bytes = b""
    local: LocalVersion | None = None
    remote: RemoteVersion | None = None

    def seen(self, local: Local | None, remote: Remote | None) -> Conflict:
        """The same conflict with the versions as they are now."""
        return replace(self, local=LocalVersion.of(local), remote=RemoteVersion.of(remote))
