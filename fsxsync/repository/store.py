"""One bucket, over boto3. Every write carries the version that it replaces (DESIGN §3.2).

A condition goes with the request where the store was seen to obey it (probe.py); where not, a HEAD right
before compares. That leaves a window as wide as one request, and `status` says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from fsxsync.errors import (
    AccessDenied,
    BucketMissing,
    EndpointUnreachable,
    KeyRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RepositoryError,
)
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import Conditions, Listed, ObjectHeaders, UploadedPart, Written
from fsxsync.repository import copying
from fsxsync.repository.answers import (
    checksum_param,
    described_again,
    plain_etag,
    quoted_etag,
    remote_of,
    same_version,
    written,
)
from fsxsync.repository.listing import Page, fetch_page, read_fast
from fsxsync.repository.probe import find_conditions
from fsxsync.repository.session import Connection, s3_client
from fsxsync.repository.translate import one_line, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BUCKET_SEEN_S = 10.0
_BODY_ATTEMPTS = 3
"""boto3 repeats requests, but not the reading of an answer's body."""


def open_store(bucket: str, access: Access, conditions: Conditions | None) -> S3Store:
    """See `ports.StoreFactory`. Asks nothing yet: what is wrong shows at the first use."""
    return S3Store(bucket, access, conditions or Conditions())


