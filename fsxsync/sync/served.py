"""What an association needs while it is served, and what all of them share."""

from __future__ import annotations

import collections
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import trio

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import Catalog
from fsxsync.config import Settings
from fsxsync.crashpoint import now_ns
from fsxsync.errors import TreeError
from fsxsync.model.association import Association
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.keys import key_of
from fsxsync.model.measures import Histogram, Measures
from fsxsync.ports import Front, Mover, ObjectHint, ObjectStore
from fsxsync.sync.courtesy import Courtesy
from fsxsync.sync.doubt import Doubt, settled
from fsxsync.sync.filters import Filters
from fsxsync.sync.outside import Outside
from fsxsync.sync.own_work import OwnWork
from fsxsync.telemetry.eventlog import EventLog
from fsxsync.tree.tree import Tree


class NoFront:
    """`ports.Front` where nothing is mounted (watch mode, or before the mount is up)."""

    def catch_up(self) -> None:
        return

    def policies_changed(self) -> None:
        return

    def invalidate_entry(self, parent_ino: int, name: bytes, ino: int | None = None) -> None:
        return

    def invalidate_inode(self, ino: int, *, data: bool) -> None:
        return

    async def told(self) -> None:
        return

    def requests(self) -> int:
        return 0

    def open_handles(self, ino: int) -> int:
        return 0

    def open_inodes(self) -> AbstractSet[int]:
        return frozenset()

    def last_use_ns(self, ino: int) -> int:
        return 0

    def operations(self) -> Mapping[tuple[str, str], Histogram]:
        return {}

    def opens(self) -> tuple[int, int]:
        return 0, 0

    def take_uses(self) -> dict[int, int]:
        return {}


def nobody_loads(_ino: int) -> AbstractAsyncContextManager[None]:
    """`Shared.let_go` where there is no hydrator."""
    return nullcontext()


def nobody_is_loading(_ino: int, _atime_ns: int | None, _mtime_ns: int | None) -> None:
    """`Shared.give_times` where there is no hydrator."""


def no_other_times(_ino: int) -> tuple[int, int] | None:
    """`Shared.own_times` where there is no hydrator."""
    return None


async def nobody_restores(_tree_path: bytes) -> int:
    """`Shared.restore` where there is no hydrator."""
    return 0


async def no_room(_since: float) -> bool:
    """`Shared.make_room` where nothing is released."""
    return False


async def nobody_is_held() -> None:
    """`Shared.slow_down` where there is no mark."""


def nothing_partial(_tree_path: bytes, _ino: int) -> bool:
    """`Shared.drop_partial` where there is no hydrator."""
    return False


RELEASED_AT_ONCE = 8
"""Slices of files, over all tasks: a file system takes its time to make marks durable and to free blocks, and does so
for several at the same time."""


async def nobody_watches() -> None:
    """`Shared.take_in_tree` where no watcher runs."""


@dataclass(slots=True)
class Awaited:
    """An archived object that readers wait for; ``by`` how many."""

    readable: trio.Event = field(default_factory=trio.Event)
    by: int = 0


