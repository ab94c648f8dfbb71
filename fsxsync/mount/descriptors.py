"""How the front reaches the host: descriptors of directories, and names relative to them. No path is ever walked.

Each step opens one component, follows no symlink, and checks that the inode found is the node's and lies on the
tree's own file system. So neither a symlink nor a move behind the mount leads out of the tree (DESIGN §3.7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsxsync.mount.direct import Direct
from fsxsync.mount.nodes import LONGEST_WALK, Node, Nodes

KEPT = 512
"""Descriptors of directories kept open; the least recently used is closed first."""

_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = _PIN | os.O_DIRECTORY

STAGING_PREFIX = b".fsxsync-staging"
"""Where a bulk import may stage, at the tree's root: not for applications."""


def proc_path(fd: int) -> str:
    """A name for the inode behind any descriptor, for calls that refuse O_PATH ones."""
    return f"/proc/self/fd/{fd}"


class Descriptors:
    """O_PATH descriptors of directories, and of what lost its name, keyed by node; and what is done through them.

    Every method is done when it returns: a descriptor it gave is good until the next call, and must not be kept
    across an await.
    """

    def __init__(self, nodes: Nodes, root_fd: int, direct: Direct | None = None) -> None:
        self._nodes = nodes
        self.root_fd = root_fd
        self.may_create: Callable[[Node], bool] = lambda _directory: False
        """Whether an application may make files in a directory. Set by `base.Base`."""
        self.least_free: Callable[[], int] = lambda: 0
        """… without our being asked: as long as so many bytes are free. Set there, too."""
        self._direct = direct or Direct()
        self.dev = os.fstat(root_fd).st_dev
        self._kept: OrderedDict[Node, int] = OrderedDict()
        self._nameless: dict[Node, int] = {}
        """Nothing else leads there, and its number must not be given away: open until the kernel forgets it."""

    def close(self) -> None:
        for held in (self._kept, self._nameless):
            while held:
                self._close(*held.popitem())
        os.close(self.root_fd)

    def _close(self, node: Node, fd: int) -> None:
        if node.kind == stat.S_IFDIR:
            self._direct.serve_no_more(node.ino)
        os.close(fd)

    def drop(self, node: Node) -> None:
        """The directory is gone or forgotten."""
        for held in (self._kept, self._nameless):
            fd = held.pop(node, None)
            if fd is not None:
                self._close(node, fd)

    def _held(self, node: Node) -> int | None:
        fd = self._kept.get(node)
        if fd is None:
            return self._nameless.get(node)
        self._kept.move_to_end(node)
        return fd

    # ------------------------------------------------------------- directories

    def directory(self, node: Node) -> int:
        """An O_PATH descriptor of a directory.

        Raises:
            OSError: ESTALE, it is not where we knew it; ENOTDIR.
        """
        if node is self._nodes.root:
            return self.root_fd
        fd = self._held(node)
        if fd is not None:
            self._offer(node, fd)
            return fd
        way: list[Node] = []
        above = node
        while above is not self._nodes.root and above not in self._kept:
            if above.parent is None or len(way) > LONGEST_WALK:
                raise OSError(errno.ESTALE, "a directory on the way is gone")
            way.append(above)
            above = above.parent
        fd = self.root_fd if above is self._nodes.root else self._kept[above]
        for step in reversed(way):
            fd = self._open_known(step, step.name, fd, _DIRECTORY)
            self._add(step, fd)
        self._offer(node, fd)
        return fd

    def _offer(self, node: Node, fd: int) -> None:
        """Let the channel answer for a directory in which something is done."""
        if self._direct.wants(node.ino):
            self._direct.keep_free(self.least_free())
            self._direct.serve(node.ino, fd, may_create=self.may_create(node))

    def keep(self, node: Node, parent: Node, name: bytes) -> None:
        """Hold an inode of any kind that will lose its last name, until it is forgotten."""
        if self._held(node) is None:
            self._add(node, self._open_known(node, name, self.directory(parent), _PIN))

    def hold(self, node: Node, fd: int) -> None:
        """As `keep`, with a descriptor that somebody has opened for it: ours from now on."""
        if self._held(node) is None:
            self._add(node, fd)
        else:
            os.close(fd)

    def _add(self, node: Node, fd: int) -> None:
        self._kept[node] = fd
        while len(self._kept) > KEPT:  # the one just added is the newest, so it stays
            oldest, fd = self._kept.popitem(last=False)
            if oldest.parent is None:
                self._nameless[oldest] = fd
            else:
                self._close(oldest, fd)

    def _open_known(self, node: Node, name: bytes, parent_fd: int, flags: int) -> int:
        """Open a name below ``parent_fd`` that is the node's."""
        try:
            fd = os.open(name, flags, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise OSError(errno.ESTALE, "it is not where the kernel knows it") from error
            raise
        status = os.fstat(fd)
        if status.st_ino != node.ino or status.st_dev != self.dev:
            os.close(fd)
            raise OSError(errno.ESTALE, "something else is where the kernel knows it")
        return fd

    # ------------------------------------------------------------- inodes

    def open(self, node: Node, flags: int) -> int:
        """Open an inode wherever it has a name, and only that inode.

        Raises:
            OSError: ESTALE, none of its names leads to it any more; whatever open(2) says.
        """
        if node is self._nodes.root:
            return os.open(".", flags | os.O_CLOEXEC, dir_fd=self.root_fd)
        kept = self._held(node)
        if kept is not None and node.parent is None:
            return os.open(proc_path(kept), flags | os.O_CLOEXEC)
        for parent, name in node.links():
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory(parent))
            except OSError as error:
                # ELOOP, ENOTDIR: something else stands there now, a symlink perhaps.
                if error.errno in {errno.ENOENT, errno.ELOOP, errno.ESTALE, errno.ENOTDIR}:
                    continue
                raise
            status = os.fstat(fd)
            if status.st_ino == node.ino and status.st_dev == self.dev:
                return fd
            os.close(fd)
            self._nodes.unlink(node, parent, name)
        self.drop(node)  # it went behind the mount: whoever names it shall find what is there now
        raise OSError(errno.ESTALE, "the inode is not where the kernel knows it")

    @contextmanager
    def pinned(self, node: Node) -> Iterator[int]:
        """An O_PATH descriptor on the inode itself, a symlink included."""
        fd = self.open(node, os.O_PATH)
        try:
            yield fd
        finally:
            os.close(fd)

    def status(self, node: Node) -> os.stat_result:
        """lstat of an inode by any of its names.

        Raises:
            OSError: ESTALE, none of its names leads to it any more.
        """
        if node is self._nodes.root:
            return os.fstat(self.root_fd)
        kept = self._held(node)
        if kept is not None:
            status = os.fstat(kept)
            if status.st_nlink or node.parent is None:
                return status
            self.drop(node)  # removed behind the mount: what the kernel has is out of date
        for parent, name in node.links():
            try:
                status = os.lstat(name, dir_fd=self.directory(parent))
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ESTALE, errno.ENOTDIR}:
                    continue
                raise
            if status.st_ino == node.ino and status.st_dev == self.dev:
                return status
            self._nodes.unlink(node, parent, name)
        raise OSError(errno.ESTALE, "the inode is not where the kernel knows it")

    # ------------------------------------------------------------- names

    def is_hidden(self, parent: Node, name: bytes) -> bool:
        return parent is self._nodes.root and name.startswith(STAGING_PREFIX)

    def look(self, parent: Node, name: bytes) -> os.stat_result:
        """lstat of a name in a directory.

        Raises:
            OSError: ENOENT; EXDEV, another file system is mounted there.
        """
        if self.is_hidden(parent, name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        directory = self.directory(parent)
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError as error:
            if os.fstat(directory).st_nlink == 0:  # removed behind the mount: the kernel shall look for another one
                self.drop(parent)
                raise OSError(errno.ESTALE, "the directory is gone") from error
            raise
        if status.st_dev != self.dev:
            raise OSError(errno.EXDEV, "another file system is mounted in the tree")
        return status

    def statvfs(self) -> os.statvfs_result:
        return os.statvfs(self.root_fd)
