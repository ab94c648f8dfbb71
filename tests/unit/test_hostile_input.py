"""Whatever a bucket, a queue, a store, a client of the socket or a file says: it is understood or refused with one of
our errors, and nothing else is raised. A bug there would end the daemon for whoever may write to a bucket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from botocore.awsrequest import AWSResponse, HTTPHeaders
from fakes.administration import FakeAdministration
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsxsync.config import load
from fsxsync.control.app import create_app
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.errors import BadInput, KeyNotPosix, RepositoryError
from fsxsync.model import stub
from fsxsync.model.association import Access
from fsxsync.model.conflict import conflict_name, is_conflict_name
from fsxsync.model.events import parse_message
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.keys import path_of
from fsxsync.model.metadata import from_user_metadata, to_user_metadata
from fsxsync.model.parts import Part
from fsxsync.model.stub import StubMark
from fsxsync.ports import Answer, ObjectHeaders, UploadedPart
from fsxsync.repository import copying
from fsxsync.repository.answers import remote_of
from fsxsync.repository.asking import _refusal
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.copying import Source
from fsxsync.repository.heads import head_document, written_of
from fsxsync.repository.listing import parse_page
from fsxsync.repository.queue import open_queue
from fsxsync.repository.route import S3EventRoute
from fsxsync.repository.session import Connection
from fsxsync.repository.signing import Signer
from fsxsync.repository.translate import translate
from fsxsync.telemetry.eventlog import EventLog
from fsxsync.telemetry.log import escape, redact
from fsxsync.tree.beneath import check_path
from fsxsync.tree.staging import Note

few = settings(max_examples=150)
DEEP = b"[" * 50_000
SIZE_MAX = 2**63 - 1

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)

# ---------------------------------------------------------------- keys

PARTS = st.sampled_from(
    ["..", ".", "", "/", "//", "\0", "\x1b[2J", "a", "\u202e", "e\u0301", "\u00e9", "\ud800", "n" * 256]
)


@given(st.lists(PARTS | st.text(max_size=10), max_size=6).map("/".join), st.sampled_from(["", "p/", "a/../"]))
@example("../../etc/passwd", "")
@example("/etc/passwd", "")
@few
def test_a_key_is_refused_or_names_a_path_below_the_root(key: str, prefix: str) -> None:
    try:
        path, _ = path_of(prefix + key, prefix)
    except KeyNotPosix:
        return
    check_path(path)
    assert not path.startswith(b"/")
    assert not path.endswith(b"/")
    assert all(0 < len(part) <= 255 and part not in {b".", b".."} for part in path.split(b"/") if path)
    assert path.decode() == key.removesuffix("/")  # never normalised: two spellings are two names


@given(
    st.binary(min_size=1, max_size=255).filter(lambda name: not {b"/", b"\0"} & {bytes([c]) for c in name}), st.text()
)
@few
def test_a_conflict_copy_of_any_name_is_a_name(name: bytes, host: str) -> None:
    made = conflict_name(name, 0, host, 3)
    assert is_conflict_name(made)
    assert len(made) <= 255
    check_path(made)


# ---------------------------------------------------------------- what objects say

HEADER_NAMES = [
    "file-permissions", "file-owner", "file-group", "file-atime", "file-mtime", "mode", "uid", "gid", "mtime", "atime",
    "fsxsync-xattrs",
]  # fmt: skip
NUMBERS = st.integers(-(2**70), 2**70).map(str) | st.integers(0, 0o177777).map(lambda mode: f"{mode:07o}")
VALUES = NUMBERS | st.text(max_size=30) | st.sampled_from(["0107777", "nan", "1e999", "9" * 5000, "٣", "ns", "-0ns"])


@given(st.dictionaries(st.sampled_from(HEADER_NAMES), VALUES), st.sampled_from(["f", "d/"]))
@few
def test_metadata_asks_for_no_power_and_no_owner_that_is_none(meta: dict[str, str], key: str) -> None:
    kind, posix = from_user_metadata(meta, key=key)
    assert kind in {Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK}  # never a device, a FIFO or a socket
    assert posix.mode is None or posix.mode & ~(0o3777 if kind is Kind.DIRECTORY else 0o1777) == 0
    for owner in (posix.uid, posix.gid):
        assert owner is None or 0 <= owner < 2**32 - 1
    for time_ns in (posix.mtime_ns, posix.atime_ns):
        assert time_ns is None or abs(time_ns) <= SIZE_MAX
    assert from_user_metadata(to_user_metadata(kind, posix), key=key)[1].mode in {posix.mode, 0o777}


HEAD_NAMES = ["content-length", "last-modified", "etag", "date", "x-amz-version-id", "x-amz-storage-class",
              "x-amz-checksum-crc64nvme", "x-amz-checksum-type", "x-amz-restore", "x-amz-meta-file-mtime"]  # fmt: skip
HEAD_VALUES = VALUES | st.sampled_from(["3", "Tue, 24 Nov 2026 10:00:00 GMT", "Tue, 24 Nov 9999 99:00:00 +9999", '"e"'])


@given(st.lists(st.tuples(st.sampled_from(HEAD_NAMES), HEAD_VALUES), max_size=10))
@example([("content-length", "-1"), ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT")])
@example([("content-length", "9" * 30), ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT")])
@few
def test_headers_of_an_answer(headers: list[tuple[str, str]]) -> None:
    answer = Answer(200, tuple(headers), b"")
    try:
        remote = remote_of(head_document(answer), "k")
    except RepositoryError:
        pass
    else:
        assert 0 <= remote.size <= SIZE_MAX
    with suppress(RepositoryError):
        written_of(answer)


# ---------------------------------------------------------------- what stores answer

LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><EncodingType>url</EncodingType>'
    "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>{key}</Key>"
    "<LastModified>{time}</LastModified><ETag>e</ETag><Size>{size}</Size></Contents></ListBucketResult>"
)
TIME = "2026-11-24T10:00:00.000Z"


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A document with bytes cut out, put in or repeated."""
    start, end = sorted(draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    return whole[:start] + draw(st.binary(max_size=8) | st.just(whole[:end])) + whole[end:]


@given(damaged(LISTING.format(key="a%2Fb", time=TIME, size=3).encode()) | st.binary(max_size=80))
@example(LISTING.format(key="a", time="2026-11-24T10:00:00", size=3).encode())
@example(LISTING.format(key="a", time="0001-01-01T00:00:00+23:59", size=3).encode())
@example(LISTING.format(key="a", time=TIME, size=-3).encode())
@example(LISTING.format(key="a", time=TIME, size="9" * 40).encode())
@example(LISTING.format(key="a", time=TIME, size="9" * 5000).encode())
@example(b'<?xml version="1.0" encoding="nonesuch"?><ListBucketResult/>')
@example(b'<?xml version="1.0" encoding="utf-7"?><ListBucketResult/>')
@example(b"<ListBucketResult>" * 20_000)
@few
def test_a_listing(body: bytes) -> None:
    try:
        page = parse_page(body)
    except RepositoryError:
        return
    for listed in page.entries:
        assert 0 <= listed.size <= SIZE_MAX
        assert abs(listed.last_modified_ns) <= 2**62


ERROR = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no\x1b</Message></Error>"


@given(
    damaged(ERROR.replace(b"\x1b", b"")) | st.binary(max_size=80),
    st.integers(200, 599),
    st.sampled_from(["GET", "PUT"]),
)
@example(b'<?xml version="1.0" encoding="nonesuch"?><Error/>', 403, "GET")
@example(b'<?xml version="1.0" encoding="utf-7"?><Error/>', 403, "GET")
@example(b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><Error><Code>&b;</Code></Error>", 403, "GET")
@example(b"<Error><Code>a\n\xc2\x9bb</Code></Error>", 403, "GET")
@example(b"<a>" * 20_000, 403, "GET")
@few
def test_an_error_of_a_store(body: bytes, status: int, method: str) -> None:
    refusal = _refusal(Answer(status, (), body), method)
    if refusal is not None:
        said = str(translate(refusal, "HEAD of s3://b/k"))
        assert said.isprintable()


def test_a_signature_that_a_store_hands_back_is_not_told() -> None:
    text = b"see https://h/k?X-Amz-Signature=c0ffee&amp;x=1\n Authorization: AWS4-HMAC-SHA256 Signature=c0ffee"
    refusal = _refusal(Answer(403, (), ERROR.replace(b"\x1b", text)), "GET")
    assert refusal is not None
    assert "c0ffee" not in str(translate(refusal, "HEAD of s3://b/k"))


XML = '<?xml version="1.0" encoding="UTF-8"?>'
COPIED = f'{XML}<CopyObjectResult><LastModified>{TIME}</LastModified><ETag>"e"</ETag></CopyObjectResult>'.encode()
NO_ENCODINGS = [
    f'<?xml version="1.0" encoding="{name}"?><a><ETag>e</ETag></a>'.encode() for name in ("nonesuch", "gbk", "utf-7")
]


@given(damaged(COPIED) | st.binary(max_size=80))
@example(NO_ENCODINGS[0])
@example(NO_ENCODINGS[1])
@example(NO_ENCODINGS[2])
@example(b"<a>" * 20_000)
@few
def test_the_answer_to_a_copy(body: bytes) -> None:
    etag = copying.etag_of(Answer(200, (), body))
    assert etag is None or isinstance(etag, str)


PART = Part(1, 0, 3)
SOURCE = Source("b", "k", Remote(Kind.FILE, etag="e", size=3, last_modified_ns=0))
DONE = [UploadedPart(1, "e")]
ASKED: dict[str, tuple[Callable[[Bookkeeping], Any], str]] = {
    "CreateMultipartUpload": (
        lambda books: books.start_upload("k", ObjectHeaders(Posix(), Kind.FILE), checksum=False),
        "<InitiateMultipartUploadResult><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>",
    ),
    "UploadPartCopy": (
        lambda books: books.copy_part(SOURCE, "to", "u", PART),
        f'<CopyPartResult><LastModified>{TIME}</LastModified><ETag>"e"</ETag></CopyPartResult>',
    ),
    "CompleteMultipartUpload": (
        lambda books: books.complete_upload("k", "u", DONE, {}, crc64nvme=None),
        "<CompleteMultipartUploadResult><Key>k</Key><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>",
    ),
    "ListParts": (
        lambda books: books.parts_of("k", "u"),
        f"<ListPartsResult><Part><PartNumber>1</PartNumber><LastModified>{TIME}</LastModified>\
<ETag>e</ETag><Size>3</Size></Part></ListPartsResult>",
    ),
    "ListMultipartUploads": (
        lambda books: books.uploads_of("k"),
        f"<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId>\
<Initiated>{TIME}</Initiated></Upload></ListMultipartUploadsResult>",
    ),
    "GetObjectTagging": (
        lambda books: books.start_copy(SOURCE, "to", {}),
        "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    ),
}
SENSE: dict[str, Callable[[Any], bool]] = {
    "CreateMultipartUpload": lambda found: isinstance(found, str) and found != "",
    "UploadPartCopy": lambda found: found.etag != "",
    "CompleteMultipartUpload": lambda found: found.etag != "",
    "ListParts": lambda found: all(isinstance(part.number, int) and part.etag for part in found),
    "ListMultipartUploads": all,
    "GetObjectTagging": lambda found: isinstance(found, str) and found != "",
}
NOTHING_SAID = [
    b"<html><body/></html>",
    b"<a><CopyPartResult/><Part/><Upload><Key>k</Key></Upload><TagSet><Tag/></TagSet><ETag/><UploadId/></a>",
    b"<a><ETag>&quot;&quot;</ETag><Part><PartNumber>one</PartNumber></Part></a>",
    b"<a><Part><ETag>e</ETag></Part><Upload><Key>k</Key><Initiated>never</Initiated></Upload></a>",
    b"<a><IsTruncated>true</IsTruncated></a>",
    f"<a><Part><PartNumber>{'9' * 5000}</PartNumber></Part></a>".encode(),
    *NO_ENCODINGS,
]


class Answered:
    """Books whose store is not there: every request gets the same answer, and one that begins an upload a good one."""

    def __init__(self) -> None:
        self.body = b""
        self.named = ""
        self.books = Bookkeeping("b", Access(endpoint_url="http://127.0.0.1:1", anonymous=True))
        with self.books.connection.ask("") as client:
            client.meta.events.register_first("before-send.s3", self._answer)

    def _answer(self, request: Any, event_name: str, **_unused: object) -> AWSResponse:
        body = self.body
        if self.named == "GetObjectTagging" and event_name.endswith(".CreateMultipartUpload"):
            body = ASKED["CreateMultipartUpload"][1].encode()
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(body))


class Raw(io.BytesIO):
    def stream(self, *_unused: object) -> Iterator[bytes]:
        yield self.getvalue()


@pytest.fixture(scope="module")
def answered() -> Iterator[Answered]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.endpoint.time.sleep", lambda _s: None)  # before it asks again
        yield Answered()


def check_answer(answered: Answered, operation: str, body: bytes) -> None:
    answered.named, answered.body = operation, body
    with suppress(RepositoryError):
        assert SENSE[operation](ASKED[operation][0](answered.books)), body


@pytest.mark.parametrize("operation", ASKED)
def test_what_comes_by_boto3_and_says_nothing(answered: Answered, operation: str) -> None:
    for body in NOTHING_SAID:
        check_answer(answered, operation, body)

    ask, whole = ASKED[operation]
    answered.body = (XML + whole).encode()
    assert ask(answered.books)


@pytest.mark.parametrize("operation", ASKED)
@given(data=st.data())
@settings(max_examples=40)
def test_what_comes_by_boto3(answered: Answered, operation: str, data: st.DataObject) -> None:
    whole = (XML + ASKED[operation][1]).encode()
    check_answer(answered, operation, data.draw(damaged(whole) | st.binary(max_size=80)))


QUEUE_ANSWERS = [
    "null", "[]", "3", '"text"', "{}", DEEP.decode(), '{"Attributes": []}', '{"Attributes": {}}', '{"Messages": {}}',
    '{"Attributes": {"ApproximateNumberOfMessages": "²", "QueueArn": "x"}}', '{"Messages": [{}]}', '{"Messages": [3]}',
    '{"Messages": [{"ReceiptHandle": "r", "Body": 3}]}', '{"QueueUrl": 3}', '{"QueueUrl": "http://["}',
    '{"Messages": [{"ReceiptHandle": "r", "Body": "b", "Attributes": {"ApproximateReceiveCount": "²"}}]}',
    '{"QueueUrl": "u", "Attributes": {"QueueArn": "x", "Policy": "{\\"Statement\\": \\"x\\"}"}}',
    '{"QueueUrl": "u", "Attributes": {"QueueArn": "x", "Policy": 3}}',
]  # fmt: skip


@pytest.mark.parametrize("said", QUEUE_ANSWERS, ids=range(len(QUEUE_ANSWERS)))
def test_the_answers_of_a_queue(said: str) -> None:
    """Of ours, and of one that is to be made for a bucket."""

    def answer(request: Any, **_unused: object) -> AWSResponse:
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(said.encode()))

    access = Access(endpoint_url="http://127.0.0.1:1", anonymous=True)
    queue = open_queue("http://127.0.0.1:1/1/q", access)
    route = S3EventRoute("b", "", access, "q")
    for connection in (queue._connection, route._sqs):
        with connection.ask("") as client:
            client.meta.events.register_first("before-send.sqs", answer)

    asked: list[Callable[[], object]] = [
        queue.check, lambda: queue.receive(0), queue.left, queue.keeps_dead_letters, lambda: queue.delete(["r"]),
        lambda: queue.hold(["r"], 1), route._ensure_queue,
    ]  # fmt: skip
    for ask in asked:
        with suppress(RepositoryError):
            ask()


@pytest.mark.parametrize("url", ["http://[", "http://[x]/1/q", "q", "http:///q"])
def test_the_address_of_a_queue(url: str) -> None:
    with pytest.raises(BadInput):
        open_queue(url, Access())


def test_the_time_of_a_store_that_has_none() -> None:
    signer = Signer("b", Access(anonymous=True), Connection(lambda: pytest.fail("nothing is asked")))
    for date in (
        "",
        "Tue, 24 Nov 9999 23:59:59 -2359",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Tue, 24 Nov 99999999999 1:1:1",
    ):
        assert not signer.learn_time(date)


# ---------------------------------------------------------------- events

RECORD: dict[str, Any] = {
    "eventName": "ObjectCreated:Put",
    "eventTime": TIME,
    "s3": {"bucket": {"name": "b"}, "object": {"key": "a%2Fb", "eTag": "e", "versionId": "v", "sequencer": "0"}},
}
DIRECT = json.dumps({"Records": [RECORD]})
BRIDGE = json.dumps(
    {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
)
WRAPPED = json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": DIRECT})
WRAPPED_TWICE = json.dumps({"Type": "Notification", "Message": WRAPPED})


@given(
    st.sampled_from([DIRECT, BRIDGE, WRAPPED, WRAPPED_TWICE]).flatmap(lambda text: damaged(text.encode()))
    | JSON.map(lambda value: json.dumps(value).encode())
)
@example(DEEP)
@example(b'{"Records":' + DEEP)
@example(json.dumps({"Message": DEEP.decode()}).encode())
@example(
    b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff%00"}}}]}'
)
@few
def test_an_event(body: bytes) -> None:
    parsed = parse_message(body.decode("utf-8", "replace"))
    for hint in parsed.hints:
        assert hint.key.encode()
        assert hint.happened_ns is None or abs(hint.happened_ns) < 2**63


# ---------------------------------------------------------------- what is in the tree, and in the state directory


@given(
    damaged(StubMark("e", 3, "k").encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=40)
)
@example(DEEP)
@example(b'{"v":1,"etag":"e","size":Infinity,"key":"k"}')
@example(b'{"v":1,"etag":"e","size":"' + b"9" * 5000 + b'","key":"k"}')
@example(b'{"v":1,"etag":"e","size":99999999999999999999,"key":"k","version_id":{}}')
@example(b'{"v":1,"etag":"\\ud800","size":1,"key":"\\ud800"}')
@few
def test_a_mark_is_a_mark_however_it_reads(raw: bytes) -> None:
    """Anybody who may write to a file behind the mount may forge one."""
    mark = StubMark.decode(raw)
    assert mark.size <= SIZE_MAX
    assert mark.version_id is None or isinstance(mark.version_id, str)
    assert mark.encode()
    hash(mark)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(DEEP)
@example(b'{"path":"00","ino":Infinity,"size":1,"mtime_ns":1,"keep_as":null}')
@few
def test_a_note_of_the_staging_directory(raw: bytes) -> None:
    Note.decode(raw)


SETTINGS = [
    "state_dir",
    "export_delay_s",
    "chunk_size",
    "transfer_threads",
    "allow_other",
    "metrics_listen",
    "log_level",
]


@given(
    st.dictionaries(st.sampled_from(SETTINGS) | st.text(max_size=8), JSON, max_size=4),
    damaged(b'chunk_size = "8 MiB"\n'),
)
@few
def test_a_config_file(tmp_path_factory: pytest.TempPathFactory, members: dict[str, object], text: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    lines = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in members.items())
    for content in (lines.encode("utf-8", "replace"), text):
        file.write_bytes(content)
        with suppress(BadInput):
            load(file, {"HOME": "/root"}, {"state_dir": "/s"})


@given(st.dictionaries(st.sampled_from([f"FSXSYNC_{name.upper()}" for name in SETTINGS]), VALUES, max_size=3))
@few
def test_settings_in_the_environment(env: dict[str, str]) -> None:
    with suppress(BadInput):
        load(None, {"HOME": "/root", **env}, {})


# ---------------------------------------------------------------- the socket

OPERATIONS = [f"FsxSync_v1.{name}" for name in (
    "Associate", "UpdateAssociation", "DeleteAssociation", "Associations", "State", "Wait", "Conflicts",
    "AcceptDeletes", "ResolveConflict", "Check", "Status", "Drain")]  # fmt: skip
OPERATIONS += [
    f"AWSSimbaAPIService_v20180301.{name}DataRepositoryAssociation" for name in ("Create", "Update", "Delete")
]
OPERATIONS += [
    "AWSSimbaAPIService_v20180301." + name for name in ("DescribeDataRepositoryAssociations", "DescribeFileSystems")
]
MEMBERS = ["repository", "path", "paths", "id", "association", "keep", "timeout_s", "AssociationId", "Filters",
           "NextToken", "MaxResults", "S3", "FileSystemPath", "DataRepositoryPath", "FileSystemId", "recursive",
           "limits", "include", "exclude", "uid", "file_mode", "min_size", "max_age_s", "endpoint_url"]  # fmt: skip


@pytest.fixture(scope="module")
def eventlog(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    return EventLog(tmp_path_factory.mktemp("fuzz") / "events.jsonl", max_bytes=1 << 20, keep=1)


@given(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS) | st.text(max_size=10), st.dictionaries(st.sampled_from(MEMBERS), JSON)),
        min_size=20,
        max_size=20,
    )
)
@settings(max_examples=15)
def test_requests_of_any_kind(eventlog: EventLog, asked: list[tuple[str, dict[str, object]]]) -> None:
    """Each is answered, and by no internal error."""

    async def ask_all() -> None:
        async with trio.open_nursery() as nursery:
            app = create_app(
                FakeAdministration(), instance="0" * 17, undisturbed=Undisturbed(nursery), eventlog=eventlog
            )
            for target, members in asked:
                status, text = await ask(app, target, json.dumps(members).encode())
                assert status < 500, (target, members, text)

    trio.run(ask_all)


