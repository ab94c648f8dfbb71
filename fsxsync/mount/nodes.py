"""What the kernel knows: one node an inode, addressed by the host's inode number.

A node knows its parent and its name there, so a path is found by walking up, and a rename of a directory touches
one node however much lies below it. A hard-linked file has several such links.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator

from pyfuse3 import ROOT_INODE, InodeT

LONGEST_WALK = 4096
"""Components of the deepest path we answer for. Moves behind the mount may close a ring of stale links."""


class Node:
    """One inode that the kernel may name. Slotted: a mount holds hundreds of thousands of these.

    ``parent`` and ``name`` are the primary link, None and b"" once the inode has no name that we know of;
    ``others`` holds further hard links. ``children`` counts links whose parent this node is: while there are any
    the node stays, or their paths could not be found. ``kind`` is S_IFMT(mode).
    ``cached`` is (mtime_ns, size) of the file whose pages the kernel may hold.
    """

    __slots__ = ("cached", "children", "generation", "ino", "kind", "lookups", "name", "others", "parent")

    def __init__(self, ino: int, kind: int, generation: int) -> None:
        self.ino = ino
        self.kind = kind
        self.generation = generation
        self.lookups = 0
        self.parent: Node | None = None
        self.name = b""
        self.others: list[tuple[Node, bytes]] | None = None
        self.children = 0
        self.cached: tuple[int, int] | None = None

    def links(self) -> Iterator[tuple[Node, bytes]]:
        """Where the inode stands, the likeliest place first."""
        if self.parent is not None:
            yield self.parent, self.name
        if self.others:
            yield from tuple(self.others)


class Nodes:
    """The table. ``root_ino`` is the host's number of the tree's root, which the kernel knows as 1."""

    def __init__(self, root_ino: int, root_kind: int) -> None:
        self._generations = itertools.count(1)
        self._by_ino: dict[int, Node] = {}
        self.root = self._plant(root_ino, root_kind)
        self.root.lookups = 1  # the kernel never forgets it

    def __len__(self) -> int:
        return len(self._by_ino)

    # ------------------------------------------------------------- numbers

    def nodeid(self, ino: int) -> InodeT:
        """The kernel's number: the root's and 1 change places, all others are the host's own."""
        if ino == self.root.ino:
            return ROOT_INODE
        return InodeT(self.root.ino) if ino == ROOT_INODE else InodeT(ino)

    def find(self, ino: int) -> Node | None:
        """The node of a host inode number."""
        return self._by_ino.get(ino)

    def named(self, nodeid: int) -> Node:
        """The node that the kernel means.

        Raises:
            OSError: ESTALE, it was forgotten.
        """
        node = self._by_ino.get(self.nodeid(nodeid))  # the exchange is its own inverse
        if node is None:
            raise OSError(errno.ESTALE, "the kernel names an inode that it forgot")
        return node

    # ------------------------------------------------------------- coming and going

    def _plant(self, ino: int, kind: int) -> Node:
        node = self._by_ino[ino] = Node(ino, kind, next(self._generations))
        return node

    def met(
        self,
        ino: int,
        kind: int,
        parent: Node | None,
        name: bytes,
        *,
        pinned: bool,
        nlink: int,
        generation: int | None = None,
    ) -> Node:
        """The node of what was just seen at ``name`` in ``parent``; the caller counts the lookup if it replies.

        ``generation`` tells the inode from an earlier one of its number, where that is known for certain; else
        ``pinned`` says that somebody has it open, so that its number can't have been given to another file.
        """
        node = self._by_ino.get(ino)
        if node is None:
            node = self._plant(ino, kind)
            if generation is not None:
                node.generation = generation
        elif generation is not None:
            if node.generation != generation:
                node.kind, node.generation, node.cached = kind, generation, None
        elif node.kind != kind or (node.parent is None and node is not self.root and not pinned and nlink == 1):
            # The number was given to a new file while the kernel still knew the old one: a generation of its own
            # tells it that these are two.
            node.kind = kind
            node.generation = next(self._generations)
            node.cached = None
        if node is not self.root and parent is not None:
            self.link(node, parent, name, alone=nlink == 1 or kind == _DIRECTORY)
        return node

    def link(self, node: Node, parent: Node, name: bytes, *, alone: bool) -> None:
        """Note that the inode stands at ``name`` in ``parent``; ``alone``: and nowhere else."""
        if node.parent is parent and node.name == name:
            if alone and node.others:
                self._drop_others(node)
            return
        if alone:
            self._drop_others(node)
            self._detach_primary(node)
        elif node.parent is not None:
            link = (node.parent, node.name)
            others = [other for other in node.others or () if other != (parent, name)]
            if len(others) != len(node.others or ()):
                parent.children -= 1  # it becomes the primary one below
            node.others = [*others, link]
        node.parent, node.name = parent, name
        parent.children += 1

    def unlink(self, node: Node, parent: Node, name: bytes) -> None:
        """The inode does not stand at ``name`` in ``parent`` any more."""
        if node.parent is parent and node.name == name:
            self._detach_primary(node)
            if node.others:
                node.parent, node.name = node.others.pop()
                node.others = node.others or None
        elif node.others and (parent, name) in node.others:
            node.others.remove((parent, name))
            node.others = node.others or None
            self._left(parent)

    def move(self, node: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """A rename: whatever lies below moves with it, untouched."""
        lasting = node.kind != _DIRECTORY and bool(node.others)
        self.link(node, *new, alone=not lasting)
        self.unlink(node, *old)

    def _detach_primary(self, node: Node) -> None:
        parent, node.parent, node.name = node.parent, None, b""
        if parent is not None:
            self._left(parent)

    def _drop_others(self, node: Node) -> None:
        others, node.others = node.others or (), None
        for parent, _ in others:
            self._left(parent)

    def _left(self, parent: Node) -> None:
        parent.children -= 1
        self.drop_if_unused(parent)

    def forget(self, nodeid: int, lookups: int) -> Node | None:
        """The kernel gave back that many lookups; the node, if it is gone from the table now."""
        node = self._by_ino.get(self.nodeid(nodeid))
        if node is None or node is self.root:
            return None
        node.lookups -= lookups
        return node if self.drop_if_unused(node) else None

    def drop_if_unused(self, node: Node) -> bool:
        """Drop a node that neither the kernel nor a node below needs, and ancestors that were kept for it alone."""
        dropped = False
        candidates = [node]  # a loop, not recursion: trees are deep
        while candidates:
            candidate = candidates.pop()
            if candidate.lookups > 0 or candidate.children > 0 or self._by_ino.get(candidate.ino) is not candidate:
                continue
            del self._by_ino[candidate.ino]
            dropped = dropped or candidate is node
            for parent, _ in candidate.links():
                parent.children -= 1
                candidates.append(parent)
            candidate.parent, candidate.name, candidate.others = None, b"", None
        return dropped

    # ------------------------------------------------------------- paths

    def path(self, node: Node) -> bytes | None:
        """The path below the root, b"" for the root itself; None for an inode without a name."""
        names: list[bytes] = []
        while node is not self.root:
            if node.parent is None or len(names) > LONGEST_WALK:
                return None
            names.append(node.name)
            node = node.parent
        names.reverse()
        return b"/".join(names)


_DIRECTORY = 0o040000
"""S_IFDIR"""