class S3Store:
    """See `ports.ObjectStore`. Blocking, safe for use in threads."""

    def __init__(self, bucket: str, access: Access, conditions: Conditions) -> None:
        self.bucket = bucket
        self.conditions = conditions
        self._access = access
        self._connection = Connection(lambda: _client(access))
        self._bucket_seen = float("-inf")
        self._payer: dict[str, Any] = {"RequestPayer": "requester"} if access.requester_pays else {}
        self._copy_limit = copying.COPY_MAX
        self._copy_part = copying.PART

    # ------------------------------------------------------------- looking

    def check(self, prefix: str = "") -> None:
        """The bucket is there and ``prefix`` may be listed; raises what a person has to mend."""
        with self._ask("listing", prefix) as client:
            fetch_page(client, Bucket=self.bucket, Prefix=prefix, MaxKeys=1, **self._payer)

    def probe(self, prefix: str) -> Conditions:
        with self._ask("probe", prefix) as client:
            self.conditions = find_conditions(client, self.bucket, prefix, self._placing(Kind.SYMLINK))
        return self.conditions

    def head(self, key: str) -> Remote | None:
        answer = self._head(key)
        return None if answer is None else remote_of(answer, key)

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            with self._ask("HEAD", key) as client:
                return dict(client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **self._payer))
        except ObjectMissing:
            self._check_bucket()
            return None
        except (AccessDenied, KeyRefused):
            # An answer to HEAD has no body, so no reason: an expired token and a bad key look alike.
            self.check(key)
            raise

    def _check_bucket(self) -> None:
        """A missing bucket must not look like a missing object: that would delete the file."""
        if time.monotonic() < self._bucket_seen + _BUCKET_SEEN_S:
            return
        try:
            with self._ask("HEAD") as client:
                client.head_bucket(Bucket=self.bucket)
        except ObjectMissing as error:
            raise BucketMissing(error.what, "there is no such bucket") from error
        except AccessDenied:
            pass  # it may not be looked at, but it is there
        self._bucket_seen = time.monotonic()

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        what = self._what("listing", prefix)
        token, last = None, start_after
        while True:
            page = self._page(prefix, token, last)
            entries = page.entries
            for entry in entries:
                # Rows and listing are merged as streams: one key out of order would make others look deleted.
                if entry.key <= last:
                    raise RepositoryError(what, "the store does not list in byte order, each key once")
                last = entry.key
            if entries:
                yield entries
            if not page.is_truncated:
                return
            if page.token == token and not entries:
                raise RepositoryError(what, "the store says there is more and does not tell it")
            token = page.token

    def _page(self, prefix: str, token: str | None, last: str) -> Page:
        where: dict[str, Any] = {}
        if token is not None:
            where["ContinuationToken"] = token
        elif last:
            where["StartAfter"] = last
        with self._ask("listing", prefix) as client:
            return fetch_page(client, Bucket=self.bucket, Prefix=prefix, **where, **self._payer)

    # ------------------------------------------------------------- reading

    def get_range(self, key: str, offset: int, length: int, *, etag: str, version_id: str | None) -> bytes:
        if length == 0:
            return b""
        params: dict[str, Any] = {
            "Range": f"bytes={offset}-{offset + length - 1}",
            "IfMatch": quoted_etag(etag),
        }
        if version_id is not None:
            params["VersionId"] = version_id
        what = self._what("download", key)
        status, found, data = self._get(key, params, length)
        if found != etag:
            raise ObjectChanged(what, "another version came")  # the store did not look at If-Match
        if status != 206:
            raise RepositoryError(what, "the store does not answer byte ranges")
        if len(data) != length:
            raise ObjectChanged(what, f"{len(data)} bytes came where {length} were asked for")
        return data

    def get(self, key: str, *, etag: str | None = None, limit: int) -> bytes:
        params = {} if etag is None else {"IfMatch": quoted_etag(etag)}
        _, found, data = self._get(key, params, limit + 1)
        what = self._what("download", key)
        if etag is not None and found != etag:
            raise ObjectChanged(what, "another version came")
        if len(data) > limit:
            raise KeyRefused(what, f"it is larger than {limit} bytes")
        return data

    def _get(self, key: str, params: dict[str, Any], most: int) -> tuple[int, str, bytes]:
        """Status, etag and the first ``most`` bytes of the body, wholly."""
        what = self._what("download", key)
        for attempt in range(1, _BODY_ATTEMPTS + 1):
            try:
                with self._ask("download", key) as client:
                    answer = client.get_object(Bucket=self.bucket, Key=key, **params, **self._payer)
            except ObjectMissing:
                self._check_bucket()
                raise
            try:
                with translated(what), contextlib.closing(answer["Body"]) as body:
                    data = body.read(most)
            except EndpointUnreachable:
                if attempt == _BODY_ATTEMPTS:
                    raise
                continue
            if len(data) == min(most, answer["ContentLength"]):
                return answer["ResponseMetadata"]["HTTPStatusCode"], plain_etag(answer["ETag"]), data
        raise EndpointUnreachable(what, "the answer was cut short")

    # ------------------------------------------------------------- writing

    def put(self, key: str, body: bytes, headers: ObjectHeaders, *, replaces: Remote | None) -> Written:
        obeys = self.conditions.put_if_none_match if replaces is None else self.conditions.put_if_match
        params = self._describing(headers)
        if headers.crc64nvme is not None:
            params["ChecksumAlgorithm"] = "CRC64NVME"
            params["ChecksumCRC64NVME"] = checksum_param(headers.crc64nvme)
        condition = self._condition(key, replaces, obeys=obeys)
        try:
            with self._ask("upload", key) as client:
                return written(client.put_object(Bucket=self.bucket, Key=key, Body=body, **params, **condition))
        except ObjectMissing as error:
            if replaces is not None:  # If-Match on a key that is gone
                raise ObjectChanged(error.what, "it was deleted") from error
            self._check_bucket()
            raise KeyRefused(error.what, error.why) from error

    def start_upload(self, key: str, headers: ObjectHeaders) -> str:
        with self._ask("upload", key) as client:
            answer = client.create_multipart_upload(Bucket=self.bucket, Key=key, **self._describing(headers))
        return answer["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        with self._ask("upload", key) as client:
            answer = client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body, **self._payer
            )
        return UploadedPart(number, plain_etag(answer["ETag"]))

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, replaces: Remote | None
    ) -> Written:
        conditions = self.conditions
        obeys = conditions.complete_if_none_match if replaces is None else conditions.complete_if_match
        listed: Any = {"Parts": [{"PartNumber": part.number, "ETag": quoted_etag(part.etag)} for part in parts]}
        condition = self._condition(key, replaces, obeys=obeys)
        try:
            with self._ask("upload", key) as client:
                return written(
                    client.complete_multipart_upload(
                        Bucket=self.bucket,
                        Key=key,
                        UploadId=upload_id,
                        MultipartUpload=listed,
                        **condition,
                        **self._payer,
                    )
                )
        except ObjectMissing as error:
            # The object or the upload is gone; the latter also if an answer was lost and boto3 asked again.
            raise ObjectChanged(error.what, error.why) from error

    def uploads_of(self, key: str) -> list[str]:
        try:
            with self._ask("listing of uploads", key) as client:
                answer = client.list_multipart_uploads(Bucket=self.bucket, Prefix=key, **self._payer)
        except AccessDenied:
            return []  # what is left costs storage until the bucket's own rules end it
        return [upload["UploadId"] for upload in answer.get("Uploads", []) if upload["Key"] == key]

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            with self._ask("abort of an upload", key) as client:
                client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id, **self._payer)
        except ObjectMissing:
            return  # that is what was wanted

    def copy(
        self, source: str, target: str, headers: Posix, kind: Kind, *, expect: Remote, replaces: Remote | None
    ) -> Written:
        what = self._what("copy", source)
        head = self._head(source)
        if head is None:
            missing = ObjectChanged if source == target else ObjectMissing
            raise missing(what, "it was deleted")
        found = remote_of(head, source)
        if not same_version(found, expect) or (source == target and not same_version(found, replaces)):
            raise ObjectChanged(what, "it is another version now")
        if found.archived:
            raise ObjectArchived(what, f"its storage class is {found.storage_class}")
        placing = self._placing(None)
        params = described_again(head, kind, headers, encryption="ServerSideEncryption" not in placing) | placing
        copied_from = copying.Source(self.bucket, source, found)
        if found.size > self._copy_limit:
            return self._copy_large(copied_from, target, params, replaces)
        if source != target:  # a copy never guards its target (SERVERS.md)
            self._compare(target, replaces)
        with self._ask("copy", source) as client:
            return copying.copy_at_once(client, copied_from, target, params, replaces, self.conditions)

    def _copy_large(
        self, source: copying.Source, target: str, params: dict[str, Any], replaces: Remote | None
    ) -> Written:
        with self._ask("copy", source.key) as client:
            upload_id = copying.start(client, source, target, params, self._payer)
        try:
            with self._ask("copy", source.key) as client:
                parts = copying.copy_parts(client, source, target, upload_id, self._copy_part, self._payer)
            return self.complete_upload(target, upload_id, parts, replaces=replaces)
        except BaseException:
            self.abort_upload(target, upload_id)
            raise

    def delete(self, key: str, *, expect: Remote) -> None:
        condition: dict[str, Any] = {}
        if self.conditions.delete_if_match:
            condition["IfMatch"] = quoted_etag(expect.etag)
        else:
            found = self.head(key)
            if found is None:
                return
            if not same_version(found, expect):
                raise ObjectChanged(self._what("delete", key), "it is another version now")
        try:
            with self._ask("delete", key) as client:
                client.delete_object(Bucket=self.bucket, Key=key, **condition, **self._payer)
        except ObjectMissing:
            return
        except ObjectChanged:
            if self.head(key) is not None:  # a condition fails on a key that is gone, too
                raise

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()

    # ------------------------------------------------------------- inside

    def _ask(self, verb: str, key: str | None = None) -> AbstractContextManager[S3Client]:
        return self._connection.ask(self._what(verb, key))

    def _what(self, verb: str, key: str | None = None) -> str:
        return one_line(f"{verb} of s3://{self.bucket}" + ("" if key is None else f"/{key}"))

    def _condition(self, key: str, replaces: Remote | None, *, obeys: bool) -> dict[str, Any]:
        """Parameters that make the store compare; where it would not, compare here and now."""
        if not obeys:
            self._compare(key, replaces)
            return {}
        return {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": quoted_etag(replaces.etag)}

    def _compare(self, key: str, replaces: Remote | None) -> None:
        found = self.head(key)
        if not same_version(found, replaces):
            why = "it was deleted" if found is None else "it is another version now" if replaces else "it is there"
            raise ObjectChanged(self._what("write", key), why)

    def _describing(self, headers: ObjectHeaders) -> dict[str, Any]:
        return {
            "Metadata": to_user_metadata(headers.kind, headers.posix),
            "ContentType": headers.content_type,
            **self._placing(headers.kind),
        }

    def _placing(self, kind: Kind | None) -> dict[str, Any]:
        """What the association says of every object. A storage class is for files only."""
        access = self._access
        params = dict(self._payer)
        if access.acl is not None:
            params["ACL"] = access.acl
        if access.storage_class is not None and kind is Kind.FILE:
            params["StorageClass"] = access.storage_class
        if access.sse is not None:
            algorithm, key = access.sse, ""
            if algorithm.startswith("aws:kms:"):
                algorithm, key = "aws:kms", algorithm.removeprefix("aws:kms:")
            params["ServerSideEncryption"] = algorithm
            if key:
                params["SSEKMSKeyId"] = key
        return params


def _client(access: Access) -> S3Client:
    client = s3_client(access)
    read_fast(client)
    return client
