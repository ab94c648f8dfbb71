"""The commands against a control server over a real unix socket, with a daemon's engine in memory."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes.administration import file_state
from support.commanded import Daemon

from fsxsync.cli.main import run
from fsxsync.errors import AccessDenied, ConflictMoved
from fsxsync.model.finding import Finding, Rule, Tally
from fsxsync.model.open_conflict import Conflict, ConflictKind, Keep, LocalVersion, RemoteVersion
from fsxsync.ports import PendingItem
from fsxsync.telemetry.eventlog import EventLog

ROW_KEYS = {
    "id", "path", "repository", "state", "import", "export", "pending", "oldest_pending_s", "conflicts", "errors",
    "failure", "bucket", "prefix", "endpoint_url", "events", "poll_s", "on_conflict", "read_only",
}  # fmt: skip
STATE_KEYS = {"path", "state", "flags", "resident_bytes", "size", "etag", "version_id", "key", "pending", "error"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "state").mkdir()
    (tmp_path / "mnt").mkdir()
    with Daemon(tmp_path / "state", tmp_path / "mnt") as running:
        yield running


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one JSON document on stdout; nothing went to stderr."""
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing went to stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fsxsync: ")
    assert err.count("\n") == 1
    return err.removeprefix("fsxsync: ").rstrip("\n")


# ---------------------------------------------------------------- associations


