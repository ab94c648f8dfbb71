"""`ports.Front`: making the kernel forget what changed without it.

Notifications block in the kernel: on a directory that is being worked in, on a page that waits for its data. So they
are queued, and sent from worker threads, never from a request's handler. What the kernel can't know is not sent.
"""

from __future__ import annotations

import errno
import logging
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Protocol

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

from fsxsync.model.measures import Histogram
from fsxsync.mount.direct import Direct
from fsxsync.mount.handles import Handles
from fsxsync.mount.measuring import Measuring
from fsxsync.mount.nodes import Nodes

log = logging.getLogger(__name__)

DATA_TASKS = 8
"""Files whose pages are dropped at the same time; one that waits for a slow page holds up nobody else."""

_FINE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTEMPTY})
"""The kernel does not know it, or does not any more. ENOTEMPTY: a directory that is a mount point."""
_GONE = frozenset({errno.ENOTCONN, errno.ENODEV, errno.EBADF})
"""The mount is gone: there is nothing to forget."""


class Notifier(Protocol):
    """Who can tell the kernel: pyfuse3, or the channel, past it."""

    def invalidate_entry(self, parent: InodeT, name: FileNameT, /) -> None: ...

    def invalidate_inode(self, inode: InodeT, attr_only: bool, /) -> None: ...


class KernelCache:
    """What the kernel knows of the tree, and how it is told that this is no longer so."""

    def __init__(self) -> None:
        self._nodes: Nodes | None = None
        self._handles = Handles()
        self._direct = Direct()
        self._measuring = Measuring(dict)
        self._learn: Callable[[], None] = lambda: None
        self._notifier: Notifier = pyfuse3
        self._entries: dict[tuple[int, bytes], None] = {}
        self._attributes: dict[int, None] = {}
        self._data: dict[int, None] = {}
        self._work = trio.Event()
        self._round = 0
        self._unsent: Counter[int] = Counter()
        """Round -> its notifications that the kernel did not take yet, all names and attributes as one."""
        self._sent = trio.Event()

    def attach(self, nodes: Nodes, handles: Handles, direct: Direct, measuring: Measuring | None = None) -> None:
        """From now on there is something to forget."""
        self._nodes, self._handles, self._direct = nodes, handles, direct
        self._measuring = measuring or self._measuring

    def learn_through(self, catch_up: Callable[[], None]) -> None:
        """How to take in what the channel has answered by itself."""
        self._learn = catch_up

    def notify_through(self, notifier: Notifier) -> None:
        self._notifier = notifier

    # ------------------------------------------------------------- ports.Front

    def catch_up(self) -> None:
        self._learn()

    def policies_changed(self) -> None:
        self._direct.forget_policies()

    def invalidate_entry(self, parent_ino: int, name: bytes, ino: int | None = None) -> None:
        self._learn()
        if self._nodes is None or (parent := self._nodes.find(parent_ino)) is None:
            return
        node = self._nodes.find(ino) if ino is not None else None
        if node is not None and (parent, name) in node.links() and not self._direct.is_absent(parent_ino, name):
            return
        self._entries[parent_ino, name] = None
        self._work.set()

    def invalidate_inode(self, ino: int, *, data: bool) -> None:
        self._learn()
        node = self._nodes.find(ino) if self._nodes is not None else None
        if node is None:
            return
        if data:
            node.cached = None
            self._data[ino] = None
        else:
            self._attributes[ino] = None
        self._work.set()

    def requests(self) -> int:
        return self._direct.requests()

    def open_handles(self, ino: int) -> int:
        self._learn()
        inode = self._handles.inode(ino)
        return len(inode.handles) if inode is not None else 0

    def open_inodes(self) -> AbstractSet[int]:
        self._learn()
        return self._handles.inodes

    def last_use_ns(self, ino: int) -> int:
        return self._handles.last_use_ns(ino)

    def operations(self) -> Mapping[tuple[str, str], Histogram]:
        return self._measuring.operations()

    def opens(self) -> tuple[int, int]:
        self._learn()
        return self._measuring.resident_opens, self._measuring.released_opens

    def take_uses(self) -> dict[int, int]:
        self._learn()
        return self._handles.take_uses()

    async def told(self) -> None:
        last = self._round if self._work.is_set() else self._round - 1
        while self._round <= last or any(number <= last for number in self._unsent):
            await self._sent.wait()

    def _taken(self, number: int) -> None:
        self._unsent[number] -= 1
        self._unsent += Counter()  # drops the zero
        self._sent.set()
        self._sent = trio.Event()

    # ------------------------------------------------------------- the task

    async def run(self) -> None:
        """Send notifications until cancelled; what is being sent then is sent to its end."""
        limiter = trio.CapacityLimiter(DATA_TASKS)
        async with trio.open_nursery() as nursery:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                number, self._round = self._round, self._round + 1
                self._unsent[number] = 1 + len(self._data)
                for ino in self._data:
                    nursery.start_soon(self._drop_data, ino, limiter, number)
                batch = self._batch()
                self._data, self._attributes, self._entries = {}, {}, {}
                if batch:
                    await trio.to_thread.run_sync(_send_all, batch)
                self._taken(number)

    def _batch(self) -> list[Callable[[], None]]:
        nodes = self._nodes
        assert nodes is not None
        batch: list[Callable[[], None]] = [
            partial(self._notifier.invalidate_entry, nodes.nodeid(parent_ino), FileNameT(name))
            for parent_ino, name in self._entries
            if (parent := nodes.find(parent_ino)) is not None and stat.S_ISDIR(parent.kind)
        ]
        batch += [partial(self._notifier.invalidate_inode, nodes.nodeid(ino), True) for ino in self._attributes]
        return batch

    async def _drop_data(self, ino: int, limiter: trio.CapacityLimiter, number: int) -> None:
        inode = self._handles.inode(ino)
        while inode is not None and inode.waiting:
            # A page that waits for its data is locked, and the kernel would wait for that lock unkillably.
            inode.idle = inode.idle or trio.Event()
            await inode.idle.wait()
        assert self._nodes is not None
        nodeid: InodeT = self._nodes.nodeid(ino)
        drop: list[Callable[[], None]] = [partial(self._notifier.invalidate_inode, nodeid, False)]
        await trio.to_thread.run_sync(_send_all, drop, limiter=limiter)
        self._taken(number)


def _send_all(notifications: list[Callable[[], None]]) -> None:
    """In a worker thread, since each of them may block."""
    for notify in notifications:
        try:
            notify()
        except OSError as error:
            if error.errno in _GONE:
                return
            if error.errno not in _FINE:
                log.warning("the kernel did not forget", extra={"why": str(error)})
