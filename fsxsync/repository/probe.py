"""Which conditional requests a store obeys, found out on a key of our own.

A 2xx never proves that the condition was looked at (SERVERS.md), so every kind of request is sent twice: with
a condition that must fail, and with one that must not. Only a store that tells them apart is believed.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from fsxsync.crashpoint import durable
from fsxsync.errors import AccessDenied, BadCredentials, BucketMissing, ObjectChanged, OptionRefused
from fsxsync.ports import Conditions
from fsxsync.repository.answers import checksum_param, etag_in, quoted_etag
from fsxsync.repository.translate import one_line, said, status_of, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

PROBE_NAME = ".fsxsync-probe-"
_WRONG = quoted_etag("0" * 32)
_BUSY = frozenset({429, 503})


Condition = dict[str, Any]


class _Outcome(enum.Enum):
    DONE = enum.auto()
    REFUSED = enum.auto()
    """The condition failed: 412, or 409 where two writers met."""
    FAILED = enum.auto()
    """Anything else: the store does not know the request, or we may not send it."""


class _ReadOnlyError(Exception):
    """We may not write here: there is nothing to find out, and nothing to clean up."""


def find_conditions(
    client: S3Client, bucket: str, prefix: str, placing: Mapping[str, Any], storage_class: str | None = None
) -> Conditions:
    """Try every kind of conditional request below ``prefix`` and remove what that left, versions included.

    ``placing`` goes with each new object (ACL, encryption, requester pays), ``storage_class`` with one. Where we may
    not write, nothing is found out, and all is False.

    Raises:
        ClientError, BotoCoreError: bad credentials, no bucket, throttled, unreachable, or the bucket does not take
            what the association says of every object.
    """
    versioning = _versioning(client, bucket)
    probe = _Probe(client, bucket, f"{prefix}{PROBE_NAME}{secrets.token_hex(8)}", placing)
    try:
        found = probe.run(versioned=versioning == "Enabled")
        if storage_class is not None:
            probe.put_in(storage_class)
    except _ReadOnlyError:
        return Conditions(versioned=versioning == "Enabled")
    except BaseException:
        probe.clean_up(has_versions=bool(versioning))
        raise
    probe.clean_up(has_versions=bool(versioning))
    return found


def _versioning(client: S3Client, bucket: str) -> str:
    """``Enabled``, ``Suspended`` (old versions may lie there) or '' (never, or not for us to know)."""
    try:
        return client.get_bucket_versioning(Bucket=bucket).get("Status", "")
    except ClientError as error:
        _raise_if_final(error)
        return ""


def _raise_if_final(error: ClientError) -> None:
    """An answer that has nothing to do with conditions ends the probe."""
    if status_of(error) in _BUSY or isinstance(translate(error, ""), (BadCredentials, BucketMissing, OptionRefused)):
        raise error


def _md5(body: bytes) -> dict[str, Any]:
    """Where Object Lock holds every new object, S3 takes none without its checksum, and MD5 is known to every store."""
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"ContentMD5": base64.b64encode(digest).decode()}


class _Probe:
    def __init__(self, client: S3Client, bucket: str, key: str, placing: Mapping[str, Any]) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._at: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._placing = placing
        self._payer = {name: value for name, value in placing.items() if name == "RequestPayer"}
        self._etag = ""
        self._uploads: list[str] = []

    def run(self, *, versioned: bool) -> Conditions:
        """Each line needs what the lines before it left: the object, then its absence."""
        put, complete, copy, delete = self._put, self._complete, self._copy, self._delete
        none: Condition = {"IfNoneMatch": "*"}
        put_none_ok = self._first_put(none)
        put_none = self._refuses(put, none) and put_none_ok
        put_match = self._refuses(put, {"IfMatch": _WRONG}) and self._accepts(put, "IfMatch")
        complete_match = self._refuses(complete, {"IfMatch": _WRONG}) and self._accepts(complete, "IfMatch")
        complete_none_refused = self._refuses(complete, none)
        copy_match = self._refuses(copy, {"CopySourceIfMatch": _WRONG}) and self._accepts(copy, "CopySourceIfMatch")
        delete_match = self._refuses(delete, {"IfMatch": _WRONG}) and self._accepts(delete, "IfMatch")
        # A deleted key is no key: one store takes a delete marker for an object here, and for nothing there.
        put_match = put_match and self._when_gone(put, "IfMatch") is not _Outcome.DONE
        complete_match = complete_match and self._when_gone(complete, "IfMatch") is not _Outcome.DONE
        put_none = put_none and self._when_gone(put, "IfNoneMatch") is _Outcome.DONE
        complete_none = complete_none_refused and self._when_gone(complete, "IfNoneMatch") is _Outcome.DONE
        return Conditions(
            put_if_match=put_match,
            put_if_none_match=put_none,
            complete_if_match=complete_match,
            complete_if_none_match=complete_none,
            copy_source_if_match=copy_match,
            delete_if_match=delete_match,
            versioned=versioned,
            checksum=self._refuses_damage(),
            etag_is_md5=self._makes_md5(),
        )

    def put_in(self, storage_class: str) -> None:
        """The bucket takes objects of that class: raises if not, so that it is said once and not of each file."""
        placing: dict[str, Any] = {**self._placing, "StorageClass": storage_class}
        try:
            self._client.put_object(**self._at, Body=b"", **_md5(b""), **placing)
        except ClientError as error:
            _raise_if_final(error)

    def _refuses_damage(self) -> bool:
        """A wrong CRC64NVME is refused and a right one is not, so whoever sends one learns something."""
        body, right, wrong = b"123456789", 0xAE8B14860A799888, 0xAE8B14860A799889

        def put(crc: int) -> Callable[[Condition], str]:
            def request(_condition: Condition) -> str:
                told: dict[str, Any] = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": checksum_param(crc)}
                answer = self._client.put_object(**self._at, Body=body, **told, **self._placing)
                return etag_in(answer, "ETag")

            return request

        return self._try(put(wrong), {}) is not _Outcome.DONE and self._try(put(right), {}) is _Outcome.DONE

    def _makes_md5(self) -> bool:
        body = secrets.token_bytes(8)
        try:
            answer = self._client.put_object(**self._at, Body=body, **_md5(body), **self._placing)
        except ClientError as error:
            _raise_if_final(error)
            return False
        return etag_in(answer, "ETag") == hashlib.md5(body, usedforsecurity=False).hexdigest()

    def _first_put(self, condition: Condition) -> bool:
        """Make the object, with the condition if the store takes it so."""
        try:
            self._put(condition)
        except ClientError as error:
            _raise_if_final(error)
            if isinstance(translate(error, ""), AccessDenied):
                raise _ReadOnlyError from error
        else:
            return True
        if self._try(self._put, {}) is not _Outcome.DONE:
            raise _ReadOnlyError
        return False

    def _refuses(self, request: Callable[[Condition], str], condition: Condition) -> bool:
        return self._try(request, condition) is _Outcome.REFUSED

    def _accepts(self, request: Callable[[Condition], str], name: str) -> bool:
        return self._try(request, {name: quoted_etag(self._etag)}) is _Outcome.DONE

    def _when_gone(self, request: Callable[[Condition], str], name: str) -> _Outcome:
        """What comes of a request on a key that was deleted right before."""
        self._try(self._put, {})
        value = "*" if name == "IfNoneMatch" else quoted_etag(self._etag)
        self._try(self._delete, {})
        return self._try(request, {name: value})

    def _try(self, request: Callable[[Condition], str], condition: Condition) -> _Outcome:
        try:
            with durable("probe.write"):
                self._etag = request(condition)
        except ClientError as error:
            _raise_if_final(error)
            return _Outcome.REFUSED if isinstance(translate(error, ""), ObjectChanged) else _Outcome.FAILED
        return _Outcome.DONE

    def _put(self, condition: Condition) -> str:
        body = secrets.token_bytes(8)  # another etag each time
        answer = self._client.put_object(**self._at, Body=body, **_md5(body), **condition, **self._placing)
        self._etag = etag_in(answer, "ETag")
        return self._etag

    def _complete(self, condition: Condition) -> str:
        """One upload for each try: a refused completion may end it."""
        upload_id = said(self._client.create_multipart_upload(**self._at, **self._placing), "UploadId")
        self._uploads.append(upload_id)
        upload: dict[str, Any] = {**self._at, "UploadId": upload_id, **self._payer}
        body = secrets.token_bytes(8)
        part = self._client.upload_part(**upload, PartNumber=1, Body=body, **_md5(body))
        parts: Any = {"Parts": [{"PartNumber": 1, "ETag": said(part, "ETag")}]}
        answer = self._client.complete_multipart_upload(**upload, MultipartUpload=parts, **condition)
        self._uploads.remove(upload_id)
        return etag_in(answer, "ETag")

    def _copy(self, condition: Condition) -> str:
        answer = self._client.copy_object(
            **self._at,
            CopySource={"Bucket": self._bucket, "Key": self._key},
            MetadataDirective="REPLACE",  # a copy onto itself has to change something
            Metadata={"probe": secrets.token_hex(4)},
            **condition,
            **self._placing,
        )
        return etag_in(answer, "CopyObjectResult", "ETag")

    def _delete(self, condition: Condition) -> str:
        self._client.delete_object(**self._at, **condition, **self._payer)
        return ""

    def clean_up(self, *, has_versions: bool) -> None:
        """Remove whatever is left. What can't be removed is said, and ends nothing."""
        try:
            with durable("probe.write"):
                for upload_id in self._uploads:
                    self._client.abort_multipart_upload(**self._at, UploadId=upload_id, **self._payer)
                self._client.delete_object(**self._at, **self._payer)  # first: versions may be locked, and stay
                if has_versions:
                    self._delete_versions()
        except ClientError as error:
            left = f"s3://{self._bucket}/{self._key}"
            log.warning("a probe of the store could not be removed: %s", translate(error, one_line(left)))

    def _delete_versions(self) -> None:
        payer: Any = self._payer
        listed = self._client.list_object_versions(Bucket=self._bucket, Prefix=self._key, **payer)
        for entry in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
            if entry.get("Key") == self._key:
                version: dict[str, Any] = {"VersionId": said(entry, "VersionId")}
                self._client.delete_object(**self._at, **version, **self._payer)
