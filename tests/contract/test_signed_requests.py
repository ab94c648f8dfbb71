"""Signed requests over a plain HTTP client, against moto with its checks of signatures switched on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.moto_server import MotoServer

from fsxsync._core import crc64nvme
from fsxsync.model.identity import Kind, Posix
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders, SignedRequest
from fsxsync.repository import requests
from fsxsync.repository.requests import Request
from fsxsync.repository.session import Connection, s3_client
from fsxsync.repository.signing import Signer

BUCKET = "signed"
KEYS = ["a", "dir/a b+c", "100%25/ü~(x)'*!", "a//b", "q?x=y&z#"]
BODY = b"hello"
ETAG = "5d41402abc4b2a76b9719d911017c592"
HEADERS = ObjectHeaders(Posix(0o640, 1000, 100, 1_600_000_000_123_456_789, 7), Kind.FILE, "text/plain", crc64nvme(BODY))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def send(request: SignedRequest, body: bytes | None = None) -> Answer:
    """As it is, plus Content-Length."""
    url = urlsplit(request.url)
    with closing(http.client.HTTPConnection(url.netloc)) as connection:
        target = request.url.removeprefix(f"{url.scheme}://{url.netloc}")
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that lets in one user only, and only with the right signature."""

    moto: MotoServer
    client: Any
    key_id: str
    secret: str


@pytest.fixture(scope="module")
def guarded(environment: None) -> Iterator[Guarded]:
    with MotoServer() as moto:
        with closing(moto.client("iam")) as iam:
            iam.create_user(UserName="user")
            key = iam.create_access_key(UserName="user")["AccessKey"]
            allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
            iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=policy)
        with pytest.MonkeyPatch.context() as env:
            env.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            env.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            client = s3_client(moto.access)
        client.create_bucket(Bucket=BUCKET)
        check_from_now_on = SignedRequest("POST", f"{moto.url}/moto-api/reset-auth", (("Content-Type", "text/plain"),))
        assert send(check_from_now_on, b"0").status == 200
        yield Guarded(moto, client, key["AccessKeyId"], key["SecretAccessKey"])
        client.close()


@pytest.fixture
def signer(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> Signer:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", guarded.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guarded.secret)
    return Signer(BUCKET, guarded.moto.access, Connection(lambda: guarded.client))


@pytest.fixture(params=KEYS)
def key(request: pytest.FixtureRequest, guarded: Guarded) -> Iterator[str]:
    yield request.param
    guarded.client.delete_object(Bucket=BUCKET, Key=request.param)


def test_a_put_arrives_with_all_that_it_says(signer: Signer, guarded: Guarded, key: str) -> None:
    put = requests.put(key, HEADERS, guarded.moto.access, if_none=True)

    assert send(signer.sign(put), BODY).status == 200

    head = guarded.client.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["Metadata"] == to_user_metadata(HEADERS.kind, HEADERS.posix)
    assert (head["ContentType"], head["ETag"], head["ContentLength"]) == ("text/plain", f'"{ETAG}"', 5)
    assert send(signer.sign(put), BODY).status == 412


def test_an_object_is_read_and_deleted_as_the_version_that_was_seen(signer: Signer, guarded: Guarded, key: str) -> None:
    guarded.client.put_object(Bucket=BUCKET, Key=key, Body=BODY)
    wrong = "0" * 32

    part = send(signer.sign(requests.get_range(key, 1, 3, etag=ETAG, version_id=None)))
    assert (part.status, part.body) == (206, b"ell")
    assert send(signer.sign(requests.get_range(key, 1, 3, etag=wrong, version_id=None))).status == 412
    assert send(signer.sign(requests.head(key))).headers["ETag"] == f'"{ETAG}"'
    assert send(signer.sign(requests.delete(key, if_match=wrong))).status == 412
    assert send(signer.sign(requests.delete(key, if_match=ETAG))).status == 204
    assert send(signer.sign(requests.head(key))).status == 404


def test_parts_become_an_object(signer: Signer, guarded: Guarded, key: str) -> None:
    where = {"Bucket": BUCKET, "Key": key}
    where["UploadId"] = guarded.client.create_multipart_upload(**where)["UploadId"]

    etag = send(signer.sign(requests.upload_part(key, where["UploadId"], 1)), BODY).headers["ETag"]

    assert etag == f'"{ETAG}"'
    guarded.client.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert guarded.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == BODY


def test_an_older_version_is_read_by_its_id(signer: Signer, guarded: Guarded) -> None:
    guarded.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    old = guarded.client.put_object(Bucket=BUCKET, Key="versions", Body=BODY)["VersionId"]
    guarded.client.put_object(Bucket=BUCKET, Key="versions", Body=b"newer")

    answer = send(signer.sign(requests.get_range("versions", 0, 5, etag=ETAG, version_id=old)))
    guarded.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})

    assert answer.body == BODY


def test_any_other_request_is_signed_alike(signer: Signer, guarded: Guarded) -> None:
    guarded.client.put_object(Bucket=BUCKET, Key="listed/a b", Body=BODY)

    answer = send(signer.sign(Request("GET", "", query=(("list-type", "2"), ("prefix", "listed/a b")))))

    assert answer.status == 200
    assert b"<Key>listed/a b</Key>" in answer.body


@pytest.mark.parametrize(
    "request_",
    [
        requests.head("k"),
        requests.get_range("k", 0, 1, etag=ETAG, version_id=None),
        requests.upload_part("k", "u", 1),
        requests.delete("k", if_match=None),
    ],
    ids=lambda request: request.method,
)
def test_a_signature_with_another_secret_is_refused(
    signer: Signer, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")

    answer = send(signer.sign(request_), BODY if request_.has_body else None)

    assert answer.status == 403
    assert request_.method == "HEAD" or b"SignatureDoesNotMatch" in answer.body


def test_a_signature_is_good_for_its_own_request_only(signer: Signer, guarded: Guarded) -> None:
    signed = signer.sign(requests.put("mine", HEADERS, guarded.moto.access, if_match=ETAG))
    other_key = SignedRequest(signed.method, signed.url.replace("mine", "yours"), signed.headers)
    other_header = SignedRequest(
        signed.method,
        signed.url,
        tuple((name, '"other"' if name == "If-Match" else value) for name, value in signed.headers),
    )

    assert [send(forged, BODY).status for forged in (other_key, other_header)] == [403, 403]
