"""A 200 need not come from the store: a captive portal, a load balancer's page, a proxy that is misconfigured say it
too. What says nothing of what was written is not believed, and ends no daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.instance import instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request

MIB = 1 << 20
IN_PARTS = """
from fsxsync.repository import copying
copying.COPY_MAX = copying.PART = 5 << 20
from fsxsync.cli.main import main
main()
"""
"""A daemon for which S3's 5 GiB are 5 MiB."""
PAGE = b"<html><body/></html>"
NOBODYS = b'<?xml version="1.0" encoding="nonesuch"?><CopyObjectResult/>'
MULTIBYTE = b'<?xml version="1.0" encoding="gbk"?><CopyObjectResult/>'
TAGS = [{"Key": "kept", "Value": "yes"}]
SMALL, LARGE = b"small", os.urandom(9 * MIB)


def begins(request: Request) -> bool:
    return request.method == "POST" and request.query.startswith("uploads")


def completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def puts(request: Request) -> bool:
    return request.method == "PUT" and not request.query and not request.copies and request.path.endswith("/f")


def sends_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.query and not request.copies


def copies(request: Request) -> bool:
    return bool(request.copies) and "partNumber" not in request.query


def copies_part(request: Request) -> bool:
    return bool(request.copies) and "partNumber" in request.query


def reads_tags(request: Request) -> bool:
    return request.method == "GET" and "tagging" in request.query


def write(data: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(data)


def rename(file: Path) -> object:
    return file.rename(file.with_name("g"))


@pytest.mark.parametrize(
    ("before", "act", "which", "answer"),
    [
        pytest.param(None, write(LARGE), completes, PAGE, id="completion"),
        pytest.param(None, write(LARGE), begins, PAGE, id="beginning"),
        pytest.param(None, write(LARGE), sends_part, PAGE, id="part"),
        pytest.param(None, write(SMALL), puts, PAGE, id="PUT"),
        pytest.param(SMALL, rename, copies, PAGE, id="copy"),
        pytest.param(SMALL, rename, copies, NOBODYS, id="copy in an encoding that is none"),
        pytest.param(SMALL, rename, copies, MULTIBYTE, id="copy in an encoding of many bytes"),
        pytest.param(LARGE, rename, reads_tags, PAGE, id="tags"),
        pytest.param(LARGE, rename, begins, PAGE, id="beginning of a copy"),
        pytest.param(LARGE, rename, copies_part, PAGE, id="copied part"),
        pytest.param(LARGE, rename, completes, PAGE, id="completion of a copy"),
    ],
)
def test_an_answer_that_names_nothing_is_not_believed(
    tmp_path: Path,
    moto: MotoServer,
    s3: Any,
    bucket: str,
    before: bytes | None,
    act: Callable[[Path], object],
    which: Callable[[Request], bool],
    answer: bytes,
) -> None:
    """It is said instead of the store, once. The file stays, and the object comes."""
    armed, said = Event(), Event()

    def rule(request: Request) -> Answer | None:
        if not armed.is_set() or said.is_set() or not which(request):
            return None
        said.set()
        return Answer(200, answer)

    program = [sys.executable, "-c", IN_PARTS] if before == LARGE else None
    with Proxy(moto.url, rule=rule) as proxy, instance(tmp_path, program=program) as fsx:
        fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
        d = fsx.directory / "d"
        if before is not None:
            (d / "f").write_bytes(before)
        fsx.settle()
        if before is not None:
            s3.put_object_tagging(Bucket=bucket, Key="p/f", Tagging={"TagSet": TAGS})

        armed.set()
        act(d / "f")
        fsx.settle()
        assert said.is_set()
        fsx.ok("import", d)  # what the listing says by now
        fsx.settle()

        assert fsx.is_alive(), fsx.said()
        there = {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket, "p/")}
        name, data = ("f", (d / "f").read_bytes()) if before is None else ("g", before)
        assert data in {SMALL, LARGE}
        assert there == {f"p/{name}": data}
        assert s3.get_object_tagging(Bucket=bucket, Key=f"p/{name}")["TagSet"] == (TAGS if before is not None else [])
        assert {path.name: path.read_bytes() for path in d.iterdir()} == {name: data}
        assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
        assert fsx.ok("associations", "--json").json[0]["conflicts"] == 0
