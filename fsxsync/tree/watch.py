"""inotify on the tree: records become hints at paths (DESIGN §2, §6).

One task reads the records and sets the watches, in turns, so that a directory's watch is always older than the look
at what it holds, and the table (`watches`) is only ever behind the kernel by what is in the queue. Where a record does
not fit the table, the place it names is looked at again: what stands there decides, as everywhere.

The kernel queues a record before the system call that caused it returns. So whatever was done before a moment is in
the queue at that moment, and `barrier` needs no marker: it waits until the bytes that were queued then are read.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio
from inotify_simple import INotify, flags, parse_events

from fsxsync.tree.watch_created import Created
from fsxsync.tree.watch_walk import Item, Outcome, Seen, Walk, Walks, limit_reason, look, no_instance
from fsxsync.tree.watches import Directory, Root, Watches

PAIR_S = 0.01
"""How long the second half of a rename may take; the kernel queues both within microseconds."""
RESCAN_S = 60.0
"""Without enough watches everything is scanned this often."""
_READ_BYTES = 16 * 1024  # some 500 records: other tasks run in between
_SLICE = 500
_NAMELESS = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT


class WatchedTree(Protocol):
    """What is needed of `Tree`."""

    @property
    def root_fd(self) -> int: ...
    @property
    def dev(self) -> int: ...
    @property
    def staging_name(self) -> bytes | None: ...


@dataclass(eq=False, slots=True)
class _Departed:
    """The first half of a rename. ``node`` is None for a file, or a directory that was not watched."""

    parent: Directory
    path: bytes
    is_directory: bool
    node: Directory | None
    expires_s: float
    position: int


@dataclass(eq=False, slots=True)
class _Barrier:
    position: int
    reached: trio.Event
    walks: set[Walk] | None = None


class Watcher:
    """Watches the directories of associations and all below. Callbacks are made in the trio thread and must not block.

    Paths are bytes below the tree's root. ``on_moved`` is told (old, new, is_directory); ``on_subtree`` a directory
    whose content is unknown, once it is watched; ``on_gone`` one that went away with content; ``on_overflow`` that
    only a scan tells what happened.
    """

    def __init__(
        self,
        tree: WatchedTree,
        *,
        on_change: Callable[[bytes], None],
        on_moved: Callable[[bytes, bytes, bool], None],
        on_subtree: Callable[[bytes], None],
        on_gone: Callable[[bytes], None],
        on_overflow: Callable[[], None],
    ) -> None:
        self._tree = tree
        self._on_change = on_change
        self._on_moved = on_moved
        self._on_subtree = on_subtree
        self._on_gone = on_gone
        self._on_overflow = on_overflow
        self.overflows = 0
        self.degraded_reason = ""
        self._inotify: Any = None
        self._running = trio.Event()
        self._watches = Watches()
        self._walks = Walks()
        self._created = Created(self._watches, tree.root_fd)
        self._first_walks: dict[bytes, Walk] = {}
        self._departed: dict[int, _Departed] = {}
        self._position = 0  # bytes read from the queue so far
        self._barriers: list[_Barrier] = []
        self._unsettled: list[Seen] = []
        self._touched: set[bytes] = set()  # directories that came, went or moved since the last batch
        self._doubtful: set[tuple[Directory, bytes]] = set()
        self._unwatched: list[Directory] = []  # mostly removed, which the next record says
        self._resync_again = False
        self._retry_s = math.inf
        self._was_full = False
        self._nap = trio.CancelScope()

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._watches)

    # ------------------------------------------------------------- asked by others

    def add_root(self, directory: bytes) -> None:
        """Watch a directory and all below, soon (`watched`). Roots must not contain each other; again does no harm."""
        root = self._watches.add_root(directory)
        self._first_walks[directory] = self._walks.start(Walk(root))
        self._nap.cancel()

    def remove_root(self, directory: bytes) -> None:
        """No longer report anything of a root."""
        self._watches.remove_root(directory)
        self._first_walks.pop(directory, None)
        self._nap.cancel()

    async def watched(self, directory: bytes) -> None:
        """Return when a root and all below are watched: what a scan begun now does not see will be reported."""
        await self._first_walks[directory].done.wait()

    async def barrier(self) -> None:
        """Return when every change made in the roots before the call was reported."""
        await self._running.wait()
        barrier = _Barrier(self._position + self._queued(), trio.Event())
        self._barriers.append(barrier)
        self._nap.cancel()
        await barrier.reached.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled.

        Raises:
            TreeError: there is no inotify to be had, or a directory can't be watched for an unknown reason.
        """
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise no_instance(error) from error
        with self._inotify:
            self._running.set()
            task_status.started()
            try:
                while True:
                    await self._turn()
            finally:
                self._running = trio.Event()

    # ------------------------------------------------------------- one turn

    async def _turn(self) -> None:
        now_s = trio.current_time()
        barriers = list(self._barriers)
        await self._read_records(self._position + self._queued(), now_s)
        self._expire(now_s, barriers)
        self._settle()
        self._look_at_doubtful()
        await self._ask_created(now_s, everything=any(barrier.walks is None for barrier in barriers))
        await self._give_back()
        self._retry(now_s)
        self._release(barriers)
        batch = [(item, self._watches.path(item.node)) for item in self._walks.take()]
        if batch:
            await self._look(batch)
        elif self._barriers:
            await trio.lowlevel.checkpoint()  # asked for in this turn: the next one serves it
        else:
            with trio.CancelScope(deadline=self._next_deadline()) as self._nap:
                await trio.lowlevel.wait_readable(self._inotify.fileno())

    def _queued(self) -> int:
        """Bytes in the kernel's queue."""
        answer = fcntl.ioctl(self._inotify.fileno(), termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def _next_deadline(self) -> float:
        first = next(iter(self._departed.values()), None)
        return min(first.expires_s if first else math.inf, self._created.next_s, self._retry_s)

    async def _read_records(self, until: int, now_s: float) -> None:
        # No more than what was queued at the start: a storm must not keep the walks waiting.
        while self._position < until:
            start = self._position
            try:
                data = os.read(self._inotify.fileno(), _READ_BYTES)
            except BlockingIOError:
                return
            for wd, mask, cookie, name in parse_events(data):
                if mask & flags.Q_OVERFLOW:
                    self.overflows += 1
                    self._resync()
                    continue
                node = self._watches.get(wd)
                path = self._watches.path(node) if node is not None else None
                if node is None or path is None:
                    continue  # it left; who watches its place now looks at what is there
                if name:
                    departure = (now_s + PAIR_S, start)
                    self._entry_changed(node, path, mask, cookie, os.fsencode(name), departure)
                else:
                    self._directory_changed(node, path, mask)
            self._position += len(data)
            await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- records

    def _directory_changed(self, node: Directory, path: bytes, mask: int) -> None:
        """A record of a watched directory about itself. All but roots are told of by their parents too."""
        if mask & flags.IGNORED or (mask & _NAMELESS and isinstance(node, Root)):
            self._watches.forget(node)
            self._touched.add(path)
            if isinstance(node, Root):
                self._walks.start(Walk(node, rescan=True))
            else:
                self._unwatched.append(node)
        elif mask & flags.ATTRIB and isinstance(node, Root):
            self._on_change(path)

    def _entry_changed(
        self, parent: Directory, directory: bytes, mask: int, cookie: int, name: bytes, departure: tuple[float, int]
    ) -> None:
        path = directory + b"/" + name if directory else name
        if path == self._tree.staging_name:
            return
        is_directory = bool(mask & flags.ISDIR)
        if is_directory and not mask & flags.ATTRIB:
            self._touched.add(path)
        if mask & flags.MOVED_FROM:
            node = self._watches.child(parent, name) if is_directory else None
            if node is not None:
                self._watches.take_out(node)
            self._created.discard(parent, name)
            self._departed[cookie] = _Departed(parent, path, is_directory, node, *departure)
        elif mask & flags.MOVED_TO:
            self._arrived(parent, name, path, self._departed.pop(cookie, None), is_directory=is_directory)
        elif is_directory:
            self._subdirectory_changed(parent, name, path, mask)
        elif mask & flags.CREATE:
            self._created.add(parent, name)
        elif mask & flags.ATTRIB and (parent, name) in self._created:
            return  # its writer sets mode and times before the close, which is to come
        else:
            self._created.discard(parent, name)
            self._on_change(path)

    def _arrived(
        self, parent: Directory, name: bytes, path: bytes, origin: _Departed | None, *, is_directory: bool
    ) -> None:
        """MOVED_TO. Without the other half it came from outside the roots, staging included."""
        self._created.discard(parent, name)
        if is_directory:
            self._place_directory(parent, name, origin)
        if origin is None:
            self._on_change(path)
        else:
            self._on_moved(origin.path, path, is_directory)

    def _place_directory(self, parent: Directory, name: bytes, origin: _Departed | None) -> None:
        node = origin.node if origin is not None else None
        displaced = self._watches.child(parent, name)
        if displaced is not None:
            # An empty directory was replaced, or two were exchanged: the first records of both look alike.
            self._watches.drop(displaced)
            self._doubtful.add((parent, name))
            if origin is not None:
                self._doubtful.add((origin.parent, origin.path.rpartition(b"/")[2]))
        if node is None or not node.wd:
            if node is not None:
                self._watches.drop(node)
            self._appear(parent, name)
        elif self._watches.is_within(parent, node):
            self._resync()  # a directory below itself: the table is wrong
        else:
            self._watches.attach(node, parent, name)

    def _subdirectory_changed(self, parent: Directory, name: bytes, path: bytes, mask: int) -> None:
        node = self._watches.child(parent, name)
        if mask & flags.CREATE:
            self._appear(parent, name)
        elif mask & flags.DELETE:
            if node is None or not node.wd:
                self._on_gone(path)  # nobody reported what was removed in it
            if node is not None:
                self._watches.drop(node)
        elif node is None:
            self._appear(parent, name)  # a change of its mode may have opened it to us
        self._on_change(path)

    def _appear(self, parent: Directory, name: bytes) -> Walk:
        return self._walks.start(Walk(self._watches.place(parent, name), report=True))

    def _expire(self, now_s: float, barriers: list[_Barrier]) -> None:
        """First halves whose second half did not come: these went out of the roots."""
        position = max((barrier.position for barrier in barriers), default=0)
        expired = [
            cookie
            for cookie, departed in self._departed.items()
            if departed.expires_s <= now_s or departed.position < position <= self._position
        ]
        for cookie in expired:
            departed = self._departed.pop(cookie)
            if departed.node is not None:
                self._watches.drop(departed.node)
            if departed.is_directory:
                self._on_gone(departed.path)
            self._on_change(departed.path)

    async def _ask_created(self, now_s: float, *, everything: bool) -> None:
        for count, path in enumerate(self._created.due(now_s, everything=everything)):
            if path is not None:
                self._on_change(path)
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- walks

    async def _look(self, batch: list[tuple[Item, bytes | None]]) -> None:
        self._touched.clear()
        placed: list[tuple[Item, bytes]] = []
        for item, path in batch:
            if path is None:
                self._count_down(item.walk)
            elif self._watches.stands(item.node):
                placed.append((item, path))
            else:
                self._walks.again(item)  # half of a rename was read
        if not placed:
            await trio.lowlevel.checkpoint()
            return
        tree = self._tree
        found = await trio.to_thread.run_sync(look, self._inotify, tree.root_fd, tree.dev, tree.staging_name, placed)
        for item, _ in placed[len(found) :]:
            self._walks.again(item)
        for seen in found:
            if seen.outcome is Outcome.LISTED:
                self._take_in(seen)
        self._unsettled = found

    def _take_in(self, seen: Seen) -> None:
        """Put a directory that is watched now, and its subdirectories, into the table."""
        item, node = seen.item, seen.item.node
        if self._watches.path(node) is None:
            self._watches.disown(seen.wd)  # its root was removed meanwhile
            return
        before = self._watches.get(seen.wd)
        is_new = self._watches.watched(node, seen.wd)
        if is_new and before is not None:
            self._found_elsewhere(before)
        if is_new and item.walk.deep:
            self._report_apart(item)
        if is_new and item.offset:
            seen.next_offset, seen.subdirectories = 0, []
            self._walks.add(Item(item.walk, node))  # another directory than the one that was half listed
        if item.walk.deep and not item.offset and node.children is not None:
            for child in node.children.values():
                self._walks.add(Item(item.walk, child))
        for name in seen.subdirectories:
            child = self._watches.place(node, name)
            if not child.wd:
                self._walks.add(Item(item.walk, child))

    def _found_elsewhere(self, before: Directory) -> None:
        """A watched directory stands at another place than its node: its record was lost, or is not read yet."""
        if isinstance(before, Root):
            if self._watches.roots.get(before.name) is before:
                self._watches.forget(before)
                self._walks.start(Walk(before, rescan=True))
            return
        if before.parent is not None:
            self._doubtful.add((before.parent, before.name))
        self._watches.drop(before)

    def _report_apart(self, item: Item) -> None:
        """A deep walk came to a directory that was not watched: what is below becomes a walk that reports it."""
        walk = Walk(item.node, report=True, parent=item.walk, left=1)
        self._walks.open.add(walk)
        item.walk = walk  # the item is counted in the new walk now, and the new walk in the old one

    def _settle(self) -> None:
        """The records up to the end of the last batch are read: what it found is true, or is looked at again."""
        unsettled, self._unsettled = self._unsettled, []
        for seen in unsettled:
            item, path = seen.item, self._watches.path(seen.item.node)
            if path is not None and self._is_suspect(seen.path):
                self._walks.again(Item(item.walk, item.node))
            elif path is not None and seen.outcome is Outcome.LISTED and seen.next_offset:
                self._walks.again(Item(item.walk, item.node, seen.next_offset))
            else:
                if path is not None and seen.outcome is not Outcome.LISTED:
                    self._not_watched(seen, path)
                self._count_down(item.walk)

    def _is_suspect(self, path: bytes) -> bool:
        """Something moved on the way to the path while it was looked at."""
        while self._touched:
            if path in self._touched:
                return True
            if not path:
                break
            path = path.rpartition(b"/")[0]
        return False

    def _not_watched(self, seen: Seen, path: bytes) -> None:
        walk, node = seen.item.walk, seen.item.node
        if seen.outcome is Outcome.FULL:
            self._degrade(seen.error)
            if walk.report and node is walk.top:
                self._on_subtree(path)  # it can be scanned once, at least
        elif seen.outcome is Outcome.ABSENT and node.wd and not isinstance(node, Root):
            self._on_gone(path)
            self._on_change(path)
        if isinstance(node, Root):
            if seen.outcome is Outcome.ABSENT:
                self._watches.forget(node)
        elif not node.wd or seen.outcome in {Outcome.ABSENT, Outcome.FOREIGN}:
            self._watches.drop(node)

    def _count_down(self, walk: Walk | None) -> None:
        while walk is not None:
            walk.left -= 1
            if walk.left:
                return
            self._walks.open.discard(walk)
            walk.done.set()
            path = self._watches.path(walk.top)
            if walk.report and path is not None:
                self._on_subtree(path)
            if walk.rescan and path is not None:
                self._on_overflow()
            walk = walk.parent

    def _look_at_doubtful(self) -> None:
        """What the records say is not enough to know what stands at a place."""
        doubtful, self._doubtful = self._doubtful, set()
        unwatched, self._unwatched = self._unwatched, []
        walks = [self._appear(parent, name) for parent, name in doubtful if self._watches.path(parent) is not None]
        walks += [
            self._walks.start(Walk(node, report=True))
            for node in unwatched
            if not node.wd and self._watches.path(node) is not None
        ]
        for barrier in self._barriers:
            if barrier.walks is not None:
                barrier.walks.update(walks)

    def _release(self, barriers: list[_Barrier]) -> None:
        for barrier in barriers:
            if barrier.walks is None and barrier.position <= self._position:
                barrier.walks = set(self._walks.open)
            if barrier.walks is not None:
                barrier.walks &= self._walks.open
                if not barrier.walks and not self._doubtful:
                    self._barriers.remove(barrier)
                    barrier.reached.set()

    async def _give_back(self) -> None:
        """Take down the watches on what went away."""
        for count, wd in enumerate(self._watches.leave()):
            if wd:
                try:
                    self._inotify.rm_watch(wd)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # the directory was removed, and its watch with it
                        raise
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- lost records, missing watches

    def _resync(self) -> None:
        """Records were lost: have everything scanned, and find the directories that are not watched yet.

        What is watched stays so, and the scan may begin at once; what is found new is reported when it is watched.
        """
        self._on_overflow()
        if any(walk.deep for walk in self._walks.open):
            self._resync_again = True
        else:
            self._walk_deep()

    def _walk_deep(self) -> None:
        self._resync_again = False
        for root in self._watches.roots.values():
            self._walks.start(Walk(root, deep=True))

    def _degrade(self, error: int) -> None:
        self._was_full = True
        self.degraded_reason = limit_reason(error, self.watches)
        if self._retry_s == math.inf:
            self._retry_s = trio.current_time() + RESCAN_S

    def _retry(self, now_s: float) -> None:
        """Now and then try again for the watches that could not be had, and have everything scanned."""
        if any(walk.deep for walk in self._walks.open):
            return
        if self._resync_again:
            self._walk_deep()
        elif self.degraded_reason and not self._was_full:  # the last deep walk found watches for all
            self.degraded_reason = ""
            self._retry_s = math.inf
        elif now_s >= self._retry_s:
            self._was_full = False
            self._retry_s = now_s + RESCAN_S
            self._resync()
