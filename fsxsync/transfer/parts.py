"""What is remembered of multipart uploads, and what of it is still good for the next try. No IO."""

from __future__ import annotations

from collections.abc import Sequence

from fsxsync import _core
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.parts import Part
from fsxsync.ports import Begun, ObjectHeaders, SentPart, UploadedPart


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
