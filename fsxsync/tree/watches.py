"""The table of watched directories: which directory a watch descriptor stands for, and where it is now.

Directories are nodes with a link to their parent, so that a rename costs one link, whatever lies below; paths are
made when somebody asks. About 250 bytes a directory.
"""

from __future__ import annotations

from collections.abc import Iterator


class Directory:
    """One directory. ``wd`` is 0 until it is watched (the kernel counts from 1); ``parent`` is None once it left."""

    __slots__ = ("children", "name", "parent", "wd")

    def __init__(self, parent: Directory | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.wd = 0
        self.children: dict[bytes, Directory] | None = None


class Root(Directory):
    """The directory of an association: ``name`` is its whole path in the tree, b"" the tree itself."""

    __slots__ = ()


class Watches:
    """All nodes, by place and by watch descriptor."""

    def __init__(self) -> None:
        self.roots: dict[bytes, Root] = {}
        self._by_wd: dict[int, Directory] = {}
        self._leaving: list[Directory] = []
        self._loose: list[int] = []

    def __len__(self) -> int:
        return len(self._by_wd)

    def get(self, wd: int) -> Directory | None:
        """Whom a record is about."""
        return self._by_wd.get(wd)

    # ------------------------------------------------------------- places

    def path(self, node: Directory) -> bytes | None:
        """Where a directory is; None if it is in no root any more."""
        parts: list[bytes] = []
        top = node
        while top.parent is not None:
            parts.append(top.name)
            top = top.parent
        if self.roots.get(top.name) is not top:
            return None
        if top.name:
            parts.append(top.name)
        parts.reverse()
        return b"/".join(parts)

    @staticmethod
    def child(parent: Directory, name: bytes) -> Directory | None:
        return parent.children.get(name) if parent.children is not None else None

    def place(self, parent: Directory, name: bytes) -> Directory:
        """The node of that place, made if there is none."""
        found = self.child(parent, name)
        if found is None:
            found = Directory(parent, name)
            self._children(parent)[name] = found
        return found

    @staticmethod
    def take_out(node: Directory) -> None:
        """Free its name for another. It keeps its parent, and so its path, until it is attached or dropped."""
        parent = node.parent
        if parent is not None and parent.children is not None and parent.children.get(node.name) is node:
            del parent.children[node.name]
            if not parent.children:
                parent.children = None

    @classmethod
    def stands(cls, node: Directory) -> bool:
        """It is at its place, not on its way from there."""
        return node.parent is None or cls.child(node.parent, node.name) is node

    def attach(self, node: Directory, parent: Directory, name: bytes) -> None:
        """Move a directory, with everything below, to a place where none stands."""
        self.take_out(node)
        node.parent, node.name = parent, name
        self._children(parent)[name] = node

    @staticmethod
    def is_within(node: Directory, top: Directory) -> bool:
        """``node`` is ``top`` or lies below it."""
        while node is not top:
            if node.parent is None:
                return False
            node = node.parent
        return True

    @staticmethod
    def _children(parent: Directory) -> dict[bytes, Directory]:
        if parent.children is None:
            parent.children = {}
        return parent.children

    # ------------------------------------------------------------- watch descriptors

    def watched(self, node: Directory, wd: int) -> bool:
        """The kernel says that ``wd`` stands at the node's place; False if that was known.

        Whoever had this descriptor loses it, and if the node had another one, then it was another directory, and
        nothing is known any more of what lies below.
        """
        before = self._by_wd.get(wd)
        if before is node:
            return False
        if before is not None:
            before.wd = 0
        self.forget(node)
        node.wd = wd
        self._by_wd[wd] = node
        return True

    def forget(self, node: Directory) -> None:
        """It is not watched (any more), nor anything below; its place stays."""
        if node.wd:
            del self._by_wd[node.wd]
            self._loose.append(node.wd)
            node.wd = 0
        self._orphan(node)

    def drop(self, node: Directory) -> None:
        """It went away with everything below. Quick: `leave` does the rest."""
        self.take_out(node)
        node.parent = None
        self._leaving.append(node)

    def disown(self, wd: int) -> None:
        """A descriptor that stands for nothing."""
        if wd not in self._by_wd:
            self._loose.append(wd)

    def add_root(self, directory: bytes) -> Root:
        if directory not in self.roots:
            self.roots[directory] = Root(None, directory)
        return self.roots[directory]

    def remove_root(self, directory: bytes) -> None:
        root = self.roots.pop(directory, None)
        if root is not None:
            self._leaving.append(root)

    def leave(self) -> Iterator[int]:
        """Take down what was dropped, node by node; yields descriptors to be given back to the kernel, 0 for none."""
        while self._leaving or self._loose:
            if self._loose:
                wd = self._loose.pop()
                yield wd if wd not in self._by_wd else 0
                continue
            node = self._leaving.pop()
            if node.parent is not None:
                continue  # attached again
            if node.wd:
                del self._by_wd[node.wd]
                self._loose.append(node.wd)
                node.wd = 0
            self._orphan(node)
            yield 0

    def _orphan(self, node: Directory) -> None:
        if node.children is not None:
            for child in node.children.values():
                child.parent = None
            self._leaving.extend(node.children.values())
            node.children = None
