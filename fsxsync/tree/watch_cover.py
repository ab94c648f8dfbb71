"""Which directories are watched, and what is done when that is not all of them.

Batches of looks (`watch_walk`) are taken into the table (`watches`). The table is right but for what the queue still
holds; so a batch is settled only after the records are read that were queued meanwhile, and looked at again where one
of them moved something on the way to it.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from fsxsync.tree.watch_walk import Item, Outcome, Seen, Walk, Walks, limit_reason, look
from fsxsync.tree.watches import Directory, Root, Watches

RESCAN_S = 60.0
"""Without enough watches everything is scanned this often."""
SLICE = 500
"""So much is done in one go before other tasks run."""


class WatchedTree(Protocol):
    """What is needed of `Tree`."""

    @property
    def root_fd(self) -> int: ...
    @property
    def dev(self) -> int: ...
    @property
    def staging_name(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Reports:
    """Who is told what; see `Watcher`."""

    on_change: Callable[[bytes], None]
    on_moved: Callable[[bytes, bytes, bool], None]
    on_subtree: Callable[[bytes], None]
    on_gone: Callable[[bytes], None]
    on_overflow: Callable[[], None]


class Coverage:
    """The table, the walks that fill it, and the doubts about it."""

    def __init__(self, tree: WatchedTree, reports: Reports) -> None:
        self._tree = tree
        self._reports = reports
        self.table = Watches()
        self.walks = Walks()
        self.degraded_reason = ""
        self.retry_s = math.inf
        """When the watches that could not be had are tried for again, in trio's time."""
        self._unsettled: list[Seen] = []
        self._touched: set[bytes] = set()  # directories that came, went or moved since the last batch
        self._doubtful: set[tuple[Directory, bytes]] = set()
        self._unwatched: list[Directory] = []
        self._resync_again = False
        self._was_full = False

    # ------------------------------------------------------------- what records say

    def touch(self, path: bytes) -> None:
        """A directory came, went or moved: what was looked at below it must be looked at again."""
        self._touched.add(path)

    def doubt(self, parent: Directory, name: bytes) -> None:
        """Have a look at what stands at a place, once the records are read that are there."""
        self._doubtful.add((parent, name))

    def lost(self, node: Directory, path: bytes) -> None:
        """The kernel ended a watch. Mostly the directory was removed, which the next record says."""
        self.table.forget(node)
        self._touched.add(path)
        if isinstance(node, Root):
            self.walks.start(Walk(node, rescan=True))
        else:
            self._unwatched.append(node)

    def appear(self, parent: Directory, name: bytes) -> Walk:
        """A directory of unknown content stands there."""
        return self.walks.start(Walk(self.table.place(parent, name), report=True))

    def is_unknown(self, node: Directory) -> bool:
        """Its content was not reported yet: what went before it was watched, nobody tells of."""
        return any(walk.report and walk.top is node for walk in self.walks.open)

    # ------------------------------------------------------------- walks

    async def look(self, inotify: Any, batch: list[Item]) -> None:
        """Watch the directories of a batch. Nobody reads records meanwhile."""
        self._touched.clear()
        placed: list[tuple[Item, bytes]] = []
        for item in batch:
            path = self.table.path(item.node)
            if path is None:
                self._count_down(item.walk)
            elif self.table.stands(item.node):
                placed.append((item, path))
            else:
                self.walks.again(item)  # half of a rename was read
        if not placed:
            await trio.lowlevel.checkpoint()
            return
        tree = self._tree
        found = await trio.to_thread.run_sync(look, inotify, tree.root_fd, tree.dev, tree.staging_name, placed)
        for item, _ in placed[len(found) :]:
            self.walks.again(item)
        for seen in found:
            if seen.outcome is Outcome.LISTED:
                self._take_in(seen)
        self._unsettled = found

    def _take_in(self, seen: Seen) -> None:
        """Put a directory that is watched now, and its subdirectories, into the table."""
        item, node = seen.item, seen.item.node
        if self.table.path(node) is None:
            self.table.disown(seen.wd)  # its root was removed meanwhile
            return
        before = self.table.get(seen.wd)
        is_new = self.table.watched(node, seen.wd)
        if is_new and before is not None:
            self._found_elsewhere(before)
        if is_new and item.walk.deep:
            self._report_apart(item)
        if is_new and item.offset:
            seen.next_offset, seen.subdirectories = 0, []
            self.walks.add(Item(item.walk, node))  # another directory than the one that was half listed
        if item.walk.deep and not item.offset and node.children is not None:
            for child in node.children.values():
                self.walks.add(Item(item.walk, child))
        for name in seen.subdirectories:
            child = self.table.place(node, name)
            if not child.wd:
                self.walks.add(Item(item.walk, child))

    def _found_elsewhere(self, before: Directory) -> None:
        """A watched directory stands at another place than its node: its record was lost, or is not read yet."""
        if isinstance(before, Root):
            if self.table.roots.get(before.name) is before:
                self.table.forget(before)
                self.walks.start(Walk(before, rescan=True))
            return
        if before.parent is not None:
            self.doubt(before.parent, before.name)
        self.table.drop(before)

    def _report_apart(self, item: Item) -> None:
        """A deep walk came to a directory that was not watched: what is below becomes a walk that reports it."""
        walk = Walk(item.node, report=True, parent=item.walk, left=1)
        self.walks.open.add(walk)
        item.walk = walk  # the item is counted in the new walk now, and the new walk in the old one

    def settle(self) -> None:
        """The records up to the end of the last batch are read: what it found is true, or is looked at again."""
        unsettled, self._unsettled = self._unsettled, []
        for seen in unsettled:
            item, path = seen.item, self.table.path(seen.item.node)
            if path is not None and self._is_suspect(seen.path):
                self.walks.again(Item(item.walk, item.node))
            elif path is not None and seen.outcome is Outcome.LISTED and seen.next_offset:
                self.walks.again(Item(item.walk, item.node, seen.next_offset))
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
                self._reports.on_subtree(path)  # it can be scanned once, at least
        elif seen.outcome is Outcome.ABSENT and node.wd and not isinstance(node, Root):
            self._reports.on_gone(path)
            self._reports.on_change(path)
        if isinstance(node, Root):
            if seen.outcome is Outcome.ABSENT:
                self.table.forget(node)
        elif not node.wd or seen.outcome in {Outcome.ABSENT, Outcome.FOREIGN}:
            self.table.drop(node)

    def _count_down(self, walk: Walk | None) -> None:
        while walk is not None:
            walk.left -= 1
            if walk.left:
                return
            self.walks.open.discard(walk)
            walk.done.set()
            path = self.table.path(walk.top)
            if walk.report and path is not None:
                self._reports.on_subtree(path)
            if walk.rescan and path is not None:
                self._reports.on_overflow()
            walk = walk.parent

    def settle_doubts(self) -> list[Walk]:
        """Look where the records do not say enough to know what stands there; the walks that do."""
        doubtful, self._doubtful = self._doubtful, set()
        unwatched, self._unwatched = self._unwatched, []
        walks = [self.appear(parent, name) for parent, name in doubtful if self.table.path(parent) is not None]
        walks += [
            self.walks.start(Walk(node, report=True))
            for node in unwatched
            if not node.wd and self.table.path(node) is not None
        ]
        return walks

    async def give_back(self, inotify: Any) -> None:
        """Take down the watches on what went away."""
        for count, wd in enumerate(self.table.leave()):
            if wd:
                try:
                    inotify.rm_watch(wd)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # the directory was removed, and its watch with it
                        raise
            if count % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- lost records, missing watches

    def resync(self) -> None:
        """Records were lost: have everything scanned, and find the directories that are not watched yet.

        What is watched stays so, and the scan may begin at once; what is found new is reported when it is watched.
        """
        self._reports.on_overflow()
        if any(walk.deep for walk in self.walks.open):
            self._resync_again = True
        else:
            self._walk_deep()

    def _walk_deep(self) -> None:
        self._resync_again = False
        for root in self.table.roots.values():
            self.walks.start(Walk(root, deep=True))

    def _degrade(self, error: int) -> None:
        self._was_full = True
        self.degraded_reason = limit_reason(error, len(self.table))
        if self.retry_s == math.inf:
            self.retry_s = trio.current_time() + RESCAN_S

    def retry(self, now_s: float) -> None:
        """Now and then try again for the watches that could not be had, and have everything scanned."""
        if not (self._resync_again or self.degraded_reason) or any(walk.deep for walk in self.walks.open):
            return
        if self._resync_again:
            self._walk_deep()
        elif self.degraded_reason and not self._was_full:  # the last deep walk found watches for all
            self.degraded_reason = ""
            self.retry_s = math.inf
        elif now_s >= self.retry_s:
            self._was_full = False
            self.retry_s = now_s + RESCAN_S
            self.resync()
