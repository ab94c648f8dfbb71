"""What the benchmarks' S3 server holds: objects that are rendered at the start, and those that somebody wrote."""

from __future__ import annotations

import bisect
from email.utils import formatdate
from urllib.parse import parse_qs

BUCKET = "bench"
PREFIX = "data/"
PAGE = 1000
PER_DIRECTORY = 1000
WRITTEN_S = 1_700_000_000
DATE = formatdate(WRITTEN_S, usegmt=True)
_ISO = "2023-11-14T22:13:20.000Z"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_POSIX = (
    "x-amz-meta-user-agent: aws-fsx-lustre\r\nx-amz-meta-file-permissions: 0100640\r\nx-amz-meta-file-owner: 1000\r\n"
    f"x-amz-meta-file-group: 1000\r\nx-amz-meta-file-mtime: {WRITTEN_S - 86400}000000000ns\r\n"
    f"x-amz-meta-file-atime: {WRITTEN_S - 86400}000000000ns\r\n"
)


def key_of(number: int) -> str:
    """The key of a rendered object."""
    return f"{PREFIX}d{number // PER_DIRECTORY:05d}/file-{number:08d}.bin"


def etag_of(number: int) -> str:
    """As of an upload in parts: it is no MD5 that bytes could be compared with."""
    return f"{number:032x}-1"


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
        return self._listing(entries, end if end < self.count else None)

    @staticmethod
    def _listing(entries: list[tuple[str, str, int]], next_page: int | str | None) -> bytes:
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
        return answer(200, body.encode())

    def page(self, query: str) -> bytes:
        asked = parse_qs(query, keep_blank_values=True)
        prefix = asked.get("prefix", [""])[0]
        if prefix == PREFIX:
            start = int(asked.get("continuation-token", ["0"])[0])
            if "start-after" in asked and start == 0:
                start = bisect.bisect_right(range(self.count), asked["start-after"][0], key=key_of)
            return self.pages[start // PAGE] if start % PAGE == 0 and self.pages[start // PAGE :] else self._page(start)
        after = asked.get("continuation-token", asked.get("start-after", [""]))[0]
        found = sorted(key for key in self.written if key.startswith(prefix) and key > after)
        entries = [(key, self.written[key][0], len(self.written[key][1])) for key in found[:PAGE]]
        return self._listing(entries, entries[-1][0] if len(found) > PAGE else None)

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


def answer(status: int, body: bytes = b"", headers: str = "", *, length: int | None = None) -> bytes:
    """A whole HTTP answer; ``length`` where the body is not sent (HEAD)."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} -\r\nDate: {DATE}\r\n{headers}Content-Length: {size}\r\n\r\n".encode() + body
