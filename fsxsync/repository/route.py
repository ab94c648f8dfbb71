"""The way of a bucket's events to us, made by ourselves: a queue, its policy, and a rule in the bucket's notifications.

The bucket's notifications are one document, which others write to as well: it is read, changed where it is ours,
written, and read again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from fsxsync.crashpoint import durable
from fsxsync.errors import (
    AccessDenied,
    BucketMissing,
    EventsOverlap,
    KeyRefused,
    QueueMissing,
    RepositoryError,
)
from fsxsync.model.association import Access, Association
from fsxsync.model.routing import EVENTS, Rule, filter_prefix, overlapping, route_name
from fsxsync.ports import HELD_S
from fsxsync.repository.queue import is_missing
from fsxsync.repository.session import Connection, s3_client, sqs_client
from fsxsync.repository.translate import said

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_KINDS = {
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}
_RETENTION_S = 14 * 86400
"""SQS's longest."""
_SETTLE_S = 1.0
"""SQS asks to wait so long before a new queue is used."""
_ATTEMPTS = 4
_GRANT = (
    "grant s3:GetBucketNotification and s3:PutBucketNotification on the bucket and sqs:CreateQueue, sqs:DeleteQueue,"
    " sqs:GetQueueUrl, sqs:GetQueueAttributes and sqs:SetQueueAttributes on the queue {name};"
    " or make them yourself and name the queue with --events sqs:QUEUE_URL"
)

Document = dict[str, Any]


def open_route(association: Association) -> S3EventRoute:
    """The way of an association's events; asks nothing over the network yet."""
    return S3EventRoute(association.bucket, association.prefix, association.access, route_name(association.id))


