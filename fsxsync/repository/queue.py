"""An SQS queue of object events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from fsxsync.crashpoint import durable
from fsxsync.errors import AccessDenied, BadInput, QueueMissing, RepositoryError
from fsxsync.model.association import Access
from fsxsync.model.events import EventKind, parse_message
from fsxsync.ports import HELD_S, ObjectHint, QueueMessage
from fsxsync.repository.session import Connection, sqs_client
from fsxsync.repository.translate import NonsenseError, code_of, one_line, said

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_BATCH = 10
"""SQS gives and takes at most ten messages in one request."""
_EXCERPT = 200
_COUNTS: tuple[QueueAttributeNameType, ...] = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_LONGEST_WAIT_S = 20
_NUMBER = re.compile(r"[0-9]{1,18}")
_AWS_HOST = re.compile(
    r"(?:(?:sqs|vpce-[a-z0-9-]+\.sqs)\.)?([a-z]{2}(?:-[a-z]+)+-[0-9]+)(?:\.queue|\.vpce)?"
    r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws)"
)
_GRANT = "grant sqs:ReceiveMessage and sqs:DeleteMessage on the queue"
_MISSING = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})


def open_queue(url: str, access: Access) -> SqsQueue:
    """The queue behind ``url``; asks nothing over the network yet.

    Raises:
        BadInput: not the URL of a queue.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # an address in brackets that is none
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.strip("/"):
        raise BadInput(
            f"'{one_line(url)}' is no queue URL",
            "it is not like https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            advice="'aws sqs get-queue-url --queue-name NAME' prints it",
        )
    matched = _AWS_HOST.fullmatch(parts.hostname)
    return SqsQueue(url, f"{parts.scheme}://{parts.netloc}", matched[1] if matched else None, access)


class SqsQueue:
    """See `ports.EventQueue`. Blocking, safe for use in threads."""

    def __init__(self, url: str, endpoint_url: str, region: str | None, access: Access) -> None:
        self.url = url
        self._connection = Connection(lambda: sqs_client(endpoint_url, region, access))

    def check(self) -> None:
        """The queue exists and may be read; raises what a person has to mend."""
        with self._ask("check") as client:
            # Without hiding what it reads: whoever serves the queue must not wait for it.
            client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=1, VisibilityTimeout=0, WaitTimeSeconds=0)

    def receive(self, wait_s: int) -> list[QueueMessage]:
        """Up to ten messages; waits at most ``wait_s`` (0 to 20) for the first.

        Raises:
            RepositoryError
        """
        with self._ask("reading") as client:
            answer = client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=_BATCH,
                VisibilityTimeout=HELD_S,
                WaitTimeSeconds=min(max(wait_s, 0), _LONGEST_WAIT_S),
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            return [_message(message) for message in answer.get("Messages", [])]

    def hold(self, receipts: Sequence[str], seconds: int) -> None:
        """See `ports.EventQueue.hold`. One that could not be held is somebody else's soon, and costs one more look.

        Raises:
            RepositoryError
        """
        for start in range(0, len(receipts), _BATCH):
            with self._ask("holding messages") as client:
                client.change_message_visibility_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
                        for index, receipt in enumerate(receipts[start : start + _BATCH])
                    ],
                )

    def keeps_dead_letters(self) -> bool:
        """See `ports.EventQueue`.

        Raises:
            RepositoryError
        """
        try:
            with self._ask("reading the settings") as client:
                answer = client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["RedrivePolicy"])
        except AccessDenied:
            return False
        return bool(answer.get("Attributes", {}).get("RedrivePolicy"))

    def left(self) -> int | None:
        """Messages that nobody has deleted yet, those that somebody has just received included; None where the
        policy does not allow to ask. SQS calls its numbers approximate: they are right once the queue is quiet.

        Raises:
            RepositoryError
        """
        try:
            with self._ask("counting messages") as client:
                answer = client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(_COUNTS))
                return sum(_count(said(answer, "Attributes", name)) for name in _COUNTS)
        except AccessDenied:
            return None

    def delete(self, receipts: Sequence[str]) -> None:
        """Take messages out of the queue. One that could not be deleted comes again, and costs one more look.

        Raises:
            RepositoryError
        """
        for start in range(0, len(receipts), _BATCH):
            batch = receipts[start : start + _BATCH]
            with self._ask("deleting messages") as client, durable("event.delete"):
                client.delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(batch)],
                )

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()

    @contextmanager
    def _ask(self, what: str) -> Iterator[SQSClient]:
        what = f"{what} of the queue {self.url}"
        try:
            with self._connection.ask(what) as client:
                yield client
        except AccessDenied as error:
            raise AccessDenied(error.what, error.why, advice=_GRANT) from error
        except RepositoryError as error:
            if is_missing(error):
                raise QueueMissing(one_line(what), "there is no such queue") from error.__cause__
            raise


def is_missing(error: RepositoryError) -> bool:
    """SQS said that there is no such queue."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and code_of(cause) in _MISSING


def _count(told: str) -> int:
    if not _NUMBER.fullmatch(told):
        raise NonsenseError("it tells no number of messages")
    return int(told)


def _message(message: MessageTypeDef) -> QueueMessage:
    receipt, body = said(message, "ReceiptHandle"), message.get("Body") or ""
    if not isinstance(body, str):
        raise NonsenseError("a message is no text")
    told = str(message.get("Attributes", {}).get("ApproximateReceiveCount", ""))
    parsed = parse_message(body)
    return QueueMessage(
        receipt=receipt,
        hints=tuple(
            ObjectHint(
                bucket=hint.bucket,
                key=hint.key,
                # Only of a creation do they tell what is there now: a removal names what went.
                etag=hint.etag if hint.kind is EventKind.CREATED else None,
                version_id=hint.version_id if hint.kind is EventKind.CREATED else None,
                happened_ns=hint.happened_ns,
                is_removal=hint.kind is EventKind.REMOVED,
                is_copy=hint.is_copy,
                is_purge=hint.is_purge,
            )
            for hint in parsed.hints
        ),
        poison=parsed.poison,
        body_excerpt=one_line(body[:_EXCERPT]),
        deliveries=int(told) if _NUMBER.fullmatch(told) else 1,
    )
