"""Between mount and sync. Implementations: `Hydrator` sync/hydrator.py (fake: tests/fakes/hydrator.py), `Front` mount/
and, without FUSE, `NoFront` in sync/.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from fsxsync.model.measures import Histogram


class Hydrator(Protocol):
    """What the front asks of sync: data for stubs, and attention for changes. Paths are below the tree's root."""

    async def open_for_read(self, path: bytes, fd: int) -> None:
        """Called when a stub is opened for reading (``fd`` is open on it): loads a small file wholly, starts
        nothing for a large one. Raises FsxSyncError (its errno goes to the caller)."""

    async def ensure(self, path: bytes, fd: int, offset: int, length: int) -> bool:
        """Return when these bytes are in the file. False once the whole file is resident (stop asking)."""

    async def make_resident(self, path: bytes, fd: int) -> None:
        """Load everything and settle: before the first writer is let in, before truncate to another size."""

    async def make_room(self, since: float) -> bool:
        """A write that began at ``since`` (trio's clock) met a full disk: release what can be. True: it is worth
        another try."""

    def is_tight(self) -> bool:
        """The disk is nearly full, or fuller than it shall be: whoever is about to write shall do so through us, who
        can `make_room` and `slow_down`."""

    def least_free(self) -> int:
        """Bytes that are free (f_bfree) when it becomes so; hardly ever another number."""

    async def slow_down(self) -> None:
        """Before a write: returns when the disk is as full as it may be, or it does not help to wait."""

    async def discard(self, path: bytes, fd: int) -> None:
        """The data will be replaced wholly (O_TRUNC, truncate to 0): end a running hydration, drop the mark.
        ``fd`` is open for writing; on return the file is an ordinary empty file."""

    async def until_settled(self, ino: int) -> None:
        """A file whose data has all come gets its times back while it is made an ordinary one: returns when it is."""

    def retimed(self, ino: int, *, atime_ns: int | None, mtime_ns: int | None) -> tuple[int, int] | None:
        """Somebody sets times of a file (None: not this one). Which ones, access and change, it is to have if it is
        being loaded, and keeps then; None if it is not. No await since `until_settled`."""

    def is_stub(self, fd: int) -> bool:
        """The file carries the stub mark (one fgetxattr)."""

    def writer_opened(self, path: bytes, ino: int) -> None: ...

    def writer_closed(self, path: bytes, ino: int) -> None:
        """Balanced with `writer_opened`; the last one of an inode makes the path exportable."""

    def changed(self, path: bytes) -> None:
        """A name or its metadata changed: create, unlink, mkdir, rmdir, link, symlink, setattr, setxattr."""

    def told(self, path: bytes, word: str) -> bytes | None:
        """What ``user.fsxsync.WORD`` says of what stands there: state, etag, version, key, association, error. None:
        nothing. Never waits for the network."""

    def flagged(self, path: bytes) -> None:
        """norelease or noarchive was set or removed, of a directory for all that lies below it."""

    def renamed(self, old: bytes, new: bytes, *, exchanged: bool) -> None:
        """A rename was done; directories included (everything below moved with it)."""

    def may_write(self, path: bytes) -> bool:
        """False below a read-only association: the front answers EROFS."""

    def may_rename(self, old: bytes, new: bytes) -> bool:
        """False across an association's border: the front answers EXDEV, and mv copies instead. The two sides are
        different repositories, like two file systems."""

    def is_association_root(self, path: bytes) -> bool:
        """True for an association's directory or an ancestor of one: the front does not let it go (EBUSY)."""


class Front(Protocol):
    """What sync asks of the front: forget what the kernel cached. Never blocks the caller."""

    def catch_up(self) -> None:
        """Whatever an application has done in the mount before the call has reached the `Hydrator` on return."""

    def policies_changed(self) -> None:
        """What may be written where has changed: what was found out about it holds no longer."""

    def invalidate_entry(self, parent_ino: int, name: bytes, ino: int | None = None) -> None:
        """The name in the directory with that host inode number may mean something else now: ``ino`` where that is
        known (nothing is sent then if the kernel knows it as that), or nothing."""

    def invalidate_inode(self, ino: int, *, data: bool) -> None:
        """Attributes of that host inode changed; with ``data`` its pages too."""

    async def told(self) -> None:
        """Return when the kernel has forgotten all that was invalidated before the call."""

    def requests(self) -> int:
        """How many requests applications have made of the mount since its start."""

    def open_handles(self, ino: int) -> int:
        """How many handles applications hold on that host inode."""

    def open_inodes(self) -> AbstractSet[int]:
        """The host inodes on which they hold some, until the next await."""

    def last_use_ns(self, ino: int) -> int:
        """When an application last opened or closed that host inode, since the epoch; 0 if nothing is known of it."""

    def operations(self) -> Mapping[tuple[str, str], Histogram]:
        """How long requests of applications took since the start, by operation and by who answered: ``channel`` or
        ``python``."""

    def opens(self) -> tuple[int, int]:
        """How often a file was opened for reading since the start whose data was here, and one of which some was
        not."""

    def take_uses(self) -> dict[int, int]:
        """`last_use_ns` of each host inode for which it has changed since the last call."""
