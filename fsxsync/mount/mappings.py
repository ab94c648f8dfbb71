"""Files that a program may still change after its last close(2): through a shared mapping.

A mapping of a file in passthrough holds the host's file and not the mount's. So the kernel tells us of the last
close, though stores may follow. Such a file stays open for writing here until the host's kernel says that nobody
has it open for writing any more.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import trio

from fsxsync.mount.descriptors import proc_path
from fsxsync.mount.handles import Handle
from fsxsync.tree.leases import is_open_for_writing

log = logging.getLogger(__name__)

FIRST_LOOK_S = 0.005
"""The kernel closes the host's file a moment after it has told us: most of what is found here is only that."""
LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class _Next:
    """When a kept handle is looked at again, and how long after the last time that is."""

    at: float
    pause_s: float


class Mappings:
    """``left`` is called of each handle that nobody writes through any more."""

    def __init__(self, left: Callable[[Handle], None]) -> None:
        self._left = left
        self._kept: dict[Handle, _Next] = {}
        self._added = trio.Event()

    def keep(self, handle: Handle) -> bool:
        """Keep a closed handle if its file may still be written, from now on for looking only."""
        try:
            fd = os.open(proc_path(handle.fd), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("who still writes can't be found out", extra={"why": str(error)})
            return False
        os.close(handle.fd)
        handle.fd = fd
        if not is_open_for_writing(fd):
            return False
        self._kept[handle] = _Next(trio.current_time() + FIRST_LOOK_S, FIRST_LOOK_S)
        self._added.set()
        return True

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            deadline = min((when.at for when in self._kept.values()), default=math.inf)
            with trio.move_on_at(deadline):
                await self._added.wait()  # if the deadline comes first, somebody is due
            self._added = trio.Event()
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        for handle, when in list(self._kept.items()):
            if when.at > now:
                continue
            if is_open_for_writing(handle.fd):
                when.pause_s = min(2 * when.pause_s, LOOK_EVERY_S)
                when.at = now + when.pause_s
            else:
                del self._kept[handle]
                self._left(handle)

    def give_up(self) -> None:
        """The mount is gone."""
        for handle in list(self._kept):
            del self._kept[handle]
            self._left(handle)
