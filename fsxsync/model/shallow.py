"""What a walk reads of an entry of the tree: enough to see that it is what the catalog knows of it."""

from __future__ import annotations

from typing import NamedTuple, Self

from fsxsync.model.identity import KINDS, Kind, Local

DIRECTORY = KINDS.index(Kind.DIRECTORY)


class Shallow(NamedTuple):
    """What a walk reads of an entry: all of a `Local` but its stub mark and its target. A hundred thousand of these are
    compared with rows in the time that a quarter of as many `Local` take to be made."""

    kind: int
    """Index in `KINDS`."""
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    nlink: int
    atime_ns: int
    blocks: int
    marks: int
    """Bit i: it carries the i-th of the xattrs that were asked for."""

    @classmethod
    def of(cls, local: Local) -> Self:
        """As much as a walk would have read of it."""
        kind = KINDS.index(local.kind)
        times = (local.mtime_ns, local.ctime_ns, local.mode, local.uid, local.gid)
        return cls(kind, local.ino, local.size, *times, local.nlink, local.atime_ns, local.blocks, 0)

    def local(self) -> Local:
        return Local(KINDS[self.kind], *self[1:11])