class S3EventRoute:
    """See `ports.EventRoute`. Blocking."""

    def __init__(self, bucket: str, prefix: str, access: Access, name: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._access = access
        self._name = name
        self._s3 = Connection(lambda: s3_client(access))
        self._sqs = Connection(self._queue_client)

    def _queue_client(self) -> SQSClient:
        """In the bucket's region, as S3 wants it; a store of its own address is asked for queues there as well."""
        endpoint = self._access.endpoint_url
        if endpoint is not None:
            return sqs_client(endpoint, None, self._access)
        with self._ask_bucket("HEAD") as client:
            return sqs_client(None, client.head_bucket(Bucket=self._bucket).get("BucketRegion"), self._access)

    # ------------------------------------------------------------- what is asked of it

    def ensure(self) -> str:
        """Make what is not there yet; the queue's URL. Asked again, it finds all in place and changes nothing.

        Raises:
            EventsOverlap: a rule of somebody else's takes the same events. RepositoryError.
        """
        self._check_overlap(self._rule(""), self._notifications())
        url, arn = self._ensure_queue()
        self._ensure_rule(self._rule(arn))
        return url

    def is_whole(self) -> bool:
        """The bucket still sends its events to the queue.

        Raises:
            RepositoryError
        """
        ours = [rule for rule in _rules(self._notifications()) if rule.id == self._name]
        return len(ours) == 1 and ours[0] == self._rule(ours[0].target)

    def remove(self) -> None:
        """Take away the rule, then the queue; what is not there is no error.

        Raises:
            RepositoryError
        """
        with suppress(BucketMissing):
            self._write(lambda document: _without(document, self._name), lambda rules: self._name not in rules)
        with suppress(QueueMissing, BucketMissing):
            url = self._queue_url()
            with self._ask_queue("removal") as client, durable("route.drop-queue"):
                client.delete_queue(QueueUrl=url)

    def close(self) -> None:
        """Close idle connections."""
        self._s3.close()
        self._sqs.close()

    # ------------------------------------------------------------- the queue

    def _queue_url(self) -> str:
        with self._ask_queue("finding") as client:
            return said(client.get_queue_url(QueueName=self._name), "QueueUrl")

    def _ensure_queue(self) -> tuple[str, str]:
        try:
            url = self._queue_url()
        except QueueMissing:
            settings: Any = {
                "MessageRetentionPeriod": str(_RETENTION_S),
                "VisibilityTimeout": str(HELD_S),
                "ReceiveMessageWaitTimeSeconds": "20",
            }
            with self._ask_queue("making") as client, durable("route.queue"):
                url = said(client.create_queue(QueueName=self._name, Attributes=settings), "QueueUrl")
            time.sleep(_SETTLE_S)
        with self._ask_queue("reading the settings") as client:
            told = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "Policy"])
            arn = said(told, "Attributes", "QueueArn")
            wanted = self._statement(arn)
            policy = _json_object(told["Attributes"].get("Policy", ""))
            statements = _statements(policy)
            if wanted not in statements:
                others = [one for one in statements if one.get("Sid") != wanted["Sid"]]
                policy = {"Version": "2012-10-17", **policy, "Statement": [*others, wanted]}
                with durable("route.policy"):
                    client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        return url, arn

    def _statement(self, arn: str) -> Document:
        """The bucket may send, and nobody else's bucket."""
        partition = arn.partition(":")[2].partition(":")[0]
        return {
            "Sid": "fsxsync",
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": f"arn:{partition}:s3:::{self._bucket}"}},
        }

    # ------------------------------------------------------------- the bucket's notifications

    def _rule(self, arn: str) -> Rule:
        return Rule(self._name, arn, tuple(sorted(EVENTS)), filter_prefix(self._prefix))

    def _notifications(self) -> Document:
        with self._ask_bucket("reading the notifications") as client:
            answer = cast(Document, client.get_bucket_notification_configuration(Bucket=self._bucket))
        answer.pop("ResponseMetadata", None)
        return answer

    def _check_overlap(self, rule: Rule, document: Document) -> None:
        other = overlapping(rule, _rules(document))
        if other is not None:
            keys = f"keys below '{other.prefix}'" if other.prefix else "all keys"
            raise EventsOverlap(
                f"events of s3://{self._bucket}/{self._prefix}",
                f"the bucket's notification '{other.id}' already sends those of {keys} to {other.target}",
            )

    def _ensure_rule(self, rule: Rule) -> None:
        def change(document: Document) -> Document:
            self._check_overlap(rule, document)
            if rule in _rules(document):
                return document
            changed = _without(document, rule.id)
            mine: Document = {"Id": rule.id, "QueueArn": rule.target, "Events": list(rule.events)}
            if rule.prefix:
                mine["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": rule.prefix}]}}
            changed["QueueConfigurations"] = [*changed.get("QueueConfigurations", []), mine]
            return changed

        self._write(change, lambda rules: rules.get(rule.id) == rule)

    def _write(self, change: Any, is_done: Any) -> None:
        """Read, change, write, and read again: somebody else may have done the same at the same moment."""
        for attempt in range(_ATTEMPTS):
            before = self._notifications()
            after = change(before)
            if after != before:
                try:
                    with self._ask_bucket("writing the notifications") as client, durable("route.rule"):
                        client.put_bucket_notification_configuration(
                            Bucket=self._bucket, NotificationConfiguration=cast(Any, after)
                        )
                except KeyRefused:
                    # A policy takes some seconds until S3 sees it: it can't send to the queue yet.
                    if attempt == _ATTEMPTS - 1:
                        raise
            if is_done({rule.id: rule for rule in _rules(self._notifications())}):
                return
            time.sleep(2.0**attempt)
        raise RepositoryError(
            f"notifications of s3://{self._bucket}",
            "what was written is not what is read: somebody else changes them too",
            advice="it is tried again",
        )

    # ------------------------------------------------------------- asking

    @contextmanager
    def _ask_bucket(self, what: str) -> Iterator[S3Client]:
        with self._advised(), self._s3.ask(f"{what} of s3://{self._bucket}") as client:
            yield client

    @contextmanager
    def _ask_queue(self, what: str) -> Iterator[SQSClient]:
        with self._advised(), self._sqs.ask(f"{what} of the queue {self._name}") as client:
            yield client

    @contextmanager
    def _advised(self) -> Iterator[None]:
        try:
            yield
        except AccessDenied as error:
            raise AccessDenied(error.what, error.why, advice=_GRANT.format(name=self._name)) from error
        except RepositoryError as error:
            if is_missing(error):
                raise QueueMissing(error.what, "there is no such queue") from error
            raise


def _rules(document: Mapping[str, Any]) -> list[Rule]:
    """All that send somewhere; EventBridge gets everything beside them."""
    found: list[Rule] = []
    for kind, target in _KINDS.items():
        for one in document.get(kind, []):
            filters = {
                str(item.get("Name", "")).lower(): str(item.get("Value", ""))
                for item in one.get("Filter", {}).get("Key", {}).get("FilterRules", [])
            }
            events = tuple(sorted(one.get("Events", [])))
            found.append(
                Rule(
                    one.get("Id", ""), one.get(target, ""), events, filters.get("prefix", ""), filters.get("suffix", "")
                )
            )
    return found


def _without(document: Document, name: str) -> Document:
    changed = dict(document)
    kept = [one for one in document.get("QueueConfigurations", []) if one.get("Id") != name]
    if kept:
        changed["QueueConfigurations"] = kept
    else:
        changed.pop("QueueConfigurations", None)
    return changed


def _json_object(text: str) -> Document:
    """A policy; an empty one where there is none, or none that can be read."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _statements(policy: Document) -> list[Document]:
    """Of a policy; one alone may stand there without a list."""
    found = policy.get("Statement", [])
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]
