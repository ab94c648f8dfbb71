"""A bucket whose requesters pay refuses each request that does not say so: the rare ones, too, which boto3 makes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse, HTTPHeaders

from fsxsync.errors import RepositoryError
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.parts import Part
from fsxsync.ports import ObjectHeaders, UploadedPart
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.copying import Source

SOURCE = Source("b", "k", Remote(Kind.FILE, etag="e", size=3, last_modified_ns=0))
PARTS = [UploadedPart(1, "e")]
HEADERS = ObjectHeaders(Posix(), Kind.FILE)
ASKED: dict[str, Callable[[Bookkeeping], object]] = {
    "ListObjectsV2": lambda books: books.check("p/"),
    "CreateMultipartUpload": lambda books: books.start_upload("k", HEADERS, checksum=False),
    "ListParts": lambda books: books.parts_of("k", "u"),
    "CompleteMultipartUpload": lambda books: books.complete_upload(
        "k", "u", [UploadedPart(1, "e")], {}, crc64nvme=None
    ),
    "ListMultipartUploads": lambda books: books.uploads_of("k"),
    "AbortMultipartUpload": lambda books: books.abort_upload("k", "u"),
    "RestoreObject": lambda books: books.restore("k", None, "bulk", 3),
    "GetObjectTagging": lambda books: books.start_copy(SOURCE, "to", books.placing(None)),
    "UploadPartCopy": lambda books: books.copy_part(SOURCE, "to", "u", Part(1, 0, 3)),
}


class Raw(io.BytesIO):
    def stream(self, *_unused: object) -> Iterator[bytes]:
        yield self.getvalue()


@pytest.mark.parametrize("operation", ASKED)
def test_who_asks_pays(operation: str) -> None:
    said: dict[str, Any] = {}

    def answer(request: Any, event_name: str, **_unused: object) -> AWSResponse:
        said[event_name.rpartition(".")[2]] = request.headers.get("x-amz-request-payer")
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(b"<a><TagSet/></a>"))

    books = Bookkeeping("b", Access(endpoint_url="http://127.0.0.1:1", anonymous=True, requester_pays=True))
    with books.connection.ask("") as client:
        client.meta.events.register_first("before-send.s3", answer)

    with suppress(RepositoryError):  # the answer says too little
        ASKED[operation](books)

    assert operation in said
    assert {_as_text(value) for value in said.values()} == {"requester"}


def _as_text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
