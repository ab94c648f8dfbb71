"""The pool as trio sees it, against servers that cut, stall and lie."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies
from support.certificates import Authority
from support.hostile_server import Behaviour, Exchange, HostileServer, Unreachable, refused_url
from support.leftovers import count_others, descriptors, native_threads, resident_bytes  # noqa: F401  a fixture
from trio.testing import wait_all_tasks_blocked

from fsxsync import _core
from fsxsync.errors import (
    EndpointUnreachable,
    InvariantBroken,
    KeyRefused,
    LocalChanged,
    NoSpace,
    RepositoryError,
    TreeError,
)
from fsxsync.ports import Answer, FileRange, Priority, SignedRequest
from fsxsync.transfer import wire as wire_module
from fsxsync.transfer.wire import KEPT_MAX, LaneWire, Pool, ca_bundle_of

HANGS_S = 30
DATA = bytes(range(256)) * 1200  # several buffers
FIRST, LENGTH = 1000, 200_001
PART = DATA[FIRST : FIRST + LENGTH]
UNTOUCHED = b"#"
LARGE = 64 << 20  # more than sockets take
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(threads=2, buffer_memory=1 << 18)
    async with made.running():
        yield made


@pytest.fixture
def wire(pool: Pool) -> LaneWire:
    return pool.lane(8)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(UNTOUCHED * (FIRST + LENGTH + 1000))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


async def send(
    wire: LaneWire, method: str, url: str, *headers: tuple[str, str], priority: Priority = Priority.REQUEST, **more: Any
) -> Answer:
    with trio.fail_after(HANGS_S):
        return await wire.send(SignedRequest(method, url, headers), what="test", priority=priority, **more)


async def get_range(wire: LaneWire, url: str, fd: int) -> Answer:
    asked = ("Range", f"bytes={FIRST}-{FIRST + LENGTH - 1}")
    return await send(wire, "GET", url, asked, into=FileRange(fd, FIRST, LENGTH), object_offset=FIRST)


# ---------------------------------------------------------------- there and back


async def test_an_answer_comes_back_whatever_its_status(wire: LaneWire) -> None:
    with HostileServer(lambda exchange: exchange.answer(404, b"no", {"ETag": '"e"', "X-Odd": "\u00fc"})) as server:
        answer = await send(wire, "GET", f"{server.url}/k?a=b", ("Host", "bucket"), ("X-Mine", "1"))

    [exchange] = server.seen
    assert (exchange.method, exchange.target, exchange.headers["x-mine"]) == ("GET", "/k?a=b", "1")
    assert exchange.headers["host"] == "bucket"
    assert (answer.status, answer.body, answer.crc64nvme) == (404, b"no", None)
    assert answer.header("etag") == '"e"'
    assert answer.header("x-odd") is not None


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PUT", "POST"])
@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_a_body_in_memory_is_sent(wire: LaneWire, method: str, body: bytes) -> None:
    if body and method in {"HEAD", "DELETE"}:
        pytest.skip("has none")
    bodies: list[bytes] = []

    def take(exchange: Exchange) -> None:
        bodies.append(exchange.read_body())
        exchange.answer(200)

    with HostileServer(take) as server:
        assert (await send(wire, method, server.url, body=body)).status == 200

    [exchange] = server.seen
    assert (exchange.method, bodies) == (method, [body])
    if method in {"PUT", "POST"}:
        assert exchange.headers["content-length"] == str(len(body))


async def test_a_range_goes_to_its_place_with_its_checksum(wire: LaneWire, fd: int) -> None:
    with HostileServer(lambda exchange: exchange.answer_range(DATA)) as server:
        answer = await get_range(wire, server.url, fd)

    assert (answer.status, answer.body, answer.crc64nvme) == (206, b"", _core.crc64nvme(PART))
    assert content(fd) == UNTOUCHED * FIRST + PART + UNTOUCHED * 1000


async def test_a_files_range_is_sent(wire: LaneWire, fd: int) -> None:
    os.pwrite(fd, PART, FIRST)
    bodies: list[bytes] = []

    def take(exchange: Exchange) -> None:
        bodies.append(exchange.read_body())
        exchange.answer(200)

    with HostileServer(take) as server:
        body = FileRange(fd, FIRST, LENGTH)
        answer = await send(wire, "PUT", server.url, body=body, body_crc64nvme=_core.crc64nvme(PART))

    assert bodies == [PART]
    assert answer.crc64nvme == _core.crc64nvme(PART)


async def test_an_answer_that_is_kept_has_a_limit(wire: LaneWire) -> None:
    sizes = iter([KEPT_MAX, KEPT_MAX + 1])
    with HostileServer(lambda exchange: exchange.answer(200, bytes(next(sizes)))) as server:
        assert len((await send(wire, "GET", server.url)).body) == KEPT_MAX
        with pytest.raises(KeyRefused, match="longer"):
            await send(wire, "GET", server.url)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_store_that_is_overrun_gets_less(wire: LaneWire, status: int) -> None:
    with HostileServer(lambda exchange: exchange.answer(status)) as server:
        await send(wire, "HEAD", server.url)

    assert wire.lane.limit == 4


# ---------------------------------------------------------------- lies


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode()


def range_line(first: int, last: int) -> str:
    return f"Content-Range: bytes {first}-{last}/{len(DATA)}"


RIGHT = range_line(FIRST, FIRST + LENGTH - 1)
LIES: dict[str, tuple[bytes, type[Exception]]] = {
    "cut in the body": (head(206, RIGHT, f"Content-Length: {LENGTH}") + PART[:-1], EndpointUnreachable),
    "cut without a length": (head(206, RIGHT) + PART[:-1], EndpointUnreachable),
    "cut in chunks": (head(206, RIGHT, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n", EndpointUnreachable),
    "cut in the head": (head(206, RIGHT)[:-10], EndpointUnreachable),
    "nothing": (b"", EndpointUnreachable),
    "less, and says so": (head(206, RIGHT, f"Content-Length: {LENGTH - 1}") + PART[:-1], RepositoryError),
    "more, and says so": (head(206, RIGHT, f"Content-Length: {LENGTH + 1}") + PART + b"!", RepositoryError),
    "more until the end": (head(206, RIGHT) + PART + b"!", RepositoryError),
    "beside it": (
        head(206, range_line(FIRST + 1, FIRST + LENGTH), f"Content-Length: {LENGTH}") + PART,
        RepositoryError,
    ),
    "a shorter range": (
        head(206, range_line(FIRST, FIRST + LENGTH - 2), f"Content-Length: {LENGTH - 1}") + PART[:-1],
        RepositoryError,
    ),
    "the whole object": (head(200, f"Content-Length: {len(DATA)}") + DATA, RepositoryError),
    "a 200 of the range's length": (head(200, f"Content-Length: {LENGTH}") + PART, RepositoryError),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n" * 10, RepositoryError),
}


def say(text: bytes) -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.send(text)
        exchange.end_sending()
        exchange.wait_until_client_leaves()

    return behave


@pytest.mark.parametrize(("said", "wanted"), LIES.values(), ids=LIES)
async def test_an_answer_that_is_not_the_one_asked_for_is_an_error(
    wire: LaneWire, fd: int, said: bytes, wanted: type[Exception]
) -> None:
    with HostileServer(say(said)) as server, pytest.raises(RepositoryError) as raised:
        await get_range(wire, server.url, fd)

    assert type(raised.value) is wanted
    there = content(fd)
    assert there[:FIRST] + there[FIRST + LENGTH :] == UNTOUCHED * (FIRST + 1000)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (head(200, "Content-Length: 4") + b"1234", RepositoryError),
        (head(200, "Content-Length: 6") + b"123456", RepositoryError),
        (head(200, "Content-Length: 5") + b"1234", EndpointUnreachable),
    ],
    ids=["less", "more", "cut"],
)
async def test_a_whole_object_of_another_size_is_an_error(
    wire: LaneWire, fd: int, said: bytes, wanted: type[Exception]
) -> None:
    with HostileServer(say(said)) as server, pytest.raises(RepositoryError) as raised:
        await send(wire, "GET", server.url, into=FileRange(fd, 0, 5))

    assert type(raised.value) is wanted


async def test_nobody_there(wire: LaneWire) -> None:
    with pytest.raises(EndpointUnreachable):
        await send(wire, "HEAD", refused_url())


# ---------------------------------------------------------------- files


async def test_no_space_is_said(wire: LaneWire) -> None:
    full = os.open("/dev/full", os.O_RDWR)
    with HostileServer(lambda exchange: exchange.answer_range(DATA)) as server, pytest.raises(NoSpace):
        await get_range(wire, server.url, full)
    os.close(full)


async def test_a_file_that_cannot_be_written_is_no_fault_of_the_stores(wire: LaneWire, fd: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FIRST + 100, before[1]))
    try:
        refused = pytest.raises(TreeError, match=os.strerror(errno.EFBIG))
        with HostileServer(lambda exchange: exchange.answer_range(DATA)) as server, refused as raised:
            await get_range(wire, server.url, fd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not isinstance(raised.value, NoSpace)


@dataclass
class Taker:
    """Takes a body as far as it comes; `change` is done to the file once the head is there."""

    change: Callable[[], None]
    is_whole: bool | None = None

    def __call__(self, exchange: Exchange) -> None:
        self.change()
        self.is_whole = len(exchange.read_body()) == int(exchange.headers["content-length"])
        if self.is_whole:
            exchange.answer(200)
        else:
            exchange.close()


@pytest.mark.parametrize("size", [1, 100_000, LARGE])
async def test_a_file_that_changes_after_it_was_announced_is_never_sent_whole(
    wire: LaneWire, fd: int, size: int
) -> None:
    os.ftruncate(fd, size)
    announced = _core.crc64nvme_range(fd, 0, size)
    os.pwrite(fd, b"!", size - 1)
    taker = Taker(lambda: None)

    with HostileServer(taker) as server, pytest.raises(LocalChanged):
        await send(wire, "PUT", server.url, body=FileRange(fd, 0, size), body_crc64nvme=announced)

    assert not taker.is_whole


@pytest.mark.parametrize("change", ["shorter", "otherwise"])
async def test_a_file_that_changes_while_it_is_sent_is_never_sent_whole(wire: LaneWire, fd: int, change: str) -> None:
    os.ftruncate(fd, LARGE)
    announced = _core.crc64nvme_range(fd, 0, LARGE)
    changes = {"shorter": lambda: os.ftruncate(fd, 1000), "otherwise": lambda: void(os.pwrite(fd, b"!", LARGE - 1))}
    taker = Taker(changes[change])

    with HostileServer(taker) as server, pytest.raises(LocalChanged):
        await send(wire, "PUT", server.url, body=FileRange(fd, 0, LARGE), body_crc64nvme=announced)

    assert taker.is_whole is False


def void(_unused: object) -> None:
    pass


# ---------------------------------------------------------------- cancellation


@dataclass
class Stall:
    """Goes as far as that, says so, and no further."""

    said: bytes
    takes_body: bool = False

    def __post_init__(self) -> None:
        self.reached = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.send(self.said)
        self.reached.set()
        if exchange.method == "PUT":
            exchange.server.leaving.wait(HANGS_S)
        else:
            exchange.wait_until_client_leaves()


PHASES = {
    "no answer": ("GET", b""),
    "in the head": ("GET", b"HTTP/1.1 206 X\r\nCont"),
    "in the body": ("GET", head(206, RIGHT, f"Content-Length: {LENGTH}") + b"some"),
    "while sending": ("PUT", b""),
}


async def ask_for(wire: LaneWire, method: str, url: str, fd: int) -> None:
    if method == "GET":
        await get_range(wire, url, fd)
    else:
        os.ftruncate(fd, LARGE)
        await send(wire, "PUT", url, body=FileRange(fd, 0, LARGE))


@pytest.mark.parametrize(("method", "said"), PHASES.values(), ids=PHASES)
async def test_whoever_is_cancelled_leaves_at_once(
    pool: Pool, wire: LaneWire, fd: int, method: str, said: bytes
) -> None:
    stall = Stall(said)
    with HostileServer(stall) as server:
        with trio.fail_after(HANGS_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_for, wire, method, server.url, fd)
                await trio.to_thread.run_sync(stall.reached.wait, HANGS_S)
                nursery.cancel_scope.cancel()

        assert nursery.cancel_scope.cancelled_caught
        assert pool.stats()["running"] == 0, "nobody uses the descriptor any more"
        assert wire.lane.under_way == 0


async def test_whoever_is_cancelled_while_connecting_leaves_at_once(pool: Pool, wire: LaneWire) -> None:
    with Unreachable() as nowhere, trio.fail_after(HANGS_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, wire, "HEAD", nowhere.url)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught


async def test_whoever_is_cancelled_before_sends_nothing(wire: LaneWire) -> None:
    with HostileServer(lambda exchange: exchange.answer(200)) as server:
        with trio.CancelScope() as scope:
            scope.cancel()
            await send(wire, "PUT", server.url, body=b"x")
        assert scope.cancelled_caught
        assert server.seen == []


async def test_whoever_was_answered_in_the_moment_of_cancellation_gets_the_answer(wire: LaneWire) -> None:
    answered = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.answer(200, b"done")
        answered.set()

    got: list[bytes] = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            got.append((await send(wire, "GET", server.url)).body)

    with HostileServer(answer) as server:
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, scope)
            await wait_all_tasks_blocked()
            answered.wait(HANGS_S)  # blocks trio, too
            while wire._pool.stats()["running"]:
                pass
            scope.cancel()

    assert got == [b"done"]


async def test_a_cancellation_from_outside_of_the_pool_hangs_nowhere(fd: int) -> None:
    stall = Stall(b"")
    with HostileServer(stall) as server, trio.fail_after(HANGS_S), trio.CancelScope() as outer:
        made = Pool(threads=2, buffer_memory=1 << 18)
        async with made.running(), trio.open_nursery() as nursery:
            wire = made.lane(100)
            for _ in range(20):
                nursery.start_soon(ask_for, wire, "GET", server.url, fd)
            await trio.to_thread.run_sync(stall.reached.wait, HANGS_S)
            outer.cancel()
    assert outer.cancelled_caught
    assert native_threads() == 0


async def test_an_error_inside_of_the_pool_ends_it(fd: int) -> None:
    stall = Stall(b"")
    with HostileServer(stall) as server, trio.fail_after(HANGS_S):
        made = Pool(threads=2, buffer_memory=1 << 18)

        async def fail() -> None:
            async with made.running(), trio.open_nursery() as nursery:
                nursery.start_soon(ask_for, made.lane(1), "GET", server.url, fd)
                await trio.to_thread.run_sync(stall.reached.wait, HANGS_S)
                raise RuntimeError("a bug")

        with pytest.raises(ExceptionGroup) as raised:
            await fail()
    assert raised.group_contains(RuntimeError, match="a bug")
    assert native_threads() == 0


async def test_whoever_outlives_the_pool_is_told(fd: int) -> None:
    stall = Stall(b"")
    with HostileServer(stall) as server, trio.fail_after(HANGS_S):
        made = Pool(threads=1, buffer_memory=1 << 18)

        async def outlive() -> None:
            async with trio.open_nursery() as outside, made.running():
                outside.start_soon(ask_for, made.lane(2), "GET", server.url, fd)
                await trio.to_thread.run_sync(stall.reached.wait, HANGS_S)

        with pytest.raises(BaseExceptionGroup) as raised:
            await outlive()
    assert raised.group_contains(InvariantBroken)


# ---------------------------------------------------------------- a full queue


@pytest.fixture
async def narrow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A pool of one thread and room for two more requests."""
    monkeypatch.setattr(wire_module, "_QUEUE", 2)
    made = Pool(threads=1, buffer_memory=1 << 18)
    async with made.running():
        yield made


