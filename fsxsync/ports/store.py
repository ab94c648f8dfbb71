"""One bucket. Implementation: repository/store.py; fake: tests/fakes/store.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fsxsync.model.association import Access
from fsxsync.model.checksum import Checksum
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.measures import Requests
from fsxsync.model.stub import StubMark
from fsxsync.ports.wire import End, FileRange, Priority, Sink


class Listed(NamedTuple):
    """One entry of a listing page: ``etag`` without quotes, ``key`` whole (prefix included).

    A tuple: they are made by the hundred thousand.
    """

    key: str
    etag: str
    size: int
    last_modified_ns: int
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class Written:
    """What a successful write answered. ``date_ns`` is the store's own clock (its Date header)."""

    etag: str
    version_id: str | None
    date_ns: int
    crc64nvme: int | None = None
    """Full-object checksum, where the store told it."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which conditional requests this store was seen to obey (SERVERS.md); where False, HEAD right before."""

    put_if_match: bool = False
    put_if_none_match: bool = False
    complete_if_match: bool = False
    complete_if_none_match: bool = False
    copy_source_if_match: bool = False
    delete_if_match: bool = False
    versioned: bool = False
    checksum: bool = False
    """Bytes that don't fit their CRC64NVME are refused, so that sending it proves something."""
    etag_is_md5: bool = False
    """Of an object in one part that has no key of its own."""


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """What a PUT, multipart upload or copy sets beside the bytes."""

    posix: Posix
    kind: Kind
    content_type: str = "application/octet-stream"
    crc64nvme: int | None = None
    """Full-object checksum to send with a single PUT, so that the store refuses damaged bytes."""


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """``number`` from 1; ``etag`` without quotes."""

    number: int
    etag: str
    crc64nvme: int | None = field(default=None, compare=False)
    """Where we sent it: some stores want it again when the upload is completed. No listing has to tell it."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """``crc64nvme`` of the bytes that came; ``checksums`` of the whole object, where its headers came with it."""

    crc64nvme: int
    checksums: tuple[Checksum, ...] = ()


class ObjectStore(Protocol):
    """One bucket through one set of credentials.

    ``replaces`` is the precondition of every write: the version seen last, None for "must not exist".
    Raises `errors.RepositoryError`: ObjectChanged when a precondition failed, ObjectMissing, AccessDenied,
    BadCredentials, BucketMissing, EndpointUnreachable, Throttled, ObjectArchived, ObjectEncrypted,
    OptionRefused, KeyRefused.
    Requests that take effect are finished even when the caller is cancelled: what they did must be known.
    """

    conditions: Conditions

    async def check(self, prefix: str) -> None:
        """The bucket exists and may be listed; raises what a person has to mend."""

    async def probe(self, prefix: str) -> Conditions:
        """Find out which conditions the store obeys, leave nothing behind, and remember it in ``conditions``."""

    async def head(self, key: str, *, version_id: str | None = None) -> Remote | None:
        """The object as it is now, or that version of it, user metadata parsed; None only if the key is gone and the
        bucket is there."""

    async def restore(self, key: str, *, version_id: str | None, tier: str, days: int | None) -> None:
        """Ask for a readable copy of an archived object, for so many days (None: for good, which is what
        Intelligent-Tiering wants). ``tier``: bulk, standard or expedited. One that is under way already, or is not
        needed, is fine: `head` tells which."""

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        """Every key below ``prefix`` in byte order, a page (up to 1,000) at a time. Blocking: for a worker thread."""

    async def fetch(
        self, key: str, into: FileRange, *, etag: str, version_id: str | None, size: int, priority: Priority
    ) -> Fetched:
        """Exactly these bytes of exactly that version (``size`` bytes in all) into the file at the same offset.
        ObjectChanged if that version is no longer current; also what `Wire.send` says of files."""

    async def fetch_many(
        self,
        wanted: Sequence[StubMark],
        *,
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        """The same for objects that are wanted whole, and of which none is empty: some at a time, in order; returns
        when all have come, or were not wanted any more.

        ``begin(number, end)``: its turn has come; where it goes to, or None: nowhere any more.
        ``came(number, fetched)`` follows each that has a place; None: it did not come at the first try, and `fetch`
        will, or says why not. Both are called in the trio thread and must not block or raise. Cancelling ends all that
        is under way, as `Wire`'s.

        Raises:
            RepositoryError: nothing can be asked for at all.
        """

    async def get(self, key: str, *, etag: str | None = None, limit: int) -> bytes:
        """A small object whole (symlink targets); KeyRefused if it is larger than ``limit`` bytes."""

    async def put(
        self, key: str, body: bytes | FileRange, headers: ObjectHeaders, *, replaces: Remote | None
    ) -> Written:
        """``headers.crc64nvme`` is needed with a `FileRange`: LocalChanged if the file's bytes are others, and nothing
        is visible then."""

    async def start_upload(self, key: str, headers: ObjectHeaders) -> str: ...

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64nvme: int
    ) -> UploadedPart: ...

    async def parts_of(self, key: str, upload_id: str) -> list[UploadedPart] | None:
        """The parts that the store has of an upload; None if the upload is gone."""

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        replaces: Remote | None,
        crc64nvme: int,
    ) -> Written:
        """``crc64nvme`` is the whole object's."""

    async def abort_upload(self, key: str, upload_id: str) -> None: ...

    async def uploads_of(self, key: str) -> list[str]:
        """Ids of the multipart uploads to exactly this key that nobody has ended."""

    async def copy(
        self, source: str, target: str, headers: Posix, kind: Kind, *, expect: Remote, replaces: Remote | None
    ) -> Written:
        """Server-side copy with new POSIX metadata; all else of the source (user metadata, content type and the
        other system headers, tags, storage class) is kept. ``source == target`` changes metadata in place.

        ObjectChanged also where the source says other POSIX metadata than ``expect``: the copy would take it back."""

    async def delete(self, key: str, *, expect: Remote) -> None:
        """Delete exactly that version; a key that is gone already is fine."""


class StoreFactory(Protocol):
    def __call__(self, bucket: str, access: Access, conditions: Conditions | None, counted: Requests) -> ObjectStore:
        """``counted`` takes note of each request."""
        ...
