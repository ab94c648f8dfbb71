"""The seams between the rooms: what each side may ask of the other, and nothing else.

Everything here is a protocol or a value that crosses a border. Implementations:
`Wire` transfer/wire.py, `ObjectStore` repository/store.py (fake: tests/fakes/store.py), `Mover` transfer/,
`Hydrator` sync/hydrator.py (fake: tests/fakes/hydrator.py), `Front` mount/ and, without FUSE, `NoFront` in sync/,
`Administration` sync/engine.py.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fsxsync.model.association import Access, Association
from fsxsync.model.checksum import Checksum
from fsxsync.model.finding import Finding, Tally
from fsxsync.model.identity import Kind, Posix, Remote

# ---------------------------------------------------------------- the wire


class Priority(enum.IntEnum):
    """Order in which requests are taken; a foreground read outranks all else."""

    FOREGROUND = 0
    """Somebody waits in a read."""
    REQUEST = 1
    """Small requests: HEAD, DELETE, copies, small objects."""
    PRELOAD = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True)
class FileRange:
    """``length`` bytes of an open file from ``offset`` on. Whoever passes one keeps ``fd`` open until the call is over,
    however it ends."""

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, repr=False)
class SignedRequest:
    """What goes over the wire, once: the store refuses a signature that is 15 minutes old.

    ``url`` is to be sent byte for byte, and ``headers`` are all there have to be but Content-Length. Whoever has them
    can send this request: they are never printed.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"SignedRequest({self.method} {self.url!r})"


@dataclass(frozen=True, slots=True)
class Answer:
    """Any HTTP answer, also of a refusal. ``headers`` have names in lower case; ``body`` is empty where the bytes went
    to a file. ``crc64nvme``: of the file range that was moved."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    crc64nvme: int | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)


class Wire(Protocol):
    """transfer/: one road to the servers, with its own limit of requests at a time. Signs nothing, repeats nothing."""

    async def send(
        self,
        request: SignedRequest,
        *,
        what: str,
        priority: Priority,
        body: bytes | FileRange = b"",
        body_crc64nvme: int | None = None,
        into: FileRange | None = None,
        object_offset: int | None = None,
    ) -> Answer:
        """Send one request and take its answer. ``what`` names it in errors.

        ``body_crc64nvme``: of a `FileRange` body; if other bytes are read, the last of them are never sent, so that no
        store can publish them. ``into``: where the body of a 2xx goes, exactly ``length`` bytes; with
        ``object_offset`` a 206 that begins there is asked for, without it the whole object (200).

        Cancelling ends the request at once; on return nobody uses the descriptors any more.

        Raises:
            EndpointUnreachable: no answer, or not a whole one: try again. LocalChanged: the body was not what was
            announced, or the file ended before it. NoSpace. TreeError: the file can't be read or written.
            RepositoryError: an answer that is none to this request (another range, too much).
        """


# ---------------------------------------------------------------- repository


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a listing page: ``etag`` without quotes, ``key`` whole (prefix included)."""

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
    BadCredentials, BucketMissing, EndpointUnreachable, Throttled, ObjectArchived, KeyRefused.
    Requests that take effect are finished even when the caller is cancelled: what they did must be known.
    """

    conditions: Conditions

    async def check(self, prefix: str) -> None:
        """The bucket exists and may be listed; raises what a person has to mend."""

    async def probe(self, prefix: str) -> Conditions:
        """Find out which conditions the store obeys, leave nothing behind, and remember it in ``conditions``."""

    async def head(self, key: str) -> Remote | None:
        """The object as it is now, user metadata parsed; None only if the key is gone and the bucket is there."""

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        """Every key below ``prefix`` in byte order, a page (up to 1,000) at a time. Blocking: for a worker thread."""

    async def fetch(
        self, key: str, into: FileRange, *, etag: str, version_id: str | None, size: int, priority: Priority
    ) -> Fetched:
        """Exactly these bytes of exactly that version (``size`` bytes in all) into the file at the same offset.
        ObjectChanged if that version is no longer current; also what `Wire.send` says of files."""

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
        other system headers, tags, storage class) is kept. ``source == target`` changes metadata in place."""

    async def delete(self, key: str, *, expect: Remote) -> None:
        """Delete exactly that version; a key that is gone already is fine."""


