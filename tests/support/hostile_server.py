"""An HTTP server that does what it is told, down to the bytes: cuts, stalls, lies, resets.

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\n\\r\\nabc")   # and no more
        exchange.close()

    with HostileServer(behave) as server: ...

`behave` runs once a request, in the connection's own thread. Unless it closes, the connection is kept.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_PIECE = 1 << 16


@dataclass
class Exchange:
    """One request, and the socket to answer it on. The body is read only if `read_body` is called."""

    server: HostileServer
    connection: socket.socket
    number: int
    """Of the connection, from 0: equal numbers came over the same one."""
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    raw_head: bytes
    early: bytes
    """What came with the head of what follows it."""
    is_closed: bool = False

    def read_body(self) -> bytes:
        """All of Content-Length, or what came until the client gave up."""
        length = int(self.headers.get("content-length", 0))
        body, self.early = bytearray(self.early[:length]), self.early[length:]
        while len(body) < length and (piece := self.receive(length - len(body))):
            body += piece
        return bytes(body)

    def receive(self, most: int = _PIECE) -> bytes:
        """Empty when the client is gone."""
        try:
            return self.connection.recv(min(most, _PIECE))
        except ConnectionError:
            return b""

    def wait_until_client_leaves(self) -> None:
        while self.receive():
            pass
        self.close()

    def end_sending(self) -> None:
        """FIN, while we still read."""
        with contextlib.suppress(OSError):  # ENOTCONN: the client reset it
            self.connection.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """The client may be gone already: it often has reason to."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.connection.sendall(data)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A well-formed answer; `headers` replace its own Content-Length."""
        lines = {"Content-Length": str(len(body)), **(headers or {})}
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(head.encode() + b"\r\n" + (b"" if self.method == "HEAD" else body))

    def asked_range(self) -> tuple[int, int]:
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last)

    def answer_range(self, data: bytes) -> None:
        first, last = self.asked_range()
        self.answer(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def reset(self) -> None:
        """RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.is_closed = True
        self.connection.close()


Behaviour = Callable[[Exchange], None]


@dataclass
class HostileServer:
    """A context manager. `seen` is every request, in order of arrival."""

    behave: Behaviour
    tls: ssl.SSLContext | None = None
    seen: list[Exchange] = field(default_factory=list)
    connections: int = 0
    leaving: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends: what a behaviour that stalls may wait for."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # closed in this moment
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self._failures and error is None:
            raise self._failures[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # shut down
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        self._open.add(plain)
        connection = plain
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                if self.tls is not None:
                    connection = self.tls.wrap_socket(plain, server_side=True)
                    self._open.add(connection)
                for exchange in self._requests(connection, number):
                    self.seen.append(exchange)
                    self.behave(exchange)
                    if exchange.is_closed:
                        return
        except Exception as failure:  # noqa: BLE001 - a behaviour's own bug: the test shall see it
            self._failures.append(failure)
        finally:
            self._open -= {plain, connection}
            connection.close()

    def _requests(self, connection: socket.socket, number: int) -> Iterator[Exchange]:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                piece = connection.recv(_PIECE)
                if not piece:
                    return
                received += piece
            head, _, rest = received.partition(b"\r\n\r\n")
            request, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = request.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            exchange = Exchange(self, connection, number, method, target, headers, head, rest)
            yield exchange
            received = exchange.early


class Unreachable:
    """A port on loopback where connecting hangs: its queue of connections is full, and nobody takes one."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._fillers: list[socket.socket] = []
        while not self._is_full():
            pass
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return self

    def _is_full(self) -> bool:
        filler = socket.socket()
        self._fillers.append(filler)
        filler.settimeout(0.2)
        try:
            filler.connect(self._listener.getsockname())
        except TimeoutError:
            return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()


def refused_url() -> str:
    """Of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"
