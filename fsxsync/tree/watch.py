"""inotify on the tree: records become hints at paths (DESIGN §2, §6).

One task reads the records and sets the watches, in turns, so that a directory's watch is always older than the look
at what it holds, and the table (`watches`) is only ever behind the kernel by what is in the queue. Where a record does
not fit the table, the place it names is looked at again: what stands there decides, as everywhere.

The kernel queues a record before the system call that caused it returns. So whatever was done before a moment is in
the queue at that moment, and `barrier` needs no marker: it waits until the bytes that were queued then are read.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from inotify_simple import INotify, flags

from fsxsync import _core
from fsxsync.tree.watch_cover import SLICE, Coverage, Reports, WatchedTree
from fsxsync.tree.watch_created import Created
from fsxsync.tree.watch_walk import Walk, no_instance
from fsxsync.tree.watches import Directory, Root

PAIR_S = 0.01
"""How long the second half of a rename may take; the kernel queues both within microseconds."""
GATHER_S = 0.005
"""Between the first record and the look at all that came; who waits for a barrier need not."""
GATHER_BUSY_S = 0.01
"""After a turn that read many: of a file that is told of again and again, records that are read together are one."""
_READ_BYTES = 60 * 1024
"""At least; some 1,300 records."""
_READ_MAX_BYTES = 1 << 20
"""What the kernel queues at most, with short names. What is read at once can't be lost; the queue overflows where each
read waits until all others had their turn."""
TAKEN_AT_ONCE = 1000
"""Records: other tasks run in between."""
# The numbers: the names of an enumeration are looked up in five times as long, for each record.
_ATTRIB, _CLOSE_WRITE, _CREATE, _DELETE = map(int, (flags.ATTRIB, flags.CLOSE_WRITE, flags.CREATE, flags.DELETE))
_MOVED_FROM, _MOVED_TO, _ISDIR = map(int, (flags.MOVED_FROM, flags.MOVED_TO, flags.ISDIR))
_IGNORED, _OVERFLOW = map(int, (flags.IGNORED, flags.Q_OVERFLOW))
_NAMELESS = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT)
_ABOUT_NAMES = ~(_ATTRIB | _CLOSE_WRITE)
"""All but what tells only that the file of a name changed."""


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
        self._staging_name = tree.staging_name
        self._reports = Reports(on_change, on_moved, on_subtree, on_gone, on_overflow)
        self._coverage = Coverage(tree, self._reports)
        self._table = self._coverage.table
        self._walks = self._coverage.walks
        self._created = Created(self._table, tree.root_fd)
        self.overflows = 0
        self._inotify: Any = None
        self._running = trio.Event()
        self._first_walks: dict[bytes, Walk] = {}
        self._departed: dict[int, _Departed] = {}
        self._position = 0  # bytes read from the queue so far
        self._barriers: list[_Barrier] = []
        self._nap = trio.CancelScope()

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._table)

    @property
    def degraded_reason(self) -> str:
        """Why not everything is watched, and what to do about it; "" if all is."""
        return self._coverage.degraded_reason

    # ------------------------------------------------------------- asked by others

    def add_root(self, directory: bytes) -> None:
        """Watch a directory and all below, soon (`watched`). Roots must not contain each other; again does no harm."""
        root = self._table.add_root(directory)
        self._first_walks[directory] = self._walks.start(Walk(root))
        self._nap.cancel()

    def remove_root(self, directory: bytes) -> None:
        """No longer report anything of a root."""
        self._table.remove_root(directory)
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
        now_s, before = trio.current_time(), self._position
        barriers = list(self._barriers)
        await self._read_records(self._position + self._queued(), now_s)
        self._expire(now_s, barriers)
        self._coverage.settle()
        self._let_wait_for(self._coverage.settle_doubts())
        await self._ask_created(now_s, everything=any(barrier.walks is None for barrier in barriers))
        await self._coverage.give_back(self._inotify)
        self._coverage.retry(now_s)
        self._release(barriers)
        batch = self._walks.take()
        if batch:
            await self._coverage.look(self._inotify, batch)
        elif self._barriers:
            await trio.lowlevel.checkpoint()  # asked for in this turn: the next one serves it
        else:
            with trio.CancelScope(deadline=self._next_deadline()) as self._nap:
                await trio.lowlevel.wait_readable(self._inotify.fileno())
                # A burst costs a turn for each hundred records, not for each.
                await trio.sleep(GATHER_S if self._position - before < _READ_BYTES else GATHER_BUSY_S)

    def _queued(self) -> int:
        """Bytes in the kernel's queue."""
        answer = fcntl.ioctl(self._inotify.fileno(), termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def _next_deadline(self) -> float:
        first = next(iter(self._departed.values()), None)
        return min(first.expires_s if first else math.inf, self._created.next_s, self._coverage.retry_s)

    async def _read_records(self, until: int, now_s: float) -> None:
        # No more than what was queued at the start: a storm must not keep the walks waiting.
        while (left := until - self._position) > 0:
            try:
                data = os.read(self._inotify.fileno(), max(_READ_BYTES, min(left, _READ_MAX_BYTES)))
            except BlockingIOError:
                return
            departure = (now_s + PAIR_S, self._position)
            self._position += len(data)
            records = _core.merged_records(data)
            for start in range(0, len(records), TAKEN_AT_ONCE):
                self._take(records[start : start + TAKEN_AT_ONCE], departure)
                await trio.lowlevel.checkpoint()

    def _take(self, records: Sequence[tuple[int, int, int, bytes]], departure: tuple[float, int]) -> None:
        here, path = 0, None  # the directory of the record before: it has not moved since
        for wd, mask, cookie, name in records:
            if mask & _OVERFLOW:
                self.overflows += 1
                self._coverage.resync()
                here = 0
                continue
            node = self._table.get(wd)
            if wd != here or mask & _ABOUT_NAMES:
                path = self._table.path(node) if node is not None else None
                here = 0 if mask & _ABOUT_NAMES else wd
            if node is None or path is None:
                continue  # it left; who watches its place now looks at what is there
            if name:
                self._entry_changed(node, path, mask, cookie, name, departure)
            else:
                self._directory_changed(node, path, mask)

    # ------------------------------------------------------------- records

    def _directory_changed(self, node: Directory, path: bytes, mask: int) -> None:
        """A record of a watched directory about itself. All but roots are told of by their parents too."""
        if mask & _IGNORED or (mask & _NAMELESS and isinstance(node, Root)):
            self._coverage.lost(node, path)
        elif mask & _ATTRIB and isinstance(node, Root):
            self._reports.on_change(path)

    def _entry_changed(
        self, parent: Directory, directory: bytes, mask: int, cookie: int, name: bytes, departure: tuple[float, int]
    ) -> None:
        path = directory + b"/" + name if directory else name
        if path == self._staging_name:
            return
        if not mask & _ABOUT_NAMES and not self._created:  # most of them
            self._reports.on_change(path)
            return
        is_directory = bool(mask & _ISDIR)
        if is_directory and not mask & _ATTRIB:
            self._coverage.touch(path)
        if mask & _MOVED_FROM:
            node = self._table.child(parent, name) if is_directory else None
            if node is not None:
                self._table.take_out(node)
            self._created.discard(parent, name)
            self._departed[cookie] = _Departed(parent, path, is_directory, node, *departure)
        elif mask & _MOVED_TO:
            self._arrived(parent, name, path, self._departed.pop(cookie, None), is_directory=is_directory)
        elif is_directory:
            self._subdirectory_changed(parent, name, path, mask)
        elif mask & _CREATE:
            self._created.add(parent, name)
        elif mask & _ATTRIB and not mask & _CLOSE_WRITE and (parent, name) in self._created:
            return  # its writer sets mode and times before the close, which is to come
        else:
            self._created.discard(parent, name)
            self._reports.on_change(path)

    def _arrived(
        self, parent: Directory, name: bytes, path: bytes, origin: _Departed | None, *, is_directory: bool
    ) -> None:
        """MOVED_TO. Without the other half it came from outside the roots, staging included."""
        self._created.discard(parent, name)
        if is_directory:
            self._place_directory(parent, name, origin)
        if origin is None:
            self._reports.on_change(path)
        else:
            self._reports.on_moved(origin.path, path, is_directory)

    def _place_directory(self, parent: Directory, name: bytes, origin: _Departed | None) -> None:
        node = origin.node if origin is not None else None
        displaced = self._table.child(parent, name)
        if displaced is not None:
            # An empty directory was replaced, or two were exchanged: the first records of both look alike.
            self._table.drop(displaced)
            self._coverage.doubt(parent, name)
            if origin is not None:
                self._coverage.doubt(origin.parent, origin.path.rpartition(b"/")[2])
        if node is None or not node.wd:
            if node is not None:
                self._table.drop(node)
            self._coverage.appear(parent, name)
        elif self._table.is_within(parent, node):
            self._coverage.resync()  # a directory below itself: the table is wrong
        else:
            self._table.attach(node, parent, name)

    def _subdirectory_changed(self, parent: Directory, name: bytes, path: bytes, mask: int) -> None:
        node = self._table.child(parent, name)
        if mask & _CREATE:
            self._coverage.appear(parent, name)
        elif mask & _DELETE:
            if node is None or not node.wd or self._coverage.is_unknown(node):
                self._reports.on_gone(path)  # nobody reported what was removed in it
            if node is not None:
                self._table.drop(node)
        elif node is None:
            self._coverage.appear(parent, name)  # a change of its mode may have opened it to us
        self._reports.on_change(path)

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
                self._table.drop(departed.node)
            if departed.is_directory:
                self._reports.on_gone(departed.path)
            self._reports.on_change(departed.path)

    async def _ask_created(self, now_s: float, *, everything: bool) -> None:
        for count, path in enumerate(self._created.due(now_s, everything=everything)):
            if path is not None:
                self._reports.on_change(path)
            if count % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()

    def _let_wait_for(self, walks: list[Walk]) -> None:
        for barrier in self._barriers:
            if barrier.walks is not None:
                barrier.walks.update(walks)

    def _release(self, barriers: list[_Barrier]) -> None:
        for barrier in barriers:
            if barrier.walks is None and barrier.position <= self._position:
                barrier.walks = set(self._walks.open)
            if barrier.walks is not None:
                barrier.walks &= self._walks.open
                if not barrier.walks:
                    self._barriers.remove(barrier)
                    barrier.reached.set()
