"""How many requests at a time: turns in order of priority, and a limit that gives way to a store that is overrun."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from fsxsync.ports import Priority

_KEPT_SHARE = 4
"""One turn in so many is never given to bulk data: a reader or a small request need not wait for a whole chunk."""
_PATIENCE_S = 1.0
"""Refusals within that time are of one cause: the requests under way were sent before the first of them came back."""
_OVERRUN = frozenset({429, 503})


class Lane:
    """Turns for the requests of one association. All methods run in the trio thread."""

    def __init__(self, most: int) -> None:
        """``most``: requests at a time when the store keeps up."""
        self._most = most
        self._limit = float(most)
        self._slowed_at = float("-inf")
        self.under_way = 0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, trio.Event]] = []

    @property
    def limit(self) -> int:
        """Requests at a time, as far as the store was seen to keep up."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def turn(self, priority: Priority) -> AsyncGenerator[None]:
        """Inside, one request may be under way. The higher priority comes first, among equals the first one."""
        await self._take(priority)
        try:
            yield
        finally:
            self.give()

    async def take(self, priority: Priority) -> None:
        """Wait for one turn, which is to be given back (`give`)."""
        await self._take(priority)

    def take_now(self, priority: Priority, most: int) -> int:
        """Take the turns that can be had without waiting, ``most`` at most; how many. Each is to be given back."""
        taken = max(0, min(most, self._room(priority) - self.under_way))
        self.under_way += taken
        return taken

    def give(self, turns: int = 1) -> None:
        """Give turns back: who waits has them first."""
        self.under_way -= turns
        self._hand_out()

    def answered(self, status: int) -> None:
        """Halve the limit when the store says that it is too much, else let it grow again: by one in as many answers
        as requests are under way (additive increase, multiplicative decrease, as TCP does)."""
        if status in _OVERRUN:
            now = trio.current_time()
            if now - self._slowed_at > _PATIENCE_S:
                self._slowed_at = now
                self._limit = max(1.0, self._limit / 2)
        elif self._limit < self._most:
            self._limit = min(self._most, self._limit + 1 / self._limit)
            self._hand_out()

    def _room(self, priority: int) -> int:
        """Requests at a time while those of that priority are among them."""
        limit = self.limit
        if priority >= Priority.PRELOAD and limit > 1:
            limit -= max(1, limit // _KEPT_SHARE)
        return limit

    def _has_room(self, priority: int) -> bool:
        return self.under_way < self._room(priority)

    async def _take(self, priority: Priority) -> None:
        if self._has_room(priority):  # nobody of that priority waits then: `_hand_out` was there
            self.under_way += 1
            return
        turn = (int(priority), next(self._order), trio.Event())
        heapq.heappush(self._waiting, turn)
        try:
            await turn[2].wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
                heapq.heapify(self._waiting)
            else:
                self.give()  # the turn was handed over in the moment of cancellation
            raise

    def _hand_out(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][0]):
            self.under_way += 1
            heapq.heappop(self._waiting)[2].set()
