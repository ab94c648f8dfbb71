"""Released files that were moved out of every association, behind the mount: nothing is told of them there.

Their data is in the object of their old name, which goes with that name. So whoever is about to delete or overwrite the
object of a released file looks for its inode in the rest of the tree first. Mostly that is empty, or small; what looks
come at the same time share one walk of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from fsxsync.errors import FsxSyncError
from fsxsync.sync.together import Together
from fsxsync.tree.tree import Tree

MOST = 10_000
"""Inodes that one walk looks for."""


class Outside:
    """``directories`` are those of the associations: what is below them is looked at by them."""

    def __init__(self, tree: Tree, directories: Callable[[], frozenset[bytes]]) -> None:
        self._tree = tree
        self._directories = directories
        self._searches = Together(self._search, most=MOST)

    async def path_of(self, ino: int) -> bytes:
        """Where in the tree a file of that inode lies in no association; b"" if it does not.

        Raises:
            TreeError: not all of it can be read.
        """
        return await self._searches.do(ino)

    async def _search(self, inodes: Sequence[int]) -> list[bytes | FsxSyncError]:
        apart = self._directories()
        if b"" in apart:
            return [b""] * len(inodes)
        found = await trio.to_thread.run_sync(self._tree.find_apart, frozenset(inodes), apart)
        return [found.get(ino, b"") for ino in inodes]
