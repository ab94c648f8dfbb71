"""fsxsync._core.TransferPool: cancelled and closed in every phase, over TLS and proxies; nothing is left behind."""

import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from support.certificates import Authority
from support.hostile_server import Exchange, HostileServer, Unreachable, refused_url
from support.leftovers import count_others, descriptors, native_threads, resident_bytes  # noqa: F401  a fixture

from fsxsync import _core

HANGS_S = 30
LENGTH = 1 << 20
FILLER = "x" * 2500  # so that whatever is lost with a job shows
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")  # keeps freed memory for a while, to see its use


def collect(pool: _core.TransferPool, count: int) -> list[_core.TransferResult]:
    results: list[_core.TransferResult] = []
    while len(results) < count:
        assert select.select([pool], [], [], HANGS_S)[0], f"{len(results)} of {count} are done"
        results += pool.collect()
    return results


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, LENGTH)
    yield fd
    os.close(fd)


# --- every phase in which a job can hang


@dataclass
class Stall:
    """A server that says when a request got as far as the phase, and goes no further."""

    reached: threading.Event
    answer: bytes = b""
    reads: int = 0

    def __call__(self, exchange: Exchange) -> None:
        for _ in range(self.reads):
            exchange.receive(1)
        exchange.send(self.answer)
        self.reached.set()
        if exchange.method == "GET":
            exchange.wait_until_client_leaves()
        else:  # don't take the body: the socket stays full
            exchange.server.leaving.wait(HANGS_S)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LENGTH
PHASES: dict[str, tuple[str, Stall]] = {
    "no answer": ("GET", Stall(threading.Event())),
    "in the head": ("GET", Stall(threading.Event(), HEAD[:20])),
    "in the body": ("GET", Stall(threading.Event(), HEAD + b"some")),
    "while sending": ("PUT", Stall(threading.Event(), reads=1)),
}
End = Callable[[_core.TransferPool, int], None]


def cancel(pool: _core.TransferPool, job: int) -> None:
    assert pool.cancel(job)


def close(pool: _core.TransferPool, job: int) -> None:
    del job
    pool.close()


ENDS = pytest.mark.parametrize("end", [cancel, close])


def is_cancelled(pool: _core.TransferPool, job: int, end: End) -> bool:
    end(pool, job)
    (result,) = collect(pool, 1)
    assert not pool.cancel(job), "done already"
    pool.close()
    return (result.id, result.error) == (job, _core.TRANSFER_CANCELLED)


@ENDS
@pytest.mark.parametrize("phase", PHASES)
def test_a_job_that_hangs_ends_at_once(fd: int, phase: str, end: End) -> None:
    method, stall = PHASES[phase]
    stall.reached.clear()
    pool = _core.TransferPool(1, low_speed_s=0)
    os.ftruncate(fd, 1 << 30)  # more than sockets take

    with HostileServer(stall) as server:
        way: dict[str, Any] = {"sink": fd, "length": LENGTH} if method == "GET" else {"source": fd, "length": 1 << 30}
        job = pool.submit(method, server.url, [], **way)
        assert stall.reached.wait(HANGS_S)

        assert is_cancelled(pool, job, end)


@ENDS
def test_connecting_ends_at_once(end: End) -> None:
    with Unreachable() as nowhere:
        pool = _core.TransferPool(1, connect_timeout_ms=3_600_000)
        job = pool.submit("GET", nowhere.url, [])
        while pool.stats()["running"] == 0:
            pass

        assert is_cancelled(pool, job, end)


def test_connecting_has_a_time_limit() -> None:
    with Unreachable() as nowhere:
        pool = _core.TransferPool(1, connect_timeout_ms=100)
        pool.submit("GET", nowhere.url, [])

        assert collect(pool, 1)[0].error == _core.TRANSFER_TIMEOUT
        pool.close()


@ENDS
def test_a_tls_handshake_ends_at_once(end: End) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = _core.TransferPool(1, connect_timeout_ms=3_600_000)
        job = pool.submit("GET", f"https://127.0.0.1:{listener.getsockname()[1]}", [])
        connection, _ = listener.accept()
        assert connection.recv(1), "the client's hello"

        assert is_cancelled(pool, job, end)
        connection.close()


