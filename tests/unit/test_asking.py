"""One request until it is answered for good, over a wire that says what the test wrote down."""

from __future__ import annotations

import hashlib
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import trio
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HTTPHeaders
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fsxsync.errors import (
    AccessDenied,
    BadCredentials,
    BucketMissing,
    EndpointUnreachable,
    FsxSyncError,
    KeyRefused,
    LocalChanged,
    NoSpace,
    ObjectChanged,
    ObjectMissing,
    RepositoryError,
    Throttled,
)
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix
from fsxsync.ports import Answer, Conditions, FileRange, ObjectHeaders, Priority, SignedRequest
from fsxsync.repository import requests
from fsxsync.repository.asking import ATTEMPTS, Asker, backoff_s
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.requests import Request
from fsxsync.repository.session import Connection, s3_client
from fsxsync.repository.signing import Signer
from fsxsync.repository.store import S3Store

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105 - of AWS's own examples
TOKEN = "FwoGZXIvYXdzEOTHER"  # noqa: S105
NOW = datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC)
LOCAL = Access(endpoint_url="http://127.0.0.1:9000", region="eu-west-3")
FAR = Access(region="us-west-1")
"""Of AWS itself, in the wrong region."""
FILE = ObjectHeaders(Posix(0o644), Kind.FILE)
PUT = requests.put("k", FILE, LOCAL)
HEAD = requests.head("k")
GET = requests.get("k", etag=None)


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as env:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            env.delenv(name)
        env.setenv("AWS_ACCESS_KEY_ID", "AKID")
        env.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        env.setenv("AWS_CONFIG_FILE", os.devnull)
        env.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        env.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def local_connection(credentials: None) -> Iterator[Connection[Any]]:
    made = Connection(lambda: s3_client(LOCAL))
    yield made
    made.close()


Said = Answer | FsxSyncError | Callable[[SignedRequest], Answer]


class ScriptedWire:
    """Says what was written down, the last of it again and again; `sent` is what it was asked, and when."""

    def __init__(self, *script: Said) -> None:
        self._script = list(script)
        self.sent: list[SignedRequest] = []
        self.times: list[float] = []
        self.settings: list[dict[str, Any]] = []
        self.gate: trio.Event | None = None
        """Nothing is answered before it is set."""

    async def send(self, request: SignedRequest, **settings: Any) -> Answer:
        said = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        self.sent.append(request)
        self.times.append(trio.current_time())
        self.settings.append(settings)
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(said, FsxSyncError):
            raise said
        return said if isinstance(said, Answer) else said(request)


def answer(status: int, body: str = "", **headers: str) -> Answer:
    named = {"date": format_datetime(NOW, usegmt=True)} | headers
    return Answer(status, tuple((name.replace("_", "-"), value) for name, value in named.items()), body.encode())


def refusal(status: int, code: str, message: str = "because", **headers: str) -> Answer:
    body = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return answer(status, body, **headers)


OK = answer(200, etag='"e"')
UNREACHABLE = EndpointUnreachable("HEAD", "reset")

Make = Callable[..., tuple[Asker, ScriptedWire]]


@pytest.fixture
def make(local_connection: Connection[Any]) -> Make:
    """An asker of ``bucket``, and its wire."""

    def made(*script: Said) -> tuple[Asker, ScriptedWire]:
        wire = ScriptedWire(*script)
        signer = Signer("bucket", LOCAL, local_connection, clock=NOW.timestamp)
        signer.sign(HEAD)  # else the first request would look for credentials in a thread, which no test's clock sees
        return Asker(wire, signer, Bookkeeping("bucket", LOCAL).ask_bucket), wire

    return made


async def ask(asker: Asker, request: Request = HEAD, **settings: Any) -> Answer:
    return await asker.ask(request, what="HEAD of s3://bucket/k", **settings)


