"""After a power cut the tree may be older than the catalog and the bucket. Each test makes of it by hand what a file
system shows then, and has the daemon believe that the machine was started anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, keys_of
from support.moto_server import MotoServer
from support.proxy import Proxy, Request, refusal


def went_down(made: Instance) -> bool:
    """The last daemon ran before the machine did, as far as the catalog knows. False: it has ended by itself."""
    with closing(sqlite3.connect(made.state_dir / "catalog.db", timeout=60)) as catalog, catalog:
        where = "name = 'running under boot' AND value != 'null'"
        return catalog.execute(f"UPDATE facts SET value = '\"another\"' WHERE {where}").rowcount == 1  # noqa: S608


def body(s3: Any, bucket: str, name: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=f"p/{name}")["Body"].read()
    return data


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def codes(made: Instance) -> list[str]:
    return [event["code"] for event in made.ok("events", "--json").json]


def settled_with(made: Instance, moto: MotoServer, bucket: str, **files: bytes) -> Path:
    made.associate(moto, f"s3://{bucket}/p/", "/d", "--on-conflict", "local")
    for name, data in files.items():
        (made.directory / "d" / name).write_bytes(data)
    made.settle()
    return made.tree / "d"


def test_a_file_that_lost_its_bytes_does_not_take_them_from_its_object(
    made: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """Exported before its blocks were written: it comes back empty, with the times that it had."""
    behind = settled_with(made, moto, bucket, f=b"x" * 8000)
    made.kill()
    before = (behind / "f").stat()
    os.truncate(behind / "f", 0)
    os.utime(behind / "f", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert went_down(made)

    made.start()
    made.settle()

    assert body(s3, bucket, "f") == b"x" * 8000
    found = contents(made.directory / "d")
    assert found.pop("f") == b"x" * 8000
    assert list(found.values()) == [b""]  # beside it, for somebody to look at
    assert "MachineWentDown" in codes(made)
    (made.directory / "d/f").unlink()  # it is over: whatever is done from now on was done by somebody
    made.settle()
    assert "p/f" not in keys_of(s3, bucket, "p/")
    made.kill()
    (behind / "g").write_bytes(b"later")
    made.start()
    made.settle()
    assert codes(made).count("MachineWentDown") == 1


def test_a_file_that_was_never_made_does_not_take_its_object_with_it(
    watched: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    made = watched
    behind = settled_with(made, moto, bucket, f=b"data", g=b"more")
    made.kill()
    (behind / "f").unlink()
    assert went_down(made)

    made.start()
    made.settle()

    assert contents(made.directory / "d") == {"f": b"data", "g": b"more"}
    assert (body(s3, bucket, "f"), body(s3, bucket, "g")) == (b"data", b"more")


def test_an_old_version_that_came_back_overwrites_no_newer_one(
    watched: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """The object had taken its place, and the file system never heard of it."""
    made = watched
    behind = settled_with(made, moto, bucket, f=b"old")
    shutil.copy2(behind / "f", made.base / "kept")
    s3.put_object(Bucket=bucket, Key="p/f", Body=b"newer")
    made.ok("import", made.directory / "d")
    made.settle()
    made.kill()
    (made.base / "kept").rename(behind / "f")
    assert went_down(made)

    made.start()
    made.settle()

    assert body(s3, bucket, "f") == b"newer"
    found = contents(made.directory / "d")
    assert found.pop("f") == b"newer"
    assert list(found.values()) == [b"old"]


def test_a_rename_that_the_tree_forgot_leaves_a_file(
    watched: Instance, moto: MotoServer, proxy: Proxy, s3: Any, bucket: str
) -> None:
    """The copy was made and the old object is gone; the file has its old name again, and the catalog is as old as the
    note of the copy."""
    made = watched
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    (made.directory / "d/a").write_bytes(b"data")
    made.settle()
    copied, go_on = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.copies:
            copied.set()
            go_on.wait(60)

    proxy.done = hold
    (made.tree / "d/a").rename(made.tree / "d/b")
    assert copied.wait(60)
    kept = made.base / "catalog-then"
    kept.mkdir()
    for file in made.state_dir.glob("catalog.db*"):
        shutil.copy2(file, kept)
    go_on.set()
    made.settle()
    assert keys_of(s3, bucket, "p/") == ["p/b"]
    made.kill()
    for file in made.state_dir.glob("catalog.db*"):
        file.unlink()
    for file in kept.iterdir():
        file.rename(made.state_dir / file.name)
    (made.tree / "d/b").rename(made.tree / "d/a")
    assert went_down(made)

    made.start()
    made.settle()

    assert contents(made.directory / "d") == {"b": b"data"}
    assert keys_of(s3, bucket, "p/") == ["p/b"]
    assert body(s3, bucket, "b") == b"data"


def test_what_waited_to_be_exported_is_exported(
    watched: Instance, moto: MotoServer, proxy: Proxy, s3: Any, bucket: str
) -> None:
    """The store was away for hours before: edits and renames are no losses."""
    made = watched
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    for name in ("edited", "renamed"):
        (made.directory / "d" / name).write_bytes(b"data")
    made.settle()
    proxy.rule = lambda _request: refusal(503, "SlowDown")
    (made.tree / "d/edited").write_bytes(b"edited since")
    (made.tree / "d/renamed").rename(made.tree / "d/renamed-since")
    (made.tree / "d/new").write_bytes(b"new")
    eventually(lambda: made.status()["associations"][0]["pending"] >= 4)
    made.kill()
    proxy.rule = lambda _request: None
    assert went_down(made)

    made.start()
    made.settle()

    expected = {"edited": b"edited since", "renamed-since": b"data", "new": b"new"}
    assert contents(made.directory / "d") == expected
    assert {name: body(s3, bucket, name) for name in expected} == expected
    assert keys_of(s3, bucket, "p/") == sorted(f"p/{name}" for name in expected)
    assert made.status()["associations"][0]["conflicts"] == 0


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_doubted_unless_the_machine_went_down(
    watched: Instance, moto: MotoServer, s3: Any, bucket: str, end: str
) -> None:
    """A daemon that ends by itself has brought the tree to the disk; one that is killed leaves that to the kernel."""
    made = watched
    behind = settled_with(made, moto, bucket, f=b"data", g=b"more")
    if end == "stopped":
        made.stop()
        assert not went_down(made)
    else:
        made.kill()
    (behind / "f").unlink()
    (behind / "g").write_bytes(b"changed")

    made.start()
    made.settle()

    assert keys_of(s3, bucket, "p/") == ["p/g"]
    assert body(s3, bucket, "g") == b"changed"
    assert "MachineWentDown" not in codes(made)


def test_a_daemon_that_is_killed_while_it_doubts_doubts_again(
    watched: Instance, moto: MotoServer, proxy: Proxy, s3: Any, bucket: str
) -> None:
    """What its scan had found then waits in the changelog, as what somebody did would."""
    made = watched
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--on-conflict", "local")
    (made.directory / "d/f").write_bytes(b"x" * 8000)
    made.settle()
    made.kill()
    os.truncate(made.tree / "d/f", 0)
    assert went_down(made)
    proxy.rule = lambda request: refusal(503, "SlowDown") if request.path.endswith("/p/f") else None
    made.start()
    eventually(lambda: made.status()["associations"][0]["pending"] == 1)
    made.kill()
    proxy.rule = lambda _request: None

    made.start()
    made.settle()

    assert body(s3, bucket, "f") == b"x" * 8000
    assert contents(made.directory / "d")["f"] == b"x" * 8000