@ENDS
def test_one_that_waits_by_a_limit_ends_at_once(end: End, fd: int) -> None:
    with HostileServer(lambda exchange: exchange.answer(200, b"x" * LENGTH)) as server:
        pool = _core.TransferPool(1, down_limit=1)
        job = pool.submit("GET", server.url, [], sink=fd, length=LENGTH)
        while pool.stats()["bytes_down"] == 0:
            pass

        assert is_cancelled(pool, job, end)


@ENDS
def test_one_that_waits_in_the_queue_ends_at_once(end: End) -> None:
    stall = Stall(threading.Event())
    with HostileServer(stall) as server:
        pool = _core.TransferPool(1)
        first = pool.submit("GET", server.url, [])
        assert stall.reached.wait(HANGS_S)
        second = pool.submit("GET", server.url, [])
        end(pool, second)
        end(pool, first)

        results = {result.id: result.error for result in collect(pool, 2)}
        pool.close()

    assert results == {first: _core.TRANSFER_CANCELLED, second: _core.TRANSFER_CANCELLED}
    assert len(server.seen) == 1


# --- the pool's own end


def test_a_closed_pool_takes_nothing_more() -> None:
    pool = _core.TransferPool(2)
    pool.close()
    pool.close()

    with pytest.raises(ValueError, match="closed"):
        pool.submit("GET", "http://127.0.0.1/", [])
    assert pool.collect() == []
    assert not pool.cancel(1)