def short(value: object) -> str:
    """A case's name."""
    if isinstance(value, Answer):
        code = re.search(rb"<Code>(\w+)", value.body)
        return f"{value.status} {code[1].decode() if code else ''}".strip()
    return getattr(value, "method", type(value).__name__ if isinstance(value, Exception) else str(value))


def key_id(request: SignedRequest) -> str:
    return dict(request.headers)["Authorization"].partition("Credential=")[2].partition("/")[0]


def header(request: SignedRequest, name: str) -> str | None:
    return {name.lower(): value for name, value in request.headers}.get(name)


# ---------------------------------------------------------------- what goes out


async def test_all_that_is_asked_reaches_the_wire(make: Make) -> None:
    asker, wire = make(OK)
    into = FileRange(3, 4, 5)

    got = await asker.ask(GET, what="that", priority=Priority.PRELOAD, into=into, object_offset=4)

    assert got is OK
    assert wire.settings == [
        {
            "what": "that",
            "priority": Priority.PRELOAD,
            "body": b"",
            "body_crc64nvme": None,
            "into": into,
            "object_offset": 4,
        }
    ]


async def test_over_plain_http_a_body_in_memory_is_signed_and_a_files_is_not(make: Make) -> None:
    asker, wire = make(OK)

    await ask(asker, PUT, body=b"hello")
    await ask(asker, PUT, body=FileRange(0, 0, 5), body_crc64nvme=1)

    signed = [header(sent, "x-amz-content-sha256") for sent in wire.sent]
    assert signed == [hashlib.sha256(b"hello").hexdigest(), "UNSIGNED-PAYLOAD"]


# ---------------------------------------------------------------- again

BUSY = [
    UNREACHABLE,
    answer(500),
    answer(503),
    answer(429),
    refusal(500, "InternalError"),
    refusal(503, "SlowDown"),
    refusal(409, "OperationAborted"),
    refusal(400, "RequestTimeout"),
    refusal(400, "BadDigest"),
    refusal(200, "InternalError"),
]
"""What may be otherwise a moment later; the last one is what becomes of a copy that fails after it began to answer."""


@pytest.mark.parametrize("busy", BUSY, ids=short)
async def test_what_may_be_otherwise_later_is_asked_again(make: Make, autojump_clock: MockClock, busy: Said) -> None:
    asker, wire = make(*[busy] * (ATTEMPTS - 1), OK)

    assert await ask(asker, PUT) is OK

    assert len(wire.sent) == ATTEMPTS


@pytest.mark.parametrize("busy", BUSY, ids=short)
async def test_not_forever(make: Make, autojump_clock: MockClock, busy: Said) -> None:
    asker, wire = make(busy)

    with pytest.raises(EndpointUnreachable if busy is UNREACHABLE else Throttled):
        await ask(asker, PUT)

    assert len(wire.sent) == ATTEMPTS


