"""Server-side copies: how they are asked for. One request up to 5 GiB, parts above (large_copy.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import ClientError
from botocore.model import OperationModel
from botocore.serialize import create_serializer

from fsxsync.errors import RepositoryError
from fsxsync.model.identity import Remote
from fsxsync.model.parts import GIB, MIB, Part
from fsxsync.ports import Answer, UploadedPart
from fsxsync.repository.answers import etag_in, quoted_etag, tagging_of
from fsxsync.repository.asking import document
from fsxsync.repository.requests import Request
from fsxsync.repository.translate import code_of, said, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COPY_MAX = 5 * GIB
"""S3's limit for CopyObject, and for one part."""
PART = 512 * MIB
_SAID_ELSEWHERE = frozenset({"RequestPayer", "Expires"})
"""The signer says who pays; Expires is a time for botocore, and for HTTP any text (``0`` is common)."""
_SERIALIZER = create_serializer("rest-xml", include_validation=False)


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: exactly this version."""

    bucket: str
    key: str
    remote: Remote

    @property
    def params(self) -> dict[str, Any]:
        where = {"Bucket": self.bucket, "Key": self.key}
        if self.remote.version_id is not None:
            where["VersionId"] = self.remote.version_id
        return {"CopySource": where, "CopySourceIfMatch": quoted_etag(self.remote.etag)}


def request(model: OperationModel, source: Source, target: str, params: Mapping[str, Any]) -> Request:
    """CopyObject, as botocore would write it. The caller has looked at the target; AWS looks once more where a
    condition is among the ``params``, most other stores don't."""
    inside = "/object/" if source.bucket.startswith("arn:") else "/"  # an access point's
    where = quote(f"{source.bucket}{inside}{source.key}", safe="/~")
    if source.remote.version_id is not None:
        where += f"?versionId={quote(source.remote.version_id, safe='~')}"
    written: dict[str, Any] = _SERIALIZER.serialize_to_request(
        {
            "Bucket": source.bucket,
            "Key": target,
            "CopySource": where,
            "CopySourceIfMatch": quoted_etag(source.remote.etag),
            "MetadataDirective": "REPLACE",
            "TaggingDirective": "COPY",
            **{name: value for name, value in params.items() if name not in _SAID_ELSEWHERE},
        },
        model,
    )
    headers = [(name, str(value)) for name, value in written["headers"].items()]
    if "Expires" in params:
        headers.append(("Expires", str(params["Expires"])))
    return Request("PUT", target, headers=tuple(headers))


def etag_of(answer: Answer) -> str | None:
    """The ETag in a CopyObjectResult; None if the answer is none."""
    root = document(answer.body)
    if root is None:
        return None
    return next((child.text for child in root if child.tag.rpartition("}")[2] == "ETag"), None)


def is_not_implemented(error: RepositoryError) -> bool:
    """The store does not know something in the request (501)."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and (code_of(cause) == "NotImplemented" or status_of(cause) == 501)


def is_upload_gone(error: RepositoryError) -> bool:
    """Not the source is missing, but what its parts were copied to."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and code_of(cause) == "NoSuchUpload"


def start(client: S3Client, source: Source, target: str, params: dict[str, Any], payer: dict[str, Any]) -> str:
    """Begin a copy in parts with the source's tags, which only CopyObject takes along by itself."""
    where: dict[str, Any] = {"Bucket": source.bucket, "Key": source.key, **payer}
    if source.remote.version_id is not None:
        where["VersionId"] = source.remote.version_id
    tagging: dict[str, Any] = {}
    try:
        tagging = tagging_of(client.get_object_tagging(**where))
    except ClientError as error:
        if status_of(error) != 501:  # a store without tags has none to lose
            raise
    with contextlib.suppress(ValueError):  # botocore takes nothing but a time
        tagging["Expires"] = parsedate_to_datetime(params.get("Expires", ""))
    params = {name: value for name, value in params.items() if name != "Expires"}
    return said(client.create_multipart_upload(Bucket=source.bucket, Key=target, **params, **tagging), "UploadId")


def copy_part(
    client: S3Client, source: Source, target: str, upload_id: str, part: Part, payer: dict[str, Any]
) -> UploadedPart:
    """Let the store copy one part."""
    answer = client.upload_part_copy(
        Bucket=source.bucket,
        Key=target,
        UploadId=upload_id,
        PartNumber=part.number,
        CopySourceRange=f"bytes={part.offset}-{part.offset + part.length - 1}",
        **source.params,
        **payer,
    )
    return UploadedPart(part.number, etag_in(answer, "CopyPartResult", "ETag"))
