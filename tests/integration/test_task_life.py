"""The life of data repository tasks: exports and imports, reports, cancelling, kill -9, and what they refuse."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request

from fsxsync.control.authentication import Credentials
from fsxsync.model.stub import XATTR

MANUAL = ("--import", "none", "--export", "none", "--poll", "0")
"""An association that does nothing by itself: all is done by tasks."""


def failures_of(fsx: Instance, task: dict[str, Any]) -> dict[str, str]:
    shown = fsx.ok("task", "show", task["id"], "--json").json
    return {row["path"]: row["code"] for row in shown["failures"]}


def stubs(fsx: Instance, directory: Path) -> list[str]:
    behind = fsx.tree / directory.relative_to(fsx.directory)
    return sorted(path.name for path in behind.iterdir() if XATTR.decode() in os.listxattr(path))


@pytest.mark.parametrize("word", ["export", "reconcile"])
def test_what_is_exported_by_hand_alone_is_written_conditionally(
    fsx: Instance, moto: MotoServer, proxy: Proxy, bucket: str, word: str
) -> None:
    """Where an association exports nothing by itself, nobody found out what its store obeys."""
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, *MANUAL)
    (fsx.directory / "d/a").write_bytes(b"one")
    fsx.settle()
    assert not any(request.method == "PUT" for request in proxy.requests), "a bucket that is only read got a probe"

    fsx.ok(word, fsx.directory / "d")

    (put,) = [one for one in proxy.requests if (one.method, one.path) == ("PUT", f"/{bucket}/p/a")]
    assert put.headers["if-none-match"] == "*"


def test_exports_and_imports_by_hand(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", *MANUAL)
    place = fsx.directory / "d"
    (place / "sub").mkdir()
    (place / "sub" / "a").write_bytes(b"one")
    (place / "b").write_bytes(b"two")
    (place / "link").symlink_to("b")
    fsx.settle()
    assert keys_of(s3, bucket) == []

    planned = fsx.ok("export", "--dry-run", "--json", place / "sub").json
    assert [(row["action"], Path(row["path"]).name) for row in planned] == [("export", "sub"), ("export", "a")]
    first = fsx.ok("export", "--json", place / "sub").json
    assert (first["type"], first["lifecycle"], first["succeeded"]) == ("EXPORT_TO_REPOSITORY", "SUCCEEDED", 2)
    assert keys_of(s3, bucket) == ["p/sub/", "p/sub/a"]
    again = fsx.ok("export", "--json", place).json
    assert (again["succeeded"], again["bytes"]) == (4, 4)  # the symlink's body is its target

    # What is gone on one side is left alone, but where the task is told to bring it over.
    (place / "b").unlink()
    s3.delete_object(Bucket=bucket, Key="p/sub/a")
    s3.put_object(Bucket=bucket, Key="p/new/c", Body=b"three")
    s3.put_object(Bucket=bucket, Key="p/not//a/path", Body=b"x")
    for word in ("export", "import"):
        fsx.run(word, place)
    assert (place / "sub" / "a").read_bytes() == b"one"
    assert (place / "new" / "c").read_bytes() == b"three"
    assert "p/b" in keys_of(s3, bucket)
    imported = fsx.run("import", "--deletes", "--json", f"s3://{bucket}/p/")
    assert imported.code == 1
    assert failures_of(fsx, imported.json) == {"d/not//a/path": "S3ObjectPathNotPosixCompliant"}
    report = fsx.state_dir / "reports" / imported.json["id"] / "report.csv"
    assert report.read_bytes() == b"d/not//a/path,failed,S3ObjectPathNotPosixCompliant\r\n"
    assert not (place / "sub" / "a").exists()
    fsx.ok("export", "--deletes", place)
    assert "p/b" not in keys_of(s3, bucket)

    (place / "from-here").write_bytes(b"four")
    s3.put_object(Bucket=bucket, Key="p/from-there", Body=b"five")
    s3.delete_object(Bucket=bucket, Key="p/new/c")
    (place / "link").unlink()
    s3.delete_object(Bucket=bucket, Key="p/not//a/path")
    fsx.ok("reconcile", place)
    assert (place / "from-there").read_bytes() == b"five"
    assert s3.get_object(Bucket=bucket, Key="p/from-here")["Body"].read() == b"four"
    assert not (place / "new" / "c").exists()
    assert "p/link" not in keys_of(s3, bucket)
    fsx.ok("check")


def test_a_task_deletes_no_implausible_number_of_files_or_objects(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", *MANUAL)
    place = fsx.directory / "d"
    for number in range(12):
        (place / f"f{number}").write_bytes(b"x")
    fsx.ok("export", place)
    for file in place.iterdir():
        file.unlink()
    for words in (("export", "--deletes"), ("reconcile",)):
        refused = fsx.run(*words, place)
        assert refused.code == 1
        assert "no file is left in the tree, and 12 were known" in refused.err or "reconcile" in words
        assert len(keys_of(s3, bucket)) == 12
    fsx.ok("export", "--deletes", "--accept-deletes", place)
    assert keys_of(s3, bucket) == []

    for number in range(12):
        (place / f"f{number}").write_bytes(b"x")
    fsx.ok("export", place)
    for key in keys_of(s3, bucket):
        s3.delete_object(Bucket=bucket, Key=key)
    refused = fsx.run("import", "--deletes", place)
    assert "the listing is empty, and 12 objects were known" in refused.err
    assert len(list(place.iterdir())) == 12


def test_the_report_lies_in_the_repository_and_here(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", *MANUAL)
    place = fsx.directory / "d"
    for name in ("=sum", 'a "quote"', "plain"):
        (place / name).write_bytes(b"never exported")
    done = fsx.run("release", "--json", "--report", f"s3://{bucket}/p/reports", place)

    assert done.code == 1
    key = f"p/reports/{done.json['id']}/failures.csv"
    told = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert told == (
        b"d/=sum,failed,OperationNotPermitted\r\n"
        b'"d/a ""quote""",failed,OperationNotPermitted\r\n'
        b"d/plain,failed,OperationNotPermitted\r\n"
    )
    report = fsx.state_dir / "reports" / done.json["id"] / "failures.csv"
    assert report.read_bytes() == told
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (report.parents[1], report.parent, report)]
    assert modes == [0o700, 0o700, 0o600]  # names of files are nobody else's business
    elsewhere = fsx.run("release", "--report", f"s3://{bucket}/q", place)
    assert (elsewhere.code, "it lies in no linked repository" in elsewhere.err) == (2, True)
    assert len(fsx.ok("tasks", "--json").json) == 1


