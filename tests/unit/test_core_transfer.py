"""fsxsync._core.TransferPool against a server that lies, cuts, stalls and resets."""

import errno
import itertools
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hostile_server import Behaviour, Exchange, HostileServer, refused_url

from fsxsync import _core

DATA = bytes(itertools.islice(itertools.cycle(b"0123456789abcdefghijklmnopqrstuvwxyz\n"), 3_000_000))
FIRST, LENGTH = 1000, 700_000  # more than two buffers, and no multiple of one
HASHES = _core.TRANSFER_HASH_XXH3_128 | _core.TRANSFER_HASH_CRC64NVME
HANGS_S = 30  # what should come at once, and would hang otherwise
UNTOUCHED = b"#"
CREDIT_S = 0.05  # transfer_limit.c


def next_results(pool: _core.TransferPool) -> list[_core.TransferResult]:
    assert select.select([pool], [], [], HANGS_S)[0], "nothing is done"
    return pool.collect()


def run(pool: _core.TransferPool, *args: Any, **kwargs: Any) -> _core.TransferResult:
    job = pool.submit(*args, **kwargs)
    (result,) = next_results(pool)
    assert result.id == job
    return result


@pytest.fixture
def pool() -> Iterator[_core.TransferPool]:
    pool = _core.TransferPool(2, buffer_bytes=1 << 16, low_speed_s=1, low_speed_bytes=10)
    yield pool
    pool.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of LENGTH bytes with room before and after, to see that nothing goes there."""
    path = tmp_path / "file"
    path.write_bytes(UNTOUCHED * (LENGTH + 2000))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def get_range(pool: _core.TransferPool, behave: Behaviour, fd: int, **kwargs: Any) -> _core.TransferResult:
    with HostileServer(behave) as server:
        headers = [b"Range: bytes=%d-%d" % (FIRST, FIRST + LENGTH - 1)]
        asked = {"sink": fd, "offset": 1000, "length": LENGTH, "object_offset": FIRST, **kwargs}
        return run(pool, "GET", server.url + "/key", headers, **asked)


def outside(fd: int) -> bytes:
    return os.pread(fd, 1000, 0) + os.pread(fd, 1 << 20, 1000 + LENGTH)


class TestDownload:
    def test_a_range_goes_to_its_place_with_its_hashes(self, pool: _core.TransferPool, fd: int) -> None:
        result = get_range(pool, lambda exchange: exchange.answer_range(DATA), fd, hashes=HASHES)

        wanted = DATA[FIRST : FIRST + LENGTH]
        assert (result.error, result.status, result.moved) == (_core.TRANSFER_OK, 206, LENGTH)
        assert (result.xxh3_128, result.crc64nvme) == (_core.xxh3_128(wanted), _core.crc64nvme(wanted))
        assert os.pread(fd, LENGTH, 1000) == wanted
        assert outside(fd) == UNTOUCHED * 2000
        assert ("content-length", str(LENGTH)) in result.headers

    def test_a_whole_object_in_chunks(self, pool: _core.TransferPool, fd: int) -> None:
        def chunked(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            exchange.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n")

        result = get_range(pool, chunked, fd, length=5, object_offset=-1, hashes=HASHES)

        assert (result.error, result.moved, result.xxh3_128) == (_core.TRANSFER_OK, 5, _core.xxh3_128(b"abcde"))
        assert os.pread(fd, 6, 1000) == b"abcde#"
        assert result.headers == (("transfer-encoding", "chunked"),)

    def test_an_empty_object(self, pool: _core.TransferPool, fd: int) -> None:
        result = get_range(pool, lambda exchange: exchange.answer(200), fd, length=0, object_offset=-1, hashes=HASHES)

        assert (result.error, result.moved, result.crc64nvme) == (_core.TRANSFER_OK, 0, 0)
        assert result.xxh3_128 == _core.xxh3_128(b"")

    def test_the_callers_descriptor_may_be_closed_at_once(self, pool: _core.TransferPool, tmp_path: Path) -> None:
        closed = threading.Event()

        def late(exchange: Exchange) -> None:
            assert closed.wait(HANGS_S)
            exchange.answer(200, b"data")

        with HostileServer(late) as server:
            fd = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
            pool.submit("GET", server.url, [], sink=fd, length=4)
            os.close(fd)
            closed.set()
            (result,) = next_results(pool)

        assert result.error == _core.TRANSFER_OK
        assert (tmp_path / "new").read_bytes() == b"data"


def head(status: int, *lines: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\n{''.join(line + chr(13) + chr(10) for line in lines)}\r\n".encode()


RANGE_LINE = f"Content-Range: bytes {FIRST}-{FIRST + LENGTH - 1}/{len(DATA)}"
LENGTH_LINE = f"Content-Length: {LENGTH}"
RANGE_HEAD = head(206, RANGE_LINE, LENGTH_LINE)
BODY = DATA[FIRST : FIRST + LENGTH]
CHUNKED = "Transfer-Encoding: chunked"
LIES: dict[str, tuple[bytes, int]] = {
    "ends in the body": (RANGE_HEAD + BODY[:-1], _core.TRANSFER_SHORT),
    "ends after the head": (RANGE_HEAD, _core.TRANSFER_SHORT),
    "ends in the head": (RANGE_HEAD[:-30], _core.TRANSFER_SHORT),
    "says nothing": (b"", _core.TRANSFER_RESET),
    "shorter, and says so": (
        head(206, RANGE_LINE, f"Content-Length: {LENGTH - 1}") + BODY[:-1],
        _core.TRANSFER_SHORT,
    ),
    "longer, and says so": (head(206, RANGE_LINE, f"Content-Length: {LENGTH + 1}") + BODY + b"!", _core.TRANSFER_LONG),
    "shorter, until the end": (head(206, RANGE_LINE) + BODY[:-1], _core.TRANSFER_SHORT),
    "longer, until the end": (head(206, RANGE_LINE) + BODY + b"!", _core.TRANSFER_LONG),
    "shorter in chunks": (
        head(206, RANGE_LINE, CHUNKED) + b"%x\r\n%s\r\n0\r\n\r\n" % (LENGTH - 1, BODY[:-1]),
        _core.TRANSFER_SHORT,
    ),
    "longer in chunks": (
        head(206, RANGE_LINE, CHUNKED) + b"%x\r\n%s!\r\n0\r\n\r\n" % (LENGTH + 1, BODY),
        _core.TRANSFER_LONG,
    ),
    "chunks without an end": (
        head(206, RANGE_LINE, CHUNKED) + b"%x\r\n%s\r\n" % (LENGTH, BODY),
        _core.TRANSFER_SHORT,
    ),
    "the whole object": (head(200, f"Content-Length: {len(DATA)}") + DATA, _core.TRANSFER_RANGE),
    "no Content-Range": (head(206, LENGTH_LINE) + BODY, _core.TRANSFER_RANGE),
    "two Content-Ranges": (head(206, RANGE_LINE, RANGE_LINE, LENGTH_LINE) + BODY, _core.TRANSFER_RANGE),
    "no sense in Content-Range": (head(206, "Content-Range: bytes x", LENGTH_LINE) + BODY, _core.TRANSFER_RANGE),
    "the range beside it": (
        head(206, f"Content-Range: bytes {FIRST + 1}-{FIRST + LENGTH}/{len(DATA)}", LENGTH_LINE) + BODY,
        _core.TRANSFER_RANGE,
    ),
    "headers without an end": (b"HTTP/1.1 206 X\r\n" + b"X-Filler: abc\r\n" * 10_000, _core.TRANSFER_OTHER),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n" * 10, _core.TRANSFER_OTHER),
}


@pytest.mark.parametrize(("answer", "error"), LIES.values(), ids=LIES)
def test_a_lie_is_an_error(
    pool: _core.TransferPool, fd: int, answer: bytes, error: int, request: pytest.FixtureRequest
) -> None:
    def lie(exchange: Exchange) -> None:
        exchange.send(answer)
        exchange.end_sending()
        exchange.wait_until_client_leaves()

    result = get_range(pool, lie, fd, hashes=HASHES)

    assert result.error == error, result
    assert (result.xxh3_128, result.crc64nvme) == (None, None)
    assert result.message
    assert outside(fd) == UNTOUCHED * 2000
    if error == _core.TRANSFER_RANGE or request.node.callspec.id.endswith("and says so"):  # the head gives it away
        assert result.moved == 0
        assert os.pread(fd, LENGTH, 1000) == UNTOUCHED * LENGTH


class TestErrors:
    @pytest.mark.parametrize("status", [403, 404, 412, 416, 500, 503, 301])
    def test_another_status_keeps_its_text_and_leaves_the_file(
        self, pool: _core.TransferPool, fd: int, status: int
    ) -> None:
        text = b"<Error><Code>Whatever</Code></Error>"

        result = get_range(pool, lambda exchange: exchange.answer(status, text, {"Location": "http://x/"}), fd)

        assert (result.error, result.status, result.body, result.moved) == (_core.TRANSFER_HTTP, status, text, 0)
        assert os.pread(fd, LENGTH, 1000) == UNTOUCHED * LENGTH

    def test_an_error_text_without_end_is_cut(self, pool: _core.TransferPool, fd: int) -> None:
        def endless(exchange: Exchange) -> None:
            exchange.answer(500, b"x" * 5000, {"Content-Length": "1000000000000"})
            exchange.wait_until_client_leaves()

        result = get_range(pool, endless, fd, keep_body=1000)

        assert (result.error, result.status, result.body) == (_core.TRANSFER_HTTP, 500, b"x" * 1000)

    def test_an_expected_answer_that_does_not_fit_is_an_error(self, pool: _core.TransferPool) -> None:
        with HostileServer(lambda exchange: exchange.answer(200, b"x" * 1001)) as server:
            result = run(pool, "GET", server.url, [], keep_body=1000)

        assert result.error == _core.TRANSFER_LONG

    def test_a_reset_in_the_body(self, pool: _core.TransferPool, fd: int) -> None:
        def reset(exchange: Exchange) -> None:
            exchange.send(RANGE_HEAD + BODY[:1000])
            exchange.reset()

        assert get_range(pool, reset, fd).error == _core.TRANSFER_RESET

    @pytest.mark.parametrize("said", [b"", RANGE_HEAD, RANGE_HEAD + b"x"])
    def test_a_stall_is_a_time_out(self, pool: _core.TransferPool, fd: int, said: bytes) -> None:
        def stall(exchange: Exchange) -> None:
            exchange.send(said)
            exchange.wait_until_client_leaves()

        assert get_range(pool, stall, fd).error == _core.TRANSFER_TIMEOUT

    def test_a_body_byte_by_byte_is_a_time_out(self, pool: _core.TransferPool, fd: int) -> None:
        def drip(exchange: Exchange) -> None:
            exchange.send(RANGE_HEAD)
            exchange.connection.settimeout(0.3)
            while True:
                exchange.send(b"x")
                try:
                    if not exchange.receive():
                        exchange.close()
                        return
                except TimeoutError:
                    continue

        assert get_range(pool, drip, fd).error == _core.TRANSFER_TIMEOUT

    def test_a_jobs_own_time_limit(self, pool: _core.TransferPool, fd: int) -> None:
        result = get_range(
            pool, lambda exchange: exchange.wait_until_client_leaves(), fd, low_speed_s=0, timeout_ms=200
        )

        assert result.error == _core.TRANSFER_TIMEOUT

    def test_nobody_there(self, pool: _core.TransferPool) -> None:
        assert run(pool, "GET", refused_url(), []).error == _core.TRANSFER_CONNECT

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "http://127.0.0.1/a\nb"])
    def test_only_http(self, pool: _core.TransferPool, url: str) -> None:
        result = run(pool, "GET", url, [])

        assert (result.error, result.body) == (_core.TRANSFER_OTHER, b"")

    def test_a_write_that_fails_halfway_says_its_errno(self, pool: _core.TransferPool, fd: int) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            result = get_range(pool, lambda exchange: exchange.answer_range(DATA), fd)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

        assert (result.error, result.errno) == (_core.TRANSFER_LOCAL_IO, errno.EFBIG)

    def test_a_sink_that_cannot_be_written(self, pool: _core.TransferPool, tmp_path: Path) -> None:
        (tmp_path / "read-only").touch()
        fd = os.open(tmp_path / "read-only", os.O_RDONLY)

        result = get_range(pool, lambda exchange: exchange.answer_range(DATA), fd)

        os.close(fd)
        assert (result.error, result.errno) == (_core.TRANSFER_LOCAL_IO, errno.EBADF)


class TestUpload:
    @staticmethod
    def put(pool: _core.TransferPool, behave: Behaviour, fd: int, **kwargs: Any) -> _core.TransferResult:
        os.pwrite(fd, BODY, 1000)
        with HostileServer(behave) as server:
            return run(pool, "PUT", server.url, [], source=fd, offset=1000, length=LENGTH, hashes=HASHES, **kwargs)

    def test_a_range_is_sent_with_its_hashes(self, pool: _core.TransferPool, fd: int) -> None:
        bodies: list[bytes] = []

        def take(exchange: Exchange) -> None:
            bodies.append(exchange.read_body())
            exchange.answer(200, headers={"ETag": '"e"'})

        result = self.put(pool, take, fd)

        assert bodies == [BODY]
        assert (result.error, result.moved, dict(result.headers)["etag"]) == (_core.TRANSFER_OK, LENGTH, '"e"')
        assert (result.xxh3_128, result.crc64nvme) == (_core.xxh3_128(BODY), _core.crc64nvme(BODY))

    def test_a_file_that_becomes_shorter_is_never_a_whole_body(self, pool: _core.TransferPool, fd: int) -> None:
        more_than_sockets_take = 64 << 20
        bodies: list[bytes] = []

        def cut_the_file(exchange: Exchange) -> None:
            os.ftruncate(fd, 1000)
            bodies.append(exchange.read_body())
            exchange.close()

        os.ftruncate(fd, more_than_sockets_take)
        with HostileServer(cut_the_file) as server:
            result = run(pool, "PUT", server.url, [], source=fd, length=more_than_sockets_take, hashes=HASHES)

        assert (result.error, result.xxh3_128) == (_core.TRANSFER_LOCAL_SHORT, None)
        assert len(bodies[0]) < more_than_sockets_take

    def test_an_answer_cut_in_its_headers_is_no_success(self, pool: _core.TransferPool, fd: int) -> None:
        def cut(exchange: Exchange) -> None:
            exchange.read_body()
            exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e')
            exchange.close()

        assert self.put(pool, cut, fd).error == _core.TRANSFER_SHORT

    @pytest.mark.parametrize("status", [403, 412, 503])
    def test_a_refusal_before_the_body_was_read(self, pool: _core.TransferPool, fd: int, status: int) -> None:
        def refuse(exchange: Exchange) -> None:
            exchange.answer(status, b"<Error/>")
            exchange.wait_until_client_leaves()

        result = self.put(pool, refuse, fd)

        assert (result.error, result.status, result.body) == (_core.TRANSFER_HTTP, status, b"<Error/>")

    def test_a_reset_before_the_body_was_read(self, pool: _core.TransferPool, fd: int) -> None:
        assert self.put(pool, lambda exchange: exchange.reset(), fd).error == _core.TRANSFER_RESET

    def test_a_small_body_and_its_answer(self, pool: _core.TransferPool) -> None:
        def echo(exchange: Exchange) -> None:
            exchange.answer(200, exchange.read_body())

        with HostileServer(echo) as server:
            result = run(pool, "POST", server.url, [b"Content-Type: application/xml"], body=b"<Complete/>")
            (exchange,) = server.seen

        assert (result.error, result.body) == (_core.TRANSFER_OK, b"<Complete/>")
        assert exchange.headers["content-type"] == "application/xml"

    @pytest.mark.parametrize("method", ["PUT", "POST"])
    def test_no_body_is_said(self, pool: _core.TransferPool, method: str) -> None:
        with HostileServer(lambda exchange: exchange.answer(200)) as server:
            assert run(pool, method, server.url, []).error == _core.TRANSFER_OK
            assert server.seen[0].headers["content-length"] == "0"


class TestRequest:
    def test_what_was_signed_is_sent_and_nothing_else(self, pool: _core.TransferPool) -> None:
        headers = [b"Host: bucket.example", b"x-amz-meta-a: \xc3\xa9 b", b"x-amz-meta-empty:"]
        with HostileServer(lambda exchange: exchange.answer(204)) as server:
            result = run(pool, "DELETE", server.url + "/a/../b//c/./%2F?x=%20", headers)
            (exchange,) = server.seen

        assert result.error == _core.TRANSFER_OK
        assert exchange.raw_head == (
            b"DELETE /a/../b//c/./%2F?x=%20 HTTP/1.1\r\n"
            b"Host: bucket.example\r\nx-amz-meta-a: \xc3\xa9 b\r\nx-amz-meta-empty:"
        )

    def test_head_has_no_body_whatever_its_length_says(self, pool: _core.TransferPool) -> None:
        with HostileServer(lambda exchange: exchange.answer(200, headers={"Content-Length": "12345"})) as server:
            first, second = (run(pool, "HEAD", server.url, []) for _ in range(2))

            assert (server.connections, first.error, second.error) == (1, _core.TRANSFER_OK, _core.TRANSFER_OK)
        assert dict(first.headers)["content-length"] == "12345"

    @pytest.mark.parametrize(
        ("kwargs", "error"),
        [
            ({"headers": [b"A: b\r\nC: d"]}, ValueError),
            ({"headers": [b"no colon"]}, ValueError),
            ({"headers": [b"A: \x00"]}, ValueError),
            ({"headers": [b"content-LENGTH: 3"]}, ValueError),
            ({"headers": ["A: b"]}, TypeError),
            ({"headers": [b"A: b"] * 129}, ValueError),
            ({"headers": [b"A: " + b"b" * 70_000]}, ValueError),
            ({"method": "GET / HTTP/1.1\r\nX: "}, ValueError),
            ({"url": "http://a/\x00"}, ValueError),
            ({"body": b"", "source": 0}, ValueError),
            ({"length": 3}, ValueError),
            ({"hashes": 1}, ValueError),
            ({"hashes": 4, "sink": 1}, ValueError),
            ({"sink": 1, "offset": -1}, ValueError),
            ({"sink": 1, "offset": 2**63 - 1, "length": 1}, ValueError),
            ({"sink": 1, "offset": 2**63}, OverflowError),
            ({"sink": 1, "length": 1, "object_offset": 0, "expect_status": 200}, ValueError),
            ({"priority": 4}, ValueError),
            ({"sink": 100_000}, OSError),
            ({"method": "HEAD", "sink": 1}, ValueError),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, pool: _core.TransferPool, kwargs: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            pool.submit(**{"method": "GET", "url": "http://127.0.0.1/", "headers": [], **kwargs})
        assert pool.stats()["waiting"] == pool.stats()["running"] == 0


class TestConnections:
    def test_one_is_kept_for_the_next_job(self, pool: _core.TransferPool) -> None:
        with HostileServer(lambda exchange: exchange.answer(200, b"x")) as server:
            results = [run(pool, "GET", server.url, []) for _ in range(50)]

            assert {result.error for result in results} == {_core.TRANSFER_OK}
            assert server.connections <= 2  # a thread
            assert pool.stats()["connections"] == server.connections

    def test_one_that_was_dropped_meanwhile_costs_nothing(self, pool: _core.TransferPool, fd: int) -> None:
        bodies: list[bytes] = []

        def drop(exchange: Exchange) -> None:
            body = exchange.read_body()
            if len(exchange.server.seen) % 2 == 0:  # no answer to the second request of a connection
                exchange.close()
                return
            bodies.append(body)
            exchange.answer(200)

        os.pwrite(fd, BODY, 1000)
        with HostileServer(drop) as server:
            ask = {"source": fd, "offset": 1000, "length": LENGTH, "hashes": HASHES}
            results = [run(pool, "PUT", server.url, [], **ask) for _ in range(4)]

        assert [result.error for result in results] == [_core.TRANSFER_OK] * 4
        assert {result.xxh3_128 for result in results} == {_core.xxh3_128(BODY)}
        assert bodies == [BODY] * 4


class TestQueue:
    def test_the_first_in_priority_goes_first(self) -> None:
        go = threading.Event()

        def hold_the_first(exchange: Exchange) -> None:
            if exchange.target == "/first":
                assert go.wait(HANGS_S)
            exchange.answer(200)

        pool = _core.TransferPool(1)
        with HostileServer(hold_the_first) as server:
            pool.submit("GET", server.url + "/first", [])
            while pool.stats()["running"] == 0:
                pass
            for priority in (3, 2, 1, 0, 3, 1, 0):
                pool.submit("GET", f"{server.url}/{priority}", [], priority=priority)
            pool.submit("GET", f"{server.url}/default", [])
            go.set()
            done = 0
            while done < 9:
                done += len(next_results(pool))
            pool.close()

            order = ["/first", "/0", "/0", "/1", "/1", "/2", "/default", "/3", "/3"]
            assert [exchange.target for exchange in server.seen] == order

    def test_it_is_bounded_until_results_are_collected(self) -> None:
        pool = _core.TransferPool(2, queue=3)
        with HostileServer(lambda exchange: exchange.answer(200)) as server:
            for _ in range(3):
                pool.submit("GET", server.url, [])
            while pool.stats()["done"] < 3:
                pass
            with pytest.raises(BlockingIOError):
                pool.submit("GET", server.url, [])

            assert len(pool.collect()) == 3
            assert not select.select([pool], [], [], 0)[0]
            assert run(pool, "GET", server.url, []).error == _core.TRANSFER_OK
        pool.close()


class TestLimits:
    def test_a_limit_is_kept_and_lifted_at_once(self, fd: int) -> None:
        pool = _core.TransferPool(2, buffer_bytes=1 << 16, low_speed_s=1, low_speed_bytes=1, down_limit=1)
        with HostileServer(lambda exchange: exchange.answer_range(DATA)) as server:
            headers = [b"Range: bytes=0-%d" % (LENGTH - 1)]
            pool.submit("GET", server.url, headers, sink=fd, length=LENGTH, object_offset=0)
            while pool.stats()["bytes_down"] == 0:
                pass
            # a byte a second: it waits now, for hours
            pool.set_limits(0, 0)
            (result,) = next_results(pool)

        assert result.error == _core.TRANSFER_OK
        assert pool.stats()["throttled_ns"] > 0
        pool.close()

    @pytest.mark.parametrize("direction", ["down", "up"])
    def test_two_jobs_share_a_limit(self, direction: str, fd: int) -> None:
        rate = 4 * LENGTH
        pool = _core.TransferPool(
            2,
            buffer_bytes=1 << 14,
            down_limit=rate if direction == "down" else 0,
            up_limit=rate if direction == "up" else 0,
        )

        def serve(exchange: Exchange) -> None:
            exchange.read_body()
            exchange.answer(200, BODY if exchange.method == "GET" else b"")

        with HostileServer(serve) as server:
            start = time.monotonic()
            for _ in range(2):
                if direction == "down":
                    pool.submit("GET", server.url, [], sink=fd, length=LENGTH)
                else:
                    pool.submit("PUT", server.url, [], source=fd, length=LENGTH)
            results: list[_core.TransferResult] = []
            while len(results) < 2:
                results += next_results(pool)
            took_s = time.monotonic() - start

        assert [result.error for result in results] == [_core.TRANSFER_OK] * 2
        assert took_s >= 2 * LENGTH / rate - CREDIT_S  # however slow the machine: never faster
        pool.close()
