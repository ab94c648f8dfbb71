"""What happens in the bucket arrives in the directory: listings, events in all their wrappings, policies, odd keys."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, bucket_with_events, eventually, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, is_listing


def put(s3: Any, bucket: str, key: str, body: bytes = b"data", **metadata: str) -> str:
    answer = s3.put_object(
        Bucket=bucket, Key=key, Body=body, Metadata={k.replace("_", "-"): v for k, v in metadata.items()}
    )
    etag: str = answer["ETag"].strip('"')
    return etag


@pytest.fixture
def queue(moto: MotoServer) -> str:
    url: str = moto.client("sqs").create_queue(QueueName=f"q-{uuid.uuid4().hex[:12]}")["QueueUrl"]
    return url


def visible(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# ---------------------------------------------------------------- listing


@pytest.mark.parametrize("fraction", ["000", "345"])
def test_what_was_written_again_with_the_same_bytes_is_looked_at_once(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, bucket: str, fraction: str
) -> None:
    """Each poll cost a request for each such object, for ever, and `diff` said that they had changed there. So it was
    with every object of a store that lists fractions of seconds, which no HEAD tells."""

    def listed(request: Request) -> Answer | None:
        if not is_listing(request):
            return None
        with urllib.request.urlopen(f"{moto.url}{request.path}?{request.query}") as answer:  # noqa: S310  loopback
            return Answer(200, answer.read().replace(b".000Z", f".{fraction}Z".encode()))

    def heads(since: int) -> int:
        return sum(request.method == "HEAD" and request.path.endswith("/a") for request in proxy.requests[since:])

    def heads_of_two_polls() -> int:
        before = len(proxy.requests)
        eventually(lambda: sum(map(is_listing, proxy.requests[before:])) > 2, 60)
        return heads(before)

    proxy.rule = listed
    put(s3, bucket, "a")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    assert heads_of_two_polls() == 0
    time.sleep(1.1)  # until an object's time is another one
    before = len(proxy.requests)
    put(s3, bucket, "a")
    eventually(lambda: heads(before) > 0, 60)
    fsx.settle()
    assert heads_of_two_polls() == 0
    assert fsx.run("diff", fsx.directory / "d").out == ""


def test_a_listing_becomes_stubs(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "p/plain", b"x" * 12345)
    put(
        s3,
        bucket,
        "p/own/meta",
        b"abc",
        file_permissions="0100751",
        file_owner="77",
        file_group="88",
        file_mtime="1600000000123456789ns",
    )
    put(s3, bucket, "p/empty")
    put(s3, bucket, "p/marker/", b"", file_permissions="0040711")
    put(s3, bucket, "p/link", b"own/meta", file_permissions="0120777")
    put(s3, bucket, "elsewhere", b"not ours")
    fsx.associate(moto, f"s3://{bucket}/p/", "/d")
    fsx.settle()
    directory = fsx.directory / "d"
    assert visible(directory) == ["empty", "link", "marker", "own", "own/meta", "plain"]
    status = (directory / "own/meta").stat()
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_size) == (
        0o100751,
        77,
        88,
        1600000000123456789,
        3,
    )
    assert os.readlink(directory / "link") == "own/meta"
    assert (directory / "marker").stat().st_mode == 0o40711
    plain = directory / "plain"
    assert fsx.state(plain)["flags"] == ["released", "exists", "archived"]
    behind = (fsx.tree / "d/plain").stat()
    assert (behind.st_size, behind.st_blocks * 512 < 12345) == (12345, True)
    assert plain.stat().st_blocks > 0
    assert plain.read_bytes() == b"x" * 12345
    assert (directory / "link").read_bytes() == b"abc"
    fsx.settle()
    assert fsx.state(plain)["flags"] == ["exists", "archived"]
    assert keys_of(s3, bucket, "p/") == ["p/empty", "p/link", "p/marker/", "p/own/meta", "p/plain"]


@pytest.mark.needs("flat keys")
def test_keys_that_are_no_paths_are_reported(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    bad = ["p/a//b", "p/./c", "p/../d", "p/" + "n" * 256, "p/file/below"]
    for key in [*bad, "p/fine", "p/file"]:
        put(s3, bucket, key)
    fsx.associate(moto, f"s3://{bucket}/p/", "/d")
    fsx.settle()
    assert visible(fsx.directory / "d") == ["file", "fine"]
    events = fsx.ok("events", "--json").out
    for key in bad:
        assert json.dumps(key.rpartition("/")[2])[1:-1] in events
    assert sorted(keys_of(s3, bucket, "p/")) == sorted([*bad, "p/fine", "p/file"])


@pytest.mark.parametrize("kind", ["listing", "events"])
def test_policies_decide_what_travels(fsx: Instance, moto: MotoServer, s3: Any, kind: str) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    source = ["--events", f"sqs:{queue}"] if kind == "events" else ["--poll", "1"]
    for prefix in ("new", "changed", "none"):
        for name in ("stays", "changes", "goes"):
            put(s3, bucket, f"{prefix}/{name}", b"before")
        fsx.associate(moto, f"s3://{bucket}/{prefix}/", f"/{prefix}", "--export", "none", *source)
        wanted = {"new": "new", "changed": "changed,deleted", "none": "none"}[prefix]
        fsx.ok("association", "update", f"/{prefix}", "--import", wanted)
    fsx.settle()
    for prefix in ("new", "changed", "none"):
        put(s3, bucket, f"{prefix}/changes", b"after it")
        put(s3, bucket, f"{prefix}/comes", b"new")
        s3.delete_object(Bucket=bucket, Key=f"{prefix}/goes")
    fsx.settle()
    root = fsx.directory
    assert visible(root / "new") == ["changes", "comes", "goes", "stays"]
    assert (root / "new/comes").read_bytes() == b"new"
    assert (root / "new/stays").read_bytes() == b"before"
    assert fsx.state(root / "new/changes")["size"] == 6
    assert visible(root / "changed") == ["changes", "stays"]
    assert (root / "changed/changes").read_bytes() == b"after it"
    assert visible(root / "none") == ["changes", "goes", "stays"]
    assert fsx.state(root / "none/changes")["size"] == 6


def test_policies_decide_what_is_exported(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    wishes = {"new": "new", "changed": "changed,deleted", "none": "none"}
    for prefix, wish in wishes.items():
        for name in ("stays", "changes", "described", "goes"):
            put(s3, bucket, f"{prefix}/{name}", b"before")
        fsx.associate(moto, f"s3://{bucket}/{prefix}/", f"/{prefix}", "--export", wish, "--import", "new")
    fsx.settle()
    for prefix in wishes:
        (fsx.directory / prefix / "changes").write_bytes(b"after it")
        (fsx.directory / prefix / "described").chmod(0o600)
        (fsx.directory / prefix / "comes").write_bytes(b"new")
        (fsx.directory / prefix / "goes").unlink()
    fsx.settle()

    def told(prefix: str) -> tuple[list[str], bytes, bool]:
        keys = [key.partition("/")[2] for key in keys_of(s3, bucket, f"{prefix}/")]
        changes = s3.get_object(Bucket=bucket, Key=f"{prefix}/changes")["Body"].read()
        is_described = "file-permissions" in s3.head_object(Bucket=bucket, Key=f"{prefix}/described")["Metadata"]
        return keys, changes, is_described

    assert told("new") == (["changes", "comes", "described", "goes", "stays"], b"before", False)
    assert told("changed") == (["changes", "described", "stays"], b"after it", True)
    assert told("none") == (["changes", "described", "goes", "stays"], b"before", False)


def test_a_poll_finds_everything(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "changes", b"before")
    put(s3, bucket, "goes")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    directory = fsx.directory / "d"
    assert (directory / "changes").read_bytes() == b"before"
    put(s3, bucket, "changes", b"after, longer")
    put(s3, bucket, "comes")
    s3.delete_object(Bucket=bucket, Key="goes")
    eventually(
        lambda: visible(directory) == ["changes", "comes"] and (directory / "changes").read_bytes() == b"after, longer"
    )


# ---------------------------------------------------------------- events


def record(bucket: str, key: str, name: str = "ObjectCreated:Put", etag: str = "") -> dict[str, Any]:
    found = {"key": urllib.parse.quote_plus(key), "sequencer": "0"} | ({"eTag": etag} if etag else {})
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": name,
                "eventTime": "2026-11-23T17:52:29.000Z",
                "s3": {"bucket": {"name": bucket}, "object": found},
            }
        ]
    }


def eventbridge(bucket: str, key: str, detail_type: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": detail_type,
        "time": "2026-11-23T17:52:29Z",
        "detail": {"bucket": {"name": bucket}, "object": {"key": key}},
    }


WRAPPINGS = {
    "direct": lambda bucket, key: json.dumps(record(bucket, key)),
    "SNS": lambda bucket, key: json.dumps(
        {"Type": "Notification", "TopicArn": "arn:x", "Message": json.dumps(record(bucket, key))}
    ),
    "raw SNS": lambda bucket, key: json.dumps(record(bucket, key)),
    "EventBridge": lambda bucket, key: json.dumps(eventbridge(bucket, key)),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_an_event_in_each_wrapping(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, queue: str, wrapping: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--events", f"sqs:{queue}")
    key = "p/a b+ü%/c"
    put(s3, bucket, key, b"told by an event")
    moto.client("sqs").send_message(QueueUrl=queue, MessageBody=WRAPPINGS[wrapping](bucket, key))
    fsx.settle()
    assert (fsx.directory / "d/a b+ü%/c").read_bytes() == b"told by an event"


def test_new_changed_and_deleted_by_the_stores_own_events(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    put(s3, bucket, "p/old", b"before")
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--events", f"sqs:{queue}")
    directory = fsx.directory / "d"
    assert (directory / "old").read_bytes() == b"before"
    put(s3, bucket, "p/old", b"after")
    put(s3, bucket, "p/sub/new", b"new")
    fsx.settle()
    assert (directory / "old").read_bytes() == b"after"
    assert (directory / "sub/new").read_bytes() == b"new"
    many = [f"p/many/{number}" for number in range(12)]
    for key in many:
        put(s3, bucket, key)
    fsx.settle()
    assert len(visible(directory / "many")) == 12
    for key in ("p/old", "p/sub/new", *many):
        s3.delete_object(Bucket=bucket, Key=key)
    fsx.settle()
    assert visible(directory) == []  # all that was known, and no accident: each was told, and looked up
    assert fsx.ok("associations", "--json").json[0]["state"] == "AVAILABLE"


def test_lost_doubled_and_reordered_events(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, queue: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    sqs = moto.client("sqs")
    etag = put(s3, bucket, "f", b"one")
    put(s3, bucket, "f", b"two!")
    s3.delete_object(Bucket=bucket, Key="never")
    for name, key in (
        ("ObjectRemoved:Delete", "f"),
        ("ObjectCreated:Put", "f"),
        ("ObjectCreated:Put", "f"),
        ("ObjectCreated:Put", "never"),
    ):
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(record(bucket, key, name, etag)))
    fsx.settle()
    assert visible(fsx.directory / "d") == ["f"]
    assert (fsx.directory / "d/f").read_bytes() == b"two!"


def test_poison_is_recorded_and_dropped_and_a_test_event_ignored(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, queue: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    sqs = moto.client("sqs")
    for body in (
        "no json at all",
        '{"half": ',
        "[]",
        json.dumps({"Event": "s3:TestEvent", "Service": "Amazon S3", "Bucket": bucket}),
    ):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    put(s3, bucket, "after", b"x")
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(record(bucket, "after")))
    fsx.settle()
    assert (fsx.directory / "d/after").read_bytes() == b"x"
    poison = [line for line in fsx.ok("events", "--json").out.splitlines() if "PoisonMessage" in line]
    assert len([line for line in poison if "no json at all" in line]) == 1
    assert len([line for line in poison if "is dropped (a dead-letter queue would keep it)" in line]) == len(poison)
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert (attributes["ApproximateNumberOfMessages"], attributes["ApproximateNumberOfMessagesNotVisible"]) == (
        "0",
        "0",
    )


def test_one_queue_serves_many_associations(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    for name in ("one", "two", "three"):
        fsx.associate(moto, f"s3://{bucket}/{name}/", f"/{name}", "--events", f"sqs:{queue}")
    for number in range(60):
        put(s3, bucket, f"{('one', 'two', 'three')[number % 3]}/{number}", b"x")
    fsx.settle()
    assert [len(visible(fsx.directory / name)) for name in ("one", "two", "three")] == [20, 20, 20]


def test_an_echo_causes_no_action(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    for number in range(20):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")
    fsx.settle()
    before = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}
    inodes = {path.name: path.stat().st_ino for path in (fsx.tree / "d").iterdir()}
    assert len(before) == 20
    fsx.settle()
    (row,) = fsx.status()["associations"]
    assert (row["imported"], row["exported"], row["pending"]) == (0, 20, 0)
    assert {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)} == before
    assert {path.name: path.stat().st_ino for path in (fsx.tree / "d").iterdir()} == inodes


def test_a_delete_right_after_our_own_write_is_no_echo(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    """An event of a removal names the etag that went, which is the one that we had just written."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    for number in range(30):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")
    fsx.settle()
    for number in range(30):
        s3.delete_object(Bucket=bucket, Key=f"{number}")
    fsx.settle()
    assert visible(fsx.directory / "d") == []


