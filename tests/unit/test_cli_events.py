"""``events`` reads the log's own files: without a daemon, over rotations, and while they grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsxsync.cli.events import events_of_path
from fsxsync.cli.main import run
from fsxsync.telemetry.eventlog import EventLog


@pytest.fixture
def eventlog(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "events.jsonl", max_bytes=1000, keep=9, now_ns=lambda: 1_700_000_000_123_000_000)
    yield log
    log.close()


def emit(log: EventLog, message: str, level: str = "WARN", association: str = "dra-1") -> None:
    log.emit(code="Conflict", flow="import", message=message, level=level, association=association, path="/d/a")


def test_events_are_told_in_lines(eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emit(eventlog, "both sides changed\x1b[2J")

    code = run(["--state-dir", str(tmp_path), "events"])

    assert code == 0
    assert capsys.readouterr().out == (
        "2023-11-14T22:13:20.123Z  WARN   Conflict  dra-1  /d/a  both sides changed\\x1b[2J\n"
    )


def test_a_script_gets_names_as_they_are_and_a_terminal_gets_them_escaped(
    eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [b"new\nline", b"new\\x0aline", b"\xff\x1b[31m"]
    for name in names:
        eventlog.emit(code="Conflict", flow="import", message="m", path=name, key="k\x1b[31m")

    run(["--state-dir", str(tmp_path), "events", "--json"])
    told = json.loads(capsys.readouterr().out)

    assert [os.fsencode(event["path"]) for event in told] == [b"/" + name for name in names]
    assert {event["key"] for event in told} == {"k\x1b[31m"}
    run(["--state-dir", str(tmp_path), "events"])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-2] for line in shown] == ["/new\\x0aline", "/new\\x0aline", "/\\xff\\x1b[31m"]


def test_events_of_a_path_are_found_also_where_an_older_version_wrote_them_escaped(
    eventlog: EventLog, tmp_path: Path
) -> None:
    eventlog.emit(code="Conflict", flow="import", message="old", path="/a\\x0a\\xff")
    eventlog.emit(code="Conflict", flow="import", message="new", path=b"a\n\xff")

    assert [event["message"] for event in events_of_path(tmp_path, "/a\n\udcff", 5)] == ["old", "new"]


def test_events_as_one_document_over_rotated_files(
    eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        emit(eventlog, f"event {number}")
    assert (tmp_path / "events.jsonl.2").exists()

    run(["--state-dir", str(tmp_path), "events", "--json"])
    told = json.loads(capsys.readouterr().out)

    assert [event["message"] for event in told] == [f"event {number}" for number in range(20)]
    assert set(told[0]) >= {"time", "level", "code", "type", "flow", "association", "path", "key", "message", "seq"}


def test_events_of_a_level_and_of_an_association(
    eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for level in ("INFO", "WARN", "ERROR"):
        for association in ("dra-1", "dra-2"):
            emit(eventlog, f"{level} {association}", level, association)

    run(["--state-dir", str(tmp_path), "events", "--json", "--level", "WARN", "--association", "dra-2"])

    assert [event["message"] for event in json.loads(capsys.readouterr().out)] == ["WARN dra-2", "ERROR dra-2"]


def test_of_an_association_that_nobody_knows_the_log_tells_without_a_daemon(
    eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emit(eventlog, "m")

    assert run(["--state-dir", str(tmp_path), "events", "--association", "dra-00000000000000001"]) == 0
    assert run(["--state-dir", str(tmp_path), "events", "--association", "nope"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "'nope' is no association" in err
    assert run(["--state-dir", str(tmp_path), "events", "--association", "/d"]) == 3


def test_a_line_that_is_missing_for_good_does_not_stop_the_reader(
    eventlog: EventLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        emit(eventlog, f"event {number}")
    eventlog.close()
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_bytes(lines[1] + b'{"seq": 3, "ti\n' + lines[3])

    run(["--state-dir", str(tmp_path), "events", "--json"])

    assert [event["message"] for event in json.loads(capsys.readouterr().out)] == ["event 1", "event 3"]


def test_no_events_are_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--state-dir", str(tmp_path), "events", "--json"])

    assert (code, json.loads(capsys.readouterr().out)) == (0, [])


def test_a_state_directory_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--state-dir", str(tmp_path / "none"), "events"])

    assert code == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_follow_tells_what_comes_and_misses_nothing_over_a_rotation(eventlog: EventLog, tmp_path: Path) -> None:
    emit(eventlog, "event 0")
    program = "from fsxsync.cli.main import main; main()"
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, "--state-dir", tmp_path, "events", "--follow", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        try:
            told = [json.loads(following.stdout.readline())["message"]]
            for number in range(1, 12):
                emit(eventlog, f"event {number}")
            assert (tmp_path / "events.jsonl.1").exists()
            told += [json.loads(following.stdout.readline())["message"] for _ in range(11)]
        finally:
            following.terminate()

    assert told == [f"event {number}" for number in range(12)]
