"""Doing for many what each of them asked for: whoever comes while some are under way is of the next ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

from fsxsync.errors import FsxSyncError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Waiting(Generic[Item, Outcome]):
    __slots__ = ("item", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Outcome | FsxSyncError | None = None


class Together(Generic[Item, Outcome]):
    """``act`` gives an outcome or an error for each item, in their order; what it raises is everybody's."""

    def __init__(
        self, act: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | FsxSyncError]]], *, most: int
    ) -> None:
        self._act = act
        self._most = most
        self._turn = trio.Lock()
        self._waiting: list[_Waiting[Item, Outcome]] = []

    async def do(self, item: Item) -> Outcome:
        """Return what came of it.

        Raises:
            FsxSyncError: that is what came of it.
        """
        mine = _Waiting[Item, Outcome](item)
        self._waiting.append(mine)
        try:
            async with self._turn:
                if mine.outcome is None:
                    await self._do_some()
        finally:
            if mine in self._waiting:  # who goes away before his turn takes his item along
                self._waiting.remove(mine)
        assert mine.outcome is not None
        if isinstance(mine.outcome, FsxSyncError):
            raise mine.outcome
        return mine.outcome

    async def _do_some(self) -> None:
        """The lock is fair: who has the turn and no outcome is the first that waits."""
        some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        # What is begun is everybody's: it does not end because the one goes away who happened to begin it.
        with trio.CancelScope(shield=True):
            try:
                outcomes = await self._act([one.item for one in some])
            except FsxSyncError as error:
                outcomes = [error] * len(some)
        for one, outcome in zip(some, outcomes, strict=True):
            one.outcome = outcome