@dataclass(slots=True)
class Shared:
    """What all associations of one daemon share. ``eager`` loads data at import (watch mode)."""

    settings: Settings
    catalog: Catalog
    tree: Tree
    mover: Mover
    eventlog: EventLog
    eager: bool
    front: Front = field(default_factory=NoFront)
    writers: dict[int, int] = field(default_factory=dict)
    """Host inode -> how many handles of the mount are open for writing on it."""
    hydrating: set[int] = field(default_factory=set)
    """Host inodes whose data is being loaded: their inotify records are our own."""
    settling: int = 0
    """How many files are loaded whole, and about to become ordinary ones."""
    releasing: set[bytes] = field(default_factory=set)
    """Paths of the tree that are being released this moment: what inotify tells of them is looked at when that is
    over."""
    release_slots: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(RELEASED_AT_ONCE))
    """One for each slice of files that is being marked and punched."""
    restoring: set[bytes] = field(default_factory=set)
    """Paths of the tree that are being restored together with others: what inotify tells of them is looked at a moment
    later, when most of it is our own."""
    own_work: OwnWork = field(init=False)
    let_go: Callable[[int], AbstractAsyncContextManager[None]] = nobody_loads
    """Inside, the hydrator has that inode not open for writing, so that the file may be replaced or removed while it
    is being loaded; who reads the old one goes on. What is done inside must not await."""
    give_times: Callable[[int, int | None, int | None], None] = nobody_is_loading
    """That inode gets these times (atime, mtime), also once what is loaded of it just now has come, which moves them.
    Raises LocalChanged: it is being made durable, or comes among many and gets its old times then, which a crash would
    leave behind; look again."""
    own_times: Callable[[int], tuple[int, int] | None] = no_other_times
    """(atime, mtime) of an inode that is being loaded, as they will be when all has come."""
    restore: Callable[[bytes], Awaitable[int]] = nobody_restores
    """Load the released file at that path of the tree where it is, and make it an ordinary one, under all its names.
    Raises FsxSyncError."""
    make_room: Callable[[float], Awaitable[bool]] = no_room
    """What began at that time (trio's clock) met a full disk: release something. True: it is worth another try."""
    is_tight: Callable[[], bool] = lambda: False
    """The disk is nearly full, or more of it is used than ``cache_high`` says."""
    least_free: Callable[[], int] = lambda: 0
    """Bytes that are free (f_bfree) when it becomes so."""
    slow_down: Callable[[], Awaitable[None]] = nobody_is_held
    """Before a write: wait for exports where they can't follow."""
    drop_partial: Callable[[bytes, int], bool] = nothing_partial
    """Give back the space of what is here of a stub, unless somebody uses it. Raises FsxSyncError."""
    take_in_tree: Callable[[], Awaitable[None]] = nobody_watches
    """Return when whatever was done in the tree before the call is a hint, or is about to be looked through
    (``expanding``): inotify's records are some moments old when they are read."""
    courtesy: Courtesy = field(init=False)
    outside: Outside = field(init=False)
    expanding: int = 0
    """Directories whose content is still to be turned into hints; no file is deleted remotely meanwhile,
    because a hint to come may say that it only moved."""
    doubts: dict[str, Doubt] = field(default_factory=dict)
    """Association id -> what is not believed of its tree since the machine went down."""
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    served: Mapping[str, Served] = field(default_factory=dict)
    """Association id -> what serves it; the engine's own."""
    awaited: dict[tuple[str, str], Awaited] = field(default_factory=dict)
    """Archived objects that readers wait for, by association and key; an update of the association ends no wait."""
    started_ns: int = field(default_factory=now_ns)
    host: str = field(default_factory=socket.gethostname)
    counts: collections.defaultdict[str, Measures] = field(default_factory=lambda: collections.defaultdict(Measures))
    """Association id -> what was counted for it; an update of the association does not start at zero."""

    def __post_init__(self) -> None:
        self.own_work = OwnWork(self.tree)
        self.courtesy = Courtesy(lambda: self.front.requests())  # noqa: PLW0108 - the front comes later
        self.outside = Outside(
            self.tree, lambda: frozenset(served.association.directory for served in self.served.values())
        )

    def unarchived(self, association: str, key: str) -> None:
        """An object can be read, or it is gone: whoever waits for it looks."""
        awaited = self.awaited.pop((association, key), None)
        if awaited is not None:
            awaited.readable.set()

    def is_written(self, ino: int) -> bool:
        """Somebody has the file open for writing through the mount."""
        self.front.catch_up()
        return ino in self.writers

    def other_names(self, ino: int, association: str, path: bytes) -> Iterator[Base]:
        """Rows of the same inode under other paths, of every association: hard links."""
        for row in self.catalog.files.by_inode(ino):
            if row.kind is Kind.FILE and (row.association, row.path) != (association, path):
                yield row

    @staticmethod
    def now_ns() -> int:
        return now_ns()

    def invalidate(self, tree_path: bytes, *inodes: int, data: bool) -> None:
        """The kernel forgets what it knows of a path, of the directory it lies in and of these inodes."""
        parent, _, name = tree_path.rpartition(b"/")
        directory = self.tree.identify(parent)
        if directory is not None:
            self.front.invalidate_entry(directory.ino, name)
            self.front.invalidate_inode(directory.ino, data=False)
        for ino in inodes:
            self.front.invalidate_inode(ino, data=data)

    def noticed(self, paths: Iterable[bytes], found: Mapping[bytes, Local | None] | None = None) -> None:
        """Something happened at these paths of the tree, perhaps behind the front's back. ``found``: what stands there,
        where that is known."""
        directories: dict[bytes, Local | None] = {}
        for tree_path in paths:
            parent, _, name = tree_path.rpartition(b"/")
            if parent not in directories:
                directories[parent] = directory = self.tree.identify(parent)
                if directory is not None:
                    self.front.invalidate_inode(directory.ino, data=False)
            directory = directories[parent]
            local = found[tree_path] if found is not None else self.tree.identify(tree_path)
            if directory is not None:
                self.front.invalidate_entry(directory.ino, name, local.ino if local is not None else None)
            if local is not None:
                self.front.invalidate_inode(local.ino, data=False)


