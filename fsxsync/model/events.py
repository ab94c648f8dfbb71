"""Bodies of queue messages -> which objects to look at. Four envelopes (FSX-FACTS §11.1), and hostile input.

Whoever may send to the queue may send anything: nothing in here raises on what it reads. Unknown types of
events are passed over; what can't be read at all is ``poison``, with the reason.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT_MAX = 4096
"""A key has at most 1,024 bytes; etags and version ids are shorter still."""


class EventKind(enum.Enum):
    CREATED = "created"
    REMOVED = "removed"
    RESTORED = "restored"
    OTHER = "other"
    """The object's storage class or access tier moved: it may have become unreadable, or readable again."""


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something happened to ``key``. The fields are those of `ports.ObjectHint`, and ``kind``."""

    bucket: str
    key: str
    kind: EventKind
    etag: str | None = None
    version_id: str | None = None
    happened_ns: int | None = None
    is_copy: bool = False
    is_purge: bool = False
    """One version, or a delete marker, is gone for good: what lay below may be the object again."""


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """``hints`` may be empty: a test message, or types that don't matter. ``poison`` says what is unreadable.

    Both are set if a message has good and bad records.
    """

    hints: tuple[ObjectEvent, ...] = ()
    poison: str | None = None


class _UnreadableError(Exception):
    """Internal: why this body or record is poison."""


def parse_message(body: str) -> ParsedMessage:
    """Read one message: S3 directly (or raw from SNS), wrapped by SNS, or from EventBridge. Never raises."""
    try:
        return _parse(_object(_json(body), "the message"))
    except _UnreadableError as error:
        return ParsedMessage(poison=str(error))


def _parse(document: dict[str, Any], *, wrapped: bool = False) -> ParsedMessage:
    if "Type" in document and "TopicArn" in document and not wrapped:
        if document["Type"] != "Notification":
            raise _UnreadableError(f"SNS sent {_shown(document['Type'])}: the subscription is not confirmed")
        return _parse(_object(_json(document.get("Message")), "the SNS message"), wrapped=True)
    if "Records" in document:
        records = document["Records"]
        if not isinstance(records, list):
            raise _UnreadableError("'Records' is no list")
        return _each(records, _from_record)
    if document.get("Event") == "s3:TestEvent":
        return ParsedMessage()
    if "detail-type" in document:
        return _each([document], _from_event_bridge)
    raise _UnreadableError("it is no S3 event: neither 'Records' nor 'detail-type' nor an SNS notification")


def _each(records: list[Any], read: Callable[[dict[str, Any]], ObjectEvent | None]) -> ParsedMessage:
    events: list[ObjectEvent] = []
    poison = None
    for record in records:
        try:
            event = read(_object(record, "a record"))
        except _UnreadableError as error:
            poison = poison or str(error)
        else:
            if event is not None:
                events.append(event)
    return ParsedMessage(tuple(events), poison)


# ---------------------------------------------------------------- S3, directly or through SNS

_BY_FAMILY = {
    "ObjectCreated": EventKind.CREATED,
    "ObjectRemoved": EventKind.REMOVED,
    "LifecycleExpiration": EventKind.REMOVED,
    "ObjectRestore": EventKind.RESTORED,
    "LifecycleTransition": EventKind.OTHER,
    "IntelligentTiering": EventKind.OTHER,
}


def _from_record(record: dict[str, Any]) -> ObjectEvent | None:
    name = record.get("eventName")
    if not isinstance(name, str):
        raise _UnreadableError("a record has no 'eventName'")
    family, _, what = name.removeprefix("s3:").partition(":")  # MinIO keeps the prefix
    kind = _BY_FAMILY.get(family)
    if kind is None:
        return None
    s3 = _object(record.get("s3"), "'s3'")
    thing = _object(s3.get("object"), "'s3.object'")
    key = _required(thing.get("key"), "'s3.object.key'")
    try:
        key = unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise _UnreadableError("'s3.object.key' is no UTF-8 once decoded") from error
    return ObjectEvent(
        bucket=_required(_object(s3.get("bucket"), "'s3.bucket'").get("name"), "'s3.bucket.name'"),
        key=_required(key, "'s3.object.key'"),
        kind=kind,
        etag=_etag(thing.get("eTag", thing.get("etag"))),
        version_id=_version_id(thing.get("versionId")),
        happened_ns=_time_ns(record.get("eventTime")),
        is_copy=kind is EventKind.CREATED and what == "Copy",
        is_purge=kind is EventKind.REMOVED and what == "Delete" and _version_id(thing.get("versionId")) is not None,
    )


# ---------------------------------------------------------------- EventBridge

_BY_DETAIL_TYPE = {
    "Object Created": EventKind.CREATED,
    "Object Deleted": EventKind.REMOVED,
    "Object Restore Initiated": EventKind.RESTORED,
    "Object Restore Completed": EventKind.RESTORED,
    "Object Restore Expired": EventKind.RESTORED,
    "Object Storage Class Changed": EventKind.OTHER,
    "Object Access Tier Changed": EventKind.OTHER,
}
_NO_COPY = ("PutObject", "POST Object", "CompleteMultipartUpload")


def _from_event_bridge(document: dict[str, Any]) -> ObjectEvent | None:
    if document.get("source") != "aws.s3":
        raise _UnreadableError(f"it is no S3 event: its source is {_shown(document.get('source'))}")
    detail_type = document["detail-type"]
    kind = _BY_DETAIL_TYPE.get(detail_type) if isinstance(detail_type, str) else None
    if kind is None:
        return None
    detail = _object(document.get("detail"), "'detail'")
    bucket = _object(detail.get("bucket"), "'detail.bucket'")
    thing = _object(detail.get("object"), "'detail.object'")
    return ObjectEvent(
        bucket=_required(bucket.get("name"), "'detail.bucket.name'"),
        key=_required(thing.get("key"), "'detail.object.key'"),  # not URL-encoded here (FSX-FACTS §11.1)
        kind=kind,
        etag=_etag(thing.get("etag", thing.get("eTag"))),  # AWS and moto spell it differently
        version_id=_version_id(thing.get("version-id", thing.get("versionId"))),
        happened_ns=_time_ns(document.get("time")),
        # Where the reason is not told, it may have been a copy: the etag alone then proves nothing.
        is_copy=kind is EventKind.CREATED and detail.get("reason") not in _NO_COPY,
        is_purge=kind is EventKind.REMOVED and detail.get("deletion-type") == "Permanently Deleted",
    )


# ---------------------------------------------------------------- values from outside


def _json(text: object) -> object:
    if not isinstance(text, str):
        raise _UnreadableError("the message has no text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits and lists 100,000 deep
        raise _UnreadableError("it is no JSON") from error


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnreadableError(f"{name} is no JSON object")
    return value


def _text(value: object) -> str | None:
    """A string of sane length that UTF-8 can hold, or nothing."""
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return value


def _required(value: object, name: str) -> str:
    text = _text(value)
    if text is None:
        raise _UnreadableError(f"{name} is missing or no sensible text")
    return text


def _etag(value: object) -> str | None:
    text = _text(value)
    return (text.strip('"') or None) if text else None


def _version_id(value: object) -> str | None:
    """``null`` is what every unversioned write leaves: it tells no two versions apart."""
    text = _text(value)
    return None if text == "null" else text


def _time_ns(value: object) -> int | None:
    text = _text(value)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:  # moto leaves it out
            moment = moment.replace(tzinfo=UTC)
        happened_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        return None
    return happened_ns if 0 <= happened_ns < 2**63 else None  # what a column of the catalog holds


def _shown(value: object) -> str:
    return ascii(value)[:60]
