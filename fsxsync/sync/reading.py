"""Reads event queues: every message becomes hints, and is deleted only after they are written down (DESIGN §7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from fsxsync.config import Settings
from fsxsync.errors import AccessDenied, EndpointUnreachable, RepositoryError, Throttled
from fsxsync.model.association import Access, Association, Lifecycle
from fsxsync.ports import HELD_S, EventQueue, ObjectHint, QueueMessage
from fsxsync.sync.intake import Intake
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.served import Served

FULL_BATCH = 10
"""What SQS gives at most: there may be more."""
CONSUMERS = 4
"""Receives at a time while there are: each waits for its own round trips."""
RETRIES = 5
"""Waits of the setting ``retry_s`` between two tries of a queue that can't be read."""
HANDOVER_S = 0.1
GRACE_S = 2.0
"""How long `wait` waits for messages that somebody holds before it reads the listing instead …"""
UNREAD_MAX_S = 60.0
"""… and, where no listing is read, at all: twice the time that a killed daemon's messages stay held."""
DEAF_MAX_S = 120.0
"""A queue that can't be reached for a moment is no fault of anybody's; after this time it is said."""
GAP_NS = 3600 * 10**9
"""Who has not read for so long (a suspended machine) reads the listing too: queues keep messages for some days."""
_PASSING = (EndpointUnreachable, Throttled)


class QueueReader:
    """Reads one queue for all its associations."""

    def __init__(
        self,
        queue: EventQueue,
        intake: Intake,
        served_by: Callable[[str], Iterable[Served]],
        settings: Settings,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._intake = intake
        self._served_by = served_by
        self.failure = ""
        self._error: RepositoryError | None = None
        self._broken = trio.Event()
        self._deaf_since_s: float | None = None
        self._read_ns = 0

    async def run(self) -> None:
        """Read for ever; what goes wrong is tried again, and told by `until_broken` unless it passes soon."""
        while True:
            try:
                if await self._receive(self._settings.queue_wait_s) >= FULL_BATCH:
                    await self._read_all()
                self._heard()
            except* RepositoryError as failures:
                error = first_leaf(failures)
                assert isinstance(error, RepositoryError)
                self._failed(error)
            if self.failure:
                await trio.sleep(RETRIES * self._settings.retry_s)

    async def _read_all(self) -> None:
        """Several at a time, until the queue seems empty."""

        async def consume() -> None:
            while await self._receive(0):
                pass

        async with trio.open_nursery() as nursery:
            for _ in range(CONSUMERS):
                nursery.start_soon(consume)

    async def check(self) -> None:
        """The queue can be read now.

        Raises:
            RepositoryError: what a person has to mend.
        """
        try:
            await trio.to_thread.run_sync(self._queue.check)
        except RepositoryError as error:
            self._failed(error)
            raise
        self._heard()

    async def until_broken(self) -> None:
        """Raise once the queue can't be read, and it does not look as if that passes by itself.

        Raises:
            RepositoryError
        """
        await self._broken.wait()
        assert self._error is not None
        raise type(self._error)(self._error.what, self._error.why, advice=self._error.advice)

    def _heard(self) -> None:
        self.failure, self._error, self._deaf_since_s = "", None, None
        if self._broken.is_set():
            self._broken = trio.Event()

    def _failed(self, error: RepositoryError) -> None:
        if str(error) != self.failure:
            self._report(error)
        self.failure, self._error = str(error), error
        if self._deaf_since_s is None:
            self._deaf_since_s = trio.current_time()
        if not isinstance(error, _PASSING) or trio.current_time() - self._deaf_since_s > DEAF_MAX_S:
            self._broken.set()

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
        if messages:
            await self._record(messages)
        self._mark_read()
        return len(messages)

    def _mark_read(self) -> None:
        read_ns = self._read_ns
        for served in self._served_by(self._queue.url):
            now_ns = served.shared.now_ns()
            if self._read_ns and now_ns - self._read_ns > GAP_NS:
                served.want_listing()
            served.source_read_ns = now_ns
            read_ns = now_ns
        self._read_ns = read_ns

    async def _record(self, messages: Sequence[QueueMessage]) -> None:
        """Write down what messages tell, then delete them; they stay ours for as long as that takes."""
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep, [message.receipt for message in messages])
                await self._write_down(messages)
                nursery.cancel_scope.cancel()
        except* RepositoryError as failures:
            failure = first_leaf(failures)
        if failure is not None:
            raise failure

    async def _keep(self, receipts: Sequence[str]) -> None:
        while True:
            await trio.sleep(HELD_S / 3)
            with suppress(AccessDenied):  # they are given out again then, and cost one more look
                await trio.to_thread.run_sync(self._queue.hold, receipts, HELD_S)

    async def _write_down(self, messages: Sequence[QueueMessage]) -> None:
        done: list[str] = []
        poison: list[QueueMessage] = []
        for message in messages:
            self._take(message)
            if message.poison is None:
                done.append(message.receipt)
            else:
                poison.append(message)
            await trio.lowlevel.checkpoint()
        if poison:
            is_kept = await trio.to_thread.run_sync(self._queue.keeps_dead_letters)
            self._record_poison(poison, is_kept=is_kept)
            if is_kept:
                # At once, so that its deliveries are used up and it lies where a person finds it.
                with suppress(AccessDenied):
                    await trio.to_thread.run_sync(self._queue.hold, [message.receipt for message in poison], 0)
            else:
                done.extend(message.receipt for message in poison)
        if done:
            await trio.to_thread.run_sync(self._queue.delete, done)

    def _take(self, message: QueueMessage) -> None:
        """Write a message's hints down."""
        for hint in message.hints:
            mine = [s for s in self._served_by(self._queue.url) if _is_for(s, hint)]
            for served in mine:
                self._intake.object_hints(served, [hint])
            if not mine:
                self._record_stray(hint)

    def _record_poison(self, messages: Sequence[QueueMessage], *, is_kept: bool) -> None:
        served = next(iter(self._served_by(self._queue.url)), None)
        if served is None:
            return
        outcome = "is left to the dead-letter queue" if is_kept else "is dropped (a dead-letter queue would keep it)"
        for message in messages:
            if is_kept and message.deliveries > 1:
                continue  # told when it came first
            served.shared.eventlog.emit(
                level="WARN",
                code="PoisonMessage",
                flow="import",
                association=served.id,
                message=f"an unreadable message of the queue {outcome}: {message.poison}: {message.body_excerpt}",
            )

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
            if served.association.lifecycle is Lifecycle.DELETING:
                continue  # its queue goes before it does
            served.shared.eventlog.emit(
                level="ERROR", code=error.code, flow="import", association=served.id, message=str(error)
            )


