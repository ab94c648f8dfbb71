"""Where an association hears of objects: an event queue, or a listing now and then. Both only make hints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import trio

from fsxsync.sync.listing import Consent, reconcile_listing
from fsxsync.sync.reading import QueueReader
from fsxsync.sync.served import Served

POLL_COST_SHARE = 100
"""Listing polls may use one part in this many of a processor: a huge prefix (from 40,000 keys a minute) is polled less
often than asked."""


def describe(served: Served, reader: QueueReader | None) -> str:
    """The source of an association as ``status`` shows it: what it is, and when it was last read."""
    association = served.association
    if not association.policy.imports:
        return "none: imports are off"
    read = _ago(served) if served.source_read_ns else "not read yet"
    if reader is not None:
        return f"sqs {association.events}: {reader.failure or read}"
    return f"poll every {association.poll_s:g} s: {read}" if association.poll_s else f"none: listed once, {read}"


def _ago(served: Served) -> str:
    return f"read {max(0.0, (served.shared.now_ns() - served.source_read_ns) / 1e9):.0f} s ago"


class Poller:
    """Reads the listing every ``poll_s`` seconds and whenever somebody asks."""

    def __init__(self, served: Served, *, on_listed: Callable[[], None]) -> None:
        self._served = served
        self._on_listed = on_listed
        self._wanted = trio.Event()
        self._finished = trio.Condition()
        self._started = 0
        self._done = 0
        self._closely_from_ns: float = math.inf
        self.consent = Consent()
        self.is_running = False

    async def run(self, *, at_once: bool = True) -> None:
        """Poll for ever; the first listing at once, or when it is due.

        Raises:
            RepositoryError: the supervisor marks the association MISCONFIGURED and starts this again.
        """
        self.is_running = True
        try:
            await self._poll(0.0 if at_once else self._pause_s)
        finally:
            self.is_running = False

    @property
    def _pause_s(self) -> float:
        return self._served.association.poll_s or math.inf

    async def _poll(self, pause_s: float) -> None:
        while True:
            with trio.move_on_after(pause_s):  # the next one is due, or asked for
                await self._wanted.wait()
            self._wanted = trio.Event()
            cost_s = await self._read()
            pause_s = max(self._pause_s, cost_s * POLL_COST_SHARE)

    async def _read(self) -> float:
        before = time.process_time()  # of all that runs: a busy daemon is no worse for polling a little less
        self._started += 1
        number = self._started
        closely_from_ns, self._closely_from_ns = self._closely_from_ns, math.inf
        try:
            await reconcile_listing(self._served, self.consent, closely_from_ns=closely_from_ns)
        except BaseException:  # whoever asked for it waits for the next one
            self._closely_from_ns = min(self._closely_from_ns, closely_from_ns)
            raise
        self._on_listed()
        async with self._finished:
            self._done = number
            self._finished.notify_all()
        return time.process_time() - before

    def want(self) -> None:
        """Read the listing soon."""
        self._wanted.set()

    async def read_up_to_now(self, *, closely_from_ns: float = math.inf) -> None:
        """Return when a listing that was started after the call is in the changelog; ``closely_from_ns`` as there."""
        self._closely_from_ns = min(self._closely_from_ns, closely_from_ns)
        number = self._started + 1
        async with self._finished:
            while self._done < number:
                self._wanted.set()
                await self._finished.wait()
