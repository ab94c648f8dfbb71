"""A file that its store does not take: told as a failed export, with the code of what is wrong with it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import listening_ports
from support.instance import Instance, eventually, instance
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, refusal


@pytest.fixture
def fsx(tmp_path: Path) -> Iterator[Instance]:
    with instance(tmp_path, FSXSYNC_METRICS_LISTEN="127.0.0.1:0") as made:
        yield made


def failures(fsx: Instance) -> dict[tuple[str, str], float]:
    """The number of failures by (flow, code)."""
    assert fsx.daemon is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{listening_ports(fsx.daemon.pid)[0]}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("fsxsync_failures_total{")]
    told = [(line.partition('code="')[2], line.partition('flow="')[2], line.rpartition(" ")[2]) for line in lines]
    return {(flow.partition('"')[0], code.partition('"')[0]): float(count) for code, flow, count in told}


def events_of(fsx: Instance, name: str) -> list[dict[str, Any]]:
    return [event for event in fsx.ok("events", "--json").json if event["path"] == f"/d/{name}"]


@pytest.mark.parametrize(
    ("answer", "code", "advice"),
    [
        (Answer(404), "S3ExportInternalError", "rename it"),
        (refusal(404, "NoSuchKey"), "S3ExportInternalError", "rename it"),
        (refusal(400, "InvalidArgument"), "S3ExportInternalError", "rename it"),
        (refusal(400, "EntityTooLarge"), "S3ExportFileSizeTooLarge", "no object of that size"),
        (refusal(418, "SomethingNew"), "S3ExportInternalError", "SomethingNew"),
        (
            refusal(403, "AccessDenied", "Access Denied because object protected by object lock"),
            "S3ExportAccessDenied",
            "lock",
        ),
    ],
    ids=lambda one: str(one)[:30],
)
def test_an_upload_that_is_refused_is_a_failed_export(
    fsx: Instance, moto: MotoServer, bucket: str, answer: Answer, code: str, advice: str
) -> None:
    def rule(request: Request) -> Answer | None:
        return answer if request.method == "PUT" and request.path.endswith("/mine") else None

    with Proxy(moto.url, rule=rule) as proxy:
        fsx.associate(proxy, f"s3://{bucket}/", "/d", "--poll", "0")
        (fsx.directory / "d/mine").write_text("x")
        eventually(lambda: events_of(fsx, "mine"), 30)

        (event,) = events_of(fsx, "mine")
        assert (event["flow"], event["code"]) == ("export", code)
        assert advice in event["message"]
        assert failures(fsx).keys() == {("export", code)}
        failed = fsx.run("export", fsx.directory / "d/mine")
        assert failed.code == 1
        if code == "S3ExportFileSizeTooLarge":
            assert "FileSizeTooLarge" in failed.err


def test_a_store_that_is_always_busy_is_told_of_once_until_it_takes_the_file(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    def rule(request: Request) -> Answer | None:
        return refusal(500, "InternalError") if request.method == "PUT" and request.path.endswith("/mine") else None

    with Proxy(moto.url, rule=rule) as proxy:
        fsx.associate(proxy, f"s3://{bucket}/", "/d", "--poll", "0")
        (fsx.directory / "d/mine").write_text("x")
        eventually(lambda: failures(fsx).get(("export", "S3ExportInternalError"), 0) >= 2, 60)

        (event,) = events_of(fsx, "mine")
        assert (event["flow"], event["code"], event["level"]) == ("export", "S3ExportInternalError", "ERROR")
        proxy.rule = None
        fsx.settle()
        assert s3.get_object(Bucket=bucket, Key="mine")["Body"].read() == b"x"
        assert len(events_of(fsx, "mine")) == 1
