"""A write that was decided on: where an object is to be copied or put, and what the path's row will be then.

It is written down before the store is asked, so that whoever finds the object after a crash knows it for ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.identity import Base, Posix, Remote


@dataclass(frozen=True, slots=True)
class Move:
    """``row`` is the path's, as it is once the object is there; its ETag and times are still the source's.
    ``source`` is the path whose object is copied; the path itself, if its file is uploaded (then the row has no ETag),
    or its object gets other metadata."""

    source: bytes
    row: Base
    started_ns: int
    had: Posix | None = None
    """What the file had, as its object would have said it, where the object is told what both sides changed."""

    @property
    def path(self) -> bytes:
        return self.row.path

    @property
    def is_copy(self) -> bool:
        return self.source != self.path

    @property
    def is_description(self) -> bool:
        return not self.is_copy and bool(self.row.etag)

    def made(self, remote: Remote) -> bool:
        """The object at the path's key is the one that was written. Metadata down to the nanosecond is what it has for
        certain: a copy's ETag may be another one (a source in parts, SSE-KMS), and an upload's is not known before.
        Extended attributes of which it was told nothing are those that its source had."""
        row = self.row
        posix = remote.posix if row.posix.xattrs is not None else remote.posix._replace(xattrs=None)
        return remote.kind is row.kind and remote.posix_known and remote.size == row.remote_size and posix == row.posix

    def known(self, remote: Remote) -> Remote:
        """The object that was written, as the path's row shall know it: what it was told beyond what the file had is
        somebody else's change, which the file is still to get."""
        return remote if self.had is None else remote._replace(posix=self.had)

    def is_source(self, remote: Remote | None) -> bool:
        """The object at the old key still is the version that was to be copied."""
        return remote is not None and (remote.etag, remote.size) == (self.row.etag, self.row.remote_size)
