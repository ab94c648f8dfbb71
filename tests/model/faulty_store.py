"""Between the daemon and the store: a proxy that obeys every condition, fails on request, and keeps account.

moto takes some conditions and does not look at them (SERVERS.md). Here they are looked at, under one lock with all
writes, so that nobody writes between a look and a deed: whatever is overwritten unseen then is the daemon's fault.

All that took effect is written down in a `History`.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from model.gates import Gate
from model.history import History
from support.proxy import refusal

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_WRITES = frozenset({"PUT", "POST", "DELETE"})
_ETAG = re.compile(rb"<ETag>(?:&quot;|&#34;|\")?([^<&\"]+)")
KINDS = ("503 before", "500 before", "reset before", "reset after", "500 after", "slow", "slow after")


_OPEN = Gate("", "", "")


@dataclass
class FaultyStore:
    """A context manager; ``url`` is known once it is entered. ``client`` asks the store itself."""

    upstream: str
    client: Any
    url: str = ""
    down: bool = False
    faults: list[tuple[str, str]] = field(default_factory=list)
    """What the next requests meet: (kind, method); "" is any."""
    history: History = field(default_factory=History)
    requests: int = 0
    gate: Gate = field(default_factory=lambda: _OPEN)
    """What the next request that fits it has to wait for."""
    queue: str = ""
    """The store's queue that stands behind `queue_url` now."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()

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

    @property
    def queue_url(self) -> str:
        """What the daemon takes for its queue. One that was killed leaves a long poll behind, which takes a message
        with it for a minute: so each daemon gets a queue of its own, under the same name."""
        return f"{self.url}/123456789012/model"

    def heal(self) -> None:
        self.down = False
        self.gate.open()
        self.faults.clear()

    def begin(self) -> None:
        """Forget the last world."""
        with self.lock:
            self.heal()
            self.history.begin()

    def hang_up(self) -> None:
        """End all connections, as a server does that goes down."""
        self.down = True
        self._server.hang_up()

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is written by the daemon meanwhile."""
        with self.lock:
            yield

    def etag_of(self, path: str) -> str:
        """What is there now; '' for nothing."""
        bucket, _, key = path[1:].partition("/")
        try:
            return str(self.client.head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
        except self.client.exceptions.ClientError:
            return ""

    def next_fault(self, method: str) -> str:
        with self.lock:
            for place, (kind, wanted) in enumerate(self.faults):
                if wanted in {"", method}:
                    del self.faults[place]
                    return kind
        return ""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def server_bind(self) -> None:
        # Who sends a part to a gate that is shut stands still in the middle of it: no buffer holds it all.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        super().server_bind()

    def __init__(self, store: FaultyStore) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    def handle_expect_100(self) -> bool:
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def _handle(self) -> None:
        store = self.server.store
        store.requests += 1
        gate = store.gate if store.gate.take(self._kind, self._place, self._source) else _OPEN
        gate.pause("begun")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length // 2)
        if self.command != "GET":
            gate.pause("half")
        body += self.rfile.read(length - len(body))
        gate.pause("sent")
        ends_upload = self._kind == "COMPLETE"
        kind = "reset before" if store.down else store.next_fault("COMPLETE" if ends_upload else self.command)
        if kind == "slow":
            time.sleep(random.uniform(0.02, 0.3))  # noqa: S311
        if kind == "reset before":
            self._hang_up()
            return
        if kind in {"503 before", "500 before"}:
            code = "SlowDown" if kind.startswith("503") else "InternalError"
            self._answer(int(kind[:3]), [("Content-Type", "application/xml")], refusal(0, code).body)
            return
        if self.headers.get("X-Amz-Target", "").startswith("AmazonSQS."):
            body = body.replace(store.queue_url.encode(), store.queue.encode())
        status, headers, data = self._carry_out(body)
        gate.pause("done")
        if kind == "slow after":
            time.sleep(random.uniform(0.02, 0.3))  # noqa: S311
        if kind == "reset after":
            self._hang_up()
        elif kind == "500 after":
            self._answer(500, [("Content-Type", "application/xml")], refusal(0, "InternalError").body)
        else:
            self._tell(status, headers, data)
            told = next((value for name, value in headers if name.lower() == "content-length"), None)
            kept = [(name, value) for name, value in headers if name.lower() not in _HOP]
            self._answer(status, kept, data, told, gate)

    # ------------------------------------------------------------- the request

    @property
    def _place(self) -> str:
        return urllib.parse.unquote(self.path.partition("?")[0])

    @property
    def _kind(self) -> str:
        """As gates name it."""
        if self.command == "POST" and "uploadId" in self._query:
            return "COMPLETE"
        return "COPY" if self._source else self.command

    @property
    def _source(self) -> str:
        """Of a copy; else ''."""
        source = urllib.parse.unquote(self.headers.get("x-amz-copy-source", "").partition("?")[0])
        return f"/{source.lstrip('/')}" if source else ""

    @property
    def _query(self) -> str:
        return self.path.partition("?")[2]

    def _carry_out(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        store = self.server.store
        visible = self.command in _WRITES and "/" in self._place[1:]
        if not visible or "partNumber" in self._query or "uploads" in self._query:
            return self._pass_on(body)
        with store.lock:
            if not self._holds():
                refused = refusal(412, "PreconditionFailed")
                return 412, [("Content-Type", "application/xml")], refused.body
            row = store.history.row_of(self._place) if store.history.is_foreign(self._place) else None
            copied = (self._source, store.etag_of(self._source)) if self._source else None
            status, headers, data = self._pass_on(body)
            if status < 300 and not (self.command == "DELETE" and "uploadId" in self._query):
                told = {name.lower(): value for name, value in headers}
                found = _ETAG.search(data)
                etag = told.get("etag", "").strip('"') or (found[1].decode() if found else "")
                is_delete = self.command == "DELETE"
                if is_delete:
                    etag = ""
                version_id = told.get("x-amz-version-id")
                store.history.add(self._place, etag, by_ours=True, version_id=version_id, row=row)
                if copied is not None and copied[0] != self._place:
                    store.history.copied(*copied)
        return status, headers, data

    def _holds(self) -> bool:
        """The conditions that moto does not look at."""
        store, headers = self.server.store, self.headers
        source, wanted = self._source, headers.get("x-amz-copy-source-if-match")
        if source and wanted and store.etag_of(source) != wanted.strip('"'):
            return False
        if not source and "uploadId" not in self._query:
            return True  # moto looks at these
        here = store.etag_of(self._place)
        if headers.get("If-None-Match") == "*" and here:
            return False
        return headers.get("If-Match") is None or headers["If-Match"].strip('"') == here

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = urllib.parse.urlsplit(self.server.store.upstream)
        assert upstream.hostname is not None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"expect", "connection"}}
        if body:
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    # ------------------------------------------------------------- the answer

    def _tell(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        if status >= 300:
            return
        store, place = self.server.store, self._place
        etag = next((value for name, value in headers if name.lower() == "etag"), "").strip('"')
        if etag:
            store.history.tell(place, etag)
        if self.command == "GET" and "list-type" in self._query:
            bucket = place.strip("/")
            for entry in data.split(b"<Contents>")[1:]:
                key, told = re.search(rb"<Key>(.*?)</Key>", entry), _ETAG.search(entry)
                if key and told:
                    encoded = b"encoding-type=url" in self._query.encode()
                    name = urllib.parse.unquote_plus(key[1].decode()) if encoded else key[1].decode()
                    store.history.tell(f"/{bucket}/{name}", told[1].decode())

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None, gate: Gate = _OPEN
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2])
            if self.command == "GET":
                self.wfile.flush()
                gate.pause("half")
            self.wfile.write(body[len(body) // 2 :])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815
