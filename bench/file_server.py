"""An S3 server for large downloads that is no bottleneck: mapped files in one `send` each, a thread a connection.

    with FileServer(directory) as server:
        server.url       # and directory/bench/key is s3://bench/key

It knows HEAD, GET and ranged GET with If-Match, and the listing of a directory. It looks at no signature.
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from bench import ROOT


class FileServer:
    """The server as a process of its own. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "bench.file_server", str(self._directory)],
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


def etag_of(status: os.stat_result) -> str:
    """The etag of a file that is served: of an upload in parts, so that nobody takes it for a MD5."""
    return f"{status.st_mtime_ns:016x}{status.st_size:016x}-1"


def _serve(directory: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, directory), daemon=True).start()
    sys.stdin.read()  # it ends with whoever started it


def _accept(listener: socket.socket, directory: str) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer_all, args=(connection, directory), daemon=True).start()


def _answer_all(connection: socket.socket, directory: str) -> None:
    with connection, connection.makefile("rb") as requests:
        while line := requests.readline():
            method, target, _ = line.decode("latin-1").split(" ", 2)
            headers = {}
            while field := requests.readline().decode("latin-1").strip():
                name, _, value = field.partition(":")
                headers[name.lower()] = value.strip()
            try:
                _answer(connection, directory, method, target, headers)
            except (BrokenPipeError, ConnectionResetError):
                return  # the client has seen enough


def _answer(connection: socket.socket, directory: str, method: str, target: str, headers: dict[str, str]) -> None:
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if not key:
        return _head(connection, 200, _listing(directory, bucket, query), "")
    try:
        file = os.open(os.path.join(directory, bucket, key), os.O_RDONLY)
    except OSError:
        return _head(connection, 404, b"", "")
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return _head(connection, 404, b"", "")
        etag = etag_of(status)
        if headers.get("if-match", etag).strip('"') != etag:
            return _head(connection, 412, b"", "")
        common = (
            f'ETag: "{etag}"\r\nLast-Modified: {formatdate(status.st_mtime, usegmt=True)}\r\nAccept-Ranges: bytes\r\n'
        )
        start, end, code = 0, status.st_size - 1, 200
        if "range" in headers and method == "GET":
            first, _, last = headers["range"].removeprefix("bytes=").partition("-")
            start, end, code = int(first), min(int(last or end), end), 206
            common += f"Content-Range: bytes {start}-{end}/{status.st_size}\r\n"
        _head(connection, code, end + 1 - start, common)
        if method == "GET" and start <= end:
            # Not sendfile: it goes by 64 KiB, and waking the reader for each costs more than the copy does.
            with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
                connection.sendall(data[start : end + 1])
    finally:
        os.close(file)


def _head(connection: socket.socket, code: int, body: bytes | int, headers: str) -> None:
    """Send an answer with its body, or with the length of what follows."""
    length, data = (body, b"") if isinstance(body, int) else (len(body), body)
    connection.sendall(f"HTTP/1.1 {code} -\r\n{headers}Content-Length: {length}\r\n\r\n".encode() + data)


def _listing(directory: str, bucket: str, query: str) -> bytes:
    """The files of the directory that the prefix names."""
    prefix = parse_qs(query).get("prefix", [""])[0]
    entries = []
    with suppress(FileNotFoundError), os.scandir(os.path.join(directory, bucket, prefix)) as found:
        for entry in found:
            if entry.is_file():
                status = entry.stat()
                written = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                entries.append(
                    f"<Contents><Key>{escape(prefix + entry.name)}</Key><Size>{status.st_size}</Size>"
                    f"<ETag>&quot;{etag_of(status)}&quot;</ETag><LastModified>{written}</LastModified></Contents>"
                )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>".encode()


if __name__ == "__main__":
    _serve(sys.argv[1])
