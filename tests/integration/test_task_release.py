"""Releasing and restoring by task: a daemon, a mount, a bucket, and programs that look at the files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, keys_of
from support.moto_server import MotoServer

from fsxsync.control.client import Client
from fsxsync.model.stub import XATTR

SIZE = 70_000


def body(number: int) -> bytes:
    return bytes([number % 251]) * SIZE


@pytest.fixture
def synced(fsx: Instance, moto: MotoServer, bucket: str) -> Path:
    """Ten files and a small one in a directory, in sync."""
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--poll", "0")
    place = fsx.directory / "d" / "in"
    place.mkdir()
    for number in range(10):
        (place / f"f{number}").write_bytes(body(number))
    (place / "empty").touch()
    fsx.settle()
    return place


def blocks(path: Path) -> int:
    return path.stat().st_blocks


def is_stub(fsx: Instance, path: Path) -> bool:
    behind = fsx.tree / path.relative_to(fsx.directory)
    return XATTR.decode() in os.listxattr(behind)


def failures_of(fsx: Instance, task: dict[str, Any]) -> dict[str, str]:
    shown = fsx.ok("task", "show", task["id"], "--json").json
    return {row["path"]: row["code"] for row in shown["failures"]}


def test_released_files_look_the_same_take_no_space_and_read_the_same(fsx: Instance, synced: Path) -> None:
    os.utime(synced / "f1", ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
    fsx.settle()
    before = {path.name: path.stat() for path in synced.iterdir()}

    planned = fsx.ok("release", "--dry-run", "--json", synced).json
    assert {Path(row["path"]).name: row["action"] for row in planned} == {f"f{n}": "release" for n in range(10)}
    assert not is_stub(fsx, synced / "f1")
    done = fsx.ok("release", "--json", synced).json

    assert (done["lifecycle"], done["total"], done["succeeded"], done["failed"]) == ("SUCCEEDED", 11, 11, 0)
    assert done["bytes"] == 10 * SIZE
    for name, old in before.items():
        now = (synced / name).stat()
        assert (now.st_size, now.st_mtime_ns, now.st_atime_ns, now.st_mode) == (
            *(old.st_size, old.st_mtime_ns, old.st_atime_ns, old.st_mode),
        )
    assert all(1 <= blocks(synced / f"f{n}") <= 8 for n in range(10))  # 8: for its attributes
    du = subprocess.run(["du", "-B512", "-s", str(synced)], capture_output=True, text=True, check=True)  # noqa: S603, S607
    assert int(du.stdout.split()[0]) < 10 * SIZE // 512
    assert fsx.state(synced / "f3")["flags"] == ["released", "exists", "archived"]
    again = fsx.ok("release", "--json", synced).json
    assert (again["lifecycle"], again["succeeded"], again["bytes"]) == ("SUCCEEDED", 11, 0)

    fsx.settle()
    assert fsx.status()["associations"][0]["exported"] == 12  # nothing was taken for a change
    for number in range(10):
        assert (synced / f"f{number}").read_bytes() == body(number)
    fsx.ok("check", "--verify")


def test_what_the_repository_does_not_have_for_certain_stays(
    fsx: Instance, synced: Path, s3: Any, bucket: str, moto: MotoServer
) -> None:
    for key in keys_of(s3, bucket, "p/in/f2"):
        s3.delete_object(Bucket=bucket, Key=key)
    s3.put_object(Bucket=bucket, Key="p/in/f3", Body=b"another version")
    behind = fsx.tree / "d" / "in" / "f5"
    os.link(behind, fsx.tree / "elsewhere")  # in no association: nobody has an object for that name
    os.link(synced / "f6", synced / "f6-too")
    fsx.settle()
    with (synced / "f1").open("rb"), (synced / "f4").open("ab") as writer:
        writer.write(b"not closed yet")
        writer.flush()
        done = fsx.run("release", "--json", synced, fsx.directory / "elsewhere")

    assert done.code == 1
    assert "6 of 13 files failed; 'fsxsync task show ID' lists what failed" in done.err
    assert (done.json["lifecycle"], done.json["succeeded"]) == ("FAILED", 7)
    assert failures_of(fsx, done.json) == {
        "d/in/f1": "ResourceBusy",
        "d/in/f2": "SourceObjectDeletedBeforeReleasing",
        "d/in/f3": "SourceObjectDeletedBeforeReleasing",
        "d/in/f4": "ResourceBusy",
        "d/in/f5": "OperationNotPermitted",
        "elsewhere": "OperationNotPermitted",
    }
    report = fsx.state_dir / "reports" / done.json["id"] / "failures.csv"
    assert b"d/in/f1,failed,ResourceBusy\r\n" in report.read_bytes()
    # Both names of one file have objects of their own: it went, and each name brings it back.
    assert is_stub(fsx, synced / "f6")
    assert is_stub(fsx, synced / "f6-too")
    assert (synced / "f6-too").read_bytes() == body(6)
    eventually(lambda: not is_stub(fsx, synced / "f6"))
    for number in (1, 2, 5):
        assert not is_stub(fsx, synced / f"f{number}")
        assert (synced / f"f{number}").read_bytes() == body(number)


def test_a_change_that_is_not_exported_yet_and_a_rename_that_is_not_followed_yet_are_waited_for(
    fsx: Instance, moto: MotoServer, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--export", "none", "--poll", "0")
    place = fsx.directory / "d"
    for name in ("changed", "renamed", "new"):
        (place / name).write_bytes(body(1))
    fsx.ok("export", place / "changed", place / "renamed")
    (place / "changed").write_bytes(body(2))
    (place / "renamed").rename(place / "its-new-name")
    done = fsx.run("release", "--json", place)

    assert done.code == 1
    assert failures_of(fsx, done.json) == {
        "d/changed": "OperationNotPermitted",
        "d/its-new-name": "S3ObjectUpdateInProgressFromFileRename",
        "d/new": "OperationNotPermitted",
    }
    assert (place / "changed").read_bytes() == body(2)
    fsx.ok("export", place)
    fsx.ok("release", place)
    assert [(place / name).read_bytes() for name in ("changed", "its-new-name", "new")] == [body(2), body(1), body(1)]


def test_a_file_that_was_read_a_moment_ago_is_released_and_verified(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """It is large, so that comparing it and making it durable takes longer than a command to come: it was refused as
    one that something happens to."""
    s3.put_object(Bucket=bucket, Key="large", Body=os.urandom(1 << 20) * 160)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    place = fsx.directory / "d" / "large"
    client = Client(fsx.state_dir)

    def read() -> None:
        with place.open("rb") as reader:
            while reader.read(1 << 20):
                pass

    def release() -> str:
        task = client.create_task({"type": "RELEASE_DATA_FROM_FILESYSTEM", "paths": ["d"]})["id"]
        eventually(lambda: client.task(task)["lifecycle"] in {"SUCCEEDED", "FAILED"})
        return str(client.task(task)["lifecycle"])

    read()
    assert list(client.check([b"d"], verify=True, repair=False))[-1]["tally"]["verified"] == 1
    assert release() == "SUCCEEDED"
    read()
    assert release() == "SUCCEEDED"
    assert is_stub(fsx, place)


def test_only_what_was_idle_long_enough_goes(fsx: Instance, synced: Path) -> None:
    done = fsx.ok("release", "--idle-for", "1h", "--json", synced).json
    assert (done["lifecycle"], done["total"]) == ("SUCCEEDED", 0)
    assert not is_stub(fsx, synced / "f1")


def test_a_directory_and_a_list_are_restored_and_read_without_the_repository(
    fsx: Instance, synced: Path, s3: Any, bucket: str
) -> None:
    large = os.urandom(20 << 20)
    (synced / "large").write_bytes(large)
    fsx.settle()
    fsx.ok("release", synced)
    some = "\0".join(str(synced / f"f{number}") for number in range(3)) + "\0"
    listed = subprocess.run(  # noqa: S603
        [*fsx.program, "restore", "-0", "-", "--json"],
        env=fsx.environment(), input=some, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"succeeded": 3' in listed.stdout
    assert not is_stub(fsx, synced / "f2")
    assert is_stub(fsx, synced / "f3")
    done = fsx.ok("restore", "--json", synced).json

    assert (done["succeeded"], done["bytes"]) == (12, 7 * SIZE + len(large))
    for key in keys_of(s3, bucket):
        s3.delete_object(Bucket=bucket, Key=key)
    assert (synced / "large").read_bytes() == large
    assert all((synced / f"f{number}").read_bytes() == body(number) for number in range(10))


def test_what_can_not_be_restored_is_told(fsx: Instance, synced: Path, s3: Any, bucket: str) -> None:
    fsx.ok("release", synced)
    s3.delete_object(Bucket=bucket, Key="p/in/f7")
    done = fsx.run("restore", "--json", synced)

    assert done.code == 1
    assert done.json["succeeded"] == 10
    assert failures_of(fsx, done.json) == {"d/in/f7": "S3ObjectNotFound"}


def test_nothing_is_released_in_watch_mode(watched: Instance, moto: MotoServer, bucket: str) -> None:
    watched.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    (watched.directory / "d" / "f").write_bytes(b"data")
    watched.settle()

    refused = watched.run("release", watched.directory / "d")

    assert refused.code == 1
    assert "watch mode" in refused.err
    assert watched.ok("tasks", "--json").json == []
    eventually(lambda: (watched.directory / "d" / "f").read_bytes() == b"data")