def test_close_from_many_threads_at_once() -> None:
    with HostileServer(Stall(threading.Event())) as server:
        pool = _core.TransferPool(4)
        for _ in range(8):
            pool.submit("GET", server.url, [])
        closers = [threading.Thread(target=pool.close) for _ in range(4)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(HANGS_S)

        assert {result.error for result in collect(pool, 8)} == {_core.TRANSFER_CANCELLED}


def test_a_pool_that_nobody_closed_ends_with_its_object() -> None:
    with HostileServer(Stall(threading.Event())) as server:
        pool = _core.TransferPool(3)
        pool.submit("GET", server.url, [])
        assert native_threads() == 3
        del pool
    assert become_none(native_threads)


def test_a_fork_is_told() -> None:
    script = """
import os
from fsxsync import _core
pool = _core.TransferPool(2)
child = os.fork()
if child == 0:
    try:
        pool.close()
    except RuntimeError:
        del pool
        os._exit(7)
    os._exit(0)
_, status = os.waitpid(child, 0)
pool.close()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], timeout=HANGS_S, check=False)  # noqa: S603

    assert done.returncode == 7


async def test_trio_waits_for_the_eventfd() -> None:
    with HostileServer(lambda exchange: exchange.answer(200, b"x")) as server:
        pool = _core.TransferPool(1)
        job = pool.submit("GET", server.url, [])
        with trio.fail_after(HANGS_S):
            await trio.lowlevel.wait_readable(pool.fileno())
        (result,) = pool.collect()
        pool.close()

    assert (result.id, result.body) == (job, b"x")


# --- TLS and proxies


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def greet(exchange: Exchange) -> None:
    exchange.answer(200, b"hello")


def get_over_tls(bundle: Path | None, context: ssl.SSLContext, host: str = "127.0.0.1") -> _core.TransferResult:
    with HostileServer(greet, tls=context) as server:
        pool = _core.TransferPool(1, ca_bundle=bundle)
        pool.submit("GET", f"https://{host}:{server.port}", [])
        (result,) = collect(pool, 1)
        pool.close()
        return result


def test_tls_with_a_bundle_that_knows_the_server(authority: Authority) -> None:
    result = get_over_tls(authority.bundle, authority.server_context("127.0.0.1"))

    assert (result.error, result.body) == (_core.TRANSFER_OK, b"hello")


def test_tls_of_a_stranger_is_refused(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context("127.0.0.1")
    other = Authority(tmp_path)

    assert get_over_tls(None, context).error == _core.TRANSFER_TLS
    assert get_over_tls(other.bundle, context).error == _core.TRANSFER_TLS
    assert get_over_tls(tmp_path / "missing", context).error == _core.TRANSFER_TLS


def test_tls_in_another_name_is_refused(authority: Authority) -> None:
    context = authority.server_context("bucket.example")

    assert get_over_tls(authority.bundle, context).error == _core.TRANSFER_TLS


def test_a_proxy_is_asked_for_http_and_the_environment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", refused_url())
    monkeypatch.setenv("all_proxy", refused_url())
    monkeypatch.setenv("no_proxy", "*")
    with HostileServer(greet) as server:
        pool = _core.TransferPool(1)
        pool.submit("GET", server.url + "/direct", [])
        (direct,) = collect(pool, 1)
        pool.submit("GET", "http://bucket.invalid/key", [], proxy=server.url)
        (proxied,) = collect(pool, 1)
        pool.close()

    assert (direct.body, proxied.body) == (b"hello", b"hello")
    assert [exchange.target for exchange in server.seen] == ["/direct", "http://bucket.invalid/key"]


def test_a_proxy_never_sees_what_is_meant_for_an_https_server() -> None:
    with HostileServer(lambda exchange: exchange.answer(407)) as server:
        pool = _core.TransferPool(1)
        pool.submit("GET", "https://bucket.invalid/key?secret", [b"Authorization: secret"], proxy=server.url)
        (result,) = collect(pool, 1)
        pool.close()
        (exchange,) = server.seen

    assert result.error != _core.TRANSFER_OK
    assert exchange.target == "bucket.invalid:443"
    assert b"secret" not in exchange.raw_head


# --- what is left behind


def become_none(count: Callable[[], int]) -> bool:
    """A thread that was joined can still be seen in /proc for a moment."""
    deadline = time.monotonic() + HANGS_S
    while count() > 0 and time.monotonic() < deadline:
        os.sched_yield()
    return count() == 0


def jobs_of_every_kind(pool: _core.TransferPool, url: str, fd: int, count: int) -> int:
    """Submit, cancel some, collect all; how many were cancelled in time."""
    kinds: list[dict[str, Any]] = [
        {"method": "GET", "url": url + "/ok", "sink": fd, "length": 5},
        {"method": "PUT", "url": url + "/ok", "source": fd, "length": 5000, "hashes": 3},
        {"method": "GET", "url": url + "/error"},
        {"method": "GET", "url": url + "/ok", "sink": fd, "length": 4},
        {"method": "HEAD", "url": url + "/ok"},
        {"method": "POST", "url": url + "/ok", "body": b"small"},
        {"method": "GET", "url": url + "/reset"},
    ]
    cancelled = waiting = 0
    for number in range(count):
        job = pool.submit(headers=[b"x-filler: " + FILLER.encode()], **kinds[number % len(kinds)])
        if number % 5 == 0:
            pool.cancel(job)
        waiting += 1
        while waiting > 50:
            results = collect(pool, 1)
            cancelled += sum(result.error == _core.TRANSFER_CANCELLED for result in results)
            waiting -= len(results)
    return cancelled + sum(result.error == _core.TRANSFER_CANCELLED for result in collect(pool, waiting))


def mixed(exchange: Exchange) -> None:
    exchange.server.seen.clear()  # memory is measured
    exchange.read_body()
    if exchange.target == "/reset":
        exchange.reset()
    else:
        text, status = (FILLER * 12, 503) if exchange.target == "/error" else ("hello", 200)
        exchange.answer(status, text.encode(), {"x-filler": FILLER})


def test_ten_thousand_jobs_leave_nothing(fd: int) -> None:
    before = descriptors()
    with HostileServer(mixed) as server:
        pool = _core.TransferPool(4, buffer_bytes=1 << 16)
        jobs_of_every_kind(pool, server.url, fd, 2_000)
        resident = resident_bytes()

        cancelled = jobs_of_every_kind(pool, server.url, fd, 8_000)

        grown = resident_bytes() - resident
        pool.close()
        del pool
    assert cancelled > 0
    if not SANITIZED:
        assert grown < 8 << 20, grown  # a KiB lost with each job
    assert become_none(native_threads)
    assert descriptors() == before  # the server's own are gone by now
