"""`ports.UploadJournal` over the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fsxsync.catalog.database import Catalog
from fsxsync.catalog.uploads import Part, Upload
from fsxsync.crashpoint import now_ns
from fsxsync.ports import Begun, Intent, ObjectStore, SentPart


class UploadJournal:
    """What an association's uploads need to go on after a crash. ``owner_of`` tells the id of the association that a
    store serves. Every write is one small transaction: parts come by the megabyte, not by the thousand a second."""

    def __init__(self, catalog: Catalog, owner_of: Callable[[ObjectStore], str]) -> None:
        self._uploads = catalog.uploads
        self._owner_of = owner_of

    def remembered(self, store: ObjectStore, key: str) -> Sequence[Begun | Intent]:
        return [self._entry(upload) for upload in self._uploads.to_key(self._owner_of(store), key)]

    def _entry(self, upload: Upload) -> Begun | Intent:
        if upload.upload_id is None:
            return Intent(upload.number)
        if upload.part_size is None or upload.headers is None:  # an older version's: it fits no plan
            return Begun(upload.number, upload.upload_id, 0, b"")
        parts = [
            SentPart(part.number, part.length, part.etag, part.crc64nvme) for part in self._uploads.parts(upload.number)
        ]
        return Begun(upload.number, upload.upload_id, upload.part_size, upload.headers, tuple(parts))

    def intended(self, store: ObjectStore, key: str) -> int:
        return self._uploads.intended(self._owner_of(store), key, now_ns())

    def started(self, number: int, upload_id: str, *, part_size: int, described: bytes) -> None:
        self._uploads.started(number, upload_id, part_size=part_size, headers=described)

    def sent(self, number: int, part: SentPart) -> None:
        self._uploads.sent(number, Part(part.number, part.length, part.etag, part.crc64nvme))

    def finished(self, number: int) -> None:
        self._uploads.finished(number)
