"""Many small downloads at a time: they go into the pool together, and what has come is taken out together.

One that is asked for alone costs a task that sleeps and wakes, some forty microseconds; here the task that takes the
pool's answers puts the next requests in, and whoever asked is woken once, when all of his have come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from fsxsync import _core
from fsxsync.ports import Answer, End, Priority, SignedRequest, Sink
from fsxsync.transfer.lanes import Lane

Prepare = Callable[[int, End], tuple[SignedRequest, Sink] | None]
Came = Callable[[int, Answer | None], None]


AHEAD = 32
"""So many are in the pool beyond those that have a turn: while what has come is dealt with here, others follow."""


class Carrier(Protocol):
    """The pool."""

    def submit_gets(
        self,
        gets: Sequence[tuple[SignedRequest, Sink]],
        priority: Priority,
        taken: Sequence[Taken],
        *,
        lane: int,
        at_once: int,
    ) -> list[int]:
        """The ids of those that there was room for; each of them is told `Taken.came`. Of a lane ``at_once`` are under
        way, from now on, and the others are held."""

    def cancel(self, job: int, *, only_held: bool = False) -> None: ...


@dataclass(slots=True, eq=False)
class _Call:
    """One call of `Getter.get_many`."""

    count: int
    priority: Priority
    prepare: Prepare
    came: Came
    next: int = 0
    """The first that was not prepared yet."""
    jobs: dict[int, int] = field(default_factory=dict)
    """Number -> the pool's job, of those that it has."""
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def left(self) -> int:
        return self.count - self.next

    @property
    def is_over(self) -> bool:
        return self.left <= 0 and not self.jobs

    def tell(self) -> None:
        self.news.set()


@dataclass(slots=True, eq=False)
class Taken:
    """One request that the pool has."""

    getter: Getter
    call: _Call
    number: int

    def came(self, result: _core.TransferResult) -> None:
        self.getter.took(self.call, self.number, result)


class Getter:
    """Those of one lane. All methods run in the trio thread.

    The pool goes from one request to the next by itself, and `pump` is called for many answers at a time: then their
    turns go back to the lane, where others may wait for them, and those that can be had are taken again.
    """

    def __init__(self, carrier: Carrier, lane: Lane, number: int) -> None:
        """``number``: by which the pool knows the lane."""
        self._carrier = carrier
        self._lane = lane
        self._number = number
        self._calls: list[_Call] = []
        self._in_pool = 0
        self._turns = 0
        self._told = 0
        """So many turns the pool knows of."""
        self._answered = 0
        """Since `pump` was called last."""
        self._waiting: trio.CancelScope | None = None
        """Of the one that waits for a turn, for all of them."""

    async def get_many(self, count: int, priority: Priority, prepare: Prepare, came: Came) -> None:
        """See `ports.Wire`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(count, priority, prepare, came)
        self._calls.append(call)
        try:
            self.pump()
            while not call.is_over:
                if self._turns == 0 and self._waiting is None:
                    await self._wait_for_turn(priority)
                else:
                    await call.news.wait()
                    call.news = trio.Event()
        except trio.Cancelled:
            await self._end(call)
            raise
        finally:
            self._calls.remove(call)
            self.pump()  # this may have been the call that waited for a turn, for all of them

    async def _wait_for_turn(self, priority: Priority) -> None:
        self._waiting = scope = trio.CancelScope()
        with scope:
            try:
                await self._lane.take(priority)
                self._turns += 1
            finally:
                self._waiting = None
        self.pump()

    async def _end(self, call: _Call) -> None:
        call.next = call.count
        for job in list(call.jobs.values()):
            self._carrier.cancel(job)
        with trio.CancelScope(shield=True):
            while call.jobs:
                await call.news.wait()
                call.news = trio.Event()

    def took(self, call: _Call, number: int, result: _core.TransferResult) -> None:
        """The pool is done with one; `pump` follows soon."""
        del call.jobs[number]
        self._in_pool -= 1
        self._answered += 1
        answer = None
        if result.error in {_core.TRANSFER_OK, _core.TRANSFER_HTTP}:
            self._lane.answered(result.status)
            answer = Answer(result.status, result.headers, result.body, result.crc64nvme)
        call.came(number, answer)

    def pump(self) -> None:
        """Ask for as many as there are turns for and some more, the first call's first."""
        self._give(min(self._answered, self._turns))
        self._answered = 0
        for call in self._calls:
            self._take(call.priority)
            while call.left > 0 and (room := self._turns + AHEAD - self._in_pool) > 0 and self._turns > 0:
                self._ask(call, room)
            if call.is_over:
                call.tell()
        self._give(self._turns - self._in_pool)
        self._tell_pool()
        if self._turns > 0:
            if self._waiting is not None:
                self._waiting.cancel()  # nobody has to any more
        elif self._waiting is None:
            for call in self._calls:
                if not call.is_over:
                    call.tell()  # to wait for a turn
                    break

    def _give(self, turns: int) -> None:
        if turns > 0:
            self._turns -= turns
            self._lane.give(turns)

    def _take(self, priority: Priority) -> None:
        wanted = self._in_pool + sum(call.left for call in self._calls)
        self._turns += self._lane.take_now(priority, wanted - self._turns)

    def _tell_pool(self) -> None:
        if self._in_pool > 0 and self._turns != self._told:
            self._told = self._turns
            self._carrier.submit_gets([], Priority.BACKGROUND, [], lane=self._number, at_once=self._turns)

    def _ask(self, call: _Call, most: int) -> None:
        gets: list[tuple[SignedRequest, Sink]] = []
        taken: list[Taken] = []
        while len(gets) < most and call.left > 0:
            number = call.next
            call.next += 1
            prepared = call.prepare(number, partial(self._end_one, call, number))
            if prepared is not None:
                gets.append(prepared)
                taken.append(Taken(self, call, number))
        if not gets:
            return
        self._told = self._turns
        jobs = self._carrier.submit_gets(gets, call.priority, taken, lane=self._number, at_once=self._turns)
        for one, job in zip(taken, jobs, strict=False):
            call.jobs[one.number] = job
        self._in_pool += len(jobs)
        for one in taken[len(jobs) :]:
            call.came(one.number, None)

    def _end_one(self, call: _Call, number: int, *, only_held: bool = False) -> None:
        if (job := call.jobs.get(number)) is not None:
            self._carrier.cancel(job, only_held=only_held)