async def test_each_time_after_a_longer_wait(
    make: Make, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    asker, wire = make(UNREACHABLE)

    with pytest.raises(EndpointUnreachable):
        await ask(asker)

    waits = [later - earlier for earlier, later in zip(wire.times, wire.times[1:], strict=False)]
    assert waits == pytest.approx([backoff_s(attempt, 1.0) for attempt in range(1, ATTEMPTS)])
    assert waits == sorted(waits)


async def test_each_time_with_a_signature_of_its_own(make: Make, autojump_clock: MockClock) -> None:
    asker, wire = make(answer(503), OK)
    clock = iter([NOW.timestamp(), NOW.timestamp() + 60])
    asker._signer._clock = lambda: next(clock)

    await ask(asker)

    assert [header(sent, "x-amz-date") for sent in wire.sent] == ["20260228T235958Z", "20260301T000058Z"]


@given(attempt=st.integers(1, 200), jitter=st.floats(0, 1))
def test_a_wait_is_bounded(attempt: int, jitter: float) -> None:
    assert 0 <= backoff_s(attempt, jitter) <= 5.0
    assert backoff_s(attempt, jitter) <= backoff_s(attempt + 1, jitter)
    assert backoff_s(attempt, 0) == 0
    assert backoff_s(1, 1) == 0.2


async def test_cancelled_while_it_waits_nothing_more_is_sent(
    make: Make, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    asker, wire = make(answer(503))

    with trio.move_on_after(0.5) as scope:  # in the second wait
        await ask(asker)

    assert scope.cancelled_caught
    assert len(wire.sent) == 2
    assert trio.current_time() == pytest.approx(wire.times[0] + 0.5)


async def cancelled_while_it_is_sent(asker: Asker, wire: ScriptedWire, *, finish: bool) -> list[Answer]:
    """What somebody got who was cancelled before the store answered."""
    got: list[Answer] = []
    gate = wire.gate = trio.Event()

    async def put() -> None:
        got.append(await ask(asker, PUT, finish=finish))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        gate.set()
    return got


async def test_what_takes_effect_is_answered_even_if_its_caller_is_cancelled(make: Make) -> None:
    assert await cancelled_while_it_is_sent(*make(OK), finish=True) == [OK]
    assert await cancelled_while_it_is_sent(*make(OK), finish=False) == []


async def test_what_takes_effect_is_not_sent_again_once_its_caller_is_cancelled(make: Make) -> None:
    asker, wire = make(UNREACHABLE)

    assert await cancelled_while_it_is_sent(asker, wire, finish=True) == []

    assert len(wire.sent) == 1


FINAL: list[tuple[Said, Request, type[Exception]]] = [
    (refusal(403, "AccessDenied"), GET, AccessDenied),
    (answer(404), HEAD, ObjectMissing),
    (refusal(404, "NoSuchKey"), GET, ObjectMissing),
    (refusal(404, "NoSuchBucket"), GET, BucketMissing),
    (refusal(412, "PreconditionFailed"), PUT, ObjectChanged),
    (answer(416), GET, ObjectChanged),
    (refusal(400, "KeyTooLongError"), PUT, KeyRefused),
    (answer(304), GET, RepositoryError),
    (refusal(200, "AccessDenied"), PUT, AccessDenied),
    (answer(418, "<html>teapot"), GET, RepositoryError),
    (LocalChanged("k", "shorter"), PUT, LocalChanged),
    (NoSpace("k", "full"), GET, NoSpace),
    (RepositoryError("k", "another range"), GET, RepositoryError),
]


@pytest.mark.parametrize(("said", "request_", "wanted"), FINAL, ids=short)
async def test_what_stays_as_it_is_is_asked_once(
    make: Make, said: Said, request_: Request, wanted: type[Exception]
) -> None:
    asker, wire = make(said)

    with pytest.raises(wanted) as raised:
        await ask(asker, request_)

    assert type(raised.value) is wanted
    assert len(wire.sent) == 1


@pytest.mark.parametrize("before", ["", "\n ", " " * 3000])
async def test_an_error_within_a_200_is_one_whatever_kept_the_connection_awake(make: Make, before: str) -> None:
    asker, _ = make(answer(200, before + refusal(200, "AccessDenied").body.decode()))

    with pytest.raises(AccessDenied):
        await ask(asker, PUT)


async def test_an_object_that_looks_like_an_error_is_an_object(make: Make) -> None:
    said = refusal(200, "AccessDenied")
    asker, _ = make(said)

    assert await ask(asker, GET) is said


# ---------------------------------------------------------------- the store's clock

THERE = NOW + timedelta(hours=1)
LATE = format_datetime(THERE, usegmt=True)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (GET, refusal(403, "RequestTimeTooSkewed", date=LATE)),
        (PUT, refusal(400, "RequestExpired", date=LATE)),
        (HEAD, answer(403, date=LATE)),
        (HEAD, answer(400, date=LATE)),
    ],
    ids=short,
)
async def test_the_stores_clock_is_taken_once_and_kept(make: Make, request_: Request, said: Answer) -> None:
    asker, wire = make(said, OK)

    await ask(asker, request_)
    await ask(asker, request_)

    there = THERE.strftime("%Y%m%dT%H%M%SZ")
    assert [header(sent, "x-amz-date") for sent in wire.sent] == ["20260228T235958Z", there, there]


