"""One bucket over boto3: what is rare or rich. Listings, probes, the bookkeeping of multipart uploads, large copies.

Blocking, and safe for use in threads. What comes by the thousand goes over the wire (store.py): boto3 manages some
350 requests a second, however many threads ask it (SERVERS.md).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from botocore.model import OperationModel

from fsxsync.errors import AccessDenied, BucketMissing, ObjectArchived, ObjectChanged, ObjectMissing, RepositoryError
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Remote
from fsxsync.model.measures import Requests
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.parts import Part
from fsxsync.ports import Conditions, Listed, ObjectHeaders, UploadedPart, Written
from fsxsync.repository import copying
from fsxsync.repository.answers import checksum_param, etag_in, quoted_etag, written
from fsxsync.repository.listing import Page, fetch_page, read_fast
from fsxsync.repository.probe import find_conditions
from fsxsync.repository.session import Connection, count_requests, s3_client
from fsxsync.repository.translate import NonsenseError, one_line, said

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BUCKET_SEEN_S = 10.0


class Bookkeeping:
    """Raises what `ports.ObjectStore` does."""

    def __init__(self, bucket: str, access: Access, counted: Requests | None = None) -> None:
        self.bucket = bucket
        self._access = access
        self.counted = counted or Requests()
        self.connection = Connection(lambda: _client(access, self.counted))
        self._bucket_seen = float("-inf")
        self._payer: dict[str, Any] = {"RequestPayer": "requester"} if access.requester_pays else {}

    # ------------------------------------------------------------- looking

    def check(self, prefix: str = "") -> None:
        """The bucket is there and ``prefix`` may be listed; raises what a person has to mend."""
        with self._ask("listing", prefix) as client:
            fetch_page(client, Bucket=self.bucket, Prefix=prefix, MaxKeys=1, **self._payer)

    def check_bucket(self) -> None:
        """A missing bucket must not look like a missing object: that would delete the file."""
        if time.monotonic() < self._bucket_seen + _BUCKET_SEEN_S:
            return
        try:
            self.ask_bucket()
        except ObjectMissing as error:
            raise BucketMissing(error.what, "there is no such bucket") from error
        except AccessDenied:
            pass  # it may not be looked at, but it is there
        self._bucket_seen = time.monotonic()

    def ask_bucket(self) -> None:
        """HEAD of the bucket. botocore follows a redirect to the bucket's region, and remembers it."""
        with self._ask("HEAD") as client:
            client.head_bucket(Bucket=self.bucket)

    def probe(self, prefix: str) -> Conditions:
        with self._ask("probe", prefix) as client:
            return find_conditions(client, self.bucket, prefix, self.placing(Kind.SYMLINK), self._access.storage_class)

    def list_pages(self, prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        what = self.what("listing", prefix)
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

    # ------------------------------------------------------------- multipart uploads

    def start_upload(self, key: str, headers: ObjectHeaders, *, checksum: bool) -> str:
        """``checksum``: CRC64NVME goes with the parts and the whole; only for a store that looks at it."""
        announced: dict[str, Any] = (
            {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if checksum else {}
        )
        with self._ask("upload", key) as client:
            answer = client.create_multipart_upload(
                Bucket=self.bucket, Key=key, **self._describing(headers), **announced
            )
            return said(answer, "UploadId")

    def parts_of(self, key: str, upload_id: str) -> list[UploadedPart] | None:
        try:
            with self._ask("listing of an upload", key) as client:
                pages = client.get_paginator("list_parts").paginate(
                    Bucket=self.bucket, Key=key, UploadId=upload_id, **self._payer
                )
                parts = [
                    UploadedPart(_number_of(part), etag_in(part, "ETag"))
                    for page in pages
                    for part in page.get("Parts", [])
                ]
        except ObjectMissing:
            self.check_bucket()
            return None
        else:
            return parts

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        condition: Mapping[str, Any],
        *,
        crc64nvme: int | None,
    ) -> Written:
        """``crc64nvme``: None if the upload began without."""
        listed: Any = {"Parts": [_completed(part, checksum=crc64nvme is not None) for part in parts]}
        checked: dict[str, Any] = {}
        if crc64nvme is not None:
            checked = {"ChecksumCRC64NVME": checksum_param(crc64nvme), "ChecksumType": "FULL_OBJECT"}
        try:
            with self._ask("upload", key) as client:
                return written(
                    client.complete_multipart_upload(
                        Bucket=self.bucket,
                        Key=key,
                        UploadId=upload_id,
                        MultipartUpload=listed,
                        **condition,
                        **checked,
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
                return [said(one, "UploadId") for one in answer.get("Uploads", []) if one.get("Key") == key]
        except AccessDenied:
            return []  # what is left costs storage until the bucket's own rules end it

    def abort_upload(self, key: str, upload_id: str) -> None:
        with (
            contextlib.suppress(ObjectMissing),  # that is what was wanted
            self._ask("abort of an upload", key) as client,
        ):
            client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id, **self._payer)

    # ------------------------------------------------------------- archived objects

    def restore(self, key: str, version_id: str | None, tier: str, days: int | None) -> None:
        where: dict[str, Any] = {} if version_id is None else {"VersionId": version_id}
        wish: Any = {"Days": days, "GlacierJobParameters": {"Tier": tier.capitalize()}}
        if days is None:
            wish = {"GlacierJobParameters": {"Tier": tier.capitalize()}}
        try:
            with self._ask("restore", key) as client:
                client.restore_object(Bucket=self.bucket, Key=key, RestoreRequest=wish, **where, **self._payer)
        except ObjectArchived:
            return  # RestoreAlreadyInProgress; or InvalidObjectState: it is not archived

    # ------------------------------------------------------------- copies

    def copy_model(self) -> OperationModel:
        """How CopyObject looks on the wire."""
        with self._ask("copy") as client:
            return client.meta.service_model.operation_model("CopyObject")

    def start_copy(self, source: copying.Source, target: str, params: Mapping[str, Any]) -> str:
        """Begin a copy in parts; the id of its upload."""
        with self._ask("copy", source.key) as client:
            return copying.start(client, source, target, dict(params), self._payer)

    def copy_part(self, source: copying.Source, target: str, upload_id: str, part: Part) -> UploadedPart:
        """Copy one of them.

        Raises:
            ObjectChanged: the upload is gone: the bucket's own rules ended it, say.
        """
        try:
            with self._ask("copy", source.key) as client:
                return copying.copy_part(client, source, target, upload_id, part, self._payer)
        except ObjectMissing as error:
            if copying.is_upload_gone(error):
                raise ObjectChanged(error.what, error.why) from error
            raise

    # ------------------------------------------------------------- inside

    def close(self) -> None:
        """Close idle connections."""
        self.connection.close()

    def _ask(self, verb: str, key: str | None = None) -> AbstractContextManager[S3Client]:
        return self.connection.ask(self.what(verb, key))

    def what(self, verb: str, key: str | None = None) -> str:
        """How a request is named in errors."""
        return one_line(f"{verb} of s3://{self.bucket}" + ("" if key is None else f"/{key}"))

    def _describing(self, headers: ObjectHeaders) -> dict[str, Any]:
        return {
            "Metadata": to_user_metadata(headers.kind, headers.posix),
            "ContentType": headers.content_type,
            **self.placing(headers.kind),
        }

    def placing(self, kind: Kind | None) -> dict[str, Any]:
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


def condition_of(replaces: Remote | None) -> dict[str, Any]:
    """boto3's parameters that make a store compare."""
    return {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": quoted_etag(replaces.etag)}


def _number_of(part: Mapping[str, Any]) -> int:
    number = part.get("PartNumber")
    if not isinstance(number, int):
        raise NonsenseError("it tells no PartNumber")
    return number


def _completed(part: UploadedPart, *, checksum: bool) -> dict[str, Any]:
    """Also with a checksum of the whole, versitygw and MinIO want those of the parts once more; AWS takes them."""
    told: dict[str, Any] = {"PartNumber": part.number, "ETag": quoted_etag(part.etag)}
    if checksum and part.crc64nvme is not None:
        told["ChecksumCRC64NVME"] = checksum_param(part.crc64nvme)
    return told


def _client(access: Access, counted: Requests) -> S3Client:
    client = s3_client(access)
    read_fast(client)
    count_requests(client, counted)
    return client
