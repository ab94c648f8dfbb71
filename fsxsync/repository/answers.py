"""What S3 answers, as values: nothing above this room sees boto3's dicts."""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import Mapping
from email.header import Header
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.metadata import from_user_metadata, is_ours, to_user_metadata
from fsxsync.model.parts import is_multipart_etag
from fsxsync.ports import Written
from fsxsync.repository.listing import time_ns

_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_RESTORED = 'ongoing-request="false"'

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


def remote_of(head: Mapping[str, Any], key: str) -> Remote:
    """A HeadObject answer as the remote identity of ``key``."""
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
        crc64nvme=_full_crc(head, etag),
        content_type=head.get("ContentType"),
    )


def written(answer: Mapping[str, Any], *, etag: str | None = None) -> Written:
    """A write's answer. ``etag`` where it stands deeper in it (copies)."""
    metadata = answer["ResponseMetadata"]
    return Written(
        etag=plain_etag(etag if etag is not None else answer.get("ETag")),
        version_id=version_id_of(answer),
        date_ns=_date_ns(metadata.get("HTTPHeaders", {}).get("date")),
    )


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
    foreign = {name: _ascii(value) for name, value in head.get("Metadata", {}).items() if not is_ours(name)}
    params: dict[str, Any] = {name: head[name] for name in _SYSTEM_HEADERS if head.get(name)}
    params["Metadata"] = foreign | to_user_metadata(kind, posix)
    # AES256 is every bucket's default, and not said again: the bucket's owner may have another one by now.
    if encryption and str(head.get("ServerSideEncryption", "")).startswith("aws:kms"):
        params["ServerSideEncryption"] = head["ServerSideEncryption"]
        if head.get("SSEKMSKeyId"):
            params["SSEKMSKeyId"] = head["SSEKMSKeyId"]
    return params


def tagging_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The ``Tagging`` parameter that sets what GetObjectTagging answered; empty without tags."""
    tags = answer.get("TagSet", [])
    return {"Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])} if tags else {}


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


def _full_crc(head: Mapping[str, Any], etag: str) -> int | None:
    text = head.get("ChecksumCRC64NVME")
    kind = head.get("ChecksumType")
    if not text or kind not in {"FULL_OBJECT", None} or (kind is None and is_multipart_etag(etag)):
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 8 else None


def _is_archived(head: Mapping[str, Any]) -> bool:
    """A GET would be refused. ``ArchiveStatus`` tells of Intelligent-Tiering's archive tiers."""
    if head.get("StorageClass") not in _ARCHIVES and not head.get("ArchiveStatus"):
        return False
    return _RESTORED not in str(head.get("Restore", ""))


def _date_ns(text: str | None) -> int:
    try:
        return time_ns(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError):  # no Date, or one without a zone: our own clock is the next best
        return time.time_ns()


def _ascii(value: str) -> str:
    """Header values are ASCII; what lies beyond goes back as S3 itself writes it (RFC 2047)."""
    if value.isascii():
        return value
    with contextlib.suppress(UnicodeError):  # if it is no UTF-8: the characters as they are
        value = value.encode("latin-1").decode()  # UTF-8 bytes, read as HTTP reads headers
    return Header(value, "utf-8", maxlinelen=2000).encode()
