"""What S3 answers, as values: nothing above this room sees boto3's dicts."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import time
from collections.abc import Mapping
from email.header import Header
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

from fsxsync.errors import RepositoryError
from fsxsync.model.checksum import Algorithm, Checksum
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.metadata import again_user_metadata, from_user_metadata
from fsxsync.model.parts import is_multipart_etag
from fsxsync.ports import Written
from fsxsync.repository.listing import time_ns
from fsxsync.repository.translate import NonsenseError, one_line, said

_MD5 = re.compile(r"[0-9a-f]{32}")
_LENGTHS = {
    Algorithm.CRC64NVME: 8,
    Algorithm.CRC32C: 4,
    Algorithm.CRC32: 4,
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
}
_TOLD = tuple((algorithm, length, f"Checksum{algorithm.value}") for algorithm, length in _LENGTHS.items())
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_RESTORED = 'ongoing-request="false"'
_ONGOING = 'ongoing-request="true"'

# What a copy with MetadataDirective=REPLACE forgets unless it is told again. Expires is apart: it is a time.
_SYSTEM_HEADERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
    "StorageClass",
)


def remote_of(head: Mapping[str, Any], key: str, *, etag_is_md5: bool = False) -> Remote:
    """A HeadObject answer as the remote identity of ``key``. ``etag_is_md5``: the store was seen to make them so.

    Raises:
        RepositoryError: it does not say what every store says.
    """
    if not {"ContentLength", "LastModified"} <= head.keys():
        raise RepositoryError(one_line(f"HEAD of {key}"), "the answer tells no size or no time: is the endpoint right?")
    etag = plain_etag(head.get("ETag"))
    kind, posix = from_user_metadata(head.get("Metadata", {}), key=key)
    return Remote(
        kind=kind,
        etag=etag,
        size=int(head["ContentLength"]),
        last_modified_ns=time_ns(head["LastModified"]),
        version_id=version_id_of(head),
        posix=posix,
        storage_class=head.get("StorageClass") or "STANDARD",
        archived=_is_archived(head),
        restoring=_ONGOING in str(head.get("Restore", "")),
        crc64nvme=full_crc(head, etag),
        checksums=checksums_of(head, etag, etag_is_md5=etag_is_md5),
        content_type=head.get("ContentType"),
    )


def written(answer: Mapping[str, Any]) -> Written:
    """A write's answer.

    Raises:
        NonsenseError: it names no ETag. What says 200 and no more need not be a store: nothing may have been written.
    """
    etag = etag_in(answer, "ETag")
    return Written(
        etag=etag,
        version_id=version_id_of(answer),
        date_ns=date_ns(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")),
        crc64nvme=full_crc(answer, etag),
    )


def etag_in(answer: Mapping[str, Any], *names: str) -> str:
    """The ETag that stands in an answer under ``names``. Raises NonsenseError: there is none, or an empty one."""
    etag = plain_etag(said(answer, *names))
    if not etag:
        raise NonsenseError("its ETag is empty")
    return etag


def same_version(one: Remote | None, other: Remote | None) -> bool:
    """As far as both know. Last-modified is left out: after a write we know the answer's date only."""
    if one is None or other is None:
        return one is other
    if one.version_id is not None and other.version_id is not None and one.version_id != other.version_id:
        return False
    return (one.etag, one.size) == (other.etag, other.size)


def described_again(head: Mapping[str, Any], kind: Kind, posix: Posix, *, encryption: bool) -> dict[str, Any]:
    """Parameters that make a copy keep all of its source but the POSIX metadata (DESIGN §6).

    ``encryption``: the key of the source, too, where it has one of its own.
    """
    before = {name: _ascii(value) for name, value in head.get("Metadata", {}).items()}
    params: dict[str, Any] = {name: head[name] for name in _SYSTEM_HEADERS if head.get(name)}
    params["Metadata"] = again_user_metadata(before, kind, posix)
    # AES256 is every bucket's default, and not said again: the bucket's owner may have another one by now.
    if encryption and str(head.get("ServerSideEncryption", "")).startswith("aws:kms"):
        params["ServerSideEncryption"] = head["ServerSideEncryption"]
        if head.get("SSEKMSKeyId"):
            params["SSEKMSKeyId"] = head["SSEKMSKeyId"]
        if head.get("BucketKeyEnabled"):  # no copy takes it over by itself, and without it each read asks KMS
            params["BucketKeyEnabled"] = True
    return params


def tagging_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The ``Tagging`` parameter that sets what GetObjectTagging answered; empty without tags.

    Raises:
        NonsenseError: it tells nothing of tags: a copy without them would lose them.
    """
    tags = answer.get("TagSet")
    if not isinstance(tags, list):
        raise NonsenseError("it tells no TagSet")
    return {"Tagging": urlencode([(said(tag, "Key"), tag.get("Value", "")) for tag in tags])} if tags else {}


def plain_etag(quoted: str | None) -> str:
    return (quoted or "").strip('"')


def quoted_etag(etag: str) -> str:
    return f'"{etag}"'


def version_id_of(answer: Mapping[str, Any]) -> str | None:
    """``null`` is what every unversioned write leaves: it tells no two versions apart."""
    version_id = answer.get("VersionId")
    return None if version_id in {None, "null"} else str(version_id)


def checksum_param(crc: int) -> str:
    """CRC64NVME as S3 writes it: base64 of eight bytes, the highest first."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def full_crc(head: Mapping[str, Any], etag: str) -> int | None:
    """CRC64NVME of the whole object, where the store told one."""
    for checksum in checksums_of(head, etag):
        if checksum.algorithm is Algorithm.CRC64NVME:
            return int.from_bytes(checksum.value, "big")
    return None


def checksums_of(head: Mapping[str, Any], etag: str, *, etag_is_md5: bool = False) -> tuple[Checksum, ...]:
    """What is told of the whole object's bytes. Composite checksums (of the parts' checksums) say nothing of them."""
    found: list[Checksum] = []
    kind = head.get("ChecksumType")
    if kind == "FULL_OBJECT" or (kind is None and not is_multipart_etag(etag)):
        for algorithm, length, name in _TOLD:
            text = head.get(name)
            value = _decoded(text) if text else None
            if value is not None and len(value) == length:
                found.append(Checksum(algorithm, value))
    # With a key of its own (SSE-KMS, SSE-C) the ETag is no MD5 (S3 API reference, "Object": ETag).
    own_key = str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or head.get("SSECustomerAlgorithm")
    if etag_is_md5 and not own_key and _MD5.fullmatch(etag):
        found.append(Checksum(Algorithm.MD5, bytes.fromhex(etag)))
    return tuple(found)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_archived(head: Mapping[str, Any]) -> bool:
    """A GET would be refused. ``ArchiveStatus`` tells of Intelligent-Tiering's archive tiers."""
    if head.get("StorageClass") not in _ARCHIVES and not head.get("ArchiveStatus"):
        return False
    return _RESTORED not in str(head.get("Restore", ""))


def date_ns(text: str | None) -> int:
    """The Date header as our clock counts."""
    try:
        return time_ns(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, OverflowError):  # no Date, or one without a zone: our own clock is the next best
        return time.time_ns()


def _ascii(value: str) -> str:
    """Header values are ASCII; what lies beyond goes back as S3 itself writes it (RFC 2047)."""
    if value.isascii():
        return value
    with contextlib.suppress(UnicodeError):  # if it is no UTF-8: the characters as they are
        value = value.encode("latin-1").decode()  # UTF-8 bytes, read as HTTP reads headers
    return Header(value, "utf-8", maxlinelen=2000).encode()