def test_killed_in_the_middle_of_a_release(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    place = fsx.directory / "d"
    bodies = {f"f{number:03d}": bytes([number]) * (3000 + number) for number in range(160)}
    for name, body in bodies.items():
        (place / name).write_bytes(body)
    fsx.settle()
    times = {name: (place / name).stat().st_mtime_ns for name in bodies}
    task = fsx.ok("release", "--no-wait", place).out.strip()
    deadline = time.monotonic() + 60
    while not stubs(fsx, place):
        assert time.monotonic() < deadline
    fsx.kill()

    fsx.start()
    eventually(lambda: fsx.ok("task", "show", task, "--json").json["lifecycle"] == "SUCCEEDED", 60)
    done = fsx.ok("tasks", "--json").json[0]
    assert (done["id"], done["total"], done["succeeded"], done["failed"]) == (task, 160, 160, 0)
    assert stubs(fsx, place) == sorted(bodies)
    fsx.settle()
    assert {name: (place / name).stat().st_mtime_ns for name in bodies} == times
    assert fsx.status()["associations"][0]["exported"] == 0  # since the start: nothing was taken for a change
    for name, body in bodies.items():
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == body
    assert all((place / name).read_bytes() == body for name, body in bodies.items())


def test_a_cancelled_task_finishes_what_is_in_flight_and_begins_nothing_more(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    for number in range(80):
        s3.put_object(Bucket=bucket, Key=f"f{number:02d}", Body=bytes([number]) * 1000)
    go_on = threading.Event()

    def hold(request: Request) -> Answer | None:
        if request.method == "GET" and request.path.startswith(f"/{bucket}/f"):
            go_on.wait(60)
        return None

    with Proxy(moto.url) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
        place = fsx.directory / "d"
        fsx.settle()
        proxy.rule = hold
        task = fsx.ok("restore", "--no-wait", place).out.strip()
        duplicate = fsx.run("restore", place)
        assert (duplicate.code, "is doing the same" in duplicate.err) == (1, True)
        eventually(lambda: [one for one in proxy.requests if one.method == "GET" and one.path.endswith("/f00")])
        assert "CANCELING" in fsx.ok("task", "cancel", task).out
        go_on.set()
        eventually(lambda: fsx.ok("task", "show", task, "--json").json["lifecycle"] == "CANCELED", 60)

        done = fsx.ok("task", "show", task, "--json").json
        left = stubs(fsx, place)
        assert 0 < done["succeeded"] == 80 - len(left) < 80
        assert done["total"] == 80, "how much was left is told"
        ended = fsx.run("task", "cancel", task)
        assert (ended.code, "it is CANCELED" in ended.err) == (1, True)
        assert fsx.run("task", "cancel", "task-00000000000000000").code == 1


def test_the_counters_of_a_restore_move_while_it_goes_on(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """A batch of it is thousands of files: who looked at them saw nothing until the end."""
    for number in range(200):
        s3.put_object(Bucket=bucket, Key=f"f{number:03d}", Body=bytes([number]) * 1000)
    s3.put_object(Bucket=bucket, Key="large", Body=b"x" * (1 << 20))
    go_on = threading.Event()

    def hold(request: Request) -> Answer | None:
        is_first = request.path == f"/{bucket}/f000"  # one of 64 that are loaded together
        is_rest = request.range is not None and request.range[0] == 7 << 17  # of the large one
        if request.method == "GET" and (is_first or is_rest):
            go_on.wait(60)
        return None

    with Proxy(moto.url) as proxy, instance(tmp_path, FSXSYNC_CHUNK_SIZE="128 KiB") as fsx:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
        fsx.settle()
        proxy.rule = hold
        task = fsx.ok("restore", "--no-wait", fsx.directory / "d").out.strip()

        def shown() -> dict[str, Any]:
            told: dict[str, Any] = fsx.ok("task", "show", task, "--json").json
            assert told["lifecycle"] == "EXECUTING"
            return told

        eventually(lambda: shown()["bytes"] == 136_000 + (7 << 17), 60)
        now = shown()
        assert now["succeeded"] == 136
        [listed] = [one for one in fsx.ok("tasks", "--json").json if one["id"] == task]
        assert listed["succeeded"] >= now["succeeded"]
        go_on.set()
        eventually(lambda: fsx.ok("task", "show", task, "--json").json["lifecycle"] == "SUCCEEDED", 60)
        done = fsx.ok("task", "show", task, "--json").json
        assert (done["succeeded"], done["total"], done["bytes"]) == (201, 201, 200_000 + (1 << 20))


def test_the_counters_of_an_export_move_while_it_goes_on(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str
) -> None:
    go_on = threading.Event()

    def hold(request: Request) -> Answer | None:
        if request.method == "PUT" and request.path == f"/{bucket}/f00":
            go_on.wait(60)
        return None

    with Proxy(moto.url) as proxy, instance(tmp_path) as fsx:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, *MANUAL)
        for number in range(20):
            (fsx.directory / "d" / f"f{number:02d}").write_bytes(bytes([number]) * 1000)
        proxy.rule = hold
        task = fsx.ok("export", "--no-wait", fsx.directory / "d").out.strip()

        def shown() -> tuple[str, int, int, int]:
            told = fsx.ok("task", "show", task, "--json").json
            return told["lifecycle"], told["succeeded"], told["total"], told["bytes"]

        eventually(lambda: shown() == ("EXECUTING", 19, 20, 19_000), 60)
        go_on.set()
        eventually(lambda: shown() == ("SUCCEEDED", 20, 20, 20_000), 60)


def test_fsx_clients_make_and_watch_tasks(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    """boto3 against the API's port; the shapes and errors are tests/contract/test_fsx_wire_tasks.py's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with instance(tmp_path, FSXSYNC_API_LISTEN=f"127.0.0.1:{port}") as fsx:
        fsx.associate(moto, f"s3://{bucket}/", "/d", *MANUAL)
        (fsx.directory / "d" / "f").write_bytes(b"data")
        keys = Credentials.of(fsx.state_dir / "api-credentials")
        client = boto3.client(
            "fsx",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_key,
        )
        place = client.describe_file_systems()["FileSystems"][0]["FileSystemId"]
        made = client.create_data_repository_task(
            FileSystemId=place,
            Type="EXPORT_TO_REPOSITORY",
            Paths=["d"],
            Report={
                "Enabled": True,
                "Path": f"s3://{bucket}/reports",
                "Format": "REPORT_CSV_20191124",
                "Scope": "FAILED_FILES_ONLY",
            },
            ClientRequestToken="once",
        )["DataRepositoryTask"]

        def seen() -> Any:
            return client.describe_data_repository_tasks(TaskIds=[made["TaskId"]])["DataRepositoryTasks"][0]

        eventually(lambda: seen()["Lifecycle"] == "SUCCEEDED")
        assert seen()["Status"]["SucceededCount"] == 1
        assert keys_of(s3, bucket) == ["f", f"reports/{made['TaskId']}/failures.csv"]
        with pytest.raises(ClientError, match="DataRepositoryTaskEnded"):
            client.cancel_data_repository_task(TaskId=made["TaskId"])


def test_a_restore_of_many_small_files_with_trouble_and_killed_in_the_middle(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """They are loaded together: what is wrong with one is said of that one, a reader does not wait for the others, and
    what had not come when the daemon was killed comes after its start."""
    bodies = {f"f{number:03d}": bytes([number]) * (1000 + number) for number in range(150)}
    for name, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=name, Body=body)
    refused: list[str] = []
    asked: list[str] = []
    held, go_on, may_list = threading.Event(), threading.Event(), threading.Event()

    def meddle(request: Request) -> Answer | None:
        name = request.path.removeprefix(f"/{bucket}/")
        if "list-type" in request.query:
            may_list.wait(90)  # the start's listing would tell of both changes before the task comes to them
        if request.method != "GET" or name not in bodies:
            return None
        asked.append(name)
        if name == "f003" and len(refused) < 2:
            refused.append(name)
            return Answer(503, b"<Error><Code>SlowDown</Code></Error>")
        if name == "f003" or "f060" <= name < "f140":
            held.set()
            go_on.wait(60)
        return None

    with Proxy(moto.url) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
        fsx.settle()
        place = fsx.directory / "d"
        s3.delete_object(Bucket=bucket, Key="f010")
        s3.put_object(Bucket=bucket, Key="f020", Body=b"another version")
        proxy.rule = meddle
        task = fsx.ok("restore", "--no-wait", place).out.strip()
        assert held.wait(60)
        assert (place / "f149").read_bytes() == bodies["f149"], "it goes first"
        left = stubs(fsx, place)
        assert len(left) >= 80
        fsx.kill()
        go_on.set()
        assert set(left) >= {f"f{number:03d}" for number in range(60, 140)}
        first, asked[:] = set(asked), []
        assert "f149" in first

        fsx.start()
        eventually(lambda: fsx.ok("task", "show", task, "--json").json["ended"], 60)
        may_list.set()
        done = fsx.ok("task", "show", task, "--json").json
        assert (done["total"], done["succeeded"], done["failed"]) == (150, 148, 2)
        assert {(failure["path"], failure["code"]) for failure in done["failures"]} == {
            ("d/f010", "S3ObjectNotFound"),
            ("d/f020", "S3Error"),
        }
        fsx.settle()
        assert stubs(fsx, place) == ["f020"], "a stub of the new version; the other went with its object"
        assert (place / "f020").read_bytes() == b"another version"
        assert refused == ["f003", "f003"]
        found = {path.name: path.read_bytes() for path in place.iterdir()}
        assert found == {name: body for name, body in bodies.items() if name != "f010"} | {"f020": b"another version"}
        assert asked.count("f070") == 1
        assert fsx.status()["associations"][0]["exported"] == 0


def test_what_only_a_task_found_not_exportable_is_counted_until_it_is_gone(
    fsx: Instance, moto: MotoServer, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", *MANUAL)
    place = fsx.directory / "d"
    deep = Path(*["n" * 250] * 5)
    (place / deep).mkdir(parents=True)
    (place / deep / "f").write_bytes(b"x")
    fsx.settle()
    assert fsx.status()["associations"][0]["not_exportable"] == 0

    assert fsx.run("export", place).code == 1
    told = fsx.status()["associations"][0]["not_exportable"]
    assert told > 0
    fsx.stop()
    fsx.start()
    fsx.settle()
    assert fsx.status()["associations"][0]["not_exportable"] == told
    shutil.rmtree(place / deep.parts[0])
    fsx.settle()
    assert fsx.status()["associations"][0]["not_exportable"] == 0