async def test_a_clock_that_runs_away_is_not_chased(make: Make) -> None:
    hours = iter(range(1, 100))

    def later(_request: SignedRequest) -> Answer:
        date = format_datetime(NOW + timedelta(hours=next(hours)), usegmt=True)
        return refusal(403, "RequestTimeTooSkewed", date=date)

    asker, wire = make(later)

    with pytest.raises(BadCredentials, match="set this machine's clock"):
        await ask(asker)

    assert len(wire.sent) == 2


async def test_requests_that_were_refused_together_are_all_signed_anew(make: Make) -> None:
    def by_the_clock(request: SignedRequest) -> Answer:
        right = header(request, "x-amz-date") == THERE.strftime("%Y%m%dT%H%M%SZ")
        return OK if right else refusal(403, "RequestTimeTooSkewed", date=LATE)

    asker, wire = make(by_the_clock)
    wire.gate = trio.Event()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask, asker)
        await wait_all_tasks_blocked()
        assert len(wire.sent) == 8
        wire.gate.set()

    assert len(wire.sent) == 16


# ---------------------------------------------------------------- credentials


def known_keys(*known: str) -> Callable[[SignedRequest], Answer]:
    return lambda request: OK if key_id(request) in known else refusal(403, "InvalidAccessKeyId")


def token_is(token: str, *, refused: Answer) -> Callable[[SignedRequest], Answer]:
    return lambda request: OK if header(request, "x-amz-security-token") == token else refused


@pytest.mark.parametrize(
    ("request_", "refused"),
    [(GET, refusal(400, "ExpiredToken")), (HEAD, answer(400)), (HEAD, answer(403))],
    ids=short,
)
async def test_an_expired_token_is_looked_up_anew(
    make: Make, monkeypatch: pytest.MonkeyPatch, request_: Request, refused: Answer
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
    asker, wire = make(token_is("old", refused=refused), token_is(TOKEN, refused=refused))
    await ask(asker, request_)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)

    await ask(asker, request_)
    await ask(asker, request_)

    assert [header(sent, "x-amz-security-token") for sent in wire.sent] == ["old", "old", TOKEN, TOKEN]


async def test_credentials_that_did_not_change_are_not_tried_again(make: Make) -> None:
    asker, wire = make(known_keys())

    with pytest.raises(BadCredentials, match="InvalidAccessKeyId"):
        await ask(asker)

    assert len(wire.sent) == 1


async def test_credentials_that_change_all_the_time_are_tried_twice(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: SignedRequest) -> Answer:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id(request) + "X")
        return refusal(403, "InvalidAccessKeyId")

    asker, wire = make(refuse)

    with pytest.raises(BadCredentials):
        await ask(asker)

    assert [key_id(sent) for sent in wire.sent] == ["AKID", "AKIDX"]


async def test_a_clients_old_credentials_are_forgotten_with_the_signers(
    make: Make, monkeypatch: pytest.MonkeyPatch, local_connection: Connection[Any]
) -> None:
    asker, _ = make(known_keys("AKID"), known_keys("OTHER"))
    await ask(asker)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")

    await ask(asker)

    with local_connection.ask("") as client:
        assert client._request_signer._credentials.access_key == "OTHER"
    local_connection.forget()


# ---------------------------------------------------------------- another region


class _NoBody:
    def stream(self) -> Iterator[bytes]:
        return iter(())


Elsewhere = Callable[[AWSPreparedRequest], AWSResponse]


def told(request: AWSPreparedRequest, status: int, **headers: str) -> AWSResponse:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return AWSResponse(request.url, status, HTTPHeaders.from_pairs(pairs), _NoBody())


