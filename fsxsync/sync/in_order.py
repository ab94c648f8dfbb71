"""Some acts at the same time, whose outcomes are recorded in the order in which the acts were begun."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from fsxsync.errors import FsxSyncError
from fsxsync.sync.loading import first_leaf

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@asynccontextmanager
async def in_order(
    most: int, act: Callable[[Item], Awaitable[Outcome]], record: Callable[[Item, Outcome], None]
) -> AsyncIterator[Callable[[Item], Awaitable[None]]]:
    """Gives what begins with an item, and returns as soon as fewer than ``most`` are under way. All of them are over at
    the end of the block.

    Raises:
        FsxSyncError: of the first act that failed; those after it are cancelled, and not recorded.
    """
    slots = trio.Semaphore(most - 1)
    last = trio.Event()
    last.set()

    async def one(item: Item, before: trio.Event, mine: trio.Event) -> None:
        try:
            outcome = await act(item)
        except FsxSyncError:
            await before.wait()  # what was begun before is finished
            raise
        await before.wait()
        record(item, outcome)
        mine.set()
        slots.release()

    async def begin(item: Item) -> None:
        nonlocal last
        before, last = last, trio.Event()
        nursery.start_soon(one, item, before, last)
        await slots.acquire()

    try:
        async with trio.open_nursery() as nursery:
            yield begin
    except* FsxSyncError as failures:
        raise first_leaf(failures) from None
