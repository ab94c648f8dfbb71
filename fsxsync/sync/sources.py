"""Where an association hears of objects: an event queue, or a listing now and then. Both only make hints.

One reader per queue serves every association that names it: a message taken by one would be lost to the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import trio

from fsxsync.errors import RepositoryError
from fsxsync.ports import EventQueue, ObjectHint, QueueMessage
from fsxsync.sync.intake import Intake
from fsxsync.sync.listing import reconcile_listing
from fsxsync.sync.served import Served

LONG_POLL_S = 20
"""SQS's longest wait; a waiting receive costs nothing."""
RETRY_S = 5.0
HANDOVER_S = 0.1
GRACE_S = 2.0
"""How long `wait` waits for messages that somebody holds before it reads the listing instead …"""
UNREAD_MAX_S = 60.0
"""… and, where no listing is read, at all: twice SQS's usual visibility time-out."""
POLL_COST_SHARE = 100
"""Listing polls may use one part in this many of a processor: a huge prefix (from 40,000 keys a minute) is polled less
often than asked."""


class QueueReader:
    """Reads one queue for all its associations. A message is deleted only after its hints are in the changelog."""

    def __init__(self, queue: EventQueue, intake: Intake, served_by: Callable[[str], Iterable[Served]]) -> None:
        self._queue = queue
        self._intake = intake
        self._served_by = served_by
        self.failure = ""

    async def run(self) -> None:
        """Read for ever; failures are shown in status and tried again."""
        while True:
            try:
                await self._receive(LONG_POLL_S)
                self.failure = ""
            except RepositoryError as error:
                if str(error) != self.failure:
                    self._report(error)
                self.failure = str(error)
                await trio.sleep(RETRY_S)

    async def read_up_to_now(self, patience_s: float = GRACE_S) -> bool:
        """Return when everything that was in the queue at the call is in the changelog. False if somebody still holds
        messages after ``patience_s``: a daemon that was killed took them, and they come back when their visibility
        time-out is over.

        Reads beside the long poll, which can't be interrupted; both only add hints.

        Raises:
            RepositoryError
        """
        deadline = trio.current_time() + patience_s
        while True:
            # Two empty answers in a row: a standard queue may answer empty while it still has messages.
            empty = 0
            while empty < 2:
                empty = 0 if await self._receive(0) else empty + 1
            # An empty queue is not enough: the long poll may have been handed a message that is still on its way here.
            left = await trio.to_thread.run_sync(self._queue.left)
            if left is None:
                await trio.sleep(HANDOVER_S)
            if not left:
                return True
            if trio.current_time() > deadline:
                return False
            await trio.sleep(HANDOVER_S)

    async def _receive(self, wait_s: int) -> int:
        # A long poll must not keep the daemon from ending: what it takes meanwhile comes back (nothing is deleted).
        messages = await trio.to_thread.run_sync(self._queue.receive, wait_s, abandon_on_cancel=wait_s > 0)
        receipts = [message.receipt for message in messages if self._take(message)]
        if receipts:
            await trio.to_thread.run_sync(self._queue.delete, receipts)
        now_ns = None
        for served in self._served_by(self._queue.url):
            now_ns = now_ns or served.shared.now_ns()
            served.source_read_ns = now_ns
        return len(messages)

    def _take(self, message: QueueMessage) -> bool:
        """Write a message's hints down. True if it may be deleted: it is recorded, one way or the other."""
        for hint in message.hints:
            mine = [s for s in self._served_by(self._queue.url) if _is_for(s, hint)]
            for served in mine:
                self._intake.object_hints(served, [hint])
            if not mine:
                self._record_stray(hint)
        return message.poison is None or self._record_poison(message)

    def _record_poison(self, message: QueueMessage) -> bool:
        for served in self._served_by(self._queue.url):
            served.shared.eventlog.emit(
                level="WARN",
                code="PoisonMessage",
                flow="import",
                association=served.id,
                message=f"an unreadable message of the queue is dropped: {message.poison}: {message.body_excerpt}",
            )
            return True
        return False

    def _record_stray(self, hint: ObjectHint) -> None:
        for served in self._served_by(self._queue.url):
            served.shared.eventlog.emit(
                level="INFO",
                code="StrayMessage",
                flow="import",
                association="",
                key=hint.key,
                message=f"an event for s3://{hint.bucket}/{hint.key} belongs to no association of this queue",
            )
            return

    def _report(self, error: RepositoryError) -> None:
        for served in self._served_by(self._queue.url):
            served.shared.eventlog.emit(
                level="ERROR", code=error.code, flow="import", association=served.id, message=str(error)
            )


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


def _is_for(served: Served, hint: ObjectHint) -> bool:
    return served.association.bucket == hint.bucket and hint.key.startswith(served.association.prefix)


class Poller:
    """Reads the listing every ``poll_s`` seconds and whenever somebody asks."""

    def __init__(self, served: Served, intake: Intake, *, on_listed: Callable[[], None]) -> None:
        self._served = served
        self._intake = intake
        self._on_listed = on_listed
        self._wanted = trio.Event()
        self._finished = trio.Condition()
        self._started = 0
        self._done = 0
        self.accept_deletes = False
        self.is_running = False

    async def run(self) -> None:
        """Poll for ever; the first listing at once.

        Raises:
            RepositoryError: the supervisor marks the association MISCONFIGURED and starts this again.
        """
        self.is_running = True
        try:
            await self._poll()
        finally:
            self.is_running = False

    async def _poll(self) -> None:
        while True:
            self._wanted = trio.Event()
            cost_s = await self._read()
            pause_s = self._served.association.poll_s or math.inf
            with trio.move_on_after(max(pause_s, cost_s * POLL_COST_SHARE)):  # the next one is due, or asked for
                await self._wanted.wait()

    async def _read(self) -> float:
        before = time.process_time()  # of all that runs: a busy daemon is no worse for polling a little less
        self._started += 1
        number = self._started
        await reconcile_listing(self._served, self._intake, accept_deletes=self.accept_deletes)
        self.accept_deletes = False
        self._on_listed()
        async with self._finished:
            self._done = number
            self._finished.notify_all()
        return time.process_time() - before

    async def read_up_to_now(self) -> None:
        """Return when a listing that was started after the call is in the changelog."""
        number = self._started + 1
        async with self._finished:
            while self._done < number:
                self._wanted.set()
                await self._finished.wait()
