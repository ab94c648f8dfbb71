"""How a bucket may be reached, and what its objects are: who pays, ACLs, no credentials, keys, versions, locks."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of, news_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, refusal


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def about_objects(proxy: Proxy, bucket: str) -> list[Request]:
    """Requests that tell of objects or their names; those of the bucket's own settings know no payer."""
    settings = ("versioning", "location", "notification")
    return [
        request
        for request in list(proxy.requests)
        if (request.path != f"/{bucket}" or "list-type" in request.query) and not request.query.startswith(settings)
    ]


def refuses(method: str, key: str, code: str, message: str) -> Callable[[Request], Answer | None]:
    """A store that refuses requests of one object with 403."""

    def rule(request: Request) -> Answer | None:
        return refusal(403, code, message) if request.method == method and request.path.endswith(f"/{key}") else None

    return rule


def test_each_request_of_a_requester_pays_bucket_says_so(fsx: Instance, s3: Any, bucket: str, proxy: Proxy) -> None:
    s3.put_object(Bucket=bucket, Key="there", Body=b"from outside")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--requester-pays")
    fsx.settle()

    assert (fsx.directory / "d/there").read_bytes() == b"from outside"
    (fsx.directory / "d/small").write_bytes(b"1")
    (fsx.directory / "d/large").write_bytes(bytes(9 << 20))
    fsx.settle()
    (fsx.directory / "d/small").rename(fsx.directory / "d/renamed")
    (fsx.directory / "d/there").chmod(0o600)
    fsx.settle()
    (fsx.directory / "d/renamed").unlink()
    fsx.settle()

    asked = about_objects(proxy, bucket)
    assert {"GET", "HEAD", "PUT", "POST", "DELETE"} <= {request.method for request in asked}
    assert [r for r in asked if r.headers.get("x-amz-request-payer") != "requester"] == []


@pytest.mark.parametrize(
    ("sse", "algorithm", "key"),
    [("aws:kms:key-1", "aws:kms", "key-1"), ("AES256", "AES256", None)],
    ids=["SSE-KMS", "SSE-S3"],
)
def test_class_encryption_and_acl_go_with_every_new_object(
    fsx: Instance, s3: Any, bucket: str, proxy: Proxy, sse: str, algorithm: str, key: str | None
) -> None:
    """With one PUT, in parts, and with copies; the class of an object that is there survives a change of its mode."""
    s3.put_object(Bucket=bucket, Key="there", Body=b"1", StorageClass="ONEZONE_IA")
    options = ["--storage-class", "STANDARD_IA", "--sse", sse, "--acl", "bucket-owner-full-control"]
    association = fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, *options).out.strip()
    fsx.settle()
    shown = fsx.ok("association", "show", association, "--json").json
    assert (shown["storage_class"], shown["sse"], shown["acl"]) == (options[1], options[3], options[5])
    proxy.requests.clear()

    (fsx.directory / "d/small").write_bytes(b"1")
    (fsx.directory / "d/large").write_bytes(bytes(9 << 20))
    fsx.settle()
    (fsx.directory / "d/small").rename(fsx.directory / "d/renamed")
    (fsx.directory / "d/there").chmod(0o600)
    fsx.settle()

    made = [
        request
        for request in list(proxy.requests)
        if (request.method == "PUT" and "partNumber" not in request.query)
        or (request.method == "POST" and request.query.startswith("uploads"))
    ]
    assert len(made) == 4
    for request in made:
        assert request.headers["x-amz-acl"] == "bucket-owner-full-control"
        assert request.headers["x-amz-server-side-encryption"] == algorithm
        assert request.headers.get("x-amz-server-side-encryption-aws-kms-key-id") == key
    heads = {name: s3.head_object(Bucket=bucket, Key=name) for name in ("renamed", "large", "there")}
    classes = {name: head["StorageClass"] for name, head in heads.items()}
    assert classes == {"renamed": "STANDARD_IA", "large": "STANDARD_IA", "there": "ONEZONE_IA"}
    assert {head["ServerSideEncryption"] for head in heads.values()} == {algorithm}
    fsx.ok("release", fsx.directory / "d/renamed", fsx.directory / "d/large")
    assert (fsx.directory / "d/renamed").read_bytes() == b"1"
    assert (fsx.directory / "d/large").read_bytes() == bytes(9 << 20)