ECHO_MEMORY = 20_000
"""Own writes whose events may still come; an event that is not recognised costs one HEAD, nothing else."""


@dataclass(slots=True)
class Served:
    """One association with its store and its counters."""

    shared: Shared
    association: Association
    store: ObjectStore
    counts: Measures = field(init=False)
    hints: trio.Event = field(default_factory=trio.Event)
    """Set when there may be something due earlier than the looker thinks."""
    tree_believed: bool = True
    """False until a scan after the start found no mass accident: no object is deleted before (`brakes`)."""
    listing_believed: bool = True
    """False until a listing was read that is plausible: no file is deleted before."""
    want_listing: Callable[[], None] = lambda: None
    """Have the listing read soon: events may have been missed."""
    source_read_ns: int = 0
    in_flight: int = 0
    markers_beside_files: set[bytes] = field(default_factory=set)
    """Paths for which a listing or an event named a directory's marker, and no row a directory: should a file be there
    or come with it, their next look asks for the marker."""
    unfollowed: dict[int, bytes] = field(default_factory=dict)
    """By inode: where released files were renamed to whose objects keep their names, as only tasks export."""
    filters: Filters = field(init=False)
    filters_stale: trio.Event = field(default_factory=trio.Event)
    """Set when the ignore list changed: tree and listing are to be compared again."""
    scanned: bool = True
    """False while a scan of the tree is to come or under way: what is gone may only have moved, unseen."""
    _echoes: collections.OrderedDict[tuple[str, str], int] = field(default_factory=collections.OrderedDict)

    def __post_init__(self) -> None:
        self.filters = Filters(self.association)
        self.counts = self.shared.counts[self.association.id]

    @property
    def id(self) -> str:
        return self.association.id

    def key(self, path: bytes, kind: Kind) -> str:
        return key_of(path, self.association.prefix, directory=kind is Kind.DIRECTORY)

    def tree_path(self, path: bytes) -> bytes:
        return self.association.tree_path(path)

    @property
    def doubt(self) -> Doubt | None:
        """What is not believed of the tree since the machine went down."""
        return self.shared.doubts.get(self.id)

    def looked(self, path: bytes) -> None:
        """A look has come to its end, and both sides are as they are to be."""
        if (doubt := self.doubt) is not None:
            doubt.paths.discard(path)
            self.end_doubt()

    def end_doubt(self) -> None:
        """If all that differed was looked at."""
        if (doubt := self.doubt) is not None and doubt.is_over:
            settled(self.shared.catalog.facts, self.id)
            del self.shared.doubts[self.id]

    def wake(self) -> None:
        self.hints.set()

    def add_hint(
        self,
        path: bytes,
        *,
        local: bool = False,
        remote: bool = False,
        ino: int | None = None,
        delay_s: float = 0.0,
    ) -> None:
        """Ask for a look at one path. ``ino``: the file that was there when somebody knew. If another one stands there
        by now, the hint has to name that: an object is not deleted while a hint tells where its file went."""
        settings = self.shared.settings
        if ino is not None:
            with suppress(TreeError):  # then the look will say so
                here = self.shared.tree.identify(self.tree_path(path))
                ino = here.ino if here is not None else ino
        self.shared.catalog.changelog.add(
            [Hint(self.id, path, local=local, remote=remote, ino=ino)],
            now_ns=self.shared.now_ns(),
            delay_ns=int(delay_s * 1e9),
            cap_ns=int(settings.export_cap_s * 1e9),
        )
        self.wake()

    def expect_echo(self, key: str, etag: str) -> None:
        """Our own write will come back as an event."""
        self._echoes[key, etag] = self._echoes.get((key, etag), 0) + 1
        self._echoes.move_to_end((key, etag))
        while len(self._echoes) > ECHO_MEMORY:
            self._echoes.popitem(last=False)

    def wrote(self, key: str, etag: str) -> bool:
        """It is a write of ours, lately: a listing may show it that was read before its row was written."""
        return (key, etag) in self._echoes

    def is_echo(self, hint: ObjectHint, base: Base | None) -> bool:
        """Take one expected echo back. True only if the state agrees: ``base`` holds what the event tells of.

        Each of our writes makes one event, so that a second one of the same etag is somebody else's: new metadata for
        the same bytes. So is one of another version, and one of what happened after all that the row knows, which is
        told in whole seconds: our own event may have come before we expected it.
        """
        if hint.etag is None:
            return False
        if hint.happened_ns is not None and base is not None and hint.happened_ns >= base.last_modified_ns + 10**9:
            return False
        left = self._echoes.pop((hint.key, hint.etag), 0)
        if left == 0:
            return False
        if left > 1:
            self._echoes[hint.key, hint.etag] = left - 1
        if base is None or base.etag != hint.etag:
            return False
        if hint.version_id is not None and base.version_id not in {None, hint.version_id}:
            return False
        self.counts.echoes_dropped += 1
        return True

    def posix_for(self, remote: Remote, existing: Posix | None) -> Posix:
        """Metadata for a file that an object takes: the object's own, what the file had, the defaults."""
        defaults = self.association.defaults
        uid, gid = self.association.imported_owner
        directory = remote.kind is Kind.DIRECTORY
        fallback = Posix(
            mode=defaults.dir_mode if directory else defaults.file_mode,
            uid=uid if uid is not None else os.geteuid(),
            gid=gid if gid is not None else os.getegid(),
            mtime_ns=remote.last_modified_ns,
            atime_ns=remote.posix.mtime_ns if remote.posix.mtime_ns is not None else remote.last_modified_ns,
        )
        known = self.applied(remote.posix)
        if existing is not None:
            # The object changed: its own times count; owner and mode stay where it says nothing (FSX-FACTS §2.1).
            known = known.or_else(Posix(mode=existing.mode, uid=existing.uid, gid=existing.gid))
        return known.or_else(fallback)

    @property
    def takes_owners(self) -> bool:
        """Imports give files the owners that their objects say. Only root can; and where owners are squashed, a file
        that is here keeps its own."""
        return self.shared.is_root and self.association.squash is None

    def applied(self, posix: Posix) -> Posix:
        """What of an object's metadata an import sets; None for what the file keeps."""
        return posix if self.association.squash is None else posix._replace(uid=None, gid=None)
