"""Files as our own work left them a moment ago: what inotify tells of them is nothing new (DESIGN §2).

Where many files are released, three records of each come back. Without this, each file would be looked at and its row
be read to find out that nobody else was there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from fsxsync.model.identity import Local
from fsxsync.tree.identify import Stood
from fsxsync.tree.tree import Tree

MOST = 20_000
"""Files that are remembered: records were lost of those that nobody asks for. Who was forgotten is looked at."""


class OwnWork:
    """By path of the tree: the association that it is of, its path there, and the file."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._left: dict[bytes, tuple[str, bytes, Stood]] = {}
        """The newest ones last."""

    def note(self, association: str, files: Iterable[tuple[bytes, bytes, Local]]) -> None:
        """Files by path of the tree and path in the association: each is as its row says, mode and owner included.
        With more names than one it is not remembered: each has a row of its own."""
        left = self._left
        for path, below, local in files:
            left.pop(path, None)
            if local.nlink == 1:
                left[path] = (association, below, (path, *local.state))
        for path in list(islice(left, max(len(left) - MOST, 0))):
            del left[path]

    def unchanged(self, tree_paths: Collection[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
        """(path of the tree, association, path there) of those that still are as they were noted. They stay noted: what
        is done to one file comes in several readings of records. The others are forgotten.

        Raises:
            PathEscapes.
        """
        if not self._left:
            return
        known = self._left.keys() & tree_paths
        standing = self._tree.standing([self._left[path][2] for path in known])
        for tree_path in known.difference(standing):
            del self._left[tree_path]
        for tree_path in standing:
            association, path, _ = self._left[tree_path]
            yield tree_path, association, path