@pytest.mark.parametrize(
    ("options", "header", "code", "advice"),
    [
        (["--acl", "public-read"], "x-amz-acl", "AccessControlListNotSupported", "without --acl"),
        (["--storage-class", "OUTPOSTS"], "x-amz-storage-class", "InvalidStorageClass", "--storage-class"),
        (["--sse", "aws:kms:gone"], "x-amz-server-side-encryption", "KMS.NotFoundException", "--sse aws:kms:KEY"),
    ],
)
def test_what_the_bucket_does_not_take_is_said_at_associate(
    fsx: Instance, bucket: str, proxy: Proxy, options: list[str], header: str, code: str, advice: str
) -> None:
    """Also where its conditions are known already, from an association without the option."""
    proxy.rule = lambda request: refusal(400, code) if header in request.headers else None
    plain = fsx.ok("associate", f"s3://{bucket}/a/", "/a", "--endpoint-url", proxy.url).out.strip()

    refused = fsx.run("associate", f"s3://{bucket}/b/", "/b", "--endpoint-url", proxy.url, *options)

    assert refused.code == 1
    assert code in refused.err
    assert advice in refused.err
    assert [row["id"] for row in fsx.ok("associations", "--json").json] == [plain]


def test_a_public_bucket_is_read_without_credentials(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """The proxy lets nothing through that is signed; nothing is ever written."""
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_public(bucket)))
    s3.put_object(Bucket=bucket, Key="f", Body=b"for all", ACL="public-read")
    unsigned: list[Request] = []

    def rule(request: Request) -> Answer | None:
        unsigned.append(request)
        return refusal(403, "AccessDenied") if "authorization" in request.headers else None

    with Proxy(moto.url, rule=rule) as proxy:
        refused = fsx.run(
            "associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--anonymous", "--export", "new"
        )
        assert (refused.code, "anonymous" in refused.err) == (2, True)
        association = fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--anonymous")
        fsx.settle()

        assert (fsx.directory / "d/f").read_bytes() == b"for all"
        with pytest.raises(OSError, match="Read-only") as failed:
            (fsx.directory / "d/new").write_bytes(b"1")

        assert failed.value.errno == errno.EROFS
        shown = fsx.ok("association", "show", association.out.strip(), "--json").json
        assert (shown["anonymous"], shown["read_only"], shown["export"]) == (True, True, [])
        assert {request.method for request in unsigned} <= {"GET", "HEAD"}
        update = fsx.run("association", "update", "/d", "--export", "new")
        assert (update.code, "anonymous" in update.err) == (2, True)


def _public(bucket: str) -> dict[str, Any]:
    arns = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": arns}
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_an_object_with_its_customers_key_is_refused_in_words(
    fsx: Instance, s3: Any, bucket: str, proxy: Proxy
) -> None:
    """A HEAD is answered 400 and nothing else; the reason stands in the answer to a GET only."""
    s3.put_object(Bucket=bucket, Key="secret", Body=b"1")
    words = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided"

    def rule(request: Request) -> Answer | None:
        if not request.path.endswith("/secret"):
            return None
        return Answer(400) if request.method == "HEAD" else refusal(400, "InvalidRequest", words)

    proxy.rule = rule
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()

    with pytest.raises(PermissionError) as failed:
        (fsx.directory / "d/secret").read_bytes()

    assert failed.value.errno == errno.EACCES
    assert "fsxsync holds no keys" in fsx.state(fsx.directory / "d/secret")["error"]
    assert "S3ObjectEncryptedByCustomer" in {event["code"] for event in fsx.ok("events", "--json").json}