def test_a_change_is_seen_by_a_process_that_looked_before(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    """The kernel's caches are exact: names, sizes, times and pages."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    put(s3, bucket, "f", b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    directory = fsx.directory / "d"
    for round_ in range(5):
        assert (directory / "f").read_bytes() == (b"before" if round_ == 0 else b"after %d" % round_)
        assert (directory / "f").stat().st_size == len((directory / "f").read_bytes())
        assert not (directory / f"new-{round_}").exists()
        put(s3, bucket, "f", b"after %d" % (round_ + 1))
        put(s3, bucket, f"new-{round_}", b"new")
        fsx.settle()
        assert (directory / f"new-{round_}").read_bytes() == b"new"
    with (directory / "f").open("rb") as stream:
        assert stream.read(3) == b"aft"
        put(s3, bucket, "f", b"something else entirely")
        fsx.settle()
        stream.seek(0)
        assert stream.read() == b"after 5"  # who has the old version open reads it to its end
    assert (directory / "f").read_bytes() == b"something else entirely"


def test_metadata_changes_come_without_data(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    put(s3, bucket, "f", b"data", file_permissions="0100644")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    file = fsx.directory / "d/f"
    assert file.read_bytes() == b"data"
    fsx.settle()
    inode = (fsx.tree / "d/f").stat().st_ino
    s3.copy_object(
        Bucket=bucket,
        Key="f",
        CopySource={"Bucket": bucket, "Key": "f"},
        MetadataDirective="REPLACE",
        Metadata={"file-permissions": "0100600"},
    )
    fsx.settle()
    assert file.stat().st_mode == 0o100600
    assert (fsx.tree / "d/f").stat().st_ino == inode
    assert fsx.state(file)["flags"] == ["exists", "archived"]
