"""Looks step back while applications are hard at work in the mount and processors are few.

An application that makes thousands of files a second needs one processor, and the channel that answers it another.
Looks that are due meanwhile are not lost, only late: DESIGN §6 lets an export wait, and a burst is over soon. Should it
not be, looks get their share of each period all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

BUSY_PER_S = 3000
"""Requests to the mount; one file that is created, written and closed makes four."""
SAMPLE_S = 0.05
PAUSE_S = 3.0
"""So long looks wait at most, then they have `WORK_S`, whatever goes on."""
WORK_S = 1.0
ENOUGH_PROCESSORS = 4


class Courtesy:
    """Whether now is the time for looks. ``requests``: how many the mount was asked since its start."""

    def __init__(self, requests: Callable[[], int], *, processors: int | None = None) -> None:
        self._requests = requests
        self._is_roomy = (processors or len(os.sched_getaffinity(0))) >= ENOUGH_PROCESSORS
        self._count = 0
        self._sampled_s = -SAMPLE_S
        self._is_busy = False
        self._turn_s: float | None = None
        """When the pause began that is under way, or that the work after it belongs to."""

    def is_busy(self) -> bool:
        """The mount was asked more than `BUSY_PER_S` of late."""
        now_s = trio.current_time()
        past_s = now_s - self._sampled_s
        if past_s >= SAMPLE_S:
            count = self._requests()
            self._is_busy = (count - self._count) / past_s > BUSY_PER_S
            self._count, self._sampled_s = count, now_s
        return self._is_busy

    def gives_way(self) -> bool:
        """Looks should wait now."""
        if self._is_roomy or not self.is_busy():
            return False
        now_s = trio.current_time()
        if self._turn_s is None or now_s - self._turn_s >= PAUSE_S + WORK_S:
            self._turn_s = now_s
        return now_s - self._turn_s < PAUSE_S

    async def give_way(self) -> None:
        """Return when looks may go on."""
        while self.gives_way():  # noqa: ASYNC110  nobody tells when a burst ends
            await trio.sleep(SAMPLE_S)
