"""What makes two versions of a path one: the three identities that reconcile compares (DESIGN §2).

Paths are bytes, relative to the association's directory, components joined by ``/``, without a
leading or trailing slash. Times are nanoseconds since the epoch, sizes bytes.

They are made by the hundred thousand, which is why they are named tuples: a frozen dataclass takes five times as long.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

from fsxsync.model.checksum import Checksum
from fsxsync.model.stub import StubMark


class Kind(enum.Enum):
    """What stands at a path. OTHER is a FIFO, socket or device: it never leaves the tree."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


KINDS = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.OTHER)
"""Index = what the catalog and `_core.read_directory` call it: append only."""
_DIRECTORY = Kind.DIRECTORY  # the enumeration is asked for its members in five times as long


State: TypeAlias = tuple[int, int, int, int, int, int, int]
"""Inode, size, mtime, ctime, mode, uid and gid of a file."""


class Posix(NamedTuple):
    """POSIX metadata as an object carries it; ``None`` where the object says nothing.

    ``mode`` holds permission bits only (0o7777): the type is the path's `Kind`.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    xattrs: str | None = None
    """User extended attributes as `xattrs.encode_xattrs` writes them; '' for none."""

    def or_else(self, other: Posix) -> Posix:
        """Fill what is missing here from ``other``."""
        return Posix(
            mode=self.mode if self.mode is not None else other.mode,
            uid=self.uid if self.uid is not None else other.uid,
            gid=self.gid if self.gid is not None else other.gid,
            mtime_ns=self.mtime_ns if self.mtime_ns is not None else other.mtime_ns,
            atime_ns=self.atime_ns if self.atime_ns is not None else other.atime_ns,
            xattrs=self.xattrs if self.xattrs is not None else other.xattrs,
        )


class Local(NamedTuple):
    """The file in the tree, now, as `tree.identify` saw it without following a symlink."""

    kind: Kind
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    nlink: int = 1
    atime_ns: int = 0
    blocks: int = 0
    stub: StubMark | None = None
    target: bytes | None = None
    content_hash: bytes | None = None
    """XXH3-128 of the bytes, where somebody read them for this comparison; not part of what lstat says."""
    xattrs: str | None = None
    """As in `Posix`, where the association lets them travel and somebody read them for this comparison."""
    own_times: tuple[int, int] | None = None
    """(atime, mtime) in ns of a released file whose data is just coming, which moves what lstat says."""
    written_in_part: bool = False
    """A released file of another size than its object's, in which somebody's data and a hole are."""

    @property
    def state(self) -> State:
        return self[1:8]

    @property
    def description(self) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        return self[5:8]

    def same_state(self, other: Local | None) -> bool:
        """Nothing at all happened between the two looks, as far as the file system tells."""
        return other is not None and (
            (
                self.kind,
                self.ino,
                self.size,
                self.mtime_ns,
                self.ctime_ns,
                self.mode,
                self.uid,
                self.gid,
                self.stub,
            )
            == (
                other.kind,
                other.ino,
                other.size,
                other.mtime_ns,
                other.ctime_ns,
                other.mode,
                other.uid,
                other.gid,
                other.stub,
            )
        )

    @property
    def posix(self) -> Posix:
        atime_ns, mtime_ns = self.own_times or (self.atime_ns, self.mtime_ns)
        return Posix(self.mode, self.uid, self.gid, mtime_ns, atime_ns, self.xattrs)


class Remote(NamedTuple):
    """The object in the repository, now.

    ``posix_known`` is False when only a listing was read: a listing has no user metadata, so neither
    the kind (symlinks are told by it) nor ``posix`` can be believed yet.
    """

    kind: Kind
    etag: str
    size: int
    last_modified_ns: int
    version_id: str | None = None
    posix: Posix = Posix()
    posix_known: bool = True
    storage_class: str = "STANDARD"
    archived: bool = False
    """True where a GET would be refused until the object is restored."""
    restoring: bool = False
    """… and somebody has asked for that already."""
    crc64nvme: int | None = None
    """Full-object checksum, where the store told one."""
    checksums: tuple[Checksum, ...] = ()
    """All that the store told of the whole object, its MD5 among them where the ETag is one."""
    content_type: str | None = None

    def is_described_as(self, known: Remote) -> bool:
        """It says of itself what is known, as far as that goes. atime moves with every read."""
        mine, theirs = self.posix, known.posix
        if not (self.posix_known and known.posix_known):
            return True
        return (mine.mode, mine.uid, mine.gid, mine.mtime_ns) == (
            theirs.mode,
            theirs.uid,
            theirs.gid,
            theirs.mtime_ns,
        ) and theirs.xattrs in {None, mine.xattrs or ""}


class Base(NamedTuple):
    """The catalog row: both sides of one path when they were last in sync.

    ``etag`` is None for an implied directory: one that exists in the repository only because keys lie
    below it. ``content_hash`` is None where the bytes were never read here (imported, still a stub).
    """

    association: str
    path: bytes
    kind: Kind
    # local side
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    # remote side
    etag: str | None
    remote_size: int
    last_modified_ns: int
    version_id: str | None = None
    posix: Posix = Posix()
    posix_known: bool = True
    storage_class: str = "STANDARD"
    # both
    released: bool = False
    content_hash: bytes | None = None
    target: bytes | None = None

    @property
    def is_implied(self) -> bool:
        return self.kind is Kind.DIRECTORY and self.etag is None

    def with_local(self, local: Local) -> Base:
        """The same base with its local side as seen now (mtime or ctime moved, content did not)."""
        return self._replace(
            ino=local.ino,
            size=local.size,
            mtime_ns=local.mtime_ns,
            ctime_ns=local.ctime_ns,
            mode=local.mode,
            uid=local.uid,
            gid=local.gid,
            released=local.stub is not None,
        )

    def with_remote(self, remote: Remote) -> Base:
        """The same base with its remote side as seen now."""
        return self._replace(
            etag=remote.etag,
            remote_size=remote.size,
            last_modified_ns=remote.last_modified_ns,
            version_id=remote.version_id,
            posix=remote.posix if remote.posix_known else self.posix,
            posix_known=remote.posix_known,
            storage_class=remote.storage_class,
        )

    def said_of(self, posix: Posix) -> Posix:
        """``posix`` of the file as its object shall say it: an owner that nobody changed here stays the object's own.
        It may be another one than the file's, which an import did not give (squashed, or no root's daemon)."""
        own = self.posix
        return posix._replace(
            uid=own.uid if own.uid is not None and posix.uid == self.uid else posix.uid,
            gid=own.gid if own.gid is not None and posix.gid == self.gid else posix.gid,
        )

    @property
    def local_state(self) -> State:
        """`Local.state` as it was. Compared by the hundred thousand: one by one it takes three times as long."""
        return self[3:10]

    def matches_local(self, local: Local) -> bool:
        """The tree shows exactly what this row knows, ctime included: nothing to look at."""
        if self.kind is not _DIRECTORY:
            return self.kind is local.kind and self.local_state == local.state
        return (
            local.kind is _DIRECTORY
            and self.ino == local.ino
            and self.mode == local.mode
            and self.uid == local.uid
            and self.gid == local.gid
        )

    def may_match(self, local: Local) -> bool:
        """The tree shows what this row knows but for a ctime that moved. A name that the file got or lost does that,
        and is not always told: a look finds out by its digest."""
        return not self.matches_local(local) and self._replace(ctime_ns=local.ctime_ns).matches_local(local)


def base_of(
    association: str, path: bytes, local: Local, remote: Remote | None, *, content_hash: bytes | None = None
) -> Base:
    """The row for a pair that is in sync now. ``remote`` None makes an implied directory's row."""
    return Base(
        association=association,
        path=path,
        kind=local.kind,
        ino=local.ino,
        size=local.size,
        mtime_ns=local.mtime_ns,
        ctime_ns=local.ctime_ns,
        mode=local.mode,
        uid=local.uid,
        gid=local.gid,
        etag=remote.etag if remote else None,
        remote_size=remote.size if remote else 0,
        last_modified_ns=remote.last_modified_ns if remote else 0,
        version_id=remote.version_id if remote else None,
        posix=remote.posix if remote else Posix(),
        posix_known=remote.posix_known if remote else True,
        storage_class=remote.storage_class if remote else "STANDARD",
        released=local.stub is not None,
        content_hash=content_hash if content_hash is not None else local.content_hash,
        target=local.target,
    )
