"""The beginning of a hydration: what is known of a stub that was opened for it."""

from __future__ import annotations

import trio

from fsxsync.errors import LocalChanged
from fsxsync.model.identity import Local
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.partials import PartialMemory
from fsxsync.sync.served import Served


def begin(served: Served, memory: PartialMemory, path: bytes, own: int, local: Local, *, chunk_size: int) -> Hydration:
    """Start on the stub behind ``own``, a descriptor for reading and writing that is the hydration's from now on;
    ``local`` is its state, ``path`` where it is in the tree.

    Raises:
        LocalChanged: the stub is damaged.
    """
    mark = local.stub
    assert mark is not None
    if local.size != mark.size:
        raise LocalChanged(
            "reading a released file", "its size is not its object's: somebody wrote to it behind the mount"
        )
    known = memory.recall(local.ino, mark)
    return Hydration(
        ino=local.ino,
        path=path,
        mark=mark,
        store=served.store,
        key=mark.key,
        fd=own,
        mtime_ns=local.mtime_ns,
        atime_ns=local.atime_ns,
        chunk_size=chunk_size,
        claims=dict(known.crcs) if known is not None else {},
        counts=served.counts,
        last_use=trio.current_time(),
    )
