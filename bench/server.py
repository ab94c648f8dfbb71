"""An S3 server that is no bottleneck: its listing pages are rendered before the first request, in a process of its own.

    with StaticServer(objects=200_000) as server:
        server.url, server.uri       # s3://bench/data/

It knows what the benchmarks ask for and nothing more: ListObjectsV2, HEAD and ranged GET of the rendered objects; PUT,
HEAD, GET and DELETE with conditions of others, kept in memory. It looks at no signature.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote

from bench import ROOT

BUCKET = "bench"
PREFIX = "data/"
PAGE = 1000
PER_DIRECTORY = 1000
WRITTEN_S = 1_700_000_000
_DATE = formatdate(WRITTEN_S, usegmt=True)
_ISO = "2023-11-14T22:13:20.000Z"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_POSIX = (
    "x-amz-meta-user-agent: aws-fsx-lustre\r\nx-amz-meta-file-permissions: 0100640\r\nx-amz-meta-file-owner: 1000\r\n"
    f"x-amz-meta-file-group: 1000\r\nx-amz-meta-file-mtime: {WRITTEN_S - 86400}000000000ns\r\n"
    f"x-amz-meta-file-atime: {WRITTEN_S - 86400}000000000ns\r\n"
)
_GONE = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
_FAILED = b"<Error><Code>PreconditionFailed</Code><Message>another version</Message></Error>"
_UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>the benchmarks do not ask for it</Message></Error>"


def key_of(number: int) -> str:
    """The key of a rendered object."""
    return f"{PREFIX}d{number // PER_DIRECTORY:05d}/file-{number:08d}.bin"


def etag_of(number: int) -> str:
    return f"{number:032x}"


class Objects:
    """``count`` rendered objects of ``size`` bytes each, and those that somebody wrote."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self.body = (bytes(range(1, 256)) * (size // 255 + 1))[:size]
        self.pages = [self._page(start) for start in range(0, count, PAGE)] or [self._listing([], None)]
        self.written: dict[str, tuple[str, bytes, str]] = {}
        """Key -> etag, body, metadata headers."""

    def _page(self, start: int) -> bytes:
        end = min(start + PAGE, self.count)
        entries = [(key_of(n), etag_of(n), self.size) for n in range(start, end)]
        return self._listing(entries, end // PAGE if end < self.count else None)

    @staticmethod
    def _listing(entries: list[tuple[str, str, int]], next_page: int | None) -> bytes:
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{_ISO}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
            f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key, etag, size in entries
        )
        more = "false" if next_page is None else "true"
        token = "" if next_page is None else f"<NextContinuationToken>{next_page}</NextContinuationToken>"
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{_NAMESPACE}"><Name>{BUCKET}</Name>'
            f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>{PAGE}</MaxKeys><IsTruncated>{more}</IsTruncated>{token}"
            f"{contents}</ListBucketResult>"
        )
        return _answer(200, body.encode())

    def page(self, query: str) -> bytes:
        asked = parse_qs(query, keep_blank_values=True)
        prefix = asked.get("prefix", [""])[0]
        if prefix == PREFIX:
            return self.pages[int(asked.get("continuation-token", ["0"])[0])]
        found = sorted(key for key in self.written if key.startswith(prefix))
        return self._listing([(key, self.written[key][0], len(self.written[key][1])) for key in found], None)

    def find(self, key: str) -> tuple[str, bytes, str] | None:
        """Etag, body and metadata headers of a key."""
        if key in self.written:
            return self.written[key]
        name = key[len(PREFIX) :]
        if key.startswith(PREFIX) and name.endswith(".bin") and (digits := name[-12:-4]).isdecimal():
            number = int(digits)
            if number < self.count and key_of(number) == key:
                return etag_of(number), self.body, _POSIX
        return None


def _answer(status: int, body: bytes = b"", headers: str = "", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} -\r\nDate: {_DATE}\r\n{headers}Content-Length: {size}\r\n\r\n".encode() + body


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
            return self._objects.page(query) if method == "GET" and "list-type=2" in query else _answer(200)
        if query and not query.startswith("x-id="):  # multipart uploads, tags: nobody measures them here
            return _answer(501, _UNKNOWN)
        found = self._objects.find(key)
        if method in {"HEAD", "GET"}:
            return self._read(method, found, headers)
        if not _allowed(headers, found):
            return _answer(404 if found is None else 412, _GONE if found is None else _FAILED)
        if method == "DELETE":
            self._objects.written.pop(key, None)
            return _answer(204)
        if method != "PUT" or "x-amz-copy-source" in headers:
            return _answer(501, _UNKNOWN)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        described = "".join(f"{n}: {v}\r\n" for n, v in headers.items() if n.startswith("x-amz-meta-"))
        self._objects.written[key] = (etag, body, described)
        return _answer(200, headers=f'ETag: "{etag}"\r\n')

    @staticmethod
    def _read(method: str, found: tuple[str, bytes, str] | None, headers: dict[str, str]) -> bytes:
        if found is None:
            return _answer(404, _GONE if method == "GET" else b"")
        etag, data, described = found
        if headers.get("if-match", etag).strip('"') != etag:
            return _answer(412, _FAILED)
        common = f'ETag: "{etag}"\r\nLast-Modified: {_DATE}\r\nAccept-Ranges: bytes\r\n{described}'
        if method == "HEAD":
            return _answer(200, headers=common, length=len(data))
        if "range" not in headers:
            return _answer(200, data, common)
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        return _answer(206, data[start : end + 1], f"{common}Content-Range: bytes {start}-{end}/{len(data)}\r\n")


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
