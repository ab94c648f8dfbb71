"""One bucket. Every write carries the version that it replaces (DESIGN §3.2).

A condition goes with the request where the store was seen to obey it (probe.py); where not, a HEAD right
before compares. That leaves a window as wide as one request, and `status` says so.

What comes by the thousand goes over the wire (asking.py), the rest through boto3 in worker threads (bookkeeping.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import trio

from fsxsync.crashpoint import durable
from fsxsync.errors import (
    AccessDenied,
    KeyRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RepositoryError,
)
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.measures import Requests
from fsxsync.model.stub import StubMark
from fsxsync.ports import (
    Answer,
    Conditions,
    End,
    Fetched,
    FileRange,
    Listed,
    ObjectHeaders,
    Priority,
    Sink,
    Unrecorded,
    UploadedPart,
    UploadJournal,
    Wire,
    Written,
)
from fsxsync.repository import copying, requests
from fsxsync.repository.answers import checksums_of, described_again, plain_etag, remote_of, same_version
from fsxsync.repository.asking import Asker
from fsxsync.repository.bookkeeping import Bookkeeping, condition_of
from fsxsync.repository.heads import head_document, told_of_bytes, written_of
from fsxsync.repository.large_copy import LargeCopy
from fsxsync.repository.signing import Signer

_FINISHED_MAX = 16 << 20
"""Bytes of a body that are sent to their end when the caller is cancelled: then it is known what stands there. The end
of a larger one is cut off, and the store drops what it has."""


def open_store(
    bucket: str,
    access: Access,
    conditions: Conditions | None,
    wire: Wire,
    counted: Requests | None = None,
    journal: UploadJournal | None = None,
) -> S3Store:
    """See `ports.StoreFactory`. Asks nothing yet: what is wrong shows at the first use. Without a ``journal`` a copy in
    parts that fails is begun anew."""
    return S3Store(bucket, access, conditions or Conditions(), wire, counted, journal)


class S3Store:
    """See `ports.ObjectStore`."""

    def __init__(
        self,
        bucket: str,
        access: Access,
        conditions: Conditions,
        wire: Wire,
        counted: Requests | None = None,
        journal: UploadJournal | None = None,
    ) -> None:
        self.bucket = bucket
        counted = counted or Requests()
        self.conditions = conditions
        self._access = access
        self._books = Bookkeeping(bucket, access, counted)
        self._asker = Asker(wire, Signer(bucket, access, self._books.connection), self._books.ask_bucket, counted)
        self._journal = journal
        self._copy_limit, self._copy_part = copying.COPY_MAX, copying.PART

    # ------------------------------------------------------------- looking

    async def check(self, prefix: str = "") -> None:
        await trio.to_thread.run_sync(self._books.check, prefix)

    async def probe(self, prefix: str) -> Conditions:
        self.conditions = await trio.to_thread.run_sync(self._books.probe, prefix)
        return self.conditions

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        return self._books.list_pages(prefix, start_after=start_after)

    async def head(self, key: str, *, version_id: str | None = None) -> Remote | None:
        answer = await self._head(key, version_id)
        return None if answer is None else remote_of(answer, key, etag_is_md5=self.conditions.etag_is_md5)

    async def restore(self, key: str, *, version_id: str | None, tier: str, days: int | None) -> None:
        with durable("object.restore"):
            await trio.to_thread.run_sync(self._books.restore, key, version_id, tier, days)

    async def _head(self, key: str, version_id: str | None = None) -> dict[str, Any] | None:
        what = self._books.what("HEAD", key)
        try:
            answer = await self._asker.ask(requests.head(key, version_id=version_id), what=what)
        except ObjectMissing:
            await self._check_bucket()
            return None
        except (AccessDenied, KeyRefused):
            # An answer to HEAD has no body, so no reason: an expired token, a bad key and SSE-C look alike.
            await self.check(key)
            with contextlib.suppress(ObjectChanged, ObjectMissing):  # empty, or gone by now
                await self._asker.ask(requests.get_first(key, version_id=version_id), what=what)
            raise
        return head_document(answer)

    async def _check_bucket(self) -> None:
        await trio.to_thread.run_sync(self._books.check_bucket)

    # ------------------------------------------------------------- reading

    async def fetch(
        self, key: str, into: FileRange, *, etag: str, version_id: str | None, size: int, priority: Priority
    ) -> Fetched:
        if into.length == 0:
            return Fetched(0)
        what = self._books.what("download", key)
        is_whole = into.length == size
        if is_whole:  # then its checksums come with it
            request = requests.get(key, etag=etag, version_id=version_id)
        else:
            request = requests.get_range(key, into.offset, into.length, etag=etag, version_id=version_id)
        try:
            answer = await self._asker.ask(
                request, what=what, priority=priority, into=into, object_offset=None if is_whole else into.offset
            )
        except ObjectMissing:
            await self._check_bucket()
            raise
        except ObjectArchived as error:
            raise ObjectArchived(error.what, error.why, key=key) from error
        except RepositoryError as error:
            if type(error) is not RepositoryError:
                raise
            # Something else came than was asked for: of another version, if the store does not look at If-Match.
            found = await self.head(key)
            if found is not None and (found.etag, found.size) == (etag, size):
                raise
            raise ObjectChanged(what, error.why) from error
        head = head_document(answer)
        if plain_etag(head.get("ETag")) != etag:
            raise ObjectChanged(what, "another version came")  # the store did not look at If-Match
        assert answer.crc64nvme is not None
        told = checksums_of(head, etag, etag_is_md5=self.conditions.etag_is_md5) if is_whole else ()
        return Fetched(answer.crc64nvme, told)

    async def fetch_many(
        self,
        wanted: Sequence[StubMark],
        *,
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        def take(number: int, answer: Answer | None) -> None:
            came(number, None if answer is None else self._fetched(answer, wanted[number].etag))

        asked = [requests.get(one.key, etag=one.etag, version_id=one.version_id) for one in wanted]
        await self._asker.get_many(asked, priority=priority, begin=begin, came=take)

    def _fetched(self, answer: Answer, etag: str) -> Fetched | None:
        """What came whole; None: it is not that version, or the answer's head makes no sense."""
        head = told_of_bytes(answer)
        if plain_etag(head.get("ETag")) != etag or answer.crc64nvme is None:
            return None
        return Fetched(answer.crc64nvme, checksums_of(head, etag, etag_is_md5=self.conditions.etag_is_md5))

    async def get(self, key: str, *, etag: str | None = None, limit: int) -> bytes:
        what = self._books.what("download", key)
        try:
            answer = await self._asker.ask(requests.get(key, etag=etag), what=what)
        except ObjectMissing:
            await self._check_bucket()
            raise
        except ObjectArchived as error:
            raise ObjectArchived(error.what, error.why, key=key) from error
        if etag is not None and plain_etag(answer.header("etag")) != etag:
            raise ObjectChanged(what, "another version came")
        if len(answer.body) > limit:
            raise KeyRefused(what, f"it is larger than {limit} bytes")
        return answer.body

    # ------------------------------------------------------------- writing

    async def put(
        self, key: str, body: bytes | FileRange, headers: ObjectHeaders, *, replaces: Remote | None
    ) -> Written:
        obeys = self.conditions.put_if_none_match if replaces is None else self.conditions.put_if_match
        if not obeys:
            await self._compare(key, replaces)
        request = requests.put(
            key,
            headers,
            self._access,
            if_match=replaces.etag if obeys and replaces is not None else None,
            if_none=obeys and replaces is None,
        )
        length = body.length if isinstance(body, FileRange) else len(body)
        try:
            with durable("object.put"):
                answer = await self._asker.ask(
                    request,
                    what=self._books.what("upload", key),
                    body=body,
                    body_crc64nvme=headers.crc64nvme,
                    finish=length <= _FINISHED_MAX,
                )
        except ObjectMissing as error:
            if replaces is not None:  # If-Match on a key that is gone
                raise ObjectChanged(error.what, "it was deleted") from error
            await self._check_bucket()
            raise KeyRefused(error.what, error.why) from error
        return written_of(answer)

    async def start_upload(self, key: str, headers: ObjectHeaders) -> str:
        with durable("upload.start"):
            return await trio.to_thread.run_sync(
                lambda: self._books.start_upload(key, headers, checksum=self.conditions.checksum)
            )

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64nvme: int
    ) -> UploadedPart:
        told = crc64nvme if self.conditions.checksum else None
        with durable("upload.part"):
            answer = await self._asker.ask(
                requests.upload_part(key, upload_id, number, crc64nvme=told),
                what=self._books.what("upload", key),
                priority=Priority.PRELOAD,
                body=body,
                body_crc64nvme=crc64nvme,
            )
        return UploadedPart(number, written_of(answer).etag, crc64nvme)

    async def parts_of(self, key: str, upload_id: str) -> list[UploadedPart] | None:
        return await trio.to_thread.run_sync(self._books.parts_of, key, upload_id)

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        replaces: Remote | None,
        crc64nvme: int,
    ) -> Written:
        condition = await self._completing(key, replaces)
        told = crc64nvme if self.conditions.checksum else None
        with durable("upload.complete"):
            return await trio.to_thread.run_sync(
                lambda: self._books.complete_upload(key, upload_id, parts, condition, crc64nvme=told)
            )

    async def _completing(self, key: str, replaces: Remote | None) -> dict[str, Any]:
        conditions = self.conditions
        if conditions.complete_if_none_match if replaces is None else conditions.complete_if_match:
            return condition_of(replaces)
        await self._compare(key, replaces)
        return {}

    async def uploads_of(self, key: str) -> list[str]:
        return await trio.to_thread.run_sync(self._books.uploads_of, key)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        with durable("upload.abort"):
            await trio.to_thread.run_sync(self._books.abort_upload, key, upload_id)

    async def copy(
        self, source: str, target: str, headers: Posix, kind: Kind, *, expect: Remote, replaces: Remote | None
    ) -> Written:
        what = self._books.what("copy", source)
        head = await self._head(source)
        if head is None:
            missing = ObjectChanged if source == target else ObjectMissing
            raise missing(what, "it was deleted")
        found = remote_of(head, source)
        if not same_version(found, expect) or (source == target and not same_version(found, replaces)):
            raise ObjectChanged(what, "it is another version now")
        if not found.is_described_as(expect):  # of which no ETag tells
            raise ObjectChanged(what, "it has other metadata now")
        if found.archived:
            raise ObjectArchived(what, f"its storage class is {found.storage_class}")
        placing = self._books.placing(None)
        params = described_again(head, kind, headers, encryption="ServerSideEncryption" not in placing) | placing
        copied_from = copying.Source(self.bucket, source, found)
        if found.size > self._copy_limit:

            async def look() -> dict[str, Any]:
                await self._still_copied_from(copied_from, onto_itself=source == target)
                return await self._completing(target, replaces)

            return await self._large_copy(copied_from, target, params).run(look)
        if source != target:  # a copy never guards its target (SERVERS.md)
            await self._compare(target, replaces)
        guard: dict[str, Any] = {}
        if self.conditions.put_if_none_match if replaces is None else self.conditions.put_if_match:
            guard = condition_of(replaces)
        with durable("object.copy"):
            return await self._copy_at_once(copied_from, target, params, guard)

    async def _still_copied_from(self, source: copying.Source, *, onto_itself: bool) -> None:
        """Each part is of the source as it was when the part was copied: raises ObjectChanged if that may have been
        another version, and the store did not look. What is copied onto itself is also looked at for other metadata."""
        remote = source.remote
        if not onto_itself and (self.conditions.copy_source_if_match or remote.version_id is not None):
            return
        found = await self.head(source.key)
        if not same_version(found, remote) or found is None or found.last_modified_ns != remote.last_modified_ns:
            raise ObjectChanged(self._books.what("copy", source.key), "it changed while it was copied")

    def _large_copy(self, source: copying.Source, target: str, params: dict[str, Any]) -> LargeCopy:
        return LargeCopy(
            self._books,
            self,
            self._journal or Unrecorded(),
            keeps=self._journal is not None,
            source=source,
            target=target,
            params=params,
            part_size=self._copy_part,
        )

    async def _copy_at_once(
        self, source: copying.Source, target: str, params: dict[str, Any], guard: dict[str, Any]
    ) -> Written:
        what = self._books.what("copy", source.key)
        model = await trio.to_thread.run_sync(self._books.copy_model)
        try:
            answer = await self._asker.ask(
                copying.request(model, source, target, params | guard), what=what, finish=True
            )
        except RepositoryError as error:
            if not guard or not copying.is_not_implemented(error):
                raise
            answer = await self._asker.ask(copying.request(model, source, target, params), what=what, finish=True)
        etag = copying.etag_of(answer)
        if not etag:
            raise RepositoryError(what, "the store's answer makes no sense")
        return written_of(answer, etag=etag)

    async def delete(self, key: str, *, expect: Remote) -> None:
        obeys = self.conditions.delete_if_match
        what = self._books.what("delete", key)
        if not obeys:
            found = await self.head(key)
            if found is None:
                return
            if not same_version(found, expect):
                raise ObjectChanged(what, "it is another version now")
        try:
            request = requests.delete(key, if_match=expect.etag if obeys else None)
            with durable("object.delete"):
                await self._asker.ask(request, what=what, finish=True)
        except ObjectMissing:
            return
        except ObjectChanged:
            if await self.head(key) is not None:  # a condition fails on a key that is gone, too
                raise

    def close(self) -> None:
        """Close idle connections."""
        self._books.close()

    # ------------------------------------------------------------- inside

    async def _compare(self, key: str, replaces: Remote | None) -> None:
        found = await self.head(key)
        if not same_version(found, replaces):
            why = "it was deleted" if found is None else "it is another version now" if replaces else "it is there"
            raise ObjectChanged(self._books.what("write", key), why)
        if found is not None and replaces is not None and not found.is_described_as(replaces):
            raise ObjectChanged(self._books.what("write", key), "it has other metadata now")
