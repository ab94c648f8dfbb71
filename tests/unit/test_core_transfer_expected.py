"""fsxsync._core.TransferPool: a CRC that is expected, bodies with holes and above 4 GiB, answers without a body."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hostile_server import Behaviour, Exchange, HostileServer

from fsxsync import _core

HANGS_S = 30
BUFFER = 1 << 16
OFFSET = 777  # no multiple of anything
LENGTHS = pytest.mark.parametrize("length", [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 4 * BUFFER, 5 * BUFFER + 13])
DATA = bytes(range(251)) * 2000
CRC = _core.TRANSFER_HASH_CRC64NVME


def run(pool: _core.TransferPool, *args: Any, **kwargs: Any) -> _core.TransferResult:
    job = pool.submit(*args, **kwargs)
    assert select.select([pool], [], [], HANGS_S)[0], "nothing is done"
    (result,) = pool.collect()
    assert result.id == job
    return result


@pytest.fixture
def pool() -> Iterator[_core.TransferPool]:
    pool = _core.TransferPool(1, buffer_bytes=BUFFER)
    yield pool
    pool.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, DATA, OFFSET)
    yield fd
    os.close(fd)


def crc_of(length: int) -> int:
    return _core.crc64nvme(DATA[:length])


class Taker:
    """A store that publishes what is as long as it was said to be, and nothing else."""

    def __init__(self) -> None:
        self.published: list[bytes] = []
        self.torn: list[tuple[int, int]] = []

    def __call__(self, exchange: Exchange) -> None:
        said, body = int(exchange.headers["content-length"]), exchange.read_body()
        if len(body) == said:
            self.published.append(body)
            exchange.answer(200)
        else:
            self.torn.append((len(body), said))
            exchange.close()


class TestSource:
    @LENGTHS
    def test_the_expected_bytes_are_published(self, pool: _core.TransferPool, fd: int, length: int) -> None:
        taker = Taker()
        with HostileServer(taker) as server:
            ask = {"source": fd, "offset": OFFSET, "length": length, "expect_crc64nvme": crc_of(length)}
            result = run(pool, "PUT", server.url, [], **ask)

        assert (result.error, result.moved, result.crc64nvme) == (_core.TRANSFER_OK, length, crc_of(length))
        assert taker.published == [DATA[:length]]

    @LENGTHS
    def test_others_are_never_a_whole_body(self, pool: _core.TransferPool, fd: int, length: int) -> None:
        taker = Taker()
        with HostileServer(taker) as server:
            ask = {"source": fd, "offset": OFFSET, "length": length, "expect_crc64nvme": crc_of(length) ^ 1}
            result = run(pool, "PUT", server.url, [], **ask)

        assert (result.error, result.status, result.crc64nvme) == (_core.TRANSFER_LOCAL_CHANGED, 0, None)
        assert result.moved < max(length, 1)
        assert f"{crc_of(length):016x}" in result.message
        assert taker.published == []
        assert all(came < said for came, said in taker.torn)

    def test_a_file_that_changes_while_it_is_sent_is_not_published(self, pool: _core.TransferPool, fd: int) -> None:
        more_than_sockets_take = 64 << 20
        os.ftruncate(fd, more_than_sockets_take)
        expected = _core.crc64nvme_range(fd, 0, more_than_sockets_take)
        taker = Taker()

        def change_the_end(exchange: Exchange) -> None:
            os.pwrite(fd, b"changed", more_than_sockets_take - 7)
            taker(exchange)

        with HostileServer(change_the_end) as server:
            ask = {"source": fd, "length": more_than_sockets_take, "expect_crc64nvme": expected}
            result = run(pool, "PUT", server.url, [], **ask)

        assert result.error == _core.TRANSFER_LOCAL_CHANGED
        assert (taker.published, len(taker.torn)) == ([], 1)

    @pytest.mark.parametrize("wrong", [0, 1])
    def test_a_second_try_on_a_dead_connection_starts_its_crc_again(
        self, pool: _core.TransferPool, fd: int, wrong: int
    ) -> None:
        taker = Taker()

        def drop_the_second(exchange: Exchange) -> None:
            if len(exchange.server.seen) == 2:  # the kept connection dies under the client
                exchange.read_body()
                exchange.close()
            else:
                taker(exchange)

        ask = {"source": fd, "offset": OFFSET, "length": 5 * BUFFER}
        with HostileServer(drop_the_second) as server:
            first = run(pool, "PUT", server.url, [], **ask, expect_crc64nvme=crc_of(5 * BUFFER))
            second = run(pool, "PUT", server.url, [], **ask, expect_crc64nvme=crc_of(5 * BUFFER) ^ wrong)

        assert first.error == _core.TRANSFER_OK
        assert second.error == (_core.TRANSFER_LOCAL_CHANGED if wrong else _core.TRANSFER_OK)
        assert len(taker.published) == 2 - wrong

    def test_one_that_never_began_shows_nothing_of_the_job_before(self, pool: _core.TransferPool, fd: int) -> None:
        with HostileServer(lambda exchange: exchange.answer(200, headers={"ETag": "x"})) as server:
            assert run(pool, "GET", server.url, []).headers
            result = run(pool, "PUT", server.url, [], source=fd, expect_crc64nvme=1)

            assert (result.error, result.status, result.headers) == (_core.TRANSFER_LOCAL_CHANGED, 0, ())
            assert pool.stats()["connections"] == len(server.seen) == 1


class TestSink:
    @LENGTHS
    @pytest.mark.parametrize("wrong", [0, 1])
    def test_what_came_is_compared_at_its_end(self, pool: _core.TransferPool, fd: int, length: int, wrong: int) -> None:
        os.ftruncate(fd, 0)
        with HostileServer(lambda exchange: exchange.answer(200, DATA[:length])) as server:
            ask = {"sink": fd, "length": length, "expect_crc64nvme": crc_of(length) ^ wrong}
            result = run(pool, "GET", server.url, [], **ask)

        assert result.error == (_core.TRANSFER_DAMAGED if wrong else _core.TRANSFER_OK)
        assert (result.status, result.moved) == (200, length)
        assert result.crc64nvme == (None if wrong else crc_of(length))
        assert os.pread(fd, length + 1, 0) == DATA[:length], "the caller decides what becomes of it"

    def test_less_than_asked_is_short_and_not_damaged(self, pool: _core.TransferPool, fd: int) -> None:
        with HostileServer(lambda exchange: exchange.answer(200, DATA[:99])) as server:
            result = run(pool, "GET", server.url, [], sink=fd, length=100, expect_crc64nvme=crc_of(100))

        assert result.error == _core.TRANSFER_SHORT


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"expect_crc64nvme": 0}, ValueError),
        ({"expect_crc64nvme": 0, "body": b"x"}, ValueError),
        ({"expect_crc64nvme": -1, "source": 0}, OverflowError),
        ({"expect_crc64nvme": 2**64, "source": 0}, OverflowError),
        ({"expect_crc64nvme": "0", "source": 0}, TypeError),
        ({"expect_crc64nvme": 1.0, "source": 0}, TypeError),
    ],
)
def test_an_expectation_that_cannot_be_met_is_refused(
    pool: _core.TransferPool, kwargs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        pool.submit("PUT", "http://127.0.0.1/", [], **kwargs)


# --- holes, and lengths that 32 bits cannot say


def test_holes_are_sent_as_zeros(pool: _core.TransferPool, fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"data", 3 * BUFFER)
    os.ftruncate(fd, 6 * BUFFER)
    content = b"\0" * (3 * BUFFER) + b"data" + b"\0" * (3 * BUFFER - 4)
    assert os.stat(fd).st_blocks * 512 < len(content), "there are holes"
    taker = Taker()

    with HostileServer(taker) as server:
        ask = {"source": fd, "length": 6 * BUFFER, "expect_crc64nvme": _core.crc64nvme(content)}
        result = run(pool, "PUT", server.url, [], **ask)

    assert (result.error, taker.published) == (_core.TRANSFER_OK, [content])


OVER_4_GIB = (1 << 32) + 5
SOME_ZEROS = bytes(1 << 20)


def crc_of_zeros(length: int) -> int:
    """In no time: by doubling."""
    total, power = 0, _core.crc64nvme(b"\0")
    for bit in range(length.bit_length()):
        if length >> bit & 1:
            total = _core.crc64nvme_combine(total, power, 1 << bit)
        power = _core.crc64nvme_combine(power, power, 1 << bit)
    return total


def discard(connection: socket.socket, length: int) -> int:
    """How many of `length` bytes came."""
    into, came = bytearray(1 << 20), 0
    while came < length and (got := connection.recv_into(into, min(len(into), length - came))):
        came += got
    return came


def test_a_body_over_4_gib_is_sent_whole() -> None:
    came: list[int] = []

    def count(exchange: Exchange) -> None:
        said, early = int(exchange.headers["content-length"]), len(exchange.early)
        exchange.early = b""
        came.append(early + discard(exchange.connection, said - early))
        exchange.answer(200)

    source = os.memfd_create("holes")  # a disk's file system is slow to read its holes
    os.ftruncate(source, OFFSET + OVER_4_GIB)
    pool = _core.TransferPool(1)
    with HostileServer(count) as server:
        ask = {"source": source, "offset": OFFSET, "length": OVER_4_GIB, "expect_crc64nvme": crc_of_zeros(OVER_4_GIB)}
        pool.submit("PUT", server.url, [], **ask)
        os.close(source)
        assert select.select([pool], [], [], 10 * HANGS_S)[0], "gigabytes take their time"
        (result,) = pool.collect()
        pool.close()

    assert (result.error, result.moved, came) == (_core.TRANSFER_OK, OVER_4_GIB, [OVER_4_GIB])


def test_an_answer_over_4_gib_comes_whole() -> None:
    first = 7 << 32

    def zeros(exchange: Exchange) -> None:
        last = first + OVER_4_GIB - 1
        lines = {"Content-Length": str(OVER_4_GIB), "Content-Range": f"bytes {first}-{last}/{1 << 45}"}
        exchange.answer(206, headers=lines)
        for at in range(0, OVER_4_GIB, len(SOME_ZEROS)):
            exchange.send(SOME_ZEROS[: OVER_4_GIB - at])

    sink = os.open("/dev/null", os.O_WRONLY)
    pool = _core.TransferPool(1)
    with HostileServer(zeros) as server:
        ask = {"sink": sink, "length": OVER_4_GIB, "object_offset": first}
        pool.submit("GET", server.url, [], **ask, expect_crc64nvme=crc_of_zeros(OVER_4_GIB))
        os.close(sink)
        assert select.select([pool], [], [], 10 * HANGS_S)[0], "gigabytes take their time"
        (result,) = pool.collect()
        pool.close()

    assert (result.error, result.moved) == (_core.TRANSFER_OK, OVER_4_GIB)


# --- a whole object without a Range, and answers that have no body


def whole(length: int, said: str) -> Behaviour:
    def answer(exchange: Exchange) -> None:
        exchange.send(f"HTTP/1.1 200 OK\r\n{said}\r\n\r\n".encode())
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (length, DATA[:length])
        exchange.send(chunk if "chunked" in said else DATA[:length])
        exchange.end_sending()
        exchange.wait_until_client_leaves()

    return answer


@pytest.mark.parametrize(
    ("length", "said", "error"),
    [
        (1000, "Content-Length: 1000", _core.TRANSFER_OK),
        (1000, "Connection: close", _core.TRANSFER_OK),
        (1000, "Transfer-Encoding: chunked", _core.TRANSFER_OK),
        (999, "Content-Length: 999", _core.TRANSFER_SHORT),
        (999, "Content-Length: 1000", _core.TRANSFER_SHORT),
        (999, "Connection: close", _core.TRANSFER_SHORT),
        (999, "Transfer-Encoding: chunked", _core.TRANSFER_SHORT),
        (1001, "Content-Length: 1001", _core.TRANSFER_LONG),
        (1001, "Connection: close", _core.TRANSFER_LONG),
        (1001, "Transfer-Encoding: chunked", _core.TRANSFER_LONG),
    ],
)
def test_a_whole_object_has_the_length_that_is_known(
    pool: _core.TransferPool, fd: int, length: int, said: str, error: int
) -> None:
    with HostileServer(whole(length, said)) as server:
        result = run(pool, "GET", server.url, [], sink=fd, length=1000, hashes=CRC)

    assert result.error == error, result
    assert result.crc64nvme == (None if error else crc_of(1000))


def test_a_part_where_the_whole_object_was_asked_is_an_error(pool: _core.TransferPool, fd: int) -> None:
    lines = {"Content-Range": "bytes 0-999/5000"}
    with HostileServer(lambda exchange: exchange.answer(206, DATA[:1000], lines)) as server:
        result = run(pool, "GET", server.url, [], sink=fd, length=1000)

    assert (result.error, result.status, result.moved) == (_core.TRANSFER_HTTP, 206, 0)


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("HEAD", 200, _core.TRANSFER_OK),
        ("HEAD", 404, _core.TRANSFER_HTTP),
        ("DELETE", 204, _core.TRANSFER_OK),
        ("GET", 304, _core.TRANSFER_HTTP),
    ],
)
def test_a_length_is_no_promise_where_no_body_can_be(
    pool: _core.TransferPool, method: str, status: int, error: int
) -> None:
    with HostileServer(lambda exchange: exchange.answer(status, headers={"Content-Length": "12345"})) as server:
        results = [run(pool, method, server.url, []) for _ in range(2)]

        assert server.connections == 1, "nobody waited for the body, and the connection was kept"
    assert [(result.error, result.status, result.body) for result in results] == [(error, status, b"")] * 2
