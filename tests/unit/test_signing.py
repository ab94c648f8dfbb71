"""Signed requests are what boto3 would send, and their signatures are botocore's own."""

from __future__ import annotations

import configparser
import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore import auth as botocore_auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse, HTTPHeaders
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.errors import BadCredentials, KeyRefused, RepositoryError
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders, SignedRequest
from fsxsync.repository import copying, requests
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.requests import Pairs, Request
from fsxsync.repository.session import Connection, s3_client
from fsxsync.repository.signing import Signer

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105 - of AWS's own examples
NOW = datetime(2026, 2, 28, 23, 59, 58, 123456, tzinfo=UTC)
LOCAL = Access(endpoint_url="http://127.0.0.1:9000", region="eu-west-3")
SECURE = Access(endpoint_url="https://store.example:9443/s3", region="eu-west-3")
FILE = ObjectHeaders(Posix(0o640, 1000, 100, 1_600_000_000_123_456_789, 7), Kind.FILE, "text/plain; charset=utf-8")
ODD_KEYS = [
    "a",
    "a b",
    "a+b",
    "100%",
    "%2F",
    "ü/é/名",
    "x//y",
    "a/./b",
    "q?a=b&c#d",
    "~-_.!*'()",
    "\x01\n",
    "end/",
    "@:;=,$",
]

CHARS = st.characters(exclude_categories=["Cs"])
KEYS = st.text(CHARS, min_size=1, max_size=40) | st.sampled_from(ODD_KEYS)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30).map(str.strip)
HEADERS = st.dictionaries(
    st.sampled_from(["Range", "If-Match", "Content-Type", "x-amz-meta-A", "x-amz-meta-file-mtime", "User-Agent"]),
    VALUES,
)
QUERIES = st.dictionaries(st.text(CHARS, min_size=1, max_size=8), st.text(CHARS, max_size=20), max_size=4)


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as env:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            env.delenv(name)
        env.setenv("AWS_ACCESS_KEY_ID", "AKID")
        env.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        env.setenv("AWS_CONFIG_FILE", os.devnull)
        env.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        env.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def clients(credentials: None) -> Iterator[Callable[[Access], Connection[Any]]]:
    """Connections, one for all that goes one way: a client takes 60 ms and more."""
    made: dict[Access, Connection[Any]] = {}

    def connection(access: Access) -> Connection[Any]:
        access = Access(access.endpoint_url, access.region, access.profile, access.anonymous)
        return made.setdefault(access, Connection(lambda: s3_client(access)))

    yield connection
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def make_signer(clients: Callable[[Access], Connection[Any]]) -> Callable[..., Signer]:
    def make(access: Access = LOCAL, bucket: str = "bucket") -> Signer:
        return Signer(bucket, access, clients(access), clock=NOW.timestamp)

    return make


def lower(pairs: Pairs) -> dict[str, str]:
    found = {name.lower(): value for name, value in pairs}
    assert len(found) == len(pairs)
    return found