def test_associate_prints_the_id(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code = daemon.run("associate", "s3://bucket/p/", "/d")

    (row,) = daemon.admin.rows.values()
    assert code == 0
    assert capsys.readouterr().out == f"{row.id}\n"
    assert daemon.admin.asked[0][1][1] is True  # type: ignore[index] - it waited


def test_associate_hands_every_option_on(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code = daemon.run(
        "associate",
        "s3://bucket/p/",
        "/d",
        *("--import", "new,deleted", "--export", "none", "--events", "sqs:http://q/1", "--poll", "2.5"),
        *("--no-import-metadata", "--no-wait", "--on-conflict", "remote"),
        *("--include", "*.csv", "--include", "a/*", "--exclude", "*.tmp"),
        *("--no-default-excludes", "--min-size", "10", "--max-size", "2KiB", "--min-age", "15m", "--max-age", "30d"),
        "--export-xattrs",
        *("--endpoint-url", "http://127.0.0.1:9", "--region", "r-1", "--profile", "p", "--requester-pays"),
        *("--acl", "private", "--sse", "aws:kms:k", "--storage-class", "GLACIER_IR"),
        *("--restore-archived", "standard", "--uid", "0", "--gid", "5"),
        *("--file-mode", "0640", "--dir-mode", "0750", "--squash", "65534:65533"),
    )
    capsys.readouterr()
    daemon.run("association", "show", "/d", "--json")
    row = told(capsys)

    assert code == 0
    assert {name: row[name] for name in ("import", "export", "events", "poll_s", "import_metadata")} == {
        "import": ["new", "deleted"],
        "export": [],
        "events": "sqs:http://q/1",
        "poll_s": 2.5,
        "import_metadata": False,
    }
    assert (row["on_conflict"], row["include"], row["exclude"]) == ("remote", ["*.csv", "a/*"], ["*.tmp"])
    assert (row["default_excludes"], row["min_size"], row["max_size"]) == ([], 10, 2048)
    assert row["export_xattrs"] is True
    assert (row["min_age_s"], row["max_age_s"]) == (900.0, 30 * 86400.0)
    assert (row["endpoint_url"], row["region"], row["profile"]) == ("http://127.0.0.1:9", "r-1", "p")
    assert (row["requester_pays"], row["anonymous"], row["acl"], row["sse"]) == (
        True, False, "private", "aws:kms:k",
    )  # fmt: skip
    assert (row["storage_class"], row["restore_archived"]) == ("GLACIER_IR", "standard")
    assert (row["uid"], row["gid"], row["file_mode"], row["dir_mode"]) == (0, 5, "0640", "0750")
    assert row["squash"] == "65534:65533"
    assert row["state"] == "CREATING"


def test_anonymous_and_read_only(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associate", "s3://bucket/", "/d", "--anonymous", "--read-only")
    capsys.readouterr()
    daemon.run("association", "show", "/d", "--json")
    row = told(capsys)

    assert (row["anonymous"], row["read_only"], row["export"]) == (True, True, [])


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ("associate http://b/ /d", "s3://bucket/prefix/"),
        ("associate s3://bucket/ d", "like /datasets"),
        ("associate s3://bucket/", "PATH"),
        ("associate s3://bucket/ /d --import all", "new, changed, deleted"),
        ("associate s3://bucket/ /d --import new,none", "new, changed, deleted"),
        ("associate s3://bucket/ /d --export ''", "new, changed, deleted"),
        ("associate s3://bucket/ /d --events q", "sqs:QUEUE_URL"),
        ("associate s3://bucket/ /d --poll often", "range"),
        ("associate s3://bucket/ /d --poll -1", "range"),
        ("associate s3://bucket/ /d --poll nan", "0"),
        ("associate s3://bucket/ /d --on-conflict mine", "keep-both"),
        ("associate s3://bucket/ /d --file-mode 888", "0644"),
        ("associate s3://bucket/ /d --uid -1", "0<=x"),
        ("associate s3://bucket/ /d --sse rot13", "AES256"),
        ("associate s3://bucket/ /d --acl all", "private"),
        ("associate s3://bucket/ /d --restore-archived now", "expedited"),
        ("associate s3://bucket/ /d --anonymous --profile p", "together"),
        ("associate s3://bucket/ /d --colour red", "--colour"),
        ("association update /d --read-only --export new", "read-only"),
        ("association show nothing", "dra-"),
        ("events --level LOUD", "WARN"),
        ("wait --timeout x", "range"),
        ("mount", "MOUNTPOINT"),
        ("mount /mnt -o colour=red", "attr_timeout="),
        ("fly", "fly"),
        ("unmount / ", "mounted nothing there"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_is_allowed(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], arguments: str, allowed: str
) -> None:
    daemon.run("associate", "s3://there/", "/d") if "update" in arguments else None
    capsys.readouterr()

    code = daemon.run(*(word.strip("'") for word in arguments.split()))

    assert code == 2
    assert allowed in complaint(capsys)


def test_what_the_daemon_refuses_is_one_line_too(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.failures.append(AccessDenied("bucket b\x1b[2J", "403"))

    code = daemon.run("associate", "s3://bucket/", "/d")

    assert code == 1
    assert complaint(capsys) == f"bucket b\\x1b[2J: 403; {AccessDenied.advice}"


def test_associations_as_json(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.pending = (PendingItem("/d/a", "dra-1", 3.0, 0, None),)
    daemon.run("associate", "s3://bucket/p/", "/d")
    daemon.run("associate", "s3://other/", "/e", "--import", "none")
    capsys.readouterr()

    code = daemon.run("associations", "--json")
    one, two = told(capsys)

    assert code == 0
    assert set(one) >= ROW_KEYS
    assert (one["path"], one["repository"], one["state"]) == ("/d", "s3://bucket/p/", "AVAILABLE")
    assert (one["import"], two["import"]) == (["new", "changed", "deleted"], [])
    assert (one["pending"], one["oldest_pending_s"], one["conflicts"], one["errors"]) == (1, 3.0, 2, 1)


def test_the_table_shows_every_cell_whole_to_a_script(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associate", "s3://bucket/" + "long/" * 60, "/d", "--export", "new")
    capsys.readouterr()

    daemon.run("associations")
    head, row = capsys.readouterr().out.splitlines()

    assert head.split() == [
        "id", "path", "repository", "state", "import", "export", "pending", "oldest", "conflicts", "errors",
    ]  # fmt: skip
    assert row.split()[1:] == [
        "/d", "s3://bucket/" + "long/" * 60, "AVAILABLE", "new,changed,deleted", "new", "0", "-", "2", "1",
    ]  # fmt: skip


def test_no_associations(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associations", "--json")

    assert told(capsys) == []


def test_show_update_and_delete_take_path_or_id(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associate", "s3://bucket/p/", "/d")
    name = capsys.readouterr().out.strip()

    codes = [
        daemon.run("association", "update", name, "--poll", "5", "--accept-deletes"),
        daemon.run("association", "update", "/d", "--export", "changed"),
        daemon.run("association", "show", name),
    ]
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    codes.append(daemon.run("association", "delete", "/d", "--hydrate", "--force", "--delete-data"))

    assert codes == [0, 0, 0, 0]
    assert (shown["poll_s"], shown["export"], shown["import"]) == ("5.0", "changed", "new,changed,deleted")
    assert ("accept_deletes", name) in daemon.admin.asked
    assert daemon.admin.asked[-1] == ("delete", (name, True, True, True))
    assert capsys.readouterr() == ("", "")


def test_an_association_that_is_not_there(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code = daemon.run("association", "delete", "/nowhere")

    assert code == 1
    assert "'fsxsync associations' lists" in complaint(capsys)


# ---------------------------------------------------------------- files


def test_state_speaks_like_lfs_hsm_state(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.states = {b"d/a": [file_state("d/a")], b"d": [file_state("d", bits=0, flags=())]}

    code = daemon.run("state", f"{daemon.mount}/d/a", f"{daemon.mount}/d/")

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{daemon.mount}/d/a: (0x0000000d) released exists archived",
        f"{daemon.mount}/d/: (0x00000000)",
    ]


def test_state_as_json(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.states = {b"a": [file_state("a", pending=True, error="403")]}

    code = daemon.run("state", "--json", f"{daemon.mount}/a")
    (row,) = told(capsys)

    assert code == 0
    assert set(row) >= STATE_KEYS
    assert row["path"] == f"{daemon.mount}/a"
    assert (row["state"], row["flags"]) == (13, ["released", "exists", "archived"])
    assert (row["pending"], row["error"], row["kind"]) == (True, "403", "file")


def test_state_of_everything_below(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.admin.states = {b"": [file_state(""), file_state("d"), file_state("d/a")]}
    monkeypatch.chdir(daemon.mount)

    daemon.run("state", "-r", ".")
    lines = capsys.readouterr().out.splitlines()
    daemon.run("state", "-r", "--json", ".")
    rows = told(capsys)

    assert [line.split(":")[0] for line in lines] == [".", "./d", "./d/a"]
    assert [row["path"] for row in rows] == [".", "./d", "./d/a"]


def test_state_resolves_paths_but_not_the_last_symlink(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (daemon.mount / "real").mkdir()
    (daemon.mount / "way").symlink_to("real")
    (daemon.mount / "real" / "link").symlink_to("/etc/passwd")
    daemon.admin.states = {b"real/link": [file_state("real/link")], b"way": [file_state("way")]}
    monkeypatch.chdir(daemon.mount / "real")

    codes = [daemon.run("state", word) for word in ("../way/link", "link", "../real/./link", "../way")]

    assert codes == [0, 0, 0, 0]
    asked = [what[0][0] for name, what in daemon.admin.asked if name == "state"]  # type: ignore[index]
    assert asked == [b"real/link", b"real/link", b"real/link", b"way"]


def test_a_path_in_the_tree_itself_is_understood(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.states = {b"a": [file_state("a")]}

    assert daemon.run("state", f"{daemon.state_dir}/tree/a") == 0


def test_a_path_outside_names_the_mount(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code = daemon.run("state", "/etc/passwd")

    assert code == 2
    assert str(daemon.mount) in complaint(capsys)


def test_one_missing_file_fails_the_command_but_not_the_others(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.admin.states = {b"a": [file_state("a")], b"c": [file_state("c")]}

    code = daemon.run("state", "--json", *(f"{daemon.mount}/{name}" for name in "abc"))
    out, err = capsys.readouterr()

    assert code == 1
    assert len(json.loads(out)) == 2
    assert err == (
        f"fsxsync: {daemon.mount}/b: no such file or directory; "
        "check the name; what only the repository has comes with 'fsxsync import'\n"
    )


def test_names_that_are_no_text_survive(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"n\xff\x1bm")
    daemon.admin.states = {b"n\xff\x1bm": [file_state(name)]}

    codes = [daemon.run("state", f"{daemon.mount}/{name}"), daemon.run("state", "--json", f"{daemon.mount}/{name}")]
    plain, _, document = capsys.readouterr().out.partition("\n")

    assert codes == [0, 0]
    assert plain == f"{daemon.mount}/n\\xff\\x1bm: (0x0000000d) released exists archived"
    assert json.loads(document)[0]["path"] == f"{daemon.mount}/{name}"


def test_wait_returns_when_nothing_is_pending(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [daemon.run("wait"), daemon.run("wait", f"{daemon.mount}/gone", "--timeout", "5")]

    assert codes == [0, 0]
    assert capsys.readouterr() == ("", "")
    assert ("wait", (b"", 3600.0)) in daemon.admin.asked
    assert ("wait", (b"gone", 5.0)) in daemon.admin.asked


def test_wait_says_what_is_pending(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.pending = tuple(
        PendingItem(f"/d/{name}", "dra-1", 1.0, 1, error, "a writer")
        for name, error in (("a", "403"), ("b", None), ("c", None), ("e", None))
    )

    code = daemon.run("wait", "--timeout", "0.5")

    assert code == 1
    assert complaint(capsys) == (
        "changes are pending after 0.5 s: /d/a (403), /d/b (a writer), /d/c (a writer) and 1 more;"
        " 'fsxsync status' says what holds it up"
    )


def test_check_sums_up_where_no_rule_is_broken(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.tally = Tally(entries=12, skipped=2, verified=5, without_checksum=1, released=3, not_imported=1)

    codes = [daemon.run("check"), daemon.run("check", "--verify", f"{daemon.mount}/a", f"{daemon.mount}/b")]

    assert codes == [0, 0]
    assert capsys.readouterr().out.splitlines() == [
        "checked 12, skipped 2",
        "checked 12, skipped 2, verified 5, without a checksum 1, released 3, changed in the repository 1, differing 0",
    ]
    assert [what for name, what in daemon.admin.asked if name == "check"] == [((b"",), False), ((b"a", b"b"), True)]


def test_check_names_each_broken_rule(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"d/a\x1b\xff")
    daemon.admin.findings = [
        Finding(name, Rule.STUB_SIZE, "a stub of 3 bytes for an object of 7", "dra-1"),
        Finding("/state/staging/new-1-1", Rule.STAGING_LEFTOVER, "left behind"),
    ]
    daemon.admin.tally = Tally(entries=9)

    code = daemon.run("check")

    out, err = capsys.readouterr()
    assert code == 1
    assert out.splitlines() == [
        f"{daemon.mount}/d/a\\x1b\\xff: stub-size: a stub of 3 bytes for an object of 7",
        "/state/staging/new-1-1: staging-leftover: left behind",
    ]
    assert err.startswith("fsxsync: 2 rules are broken: checked 9, skipped 0; ")
    assert err.count("\n") == 1


def test_check_as_json_is_one_list_of_findings(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    clean = daemon.run("check", "--json"), *capsys.readouterr()
    daemon.admin.findings = [Finding("d/a", Rule.OBJECT_GONE, "gone", "dra-1"), Finding("b", Rule.STUB_ASTRAY, "stub")]

    code = daemon.run("check", "--json", "--verify")

    out, _ = capsys.readouterr()
    assert clean == (0, "[]\n", "checked 0, skipped 0\n")
    assert code == 1
    assert json.loads(out) == [
        {"path": f"{daemon.mount}/d/a", "rule": "object-gone", "message": "gone", "association": "dra-1"},
        {"path": f"{daemon.mount}/b", "rule": "stub-astray", "message": "stub", "association": None},
    ]


def test_check_that_can_not_go_on_says_why(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.late_failure = AccessDenied("looking at s3://bucket/a", "403")

    code = daemon.run("check", "--verify")

    daemon.admin.late_failure = None
    assert code == 1
    assert complaint(capsys).startswith("looking at s3://bucket/a: 403; grant s3:")


# ---------------------------------------------------------------- the daemon


CONFLICTS = [
    Conflict(
        "dra-1",
        b"d/f",
        ConflictKind.KEPT,
        10**18,
        b"d/f.conflict",
        LocalVersion(5, 4, 10**18),
        RemoteVersion("e", 6, 0),
    ),
    Conflict("dra-1", b"d/x/y", ConflictKind.CLASH, 10**18),
]


def test_conflicts_as_json_with_both_versions(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.open_conflicts = CONFLICTS

    assert daemon.run("conflicts", "--json") == 0

    kept, clash = told(capsys)
    assert (kept["path"], kept["kept_as"]) == (f"{daemon.mount}/d/f", f"{daemon.mount}/d/f.conflict")
    assert (kept["local"]["size"], kept["remote"]["etag"], kept["detected_s"]) == (4, "e", 1e9)
    assert (clash["kind"], clash["kept_as"], clash["local"], clash["remote"]) == ("clash", None, None, None)


def test_conflicts_as_a_table(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert (daemon.run("conflicts"), capsys.readouterr().out) == (0, "")
    daemon.admin.open_conflicts = CONFLICTS

    assert daemon.run("conflicts") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2001-09-09T01:46:40Z" in lines[1]
    assert f"{daemon.mount}/d/x/y" in lines[2]


def test_resolve_hands_the_choice_on(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.open_conflicts = CONFLICTS

    assert daemon.run("conflicts", "resolve", f"{daemon.mount}/d/f.conflict", "--keep", "local") == 0

    assert capsys.readouterr().out == f"{daemon.mount}/d/f: local kept\n"
    assert daemon.admin.asked[-1] == ("resolve", (b"d/f.conflict", Keep.LOCAL))
    daemon.admin.failures = [ConflictMoved("conflict at /d/f", "its object was changed since it was listed")]
    assert daemon.run("conflicts", "resolve", f"{daemon.mount}/d/f", "--keep", "remote") == 1
    assert "fsxsync conflicts" in complaint(capsys)


def test_status_as_json(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associate", "s3://bucket/p/", "/d")
    capsys.readouterr()

    code = daemon.run("status", "--json")
    status = told(capsys)

    assert code == 0
    assert set(status) >= {
        "version", "mount", "data_path", "associations", "pending", "oldest_pending_s", "transfers",
        "cache_bytes", "errors", "needs_person", "tree", "state_dir", "pid",
    }  # fmt: skip
    assert status["mount"] == str(daemon.mount)
    assert status["associations"][0]["features"]["put_if_match"] is True


def test_status_fails_if_somebody_is_needed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.needs_person = ("dra-1 (/d): 403",)
    daemon.run("associate", "s3://bucket/p/", "/d")
    capsys.readouterr()

    code = daemon.run("status")
    out, err = capsys.readouterr()

    assert (code, err) == (1, "")
    for words in (str(daemon.mount), "fuse (no root)", "dra-1 (/d): 403", "put_if_match", "3.0 GiB used", "2.0 KiB"):
        assert words in out


def test_unmount_drains_and_ends_the_daemon(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code = daemon.run("unmount", "--drain-timeout", "7")

    assert code == 0
    assert [name for name, _ in daemon.admin.asked] == ["status", "drain", "stop"]
    assert ("drain", 7.0) in daemon.admin.asked
    lock = os.open(daemon.state_dir / "daemon.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the daemon's process has let go of it
    os.close(lock)
    assert daemon.run("status") == 3


def test_unmount_says_what_is_left(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.undrained = 12

    code = daemon.run("unmount")

    assert code == 1
    assert complaint(capsys) == (
        "unmounted before all was exported: 12 changes are pending; they are kept for the next start"
    )
    assert daemon.admin.stopping.is_set()


@pytest.mark.parametrize(
    "arguments",
    [
        "status",
        "associations",
        "association show /d",
        "associate s3://bucket/ /d",
        "wait",
        "state x",
        "check",
        "unmount",
    ],
)
def test_without_a_daemon_every_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    code = run(["--state-dir", str(tmp_path), *arguments.split()])

    assert code == 3
    assert "start one with 'fsxsync mount'" in complaint(capsys)


def test_the_environment_names_the_instance(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSXSYNC_STATE_DIR", str(daemon.state_dir))

    assert run(["status"]) == 0


def test_a_command_that_waits_is_told_when_the_daemon_ends(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.admin.gate = trio.Event()
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(daemon.run("wait")))
    waiting.start()
    until(lambda: ("wait", (b"", 3600.0)) in daemon.admin.asked)
    daemon.admin.gate = None

    daemon.run("unmount")
    waiting.join(10)

    assert codes == [3]
    assert "ended before it answered" in complaint(capsys)


def test_an_update_takes_filters_away_again(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.run("associate", "s3://bucket/p/", "/d", "--exclude", "*.tmp", "--include", "a", "--max-size", "1G")
    assert daemon.run("association", "update", "/d", "--min-age", "2w") == 0
    (row,) = daemon.admin.rows.values()
    assert (row.exclude, row.include, row.limits.max_size, row.limits.min_age_ns) == (
        ("*.tmp",), ("a",), 1 << 30, 14 * 86400 * 10**9,
    )  # fmt: skip

    assert daemon.run("association", "update", "/d", "--exclude", "", "--include", "", "--max-size", "none") == 0
    (row,) = daemon.admin.rows.values()
    assert (row.exclude, row.include, row.limits.max_size, row.default_excludes) == ((), (), None, True)
    assert row.limits.min_age_ns is not None
    capsys.readouterr()


@pytest.mark.parametrize(
    "options",
    [
        ("--max-size", "-1"),
        ("--max-size", "1.5G"),
        ("--min-size", "1Q"),
        ("--min-age", "soon"),
        ("--max-age", "9999999999d"),
        ("--min-size", "2K", "--max-size", "1K"),
        ("--min-age", "2d", "--max-age", "1d"),
    ],
)
def test_limits_that_make_no_sense(
    options: tuple[str, ...], daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon.run("associate", "s3://bucket/p/", "/d", *options) == 2
    assert options[-2].removeprefix("--").replace("-", "_").split("_")[1] in complaint(capsys)
    assert not daemon.admin.rows


# ---------------------------------------------------------------- the contract

OPTIONS = {
    "mount": "--allow-other --daemon --config --metrics-listen --api-listen -o",
    "watch": "--daemon --config --metrics-listen --api-listen",
    "unmount": "--drain-timeout",
    "demo": "--check",
    "associate": "--import --export --events --poll --no-import-metadata --no-wait --on-conflict --include --exclude"
    " --default-excludes --no-default-excludes --min-size --max-size --min-age --max-age --export-xattrs"
    " --export-xattrs --no-export-xattrs"
    " --endpoint-url --region --profile --anonymous --requester-pays --acl --sse --storage-class --restore-archived"
    " --uid --gid --file-mode --dir-mode --squash --read-only",
    "associations": "--json",
    "association show": "--json",
    "association update": "--import --export --events --poll --on-conflict --include --exclude --endpoint-url --region"
    " --default-excludes --no-default-excludes --min-size --max-size --min-age --max-age"
    " --profile --anonymous --requester-pays --acl --sse --storage-class --restore-archived --uid --gid --file-mode"
    " --dir-mode --squash --read-only --accept-deletes",
    "association delete": "--hydrate --delete-data --force",
    "state": "--json --recursive -r --set --clear",
    "wait": "--timeout",
    "check": "--verify --repair --json",
    "diff": "--json",
    "why": "--json",
    "conflicts": "--json",
    "conflicts resolve": "--keep",
    "export": "--deletes --accept-deletes --no-wait --report --dry-run --json --null -0",
    "import": "--deletes --accept-deletes --no-wait --report --dry-run --json --null -0",
    "release": "--idle-for --no-wait --report --dry-run --json --null -0",
    "restore": "--no-wait --report --dry-run --json --null -0",
    "reconcile": "--accept-deletes --no-wait --report --dry-run --json --null -0",
    "tasks": "--json",
    "task show": "--json",
    "task cancel": "--json",
    "status": "--json",
    "top": "--interval --once",
    "events": "--follow --json --association --level",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_of_the_contract_is_there_and_help_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([*command.split(), "--help"])
    text = capsys.readouterr().out

    assert code == 0
    assert "Example" in text
    assert f"fsxsync {command}" in text.split("Example", 1)[1]
    options = set(re.split(r"[\s,/]+", text))
    assert [option for option in OPTIONS[command].split() if option not in options] == []


def test_every_command_has_its_whole_line_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    listed = capsys.readouterr().out.partition("Commands:\n")[2]

    assert {line.split()[0] for line in listed.splitlines()} == {name.split()[0] for name in OPTIONS}
    assert "..." not in listed


# ---------------------------------------------------------------- the process


def fsxsync(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys; from fsxsync.cli.main import run; code = run(sys.argv[1:]); {code}; sys.exit(code)"
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "status", "associations", "state {mount}/a", "wait", "check"]
)
def test_no_command_pays_for_what_only_the_daemon_needs(daemon: Daemon, arguments: str) -> None:
    daemon.admin.states = {b"a": [file_state("a")]}
    heavy = ("boto3", "botocore", "pyfuse3", "moto", "trio", "starlette", "hypercorn", "sqlite3", "sqlite_utils")
    if arguments != "--help":  # which names them all
        heavy += ("fsxsync.cli.tasks", "fsxsync.cli.top", "fsxsync.cli.serving")

    done = fsxsync(
        "--state-dir",
        str(daemon.state_dir),
        *arguments.format(mount=daemon.mount).split(),
        code=f"assert not [name for name in {heavy} if name in sys.modules], sorted(sys.modules)",
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(daemon: Daemon) -> None:
    daemon.admin.states = {b"": [file_state(f"f{number}") for number in range(20_000)]}
    program = "import sys; from fsxsync.cli.main import main; main()"
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, "--state-dir", daemon.state_dir, "state", "-r", daemon.mount],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        complaints = running.stderr.read()

    assert complaints == b""
    assert running.returncode == 141


@pytest.mark.parametrize("words", ["state -r {mount}", "state -r --json {mount}", "status", "--help"])
@pytest.mark.parametrize("count", [1, 20_000])
@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}], ids=str)
def test_output_that_can_not_be_written_is_said_in_a_line(
    daemon: Daemon, words: str, count: int, env: dict[str, str]
) -> None:
    daemon.admin.states = {b"": [file_state(f"f{number}") for number in range(count)]}
    program = "from fsxsync.cli.main import main; main()"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", program, "--state-dir", daemon.state_dir, *words.format(mount=daemon.mount).split()],
            stdout=full,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | env,
            check=False,
            timeout=30,
        )

    assert done.stderr.decode().startswith("fsxsync: the output can't be written: No space left on device; ")
    assert done.stderr.count(b"\n") == 1
    assert done.returncode == 1


def test_a_closed_output_is_no_failure(daemon: Daemon) -> None:
    program = f"exec {sys.executable} -c 'from fsxsync.cli.main import main; main()' --state-dir \"$1\" status >&-"
    done = subprocess.run(["sh", "-c", program, "sh", daemon.state_dir], capture_output=True, check=False, timeout=30)  # noqa: S603, S607
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_the_command_and_the_daemon_lives(daemon: Daemon) -> None:
    daemon.admin.gate = trio.Event()
    program = (
        "import os, signal, sys, threading; from fsxsync.cli.main import main;"
        # Whoever runs the tests in the background of a shell has it ignored, and so have its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "threading.Thread(target=lambda: (sys.stdin.readline(),"
        " os.kill(os.getpid(), signal.SIGINT))).start(); main()"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, "--state-dir", daemon.state_dir, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        until(lambda: ("wait", (b"", 3600.0)) in daemon.admin.asked)
        out, err = running.communicate(b"\n", timeout=20)

    daemon.admin.gate = None
    assert (out, err, running.returncode) == (b"", b"", 130)
    assert daemon.run("status") == 0


@pytest.mark.parametrize("word", ["nope", "dra-00000000000000099", "/nowhere"])
def test_events_of_an_unknown_association_are_refused_as_by_other_commands(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    daemon.run("associate", "s3://bucket/p/", "/d")
    capsys.readouterr()

    refused = daemon.run("association", "show", word), complaint(capsys)
    assert daemon.run("events", "--association", word) == refused[0] != 0
    assert complaint(capsys) == refused[1]


def test_events_of_an_association_by_its_id_and_by_both_of_its_paths(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.run("associate", "s3://bucket/p/", "/d")
    one = capsys.readouterr().out.strip()
    gone = "dra-00000000000000099"  # deleted meanwhile: the log still tells of it
    log = EventLog(daemon.state_dir / "events.jsonl", max_bytes=1 << 20, keep=1)
    for association in (one, gone):
        log.emit(code="Conflict", flow="import", message="m", association=association)
    log.close()

    for word in (one, "/d", str(daemon.mount / "d"), f"{daemon.mount}/d/", gone):
        assert daemon.run("events", "--json", "--association", word) == 0
        assert [event["association"] for event in told(capsys)] == [gone if word == gone else one]
