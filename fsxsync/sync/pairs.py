"""What `fsxsync check` looks at: a path with its row and what stands there."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.identity import Base, Local
from fsxsync.sync.served import Served
from fsxsync.tree.attributes import Seen


@dataclass(frozen=True, slots=True)
class Pair:
    """One path: its row and what stands there. ``served`` is None outside of every association."""

    tree_path: bytes
    served: Served | None
    row: Base | None
    seen: Seen | None

    @property
    def local(self) -> Local | None:
        return self.seen.local if self.seen is not None else None

    @property
    def path(self) -> bytes:
        """Below its association; b"" outside of every one."""
        return (self.served.association.relative(self.tree_path) or b"") if self.served is not None else b""