@pytest.fixture
def make_far() -> Iterator[Callable[..., tuple[Asker, ScriptedWire, list[str]]]]:
    """An asker of a bucket of AWS's, its wire, and the addresses that botocore asked (``elsewhere`` answers it)."""
    connections: list[Connection[Any]] = []

    def made(elsewhere: Elsewhere, *script: Said) -> tuple[Asker, ScriptedWire, list[str]]:
        books = Bookkeeping("bucket", FAR)
        connections.append(books.connection)
        asked: list[str] = []

        def catch(request: AWSPreparedRequest, **_unused: object) -> AWSResponse:
            asked.append(request.url)
            return elsewhere(request)

        with books.connection.ask("") as client:
            client.meta.events.register_first("before-send.s3", catch)
        wire = ScriptedWire(*script)
        signer = Signer("bucket", FAR, books.connection, clock=NOW.timestamp)
        signer.sign(HEAD)
        return Asker(wire, signer, books.ask_bucket), wire, asked

    yield made
    for connection in connections:
        connection.close()


def in_paris(request: AWSPreparedRequest) -> AWSResponse:
    return told(request, 200 if ".eu-west-3." in request.url else 301, x_amz_bucket_region="eu-west-3")


def in_paris_unless(refused: Answer) -> Callable[[SignedRequest], Answer]:
    return lambda request: OK if ".eu-west-3." in request.url else refused


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        (HEAD, answer(301, x_amz_bucket_region="eu-west-3")),
        (GET, refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3")),
        (GET, refusal(307, "TemporaryRedirect")),
        (GET, refusal(400, "AuthorizationHeaderMalformed")),
        (GET, refusal(400, "IllegalLocationConstraintException")),
        (HEAD, answer(400, x_amz_bucket_region="eu-west-3")),
        (HEAD, answer(403, x_amz_bucket_region="eu-west-3")),
    ],
    ids=short,
)
async def test_a_bucket_in_another_region_is_found_once_and_remembered(
    make_far: Any, request_: Request, refused: Answer
) -> None:
    asker, wire, asked = make_far(in_paris, in_paris_unless(refused))

    await ask(asker, request_)
    await ask(asker, request_)

    hosts = [sent.url.split("/")[2] for sent in wire.sent]
    assert hosts == ["bucket.s3.us-west-1.amazonaws.com"] + ["bucket.s3.eu-west-3.amazonaws.com"] * 2
    assert "/eu-west-3/s3/" in dict(wire.sent[-1].headers)["Authorization"]
    assert len(asked) <= 3


async def test_requests_that_were_redirected_together_are_all_sent_on(make_far: Any) -> None:
    asker, wire, asked = make_far(in_paris, in_paris_unless(answer(301)))
    wire.gate = trio.Event()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask, asker)
        await wait_all_tasks_blocked()
        assert len(wire.sent) == 8
        wire.gate.set()

    assert len(wire.sent) == 16
    assert len(asked) <= 3, "one of them asked where the bucket is"


async def test_a_bucket_that_may_not_be_looked_at_is_found_as_well(make_far: Any) -> None:
    def guarded(request: AWSPreparedRequest) -> AWSResponse:
        return told(request, 403 if ".eu-west-3." in request.url else 301, x_amz_bucket_region="eu-west-3")

    asker, _, _ = make_far(guarded, in_paris_unless(answer(301, x_amz_bucket_region="eu-west-3")))

    assert await ask(asker) is OK


async def test_a_redirect_to_where_the_bucket_is_not_ends(make_far: Any) -> None:
    asker, wire, _ = make_far(in_paris, refusal(301, "PermanentRedirect"))

    with pytest.raises(BucketMissing, match="name the bucket's own --region"):
        await ask(asker)

    assert len(wire.sent) == 2


