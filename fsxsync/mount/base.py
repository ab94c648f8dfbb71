"""What all FUSE handlers share: the tables, and the questions that several of them ask."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

import trio
from pyfuse3 import EntryAttributes, FUSEError, ModeT, RequestContext

from fsxsync.mount.descriptors import Descriptors, proc_path
from fsxsync.mount.direct import Direct
from fsxsync.mount.handles import Handles
from fsxsync.mount.measuring import Measuring
from fsxsync.mount.nodes import Node, Nodes
from fsxsync.mount.setid import drop_set_id
from fsxsync.ports import Front, Hydrator

DISK_TASKS = 64
"""Reads, fsyncs and the like that may wait for the disk at the same time, each in a worker thread."""

T = TypeVar("T")

_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class Served:
    """The tree as one session serves it."""

    nodes: Nodes
    descriptors: Descriptors
    handles: Handles
    hydrator: Hydrator
    front: Front
    attr_timeout_s: float
    is_root: bool
    """Whether new files can be given to the caller; else all belong to whoever runs the daemon."""
    direct: Direct = field(default_factory=Direct)
    measuring: Measuring = field(default_factory=lambda: Measuring(dict))
    disk: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(DISK_TASKS))


class Base:
    """The part below `operations.TreeOperations`'s handlers."""

    def __init__(self, served: Served) -> None:
        self._nodes = served.nodes
        self._descriptors = served.descriptors
        self._handles = served.handles
        self._hydrator = served.hydrator
        self._front = served.front
        self._timeout_s = served.attr_timeout_s
        self._is_root = served.is_root
        self._direct = served.direct
        self._disk = served.disk
        self.measuring = served.measuring
        self._descriptors.may_create = self._may_create
        self._descriptors.least_free = self._hydrator.least_free
        self._waits: set[trio.CancelScope] = set()
        self._is_ending = False

    def catch_up(self) -> None:
        """Take in what the channel has answered by itself: whatever is asked next was asked in the knowledge of it."""
        raise NotImplementedError  # learning.py

    # ------------------------------------------------------------- waiting for data

    async def _waiting(self, load: Awaitable[T]) -> T:
        """Wait for the hydrator. Raises FUSEError: ENOTCONN, the mount ends before the data came."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                if self._is_ending:
                    scope.cancel()
                return await load
            finally:
                self._waits.discard(scope)
        raise FUSEError(errno.ENOTCONN)

    async def _while_mounted(self, pause: Awaitable[None]) -> None:
        """Wait for something that nothing depends on: no longer than the mount lasts."""
        with contextlib.suppress(FUSEError):
            await self._waiting(pause)

    def end_waiting(self) -> None:
        """The mount ends: whoever waits for data gets an error now, and the kernel its locked pages back."""
        self._is_ending = True
        for scope in self._waits:
            scope.cancel()

    # ------------------------------------------------------------- replies

    def _attributes(self, status: os.stat_result, node: Node) -> EntryAttributes:
        """The reply for an inode, without counting a lookup."""
        entry = EntryAttributes()
        entry.st_ino = self._nodes.nodeid(status.st_ino)
        entry.generation = node.generation
        entry.entry_timeout = entry.attr_timeout = self._timeout_s
        entry.st_mode = ModeT(status.st_mode)
        entry.st_nlink = status.st_nlink
        entry.st_uid = status.st_uid
        entry.st_gid = status.st_gid
        entry.st_rdev = status.st_rdev
        entry.st_size = status.st_size
        entry.st_blksize = status.st_blksize
        blocks = status.st_blocks
        if blocks == 0 and status.st_size and stat.S_ISREG(status.st_mode):
            blocks = 1  # a stub: tar and cp take 0 for "all holes" and copy holes (DESIGN §5)
        entry.st_blocks = blocks
        inode = self._handles.inode(status.st_ino)
        entry.st_mtime_ns, entry.st_ctime_ns = status.st_mtime_ns, status.st_ctime_ns
        if inode is not None and inode.is_stub:
            entry.st_mtime_ns, entry.st_ctime_ns = inode.mtime_ns, inode.ctime_ns
        elif inode is not None and status.st_ctime_ns == inode.settled_ctime_ns:
            entry.st_ctime_ns = inode.ctime_ns
        entry.st_atime_ns = status.st_atime_ns
        if inode is not None and inode.backing_id and inode.writers:
            entry.attr_timeout = 0  # what is stored through a mapping changes times that the kernel does not see
        return entry

    def _met(self, parent: Node, name: bytes, status: os.stat_result, parent_fd: int) -> Node:
        ino = status.st_ino
        return self._nodes.met(
            ino,
            stat.S_IFMT(status.st_mode),
            parent,
            name,
            pinned=self._handles.inode(ino) is not None,
            nlink=status.st_nlink,
            generation=self._direct.present(parent.ino, parent_fd, name, ino),
        )

    def _entry(self, parent: Node, name: bytes, status: os.stat_result) -> EntryAttributes:
        """The reply that names an inode to the kernel: it counts a lookup, which a forget gives back."""
        node = self._met(parent, name, status, self._descriptors.directory(parent))
        node.lookups += 1
        return self._attributes(status, node)

    def _status(self, node: Node) -> os.stat_result:
        """stat of an inode, one without any name included as long as it is open."""
        inode = self._handles.inode(node.ino)
        if inode is not None:
            return os.fstat(next(iter(inode.handles)).fd)
        return self._descriptors.status(node)

    # ------------------------------------------------------------- paths and permission

    def _path(self, node: Node) -> bytes:
        """The path for hints; of an inode without a name, where it was."""
        path = self._nodes.path(node)
        if path is not None:
            return path
        inode = self._handles.inode(node.ino)
        return inode.last_path if inode is not None else b""

    def _path_in(self, parent: Node, name: bytes) -> bytes:
        """The path of a name in a directory.

        Raises:
            FUSEError: ESTALE, the directory has no path any more.
        """
        above = self._nodes.path(parent)
        if above is None:
            raise FUSEError(errno.ESTALE)
        return above + b"/" + name if above else name

    def _writable_path(self, node: Node) -> bytes:
        """The path of an inode that may be changed. Raises FUSEError: EROFS."""
        path = self._path(node)
        self._check_may_write(path)
        return path

    def _writable_path_in(self, parent: Node, name: bytes) -> bytes:
        """The path of a name that may be made or removed. Raises FUSEError: EROFS, EPERM."""
        path = self._path_in(parent, name)
        if self._descriptors.is_hidden(parent, name):
            raise FUSEError(errno.EPERM)
        self._check_may_write(path)
        return path

    def _check_may_write(self, path: bytes) -> None:
        if not self._hydrator.may_write(path):
            raise FUSEError(errno.EROFS)

    def _may_create(self, directory: Node) -> bool:
        path = self._nodes.path(directory)
        return path is not None and self._hydrator.may_write(path + b"/new")

    # ------------------------------------------------------------- owners

    def _bytes_change(self, node: Node, fd: int, uid: int) -> None:
        """Somebody is about to change the file's bytes. The kernel must not run it with bits that it lost."""
        if uid != 0 and drop_set_id(fd):
            self._forget_attributes(node)

    def _forget_attributes(self, node: Node) -> None:
        """At once by the channel, else as soon as may be."""
        if not self._direct.forget_attributes(self._nodes.nodeid(node.ino)):
            self._front.invalidate_inode(node.ino, data=False)

    def _give_to(self, ctx: RequestContext, parent_fd: int, fd: int, mode: int) -> None:
        """Make the caller the owner of what was just made; in a set-gid directory the group is the directory's."""
        if not self._is_root:
            return
        gid = -1 if os.fstat(parent_fd).st_mode & stat.S_ISGID else ctx.gid
        os.chown(proc_path(fd), ctx.uid, gid)
        if mode & _SET_ID and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
            os.chmod(proc_path(fd), stat.S_IMODE(mode))  # chown cleared them