class StoreFactory(Protocol):
    def __call__(self, bucket: str, access: Access, conditions: Conditions | None) -> ObjectStore: ...


@dataclass(frozen=True, slots=True)
class ObjectHint:
    """Look at ``key`` in ``bucket``; ``etag`` and ``version_id`` where the event told them."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    happened_ns: int | None = None
    is_removal: bool = False
    is_copy: bool = False
    """ObjectCreated:Copy: metadata may have changed under an unchanged etag."""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One received message: its hints, or why it could not be read (``poison``). ``receipt`` deletes it."""

    receipt: str
    hints: tuple[ObjectHint, ...] = ()
    poison: str | None = None
    body_excerpt: str = ""


class EventQueue(Protocol):
    """An SQS queue. Blocking. Raises RepositoryError."""

    url: str

    def check(self) -> None:
        """The queue exists and may be read; raises what a person has to mend."""

    def receive(self, wait_s: int) -> list[QueueMessage]: ...

    def left(self) -> int | None:
        """Messages that nobody has deleted yet, also those that somebody holds; None where asking is not allowed."""

    def delete(self, receipts: Sequence[str]) -> None:
        """Only after the hints are in the changelog (DESIGN §7)."""


# ---------------------------------------------------------------- transfer


@dataclass(frozen=True, slots=True)
class ChunkJob:
    """Move ``length`` bytes of one object version (``size`` bytes in all) to ``fd`` at ``offset``, the same offset on
    both sides."""

    store: ObjectStore
    key: str
    etag: str
    version_id: str | None
    size: int
    fd: int
    offset: int
    length: int


class Mover(Protocol):
    """transfer/: bytes between socket and file. Raises RepositoryError, NoSpace, LocalChanged."""

    async def fetch(self, job: ChunkJob, priority: Priority) -> Fetched: ...

    async def upload(
        self,
        store: ObjectStore,
        key: str,
        fd: int,
        size: int,
        headers: ObjectHeaders,
        *,
        replaces: Remote | None,
        still: Callable[[], None],
    ) -> tuple[Written, bytes]:
        """Upload ``size`` bytes of ``fd`` and return (answer, XXH3-128 of what was sent).

        ``still()`` is called in the trio thread right before the object can become visible and raises LocalChanged if
        the file moved on.
        """


# ---------------------------------------------------------------- mount <-> sync


class Hydrator(Protocol):
    """What the front asks of sync: data for stubs, and attention for changes. Paths are below the tree's root."""

    async def open_for_read(self, path: bytes, fd: int) -> None:
        """Called when a stub is opened for reading (``fd`` is open on it): loads a small file wholly, starts
        nothing for a large one. Raises FsxSyncError (its errno goes to the caller)."""

    async def ensure(self, path: bytes, fd: int, offset: int, length: int) -> bool:
        """Return when these bytes are in the file. False once the whole file is resident (stop asking)."""

    async def make_resident(self, path: bytes, fd: int) -> None:
        """Load everything and settle: before the first writer is let in, before truncate to another size."""

    async def discard(self, path: bytes, fd: int) -> None:
        """The data will be replaced wholly (O_TRUNC, truncate to 0): end a running hydration, drop the mark.
        ``fd`` is open for writing; on return the file is an ordinary empty file."""

    def is_stub(self, fd: int) -> bool:
        """The file carries the stub mark (one fgetxattr)."""

    def writer_opened(self, path: bytes, ino: int) -> None: ...

    def writer_closed(self, path: bytes, ino: int) -> None:
        """Balanced with `writer_opened`; the last one of an inode makes the path exportable."""

    def changed(self, path: bytes) -> None:
        """A name or its metadata changed: create, unlink, mkdir, rmdir, link, symlink, setattr, setxattr."""

    def renamed(self, old: bytes, new: bytes, *, exchanged: bool) -> None:
        """A rename was done; directories included (everything below moved with it)."""

    def may_write(self, path: bytes) -> bool:
        """False below a read-only association: the front answers EROFS."""

    def may_rename(self, old: bytes, new: bytes) -> bool:
        """False across an association's border: the front answers EXDEV, and mv copies instead. The two sides are
        different repositories, like two file systems."""

    def is_association_root(self, path: bytes) -> bool:
        """True for an association's directory or an ancestor of one: the front does not let it go (EBUSY)."""