def test_a_locked_object_is_reported_and_left_in_peace(fsx: Instance, s3: Any, bucket: str, proxy: Proxy) -> None:
    """Nothing is pending, nothing is asked again and again; other files go on."""
    for key in ("kept", "gone"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    words = "Access Denied because object protected by object lock."
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()
    kept, gone = refuses("PUT", "kept", "AccessDenied", words), refuses("DELETE", "gone", "AccessDenied", words)
    proxy.rule = lambda request: kept(request) or gone(request)

    (fsx.directory / "d/kept").write_bytes(b"22")
    (fsx.directory / "d/gone").unlink()
    (fsx.directory / "d/free").write_bytes(b"333")
    fsx.settle()

    assert s3.get_object(Bucket=bucket, Key="free")["Body"].read() == b"333"
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"1"
    assert fsx.status()["associations"][0]["held"] == 2
    assert "object lock" in fsx.state(fsx.directory / "d/kept")["error"]
    assert "legal hold" in fsx.state(fsx.directory / "d/kept")["error"]

    def tries() -> int:
        return sum(request.method == "PUT" and request.path.endswith("/kept") for request in proxy.requests)

    tried = tries()
    assert tried in {1, 2}  # inotify may tell of the write after it was refused: once more, and never again
    (fsx.directory / "d/another").write_bytes(b"1")
    fsx.settle()
    assert tries() == tried
    proxy.rule = None
    (fsx.directory / "d/kept").write_bytes(b"4444")
    fsx.settle()
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"4444"
    assert fsx.status()["associations"][0]["held"] == 1


LOCKED = refusal(403, "AccessDenied", "Access Denied because object protected by object lock.")


def locks(which: Callable[[Request], bool]) -> Callable[[Request], Answer | None]:
    return lambda request: LOCKED if which(request) else None


def test_a_lock_that_refuses_new_metadata_holds_the_file(fsx: Instance, s3: Any, bucket: str, proxy: Proxy) -> None:
    """The object keeps its bytes and its metadata, and the new mode goes when the lock is off."""
    s3.put_object(Bucket=bucket, Key="f", Body=b"1", Metadata={"file-permissions": "0100644"})
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()
    proxy.rule = locks(lambda request: request.method == "PUT" and bool(request.copies))

    (fsx.directory / "d/f").chmod(0o600)
    fsx.settle()

    assert s3.head_object(Bucket=bucket, Key="f")["Metadata"] == {"file-permissions": "0100644"}
    assert "object lock" in fsx.state(fsx.directory / "d/f")["error"]
    assert fsx.status()["associations"][0]["held"] == 1
    proxy.rule = None
    fsx.ok("export", fsx.directory / "d")
    fsx.settle()
    assert s3.head_object(Bucket=bucket, Key="f")["Metadata"]["file-permissions"] == "0100600"
    assert fsx.status()["associations"][0]["held"] == 0


def test_a_lock_that_refuses_the_delete_of_a_rename(tmp_path: Path, s3: Any, bucket: str, proxy: Proxy) -> None:
    """The object stands under both names until the lock is off; the file under its new one all the while."""
    s3.put_object(Bucket=bucket, Key="old", Body=b"1")
    with instance(tmp_path, FSXSYNC_RESTORE_CHECK_S="0.5") as fsx:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        fsx.settle()
        proxy.rule = locks(lambda request: request.method == "DELETE" and request.path.endswith("/old"))

        (fsx.directory / "d/old").rename(fsx.directory / "d/new")
        fsx.settle()

        assert keys_of(s3, bucket) == ["new", "old"]
        assert "object lock" in fsx.ok("why", fsx.directory / "d/old").out
        assert fsx.status()["associations"][0]["held"] == 1
        fsx.ok("import", fsx.directory / "d")
        fsx.settle()
        assert os.listdir(fsx.directory / "d") == ["new"]
        proxy.rule = None
        eventually(lambda: keys_of(s3, bucket) == ["new"])
        fsx.settle()
        assert os.listdir(fsx.directory / "d") == ["new"]
        assert fsx.status()["associations"][0]["held"] == 0


def test_a_lock_that_refuses_the_end_of_an_upload_in_parts(fsx: Instance, s3: Any, bucket: str, proxy: Proxy) -> None:
    """No part is sent over and over: the upload is held with the file, and goes on where it was."""

    def requests(method: str, query: str) -> list[str]:
        mine = [one for one in proxy.requests if (one.method, one.path) == (method, f"/{bucket}/big")]
        return sorted(one.query for one in mine if query in one.query)

    s3.put_object(Bucket=bucket, Key="big", Body=b"1")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()
    proxy.rule = locks(lambda request: request.method == "POST" and "uploadId" in request.query)
    content = os.urandom(20 << 20)

    (fsx.directory / "d/big").write_bytes(content)
    fsx.settle()

    assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == b"1"
    assert "object lock" in fsx.state(fsx.directory / "d/big")["error"]
    assert fsx.status()["associations"][0]["held"] == 1
    tries = len(requests("POST", "uploadId"))
    assert 1 <= tries <= 2  # the second if inotify told of the file when the first was under way
    time.sleep(1)
    assert len(requests("POST", "uploadId")) == tries, "and it is left in peace"
    proxy.rule = None
    fsx.ok("export", fsx.directory / "d")
    fsx.settle()
    assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == content
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert fsx.status()["associations"][0]["held"] == 0
    parts = requests("PUT", "partNumber")
    assert parts == sorted(set(parts)), "each part went once"
    assert len(parts) > 1


def test_a_bucket_whose_lock_holds_every_object(fsx: Instance, s3: Any, proxy: Proxy) -> None:
    """S3 takes none without a checksum there; overwrites and deletes make versions, and no probe is left to be seen."""
    bucket = f"lock-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )

    def rule(request: Request) -> Answer | None:
        is_checked = {"content-md5", "x-amz-checksum-crc64nvme"} & request.headers.keys()
        is_upload = request.method == "PUT" and "x-amz-copy-source" not in request.headers
        return refusal(400, "InvalidRequest", "Content-MD5 is required") if is_upload and not is_checked else None

    proxy.rule = rule
    association = fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url).out.strip()
    assert fsx.ok("association", "show", association, "--json").json["features"]["put_if_none_match"]

    (fsx.directory / "d/dir").mkdir()
    (fsx.directory / "d/link").symlink_to("dir")
    (fsx.directory / "d/f").write_bytes(b"1")
    fsx.settle()
    (fsx.directory / "d/f").write_bytes(b"22")
    fsx.settle()
    assert keys_of(s3, bucket) == ["dir/", "f", "link"]
    (fsx.directory / "d/f").unlink()
    fsx.settle()

    assert keys_of(s3, bucket) == ["dir/", "link"]
    assert fsx.status()["associations"][0]["held"] == 0


