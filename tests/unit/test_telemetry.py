"""The log tells no secrets and one fact a line; the metrics say what the status says."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.administration import FakeAdministration

from fsxsync import errors
from fsxsync.model.association import Association
from fsxsync.model.measures import Histogram, Rate
from fsxsync.telemetry.codes import CODES
from fsxsync.telemetry.log import escape, redact, setup_logging
from fsxsync.telemetry.metrics import render

log = logging.getLogger("fsxsync.test")


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "secret",
    [
        "https://h/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=c0ffee&x=1",
        "https://h/k?x-amz-security-token=c0ffee",
        "https://h/k?X-Amz-Credential=c0ffee%2F20261123",
        "Authorization: AWS4-HMAC-SHA256 Credential=c0ffee/2026, SignedHeaders=host, Signature=c0ffee",
        "{'Authorization': b'AWS4-HMAC-SHA256 Credential=c0ffee/2026, SignedHeaders=host, Signature=c0ffee'}",
        "authorization=Bearer c0ffee",
        "{'X-Amz-Security-Token': 'c0ffee'}",
        "AWS_SECRET_ACCESS_KEY=c0ffee",
        "aws_session_token = c0ffee",
        "'SecretAccessKey': 'c0ffee'",
    ],
)
def test_secrets_are_taken_out(secret: str) -> None:
    assert "c0ffee" not in redact(f"before {secret}")
    assert redact(f"before {secret}").startswith("before ")


def test_what_is_no_secret_stays() -> None:
    plain = "GET https://h/bucket/key?partNumber=2&uploadId=abc: 403 AccessDenied, 'x-amz-request-id': 'E5'"

    assert redact(plain) == plain


def test_names_are_escaped() -> None:
    assert escape("plain ä 漢 \U0001f600") == "plain ä 漢 \U0001f600"
    assert escape("a\nb\x1b[0m\x7f\x85\u2028\u202e\udcff\ud800") == (
        "a\\x0ab\\x1b[0m\\x7f\\x85\\u2028\\u202e\\xff\\ud800"
    )


def test_a_line_has_fields_and_no_name_can_forge_another(root_logger: None) -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream)

    log.info("looked at", extra={"path": b"/a\n2026 ERROR x: forged", "attempts": 3})
    log.debug("not told")

    (line,) = stream.getvalue().splitlines()
    assert line.endswith('Z INFO fsxsync.test: looked at path="/a\\x0a2026 ERROR x: forged" attempts=3'), line


def test_a_traceback_is_told_apart_and_holds_no_secret(root_logger: None) -> None:
    stream = io.StringIO()
    setup_logging("INFO", stream=stream)

    try:
        int("https://h/k?X-Amz-Signature=c0ffee\n2026 ERROR forged")
    except ValueError:
        log.exception("bug")

    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR fsxsync.test: bug")
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert "c0ffee" not in stream.getvalue()


def test_json_is_one_document_a_line(root_logger: None) -> None:
    stream = io.StringIO()
    setup_logging("INFO", style="json", stream=stream)

    log.warning("late", extra={"seconds": 1.5, "path": "/ä\n"})

    document = json.loads(stream.getvalue())
    del document["time"]
    assert document == {
        "level": "WARNING",
        "logger": "fsxsync.test",
        "message": "late",
        "seconds": 1.5,
        "path": "/ä\\x0a",
    }


def test_journald_gets_priorities_and_no_times(
    root_logger: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    setup_logging("INFO")

    log.error("disk full")

    assert capsys.readouterr().err == "<3>fsxsync.test: disk full\n"


def test_setting_up_twice_tells_once_and_foreign_debug_lines_never(root_logger: None) -> None:
    setup_logging("DEBUG", stream=io.StringIO())
    stream = io.StringIO()
    setup_logging("DEBUG", stream=stream)

    log.debug("mine")
    logging.getLogger("botocore.auth").debug("StringToSign")

    assert [line.rpartition(": ")[2] for line in stream.getvalue().splitlines()] == ["mine"]


async def test_prometheus_can_read_the_status() -> None:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    administration = FakeAdministration()
    made = await administration.create(Association("", b'a"b', "bucket", "p/"), wait=True)
    status = replace(administration.status(), transfers={"bytes_up": 2**53 + 2, "bytes_down": 1, "in_flight": 3})
    row = replace(status.associations[0], pending_exports=4, oldest_pending_s=1.5)

    families = {
        family.name: family
        for family in text_string_to_metric_families(render(replace(status, associations=(row,))).decode())
    }

    (up,) = families["fsxsync_bytes_up"].samples
    assert (up.name, up.value) == ("fsxsync_bytes_up_total", 2**53 + 2)
    (pending,) = families["fsxsync_pending_exports"].samples
    assert (pending.labels, pending.value) == ({"association": made.id, "path": '/a"b'}, 4)
    assert families["fsxsync_oldest_pending_seconds"].samples[0].value == 1.5
    assert families["fsxsync_available"].samples[0].value == 1


METRICS = Path(__file__).resolve().parents[2] / "docs/METRICS.md"


async def test_every_metric_has_its_line_in_the_docs() -> None:
    administration = FakeAdministration()
    await administration.create(Association("", b"d", "bucket", "p/"), wait=True)
    text = render(administration.status()).decode()
    served = {name.removesuffix("_total") for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)}

    assert served == set(re.findall(r"^\| `(\w+)` \|", METRICS.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("took_ns", "bucket"), [(0, 0), (1023, 0), (1024, 1), (2047, 1), (2048, 2), (10**9, 20), (10**12, 24)]
)
def test_a_histogram_has_buckets_of_powers_of_two(took_ns: int, bucket: int) -> None:
    histogram = Histogram()
    histogram.note(took_ns)

    assert histogram.buckets.index(1) == bucket
    assert all(count == (took_ns / 1e9 < upto) for upto, count in histogram.upto())


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    rate.note(50, 100)
    rate.note(50, 101)

    assert [rate.per_s(now_s) for now_s in (101, 109, 110, 111, 10**6)] == [10, 10, 5, 0, 0]


def test_counting_does_not_pay_for_prometheus() -> None:
    modules = "fsxsync.telemetry.metrics, fsxsync.telemetry.log"
    code = f"import sys, {modules}; print('prometheus_client' in sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    assert told.stdout == "False\n"


def test_every_code_that_an_error_carries_is_known() -> None:
    def classes(root: type[errors.FsxSyncError]) -> Iterator[type[errors.FsxSyncError]]:
        yield root
        for child in root.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from classes(child)

    wire_only = {
        "BadRequest",
        "DataRepositoryAssociationNotFound",
        "DataRepositoryTaskEnded",
        "DataRepositoryTaskExecuting",
        "DataRepositoryTaskNotFound",
        "IncompatibleParameterError",
        "UnsupportedOperation",
    }
    assert {error.code for error in classes(errors.FsxSyncError)} - set(CODES) <= wire_only