def signed_by_botocore(
    signed: SignedRequest, given_headers: Pairs, body: bytes | None, token: str | None
) -> AWSRequest:
    request = AWSRequest(signed.method, signed.url, headers=dict(given_headers), data=body or b"")
    unsigned_body = lower(signed.headers)["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    request.context["client_config"] = Config(s3={"payload_signing_enabled": not unsigned_body})
    with patch.object(botocore_auth, "get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        botocore_auth.S3SigV4Auth(ReadOnlyCredentials("AKID", SECRET, token), "s3", "eu-west-3").add_auth(request)
    return request


# ---------------------------------------------------------------- the signature


@pytest.mark.parametrize("access", [LOCAL, SECURE], ids=["http", "https"])
@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"]),
    key=KEYS,
    query=QUERIES,
    headers=HEADERS,
    body=st.none() | st.binary(max_size=20),
    hashed=st.booleans(),
    token=st.none() | st.just("FwoGZXIvYXdzE/+=="),
)
def test_a_signature_is_botocores_own(
    make_signer: Callable[..., Signer],
    access: Access,
    method: str,
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes | None,
    hashed: bool,
    token: str | None,
) -> None:
    request = Request(method, key, tuple(query.items()), tuple(headers.items()), has_body=body is not None)
    sha256 = hashlib.sha256(body).hexdigest() if body is not None and hashed else None
    with pytest.MonkeyPatch.context() as env:
        if token is not None:
            env.setenv("AWS_SESSION_TOKEN", token)

        signed = make_signer(access).sign(request, body_sha256=sha256)

    expected = signed_by_botocore(signed, request.headers, body, token)
    found = lower(signed.headers)
    assert found.pop("host") == ("127.0.0.1:9000" if access is LOCAL else "store.example:9443")
    assert found == {name.lower(): value for name, value in expected.headers.items()}


def test_a_body_of_unknown_hash_is_left_out_of_the_signature(make_signer: Callable[..., Signer]) -> None:
    signer = make_signer()
    put = requests.put("k", FILE, LOCAL)

    assert lower(signer.sign(put).headers)["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert lower(signer.sign(put, body_sha256="ab" * 32).headers)["x-amz-content-sha256"] == "ab" * 32
    assert lower(signer.sign(requests.head("k")).headers)["x-amz-content-sha256"] == hashlib.sha256().hexdigest()


def test_each_second_and_each_pair_of_keys_signs_for_itself(
    clients: Callable[[Access], Connection[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = NOW.timestamp()
    signer = Signer("bucket", LOCAL, clients(LOCAL), clock=lambda: now)
    request = requests.head("k")
    dates, keys = set(), set()
    for key in ("AKID", "OTHER"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        signer.renew()
        for _ in range(3):
            headers = dict(signer.sign(request).headers)
            dates.add(headers["X-Amz-Date"])
            keys.add(headers["Authorization"].split("=")[1].split("/")[0])
            now += 0.4

    assert dates == {"20260228T235958Z", "20260228T235959Z", "20260301T000000Z"}
    assert keys == {"AKID", "OTHER"}


def test_a_signed_request_prints_no_signature(make_signer: Callable[..., Signer]) -> None:
    signed = make_signer().sign(requests.head("k"))

    assert "Signature=" in dict(signed.headers)["Authorization"]
    assert "Signature" not in f"{signed} {signed!r} {[signed]}"


@pytest.mark.parametrize("etag", ["a\r\nx-amz-acl: public-read", "a\nb", "\x00", "é"])
def test_an_etag_begins_no_header_of_its_own(make_signer: Callable[..., Signer], etag: str) -> None:
    with pytest.raises(KeyRefused, match="If-Match"):
        make_signer().sign(requests.delete("k", if_match=etag))


# ---------------------------------------------------------------- what boto3 would send

REMOTE = Remote(Kind.FILE, "ab" * 16, 5, 0)
PLACING = [
    LOCAL,
    SECURE,
    replace(LOCAL, requester_pays=True, acl="bucket-owner-full-control"),
    replace(LOCAL, storage_class="STANDARD_IA", sse="AES256"),
    replace(LOCAL, sse="aws:kms"),
    replace(SECURE, sse="aws:kms:arn:aws:kms:eu-west-3:1234:key/5678", storage_class="GLACIER_IR"),
]
NOT_OURS = {
    "authorization",
    "host",
    "x-amz-date",
    "x-amz-content-sha256",
    "user-agent",
    "content-length",
    "expect",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "accept-encoding",
}
"""The signature's own headers, the connection's, and boto3's talk of itself."""


class _CaughtError(Exception):
    pass


def sent_by_boto3(connection: Connection[Any], ask: Callable[[Any], object]) -> tuple[str, str, dict[str, str]]:
    caught: list[AWSPreparedRequest] = []

    def catch(request: AWSPreparedRequest, **_unused: object) -> None:
        caught.append(request)
        raise _CaughtError

    with connection.ask("") as client:
        client.meta.events.register_first("before-send.s3", catch)
        try:
            with pytest.raises(_CaughtError):
                ask(client)
        finally:
            client.meta.events.unregister("before-send.s3", catch)
    [request] = caught
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    return request.method, request.url, {name: value for name, value in headers.items() if name not in NOT_OURS}


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


CRC = replace(FILE, crc64nvme=0x0123456789ABCDEF)
LINK = ObjectHeaders(Posix(), Kind.SYMLINK)
WHERE = {"Bucket": "bucket", "Key": "dir/a file"}
EXPECT_MD5 = f'"{REMOTE.etag}"'


def described(headers: ObjectHeaders, access: Access) -> dict[str, Any]:
    """What boto3 has to be told of an object, and of the association's wishes."""
    told = {"Metadata": to_user_metadata(headers.kind, headers.posix), "ContentType": headers.content_type}
    return told | Bookkeeping("bucket", access).placing(headers.kind)


def payer(access: Access) -> dict[str, Any]:
    return {"RequestPayer": "requester"} if access.requester_pays else {}


Ask = Callable[[Any, Access], object]
SAME: dict[str, tuple[Ask, Callable[[Access, str], Request]]] = {
    "get a range": (
        lambda s3, access: s3.get_object(**WHERE, **payer(access), Range="bytes=5-14", IfMatch='"ab"'),
        lambda _, key: requests.get_range(key, 5, 10, etag="ab", version_id=None),
    ),
    "get a range of a version": (
        lambda s3, access: s3.get_object(
            **WHERE, **payer(access), Range="bytes=0-0", IfMatch='"ab-2"', VersionId="v+/=1"
        ),
        lambda _, key: requests.get_range(key, 0, 1, etag="ab-2", version_id="v+/=1"),
    ),
    "get the whole": (
        lambda s3, access: s3.get_object(**WHERE, **payer(access), ChecksumMode="ENABLED", IfMatch='"ab"'),
        lambda _, key: requests.get(key, etag="ab"),
    ),
    "get the whole of a version": (
        lambda s3, access: s3.get_object(**WHERE, **payer(access), ChecksumMode="ENABLED", VersionId="v1"),
        lambda _, key: requests.get(key, etag=None, version_id="v1"),
    ),
    "head": (
        lambda s3, access: s3.head_object(**WHERE, **payer(access), ChecksumMode="ENABLED"),
        lambda _, key: requests.head(key),
    ),
    "put a new one": (
        lambda s3, access: s3.put_object(
            **WHERE,
            **described(CRC, access),
            Body=b"hello",
            ChecksumAlgorithm="CRC64NVME",
            ChecksumCRC64NVME="ASNFZ4mrze8=",
            IfNoneMatch="*",
        ),
        lambda access, key: requests.put(key, CRC, access, if_none=True),
    ),
    "put over one": (
        lambda s3, access: s3.put_object(**WHERE, **described(FILE, access), Body=b"hello", IfMatch=EXPECT_MD5),
        lambda access, key: requests.put(key, FILE, access, if_match=REMOTE.etag),
    ),
    "put a link": (
        lambda s3, access: s3.put_object(**WHERE, **described(LINK, access), Body=b"to", IfNoneMatch="*"),
        lambda access, key: requests.put(key, LINK, access, if_none=True),
    ),
    "part": (
        lambda s3, access: s3.upload_part(**WHERE, **payer(access), UploadId="up+/=~ 1", PartNumber=17, Body=b"hello"),
        lambda _, key: requests.upload_part(key, "up+/=~ 1", 17),
    ),
    "part with its checksum": (
        lambda s3, access: s3.upload_part(
            **WHERE,
            **payer(access),
            UploadId="u",
            PartNumber=1,
            Body=b"hello",
            ChecksumAlgorithm="CRC64NVME",
            ChecksumCRC64NVME="ASNFZ4mrze8=",
        ),
        lambda _, key: requests.upload_part(key, "u", 1, crc64nvme=0x0123456789ABCDEF),
    ),
    "delete": (
        lambda s3, access: s3.delete_object(**WHERE, **payer(access), IfMatch=EXPECT_MD5),
        lambda _, key: requests.delete(key, if_match=REMOTE.etag),
    ),
}


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("access", PLACING, ids=range(len(PLACING)))
def test_a_request_is_what_boto3_would_send(
    make_signer: Callable[..., Signer], clients: Callable[[Access], Connection[Any]], access: Access, case: str
) -> None:
    by_boto3, by_us = SAME[case]

    signed = make_signer(access).sign(by_us(access, "dir/a file"))

    assert_same(signed, *sent_by_boto3(clients(access), lambda s3: by_boto3(s3, access)))


def assert_same(signed: SignedRequest, method: str, url: str, headers: dict[str, str]) -> None:
    ours = {name: value for name, value in lower(signed.headers).items() if name not in NOT_OURS}
    assert (signed.method, parts(signed.url)) == (method, parts(url))
    assert ours == headers


@pytest.mark.parametrize("access", PLACING, ids=range(len(PLACING)))
@pytest.mark.parametrize("version_id", [None, "v1.-_~"])
@pytest.mark.parametrize("bucket", ["bucket", "arn:aws:s3:eu-west-3:123456789012:accesspoint/ap"])
@pytest.mark.parametrize("source", ODD_KEYS)
def test_a_copy_is_what_boto3_would_send(
    make_signer: Callable[..., Signer],
    clients: Callable[[Access], Connection[Any]],
    access: Access,
    version_id: str | None,
    bucket: str,
    source: str,
) -> None:
    if bucket != "bucket":  # no access points behind other endpoints
        access = replace(access, endpoint_url=None)
    copied = copying.Source(bucket, source, REMOTE._replace(version_id=version_id))
    told = described(FILE, access) | {"IfMatch": '"old"', "CacheControl": "no-store", "StorageClass": "STANDARD_IA"}
    with clients(access).ask("") as client:
        model = client.meta.service_model.operation_model("CopyObject")

    signed = make_signer(access, bucket).sign(copying.request(model, copied, "dir/a file", told))

    how = {"MetadataDirective": "REPLACE", "TaggingDirective": "COPY"}
    asked = {"Bucket": bucket, "Key": "dir/a file", **copied.params, **told, **how}
    assert_same(signed, *sent_by_boto3(clients(access), lambda s3: s3.copy_object(**asked)))


def test_one_copy_request_takes_as_much_as_s3_lets_it() -> None:
    """A CopyObject is refused above 5 GiB (S3 API reference): more than that would fail, and less would cost the
    requests and the multipart ETag of a copy in parts where one request does it."""
    assert copying.COPY_MAX == 5 << 30


@pytest.mark.parametrize("expires", ["Tue, 01 Jan 2030 00:00:00 GMT", "0", "-1", "never"])
def test_a_copy_keeps_what_is_said_of_the_end_as_it_was_said(
    clients: Callable[[Access], Connection[Any]], expires: str
) -> None:
    with clients(LOCAL).ask("") as client:
        model = client.meta.service_model.operation_model("CopyObject")

    request = copying.request(model, copying.Source("bucket", "k", REMOTE), "k", {"Expires": expires})

    assert dict(request.headers)["Expires"] == expires


def parts(url: str) -> tuple[str, list[str]]:
    """A query is the same in any order."""
    path, _, query = url.partition("?")
    return path, sorted(query.split("&"))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_is_spelled_as_boto3_spells_it(
    make_signer: Callable[..., Signer], clients: Callable[[Access], Connection[Any]], key: str
) -> None:
    _, url, _ = sent_by_boto3(clients(LOCAL), lambda s3: s3.head_object(Bucket="bucket", Key=key))

    assert make_signer().sign(requests.head(key)).url == url


# ---------------------------------------------------------------- where it goes

PLACES = [
    (Access(), "bucket", "https://bucket.s3.amazonaws.com/k", "us-east-1"),
    (Access(region="eu-west-3"), "bucket", "https://bucket.s3.eu-west-3.amazonaws.com/k", "eu-west-3"),
    (Access(region="eu-west-3"), "with.dots", "https://s3.eu-west-3.amazonaws.com/with.dots/k", "eu-west-3"),
    (Access(region="cn-north-1"), "bucket", "https://bucket.s3.cn-north-1.amazonaws.com.cn/k", "cn-north-1"),
    (LOCAL, "with.dots", "http://127.0.0.1:9000/with.dots/k", "eu-west-3"),
    (SECURE, "bucket", "https://store.example:9443/s3/bucket/k", "eu-west-3"),
    (Access(endpoint_url="http://STORE:80/"), "bucket", "http://store/bucket/k", "us-east-1"),
    (Access(endpoint_url="http://[::1]:9000"), "bucket", "http://[::1]:9000/bucket/k", "us-east-1"),
    (
        Access(region="eu-west-3"),
        "arn:aws:s3:us-west-2:123456789012:accesspoint/ap",
        "https://ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com/k",
        "us-west-2",
    ),
]


@pytest.mark.parametrize(("access", "bucket", "url", "region"), PLACES)
def test_a_request_goes_where_botocore_would_send_it(
    make_signer: Callable[..., Signer], access: Access, bucket: str, url: str, region: str
) -> None:
    signed = make_signer(access, bucket).sign(requests.head("k"))

    assert signed.url == url
    assert dict(signed.headers)["Host"] == url.split("/")[2]
    assert f"/20260228/{region}/s3/aws4_request" in dict(signed.headers)["Authorization"]


def test_the_endpoint_and_region_of_a_profile_count(
    make_signer: Callable[..., Signer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[profile there]\nregion = ap-south-1\ns3 =\n  use_dualstack_endpoint = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    place = make_signer(Access(profile="there")).place()

    assert (place.host, place.region) == ("bucket.s3.dualstack.ap-south-1.amazonaws.com", "ap-south-1")


def test_the_region_that_a_redirect_named_counts_once_the_place_is_forgotten() -> None:
    access = Access(region="us-west-1")
    connection = Connection(lambda: s3_client(access))
    signer = Signer("bucket", access, connection)
    assert signer.place().region == "us-west-1"

    def elsewhere(request: AWSPreparedRequest, **_unused: object) -> AWSResponse:
        found = ".eu-west-3." in request.url
        headers = HTTPHeaders.from_pairs([("x-amz-bucket-region", "eu-west-3"), ("ETag", '"ab"')])
        return AWSResponse(request.url, 200 if found else 301, headers, _NoBody())

    with connection.ask("") as client:
        client.meta.events.register_first("before-send.s3", elsewhere)
        client.head_object(Bucket="bucket", Key="k")
    signer.forget()

    place = signer.place()
    assert (place.host, place.region) == ("bucket.s3.eu-west-3.amazonaws.com", "eu-west-3")
    connection.close()


class _NoBody:
    def stream(self) -> Iterator[bytes]:
        return iter(())


def test_a_bucket_with_signatures_of_its_own_kind_is_refused(make_signer: Callable[..., Signer]) -> None:
    with pytest.raises(RepositoryError, match="another kind of signature"):
        make_signer(Access(), "b--use1-az4--x-s3").sign(requests.head("k"))


def test_asking_for_the_place_leaves_the_client_as_it_was(
    make_signer: Callable[..., Signer], clients: Callable[[Access], Connection[Any]]
) -> None:
    make_signer().place()

    _, url, _ = sent_by_boto3(clients(LOCAL), lambda s3: s3.head_object(Bucket="bucket", Key="k"))
    assert url == "http://127.0.0.1:9000/bucket/k"


# ---------------------------------------------------------------- who asks, and when


def test_who_is_anonymous_needs_no_credentials_and_signs_nothing(
    make_signer: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    signed = make_signer(replace(LOCAL, anonymous=True)).sign(requests.head("a b"))

    assert signed.url == "http://127.0.0.1:9000/bucket/a%20b"
    assert signed.headers == (("Host", "127.0.0.1:9000"), ("x-amz-checksum-mode", "ENABLED"))


def test_missing_credentials_are_found_once_they_are_there(
    make_signer: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = make_signer()
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(BadCredentials):
            signer.sign(requests.head("k"))

    assert key_id(signer) == "AKID"


def test_credentials_are_found_anew_once_they_were_refused(
    make_signer: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = make_signer()
    signer.sign(requests.head("k"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    assert key_id(signer) == "AKID"

    signer.forget()

    assert key_id(signer) == "OTHER"


def key_id(signer: Signer) -> str:
    authorization = dict(signer.sign(requests.head("k")).headers)["Authorization"]
    return authorization.partition("Credential=")[2].partition("/")[0]


def process_profile(where: Path, *, expires: datetime) -> Path:
    """A profile whose credentials come from a program: another key at each run."""
    program = where / "credentials.py"
    answer = {"Version": 1, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": expires.isoformat()}
    program.write_text(
        "import json, pathlib\n"
        f"counter = pathlib.Path({str(where / 'counter')!r})\n"
        "number = int(counter.read_text()) + 1 if counter.exists() else 1\n"
        "counter.write_text(str(number))\n"
        f"print(json.dumps({answer!r} | {{'AccessKeyId': f'AKID{{number}}'}}))\n"
    )
    config = configparser.ConfigParser()
    config["profile temporary"] = {"credential_process": shlex.join([sys.executable, str(program)])}
    with (where / "config").open("w") as file:
        config.write(file)
    return where / "config"


def test_credentials_are_refreshed_before_they_expire(
    make_signer: Callable[..., Signer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)  # botocore takes new ones ten minutes before
    monkeypatch.setenv("AWS_CONFIG_FILE", str(process_profile(tmp_path, expires=soon)))
    signer = make_signer(replace(LOCAL, profile="temporary"))

    first, second = key_id(signer), key_id(signer)

    assert first.startswith("AKID")
    assert second.startswith("AKID")
    assert int(first[4:]) < int(second[4:])
    assert dict(signer.sign(requests.head("k")).headers)["X-Amz-Security-Token"] == "t"


def test_credentials_that_come_expired_are_said_to_be_bad(
    make_signer: Callable[..., Signer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(process_profile(tmp_path, expires=past)))

    with pytest.raises(BadCredentials, match="expired"):
        make_signer(replace(LOCAL, region="us-west-1", profile="temporary")).sign(requests.head("k"))


def test_the_stores_clock_is_believed_where_ours_is_off(make_signer: Callable[..., Signer]) -> None:
    signer = make_signer()
    there = NOW + timedelta(hours=1)

    assert signer.learn_time(format_datetime(there, usegmt=True))

    assert dict(signer.sign(requests.head("k")).headers)["X-Amz-Date"] == "20260301T005958Z"
    assert not signer.learn_time(format_datetime(there + timedelta(seconds=30), usegmt=True))
    assert signer.learn_time(format_datetime(NOW, usegmt=True))
    assert dict(signer.sign(requests.head("k")).headers)["X-Amz-Date"] == "20260228T235958Z"


@pytest.mark.parametrize("date", ["", "soon", "Sat, 99 Feb 2026 23:59:58 GMT", "Sat, 28 Feb 2026 23:59:58 GMT"])
def test_a_time_that_tells_nothing_new_is_not_learnt(make_signer: Callable[..., Signer], date: str) -> None:
    signer = make_signer()

    assert not signer.learn_time(date)

    assert dict(signer.sign(requests.head("k")).headers)["X-Amz-Date"] == "20260228T235958Z"