async def test_a_full_queue_makes_requests_wait_and_loses_none(narrow: Pool) -> None:
    wire = narrow.lane(100)
    may_answer = threading.Event()

    def answer(exchange: Exchange) -> None:
        assert may_answer.wait(HANGS_S)
        exchange.answer(200)

    with HostileServer(answer) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(send, wire, "HEAD", server.url)
            await wait_all_tasks_blocked()
            may_answer.set()

    assert len(server.seen) == 50


async def test_whoever_is_cancelled_before_there_is_room_was_never_there(narrow: Pool) -> None:
    wire = narrow.lane(100)
    stall = Stall(b"")
    with HostileServer(stall) as server, trio.fail_after(HANGS_S):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(send, wire, "HEAD", server.url)
            await trio.to_thread.run_sync(stall.reached.wait, HANGS_S)
            nursery.cancel_scope.cancel()
        assert len(server.seen) <= 3, "the first one, and those that the thread took before they were cancelled"
    assert wire.lane.under_way == 0


# ---------------------------------------------------------------- proxies and certificates

PROXY_CASES: list[dict[str, str]] = [
    {},
    {"HTTP_PROXY": "http://proxy:3128"},
    {"http_proxy": "http://proxy:3128"},
    {"HTTPS_PROXY": "http://proxy:3128"},
    {"https_proxy": "https://user:pass@proxy:3128/"},
    {"HTTP_PROXY": "http://upper:1", "http_proxy": "http://lower:2"},
    {"HTTP_PROXY": "proxy:3128", "HTTPS_PROXY": "//proxy:3128"},
    {"HTTP_PROXY": ""},
    {"ALL_PROXY": "http://proxy:3128"},
    {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "*"},
    {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "127.0.0.1,localhost"},
    {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "127.0.0.1:9000"},
    {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".amazonaws.com"},
    {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "amazonaws.com"},
    {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "s3.eu-west-3.amazonaws.com, other"},
]
URLS = [
    "http://127.0.0.1:9000/bucket/k",
    "http://localhost/bucket/k?x=y",
    "https://127.0.0.1:9000/bucket/k",
    "https://bucket.s3.eu-west-3.amazonaws.com/k",
    "http://[::1]:9000/bucket/k",
]