async def ask(app: Any, target: str, body: bytes) -> tuple[int, bytes]:
    """One request, as the server hands it to the application."""
    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"x-amz-target", target.encode("latin-1", "replace"))],
        "client": None, "server": None, "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    told: list[dict[str, Any]] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop()
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await app(scope, receive, send)
    return told[0]["status"], b"".join(message.get("body", b"") for message in told)


# ---------------------------------------------------------------- what is printed


@given(st.text())
@few
def test_what_is_escaped_steers_no_terminal(text: str) -> None:
    shown = escape(redact(text))
    assert shown.isprintable() or not set(shown) & set(map(chr, [*range(32), *range(127, 160)]))
    assert "\n" not in shown
    shown.encode()


_TEXTS = st.text(max_size=12) | st.sampled_from(['"', "\\", "é", "😀", "a\nb", "\x00", "]"])


@given(etag=_TEXTS, size=st.integers(-2, 2**64), key=_TEXTS, version=st.none() | _TEXTS, spoilt=st.integers(-1, 120))
def test_the_short_way_to_read_a_mark_reads_what_json_reads(
    etag: str, size: int, key: str, version: str | None, spoilt: int
) -> None:
    raw = bytearray(StubMark(etag, size, key, version).encode())
    if 0 <= spoilt < len(raw):
        raw[spoilt] ^= 0x05
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stub, "_PLAIN", lambda _raw: None)
        expected = StubMark.decode.__wrapped__(bytes(raw))

    assert StubMark.decode.__wrapped__(bytes(raw)) == expected
    if expected.size >= 0:
        assert StubMark.decode(bytes(raw)).encode() == raw


@given(etag=_TEXTS, size=st.integers(-2, 2**64), key=_TEXTS, version=st.none() | _TEXTS)
def test_the_short_way_to_write_a_mark_writes_what_json_writes(
    etag: str, size: int, key: str, version: str | None
) -> None:
    document = {"v": 1, "etag": etag, "size": size, "key": key, "version_id": version}
    written = json.dumps(document, separators=(",", ":"), ensure_ascii=False)

    assert StubMark(etag, size, key, version).encode() == written.encode()
