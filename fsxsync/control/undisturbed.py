"""Work that runs to its end though the client who asked for it hangs up."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from fsxsync.errors import FsxSyncError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Work(Generic[T]):
    """One such piece of work."""

    def __init__(self, name: str, act: Callable[[], Awaitable[T]]) -> None:
        self._name = name
        self._act = act
        self._ended = trio.Event()
        self._result: list[T] = []
        self._failure: Exception | None = None
        self._is_awaited = True

    async def run(self) -> None:
        try:
            self._result.append(await self._act())
        except FsxSyncError as error:
            self._failure = error
            if not self._is_awaited:
                log.warning("request failed after its client left", extra={"request": self._name, "reason": error})
        except Exception as error:
            self._failure = error
            if not self._is_awaited:
                log.exception("bug in a request whose client left", extra={"request": self._name})
        finally:
            self._ended.set()

    async def result(self) -> T:
        """Raises what the work raised, and FsxSyncError where the daemon's end ended it."""
        try:
            await self._ended.wait()
        except trio.Cancelled:
            self._is_awaited = False
            raise
        if self._failure is not None:
            raise self._failure
        if not self._result:
            raise FsxSyncError(self._name, "the daemon ends", advice="ask again when it is back")
        return self._result[0]

    async def result_within(self, seconds: float) -> T | None:
        """The result, or None if it takes longer; then failures go to the log."""
        with trio.move_on_after(seconds):
            return await self.result()
        return None


class Undisturbed:
    """``nursery`` is the server's: what runs here ends with the daemon and not before.

    For requests that have begun to change something: an update that was cancelled half-way would leave an
    association that nobody serves. A broken invariant ends the nursery, and with it the daemon.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, name: str, act: Callable[[], Awaitable[T]]) -> Work[T]:
        work = Work(name, act)
        self._nursery.start_soon(work.run, name=name)
        return work

    async def run(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        return await self.start(name, act).result()
