"""Taking in what the channel has answered by itself (`direct.Direct`), before anything is decided."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import trio

from fsxsync import _core
from fsxsync.mount.content import Content
from fsxsync.mount.naming import Naming
from fsxsync.mount.nodes import Node

log = logging.getLogger(__name__)

LEARN_EVERY_S = 0.005
"""Facts come in thousands a second, and waking for each of them would cost more than to take it in. Whoever depends
on them takes them in first."""

_FD = (1 << 31) - 1


class Learning(Naming, Content):
    """One method a kind of fact; each does what the handler for that request does after its answer."""

    _is_learning = False

    def catch_up(self) -> None:
        if self._is_learning:
            return  # what a fact sets off may ask for it again, and the order must stay
        self._is_learning = True
        try:
            for fact in self._direct.drain():  # without memory for it they all stay for the next time
                try:
                    self._LEARN[fact[0]](self, *fact[1:])
                except Exception:
                    log.exception("bug in learning what the channel answered")  # the others must not be lost with it
        finally:
            self._is_learning = False

    async def learn(self) -> None:
        """Runs as long as the mount does."""
        fd = self._direct.journal_fd
        while fd is not None:
            await trio.lowlevel.wait_readable(fd)
            with contextlib.suppress(MemoryError):  # nothing is lost: see `catch_up`
                self.catch_up()
            await trio.sleep(LEARN_EVERY_S)

    def _met_there(self, parent_ino: int, name: bytes, ino: int, generation: int, mode: int, nlink: int) -> Node:
        node, parent = self._nodes.find(ino), self._nodes.find(parent_ino)
        if (
            node is not None
            and parent is not None
            and (parent, name) not in node.links()
            and not self._stands_there(parent, name, ino)
        ):
            # A look at a name that the kernel knew before holds no lock: what renamed or removed it has come first.
            node.lookups += 1
            return node
        node = self._nodes.met(ino, stat.S_IFMT(mode), parent, name, pinned=True, nlink=nlink, generation=generation)
        node.lookups += 1
        return node

    def _stands_there(self, parent: Node, name: bytes, ino: int) -> bool:
        try:
            return self._descriptors.look(parent, name).st_ino == ino
        except OSError:
            return False

    def _created_there(
        self,
        parent_ino: int,
        name: bytes,
        ino: int,
        generation: int,
        mode: int,
        nlink: int,
        number: int,
        uid: int,
        flags: int,
    ) -> None:
        node = self._met_there(parent_ino, name, ino, generation, mode, nlink)
        handle = self._handles.open(node, number & _FD, uid)
        handle.inode.backing_id = number >> 32
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._count_writer(handle)
            handle.inode.may_be_mapped = flags & os.O_ACCMODE == os.O_RDWR and handle.inode.backing_id != 0
        self._handles.give(handle)
        self._hydrator.changed(self._path(node))

    def _forgotten(self, ino: int, lookups: int) -> None:
        self._forget(self._nodes.nodeid(ino), lookups)

    def _opened_there(self, ino: int, number: int, uid: int) -> None:
        fd, node = number & _FD, self._nodes.find(ino)
        assert node is not None  # a lookup has named it
        handle = self._handles.open(node, fd, uid)
        self.measuring.resident_opens += 1
        if handle.inode.backing_id is None:
            handle.inode.backing_id = number >> 32
        else:
            self._direct.leave(ino)  # one for all handles of an inode
        self._handles.give(handle)

    def _unlinked_there(self, parent_ino: int, name: bytes, ino: int, nlink: int, fd: int) -> None:
        node, parent = self._nodes.find(ino), self._nodes.find(parent_ino)
        if node is not None and nlink == 1 and self._handles.inode(ino) is None:
            self._descriptors.hold(node, fd)  # see `_about_to_go`
        else:
            os.close(fd)
        if parent is not None:
            self._removed(parent, name, self._path_in(parent, name), ino)

    def _flushed_there(self, number: int) -> None:
        self._flushed(self._handles.file(number))

    def _opened_directory(self, ino: int, fd: int) -> None:
        node = self._nodes.find(ino)
        assert node is not None
        self._handles.open_directory(node, fd)

    _LEARN: ClassVar[Mapping[int, Callable[..., Any]]] = {
        _core.FACT_MET: _met_there,
        _core.FACT_FORGOTTEN: _forgotten,
        _core.FACT_CREATED: _created_there,
        _core.FACT_OPENED: _opened_there,
        _core.FACT_UNLINKED: _unlinked_there,
        _core.FACT_FLUSHED: _flushed_there,
        _core.FACT_RELEASED: lambda self, number: self._released(number),
        _core.FACT_OPENED_DIRECTORY: _opened_directory,
        _core.FACT_RELEASED_DIRECTORY: lambda self, number: self._handles.release_directory(number),
    }
