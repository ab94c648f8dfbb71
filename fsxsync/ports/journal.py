"""What is remembered of multipart uploads and copies until they are ended, also over a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fsxsync.errors import BadCredentials, EndpointUnreachable, Throttled
from fsxsync.ports.store import ObjectStore

PASSING = (BadCredentials, EndpointUnreachable, Throttled)
"""Nothing is wrong with an upload or copy that ends so: the next try may go on with it. All other refusals end it."""


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part of ``length`` bytes that the store took; ``etag`` without quotes. ``crc64nvme`` of its bytes; 0 of a part
    that the store copied, for nobody here saw these."""

    number: int
    length: int
    etag: str
    crc64nvme: int


@dataclass(frozen=True, slots=True)
class Intent:
    """An upload was about to be started: the store may have one whose id we were never told."""

    number: int


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that was begun and not ended. ``described``: a digest of what can't be changed any more."""

    number: int
    upload_id: str
    part_size: int
    described: bytes
    parts: tuple[SentPart, ...] = ()


class UploadJournal(Protocol):
    """Remembers multipart uploads until they are ended: what nobody remembers is never ended, and costs storage for
    ever. An entry is named by its ``number``. Called from the trio thread; what returned, is kept.

    Raises:
        CatalogError, NoSpace: it can't be written.
    """

    def remembered(self, store: ObjectStore, key: str) -> Sequence[Begun | Intent]:
        """All uploads to exactly this key of this store, the oldest first. More than one only if one could not be
        ended."""

    def intended(self, store: ObjectStore, key: str) -> int:
        """An upload is about to be started: its id may be lost with the answer. The number of its entry."""

    def started(self, number: int, upload_id: str, *, part_size: int, described: bytes) -> None:
        """The intent became an upload."""

    def sent(self, number: int, part: SentPart) -> None:
        """The store has this part, in place of an older one of the same number."""

    def finished(self, number: int) -> None:
        """It was completed or aborted, or never began."""


class Unrecorded:
    """`UploadJournal` that keeps nothing: for a process that ends what it began (bench/)."""

    def remembered(self, store: ObjectStore, key: str) -> Sequence[Begun | Intent]:
        return ()

    def intended(self, store: ObjectStore, key: str) -> int:
        return 0

    def started(self, number: int, upload_id: str, *, part_size: int, described: bytes) -> None:
        return

    def sent(self, number: int, part: SentPart) -> None:
        return

    def finished(self, number: int) -> None:
        return