@pytest.mark.parametrize("environment", PROXY_CASES, ids=str)
@pytest.mark.parametrize("url", URLS)
def test_the_proxy_is_the_one_that_boto3_takes(
    environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = Pool(threads=1, buffer_memory=1 << 18)

    found = made.proxy_for(url)

    made.close()
    assert found == (ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url) or None)


async def test_a_proxy_is_asked_where_the_environment_names_one(
    wire: LaneWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileServer(lambda exchange: exchange.answer(200, b"by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        answer = await send(wire, "GET", "http://bucket.invalid/k?x")

    assert answer.body == b"by proxy"
    assert proxy.seen[0].target == "http://bucket.invalid/k?x"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"AWS_CA_BUNDLE": "/a"}, "/a"),
        ({"REQUESTS_CA_BUNDLE": "/r"}, "/r"),
        ({"AWS_CA_BUNDLE": "/a", "REQUESTS_CA_BUNDLE": "/r"}, "/a"),
        ({"AWS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "/c"}, None),
    ],
)
def test_the_bundle_is_the_one_that_boto3_takes(environment: dict[str, str], wanted: str | None) -> None:
    assert ca_bundle_of(environment) == wanted


async def test_a_server_is_known_by_the_bundle(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context("127.0.0.1")
    with HostileServer(lambda exchange: exchange.answer(200, b"hello"), tls=context) as server:
        for bundle, is_known in [(ca_bundle_of({"AWS_CA_BUNDLE": str(authority.bundle)}), True), (None, False)]:
            made = Pool(threads=1, buffer_memory=1 << 18, ca_bundle=bundle)
            async with made.running():
                if is_known:
                    assert (await send(made.lane(1), "GET", server.url)).body == b"hello"
                else:
                    with pytest.raises(EndpointUnreachable, match="certificate"):
                        await send(made.lane(1), "GET", server.url)


# ---------------------------------------------------------------- what is left behind


FILLER = "x" * 2500  # so that whatever is lost with a request shows


def mixed(exchange: Exchange) -> None:
    exchange.server.seen.clear()  # memory is measured
    exchange.read_body()
    if exchange.target == "/reset":
        exchange.reset()
    else:
        exchange.answer(503 if exchange.target == "/busy" else 200, b"hello", {"x-filler": FILLER})


async def many(wire: LaneWire, url: str, fd: int, count: int) -> None:
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("HEAD", "/ok", {}),
        ("GET", "/ok", {"into": FileRange(fd, 0, 5)}),
        ("GET", "/ok", {"into": FileRange(fd, 0, 4)}),
        ("PUT", "/ok", {"body": FileRange(fd, 0, 5000)}),
        ("PUT", "/ok", {"body": FileRange(fd, 0, 5000), "body_crc64nvme": 1}),
        ("PUT", "/busy", {"body": b"hello"}),
        ("GET", "/reset", {}),
    ]
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            method, path, more = kinds[number % len(kinds)]
            with trio.CancelScope() as scope, contextlib.suppress(RepositoryError, LocalChanged):
                if number % 11 == 0:
                    scope.deadline = trio.current_time() + 0.001
                await send(wire, method, url + path, ("X-Filler", FILLER), **more)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(work)


async def test_ten_thousand_requests_leave_nothing(fd: int) -> None:
    gc.collect()  # what other tests left open
    before = descriptors()
    with HostileServer(mixed) as server:
        made = Pool(threads=4, buffer_memory=1 << 18)
        async with made.running():
            wire = made.lane(24)
            await many(wire, server.url, fd, 2_000)
            resident = resident_bytes()

            await many(wire, server.url, fd, 8_000)

            grown = resident_bytes() - resident
            assert wire.lane.under_way == 0
            assert made._waiting == {}
        del made, wire  # the eventfd goes with the last reference
    assert grown < 8 << 20, grown  # a KiB lost with each request
    assert native_threads() == 0
    assert descriptors() == before