def _is_for(served: Served, hint: ObjectHint) -> bool:
    return served.association.bucket == hint.bucket and hint.key.startswith(served.association.prefix)


class Readers:
    """One reader a queue and set of credentials, for as long as an association uses it.

    It serves every association that names the queue: a message taken by one would be lost to the others. Once none
    does, nobody takes messages any more.
    """

    def __init__(
        self,
        intake: Intake,
        open_queue: Callable[[str, Association], EventQueue],
        served_by: Callable[[str], Iterable[Served]],
        settings: Settings,
    ) -> None:
        self._intake = intake
        self._settings = settings
        self._open_queue = open_queue
        self._served_by = served_by
        self._used: dict[tuple[str, Access], _Used] = {}

    def take(self, association: Association, nursery: trio.Nursery) -> QueueReader | None:
        """The reader of the association's queue, to be given back; None if it has no queue."""
        if association.events is None:
            return None
        key = (association.events, association.access)
        used = self._used.get(key)
        if used is None:
            queue = self._open_queue(association.events, association)
            used = self._used[key] = _Used(QueueReader(queue, self._intake, self._served_by, self._settings))
            nursery.start_soon(used.run, name=f"queue {association.events}")
        used.by += 1
        return used.reader

    def give_back(self, reader: QueueReader | None) -> None:
        """The last one to do so ends it."""
        for key, used in list(self._used.items()):
            if used.reader is reader:
                used.by -= 1
                if used.by == 0:
                    del self._used[key]
                    used.scope.cancel()


@dataclass(slots=True)
class _Used:
    reader: QueueReader
    by: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self) -> None:
        with self.scope:
            await self.reader.run()
