"""Queue messages: four envelopes give the same hints, and nothing that anybody may send raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.model.events import EventKind, ObjectEvent, ParsedMessage, parse_message


def record(name: str = "ObjectCreated:Put", key: str = "a/b+c%2Bd%C3%BC", **thing: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-24T10:00:00.123Z",
        "eventName": name,
        "s3": {"bucket": {"name": "bucket"}, "object": {"key": key, "size": 3, **thing}},
    }


def direct(*records: object) -> str:
    return json.dumps({"Records": records})


def through_sns(body: str, **fields: str) -> str:
    return json.dumps(
        {
            "Type": "Notification",
            "TopicArn": "arn:aws:sns:us-east-1:1:t",
            "Message": body,
            "Signature": "x",
            **fields,
        }
    )


def event_bridge(detail_type: str = "Object Created", reason: str | None = "PutObject", **thing: Any) -> str:
    return json.dumps(
        {
            "version": "0",
            "detail-type": detail_type,
            "source": "aws.s3",
            "time": "2026-11-24T10:00:00Z",
            "detail": {
                "bucket": {"name": "bucket"},
                "object": {"key": "a/b+c d", "etag": "e", **thing},
                **({"reason": reason} if reason else {}),
            },
        }
    )


WANTED = ObjectEvent(
    bucket="bucket",
    key="a/b c+dü",
    kind=EventKind.CREATED,
    etag="e1",
    version_id="v1",
    happened_ns=1795514400123000000,
)


@pytest.mark.parametrize("wrap", [str, through_sns])
def test_s3s_own_envelope_alone_and_through_sns(wrap: Any) -> None:
    body = wrap(direct(record(eTag="e1", versionId="v1", sequencer="00A")))

    assert parse_message(body) == ParsedMessage((WANTED,))


def test_event_bridge_keys_are_taken_as_they_are() -> None:
    parsed = parse_message(event_bridge(**{"version-id": "v1"}))

    assert parsed == ParsedMessage(
        (ObjectEvent("bucket", "a/b+c d", EventKind.CREATED, "e", "v1", 1795514400000000000),)
    )


def test_event_bridge_as_moto_spells_it() -> None:
    body = json.loads(event_bridge(reason="ObjectCreated", eTag="e2"))
    del body["detail"]["object"]["etag"]

    (hint,) = parse_message(json.dumps(body)).hints

    assert hint.etag == "e2"
    assert hint.is_copy  # it does not say that it was none


def test_event_bridge_through_sns() -> None:
    assert parse_message(through_sns(event_bridge())).hints == parse_message(event_bridge()).hints != ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:Put", EventKind.CREATED),
        ("ObjectCreated:CompleteMultipartUpload", EventKind.CREATED),
        ("s3:ObjectCreated:Post", EventKind.CREATED),
        ("ObjectRemoved:Delete", EventKind.REMOVED),
        ("ObjectRemoved:DeleteMarkerCreated", EventKind.REMOVED),
        ("LifecycleExpiration:Delete", EventKind.REMOVED),
        ("LifecycleExpiration:DeleteMarkerCreated", EventKind.REMOVED),
        ("ObjectRestore:Completed", EventKind.RESTORED),
        ("LifecycleTransition", EventKind.OTHER),
        ("IntelligentTiering", EventKind.OTHER),
    ],
)
def test_events_that_change_what_an_object_is_give_a_hint(name: str, kind: EventKind) -> None:
    (hint,) = parse_message(direct(record(name))).hints

    assert hint.kind is kind


@pytest.mark.parametrize(
    ("detail_type", "kind"),
    [
        ("Object Deleted", EventKind.REMOVED),
        ("Object Restore Completed", EventKind.RESTORED),
        ("Object Storage Class Changed", EventKind.OTHER),
        ("Object Access Tier Changed", EventKind.OTHER),
    ],
)
def test_event_bridge_types_give_a_hint(detail_type: str, kind: EventKind) -> None:
    (hint,) = parse_message(event_bridge(detail_type)).hints

    assert (hint.kind, hint.is_copy) == (kind, False)


@pytest.mark.parametrize(
    "body",
    [
        direct(record("ObjectTagging:Put")),
        direct(record("ObjectAcl:Put")),
        direct(record("ReducedRedundancyLostObject")),
        direct(record("Something:New")),
        event_bridge("Object Tags Added"),
        event_bridge("Object ACL Updated"),
        direct(),
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}),
        through_sns(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"})),
    ],
)
def test_what_does_not_matter_gives_no_hint_and_is_no_poison(body: str) -> None:
    assert parse_message(body) == ParsedMessage()


def test_a_copy_is_said_to_be_one() -> None:
    (put, copied) = parse_message(direct(record(), record("ObjectCreated:Copy"))).hints

    assert (put.is_copy, copied.is_copy) == (False, True)
    assert parse_message(event_bridge(reason="CopyObject")).hints[0].is_copy


def test_a_purge_is_told_from_a_delete() -> None:
    """An undelete is the purge of a delete marker: what comes of it, only the bucket knows."""
    version = record("ObjectRemoved:Delete", versionId="v1")
    unversioned = record("ObjectRemoved:Delete")
    marker = record("ObjectRemoved:DeleteMarkerCreated", versionId="v2")
    told = parse_message(direct(version, unversioned, marker)).hints
    assert [hint.is_purge for hint in told] == [True, False, False]

    for word, is_purge in (("Permanently Deleted", True), ("Delete Marker Created", False)):
        document = json.loads(event_bridge("Object Deleted"))
        document["detail"]["deletion-type"] = word
        assert parse_message(json.dumps(document)).hints[0].is_purge is is_purge


def test_the_null_version_is_no_version() -> None:
    assert parse_message(direct(record(versionId="null"))).hints[0].version_id is None


def test_quotes_around_an_etag_are_stripped() -> None:
    assert parse_message(direct(record(eTag='"e1"'))).hints[0].etag == "e1"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-24T10:00:00", 1795514400000000000),
        ("2026-11-24T11:00:00+01:00", 1795514400000000000),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        (17, None),
    ],
)
def test_a_time_that_makes_no_sense_is_left_out(text: object, wanted: int | None) -> None:
    bad = record()
    bad["eventTime"] = text

    (hint,) = parse_message(direct(bad)).hints

    assert hint.happened_ns == wanted


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"Records": ' + "9" * 5000 + "}", "no JSON"),
        ("[]", "no JSON object"),
        ("null", "no JSON object"),
        ("{}", "no S3 event"),
        ('{"Records": {}}', "no list"),
        ('{"Records": ["x"]}', "a record is no JSON object"),
        ('{"Records": [{}]}', "no 'eventName'"),
        ('{"Records": [{"eventName": "ObjectCreated:Put"}]}', "'s3' is no JSON object"),
        (direct(record(key="")), "'s3.object.key'"),
        (direct(record(key="%ff")), "UTF-8"),
        (direct(record(key="x" * 5000)), "'s3.object.key'"),
        (direct(record()).replace("a/b+c", "\\ud800"), "'s3.object.key'"),
        (direct(record()).replace('"bucket"}', "3}"), "'s3.bucket.name'"),
        (through_sns("not json"), "no JSON"),
        (through_sns(through_sns(direct(record()))), "no S3 event"),
        (through_sns("x", Type="SubscriptionConfirmation"), "not confirmed"),
        ('{"Type": "Notification", "TopicArn": "t", "Message": 3}', "no text"),
        ('{"detail-type": "Object Created", "source": "aws.ec2"}', "its source is 'aws.ec2'"),
        ('{"detail-type": "Object Created", "source": "aws.s3", "detail": []}', "'detail' is no JSON object"),
    ],
)
def test_what_cant_be_read_is_poison_with_the_reason(body: str, why: str) -> None:
    parsed = parse_message(body)

    assert parsed.hints == ()
    assert parsed.poison is not None
    assert why in parsed.poison


def test_a_bad_record_does_not_cost_the_good_ones() -> None:
    parsed = parse_message(direct({"eventName": 1}, record()))

    assert len(parsed.hints) == 1
    assert parsed.poison is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MUTABLE = [
    ["Records"],
    ["Records", 0],
    ["Records", 0, "eventName"],
    ["Records", 0, "eventTime"],
    ["Records", 0, "s3"],
    ["Records", 0, "s3", "bucket"],
    ["Records", 0, "s3", "bucket", "name"],
    ["Records", 0, "s3", "object"],
    ["Records", 0, "s3", "object", "key"],
    ["Records", 0, "s3", "object", "eTag"],
    ["Records", 0, "s3", "object", "versionId"],
    ["detail-type"],
    ["source"],
    ["time"],
    ["detail"],
    ["detail", "bucket"],
    ["detail", "object"],
    ["detail", "object", "key"],
    ["detail", "object", "etag"],
    ["detail", "reason"],
]


@given(st.sampled_from(MUTABLE), JSON, st.booleans())
def test_no_wrong_type_at_any_level_raises(where: list[Any], value: object, wrap: bool) -> None:
    body = direct(record()) if where[0] == "Records" else event_bridge()
    document = json.loads(body)
    inner = document
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    text = json.dumps(document)

    parsed = parse_message(through_sns(text) if wrap else text)

    for hint in parsed.hints:
        assert isinstance(hint.key, str)
        assert hint.key.encode()
        assert isinstance(hint.bucket, str)
        assert hint.etag is None or isinstance(hint.etag, str)
        assert hint.version_id is None or isinstance(hint.version_id, str)
        assert hint.happened_ns is None or isinstance(hint.happened_ns, int)


@given(st.text())
def test_no_text_raises(body: str) -> None:
    parse_message(body)
