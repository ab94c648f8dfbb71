"""An object store in memory that obeys every condition; believed because it passes the contract's tests.

Tests may look at ``objects``, act as somebody else through the ``outside_*`` methods, let the next requests
fail (``failures``), and see what was asked (``requests``).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import trio

from fsxsync import _core
from fsxsync.errors import (
    KeyRefused,
    LocalChanged,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RepositoryError,
    Throttled,
)
from fsxsync.model.checksum import Algorithm, Checksum
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.metadata import again_user_metadata, from_user_metadata, to_user_metadata
from fsxsync.model.stub import StubMark
from fsxsync.ports import (
    Conditions,
    End,
    Fetched,
    FileRange,
    Listed,
    ObjectHeaders,
    Priority,
    Sink,
    UploadedPart,
    Written,
)

PAGE = 1000
HONEST = Conditions(
    put_if_match=True,
    put_if_none_match=True,
    complete_if_match=True,
    complete_if_none_match=True,
    copy_source_if_match=True,
    delete_if_match=True,
    checksum=True,
    etag_is_md5=True,
)


@dataclass(frozen=True, slots=True)
class FakeObject:
    """One version of an object. ``etag`` is derived unless it was made of parts."""

    body: bytes
    metadata: Mapping[str, str]
    last_modified_ns: int
    etag: str
    content_type: str = "binary/octet-stream"
    cache_control: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    storage_class: str = "STANDARD"
    archived: bool = False
    restoring: bool = False
    crc64nvme: int | None = None


@dataclass(slots=True)
class _Upload:
    key: str
    headers: ObjectHeaders
    parts: dict[int, bytes] = field(default_factory=dict)


class FakeStore:
    """See `ports.ObjectStore`."""

    def __init__(self, *, versioned: bool = False, bucket: str = "bucket") -> None:
        self.bucket = bucket
        self.conditions = replace(HONEST, versioned=versioned)
        self.objects: dict[str, FakeObject] = {}
        self.old_versions: dict[tuple[str, str], FakeObject] = {}
        self.uploads: dict[str, _Upload] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: list[Exception] = []
        """Raised by the next requests, one each, before they do anything."""
        self.now_ns: Callable[[], int] = _clock()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    # ------------------------------------------------------------- somebody else

    def outside_put(
        self,
        key: str,
        body: bytes = b"",
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "binary/octet-stream",
        cache_control: str | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        archived: bool = False,
    ) -> None:
        """Put an object unconditionally, as another user of the bucket."""
        made = FakeObject(
            body,
            dict(metadata or {}),
            self.now_ns(),
            _md5(body),
            content_type=content_type,
            cache_control=cache_control,
            tags=dict(tags or {}),
            storage_class=storage_class,
            archived=archived,
        )
        with self._lock:
            self._place(key, made)

    def outside_delete(self, key: str) -> None:
        with self._lock:
            self._retire(key)
            self.objects.pop(key, None)

    # ------------------------------------------------------------- ports.ObjectStore

    async def check(self, prefix: str) -> None:
        self._asked("check", prefix)

    async def probe(self, prefix: str) -> Conditions:
        self._asked("probe", prefix)
        return self.conditions

    async def head(self, key: str, *, version_id: str | None = None) -> Remote | None:
        self._asked("head", key)
        with self._lock:
            return self._remote(key, version_id)

    async def restore(self, key: str, *, version_id: str | None, tier: str, days: int | None) -> None:
        self._asked("restore", key)
        with self._lock:
            self.objects[key] = replace(self.objects[key], restoring=self.objects[key].archived)

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        self._asked("list", prefix)
        with self._lock:
            listed = [
                Listed(key, found.etag, len(found.body), found.last_modified_ns, found.storage_class)
                for key, found in sorted(self.objects.items())
                if key.startswith(prefix) and key > start_after
            ]
        for start in range(0, len(listed), PAGE):
            yield listed[start : start + PAGE]

    async def fetch(
        self, key: str, into: FileRange, *, etag: str, version_id: str | None, size: int, priority: Priority
    ) -> Fetched:
        self._asked("fetch", key)
        await trio.lowlevel.checkpoint()
        found = self.objects.get(key)
        if version_id is not None and (found is None or found.version_id != version_id):
            found = self.old_versions.get((key, version_id))
        if found is None:
            raise ObjectMissing(f"download of {key}", "it is not there")
        if found.etag != etag:
            raise ObjectChanged(f"download of {key}", "it is another version")
        _readable(key, found)
        data = found.body[into.offset : into.offset + into.length]
        if len(data) != into.length:
            raise ObjectChanged(f"download of {key}", "it is shorter")
        os.pwrite(into.fd, data, into.offset)
        return Fetched(_core.crc64nvme(data), _checksums(found) if into.length == size else ())

    async def fetch_many(
        self,
        wanted: Sequence[StubMark],
        *,
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        async def fetch(number: int) -> None:
            one, scope, fetched = wanted[number], trio.CancelScope(), None

            def end(*, only_held: bool = False, scope: trio.CancelScope = scope) -> None:
                if not only_held:  # all that begins is sent
                    scope.cancel()

            sink = begin(number, end)
            if sink is None:
                return
            try:
                with scope, suppress(RepositoryError):
                    fetched = await self.fetch(
                        one.key,
                        FileRange(sink.fd, 0, sink.size),
                        etag=one.etag,
                        version_id=one.version_id,
                        size=one.size,
                        priority=priority,
                    )
            finally:
                os.utime(sink.fd, ns=(sink.atime_ns, sink.mtime_ns))
                came(number, fetched)

        async with trio.open_nursery() as nursery:
            for number in range(len(wanted)):
                nursery.start_soon(fetch, number)

    async def get(self, key: str, *, etag: str | None = None, limit: int) -> bytes:
        self._asked("get", key)
        with self._lock:
            found = self.objects.get(key)
        if found is None:
            raise ObjectMissing(f"download of {key}", "it is not there")
        if etag is not None and found.etag != etag:
            raise ObjectChanged(f"download of {key}", "it is another version")
        _readable(key, found)
        if len(found.body) > limit:
            raise KeyRefused(f"download of {key}", f"it is larger than {limit} bytes")
        return found.body

    async def put(
        self, key: str, body: bytes | FileRange, headers: ObjectHeaders, *, replaces: Remote | None
    ) -> Written:
        self._asked("put", key)
        await trio.lowlevel.checkpoint()
        if isinstance(body, FileRange):
            body = _read(key, body, headers.crc64nvme)
        with self._lock:
            self._compare(key, replaces)
            return self._place(key, self._made(body, headers, _md5(body)))

    async def start_upload(self, key: str, headers: ObjectHeaders) -> str:
        self._asked("start_upload", key)
        upload_id = f"upload-{next(self._numbers)}"
        self.uploads[upload_id] = _Upload(key, headers)
        return upload_id

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64nvme: int
    ) -> UploadedPart:
        self._asked("upload_part", key)
        await trio.lowlevel.checkpoint()
        data = _read(key, body, crc64nvme)
        self._upload(key, upload_id).parts[number] = data
        return UploadedPart(number, _md5(data))

    async def parts_of(self, key: str, upload_id: str) -> list[UploadedPart] | None:
        self._asked("parts_of", key)
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            return None
        return [UploadedPart(number, _md5(data)) for number, data in sorted(upload.parts.items())]

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        replaces: Remote | None,
        crc64nvme: int,
    ) -> Written:
        self._asked("complete_upload", key)
        await trio.lowlevel.checkpoint()
        with self._lock:
            if upload_id not in self.uploads:
                raise ObjectChanged(f"upload to {key}", "the upload is gone")
            upload = self._upload(key, upload_id)
            self._compare(key, replaces)
            bodies = [upload.parts[part.number] for part in parts]
            digests = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
            etag = f"{_md5(digests)}-{len(bodies)}"
            if _core.crc64nvme(b"".join(bodies)) != crc64nvme:
                raise Throttled(f"upload to {key}", "BadDigest")
            del self.uploads[upload_id]
            headers = replace(upload.headers, crc64nvme=crc64nvme)
            return self._place(key, self._made(b"".join(bodies), headers, etag))

    async def uploads_of(self, key: str) -> list[str]:
        self._asked("uploads_of", key)
        return [upload_id for upload_id, upload in self.uploads.items() if upload.key == key]

    async def abort_upload(self, key: str, upload_id: str) -> None:
        self._asked("abort_upload", key)
        self.uploads.pop(upload_id, None)

    async def copy(
        self, source: str, target: str, headers: Posix, kind: Kind, *, expect: Remote, replaces: Remote | None
    ) -> Written:
        self._asked("copy", source)
        with self._lock:
            found = self.objects.get(source)
            if found is None:
                missing = ObjectChanged if source == target else ObjectMissing
                raise missing(f"copy of {source}", "it is not there")
            self._compare(source, expect)
            self._compare(target, replaces)
            now = self._remote(source)
            if now is None or not now.is_described_as(expect):
                raise ObjectChanged(f"copy of {source}", "it has other metadata now")
            _readable(source, found)
            made = replace(
                found,
                metadata=again_user_metadata(found.metadata, kind, headers),
                last_modified_ns=self.now_ns(),
                version_id=None,
            )
            return self._place(target, made)

    async def delete(self, key: str, *, expect: Remote) -> None:
        self._asked("delete", key)
        with self._lock:
            if key in self.objects:
                self._compare(key, expect)
                self._retire(key)
                del self.objects[key]

    # ------------------------------------------------------------- inside

    def _asked(self, operation: str, key: str) -> None:
        self.requests.append((operation, key))
        if self.failures:
            raise self.failures.pop(0)

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise ObjectMissing(f"upload to {key}", "the upload is gone")
        return upload

    def _remote(self, key: str, version_id: str | None = None) -> Remote | None:
        found = self.objects.get(key)
        if version_id is not None and (found is None or found.version_id != version_id):
            found = self.old_versions.get((key, version_id))
        if found is None:
            return None
        kind, posix = from_user_metadata(found.metadata, key=key)
        return Remote(
            kind=kind,
            etag=found.etag,
            size=len(found.body),
            last_modified_ns=found.last_modified_ns,
            version_id=found.version_id,
            posix=posix,
            storage_class=found.storage_class,
            archived=found.archived,
            restoring=found.restoring,
            crc64nvme=found.crc64nvme,
            checksums=_checksums(found),
            content_type=found.content_type,
        )

    def _compare(self, key: str, expected: Remote | None) -> None:
        now = self._remote(key)
        if now is None or expected is None:
            same = now is expected
        else:
            same = (now.etag, now.size) == (expected.etag, expected.size)
            if same and now.version_id is not None and expected.version_id is not None:
                same = now.version_id == expected.version_id
        if not same:
            raise ObjectChanged(f"write of {key}", "it is another version")

    def _made(self, body: bytes, headers: ObjectHeaders, etag: str) -> FakeObject:
        return FakeObject(
            body,
            to_user_metadata(headers.kind, headers.posix),
            self.now_ns(),
            etag,
            content_type=headers.content_type,
            crc64nvme=headers.crc64nvme,
        )

    def _place(self, key: str, made: FakeObject) -> Written:
        self._retire(key)
        if self.conditions.versioned:
            made = replace(made, version_id=f"v{next(self._numbers)}")
        self.objects[key] = made
        return Written(made.etag, made.version_id, made.last_modified_ns, made.crc64nvme)

    def _retire(self, key: str) -> None:
        found = self.objects.get(key)
        if found is not None and found.version_id is not None:
            self.old_versions[key, found.version_id] = found


def _readable(key: str, found: FakeObject) -> None:
    if found.archived:
        raise ObjectArchived(f"download of {key}", f"its storage class is {found.storage_class}", key=key)


def _read(key: str, body: FileRange, crc64nvme: int | None) -> bytes:
    data = os.pread(body.fd, body.length, body.offset)
    if len(data) != body.length or _core.crc64nvme(data) != crc64nvme:
        raise LocalChanged(f"upload to {key}", "the file was changed meanwhile")
    return data


def _checksums(found: FakeObject) -> tuple[Checksum, ...]:
    told = []
    if found.crc64nvme is not None:
        told.append(Checksum(Algorithm.CRC64NVME, found.crc64nvme.to_bytes(8, "big")))
    if "-" not in found.etag:
        told.append(Checksum(Algorithm.MD5, bytes.fromhex(found.etag)))
    return tuple(told)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _clock() -> Callable[[], int]:
    """Whole seconds from 2026-11-24 10:00 on, each later than the one before: as coarse as HTTP's dates."""
    seconds = itertools.count(1795514400)
    return lambda: next(seconds) * 10**9
