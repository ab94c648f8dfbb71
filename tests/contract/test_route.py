"""The way of a bucket's events that we make ourselves, on moto: made, found again, taken away, others' left alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support.moto_server import MotoServer
from support.proxy import Proxy, Request, refusal

from fsxsync.errors import AccessDenied, EventsOverlap, RepositoryError
from fsxsync.model.association import Access, Association
from fsxsync.model.routing import Rule, filter_prefix, overlapping
from fsxsync.repository.route import S3EventRoute, open_route

OTHERS: dict[str, Any] = {
    "TopicConfigurations": [
        {
            "Id": "theirs",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:theirs",
            "Events": ["s3:ObjectCreated:Put"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "other/"}]}},
        }
    ],
    "EventBridgeConfiguration": {},
}


def route_for(server: MotoServer | Proxy, bucket: str, prefix: str = "p/", *, name: str = "dra-1234") -> S3EventRoute:
    access = Access(endpoint_url=server.url, region="us-east-1")
    return open_route(Association(id=f"{name}-{bucket}", directory=b"d", bucket=bucket, prefix=prefix, access=access))


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def sqs(moto: MotoServer) -> Any:
    return moto.client("sqs")


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[Proxy]:
    with Proxy(moto.url) as made:
        yield made


def notifications(s3: Any, bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = s3.get_bucket_notification_configuration(Bucket=bucket)
    found.pop("ResponseMetadata")
    return found


def queues(sqs: Any, bucket: str) -> list[str]:
    return [url for url in sqs.list_queues().get("QueueUrls", []) if bucket in url]


def test_it_is_made_and_found_again_and_taken_away(moto: MotoServer, s3: Any, sqs: Any, bucket: str) -> None:
    route = route_for(moto, bucket)
    assert not route.is_whole()
    url = route.ensure()
    before = notifications(s3, bucket)
    assert route.ensure() == url
    assert notifications(s3, bucket) == before
    assert route.is_whole()

    s3.put_object(Bucket=bucket, Key="p/x", Body=b"1")
    s3.put_object(Bucket=bucket, Key="elsewhere", Body=b"1")
    bodies = [json.loads(one["Body"]) for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]]
    assert [one["Records"][0]["s3"]["object"]["key"] for one in bodies if "Records" in one] == ["p%2Fx"]
    (rule,) = before["QueueConfigurations"]
    assert rule["Id"] == f"fsxsync-dra-1234-{bucket}"
    assert {"s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"} <= set(rule["Events"])
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"}}

    route.remove()
    assert notifications(s3, bucket) == {}
    assert queues(sqs, bucket) == []
    route.remove()  # nothing is there, and that is what was wanted


def test_what_others_have_configured_is_left_as_it_is(moto: MotoServer, s3: Any, sqs: Any, bucket: str) -> None:
    moto.client("sns").create_topic(Name="theirs")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=OTHERS)
    before = notifications(s3, bucket)
    assert before["TopicConfigurations"]
    route = route_for(moto, bucket)

    route.ensure()
    made = notifications(s3, bucket)
    route.remove()

    assert {kind: value for kind, value in made.items() if kind != "QueueConfigurations"} == before
    assert notifications(s3, bucket) == before


@pytest.mark.parametrize("prefix", ["", "other/", "other/deep/"])
def test_an_overlap_is_told_and_nothing_is_made(moto: MotoServer, s3: Any, sqs: Any, bucket: str, prefix: str) -> None:
    moto.client("sns").create_topic(Name="theirs")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=OTHERS)
    before = notifications(s3, bucket)

    with pytest.raises(EventsOverlap, match=r"'theirs' already sends those of keys below 'other/' to arn:aws:sns"):
        route_for(moto, bucket, prefix).ensure()

    assert notifications(s3, bucket) == before
    assert queues(sqs, bucket) == []


def test_two_in_one_bucket(moto: MotoServer, s3: Any, bucket: str) -> None:
    one, two = route_for(moto, bucket, "a/", name="one"), route_for(moto, bucket, "b/", name="two")
    one.ensure()
    two.ensure()
    assert one.is_whole()
    assert two.is_whole()
    one.remove()
    assert two.is_whole()
    assert not one.is_whole()
    two.remove()


def test_a_half_made_one_is_completed_or_taken_away(
    moto: MotoServer, proxy: Proxy, s3: Any, sqs: Any, bucket: str
) -> None:
    def refuse(request: Request) -> Any:
        return refusal(403, "AccessDenied") if request.method == "PUT" and "notification" in request.query else None

    proxy.rule = refuse
    with pytest.raises(AccessDenied, match="s3:PutBucketNotification"):
        route_for(proxy, bucket).ensure()
    assert len(queues(sqs, bucket)) == 1
    route_for(moto, bucket).remove()
    assert queues(sqs, bucket) == []

    with pytest.raises(AccessDenied):
        route_for(proxy, bucket).ensure()
    proxy.rule = None
    route_for(proxy, bucket).ensure()
    assert route_for(moto, bucket).is_whole()
    route_for(moto, bucket).remove()


def test_somebody_who_writes_at_the_same_moment(moto: MotoServer, proxy: Proxy, s3: Any, bucket: str) -> None:
    """Their document, written without ours, comes right after ours: it is seen, and ours is added to it."""
    moto.client("sns").create_topic(Name="theirs")
    writes = []

    def meddle(request: Request) -> None:
        if request.method == "GET" and "notification" in request.query and len(writes) == 1:
            writes.append("theirs")
            s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=OTHERS)
        if request.method == "PUT" and "notification" in request.query:
            writes.append("ours")

    proxy.rule = meddle
    route_for(proxy, bucket).ensure()

    assert writes == ["ours", "theirs", "ours"]
    assert notifications(s3, bucket)["TopicConfigurations"][0]["Id"] == "theirs"
    assert route_for(moto, bucket).is_whole()
    route_for(moto, bucket).remove()


def test_a_bucket_that_is_gone_has_no_rule_left(moto: MotoServer, s3: Any, sqs: Any, bucket: str) -> None:
    route = route_for(moto, bucket)
    route.ensure()
    s3.delete_bucket(Bucket=bucket)

    route.remove()

    assert queues(sqs, bucket) == []
    with pytest.raises(RepositoryError):
        route.ensure()


@pytest.mark.parametrize(
    ("prefix", "suffix", "events", "clash"),
    [
        ("p/", "", ("s3:ObjectCreated:*",), True),
        ("", "", ("s3:ObjectCreated:Put",), True),
        ("p/q/", "", ("s3:ObjectRemoved:Delete",), True),
        ("q/", "", ("s3:ObjectCreated:*",), False),
        ("p", ".jpg", ("s3:ObjectCreated:*",), True),
        ("p/", "", ("s3:ObjectTagging:*", "s3:ReducedRedundancyLostObject"), False),
        ("p/", "", ("s3:ObjectCreatedX",), False),
    ],
)
def test_which_rules_overlap(prefix: str, suffix: str, events: tuple[str, ...], clash: bool) -> None:
    ours = Rule("fsxsync-1", "q", ("s3:ObjectCreated:*", "s3:ObjectRemoved:*"), "p/")
    theirs = Rule("theirs", "t", events, prefix, suffix)
    assert overlapping(ours, [theirs]) == (theirs if clash else None)
    assert overlapping(ours, [Rule("fsxsync-1", "t", events, prefix, suffix)]) is None


@pytest.mark.parametrize(("prefix", "told"), [("a/b/", "a/b/"), ("", ""), ("data set/", "data"), ("größe/", "gr")])
def test_a_filter_says_no_special_characters(prefix: str, told: str) -> None:
    assert filter_prefix(prefix) == told