async def test_a_redirect_to_here_ends(make_far: Any) -> None:
    asker, wire, _ = make_far(lambda request: told(request, 200), refusal(301, "PermanentRedirect"))

    with pytest.raises(BucketMissing, match="PermanentRedirect"):
        await ask(asker)

    assert len(wire.sent) == 1


async def test_who_redirects_every_request_is_named(make_far: Any) -> None:
    asker, _, _ = make_far(lambda request: told(request, 301, location="https://elsewhere/"), answer(301))

    with pytest.raises(
        (EndpointUnreachable, BucketMissing), match=r"HEAD of s3://bucket/k: .*; .*(--endpoint-url|--region)"
    ):
        await ask(asker)


async def test_a_bucket_that_is_nowhere_is_missing(make_far: Any) -> None:
    asker, _, _ = make_far(lambda request: told(request, 404), answer(301))

    with pytest.raises((BucketMissing, ObjectMissing), match="404"):
        await ask(asker)


# ---------------------------------------------------------------- a store over it


def make_store(local_connection: Connection[Any], ask_bucket: Callable[[], None], *script: Said) -> S3Store:
    store = S3Store("bucket", LOCAL, Conditions(), ScriptedWire(*script))
    store._books.connection = store._asker._signer._connection = local_connection
    store._books.ask_bucket = ask_bucket  # type: ignore[method-assign]
    return store


def bucket_says(error: FsxSyncError | None) -> Callable[[], None]:
    def ask_bucket() -> None:
        if error is not None:
            raise error

    return ask_bucket


async def test_a_key_is_missing_only_if_the_bucket_is_there(local_connection: Connection[Any]) -> None:
    def store(error: FsxSyncError | None) -> S3Store:
        return make_store(local_connection, bucket_says(error), answer(404))

    assert await store(None).head("k") is None
    assert await store(AccessDenied("HEAD", "403")).head("k") is None
    with pytest.raises(BucketMissing):
        await store(ObjectMissing("HEAD", "404")).head("k")
    with pytest.raises(EndpointUnreachable):
        await store(UNREACHABLE).head("k")


async def test_a_range_of_another_object_is_a_change_if_it_is_one(local_connection: Connection[Any]) -> None:
    shown = {"content_length": "10", "last_modified": LATE}
    other = RepositoryError("download", "bytes 0-4 came, not 0-9")

    for etag, wanted in (("new", ObjectChanged), ("old", RepositoryError)):
        store = make_store(local_connection, bucket_says(None), other, answer(200, etag=f'"{etag}"', **shown))
        with pytest.raises(RepositoryError) as raised:
            await store.fetch(
                "k", FileRange(0, 0, 5), etag="old", version_id=None, size=10, priority=Priority.FOREGROUND
            )
        assert type(raised.value) is wanted


# ---------------------------------------------------------------- secrets

ECHO = (
    "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match</Message>"
    "<SignatureProvided>{0}</SignatureProvided><StringToSign>{0}</StringToSign></Error>"
)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 412, 500, 503], ids=short)
@pytest.mark.parametrize("echoes", [False, True])
async def test_no_error_tells_a_secret(
    make: Make, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, status: int, echoes: bool
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)

    def echo(request: SignedRequest) -> Answer:
        return answer(status, ECHO.format(dict(request.headers)["Authorization"]) if echoes else "")

    asker, wire = make(echo)
    asker._ask_bucket = bucket_says(None)

    with pytest.raises(RepositoryError) as raised:
        await ask(asker, GET)

    text = "".join(traceback.format_exception(raised.value)) + repr(wire.sent) + repr(raised.value) + str(wire.sent)
    assert_tells_nothing(text, wire.sent)


def assert_tells_nothing(text: str, sent: Sequence[SignedRequest]) -> None:
    signatures = [dict(request.headers)["Authorization"].rpartition("Signature=")[2] for request in sent]
    assert signatures
    for secret in (SECRET, TOKEN, *signatures):
        assert secret not in text
    assert "Authorization" not in text