def test_a_version_that_was_overwritten_is_read_to_its_end(
    fsx: Instance, s3: Any, versioned: str, proxy: Proxy
) -> None:
    """Also where a listing brought the file: listings tell no versions, the HEAD that follows does."""
    first, second = os.urandom(9 << 20), os.urandom(9 << 20)
    s3.put_object(Bucket=versioned, Key="f", Body=first)
    fsx.ok("associate", f"s3://{versioned}/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()
    overwritten = threading.Event()

    def rule(request: Request) -> None:
        if request.range is not None and request.range[0] > 0:
            overwritten.wait(60)

    proxy.rule = rule
    with (fsx.directory / "d/f").open("rb", buffering=0) as opened:
        start = opened.read(4096)
        s3.put_object(Bucket=versioned, Key="f", Body=second)
        overwritten.set()
        fsx.settle()
        rest = b"".join(iter(lambda: opened.read(1 << 20), b""))

    assert start + rest == first
    assert (fsx.directory / "d/f").read_bytes() == second


def test_versions_that_come_and_go(fsx: Instance, moto: MotoServer, s3: Any, versioned: str) -> None:
    """Of a delete marker, an undelete and a purge of the current version an event tells less than a HEAD."""
    sqs = moto.client("sqs")
    url = sqs.create_queue(QueueName=versioned)["QueueUrl"]

    def tell(what: str, key: str, version: str) -> None:
        thing = {"key": key, "versionId": version}
        record = {"eventName": f"ObjectRemoved:{what}", "s3": {"bucket": {"name": versioned}, "object": thing}}
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [record]}))
        fsx.settle()

    old = s3.put_object(Bucket=versioned, Key="f", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=versioned, Key="f", Body=b"new!")["VersionId"]
    fsx.associate(moto, f"s3://{versioned}/", "/d", "--events", f"sqs:{url}")
    fsx.settle()
    path = fsx.directory / "d/f"

    marker = s3.delete_object(Bucket=versioned, Key="f")["VersionId"]
    tell("DeleteMarkerCreated", "f", marker)
    assert not path.exists()
    s3.delete_object(Bucket=versioned, Key="f", VersionId=marker)
    tell("Delete", "f", marker)
    assert path.read_bytes() == b"new!"
    s3.delete_object(Bucket=versioned, Key="f", VersionId=new)
    tell("Delete", "f", new)
    eventually(lambda: path.read_bytes() == b"old")
    s3.delete_object(Bucket=versioned, Key="f", VersionId=old)
    tell("Delete", "f", old)
    assert not path.exists()


