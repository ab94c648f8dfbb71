"""Open files and directories, and per inode what its handles share."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import trio
from pyfuse3 import FileHandleT

from fsxsync.mount.direct import Direct
from fsxsync.mount.nodes import Node

NO_FLUSH = 1 << 31
"""In a handle's number: its close(2) need not be told, nobody wrote through it. Known to the channel only."""

REMEMBERED = 200_000
"""Files whose last use is remembered: some 20 MB. Of all others the times that the host keeps count."""

Entry = tuple[bytes, int, int, int]
"""(name, inode number, d_type, offset of the next entry), as the C core's getdents gives it."""


@dataclass(slots=True, eq=False)
class OpenInode:
    """What the handles of one inode have in common.

    ``turn`` is held while data is loaded or thrown away for somebody who wants to write: nobody slips in between.
    ``is_stub``: reads must ask for their data first. While it holds, ``mtime_ns`` and ``ctime_ns`` are the times to
    show, since loading moves the host's. Settling sets mtime back; ctime can't be set, and so the old one is shown
    until it is no longer ``settled_ctime_ns``: a program that looks before and after it reads must not see a change.
    ``last_path`` is where the inode was when it lost its last name.
    """

    node: Node
    turn: trio.Lock = field(default_factory=trio.Lock)
    handles: set[Handle] = field(default_factory=set)
    writers: int = 0
    is_stub: bool = False
    mtime_ns: int = 0
    ctime_ns: int = 0
    settled_ctime_ns: int = 0
    waiting: int = 0
    """Reads that wait for data: the kernel holds their pages locked."""
    idle: trio.Event | None = None
    last_path: bytes = b""
    backing_id: int | None = None
    """How the kernel reads and writes it: by passthrough, under this number, or through us (0). None: nobody has
    asked for it yet."""
    may_be_mapped: bool = False
    """By passthrough, and for writing."""
    is_ours: bool = False
    """The channel does not answer for it: it was a stub, whose times are not the host's."""


@dataclass(slots=True, eq=False)
class Handle:
    """One open(2) of an application; dup'ed and inherited descriptors share it."""

    fd: int
    inode: OpenInode
    uid: int = 0
    """Who opened it."""
    is_writer: bool = False
    wrote: bool = False
    told: tuple[int, int] = (0, 0)
    """(ctime, size) when sync last heard of it: what passthrough writes we don't see."""


@dataclass(slots=True, eq=False)
class DirectoryHandle:
    """One opendir(3). ``ahead`` was read from the host and not yet given; it starts at offset ``ahead_from``."""

    fd: int
    node: Node
    ahead: list[Entry] = field(default_factory=list)
    ahead_from: int = 0


class Handles:
    """All that is open through the mount."""

    def __init__(self, direct: Direct | None = None) -> None:
        self._direct = direct or Direct()
        self._files: dict[int, Handle] = {}
        self._directories: dict[int, DirectoryHandle] = {}
        self._inodes: dict[int, OpenInode] = {}
        self._used: OrderedDict[int, int] = OrderedDict()
        self._used_of_late: set[int] = set()

    # ------------------------------------------------------------- files

    def open(self, node: Node, fd: int, uid: int) -> Handle:
        """Count a descriptor as an open handle, from now on. It has no number until it is `give`n to the kernel."""
        inode = self._inodes.get(node.ino)
        if inode is None:
            inode = self._inodes[node.ino] = OpenInode(node)
        inode.node = node  # the kernel may have forgotten it meanwhile, and met it anew
        self._use(node.ino)
        handle = Handle(fd, inode, uid)
        inode.handles.add(handle)
        return handle

    def give(self, handle: Handle) -> FileHandleT:
        """The kernel's number for it. The C core reads our descriptor and the backing id out of it
        (c_ext/channel_wire.h), so that it needs no table; unique, because the descriptor stays open."""
        number = handle.fd | (handle.inode.backing_id or 0) << 32
        if not handle.is_writer:
            number |= NO_FLUSH
        self._files[number] = handle
        return FileHandleT(number)

    def file(self, number: int) -> Handle:
        return self._files[number]

    def release(self, number: int) -> Handle:
        """The kernel is done with it. The caller still has to `close` it."""
        return self._files.pop(number)

    def close(self, handle: Handle) -> None:
        inode = handle.inode
        inode.handles.discard(handle)
        self._use(inode.node.ino)
        if not inode.handles:
            del self._inodes[inode.node.ino]
            if inode.is_ours:
                self._direct.leave_to_us(inode.node.ino, is_ours=False)
            if inode.backing_id is not None:
                self._direct.leave(inode.node.ino)
        os.close(handle.fd)

    def _use(self, ino: int) -> None:
        self._used[ino] = time.time_ns()
        self._used.move_to_end(ino)
        self._used_of_late.add(ino)
        if len(self._used) > REMEMBERED:
            self._used.popitem(last=False)

    def last_use_ns(self, ino: int) -> int:
        """When it was last opened or closed; 0 if it is not among the last of them. The host's atime alone moves once
        a day (relatime), or never."""
        return self._used.get(ino, 0)

    def take_uses(self) -> dict[int, int]:
        """When files were used that were since the last call."""
        of_late, self._used_of_late = self._used_of_late, set()
        return {ino: self._used[ino] for ino in of_late if ino in self._used}

    def inode(self, ino: int) -> OpenInode | None:
        """What is open of a host inode number; None if nothing is."""
        return self._inodes.get(ino)

    @property
    def inodes(self) -> AbstractSet[int]:
        """The host inode numbers of which something is open."""
        return self._inodes.keys()

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._files.values()))

    def close_all(self, closed: Callable[[Handle], None]) -> None:
        """The mount is gone: no release will come for these any more."""
        for number in list(self._files):
            handle = self.release(number)
            closed(handle)
            self.close(handle)
        for number in list(self._directories):
            self.release_directory(number)

    # ------------------------------------------------------------- directories

    def open_directory(self, node: Node, fd: int) -> FileHandleT:
        """The kernel's number for it is the descriptor, which the channel reads names from."""
        self._directories[fd] = DirectoryHandle(fd, node)
        return FileHandleT(fd)

    def directory(self, number: int) -> DirectoryHandle:
        return self._directories[number]

    def release_directory(self, number: int) -> None:
        os.close(self._directories.pop(number).fd)
