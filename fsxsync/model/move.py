"""A rename that was decided on: which object is to be copied where, and what its new path's row will be.

It is written down before the copy is asked for, so that whoever finds the copy after a crash knows it for ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.identity import Base, Kind, Remote


@dataclass(frozen=True, slots=True)
class Move:
    """``row`` is the new path's, as it is once the copy is there; its remote side is still the source's version.
    ``source`` is the path whose object is copied."""

    source: bytes
    row: Base
    started_ns: int

    @property
    def path(self) -> bytes:
        return self.row.path

    def made(self, remote: Remote) -> bool:
        """The object at the new path's key is our copy. Metadata down to the nanosecond is what a copy has for certain:
        its ETag may be another one, if the source was uploaded in parts or either has a key of its own (SSE-KMS)."""
        row = self.row
        return (
            remote.kind is Kind.FILE
            and remote.posix_known
            and remote.size == row.remote_size
            and remote.posix == row.posix
        )

    def is_source(self, remote: Remote | None) -> bool:
        """The object at the old key still is the version that was to be copied."""
        return remote is not None and (remote.etag, remote.size) == (self.row.etag, self.row.remote_size)
