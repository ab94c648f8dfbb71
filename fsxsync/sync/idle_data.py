"""What is here of released files that nobody reads at the moment: kept as long as there is room for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, ObjectDamaged
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.partials import PartialMemory
from fsxsync.sync.served import Shared
from fsxsync.tree.stub_data import put_back

IDLE_S = 60.0
"""How long a file is kept open for loading after the last use; then its descriptor is given back. Also how long a
damaged object is refused before it is tried again."""


def is_partial(hydration: Hydration) -> bool:
    """There is something to remember of it."""
    return hydration.count > 1 and hydration.resident_bytes > 0 and hydration.failure is None


class IdleData:
    """A hydrator's hydrations, as far as they rest. In the trio thread."""

    def __init__(
        self,
        shared: Shared,
        memory: PartialMemory,
        active: Mapping[int, Hydration],
        *,
        forget: Callable[[Hydration], None],
        report: Callable[[Hydration, FsxSyncError], None],
    ) -> None:
        """``forget`` closes one that rests and takes it out of ``active``."""
        self._shared = shared
        self._memory = memory
        self._active = active
        self._forget = forget
        self._report = report
        shared.drop_partial = self.drop_partial

    async def run(self) -> None:
        """Give back the descriptors of what was not used for long, for ever."""
        while True:
            await trio.sleep(IDLE_S / 4)
            for hydration in [one for one in self._active.values() if self._is_idle(one)]:
                if is_partial(hydration) and not await self._saved(hydration):
                    continue
                if self._is_idle(hydration):
                    if isinstance(hydration.failure, ObjectDamaged):
                        hydration.punch()
                    self._forget(hydration)

    async def _saved(self, hydration: Hydration) -> bool:
        try:
            return await self._memory.save(hydration)
        except FsxSyncError as error:
            self._report(hydration, error)
            return True

    def _is_idle(self, hydration: Hydration) -> bool:
        return (
            self._active.get(hydration.ino) is hydration
            and self._rests(hydration)
            and trio.current_time() - hydration.last_use > IDLE_S
        )

    def _rests(self, hydration: Hydration) -> bool:
        return hydration.rests and self._shared.front.open_handles(hydration.ino) == 0

    def drop_partial(self, tree_path: bytes, ino: int) -> bool:
        """Give back the space of what is here of a stub. False: somebody uses it, or it is no stub any more. No await.

        Raises:
            FsxSyncError: the disk failed.
        """
        hydration = self._active.get(ino)
        if hydration is not None:
            if not self._rests(hydration):
                return False
            self._memory.forget(ino)
            hydration.punch()
            self._forget(hydration)
        elif self._shared.front.open_handles(ino) > 0 or not self._drop_unopened(tree_path, ino):
            return False
        self._shared.front.invalidate_inode(ino, data=True)
        return True

    def _drop_unopened(self, tree_path: bytes, ino: int) -> bool:
        tree = self._shared.tree
        local = tree.identify(tree_path)
        if local is None or local.ino != ino or local.stub is None:
            return False
        row = self._memory.recall(ino, local.stub)
        try:
            fd = tree.open_write(tree_path, ino)
        except LocalChanged:
            return False
        try:
            self._memory.forget(ino)
            mtime_ns, atime_ns = (row.mtime_ns, row.atime_ns) if row else (local.mtime_ns, local.atime_ns)
            put_back(fd, tree_path, mtime_ns=mtime_ns, atime_ns=atime_ns, punch=True)
        finally:
            os.close(fd)
        return True
