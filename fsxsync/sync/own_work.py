"""Files as our own work left them a moment ago: what inotify tells of them is nothing new (DESIGN §2).

Where many files are released, three records of each come back. Without this, each file would be looked at and its row
be read to find out that nobody else was there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator

from fsxsync.model.identity import Local
from fsxsync.tree.tree import Tree

MOST = 20_000
"""Files that are remembered: records were lost of those that nobody asks for. Who was forgotten is looked at."""


class OwnWork:
    """By path of the tree: the association that it is of, its path there, and the file."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._left: OrderedDict[bytes, tuple[str, bytes, Local]] = OrderedDict()

    def note(self, association: str, tree_path: bytes, path: bytes, local: Local) -> None:
        """The file is as its row says. With more names than one it is not remembered: each has a row of its own."""
        if local.nlink == 1:
            self._left[tree_path] = (association, path, local)
            if len(self._left) > MOST:
                self._left.popitem(last=False)

    def unchanged(self, tree_paths: Collection[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
        """(path of the tree, association, path there) of those that still are as they were noted. They stay noted: what
        is done to one file comes in several readings of records. The others are forgotten.

        Raises:
            PathEscapes.
        """
        if not self._left:
            return
        noted = {path: self._left.pop(path) for path in self._left.keys() & tree_paths}
        files = {path: local for path, (_, _, local) in noted.items()}
        for tree_path in self._tree.standing(files):
            self._left[tree_path] = found = noted[tree_path]
            yield tree_path, found[0], found[1]
