"""Blocking iterators that are read ahead: the next batch comes while somebody works on the last one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from outcome import Outcome  # trio's

T = TypeVar("T")


class ReadAhead(AsyncIterator[T], Generic[T]):
    """One step at a time, in a thread of trio's. For reading only: whoever stops to ask leaves a step behind that
    nobody waits for, and what it brings is dropped.

    Not `to_thread.run_sync`, whose caller waits: a nursery can't be held open by an async generator.
    """

    def __init__(self, batches: Iterator[T]) -> None:
        self._batches = batches
        self._token = trio.lowlevel.current_trio_token()
        self._start()

    def _start(self) -> None:
        self._came = trio.Event()
        self._result: Outcome[T | None] | None = None
        trio.lowlevel.start_thread_soon(lambda: next(self._batches, None), self._deliver, "reading ahead")

    def _deliver(self, result: Outcome[T | None]) -> None:
        """In that thread."""
        self._result = result
        try:
            self._token.run_sync_soon(self._came.set)
        except trio.RunFinishedError:
            return  # the daemon has ended, and nobody waits

    async def __anext__(self) -> T:
        await self._came.wait()
        assert self._result is not None
        batch = self._result.unwrap()
        if batch is None:
            raise StopAsyncIteration
        self._start()
        return batch
