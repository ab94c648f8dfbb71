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


class Carrier(Protocol):
    """The pool."""

    def submit_gets(
        self, gets: Sequence[tuple[SignedRequest, Sink]], priority: Priority, taken: Sequence[Taken]
    ) -> list[int]:
        """The ids of those that there was room for; each of them is told `Taken.came`."""

    def cancel(self, job: int) -> None: ...


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
    """Number -> the pool's job, of those that are under way."""
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def is_over(self) -> bool:
        return self.next >= self.count and not self.jobs

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
    """Those of one lane. All methods run in the trio thread."""

    def __init__(self, carrier: Carrier, lane: Lane) -> None:
        self._carrier = carrier
        self._lane = lane
        self._calls: list[_Call] = []
        self._under_way = 0
        self._turns = 0
        """That were waited for, and are not used yet."""

    async def get_many(self, count: int, priority: Priority, prepare: Prepare, came: Came) -> None:
        """See `ports.Wire`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(count, priority, prepare, came)
        self._calls.append(call)
        try:
            self.pump()
            while not call.is_over:
                if self._under_way == 0:
                    await self._lane.take(priority)  # nobody's answer would call `pump`
                    self._turns += 1
                    self.pump()
                else:
                    await call.news.wait()
                    call.news = trio.Event()
        except trio.Cancelled:
            await self._end(call)
            raise
        finally:
            self._calls.remove(call)
            self.pump()  # this may have been the call that waited for a turn, for all of them

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
        self._under_way -= 1
        self._lane.give()
        answer = None
        if result.error in {_core.TRANSFER_OK, _core.TRANSFER_HTTP}:
            self._lane.answered(result.status)
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in result.headers)
            answer = Answer(result.status, headers, result.body, result.crc64nvme)
        call.came(number, answer)
        if call.is_over:
            call.tell()

    def pump(self) -> None:
        """Ask for as many as there are turns for, the first call's first."""
        for call in self._calls:
            while call.next < call.count:
                turns, self._turns = self._turns, 0
                turns += self._lane.take_now(call.priority, call.count - call.next - turns)
                if turns <= 0:
                    break
                self._lane.give(turns - self._ask(call, turns))
            if call.is_over:
                call.tell()
        turns, self._turns = self._turns, 0
        self._lane.give(turns)
        if self._under_way == 0:
            for call in self._calls:
                if call.next < call.count:
                    call.tell()  # to wait for a turn
                    break

    def _ask(self, call: _Call, turns: int) -> int:
        """How many of these turns were used."""
        gets: list[tuple[SignedRequest, Sink]] = []
        taken: list[Taken] = []
        while len(gets) < turns and call.next < call.count:
            number = call.next
            call.next += 1
            prepared = call.prepare(number, partial(self._end_one, call, number))
            if prepared is not None:
                gets.append(prepared)
                taken.append(Taken(self, call, number))
        if not gets:
            return 0
        jobs = self._carrier.submit_gets(gets, call.priority, taken)
        for one, job in zip(taken, jobs, strict=False):
            call.jobs[one.number] = job
        self._under_way += len(jobs)
        for one in taken[len(jobs) :]:
            call.came(one.number, None)
        return len(jobs)

    def _end_one(self, call: _Call, number: int) -> None:
        if (job := call.jobs.get(number)) is not None:
            self._carrier.cancel(job)
