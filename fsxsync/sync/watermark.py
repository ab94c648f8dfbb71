"""Release by watermark: above ``cache_high`` the least recently used files go, until ``cache_low`` is reached.

Also when somebody meets a full disk: what can be released is, and he tries once more. What may go is decided by
`releaser`, as for a task.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import trio

from fsxsync.errors import FsxSyncError
from fsxsync.model.identity import Kind
from fsxsync.model.release import idle_since_ns
from fsxsync.sync.releaser import Candidate, release
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.task_stages import entries

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the disk is asked. An application that writes 2 GB/s gets one of them past the mark in between."""
CANDIDATES = 20_000
"""So many of the least recently used files are remembered in one walk of the tree."""
SLICE = 256
"""Files that are released before the disk is asked again."""
PAUSE_S = 30.0
"""After a walk that found nothing to release: what is dirty has to be exported first."""
ROOM = 64 << 20
"""What is made at once for somebody who met a full disk; a twentieth of a small disk."""
ROOM_SHARE = 20
NOTHING_S = 2.0
"""So long everybody who meets a full disk is refused without a walk, after one that found nothing."""


@dataclass(frozen=True, slots=True)
class _Old:
    """A file that may be released, the one that was not used for the longest time first."""

    used_ns: int
    association: str
    candidate: Candidate

    def __lt__(self, other: _Old) -> bool:
        return (self.used_ns, self.association, self.candidate.path) < (
            other.used_ns,
            other.association,
            other.candidate.path,
        )


def bytes_of(mark: str, total: int) -> int:
    """A watermark in bytes; ``mark`` is a size or percent of the file system, as `config` checked it."""
    return int(float(mark[:-1]) * total / 100) if mark.endswith("%") else int(mark)


def low_of(high: str, low: str, total: int) -> int:
    """Down to which use of the disk files are released."""
    most = bytes_of(high, total)
    return min(most, bytes_of(low, total)) if low else most - most // 20


class Watermark:
    """One per daemon; everything runs in the trio thread."""

    def __init__(self, shared: Shared, served: Mapping[str, Served]) -> None:
        self._shared = shared
        self._served = served
        self._turn = trio.Lock()
        self._nothing_until = 0.0
        self._is_said = False
        shared.make_room = self.make_room

    async def run(self) -> None:
        """Keep the disk below the mark, for ever."""
        settings = self._shared.settings
        if not settings.cache_high or self._shared.eager:
            return
        while True:
            await trio.sleep(LOOK_S)
            used, total = self._disk()
            if used <= bytes_of(settings.cache_high, total):
                self._is_said = False
                continue
            low = low_of(settings.cache_high, settings.cache_low, total)
            async with self._turn:
                freed = await self._release_down_to(low)
            if not freed:
                self._say(used)
                await trio.sleep(PAUSE_S)

    async def make_room(self) -> bool:
        """Somebody met a full disk. True: there is some room now, and he may try again."""
        if self._shared.eager:
            return False  # nobody could load again what was released
        free_before = self._free()
        async with self._turn:
            if self._free() > free_before:
                return True  # somebody else made some meanwhile
            if trio.current_time() < self._nothing_until:
                return False
            used, total = self._disk()
            freed = await self._release_down_to(used - min(ROOM, total // ROOM_SHARE))
            if not freed:
                self._nothing_until = trio.current_time() + NOTHING_S
            return freed

    # ------------------------------------------------------------- the disk

    def _disk(self) -> tuple[int, int]:
        """(bytes used, bytes in all) as `df` counts them: what is reserved for root counts as neither."""
        disk = os.fstatvfs(self._shared.tree.root_fd)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        return used, used + disk.f_bavail * disk.f_frsize

    def _free(self) -> int:
        disk = os.fstatvfs(self._shared.tree.root_fd)
        return disk.f_bfree * disk.f_frsize

    # ------------------------------------------------------------- releasing

    async def _release_down_to(self, goal: int) -> bool:
        """Release until no more than ``goal`` bytes are used. False: nothing could be released."""
        has_freed = False
        oldest = await self._oldest_of_all()
        oldest.reverse()
        while oldest and (needed := self._disk()[0] - goal) > 0:
            some: list[_Old] = []
            while oldest and len(some) < SLICE and needed > 0:
                some.append(oldest.pop())
                needed -= some[-1].candidate.local.blocks * 512
            has_freed |= await self._release_some(some)
        return has_freed

    async def _release_some(self, some: list[_Old]) -> bool:
        has_freed = False
        some.sort(key=lambda old: (old.association, old.candidate.path))  # so they can be looked up in a listing
        for association, group in groupby(some, lambda old: old.association):
            has_freed |= await self._release(association, [old.candidate for old in group])
        if has_freed:
            # A journal gives blocks back with its next commit only; who does not wait for it releases too much.
            try:
                await trio.to_thread.run_sync(self._shared.tree.flush_all)
            except FsxSyncError as error:
                log.warning("release by watermark: the disk can't be flushed", extra={"error": str(error)})
        return has_freed

    async def _release(self, association: str, part: list[Candidate]) -> bool:
        served = self._served.get(association)
        if served is None:
            return False
        try:
            outcomes = await release(served, part)
        except FsxSyncError as error:
            log.warning("release by watermark failed", extra={"association": association, "error": str(error)})
            return False
        return any(why is None for why in outcomes.values())

    async def _oldest_of_all(self) -> list[_Old]:
        oldest: list[_Old] = []
        for served in list(self._served.values()):
            oldest = await self._oldest(served, oldest)
        return sorted(oldest)

    async def _oldest(self, served: Served, oldest: list[_Old]) -> list[_Old]:
        last_use_ns = self._shared.front.last_use_ns
        try:
            async for batch in entries(served, [b""], b""):
                for entry in batch:
                    local, base = entry.local, entry.base
                    if local is None or base is None or local.kind is not Kind.FILE or base.released:
                        continue
                    if local.blocks == 0 or not base.matches_local(local):
                        continue
                    used_ns = max(idle_since_ns(local), last_use_ns(local.ino))
                    oldest.append(_Old(used_ns, served.id, Candidate(entry.path, local)))
                if len(oldest) > 2 * CANDIDATES:
                    oldest = heapq.nsmallest(CANDIDATES, oldest)
        except FsxSyncError as error:
            log.warning("release by watermark: the tree can't be read", extra={"error": str(error)})
        return oldest

    def _say(self, used: int) -> None:
        if self._is_said:
            return
        self._is_said = True
        self._shared.eventlog.emit(
            level="WARN",
            code="NoDiskSpace",
            flow="daemon",
            association="",
            message=f"{used >> 20} MiB are used, more than cache_high, and nothing can be released: what is here is "
            "open, not exported yet, or kept by norelease",
        )
