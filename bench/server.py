"""An S3 server that is no bottleneck: its listing pages are rendered before the first request, in a process of its own.

    with StaticServer(objects=200_000) as server:
        server.url, server.uri       # s3://bench/data/

It knows what the benchmarks ask for: ListObjectsV2, HEAD and ranged GET of the rendered objects; PUT, HEAD, GET and
DELETE of others, with conditions, kept in memory. It looks at no signature.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from bench import ROOT
from bench.objects import BUCKET, DATE, PREFIX, Objects, answer

_GONE = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
_FAILED = b"<Error><Code>PreconditionFailed</Code><Message>another version</Message></Error>"
_UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>the benchmarks do not ask for it</Message></Error>"


class Connection(asyncio.Protocol):
    """One client's connection: requests in, answers out, in order."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._buffer = bytearray()
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            request, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", 0))
            if len(self._buffer) < end + 4 + length:
                if headers.get("expect") and not self._continued:
                    self._continued = True
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._continued = False
            method, target, _ = request.split(" ", 2)
            self._transport.write(self._handle(method, target, headers, body))

    def _handle(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        path, _, query = target.partition("?")
        _, _, key = unquote(path).lstrip("/").partition("/")
        if not key:
            return self._objects.page(query) if method == "GET" and "list-type=2" in query else answer(200)
        if query and not query.startswith("x-id="):  # multipart uploads, tags: nobody measures them here
            return answer(501, _UNKNOWN)
        found = self._objects.find(key)
        if method in {"HEAD", "GET"}:
            return self._read(method, found, headers)
        if not _allowed(headers, found):
            return answer(404 if found is None else 412, _GONE if found is None else _FAILED)
        if method == "DELETE":
            self._objects.written.pop(key, None)
            return answer(204)
        if method != "PUT" or "x-amz-copy-source" in headers:
            return answer(501, _UNKNOWN)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        described = "".join(f"{n}: {v}\r\n" for n, v in headers.items() if n.startswith("x-amz-meta-"))
        self._objects.written[key] = (etag, body, described)
        return answer(200, headers=f'ETag: "{etag}"\r\n')

    @staticmethod
    def _read(method: str, found: tuple[str, bytes, str] | None, headers: dict[str, str]) -> bytes:
        if found is None:
            return answer(404, _GONE if method == "GET" else b"")
        etag, data, described = found
        if headers.get("if-match", etag).strip('"') != etag:
            return answer(412, _FAILED)
        common = f'ETag: "{etag}"\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n{described}'
        if method == "HEAD":
            return answer(200, headers=common, length=len(data))
        if "range" not in headers:
            return answer(200, data, common)
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        return answer(206, data[start : end + 1], f"{common}Content-Range: bytes {start}-{end}/{len(data)}\r\n")


def _allowed(headers: dict[str, str], found: tuple[str, bytes, str] | None) -> bool:
    if "if-none-match" in headers:
        return found is None
    return "if-match" not in headers or (found is not None and headers["if-match"].strip('"') == found[0])


async def _serve(count: int, size: int) -> None:
    objects = Objects(count, size)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(objects), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # it ends with whoever started it


class StaticServer:
    """The server as a process of its own. A context manager."""

    def __init__(self, objects: int, size: int = 10 * 1024) -> None:
        self._arguments = [str(objects), str(size)]
        self.url = ""
        self.uri = f"s3://{BUCKET}/{PREFIX}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "bench.server", *self._arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"  # it listens when it says so
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
