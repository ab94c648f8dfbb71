"""An answer's headers as the document that boto3 would have made of them."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from fsxsync.errors import RepositoryError
from fsxsync.ports import Answer, Written
from fsxsync.repository.answers import date_ns, full_crc, plain_etag, version_id_of
from fsxsync.repository.listing import size_of, time_ns

_META = "x-amz-meta-"
_NAMES = {
    "etag": "ETag",
    "content-type": "ContentType",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "expires": "Expires",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
    "x-amz-storage-class": "StorageClass",
    "x-amz-version-id": "VersionId",
    "x-amz-restore": "Restore",
    "x-amz-archive-status": "ArchiveStatus",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-server-side-encryption-customer-algorithm": "SSECustomerAlgorithm",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-checksum-crc32": "ChecksumCRC32",
    "x-amz-checksum-sha1": "ChecksumSHA1",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-checksum-type": "ChecksumType",
}

_OF_BYTES = {
    name: _NAMES[name]
    for name in _NAMES
    if name == "etag" or name.startswith(("x-amz-checksum-", "x-amz-server-side-encryption"))
}


def told_of_bytes(answer: Answer) -> dict[str, Any]:
    """Of `head_document` what `answers.checksums_of` reads, and the ETag: a few of ten headers, for objects that come
    by the thousand."""
    return {_OF_BYTES[name]: value for name, value in answer.headers if name in _OF_BYTES}


def head_document(answer: Answer) -> dict[str, Any]:
    """What ``head_object`` would have returned, as far as answers.py reads it.

    Raises:
        RepositoryError: headers that make no sense.
    """
    document: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    try:
        for name, value in answer.headers:
            if name.startswith(_META):
                metadata[name.removeprefix(_META)] = value
            elif name in _NAMES:
                document[_NAMES[name]] = value
            elif name == "x-amz-server-side-encryption-bucket-key-enabled":
                document["BucketKeyEnabled"] = value.lower() == "true"
            elif name == "content-length":
                document["ContentLength"] = size_of(value)
            elif name == "last-modified":
                moment = parsedate_to_datetime(value)
                document["LastModified"] = moment.replace(tzinfo=moment.tzinfo or UTC)
                time_ns(document["LastModified"])
    except (ValueError, OverflowError) as error:
        raise RepositoryError("an answer of the store", f"its headers make no sense: {error}") from error
    return document | {"Metadata": metadata}


def written_of(answer: Answer, *, etag: str | None = None) -> Written:
    """A write's answer. ``etag`` where it stands in the body (copies).

    Raises:
        RepositoryError: there is none: what was written could not be told from what others write.
    """
    document = head_document(answer)
    plain = plain_etag(etag if etag is not None else document.get("ETag"))
    if not plain:
        raise RepositoryError("an answer of the store", "it names no ETag of what was written")
    return Written(
        etag=plain,
        version_id=version_id_of(document),
        date_ns=date_ns(answer.header("date")),
        crc64nvme=full_crc(document, plain),
    )
