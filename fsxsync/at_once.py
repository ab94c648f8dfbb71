"""Doing the same to many things, some at a time, until one fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from fsxsync.errors import FsxSyncError

Item = TypeVar("Item")


async def each(items: Sequence[Item], act: Callable[[Item], Awaitable[None]], *, at_once: int) -> None:
    """Act on all of them, in their order. The first of our errors stops what is under way, and is raised."""
    left = iter(items)
    failures: list[FsxSyncError] = []

    async def some(scope: trio.CancelScope) -> None:
        for item in left:
            try:
                await act(item)
            except FsxSyncError as error:
                failures.append(error)
                scope.cancel()
                return

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(min(at_once, len(items))):
                nursery.start_soon(some, nursery.cancel_scope)
    except BaseExceptionGroup as group:
        if group.split(trio.Cancelled)[1] is None:
            await trio.lowlevel.checkpoint_if_cancelled()  # callers expect Cancelled itself, not a group of it
        raise
    if failures:
        raise failures[0]
