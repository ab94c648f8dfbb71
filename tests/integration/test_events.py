"""The event log as users and scripts read it: rotated, filtered, followed, as JSON, with FSx's codes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.instance import Instance, instance
from support.moto_server import MotoServer

MAX_BYTES = 64 << 10
KEPT = 2


def follow(fsx: Instance, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [*fsx.program, "events", "--follow", *arguments],
        env=fsx.environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def test_the_event_log_is_rotated_filtered_and_followed(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    env = {"FSXSYNC_EVENT_LOG_MAX_BYTES": str(MAX_BYTES), "FSXSYNC_EVENT_LOG_KEEP": str(KEPT)}
    with instance(tmp_path, **env) as fsx:
        s3.put_object(Bucket=bucket, Key="a", Body=b"x")
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
        one = fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
        fsx.settle()
        following = follow(fsx, "--json", "--level", "WARN")
        try:
            assert following.stdout is not None
            lines = (json.loads(line) for line in following.stdout)
            seen: list[int] = []
            for number in range(400):
                os.mkfifo(fsx.tree / f"d/pipe {number:03} {'x' * 230}")
                while number % 100 == 99 and len(seen) <= number:  # over all rotations, as long as one keeps up
                    event = next(lines)
                    assert event["level"] in {"WARN", "ERROR"}
                    seen += [event["seq"]] if "pipe" in event["path"] else []
            assert seen == sorted(set(seen))
        finally:
            following.kill()
            following.wait()
            assert following.stdout is not None
            following.stdout.close()

        files = sorted(fsx.state_dir.glob("events.jsonl*"))
        assert [file.name for file in files] == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
        assert all(file.stat().st_size <= MAX_BYTES for file in files)
        assert all((file.stat().st_mode & 0o777) == 0o600 for file in files)
        told = fsx.ok("events", "--json").json
        numbers = [event["seq"] for event in told]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[0] > 1  # the oldest went
        assert {"time", "level", "code", "type", "flow", "association", "path", "message"} <= set(told[-1])
        assert told[-1]["association"] == one

        assert fsx.ok("events", "--json", "--level", "ERROR").json == [e for e in told if e["level"] == "ERROR"]
        assert fsx.ok("events", "--json", "--association", "/d").json == [e for e in told if e["association"] == one]
        assert fsx.ok("events", "--json", "--association", fsx.directory / "d").json == [
            event for event in told if event["association"] == one
        ]
        text = fsx.ok("events", "--level", "WARN").out
        assert text.count("\n") == len([event for event in told if event["level"] != "INFO"])
        fsx.stop()
        assert fsx.ok("events", "--json").json[: len(told)] == told  # without a daemon, too


def test_failures_have_the_codes_of_fsx_for_their_direction(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
    s3.put_object(Bucket=bucket, Key="c//d", Body=b"x")
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    fsx.settle()
    s3.delete_object(Bucket=bucket, Key="gone")
    assert fsx.run("restore", fsx.directory / "d/gone").code == 1
    deep = fsx.tree / "d"
    for _ in range(5):
        deep /= "x" * 250
        deep.mkdir()
    fsx.settle()

    codes = {(event["flow"], event["code"]) for event in fsx.ok("events", "--json").json}
    assert {
        ("import", "S3ImportObjectTypeMismatch"),
        ("import", "S3ImportObjectPathNotPosixCompliant"),
        ("restore", "S3RestoreObjectDeleted"),
        ("export", "S3ExportPathSizeTooLong"),
    } <= codes
