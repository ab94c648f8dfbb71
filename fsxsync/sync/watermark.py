"""Release by watermark: above ``cache_high`` the least recently used files go, until ``cache_low`` is reached.

Also when somebody meets a full disk: what can be released is, and he tries once more. What may go is decided by
`releaser`, as for a task.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import trio

from fsxsync.errors import FsxSyncError
from fsxsync.model.identity import Kind
from fsxsync.model.release import idle_since_ns
from fsxsync.sync.hydration import kept_free
from fsxsync.sync.last_uses import LastUses
from fsxsync.sync.releasable import Candidate
from fsxsync.sync.releaser import STUB_BLOCKS, release
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.slowing import Slowing
from fsxsync.sync.task_stages import entries
from fsxsync.tree.reserve import Reserve, allocate_ahead

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the disk is asked. An application that writes 2 GB/s gets one of them past the mark in between."""
HELD_LOOK_S = 0.1
"""… while writers wait for it."""
WALK_SHARE = 10
"""A walk that found nothing is followed by a pause so many times as long."""
CANDIDATES = 20_000
"""So many of the least recently used files are remembered in one walk of the tree."""
SLICE = 256
"""Files that are released before the disk is asked again."""
PAUSE_S = 30.0
"""The longest after a walk that found nothing to release: what is dirty has to be exported first."""
ROOM = 64 << 20
"""What is made at once for somebody who met a full disk; a twentieth of a small disk."""
ROOM_SHARE = 20
TIGHT, TIGHT_SHARE = 1 << 30, 10
"""With less room than this, or one part in that many of a small disk, files are opened for writing in a way that lets
us make room. A writer of 2 GB/s uses up so much between two looks."""
NOTHING_S = 2.0
"""So long everybody who meets a full disk is refused without a walk, after one that found nothing."""
MOTION_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2)
"""Pauses after which it is tried again, as long as files are about to become such as may be released: what is exported
or was just loaded is in a moment. An application that fills the disk waits for its own exports so."""
RESERVE_S = 5.0
"""How often what is allocated ahead is made whole again."""


@dataclass(frozen=True, slots=True)
class _Old:
    """A file that may be released, the one that was not used for the longest time first."""

    used_ns: int
    association: str
    candidate: Candidate
    is_stub: bool
    """Its data is gone already but for what was read of it since."""

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


def pause_after(failures: int, walk_s: float) -> float:
    """After so many walks that found nothing to release, the last of which took ``walk_s``: of a small tree another one
    soon, of a large one not all the time, and of none for ever."""
    return float(min(PAUSE_S, max(LOOK_S * 2 ** min(failures - 1, 10), WALK_SHARE * walk_s)))


def _used(disk: os.statvfs_result) -> tuple[int, int]:
    """(bytes used, bytes in all) as `df` counts them: what is reserved for root counts as neither."""
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    return used, used + disk.f_bavail * disk.f_frsize


