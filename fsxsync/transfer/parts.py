"""What is remembered of multipart uploads, and what of it is still good for the next try. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fsxsync import _core
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.parts import Part
from fsxsync.ports import ObjectHeaders, ObjectStore, UploadedPart


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store took: ``crc64nvme`` of its ``length`` bytes, ``etag`` without quotes."""

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
    """An upload that was begun and not ended. ``described``: `described` of what can't be changed any more."""

    number: int
    upload_id: str
    part_size: int
    described: bytes
    parts: tuple[SentPart, ...] = ()


class UploadJournal(Protocol):
    """Remembers multipart uploads until they are ended, also over a crash: what nobody remembers is never ended, and
    costs storage for ever. An entry is named by its ``number``. Called from the trio thread; what returned, is kept.

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


def described(headers: ObjectHeaders, *, checksum: bool) -> bytes:
    """A digest of what is fixed when an upload starts: metadata, content type, whether checksums go with the parts.

    The access time is left out. It moves with every read, our own of the last try included, and alone is no change
    (sync/reconcile.py): the object gets the one that the upload began with.
    """
    metadata = to_user_metadata(headers.kind, headers.posix._replace(atime_ns=None))
    return _core.xxh3_128(repr((sorted(metadata.items()), headers.content_type, checksum)).encode())


def reusable(begun: Begun, plan: Sequence[Part], crcs: Sequence[int], listed: Sequence[UploadedPart]) -> list[SentPart]:
    """The parts that need not be sent again: the file has the same bytes there (``crcs`` of ``plan``'s parts), and the
    store still has what we sent."""
    there = set(listed)
    return [
        part
        for part in begun.parts
        if part.number <= len(plan)
        and (part.length, part.crc64nvme) == (plan[part.number - 1].length, crcs[part.number - 1])
        and UploadedPart(part.number, part.etag) in there
    ]


def combined(plan: Sequence[Part], crcs: Sequence[int]) -> int:
    """CRC64NVME of the parts one after the other."""
    whole = 0
    for part, crc in zip(plan, crcs, strict=True):
        whole = _core.crc64nvme_combine(whole, crc, part.length)
    return whole