@pytest.mark.parametrize("is_read", [True, False])
def test_versions_that_come_and_go_are_found_by_polling_too(
    fsx: Instance, moto: MotoServer, s3: Any, versioned: str, *, is_read: bool
) -> None:
    """An undelete and a purge of the current version bring an older time back; a listing shows no more than that."""
    old = s3.put_object(Bucket=versioned, Key="f", Body=b"old")["VersionId"]
    time.sleep(1.1)  # last-modified has whole seconds
    new = s3.put_object(Bucket=versioned, Key="f", Body=b"new")["VersionId"]
    fsx.associate(moto, f"s3://{versioned}/", "/d", "--poll", "1")
    fsx.settle()
    path = fsx.directory / "d/f"
    if is_read:
        assert path.read_bytes() == b"new"

    marker = s3.delete_object(Bucket=versioned, Key="f")["VersionId"]
    eventually(lambda: not path.exists())
    s3.delete_object(Bucket=versioned, Key="f", VersionId=marker)
    eventually(path.exists)
    if is_read:
        assert path.read_bytes() == b"new"
    s3.delete_object(Bucket=versioned, Key="f", VersionId=new)
    eventually(lambda: path.read_bytes() == b"old")
    s3.delete_object(Bucket=versioned, Key="f", VersionId=old)
    eventually(lambda: not path.exists())
    fsx.settle()
    assert "Versions" not in s3.list_object_versions(Bucket=versioned)  # nothing was written back


def test_what_can_be_read_by_its_version_is_not_lost(fsx: Instance, moto: MotoServer, s3: Any, versioned: str) -> None:
    """The key has a newer version, or none at all; the one that the released file stands for is below."""
    names = ("hidden", "purged", "moved")
    versions = {name: s3.put_object(Bucket=versioned, Key=name, Body=name.encode())["VersionId"] for name in names}
    _, queue = news_of(moto, versioned)
    fsx.associate(moto, f"s3://{versioned}/", "/d", "--import", "new", "--events", queue)
    fsx.settle()
    for name in names:
        s3.put_object(Bucket=versioned, Key=name, Body=b"newer")
    fsx.settle()
    for name in names:
        marker = s3.delete_object(Bucket=versioned, Key=name)["VersionId"]
        thing = {"key": name, "versionId": marker}
        record = {
            "eventName": "ObjectRemoved:DeleteMarkerCreated",
            "s3": {"bucket": {"name": versioned}, "object": thing},
        }
        body = json.dumps({"Records": [record]})  # moto sends none
        moto.client("sqs").send_message(QueueUrl=queue.removeprefix("sqs:"), MessageBody=body)
    fsx.settle()
    d = fsx.directory / "d"
    for name in names:
        told = fsx.state(d / name)
        assert (told["flags"], told["error"]) == (["released", "exists", "archived"], None)
    assert fsx.status()["associations"][0]["lost"] == 0
    (d / "moved").rename(d / "moved~")  # to where no object follows: it is loaded by its version
    fsx.settle()
    assert (fsx.tree / "d/moved~").read_bytes() == b"moved"
    assert (d / "hidden").read_bytes() == b"hidden"

    s3.delete_object(Bucket=versioned, Key="purged", VersionId=versions["purged"])
    with pytest.raises(FileNotFoundError):
        (d / "purged").read_bytes()
    eventually(lambda: "lost_from_hsm" in fsx.state(d / "purged")["flags"])
    assert fsx.status()["associations"][0]["lost"] == 1
    assert "/d: 1 lost files" in " ".join(fsx.status()["needs_person"])
    s3.delete_object(Bucket=versioned, Key="hidden", VersionId=versions["hidden"])
    fsx.settle()
    assert "lost_from_hsm" not in fsx.state(d / "hidden")["flags"]  # its data is here
