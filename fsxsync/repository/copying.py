"""Server-side copies: one request up to 5 GiB, parts above."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from fsxsync.model.identity import Remote
from fsxsync.model.parts import GIB, MIB, Part, plan_parts
from fsxsync.ports import Conditions, UploadedPart, Written
from fsxsync.repository.answers import plain_etag, quoted_etag, tagging_of, written
from fsxsync.repository.translate import code_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COPY_MAX = 5 * GIB
"""S3's limit for CopyObject, and for one part."""
PART = 512 * MIB
_AT_ONCE = 4


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


def copy_at_once(
    client: S3Client,
    source: Source,
    target: str,
    params: dict[str, Any],
    replaces: Remote | None,
    conditions: Conditions,
) -> Written:
    """CopyObject. The caller has looked at the target; AWS looks once more, most other stores don't."""
    request: dict[str, Any] = {
        "Bucket": source.bucket,
        "Key": target,
        **source.params,
        "MetadataDirective": "REPLACE",
        "TaggingDirective": "COPY",
        **params,
    }
    guard: dict[str, Any] = {}
    if replaces is None and conditions.put_if_none_match:
        guard = {"IfNoneMatch": "*"}
    elif replaces is not None and conditions.put_if_match:
        guard = {"IfMatch": quoted_etag(replaces.etag)}
    try:
        answer = client.copy_object(**request, **guard)
    except ClientError as error:
        if not guard or not (code_of(error) == "NotImplemented" or status_of(error) == 501):
            raise
        answer = client.copy_object(**request)
    return written(answer, etag=answer["CopyObjectResult"]["ETag"])


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
    return client.create_multipart_upload(Bucket=source.bucket, Key=target, **params, **tagging)["UploadId"]


def copy_parts(
    client: S3Client, source: Source, target: str, upload_id: str, part_size: int, payer: dict[str, Any]
) -> list[UploadedPart]:
    """Copy all parts, a few at a time."""

    def copy(part: Part) -> UploadedPart:
        answer = client.upload_part_copy(
            Bucket=source.bucket,
            Key=target,
            UploadId=upload_id,
            PartNumber=part.number,
            CopySourceRange=f"bytes={part.offset}-{part.offset + part.length - 1}",
            **source.params,
            **payer,
        )
        return UploadedPart(part.number, plain_etag(answer["CopyPartResult"]["ETag"]))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copy") as pool:
        return list(pool.map(copy, plan_parts(source.remote.size, part_size)))