class Front(Protocol):
    """What sync asks of the front: forget what the kernel cached. Never blocks the caller."""

    def invalidate_entry(self, parent_ino: int, name: bytes, ino: int | None = None) -> None:
        """The name in the directory with that host inode number may mean something else now: ``ino`` where that is
        known (nothing is sent then if the kernel knows it as that), or nothing."""

    def invalidate_inode(self, ino: int, *, data: bool) -> None:
        """Attributes of that host inode changed; with ``data`` its pages too."""

    async def told(self) -> None:
        """Return when the kernel has forgotten all that was invalidated before the call."""

    def open_handles(self, ino: int) -> int:
        """How many handles applications hold on that host inode."""


# ---------------------------------------------------------------- control -> sync


@dataclass(frozen=True, slots=True)
class FileState:
    """One row of ``fsxsync state`` (CLI.md). ``flags`` in Lustre's words and order; ``bits`` their value."""

    path: str
    bits: int
    flags: tuple[str, ...]
    kind: Kind
    resident_bytes: int
    size: int
    etag: str | None
    version_id: str | None
    key: str | None
    association: str | None
    pending: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class PendingItem:
    path: str
    association: str
    age_s: float
    attempts: int
    error: str | None
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class AssociationStatus:
    """An association with its counters, as ``associations`` and ``status`` show it."""

    association: Association
    pending: int
    pending_imports: int
    pending_exports: int
    oldest_pending_s: float
    conflicts: int
    errors: int
    not_exportable: int
    imported: int
    exported: int
    conditions: Conditions | None = None
    source: str = ""
    """``sqs``, ``poll`` or ``none``, and when it was last read."""
    recent_errors: tuple[PendingItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """``fsxsync status``; ``needs_person`` makes its exit code 1."""

    version: str
    state_dir: str
    tree: str
    mount: str | None
    data_path: str
    data_path_reason: str
    watch: str
    pid: int
    started_s: float
    associations: tuple[AssociationStatus, ...]
    open_for_writing: int
    cache_bytes: int
    cache_free_bytes: int
    transfers: Mapping[str, float] = field(default_factory=dict)
    needs_person: tuple[str, ...] = ()


class Administration(Protocol):
    """What the control server may ask of the daemon. All raise FsxSyncError. Implemented by sync/engine.py."""

    async def create(self, association: Association, *, wait: bool) -> Association:
        """``association.id`` is '' on the way in. Validates (overlap, bucket, permission), makes the directory,
        probes the store, imports the listing; with ``wait`` returns when it is AVAILABLE, or raises what is wrong
        (nothing is left behind then); without, returns it CREATING at once after the cheap checks."""

    async def update(self, association: Association) -> Association: ...

    def accept_deletes(self, association_id: str) -> None:
        """Believe the next listing, however much is missing from it (DESIGN §3.6)."""

    async def delete(self, association_id: str, *, delete_data: bool, force: bool, hydrate: bool) -> Association:
        """Drains first. Returns it DELETING (or gone). Never deletes an object (DESIGN §3.6)."""

    def associations(self) -> tuple[Association, ...]: ...

    def status(self) -> Status: ...

    def state(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[FileState]: ...

    def check(self, tree_paths: Sequence[bytes], *, verify: bool) -> AsyncIterator[Finding | Tally]:
        """Every broken rule at these paths and below them (b"" is everything), the tally last. ``verify`` reads the
        files that are here, and compares them with what was synced and with their objects."""

    async def wait(self, tree_path: bytes, timeout_s: float) -> tuple[PendingItem, ...]:
        """Empty when nothing is pending below the path and the sources have been read up to now."""

    async def drain(self, timeout_s: float) -> int:
        """Stop taking in new imports, wait for pending exports; the number of changes left."""

    def stop(self) -> None:
        """End the daemon as SIGTERM would."""
