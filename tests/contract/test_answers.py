"""Answers of stores as values and errors: what no server on this machine says, hand-made."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore import exceptions as boto
from botocore import handlers
from support.hostile_server import Exchange, HostileServer

from fsxsync import errors
from fsxsync.errors import RepositoryError
from fsxsync.model.identity import Kind, Posix
from fsxsync.ports import Answer
from fsxsync.repository import listing as listings
from fsxsync.repository.answers import described_again, remote_of, written
from fsxsync.repository.heads import head_document
from fsxsync.repository.listing import fetch_page, parse_page, read_fast
from fsxsync.repository.translate import one_line, translate

# ---------------------------------------------------------------- errors


def refused(code: str, status: int, message: str = "") -> boto.ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(answer, "PutObject")


@pytest.mark.parametrize(
    ("code", "status", "wanted"),
    [
        ("AccessDenied", 403, errors.AccessDenied),
        ("403", 403, errors.AccessDenied),
        ("InvalidAccessKeyId", 403, errors.BadCredentials),
        ("SignatureDoesNotMatch", 403, errors.BadCredentials),
        ("ExpiredToken", 400, errors.BadCredentials),
        ("RequestTimeTooSkewed", 403, errors.BadCredentials),
        ("NoSuchBucket", 404, errors.BucketMissing),
        ("PermanentRedirect", 301, errors.BucketMissing),
        ("NoSuchKey", 404, errors.ObjectMissing),
        ("404", 404, errors.ObjectMissing),
        ("PreconditionFailed", 412, errors.ObjectChanged),
        ("412", 412, errors.ObjectChanged),
        ("ConditionalRequestConflict", 409, errors.ObjectChanged),
        ("InvalidRange", 416, errors.ObjectChanged),
        ("InvalidObjectState", 403, errors.ObjectArchived),
        ("SlowDown", 503, errors.Throttled),
        ("InternalError", 500, errors.Throttled),
        ("OperationAborted", 409, errors.Throttled),
        ("BadDigest", 400, errors.Throttled),
        ("ObjectParentIsFile", 409, errors.TypeClash),
        ("KeyTooLongError", 400, errors.KeyRefused),
        ("XMinioInvalidObjectName", 400, errors.KeyRefused),
        ("EntityTooLarge", 400, errors.ObjectTooLarge),
        ("SomethingNew", 400, errors.KeyRefused),
        ("SomethingNew", 418, errors.RepositoryError),
    ],
)
def test_every_refusal_has_a_class(code: str, status: int, wanted: type[Exception]) -> None:
    assert type(translate(refused(code, status), "upload to s3://b/k")) is wanted


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (boto.NoCredentialsError(), errors.BadCredentials),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), errors.BadCredentials),
        (boto.ProfileNotFound(profile="x"), errors.BadCredentials),
        (boto.CredentialRetrievalError(provider="x", error_msg="y"), errors.BadCredentials),
        (boto.EndpointConnectionError(endpoint_url="http://x"), errors.EndpointUnreachable),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), errors.EndpointUnreachable),
        (boto.ReadTimeoutError(endpoint_url="http://x"), errors.EndpointUnreachable),
        (boto.ConnectionClosedError(endpoint_url="http://x"), errors.EndpointUnreachable),
        (boto.SSLError(endpoint_url="http://x", error="y"), errors.EndpointUnreachable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), errors.EndpointUnreachable),
        (boto.ParamValidationError(report="bad key"), errors.KeyRefused),
        (boto.InvalidRegionError(region_name="x y"), errors.BadInput),
    ],
)
def test_what_goes_wrong_earlier_has_a_class(error: boto.BotoCoreError, wanted: type) -> None:
    assert type(translate(error, "listing of s3://b")) is wanted


def test_a_message_is_one_line_that_says_what_why_and_what_to_do() -> None:
    error = translate(refused("AccessDenied", 403, "Access Denied."), "upload of s3://b/a\nb\x1b[2J")

    assert str(error) == (
        "upload of s3://b/a\\nb\\x1b[2J: AccessDenied (403), Access Denied; grant s3:ListBucket on the "
        "bucket and s3:GetObject, s3:PutObject, s3:DeleteObject on the prefix"
    )


def test_an_answer_without_a_body_is_told_by_its_status() -> None:
    assert str(translate(refused("404", 404, "Not Found"), "HEAD of s3://b/k")) == (
        "HEAD of s3://b/k: 404 from the store"
    )


def test_printable_text_stays_as_it_is() -> None:
    assert one_line("a ü€😀") == "a ü€😀"
    assert one_line("\u202e\u2028\0\ud800") == "\\u202e\\u2028\\x00\\ud800"


# ---------------------------------------------------------------- HEAD

HEAD: dict[str, Any] = {
    "ETag": '"e1"',
    "ContentLength": 3,
    "LastModified": datetime(2026, 11, 24, 10, tzinfo=UTC),
    "ContentType": "text/plain",
    "Metadata": {"file-permissions": "0100600"},
}
MULTIPART = '"d41d8cd98f00b204e9800998ecf8427e-2"'


@pytest.mark.parametrize(
    ("said", "archived"),
    [
        ({}, False),
        ({"StorageClass": "STANDARD_IA"}, False),
        ({"StorageClass": "GLACIER_IR"}, False),
        ({"StorageClass": "GLACIER"}, True),
        ({"StorageClass": "DEEP_ARCHIVE", "Restore": 'ongoing-request="true"'}, True),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="x"'}, False),
        ({"StorageClass": "INTELLIGENT_TIERING"}, False),
        ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"}, True),
    ],
)
def test_archived_means_that_a_get_would_be_refused(said: dict[str, Any], archived: bool) -> None:
    assert remote_of(HEAD | said, "f").archived is archived


CRC = base64.b64encode((5).to_bytes(8, "big")).decode()


@pytest.mark.parametrize(
    ("said", "crc"),
    [
        ({}, None),
        ({"ChecksumCRC64NVME": CRC}, 5),
        ({"ChecksumCRC64NVME": CRC, "ChecksumType": "FULL_OBJECT", "ETag": MULTIPART}, 5),
        ({"ChecksumCRC64NVME": CRC, "ChecksumType": "COMPOSITE"}, None),
        ({"ChecksumCRC64NVME": CRC, "ETag": MULTIPART}, None),
        ({"ChecksumCRC64NVME": CRC + "-2"}, None),
        ({"ChecksumCRC64NVME": "AAAA"}, None),
        ({"ChecksumCRC64NVME": "nonsense!"}, None),
    ],
)
def test_only_a_checksum_of_the_whole_object_counts(said: dict[str, Any], crc: int | None) -> None:
    assert remote_of(HEAD | said, "f").crc64nvme == crc


@pytest.mark.parametrize("missing", ["ContentLength", "LastModified"])
def test_an_answer_that_says_too_little_is_refused(missing: str) -> None:
    with pytest.raises(RepositoryError, match="is the endpoint right"):
        remote_of({name: value for name, value in HEAD.items() if name != missing}, "f")


def answer(**headers: str) -> Answer:
    return Answer(200, tuple((name.replace("_", "-"), value) for name, value in headers.items()), b"")


def test_headers_are_read_as_boto3_reads_them() -> None:
    document = head_document(
        answer(
            etag='"e1"',
            content_length="3",
            last_modified="Tue, 24 Nov 2026 10:00:00 GMT",
            content_type="text/plain",
            expires="0",
            x_amz_meta_file_permissions="0100600",
            x_amz_meta_project="x",
            x_amz_checksum_crc64nvme=CRC,
            x_amz_checksum_type="FULL_OBJECT",
            x_amz_version_id="v1",
            x_something_new="y",
        )
    )

    metadata = {"file-permissions": "0100600", "project": "x"}
    crc = {"ChecksumCRC64NVME": CRC, "ChecksumType": "FULL_OBJECT"}
    assert document == HEAD | crc | {"Metadata": metadata, "VersionId": "v1", "Expires": "0"}


def test_a_time_without_a_zone_is_utc() -> None:
    document = head_document(answer(last_modified="Tue, 24 Nov 2026 10:00:00 -0000"))

    assert document["LastModified"] == HEAD["LastModified"]


@pytest.mark.parametrize("said", [{"content_length": "three"}, {"content_length": ""}, {"last_modified": "yesterday"}])
def test_headers_without_sense_are_refused(said: dict[str, str]) -> None:
    with pytest.raises(RepositoryError, match="no sense"):
        head_document(answer(**said))


def test_the_null_version_is_no_version() -> None:
    assert remote_of(HEAD | {"VersionId": "null"}, "f").version_id is None
    assert remote_of(HEAD | {"VersionId": "v1"}, "f").version_id == "v1"


def test_the_date_of_an_answer_is_the_stores_own() -> None:
    headers = {"date": "Tue, 24 Nov 2026 10:00:00 GMT"}
    answer = {"ETag": '"e1"', "VersionId": "null", "ResponseMetadata": {"HTTPHeaders": headers}}

    assert written(answer).date_ns == 1795514400 * 10**9
    assert (written(answer).etag, written(answer).version_id) == ("e1", None)
    assert written({"ETag": '"e1"', "ResponseMetadata": {"HTTPHeaders": {"date": "soon"}}}).date_ns > 10**18


def test_a_copy_is_told_everything_again_that_s3_would_forget() -> None:
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    kept = {
        "CacheControl": "no-store",
        "ContentDisposition": "attachment",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/plain",
        "Expires": expires,
        "WebsiteRedirectLocation": "/x",
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "key",
    }
    head = HEAD | kept | {"Metadata": {"File-Owner": "1", "project": "x", "name": "\xc3\xbc"}}

    params = described_again(head, Kind.FILE, Posix(0o644), encryption=True)

    assert params == kept | {
        "Metadata": {
            "project": "x",
            "name": "=?utf-8?b?w7w=?=",
            "file-permissions": "0100644",
            "user-agent": "aws-fsx-lustre",
        }
    }
    without = described_again(head, Kind.FILE, Posix(), encryption=False)
    assert not {"ServerSideEncryption", "SSEKMSKeyId"} & without.keys()


# ---------------------------------------------------------------- listings

ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-24T10:00:00.123Z</LastModified><ETag>&quot;e&quot;</ETag>"
    "<Size>3</Size><Owner><ID>x</ID><DisplayName>Key</DisplayName></Owner>"
    "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents>"
)


def listing(*keys: str, top: str = "<EncodingType>url</EncodingType>") -> bytes:
    entries = "".join(ENTRY.format(key=key) for key in keys)
    return f'<?xml version="1.0"?><ListBucketResult xmlns="x">{top}{entries}</ListBucketResult>'.encode()


def test_a_page_is_read() -> None:
    page = parse_page(
        listing(
            "a%0Ab+c%2Bd%C3%BC",
            top="<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            "<EncodingType>url</EncodingType><Name>b</Name><Prefix>p</Prefix><KeyCount>1</KeyCount>",
        )
    )

    (listed,) = page.entries
    assert (page.is_truncated, page.token) == (True, "t")
    assert (listed.key, listed.etag, listed.size) == ("a\nb c+dü", "e", 3)
    # ".123Z" is left out: a HEAD tells whole seconds, and what it told would differ from the listing for ever.
    assert (listed.last_modified_ns, listed.storage_class) == (1795514400000000000, "STANDARD")


def test_keys_are_decoded_only_where_the_store_encoded_them() -> None:
    assert parse_page(listing("a+b%20", top="")).entries[0].key == "a+b%20"


def test_the_last_page_is_the_last() -> None:
    page = parse_page(listing(top="<IsTruncated>false</IsTruncated>"))

    assert (page.entries, page.is_truncated, page.token) == ([], False, None)


@pytest.mark.parametrize(
    ("body", "is_alike"),
    [
        (listing("a", "b%20c", "d&quot;"), True),
        (listing("a", "b").replace(b"><", b">\n  <"), True),
        (listing("a", "b", top="<Contents2/><IsTruncated>true</IsTruncated>"), True),
        (listing("a", "b").replace(b"<Size>3</Size>", b"<StorageClass>X</StorageClass><Size>3</Size>"), True),
        (listing("a", "b").replace(b"<ETag>&quot;e&quot;</ETag>", b""), True),
        (listing("\u00fc").replace(b"?>", b" encoding='UTF-8'?>", 1), True),
        (listing("a", "b").replace(b"<Size>3</Size>", b"<StorageClass>X</StorageClass><Size>3</Size>", 1), False),
        (listing("a", "b").replace(b"<ETag>&quot;e&quot;</ETag>", b"<ETag/>", 1), False),
        (listing("a", "b").replace(b"<Owner>", b"<Size>7</Size><Owner>"), False),
        (listing("a", "<![CDATA[<b>]]>"), False),
        (listing("a&amp;b"), False),
        (listing("a", "b").replace(b"<Size>", b"<Size unit='B'>"), False),
        (listing("a", "b").replace(b"</Contents>", b"</Contents><!-- <Contents> -->"), False),
        (
            listing("a", "b")
            .replace(b"<Contents>", b"<More><Contents>")
            .replace(b"</Contents>", b"</Contents></More>"),
            False,
        ),
        (listing("\u00fc").decode().replace("?>", " encoding='latin-1'?>", 1).encode("latin-1"), False),
        (listing("a").decode().encode("utf-16"), False),
        (listing("a\rb"), False),
        (listing(), False),
    ],
)
def test_a_page_whose_entries_are_written_alike_is_read_as_any_other(
    body: bytes, is_alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (listings._read_alike(body) is not None) is is_alike
    quick = parse_page(body)

    monkeypatch.setattr(listings, "_read_alike", lambda _: None)

    slow = parse_page(body)
    assert (quick.entries, quick.token, quick.is_truncated) == (slow.entries, slow.token, slow.is_truncated)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html/>",
        b"<Error><Code>x</Code></Error>",
        listing("a")[:-5],
        listing("%ff"),
        listing("a").replace(b"<Size>3", b"<Size>three"),
        listing("a").replace(b"<Key>a</Key>", b""),
        listing("a").replace(b"2026-11-24T10", b"yesterday"),
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult/>',
    ],
)
def test_what_is_no_listing_is_refused_whole(body: bytes) -> None:
    with pytest.raises(RepositoryError):
        parse_page(body)


# ---------------------------------------------------------------- listings over the wire

LISTING = (
    b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>k</Key><Size>1</Size>"
    b"<ETag>e</ETag><LastModified>2026-11-24T10:00:00Z</LastModified></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    "first", [LISTING[:150], b"<Error><Code>InternalError</Code><Message>again</Message></Error>"], ids=["cut", "error"]
)
def test_a_listing_is_read_once_and_one_that_is_none_asked_for_again(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that begins its 200 before it knows how that ends. botocore finds that out by parsing all answers; a
    whole listing is parsed here, and not twice."""
    answers = [first, LISTING]
    looked_into: list[int] = []
    find_error = handlers._looks_like_special_case_error

    def behave(exchange: Exchange) -> None:
        body = answers.pop(0)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def noted(status: int, body: bytes) -> bool:
        looked_into.append(len(body))
        found: bool = find_error(status, body)
        return found

    monkeypatch.setattr(handlers, "_looks_like_special_case_error", noted)
    with HostileServer(behave) as server:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        client = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **keys)  # type: ignore[call-overload]
        read_fast(client)
        page = fetch_page(client, Bucket="bucket")

    assert [entry.key for entry in page.entries] == ["k"]
    assert not answers
    assert looked_into[0] == len(first)
    assert all(size < 50 for size in looked_into[1:])
