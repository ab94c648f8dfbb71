"""Without FUSE: the directory itself is the tree, and data comes at once."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, bucket_with_events, eventually, instance, keys_of
from support.moto_server import MotoServer


def body(s3: Any, bucket: str, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def stubs(directory: Path) -> list[Path]:
    """Files with a mark of ours: there must be none."""
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and any(name.startswith("user.fsxsync.stub") for name in os.listxattr(path))
    ]


def test_data_is_there_without_a_reader(watched: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    large = os.urandom(20 * 1024 * 1024 + 5)
    s3.put_object(Bucket=bucket, Key="p/large", Body=large, Metadata={"file-permissions": "0100640"})
    for number in range(50):
        s3.put_object(Bucket=bucket, Key=f"p/{number % 4}/{number}", Body=b"data %d" % number)
    watched.associate(moto, f"s3://{bucket}/p/", "/d")
    watched.settle()
    d = watched.directory / "d"
    assert stubs(d) == []
    assert (d / "large").stat().st_blocks * 512 >= len(large)
    assert (d / "large").read_bytes() == large
    assert (d / "large").stat().st_mode == 0o100640
    for number in range(50):
        assert (d / f"{number % 4}/{number}").read_bytes() == b"data %d" % number
    assert watched.state(d / "large")["flags"] == ["exists", "archived"]
    status = watched.status()
    assert (status["mount"], status["tree"]) == (None, str(watched.directory))


def test_archived_data_is_told_and_shows_no_zeros(watched: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="p/cold", Body=b"x" * 1000, StorageClass="GLACIER")
    s3.put_object(Bucket=bucket, Key="p/warm", Body=b"warm")
    watched.associate(moto, f"s3://{bucket}/p/", "/d")
    watched.settle()

    assert os.listdir(watched.directory / "d") == ["warm"]
    told = [event for event in watched.ok("events", "--json").json if event["code"] == "S3ImportUnsupportedTierWarning"]
    assert told[-1]["path"] == "/d/cold"
    assert keys_of(s3, bucket) == ["p/cold", "p/warm"]


def test_both_ways(watched: Instance, moto: MotoServer, s3: Any) -> None:
    bucket = f"b-{os.urandom(6).hex()}"
    queue = bucket_with_events(moto, bucket, f"q-{bucket}")
    watched.associate(moto, f"s3://{bucket}/", "/d", "--events", f"sqs:{queue}")
    d = watched.directory / "d"
    large = os.urandom(17 * 1024 * 1024)
    (d / "here").write_bytes(large)
    (d / "sub").mkdir()
    (d / "sub/f").write_text("f")
    s3.put_object(Bucket=bucket, Key="there/g", Body=b"g")
    watched.settle()
    assert body(s3, bucket, "here") == large
    assert (d / "there/g").read_bytes() == b"g"

    (d / "there/g").write_text("changed here")
    s3.put_object(Bucket=bucket, Key="sub/f", Body=b"changed there")
    (d / "here").rename(d / "moved")
    watched.settle()
    assert (d / "sub/f").read_bytes() == b"changed there"
    assert body(s3, bucket, "there/g") == b"changed here"
    assert body(s3, bucket, "moved") == large

    (d / "moved").unlink()
    s3.delete_object(Bucket=bucket, Key="sub/f")
    watched.settle()
    assert "moved" not in keys_of(s3, bucket)
    assert not (d / "sub/f").exists()
    assert stubs(d) == []


def test_a_file_that_is_open_for_writing_elsewhere_is_not_replaced_under_its_writer(
    watched: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    watched.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    file = watched.directory / "d/log"
    file.write_text("first line\n")
    watched.settle()
    with file.open("a") as stream:
        stream.write("second line\n")
        stream.flush()
        s3.put_object(Bucket=bucket, Key="log", Body=b"somebody else's")
        eventually(lambda: s3.list_objects_v2(Bucket=bucket)["KeyCount"] >= 1)
        stream.write("third line\n")
    watched.settle()
    everything = [body(s3, bucket, key) for key in keys_of(s3, bucket)]
    assert b"somebody else's" in everything
    assert any(b"third line" in one and b"second line" in one for one in everything)
    assert sorted(path.read_bytes() for path in file.parent.iterdir()) == sorted(everything)


@pytest.mark.parametrize("way", ["watch", "behind"])
def test_what_is_written_through_a_mapping_that_outlives_a_look_is_exported(
    request: pytest.FixtureRequest, moto: MotoServer, s3: Any, bucket: str, way: str
) -> None:
    """A page that is still to be brought to the disk is written to once more: no time of the file moves, and its close
    looks like nothing. So it is not exported before."""
    made: Instance = request.getfixturevalue("watched" if way == "watch" else "fsx")
    made.associate(moto, f"s3://{bucket}/p/", "/d")
    file = made.tree / "d/f"
    file.write_bytes(bytes(4096))
    made.settle()
    fd = os.open(file, os.O_RDWR)
    with mmap.mmap(fd, 4096) as mapped:
        os.close(fd)
        mapped[0] = 1
        file.chmod(0o600)  # of which inotify tells
        waited = made.run("wait", "--timeout", "3")
        assert waited.code != 0
        assert "open for writing" in waited.out + waited.err
        mapped[1] = 2
    made.settle()
    assert body(s3, bucket, "p/f") == file.read_bytes() == b"\1\2".ljust(4096, b"\0")


@pytest.fixture
def on_tmpfs(tmp_path: Path) -> Iterator[Instance]:
    """The tree lies on another file system than the state directory."""
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", tmp_path / "mnt"], check=True)  # noqa: S603, S607
    try:
        with instance(tmp_path, mounted=False) as made:
            yield made
    finally:
        subprocess.run(["umount", "-l", "-q", tmp_path / "mnt"], check=False)  # noqa: S603, S607


@pytest.mark.parametrize("path", ["/d", "/"])
def test_a_tree_on_another_file_system(on_tmpfs: Instance, moto: MotoServer, s3: Any, bucket: str, path: str) -> None:
    assert on_tmpfs.directory.stat().st_dev != on_tmpfs.state_dir.stat().st_dev
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"a/{number}", Body=b"data %d" % number)
    on_tmpfs.associate(moto, f"s3://{bucket}/", path, "--poll", "1")
    on_tmpfs.settle()  # what is written over a file that is still to come is a conflict
    d = on_tmpfs.directory / path.strip("/")
    (d / "new").write_text("new")
    (d / "a/3").write_text("changed")
    s3.put_object(Bucket=bucket, Key="a/4", Body=b"changed too")
    on_tmpfs.settle()
    assert (d / "a/4").read_bytes() == b"changed too"
    assert (d / "a/5").read_bytes() == b"data 5"
    assert body(s3, bucket, "a/3") == b"changed"
    assert {key for key in keys_of(s3, bucket) if not key.endswith("/")} == {"new", *(f"a/{n}" for n in range(10))}
    assert on_tmpfs.run("status").code == 0

    on_tmpfs.kill()
    (d / "later").write_text("later")
    on_tmpfs.start()
    on_tmpfs.settle()
    assert body(s3, bucket, "later") == b"later"
    assert not any("staging" in key for key in keys_of(s3, bucket))


def test_what_was_there_before_is_exported_and_equal_files_are_adopted(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str
) -> None:
    directory = tmp_path / "mnt/d"
    (directory / "sub").mkdir(parents=True)
    (directory / "only here").write_text("here")
    (directory / "sub/same").write_text("same")
    s3.put_object(Bucket=bucket, Key="sub/same", Body=b"same")
    s3.put_object(Bucket=bucket, Key="only there", Body=b"there")
    before = s3.head_object(Bucket=bucket, Key="sub/same")["LastModified"]
    inode = (directory / "sub/same").stat().st_ino
    with instance(tmp_path, mounted=False) as made:
        made.associate(moto, f"s3://{bucket}/", "/d")
        made.settle()
    assert {key: body(s3, bucket, key) for key in keys_of(s3, bucket) if not key.endswith("/")} == {
        "only here": b"here",
        "only there": b"there",
        "sub/same": b"same",
    }
    assert (directory / "only there").read_bytes() == b"there"
    assert s3.head_object(Bucket=bucket, Key="sub/same")["LastModified"] == before
    assert (directory / "sub/same").stat().st_ino == inode
