"""The commands of data repository tasks, against a control server with tasks in memory."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commanded import Daemon

from fsxsync.cli.progress import progress
from fsxsync.errors import BadInput
from fsxsync.model.task import Counts, Failure, Order, TaskType
from fsxsync.ports import Planned
from fsxsync.telemetry.log import escape

TASK = "task-00000000000000001"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "state").mkdir()
    (tmp_path / "mnt" / "d").mkdir(parents=True)
    with Daemon(tmp_path / "state", tmp_path / "mnt") as running:
        yield running


def ends(daemon: Daemon, counts: Counts, *failures: Failure) -> threading.Thread:
    """The next task ends so, soon after it was begun."""

    def end() -> None:
        while TASK not in daemon.admin.tasks.rows:
            time.sleep(0.005)
        daemon.admin.tasks.end(TASK, counts, *failures)

    thread = threading.Thread(target=end)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("export", "{m}/d", "--deletes"), Order(TaskType.EXPORT, ("d",), deletes=True)),
        (("import",), Order(TaskType.IMPORT, ("",))),
        (("import", "s3://b/p/x"), Order(TaskType.IMPORT, ("s3://b/p/x",))),
        (("release", "{m}/d", "--idle-for", "7d"), Order(TaskType.RELEASE, ("d",), idle_ns=7 * 86_400 * 10**9)),
        (("restore", "{m}/d", "{m}/e", "--report", "s3://b/r"), Order(TaskType.RESTORE, ("d", "e"), "s3://b/r")),
        (("reconcile", "--accept-deletes"), Order(TaskType.RECONCILE, ("",), deletes=True, accept_deletes=True)),
    ],
)
def test_each_command_begins_its_task(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], order: Order
) -> None:
    said = [word.format(m=daemon.mount) for word in words]

    assert daemon.run(*said, "--no-wait") == 0
    assert capsys.readouterr().out == f"{TASK}\n"
    assert daemon.admin.tasks.orders == [order]


def test_the_end_is_waited_for_and_told_in_a_line(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    ending = ends(daemon, Counts(3, 3, 0, 2048))
    assert daemon.run("release", f"{daemon.mount}/d") == 0
    ending.join()

    out, err = capsys.readouterr()
    assert out == f"{TASK}\n"
    assert err.startswith("succeeded: 3 succeeded, 0 failed, 2.0 KiB in ")
    assert err.count("\n") == 1  # no bar where nobody looks


def test_what_failed_is_told_and_the_exit_code_says_so(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    failures = [Failure(f"d/f{number}".encode(), "ResourceBusy", "it is open") for number in range(12)]
    ending = ends(daemon, Counts(12, 0, 12), *failures)
    assert daemon.run("release", f"{daemon.mount}/d") == 1
    ending.join()

    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == f"fsxsync: {daemon.mount}/d/f0: ResourceBusy: it is open"
    assert lines[-2] == f"fsxsync: and more: 'fsxsync task show {TASK}'"
    assert lines[-1].startswith(f"fsxsync: {TASK} is FAILED: 12 files failed; ")


def test_json_is_one_document(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    ending = ends(daemon, Counts(1, 1))
    assert daemon.run("restore", "--json", f"{daemon.mount}/d") == 0
    ending.join()

    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == ""
    assert {"id", "type", "lifecycle", "total", "succeeded", "failed", "bytes", "start_s", "end_s"} <= set(told)
    assert (told["id"], told["lifecycle"]) == (TASK, "SUCCEEDED")


def test_json_has_what_failed_as_task_show_has_it(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    failures = [Failure(b"d/f%03d" % number, "ResourceBusy", "it is open") for number in range(120)]
    ending = ends(daemon, Counts(120, 0, 120), *failures)
    assert daemon.run("release", "--json", f"{daemon.mount}/d") == 1
    ending.join()

    told = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in told["failures"]] == [f"d/f{number:03}" for number in range(100)]
    assert daemon.run("task", "show", "--json", TASK) == 0
    assert told == json.loads(capsys.readouterr().out)


def test_a_dry_run_begins_nothing(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.tasks.planned = [
        Planned(b"d/a", "release", 1024),
        Planned(b"d/b\xff", "refuse", 5, "ResourceBusy", "it is open"),
    ]
    assert daemon.run("release", "--dry-run", f"{daemon.mount}/d") == 0

    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"release {daemon.mount}/d/a"
    assert out.splitlines()[1].endswith(": ResourceBusy: it is open")
    assert err == "dry run: refuse 1, release 1 (1.0 KiB); nothing was done\n"
    assert daemon.admin.tasks.rows == {}
    assert daemon.run("release", "--dry-run", "--json", f"{daemon.mount}/d") == 0
    assert [row["action"] for row in json.loads(capsys.readouterr().out)] == ["release", "refuse"]


@pytest.mark.parametrize(("options", "end"), [((), b"\n"), (("-0",), b"\0")])
def test_a_list_is_read_from_stdin(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], end: bytes
) -> None:
    listed = tmp_path / "list"
    names = [os.fsencode(daemon.mount) + b"/d/a b", os.fsencode(daemon.mount) + b"/d/\xff"]
    listed.write_bytes(end.join(names) + end)
    with listed.open("rb") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert daemon.run("restore", *options, "--no-wait", "-") == 0
    assert daemon.admin.tasks.orders == [Order(TaskType.RESTORE, ("d/a b", "d/\udcff"))]


def test_tasks_are_listed_shown_and_cancelled(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.run("tasks", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    daemon.run("release", "--no-wait", f"{daemon.mount}/d")
    assert daemon.run("release", "--no-wait", f"{daemon.mount}/d") == 1
    assert "is doing the same; wait for it, or cancel it" in capsys.readouterr().err
    assert daemon.run("task", "cancel", TASK) == 0
    assert capsys.readouterr().out == f"{TASK} is CANCELING\n"
    daemon.admin.tasks.rows.clear()
    daemon.run("release", "--no-wait", f"{daemon.mount}/d")
    daemon.admin.tasks.end(TASK, Counts(2, 1, 1, 7), Failure(b"d/f", "ResourceBusy", "it is open"))
    capsys.readouterr()

    assert daemon.run("tasks") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == [TASK, "RELEASE_DATA_FROM_FILESYSTEM", "FAILED"]
    assert daemon.run("task", "show", TASK) == 0
    shown = capsys.readouterr().out
    assert "1 succeeded, 1 failed, of 2" in shown
    assert "d/f: ResourceBusy: it is open" in shown
    assert daemon.run("task", "cancel", TASK) == 1
    assert daemon.run("task", "show", "task-0000000000000dead") == 1


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_path_that_is_nowhere_is_told_as_it_was_typed(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dry_run: tuple[str, ...]
) -> None:
    monkeypatch.chdir(daemon.mount)
    daemon.admin.tasks.refusal = BadInput("/d/nope", "no such file or directory")
    assert daemon.run("release", *dry_run, "d/nope") == 2
    assert capsys.readouterr().err.startswith("fsxsync: d/nope: no such file or directory; check the name")


@pytest.mark.parametrize("word", ["foo", "7", "task-0000000000000dead", "x" * 500, "\x1b[2J"])
@pytest.mark.parametrize("command", ["show", "cancel"])
def test_a_task_that_there_is_not(daemon: Daemon, capsys: pytest.CaptureFixture[str], word: str, command: str) -> None:
    assert daemon.run("task", command, word) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f"fsxsync: task {escape(word)}: there is none of that id; 'fsxsync tasks' lists what there is"
    )


def test_a_name_breaks_no_line(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("release", "--no-wait", f"{daemon.mount}/d/a\nb")
    daemon.admin.tasks.end(TASK, Counts(1, 0, 1), Failure(b"d/a\nb", "ResourceBusy", "it is open"))
    capsys.readouterr()

    assert daemon.run("task", "show", TASK) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum("d/a\\x0ab" in line for line in shown) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("release",),
        ("release", "/elsewhere"),
        ("release", "--idle-for", "soon", "."),
        ("restore", "--deletes", "."),
    ],
)
def test_what_is_off_is_wrong_usage(daemon: Daemon, words: tuple[str, ...]) -> None:
    assert daemon.run(*words) == 2
    assert daemon.admin.tasks.rows == {}


def test_the_bar_tells_how_much_how_fast_and_how_long_still() -> None:
    task: dict[str, Any] = {"succeeded": 40, "failed": 10, "total": 200, "bytes": 1 << 20, "lifecycle": "EXECUTING"}
    assert progress(task, 10.0) == (
        "[######..................]  25%  50/200 files  1.0 MiB  5 files/s  102.4 KiB/s  30s left  10 failed"
    )
    assert progress(task | {"succeeded": 0, "failed": 0, "total": 0, "bytes": 0}, 0.0, bar=False) == (
        "0/0 files  executing"
    )
