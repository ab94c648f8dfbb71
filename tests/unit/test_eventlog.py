"""The event log: every event once, in order, for every reader, over restarts, rotations and full disks."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fsxsync.telemetry.eventlog import CODES, EventLog, type_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def events(file: Path) -> Iterator[EventLog]:
    events = EventLog(file, max_bytes=10**6, keep=2, now_ns=itertools.count(1_795_456_349_123_456_789).__next__)
    yield events
    events.close()


def emit(events: EventLog, message: str, *, level: str = "INFO", association: str = "dra-1", path: str = "") -> None:
    events.emit(level=level, code="Conflict", flow="import", association=association, path=path, message=message)


def messages(events: EventLog, since: int | None = None, **filters: str) -> list[str]:
    return [event.message for event in events.read(since, **filters)[0]]  # type: ignore[arg-type]


def test_an_event_is_one_line_of_json(events: EventLog, file: Path) -> None:
    events.emit(code="Conflict", flow="import", association="dra-1", path="/a", key="p/a", message="both changed")

    (line,) = file.read_text().splitlines()
    assert json.loads(line) == {
        "seq": 1,
        "time": "2026-11-23T17:52:29.123Z",
        "time_ns": 1_795_456_349_123_456_789,
        "level": "WARN",
        "code": "Conflict",
        "flow": "import",
        "association": "dra-1",
        "path": "/a",
        "key": "p/a",
        "message": "both changed",
        "type": "Both sides changed",
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_names_are_kept_as_they_are_on_a_line_that_steers_no_terminal(events: EventLog, file: Path) -> None:
    name = "a\x1b[2J\n\\x0a\u202eb\udcff ä"
    events.emit(code="Conflict", flow="import", message="m", path=os.fsencode(name), key="k\x1b\ud800")

    ((event,), _) = events.read()
    assert (event.path, event.key) == (f"/{name}", "k\x1b\ud800")
    (line,) = file.read_text().splitlines()
    assert line.isascii()
    assert line.isprintable()


def test_messages_cannot_steer_a_terminal_nor_signatures_leak(events: EventLog) -> None:
    emit(events, "GET https://h/k\x1b[2J?X-Amz-Signature=c0ffee&x=1 failed")

    ((event,), _) = events.read()
    assert "k\\x1b[2J" in event.message
    assert "c0ffee" not in event.message
    assert "x=1" in event.message


def test_a_reader_goes_on_where_it_was(events: EventLog) -> None:
    for number in range(5):
        emit(events, str(number))

    first, cursor = events.read(limit=2)
    assert [event.message for event in first] == ["0", "1"]
    assert messages(events, cursor) == ["2", "3", "4"]
    assert events.read(events.last) == ([], events.last)


def test_filters_and_the_cursor_behind_what_they_left_out(events: EventLog) -> None:
    emit(events, "info")
    emit(events, "warn", level="WARN")
    emit(events, "error", level="ERROR", association="dra-2")
    emit(events, "last")

    assert messages(events, level="WARN") == ["warn", "error"]
    assert messages(events, level="ERROR") == ["error"]
    assert messages(events, association="dra-1") == ["info", "warn", "last"]
    assert events.read(level="WARN")[1] == events.last
    assert [event.message for event in events.latest(1, level="WARN")[0]] == ["error"]
    assert [event.message for event in events.latest(99)[0]] == ["info", "warn", "error", "last"]
    assert events.latest(0) == ([], 4)


def test_old_files_are_kept_and_older_ones_go(file: Path) -> None:
    events = EventLog(file, max_bytes=1000, keep=2)
    for number in range(100):
        emit(events, f"{number:03d}")

    found = sorted(path.name for path in file.parent.iterdir())
    assert found == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in file.parent.iterdir())
    kept = messages(events)
    assert kept == [f"{number:03d}" for number in range(100 - len(kept), 100)]
    assert messages(events, 97) == ["097", "098", "099"]
    assert [event.message for event in events.latest(7)[0]] == [f"{number:03d}" for number in range(93, 100)]
    events.close()


def test_no_old_file_is_kept_if_none_is_wanted(file: Path) -> None:
    events = EventLog(file, max_bytes=1000, keep=0)
    for number in range(100):
        emit(events, str(number))

    assert [path.name for path in file.parent.iterdir()] == ["events.jsonl"]
    assert messages(events, 99) == ["99"]
    events.close()


def test_numbers_go_on_after_a_restart(file: Path) -> None:
    for number in range(3):
        events = EventLog(file, max_bytes=400, keep=9)
        emit(events, str(number))
        emit(events, str(number))
        events.close()

    events = EventLog(file, max_bytes=400, keep=9)
    assert [event.seq for event in events.read()[0]] == [1, 2, 3, 4, 5, 6]
    assert events.last == 6


def test_a_cursor_from_another_life_starts_over(events: EventLog) -> None:
    emit(events, "a")

    assert messages(events, 12345) == ["a"]


def test_a_line_torn_by_a_power_cut_costs_one_event(file: Path) -> None:
    events = EventLog(file, max_bytes=10**6, keep=1)
    emit(events, "whole")
    emit(events, "torn")
    events.close()
    os.truncate(file, file.stat().st_size - 20)

    again = EventLog(file, max_bytes=10**6, keep=1)
    emit(again, "after")

    assert messages(again) == ["whole", "after"]
    again.close()


def test_a_full_disk_is_nobodys_problem_but_is_said_later(
    events: EventLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emit(events, "before")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(os, "write", full)
        emit(events, "lost")
        emit(events, "lost")
    emit(events, "after")

    assert messages(events) == ["before", "2 events were dropped", "after"]
    assert events.dropped == 2
    assert len(caplog.records) == 1


def test_half_a_line_on_a_full_disk_is_taken_back(events: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        emit(events, "lost")
    emit(events, "after")

    assert messages(events) == ["1 events were dropped", "after"]


def test_a_directory_that_went_away_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = EventLog(tmp_path / "missing" / "events.jsonl", max_bytes=1000, keep=1)

    with caplog.at_level(logging.WARNING):
        emit(events, "lost")

    assert events.dropped == 1
    assert events.read() == ([], 0)


def test_a_link_in_its_place_is_not_followed(file: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    file.symlink_to(victim)

    events = EventLog(file, max_bytes=1000, keep=1)
    emit(events, "x")

    assert victim.read_bytes() == b""
    assert events.dropped == 1


@settings(deadline=None, max_examples=50)
@given(
    lines=st.lists(st.integers(0, 300), max_size=40),
    max_bytes=st.integers(300, 3000),
    since=st.integers(0, 45),
    limit=st.integers(1, 50),
)
def test_every_reader_sees_every_kept_event_once(lines: list[int], max_bytes: int, since: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = EventLog(Path(folder) / "e", max_bytes=max_bytes, keep=100)
        for length in lines:
            emit(events, "m" * length)
        seen: list[int] = []
        cursor = min(since, events.last)
        while True:
            page, cursor = events.read(cursor, limit=limit)
            seen += [event.seq for event in page]
            if not page:
                break
        events.close()

    assert seen == list(range(min(since, len(lines)) + 1, len(lines) + 1))


async def test_a_follower_is_woken(events: EventLog, autojump_clock: trio.testing.MockClock) -> None:
    seen: list[str] = []

    async def follow() -> None:
        cursor = events.last
        while len(seen) < 3:
            await events.wait_newer(cursor)
            page, cursor = events.read(cursor)
            seen.extend(event.message for event in page)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.sleep(1)
        emit(events, "a")
        await trio.sleep(1)
        emit(events, "b")
        emit(events, "c")

    assert seen == ["a", "b", "c"]


def test_every_code_of_fsx_is_known() -> None:
    # FSX-FACTS §5.3, second column; all but these are errors.
    warnings = {
        "S3ImportUnsupportedTierWarning",
        "S3ExportLocalObjectReleaseWithoutS3Source",
        "S3ExportLocalObjectNotMatchDra",
    }
    documented = [
        "S3ImportListObjectError",
        "S3ImportUnsupportedTierWarning",
        "S3ImportSymlinkInUnsupportedTierWarning",
        "S3ImportAccessDenied",
        "S3ImportDeleteAccessDenied",
        "S3ImportObjectPathNotPosixCompliant",
        "S3ImportObjectTypeMismatch",
        "S3ImportDirectoryMetadataUpdateError",
        "S3ImportObjectDeleted",
        "S3ImportBucketDoesNotExist",
        "S3ImportDeleteBucketDoesNotExist",
        "S3ImportDirectoryCreateError",
        "NoDiskSpace",
        "S3ExportInternalError",
        "S3ExportAccessDenied",
        "S3ExportPathSizeTooLong",
        "S3ExportFileSizeTooLarge",
        "S3ExportResourceBusy",
        "S3ExportLocalObjectReleaseWithoutS3Source",
        "S3ExportLocalObjectNotMatchDra",
        "InternalAutoExportError",
        "S3CompletionReportUploadFailure",
        "S3CompletionReportValidateFailure",
    ]

    assert [code for code in documented if code not in CODES] == []
    assert {code for code in documented if CODES[code].level != "ERROR"} == warnings
    assert {CODES[code].level for code in warnings} == {"WARN"}
    assert type_of("S3ImportListObjectError") == "List objects failure"
    assert type_of("Unheard") == "Unheard"
