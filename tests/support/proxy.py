"""A reverse proxy on loopback that writes down every request, and delays, fails or cuts those that a test picks.

    with Proxy(moto.url) as proxy:
        proxy.rule = lambda request: Answer(503) if request.method == "GET" else None

The rule runs in the request's own thread: one that blocks on a `threading.Event` holds that request and no other.
Without an upstream it is a server of its own, whose every answer comes from the rule.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
"""Headers that belong to one hop (RFC 9110 §7.6.1), and the length, which is written anew."""


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` is unquoted: ``/bucket/key``. ``range`` is (first, last) of a ranged GET."""

    method: str
    path: str
    query: str
    range: tuple[int, int] | None
    copies: str = ""
    """What is copied, unquoted, as ``/bucket/key``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say instead of the upstream."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """Let so many bytes of the upstream's body through, then end the connection."""

    after: int


@dataclass(frozen=True, slots=True)
class Garbled:
    """Let the upstream's answer through with its first byte changed, as bad memory on the way would."""


@dataclass(frozen=True, slots=True)
class Unconditional:
    """Let the request through without its conditions, as a store would take it that knows none."""


@dataclass(frozen=True, slots=True)
class Told:
    """Let the upstream's answer through with more headers, as a store would tell that knows more of an object."""

    headers: Mapping[str, str]
    """In place of the upstream's own of those names."""


def refusal(status: int, code: str, message: str = "refused") -> Answer:
    """S3's error document."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
    return Answer(status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())


def is_listing(request: Request) -> bool:
    return request.method == "GET" and "list-type=2" in request.query


Rule = Callable[[Request], Answer | Cut | Garbled | Told | Unconditional | None]


@dataclass
class Proxy:
    """A context manager; ``url`` is known once it is entered."""

    upstream: str | None
    rule: Rule | None = None
    done: Callable[[Request], None] | None = None
    """Called when the upstream has answered, before that is passed on: it holds answers as a rule does requests."""
    port: int = 0
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()

    @contextlib.contextmanager
    def holding(self, which: Callable[[Request], bool]) -> Iterator[None]:
        """Within the block such requests wait, and none is under way: it begins when one of them is held. For those
        that one client sends one after the other, as the listings of an association."""
        before, came, over = self.rule, threading.Event(), threading.Event()

        def rule(request: Request) -> Answer | Cut | Garbled | Told | Unconditional | None:
            if which(request):
                came.set()
                over.wait()
            return before(request) if before is not None else None

        self.rule = rule
        try:
            assert came.wait(60), "no such request came"
            yield
        finally:
            self.rule = before
            over.set()

    def gets(self, path: str) -> list[Request]:
        """GET requests of one object so far; listings have a query and another path."""
        return [request for request in list(self.requests) if request.method == "GET" and request.path == path]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a request that a rule holds must not hold the test's end

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", proxy.port), _Handler)
        self.proxy = proxy
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End what is kept alive: a server that is down answers on no connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        span = (int(found[1]), int(found[2])) if found else None
        source = urllib.parse.unquote(self.headers.get("x-amz-copy-source", ""))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, urllib.parse.unquote(path), query, span, source, headers, body)
        proxy = self.server.proxy
        proxy.requests.append(request)
        verdict = proxy.rule(request) if proxy.rule is not None else None
        if isinstance(verdict, Answer):
            self._answer(verdict.status, [("Content-Type", "application/xml")], verdict.body, len(verdict.body))
            return
        self._pass_on(body, verdict, request)

    def _pass_on(self, body: bytes, change: Cut | Garbled | Told | Unconditional | None, request: Request) -> None:
        assert self.server.proxy.upstream is not None
        upstream = urllib.parse.urlsplit(self.server.proxy.upstream)
        assert upstream.hostname is not None
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        if upstream.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
            connection = http.client.HTTPSConnection(upstream.hostname, upstream.port, timeout=60, context=trust)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            if isinstance(change, Unconditional):
                headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        if self.server.proxy.done is not None:
            self.server.proxy.done(request)
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if isinstance(change, Told):
            said = {name.lower() for name in change.headers}
            kept = [*((name, value) for name, value in kept if name.lower() not in said), *change.headers.items()]
        length = int(answer.getheader("Content-Length") or len(data))
        if isinstance(change, Garbled):
            data = bytes([data[0] ^ 1]) + data[1:]
        self._answer(answer.status, kept, data[: change.after] if isinstance(change, Cut) else data, length)
        if isinstance(change, Cut):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815
