"""The requests that come by the thousand, as values: what store.py has boto3 send, without boto3.

`signing.Signer` makes each of them ready for a wire. Who pays (``requester_pays``) is its business, too: it is
said with every request.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.association import Access
from fsxsync.model.identity import Kind
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders
from fsxsync.repository.answers import checksum_param, quoted_etag

Pairs = tuple[tuple[str, str], ...]
_OPERATIONS = {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request about an object, unsigned: ``key``, ``query`` and ``headers`` as they are meant, not encoded."""

    method: str
    key: str
    query: Pairs = ()
    headers: Pairs = ()
    has_body: bool = False

    @property
    def operation(self) -> str:
        """What S3 calls it, and bills it as."""
        if self.method != "PUT":
            return _OPERATIONS[self.method]
        if any(name.lower() == "x-amz-copy-source" for name, _ in self.headers):
            return "CopyObject"
        return "UploadPart" if any(name == "partNumber" for name, _ in self.query) else "PutObject"


def get_range(key: str, offset: int, length: int, *, etag: str, version_id: str | None) -> Request:
    """``length`` bytes (one at least) of exactly that version. ``etag`` without quotes, here and below."""
    return Request(
        "GET",
        key,
        query=() if version_id is None else (("versionId", version_id),),
        headers=(("Range", f"bytes={offset}-{offset + length - 1}"), ("If-Match", quoted_etag(etag))),
    )


def get(key: str, *, etag: str | None, version_id: str | None = None) -> Request:
    """The object whole, with its checksums; of exactly that version if ``etag`` is given."""
    condition = () if etag is None else (("If-Match", quoted_etag(etag)),)
    return Request(
        "GET",
        key,
        query=() if version_id is None else (("versionId", version_id),),
        headers=(("x-amz-checksum-mode", "ENABLED"), *condition),
    )


def head(key: str, *, version_id: str | None = None) -> Request:
    """The object's headers, its checksum among them."""
    query = () if version_id is None else (("versionId", version_id),)
    return Request("HEAD", key, query=query, headers=(("x-amz-checksum-mode", "ENABLED"),))


def get_first(key: str, *, version_id: str | None = None) -> Request:
    """The object's first byte, or why it can't be had: the refusal of a GET has a body."""
    query = () if version_id is None else (("versionId", version_id),)
    return Request("GET", key, query=query, headers=(("Range", "bytes=0-0"),))


def put(
    key: str, headers: ObjectHeaders, access: Access, *, if_match: str | None = None, if_none: bool = False
) -> Request:
    """The object whole. ``if_match``: only over that etag; ``if_none``: only if the key is free."""
    pairs = [*_describing(headers, access)]
    if headers.crc64nvme is not None:
        pairs += _checksum(headers.crc64nvme)
    if if_match is not None:
        pairs.append(("If-Match", quoted_etag(if_match)))
    if if_none:
        pairs.append(("If-None-Match", "*"))
    return Request("PUT", key, headers=tuple(pairs), has_body=True)


def upload_part(key: str, upload_id: str, number: int, *, crc64nvme: int | None = None) -> Request:
    """Part ``number``, from 1, of a multipart upload that rare.py began; with a checksum if that began with one."""
    return Request(
        "PUT",
        key,
        query=(("partNumber", str(number)), ("uploadId", upload_id)),
        headers=() if crc64nvme is None else _checksum(crc64nvme),
        has_body=True,
    )


def delete(key: str, *, if_match: str | None) -> Request:
    """Delete the key; with ``if_match`` only that version (where the store looks at it: SERVERS.md)."""
    return Request("DELETE", key, headers=() if if_match is None else (("If-Match", quoted_etag(if_match)),))


def _checksum(crc64nvme: int) -> Pairs:
    return (
        ("x-amz-sdk-checksum-algorithm", "CRC64NVME"),
        ("x-amz-checksum-crc64nvme", checksum_param(crc64nvme)),
    )


def _describing(headers: ObjectHeaders, access: Access) -> Pairs:
    """As S3Store._describing, in HTTP's words instead of boto3's; a test holds the two together."""
    meta = to_user_metadata(headers.kind, headers.posix)
    pairs = [("Content-Type", headers.content_type), *((f"x-amz-meta-{name}", value) for name, value in meta.items())]
    if access.acl is not None:
        pairs.append(("x-amz-acl", access.acl))
    if access.storage_class is not None and headers.kind is Kind.FILE:
        pairs.append(("x-amz-storage-class", access.storage_class))
    if access.sse is not None:
        algorithm, key_id = access.sse, ""
        if algorithm.startswith("aws:kms:"):
            algorithm, key_id = "aws:kms", algorithm.removeprefix("aws:kms:")
        pairs.append(("x-amz-server-side-encryption", algorithm))
        if key_id:
            pairs.append(("x-amz-server-side-encryption-aws-kms-key-id", key_id))
    return tuple(pairs)
