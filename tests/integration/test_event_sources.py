"""Where the daemon hears of objects, when it goes well and when it does not: queues made, lost, refused, full, odd."""

from __future__ import annotations

import json
import os
import stat
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import listening_ports
from support.instance import Instance, bucket_with_events, eventually, fill, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, refusal

from fsxsync.model.routing import route_name


@pytest.fixture
def sqs(moto: MotoServer) -> Any:
    return moto.client("sqs")


def row(made: Instance, path: str = "/d") -> dict[str, Any]:
    found: dict[str, Any] = made.ok("association", "show", path, "--json").json
    return found


def becomes(made: Instance, state: str, path: str = "/d", timeout_s: float = 60) -> None:
    eventually(lambda: row(made, path)["state"] == state, timeout_s)


def put(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"data of " + key.encode())


def notifications(s3: Any, bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = s3.get_bucket_notification_configuration(Bucket=bucket)
    found.pop("ResponseMetadata")
    return found


def left(sqs: Any, queue: str) -> int:
    """Messages that nobody has deleted."""
    told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return int(told["ApproximateNumberOfMessages"]) + int(told["ApproximateNumberOfMessagesNotVisible"])


def queue_urls(sqs: Any, association: str) -> list[str]:
    found: list[str] = sqs.list_queues(QueueNamePrefix=route_name(association)).get("QueueUrls", [])
    return found


# ---------------------------------------------------------------- a queue that fails and heals


def test_a_queue_that_vanishes_is_said_and_heals_by_itself(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.settle()

    sqs.delete_queue(QueueUrl=queue)

    becomes(fsx, "MISCONFIGURED")
    assert "there is no such queue; create the queue" in row(fsx)["failure"]
    assert fsx.run("status").code == 1
    put(s3, bucket, "missed")  # its event has nowhere to go
    (fsx.directory / "d/local").write_bytes(b"kept until then")
    eventually(lambda: row(fsx)["import_lag_s"] > 0.5)
    assert sqs.create_queue(QueueName=f"q-{bucket}")["QueueUrl"] == queue
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert (fsx.directory / "d/missed").read_bytes() == b"data of missed"
    assert keys_of(s3, bucket) == ["local", "missed"]
    assert row(fsx)["import_lag_s"] == 0
    codes = [event["code"] for event in fsx.ok("events", "--json").json]
    assert "EventQueueDoesNotExist" in codes


def test_a_queue_that_may_not_be_read_any_more(fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}").replace(moto.url, proxy.url)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.settle()

    proxy.rule = lambda _: Answer(
        403, json.dumps({"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "no"}).encode()
    )

    becomes(fsx, "MISCONFIGURED")
    assert "grant sqs:ReceiveMessage and sqs:DeleteMessage" in row(fsx)["failure"]
    put(s3, bucket, "waits")
    proxy.rule = None
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert (fsx.directory / "d/waits").read_bytes() == b"data of waits"


def test_a_queue_out_of_reach_for_a_moment_is_nobodys_fault(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any
) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}").replace(moto.url, proxy.url)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.settle()
    proxy.rule = lambda _: Answer(503)
    eventually(lambda: "503" in row(fsx)["source"] or "ServiceUnavailable" in row(fsx)["source"], 60)
    assert row(fsx)["state"] == "AVAILABLE"
    (fsx.directory / "d/local").write_bytes(b"goes out all the same")
    eventually(lambda: keys_of(s3, bucket) == ["local"])
    proxy.rule = None
    put(s3, bucket, "there")
    fsx.settle()
    assert sorted(os.listdir(fsx.directory / "d")) == ["local", "there"]


def test_one_failing_queue_harms_no_other_association(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    buckets = [f"b-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    queues = [bucket_with_events(moto, bucket, f"q-{bucket}") for bucket in buckets]
    for name, bucket, queue in zip("ab", buckets, queues, strict=True):
        fsx.associate(moto, f"s3://{bucket}/", f"/{name}", "--events", f"sqs:{queue}")
    sqs.delete_queue(QueueUrl=queues[0])
    becomes(fsx, "MISCONFIGURED", "/a")
    put(s3, buckets[1], "x")
    fsx.settle(fsx.directory / "b")
    assert row(fsx, "/b")["state"] == "AVAILABLE"
    assert os.listdir(fsx.directory / "b") == ["x"]


# ---------------------------------------------------------------- many messages, odd messages, no messages


def test_a_long_queue_is_read_by_several_and_wholly(tmp_path: Path, moto: MotoServer, s3: Any, sqs: Any) -> None:
    """Also what came while no daemon ran."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    with instance(tmp_path) as made:
        made.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
        made.settle()
        assert made.stop() == 0
        fill(moto, bucket, {f"{number:03}": b"data" for number in range(200)})
        made.start()
        made.settle()
        assert len(os.listdir(made.directory / "d")) == 200
        eventually(lambda: left(sqs, queue) == 0, 60)  # the daemon that ended may still have been given one


def test_events_that_were_lost_while_no_daemon_ran_are_made_up_for(
    fsx: Instance, moto: MotoServer, s3: Any, sqs: Any
) -> None:
    """A queue keeps messages for some days: who stopped for longer reads the listing."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    put(s3, bucket, "changes", "goes", "stays")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.settle()
    assert fsx.stop() == 0
    put(s3, bucket, "comes")
    s3.put_object(Bucket=bucket, Key="changes", Body=b"changed")
    s3.delete_object(Bucket=bucket, Key="goes")
    sqs.purge_queue(QueueUrl=queue)

    fsx.start()
    fsx.settle()

    assert sorted(os.listdir(fsx.directory / "d")) == ["changes", "comes", "stays"]
    assert (fsx.directory / "d/changes").read_bytes() == b"changed"


def test_poison_is_left_to_a_dead_letter_queue(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, sqs: Any) -> None:
    dead = sqs.create_queue(QueueName=f"dead-{bucket}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    queue = sqs.create_queue(QueueName=f"q-{bucket}", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")

    sqs.send_message(QueueUrl=queue, MessageBody="what is this?")

    eventually(lambda: left(sqs, dead) == 1)
    assert sqs.receive_message(QueueUrl=dead)["Messages"][0]["Body"] == "what is this?"
    told = fsx.ok("events", "--json").json
    (event,) = [event for event in told if event["code"] == "PoisonMessage"]
    assert "left to the dead-letter queue" in event["message"]
    fsx.settle()
    assert row(fsx)["state"] == "AVAILABLE"


def test_nobody_takes_messages_once_the_association_is_gone(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.ok("association", "delete", "/d")
    put(s3, bucket, "somebody else's")

    # A receive that was under way may still take it, and gives it back after 30 s: nobody deletes it.
    eventually(lambda: "Messages" in sqs.receive_message(QueueUrl=queue, VisibilityTimeout=0, WaitTimeSeconds=2), 90)


def test_wait_knows_of_new_metadata_whose_event_a_killed_daemon_holds(
    fsx: Instance, moto: MotoServer, s3: Any, sqs: Any
) -> None:
    """Set in the second in which the object was made, a listing does not show them."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    fsx.settle()

    for number in range(20):
        key, where = f"f{number}", {"Bucket": bucket, "Key": f"f{number}"}
        time.sleep(1 - time.time() % 1)
        s3.put_object(**where, Body=b"x")
        made = s3.head_object(**where)["LastModified"]
        eventually(lambda path=fsx.directory / "d" / key: path.exists())
        fsx.settle()
        fsx.kill()
        s3.copy_object(**where, CopySource=where, MetadataDirective="REPLACE", Metadata={"file-permissions": "0100600"})
        sqs.receive_message(QueueUrl=queue, VisibilityTimeout=30)  # if the dead one's long poll did not take it
        is_hidden = s3.head_object(**where)["LastModified"] == made
        fsx.start()
        fsx.settle()
        assert stat.S_IMODE((fsx.directory / "d" / key).stat().st_mode) == 0o600
        if is_hidden:
            return
    raise AssertionError("it never was the same second")


def test_the_lag_is_measured(tmp_path: Path, moto: MotoServer, proxy: Proxy, s3: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    with instance(tmp_path, options=["--metrics-listen", "127.0.0.1:0"]) as made:
        made.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--events", f"sqs:{queue}")
        made.settle()
        assert row(made)["import_lag_s"] == 0
        assert made.daemon is not None
        url = f"http://127.0.0.1:{listening_ports(made.daemon.pid)[0]}/metrics"

        def lag(way: str) -> float:
            with urllib.request.urlopen(url) as answer:
                lines = answer.read().decode().splitlines()
            return float(next(line for line in lines if line.startswith(f"fsxsync_{way}_lag_seconds{{")).split()[-1])

        assert (lag("import"), lag("export")) == (0, 0)
        proxy.rule = lambda request: Answer(503) if request.method in {"HEAD", "PUT"} else None
        put(s3, bucket, "slow")
        (made.directory / "d/slow too").write_bytes(b"x")
        eventually(lambda: row(made)["import_lag_s"] > 2 and lag("import") > 2 and lag("export") > 2)
        proxy.rule = None
        eventually(lambda: row(made)["import_lag_s"] == 0 == lag("import") == lag("export"), 60)


# ---------------------------------------------------------------- queue and notification of our own


def test_events_create_makes_all_and_delete_removes_it(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    put(s3, bucket, "p/old")
    made = fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--events", "create")
    (url,) = queue_urls(sqs, made)
    assert row(fsx)["events"] == f"sqs:{url}"
    assert row(fsx)["events_made"] is True
    assert row(fsx)["poll_s"] == 0
    put(s3, bucket, "p/new", "elsewhere")
    s3.delete_object(Bucket=bucket, Key="p/old")
    fsx.settle()
    assert os.listdir(fsx.directory / "d") == ["new"]

    # Also by another daemon than the one that made it.
    assert fsx.stop() == 0
    fsx.start()
    put(s3, bucket, "p/newer")
    fsx.settle()
    assert sorted(os.listdir(fsx.directory / "d")) == ["new", "newer"]
    fsx.ok("association", "delete", "/d", "--force")

    assert queue_urls(sqs, made) == []
    assert notifications(s3, bucket) == {}
    assert keys_of(s3, bucket) == ["elsewhere", "p/new", "p/newer"]
    events = fsx.ok("events", "--json").json
    assert [event for event in events if event["level"] == "ERROR"] == []


def test_an_overlap_is_refused_and_nothing_is_left(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    theirs = bucket_with_events(moto, bucket, f"q-{bucket}")
    before = notifications(s3, bucket)
    queues = sqs.list_queues().get("QueueUrls", [])

    done = fsx.run("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", moto.url, "--events", "create")

    assert done.code == 1
    assert done.err.count("\n") == 1
    assert theirs.rpartition("/")[2] in done.err
    assert "already sends those of all keys" in done.err
    assert "--events sqs:QUEUE_URL" in done.err
    assert notifications(s3, bucket) == before
    assert sqs.list_queues().get("QueueUrls", []) == queues
    assert fsx.ok("associations", "--json").json == []
    assert not (fsx.directory / "d").exists()


def test_what_is_half_made_is_taken_away(fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    queues = sqs.list_queues().get("QueueUrls", [])
    proxy.rule = lambda request: (
        refusal(403, "AccessDenied") if request.method == "PUT" and "notification" in request.query else None
    )

    done = fsx.run("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--events", "create")

    assert done.code == 1
    assert "s3:PutBucketNotification" in done.err
    assert sqs.list_queues().get("QueueUrls", []) == queues
    assert fsx.ok("associations", "--json").json == []


def test_what_a_killed_daemon_had_half_made_is_taken_away_by_the_next(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, sqs: Any
) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    queues = sqs.list_queues().get("QueueUrls", [])

    def kill(request: Request) -> None:
        if request.method == "PUT" and "notification" in request.query and fsx.daemon is not None:
            proxy.rule = None
            fsx.daemon.kill()

    proxy.rule = kill
    assert fsx.run("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--events", "create").code != 0
    assert len(sqs.list_queues().get("QueueUrls", [])) == len(queues) + 1
    fsx.until_ended()

    fsx.start()

    eventually(lambda: sqs.list_queues().get("QueueUrls", []) == queues)
    eventually(lambda: notifications(s3, bucket) == {})
    assert fsx.ok("associations", "--json").json == []


def test_a_made_queue_that_somebody_removes_is_made_again(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any) -> None:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    made = fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--events", "create")
    (url,) = queue_urls(sqs, made)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    sqs.delete_queue(QueueUrl=url)
    put(s3, bucket, "p/missed")
    eventually(lambda: queue_urls(sqs, made) == [url] and notifications(s3, bucket) != {}, 60)
    becomes(fsx, "AVAILABLE")
    put(s3, bucket, "p/told")
    fsx.settle()
    assert sorted(os.listdir(fsx.directory / "d")) == ["missed", "told"]


def test_an_update_makes_and_removes_it(fsx: Instance, moto: MotoServer, s3: Any, sqs: Any, bucket: str) -> None:
    made = fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.ok("association", "update", "/d", "--events", "create", "--poll", "0")
    becomes(fsx, "AVAILABLE")
    assert len(queue_urls(sqs, made)) == 1
    put(s3, bucket, "told")
    fsx.settle()
    assert os.listdir(fsx.directory / "d") == ["told"]
    fsx.ok("association", "update", "/d", "--export", "new")  # something else: it stays
    assert len(queue_urls(sqs, made)) == 1

    fsx.ok("association", "update", "/d", "--events", "none", "--poll", "1")

    becomes(fsx, "AVAILABLE")
    assert queue_urls(sqs, made) == []
    assert notifications(s3, bucket) == {}
    assert row(fsx)["events"] is None
    put(s3, bucket, "polled")
    eventually(lambda: sorted(os.listdir(fsx.directory / "d")) == ["polled", "told"])


def test_a_delete_that_cant_remove_it_says_so_and_keeps_the_association(
    fsx: Instance, proxy: Proxy, s3: Any, sqs: Any, bucket: str
) -> None:
    made = fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--events", "create").out.strip()
    proxy.rule = lambda request: (
        refusal(403, "AccessDenied") if request.method == "PUT" and "notification" in request.query else None
    )
    done = fsx.run("association", "delete", "/d")
    assert done.code == 1
    assert "s3:PutBucketNotification" in done.err
    assert row(fsx)["state"] != "DELETING"

    fsx.ok("association", "delete", "/d", "--force")

    assert len(queue_urls(sqs, made)) == 1
    assert fsx.stop() == 0
    proxy.rule = None
    fsx.start()  # which tries again
    eventually(lambda: queue_urls(sqs, made) == [])
    assert notifications(s3, bucket) == {}
