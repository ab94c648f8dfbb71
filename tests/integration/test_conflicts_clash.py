"""A file here and a directory there, and the other way round: both stay, it is said once, and a person parts them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, keys_of
from support.moto_server import MotoServer

pytestmark = pytest.mark.needs("flat keys")


def objects(s3: Any, bucket: str) -> dict[str, bytes]:
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket)}


def files(made: Instance) -> dict[str, bytes]:
    root = made.directory / "d"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def conflicts(made: Instance) -> list[tuple[str, str]]:
    rows = made.ok("conflicts", "--json").json
    return [(str(Path(row["path"]).relative_to(made.directory / "d")), row["kind"]) for row in rows]


def kept_beside(names: dict[str, bytes], name: str) -> str:
    (found,) = [one for one in names if one.startswith(f"{name}.conflict-")]
    return found


@pytest.fixture
def linked(fsx: Instance, moto: MotoServer, bucket: str) -> Instance:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    return fsx


@pytest.fixture
def file_here(linked: Instance, s3: Any, bucket: str) -> Instance:
    """``x`` is a file here, ``x/below`` an object there."""
    (linked.directory / "d/x").write_bytes(b"a file")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x/below", Body=b"below")
    linked.settle()
    assert conflicts(linked) == [("x/below", "clash")]
    return linked


@pytest.fixture
def directory_here(linked: Instance, s3: Any, bucket: str) -> Instance:
    """``x`` is a directory here, and an object there."""
    (linked.directory / "d/x").mkdir()
    (linked.directory / "d/x/below").write_bytes(b"below")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x", Body=b"a file")
    linked.settle()
    assert conflicts(linked) == [("x", "clash")]
    return linked


@pytest.mark.parametrize("keep", ["local", "remote", "both"])
def test_a_file_in_the_way_of_a_directory(file_here: Instance, s3: Any, bucket: str, keep: str) -> None:
    assert files(file_here) == {"x": b"a file"}
    assert objects(s3, bucket) == {"x": b"a file", "x/below": b"below"}

    file_here.ok("conflicts", "resolve", file_here.directory / "d/x/below", "--keep", keep)
    file_here.settle()

    found = files(file_here)
    assert found == objects(s3, bucket)
    if keep == "both":
        assert found.pop(kept_beside(found, "x")) == b"a file"
    assert found == ({"x": b"a file"} if keep == "local" else {"x/below": b"below"})
    assert conflicts(file_here) == []
    assert file_here.ok("associations", "--json").json[0]["errors"] == 0


@pytest.mark.parametrize("keep", ["local", "remote", "both"])
def test_a_directory_in_the_way_of_a_file(directory_here: Instance, s3: Any, bucket: str, keep: str) -> None:
    assert files(directory_here) == {"x/below": b"below"}
    everything = {"x": b"a file", "x/": b"", "x/below": b"below"}
    assert objects(s3, bucket) == everything

    done = directory_here.run("conflicts", "resolve", directory_here.directory / "d/x", "--keep", keep)
    directory_here.settle()

    if keep == "remote":
        assert (done.code, "not empty" in done.err) == (2, True)
        assert (files(directory_here), objects(s3, bucket)) == ({"x/below": b"below"}, everything)
        return
    found = files(directory_here)
    assert found | {"x/": b""} == objects(s3, bucket)
    if keep == "both":
        assert found.pop(kept_beside(found, "x")) == b"a file"
    assert found == {"x/below": b"below"}
    assert conflicts(directory_here) == []


def test_a_clash_ends_when_the_file_is_renamed(file_here: Instance, s3: Any, bucket: str) -> None:
    (file_here.directory / "d/x").rename(file_here.directory / "d/y")
    file_here.settle()

    assert files(file_here) == objects(s3, bucket) == {"y": b"a file", "x/below": b"below"}
    assert conflicts(file_here) == []


def test_a_clash_ends_when_the_object_goes(file_here: Instance, s3: Any, bucket: str) -> None:
    s3.delete_object(Bucket=bucket, Key="x/below")
    file_here.settle()

    assert conflicts(file_here) == []
    assert files(file_here) == objects(s3, bucket) == {"x": b"a file"}


def test_a_clash_with_a_directory_ends_when_the_object_goes(directory_here: Instance, s3: Any, bucket: str) -> None:
    s3.delete_object(Bucket=bucket, Key="x")
    directory_here.settle()

    assert conflicts(directory_here) == []
    assert directory_here.ok("associations", "--json").json[0]["errors"] == 0


def test_a_clash_with_a_directory_ends_when_it_is_renamed(directory_here: Instance, s3: Any, bucket: str) -> None:
    (directory_here.directory / "d/x").rename(directory_here.directory / "d/y")
    directory_here.settle()

    assert files(directory_here) == {"x": b"a file", "y/below": b"below"}
    assert objects(s3, bucket) == {"x": b"a file", "y/": b"", "y/below": b"below"}
    assert conflicts(directory_here) == []


def test_a_clash_is_not_decided_on_another_object(file_here: Instance, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x/below", Body=b"newer")

    refused = file_here.run("conflicts", "resolve", file_here.directory / "d/x/below", "--keep", "local")

    assert (refused.code, "since it was listed" in refused.err) == (1, True)
    assert objects(s3, bucket) == {"x": b"a file", "x/below": b"newer"}


def test_a_marker_beside_a_file_is_said(linked: Instance, s3: Any, bucket: str) -> None:
    (linked.directory / "d/x").write_bytes(b"a file")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x/", Body=b"")
    linked.settle()

    assert conflicts(linked) == [("x", "clash")]
    linked.ok("conflicts", "resolve", linked.directory / "d/x", "--keep", "both")
    linked.settle()
    found = files(linked)
    assert found == {kept_beside(found, "x"): b"a file"}
    assert (linked.directory / "d/x").is_dir()
    assert objects(s3, bucket) == found | {"x/": b""}


def test_a_clash_with_a_marker_ends_when_the_marker_goes(linked: Instance, s3: Any, bucket: str) -> None:
    (linked.directory / "d/x").write_bytes(b"a file")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x/", Body=b"")
    linked.settle()
    s3.delete_object(Bucket=bucket, Key="x/")
    linked.settle()

    assert conflicts(linked) == []
    assert files(linked) == objects(s3, bucket) == {"x": b"a file"}


def test_a_file_edited_there_and_made_a_directory_here(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    assert (fsx.directory / "d/x").read_bytes() == b"before"
    fsx.settle()
    assert fsx.stop() == 0
    (fsx.tree / "d/x").unlink()
    (fsx.tree / "d/x").mkdir()
    (fsx.tree / "d/x/below").write_bytes(b"below")
    s3.put_object(Bucket=bucket, Key="x", Body=b"edited")

    fsx.start()
    fsx.settle()

    assert files(fsx) == {"x/below": b"below"}
    assert objects(s3, bucket) == {"x": b"edited", "x/": b"", "x/below": b"below"}
    assert conflicts(fsx) == [("x", "clash")]

    s3.put_object(Bucket=bucket, Key="x/more/there", Body=b"more")
    fsx.settle()
    assert files(fsx) == {"x/below": b"below", "x/more/there": b"more"}
    assert conflicts(fsx) == [("x", "clash")]


def test_a_directory_grown_there_and_made_a_file_here(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x/below", Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    (fsx.tree / "d/x/below").unlink()
    (fsx.tree / "d/x").rmdir()
    (fsx.tree / "d/x").write_bytes(b"a file")
    s3.put_object(Bucket=bucket, Key="x/more", Body=b"more")

    fsx.start()
    fsx.settle()

    assert files(fsx) == {"x": b"a file"}
    assert objects(s3, bucket) == {"x": b"a file", "x/more": b"more"}
    assert conflicts(fsx) == [("x/more", "clash")]


def test_a_file_in_the_way_of_an_object_is_told_whose_conflict_it_is_in(linked: Instance, s3: Any, bucket: str) -> None:
    file = linked.directory / "d/a x"
    file.write_bytes(b"a file")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="a x/inner", Body=b"below")
    linked.settle()

    told = linked.ok("why", "--json", file).json
    assert "in the repository there is /d/a x/inner" in told["why"][0]
    assert f"conflicts resolve {file}/inner --keep" in told["advice"][0]
    refused = linked.run("conflicts", "resolve", file, "--keep", "local")
    assert refused.code == 2
    assert "it is part of the conflict of /d/a x/inner" in refused.err
    linked.ok("conflicts", "resolve", file / "inner", "--keep", "local")
    linked.settle()
    assert conflicts(linked) == []
    assert "Both sides agree" in linked.ok("why", file).out


def test_a_clash_stays_reported_as_long_as_it_is_one(linked: Instance, s3: Any, bucket: str) -> None:
    """Whatever else is done to the file, and whoever looks without asking for the marker."""
    with_marker, below = linked.directory / "d/x", linked.directory / "d/y"
    with_marker.write_bytes(b"a file")
    below.write_bytes(b"a file")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x/", Body=b"")
    s3.put_object(Bucket=bucket, Key="y/below", Body=b"below")
    linked.settle()
    said = [("x", "clash"), ("y/below", "clash")]
    assert conflicts(linked) == said
    with_marker.write_bytes(b"written")
    linked.settle()
    assert conflicts(linked) == said
    with_marker.chmod(0o600)
    linked.settle()
    linked.stop()
    linked.start()
    linked.settle()
    assert conflicts(linked) == said
    assert linked.status()["associations"][0]["errors"] == 2
    assert linked.run("status").code == 1
    s3.delete_object(Bucket=bucket, Key="x/")
    s3.delete_object(Bucket=bucket, Key="y/below")
    linked.settle()
    assert conflicts(linked) == []
    assert linked.status()["associations"][0]["errors"] == 0
    assert linked.run("status").code == 0


def test_a_clash_ends_when_the_files_object_goes(file_here: Instance, s3: Any, bucket: str) -> None:
    s3.delete_object(Bucket=bucket, Key="x")
    file_here.settle()

    assert conflicts(file_here) == []
    assert files(file_here) == {"x/below": b"below"}


def test_a_clash_ends_when_a_directory_that_its_keys_made_goes(linked: Instance, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x/y/below", Body=b"below")
    linked.settle()
    s3.put_object(Bucket=bucket, Key="x", Body=b"a file")
    linked.settle()
    assert conflicts(linked) == [("x", "clash")]
    s3.delete_object(Bucket=bucket, Key="x/y/below")
    linked.settle()

    assert conflicts(linked) == []
    assert files(linked) == {"x": b"a file"}


def test_a_clash_ends_when_a_file_goes_that_takes_no_part(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1", "--max-size", "1000")
    in_the_way = [fsx.directory / "d/x", fsx.directory / "d/y"]
    in_the_way[0].write_bytes(b"too large" * 200)
    os.mkfifo(in_the_way[1])
    for name in ("x", "y"):
        s3.put_object(Bucket=bucket, Key=f"{name}/below", Body=b"below")
    fsx.settle()
    assert conflicts(fsx) == [("x/below", "clash"), ("y/below", "clash")]
    for path in in_the_way:
        path.unlink()
    fsx.settle()

    assert conflicts(fsx) == []
    assert files(fsx) == {"x/below": b"below", "y/below": b"below"}


def test_a_clash_that_a_task_alone_met_stays_reported(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """The association imports nothing by itself: whoever looks for it does not even try."""
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--import", "none", "--export", "none", "--poll", "0")
    (fsx.directory / "d/x").write_bytes(b"a file")
    s3.put_object(Bucket=bucket, Key="x/below", Body=b"below")
    fsx.settle()
    assert conflicts(fsx) == []

    for _ in range(2):
        done = fsx.run("reconcile", fsx.directory / "d")

        assert (done.code, "both are left as they are" in done.err) == (1, True)
        assert conflicts(fsx) == [("x/below", "clash")]
        assert fsx.status()["associations"][0]["errors"] == 1
        assert fsx.run("status").code == 1
        fsx.kill()
        fsx.start()
        fsx.settle()
        assert conflicts(fsx) == [("x/below", "clash")]
        assert fsx.status()["associations"][0]["errors"] == 1
    (fsx.directory / "d/x").unlink()
    fsx.settle()
    assert conflicts(fsx) == []
    assert fsx.status()["associations"][0]["errors"] == 0
    fsx.ok("reconcile", fsx.directory / "d")
    assert files(fsx) == {"x/below": b"below"}