def _little(disk: os.statvfs_result) -> int:
    """So few free bytes are little."""
    return min(TIGHT, disk.f_blocks * disk.f_frsize // TIGHT_SHARE)


class Watermark:
    """One per daemon; everything runs in the trio thread."""

    def __init__(self, shared: Shared, served: Mapping[str, Served], is_told: Callable[[], bool]) -> None:
        """``is_told``: something happened in the tree that is not in the changelog yet."""
        self._is_told = is_told
        self._shared = shared
        self._served = served
        self._turn = trio.Lock()
        self._uses = LastUses(shared)
        self._reserve = Reserve(shared.settings.state_dir / "reserve")
        self._nothing_until = 0.0
        self._busy: set[int] = set()
        """Files that the last walk left because they were open: once one of them is not, another walk may find more."""
        self._freed_at = 0.0
        """When something was last released, for whomever."""
        self._refused_with: int | None = None
        """Free bytes when somebody who met a full disk could not be helped; None: there was nobody, or things are
        better since."""
        self._is_said = False
        self._slowing = Slowing(served, self._is_high, self._is_in_motion)
        self._failing_since = 0.0
        """When releasing above the mark began to find nothing; 0: it finds something."""
        self._failures = 0
        """How often it found nothing since."""
        shared.make_room = self.make_room
        shared.slow_down = self._slowing.wait
        shared.is_tight = self.is_tight
        shared.least_free = self.least_free

    async def keep_reserves(self) -> None:
        """Have what is needed to go on when the disk is full, for ever."""
        while True:
            async with self._turn:
                await self._of_reserve(partial(self._shared.catalog.reserve, allocate_ahead))
                if not self._shared.eager:
                    await self._of_reserve(self._reserve.take)
            await trio.sleep(RESERVE_S)

    def _left(self) -> tuple[int, int]:
        """(bytes that are free, bytes below which that is little)."""
        disk = self._statvfs()
        return disk.f_bavail * disk.f_frsize, _little(disk)

    def is_tight(self) -> bool:
        """See `Shared.is_tight`."""
        disk = self._statvfs()
        return disk.f_bfree * disk.f_frsize < self._least_free(disk)

    def is_stuck(self) -> bool:
        """Somebody met a full disk, nothing could be released, and there is no more room since."""
        if self._refused_with is not None and self._left()[0] > self._refused_with + self._room():
            self._refused_with = None
        return self._refused_with is not None

    def _refuse(self) -> None:
        """Who wants more than a disk that is nearly empty has does not find it full."""
        free = self._left()[0]
        self._refused_with = free if free < self._disk()[1] // TIGHT_SHARE else None

    def _room(self) -> int:
        """What is made at once."""
        return min(ROOM, self._disk()[1] // ROOM_SHARE)

    def least_free(self) -> int:
        """See `Shared.least_free`."""
        return self._least_free(self._statvfs())

    def _least_free(self, disk: os.statvfs_result) -> int:
        if self._shared.eager:
            return 0
        least = _little(disk) + (disk.f_bfree - disk.f_bavail) * disk.f_frsize
        if self._shared.settings.cache_high:
            high, margin = self._high(_used(disk)[1])
            least = max(least, disk.f_blocks * disk.f_frsize - (high - margin))
        return least

    def _has_little(self) -> bool:
        free, little = self._left()
        return free < little

    def _high(self, total: int) -> tuple[int, int]:
        """(``cache_high`` in bytes, how far below it nobody shall write past us any more)."""
        settings = self._shared.settings
        high, low = bytes_of(settings.cache_high, total), low_of(settings.cache_high, settings.cache_low, total)
        return high, min(TIGHT, total // TIGHT_SHARE, high - low)

    def _is_high(self) -> bool:
        """So much is used that writers have to wait, lest it gets more than ``cache_high``: whoever has a file open
        already writes past us."""
        if not self._shared.settings.cache_high or self._shared.eager:
            return False
        used, total = self._disk()
        high, margin = self._high(total)
        return used > high - margin // 2

    async def make_room_ahead(self) -> None:
        """While there is little room, make some for those who write past us, for ever; also where somebody was
        refused, once something can be released."""
        failures = 0
        while not self._shared.eager:
            await trio.sleep(LOOK_S)
            is_stuck = self.is_stuck()
            if not is_stuck and not (self._has_little() and self._shared.writers):
                continue
            began = trio.current_time()
            async with self._turn:
                if is_stuck:
                    freed = await self._release_some_room()
                else:
                    freed = await self._release_until(lambda: self._left()[1] - self._left()[0])
            failures = 0 if freed else failures + 1
            if not freed:
                await trio.sleep(pause_after(failures, trio.current_time() - began))

    async def keep_uses(self) -> None:
        """Remember what is used, for ever."""
        await self._uses.run()

    async def run(self) -> None:
        """Keep the disk below the mark, for ever."""
        settings = self._shared.settings
        if not settings.cache_high or self._shared.eager:
            return
        while True:
            await trio.sleep(HELD_LOOK_S if self._slowing.held else LOOK_S)
            used, total = self._disk()
            if used <= bytes_of(settings.cache_high, total) and not self._slowing.held:
                self._is_said = False
                self._failing_since, self._failures = 0.0, 0
                continue
            low = low_of(settings.cache_high, settings.cache_low, total)
            began = trio.current_time()
            async with self._turn:
                freed = await self._release_until(lambda: self._disk()[0] - low)  # noqa: B023 - awaited here
            if freed:
                self._failing_since, self._failures = 0.0, 0
            else:
                await self._found_nothing(used, began)

    async def _found_nothing(self, used: int, began: float) -> None:
        now = trio.current_time()
        self._failing_since = self._failing_since or now
        self._failures += 1
        if not self._is_in_motion() or now - self._failing_since > PAUSE_S:
            self._say(used)
        await trio.sleep(pause_after(1 if self._slowing.held else self._failures, now - began))

    async def make_room(self, since: float) -> bool:
        """Somebody who began at ``since`` met a full disk. True: there is some room now, and he may try again."""
        if self._shared.eager:
            self._refuse()
            return False  # nobody could load again what was released
        async with self._turn:
            if self._freed_at > since:
                return True  # he was too early for it: of the chunks of a file several fail at once
            if trio.current_time() < self._nothing_until and all(map(self._is_open, self._busy)):
                return False
            for pause_s in (0.0, *MOTION_S):
                if pause_s and not self._is_in_motion():
                    break
                await trio.sleep(pause_s)
                if await self._release_some_room():
                    return True
            self._nothing_until = trio.current_time() + NOTHING_S
            self._refuse()
            return False

    async def _release_some_room(self) -> bool:
        used, total = self._disk()
        room, kept = self._room(), kept_free(total)

        def needed() -> int:
            disk = self._statvfs()
            # Also what is reserved for root may be used up: then the first bytes that are freed help nobody.
            return max(room - (used - self._disk()[0]), kept + room - disk.f_bavail * disk.f_frsize)

        await self._of_reserve(self._reserve.lend)
        try:
            has_freed = await self._release_until(needed)
            if has_freed:
                self._refused_with = None
            return has_freed
        finally:
            with trio.CancelScope(shield=True):
                await self._of_reserve(self._reserve.take)

    @staticmethod
    async def _of_reserve(act: Callable[[], None]) -> None:
        try:
            await trio.to_thread.run_sync(act)
        except OSError as error:
            log.debug("the reserve is not whole", extra={"error": str(error)})

    def _is_open(self, ino: int) -> bool:
        return self._shared.front.open_handles(ino) > 0

    def _is_in_motion(self) -> bool:
        """There are files that can't be released yet, but soon."""
        changelog = self._shared.catalog.changelog
        is_pending = any(changelog.count(served)[1] for served in self._served)
        return is_pending or self._shared.settling > 0 or self._is_told()

    # ------------------------------------------------------------- the disk

    def _statvfs(self) -> os.statvfs_result:
        return os.fstatvfs(self._shared.tree.root_fd)

    def _disk(self) -> tuple[int, int]:
        """See `_used`."""
        return _used(self._statvfs())

    # ------------------------------------------------------------- releasing

    async def _release_until(self, needed: Callable[[], int]) -> bool:
        """Release as long as bytes are ``needed``. False: nothing could be released."""
        has_freed = False
        self._busy.clear()
        oldest = await self._oldest_of_all()
        oldest.reverse()
        while oldest and (left := needed()) > 0:
            some: list[_Old] = []
            while oldest and len(some) < SLICE and left > 0:
                some.append(oldest.pop())
                left -= some[-1].candidate.local.blocks * 512
            if await self._release_some(some):
                has_freed, self._freed_at = True, trio.current_time()
        return has_freed

    async def _release_some(self, some: list[_Old]) -> bool:
        has_freed = False
        some.sort(key=lambda old: (old.association, old.candidate.path))  # so they can be looked up in a listing
        for association, group in groupby(some, lambda old: old.association):
            has_freed |= await self._release(association, list(group))
        if has_freed:
            # A journal gives blocks back with its next commit only; who does not wait for it releases too much.
            try:
                await trio.to_thread.run_sync(self._shared.tree.flush_all)
            except FsxSyncError as error:
                log.warning("release by watermark: the disk can't be flushed", extra={"error": str(error)})
        return has_freed

    async def _release(self, association: str, part: list[_Old]) -> bool:
        served = self._served.get(association)
        if served is None:
            return False
        try:
            # First what needs no mark, and so no block.
            dropped = [
                self._shared.drop_partial(served.tree_path(old.candidate.path), old.candidate.local.ino)
                for old in part
                if old.is_stub
            ]
            outcomes = await release(served, [old.candidate for old in part if not old.is_stub])
            self._busy.update(ino for ino in (old.candidate.local.ino for old in part) if self._is_open(ino))
        except FsxSyncError as error:
            log.warning("release by watermark failed", extra={"association": association, "error": str(error)})
            return False
        return any(dropped) or any(why is None for why in outcomes.values())

    async def _oldest_of_all(self) -> list[_Old]:
        oldest: list[_Old] = []
        for served in list(self._served.values()):
            oldest = await self._oldest(served, oldest)
        return sorted(oldest)

    async def _oldest(self, served: Served, oldest: list[_Old]) -> list[_Old]:
        try:
            async for batch in entries(served, [b""], b""):
                for entry in batch:
                    local, base = entry.local, entry.base
                    if local is None or base is None or local.kind is not Kind.FILE:
                        continue
                    if base.released:
                        if base.ino != local.ino or local.blocks <= STUB_BLOCKS:
                            continue
                    elif local.blocks == 0 or not base.matches_local(local):
                        continue
                    used_ns = max(idle_since_ns(local), self._uses.used_ns(local.ino))
                    oldest.append(_Old(used_ns, served.id, Candidate(entry.path, local), base.released))
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
            code="NoDiskSpace",
            flow="daemon",
            association="",
            message=f"{used >> 20} MiB are used, more than cache_high, and nothing can be released: what is here is "
            "open, not exported yet, or kept by norelease",
        )
