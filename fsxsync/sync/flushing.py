"""Bringing many files to the disk at once: whoever comes while a flush is under way shares the next one.

One file alone is brought there by itself: a flush of everything may have to wait for what others write (DESIGN §5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from fsxsync.errors import FsxSyncError


@dataclass(slots=True)
class _Round:
    files: int = 0
    is_over: bool = False
    error: FsxSyncError | None = None


class Flusher:
    """``flush_one`` and ``flush_all`` block, and raise FsxSyncError."""

    def __init__(self, flush_one: Callable[[int], None], flush_all: Callable[[], None]) -> None:
        self._flush_one = flush_one
        self._flush_all = flush_all
        self._turn = trio.Lock()
        self._next = _Round()

    async def flush(self, fd: int) -> None:
        """What was written to that file before the call is on the disk on return.

        Raises:
            FsxSyncError: the disk did not take it.
        """
        mine = self._next
        mine.files += 1
        async with self._turn:
            if not mine.is_over:
                self._next = _Round()  # who comes from now on may have written after we began
                await self._do(mine, fd)
        if mine.error is not None:
            raise mine.error

    async def _do(self, mine: _Round, fd: int) -> None:
        try:
            if mine.files == 1:
                await trio.to_thread.run_sync(self._flush_one, fd)
            else:
                await trio.to_thread.run_sync(self._flush_all)
        except FsxSyncError as error:
            mine.error = error
        mine.is_over = True
