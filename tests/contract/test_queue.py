"""The event queue on moto: real notifications of real requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.moto_server import MotoServer

from fsxsync.config import load
from fsxsync.errors import BadCredentials, BadInput, EndpointUnreachable, RepositoryError
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix
from fsxsync.ports import EventQueue, ObjectHeaders, ObjectHint
from fsxsync.repository.queue import SqsQueue, open_queue

if TYPE_CHECKING:
    from contract.conftest import MotoWorld


@pytest.fixture(scope="session")
def sqs(moto: MotoServer) -> Iterator[Any]:
    client = moto.client("sqs")
    yield client
    client.close()


@pytest.fixture
def queue(moto: MotoServer, sqs: Any, request: pytest.FixtureRequest) -> Iterator[SqsQueue]:
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[:80]
    made = open_queue(sqs.create_queue(QueueName=name)["QueueUrl"], moto.access)
    yield made
    made.close()


def drained(queue: EventQueue) -> list[ObjectHint]:
    hints = []
    while messages := queue.receive(0):
        assert all(message.poison is None for message in messages)
        hints += [hint for message in messages for hint in message.hints]
        queue.delete([message.receipt for message in messages])
    return hints


def test_what_happens_in_the_bucket_comes_as_hints(
    queue: SqsQueue, sqs: Any, make_world: Callable[..., MotoWorld]
) -> None:
    world = make_world()
    arn = sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    world.client.put_bucket_notification_configuration(
        Bucket=world.bucket,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": events}]},
    )
    key = "p/a b+ü%"

    answer = world.store.put(key, b"1", ObjectHeaders(Posix(0o644), Kind.FILE), replaces=None)
    seen = world.store.head(key)
    assert seen is not None
    world.store.copy(key, key, Posix(0o600), Kind.FILE, expect=seen, replaces=seen)
    seen = world.store.head(key)
    assert seen is not None
    world.store.delete(key, expect=seen)

    hints = drained(queue)
    assert {(hint.bucket, hint.key) for hint in hints} == {(world.bucket, key)}
    assert hints[0].etag == answer.etag
    assert [hint.is_copy for hint in hints] == [False, True, False]
    assert drained(queue) == []


def test_a_message_that_is_not_deleted_stays_and_poison_is_shown(queue: SqsQueue, sqs: Any) -> None:
    sqs.send_message(QueueUrl=queue.url, MessageBody="what is\nthis \x07? " + "x" * 1000)
    queue.check()  # hides nothing

    (message,) = queue.receive(0)

    assert message.hints == ()
    assert message.poison is not None
    assert message.body_excerpt.startswith("what is\\nthis ")
    assert len(message.body_excerpt) < 300
    sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=message.receipt, VisibilityTimeout=0)
    (again,) = queue.receive(0)
    queue.delete([again.receipt])


def test_more_than_ten_are_deleted_in_batches(queue: SqsQueue, sqs: Any) -> None:
    body = json.dumps({"Event": "s3:TestEvent"})
    for _ in range(23):
        sqs.send_message(QueueUrl=queue.url, MessageBody=body)
    receipts: list[str] = []
    while messages := queue.receive(0):
        receipts += [message.receipt for message in messages]

    queue.delete(receipts)

    left = sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])["Attributes"]
    assert len(receipts) == 23
    assert left["ApproximateNumberOfMessagesNotVisible"] == left["ApproximateNumberOfMessages"] == "0"


@pytest.mark.parametrize(("wait_s", "asked_s"), [(2, 2), (load(None, {}, {}).queue_wait_s, 20), (60, 20)])
def test_ten_are_asked_for_at_a_time_and_the_queue_waits(queue: SqsQueue, sqs: Any, wait_s: int, asked_s: int) -> None:
    """SQS charges by the request: ten messages are what one brings at most, 20 s what it waits at most, and what a
    daemon asks for unless told otherwise."""
    sqs.send_message(QueueUrl=queue.url, MessageBody="{}")  # so that this test need not wait
    sent: list[dict[str, Any]] = []
    with queue._connection.ask("listen") as client:
        client.meta.events.register(
            "before-call.sqs.ReceiveMessage", lambda params, **_: sent.append(json.loads(params["body"]))
        )

    (message,) = queue.receive(wait_s)

    queue.delete([message.receipt])
    assert [(asked["MaxNumberOfMessages"], asked["WaitTimeSeconds"]) for asked in sent] == [(10, asked_s)]


def test_deleting_nothing_asks_nothing() -> None:
    open_queue("http://127.0.0.1:1/1/q", Access()).delete([])


def test_a_missing_queue_says_what_to_do(moto: MotoServer) -> None:
    queue = open_queue(f"{moto.url}/123456789012/nobody-made-it", moto.access)

    for ask in (queue.check, lambda: queue.receive(0)):
        with pytest.raises(RepositoryError, match=r"nobody-made-it: there is no such queue; create the queue"):
            ask()
    queue.close()


def test_a_dead_endpoint_and_a_missing_profile() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    queue = open_queue(f"http://127.0.0.1:{port}/1/q", Access())

    with pytest.raises(EndpointUnreachable):
        queue.receive(0)
    queue.close()
    with pytest.raises(BadCredentials):
        open_queue("http://127.0.0.1:1/1/q", Access(profile="nobody")).receive(0)


@pytest.mark.parametrize(
    "url", ["", "my-queue", "arn:aws:sqs:us-east-1:1:q", "https://sqs.us-east-1.amazonaws.com/", "s3://b"]
)
def test_what_is_no_queue_url_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(BadInput, match="no queue URL"):
        open_queue(url, Access())


@pytest.mark.parametrize(
    ("url", "access", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", Access(region="us-west-2"), "eu-west-1"),
        ("https://eu-central-1.queue.amazonaws.com/1/q", Access(), "eu-central-1"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1/q", Access(), "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", Access(), "cn-north-1"),
        ("http://localhost:9324/1/q", Access(region="us-west-2"), "us-west-2"),
        ("http://localhost:9324/1/q", Access(), "us-east-1"),
    ],
)
def test_endpoint_and_region_come_from_the_url(url: str, access: Access, region: str) -> None:
    queue = open_queue(url, replace(access, anonymous=True))

    with queue._connection.ask("look") as client:
        assert client.meta.region_name == region
        assert client.meta.endpoint_url == url.removesuffix("/1/q")
    queue.close()


def test_what_somebody_holds_is_still_left(moto: MotoServer, queue: SqsQueue) -> None:
    assert queue.left() == 0
    for number in range(3):
        moto.client("sqs").send_message(QueueUrl=queue.url, MessageBody=f"{number}")
    assert queue.left() == 3
    taken = queue.receive(0)
    assert queue.left() == 3
    queue.delete([message.receipt for message in taken])
    assert queue.left() == 3 - len(taken)


def test_a_message_may_be_held_and_given_back(queue: SqsQueue, sqs: Any) -> None:
    sqs.send_message(QueueUrl=queue.url, MessageBody="{}")
    (first,) = queue.receive(0)
    assert first.deliveries == 1
    queue.hold([first.receipt], 30)
    assert queue.receive(0) == []

    queue.hold([first.receipt], 0)

    (again,) = queue.receive(0)
    assert again.deliveries == 2
    queue.delete([again.receipt])


def test_a_queues_own_time_out_does_not_count(sqs: Any, moto: MotoServer) -> None:
    """A queue that hides messages for no time at all would give the same ones to each of our receives."""
    url = sqs.create_queue(QueueName="hides-nothing", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    queue = open_queue(url, moto.access)
    assert len(queue.receive(0)) == 1
    assert queue.receive(0) == []
    queue.close()


def test_it_is_known_whether_dead_letters_are_kept(queue: SqsQueue, sqs: Any) -> None:
    assert not queue.keeps_dead_letters()
    dead = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": policy})
    assert queue.keeps_dead_letters()
