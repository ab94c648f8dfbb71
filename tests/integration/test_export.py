"""What is done in the directory arrives in the bucket: through the mount, behind it, and in watch mode."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import listening_ports
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer

NS = 1_700_000_000_123_456_789


@pytest.fixture(params=["mount", "behind the mount", "watch"])
def place(request: pytest.FixtureRequest) -> tuple[Instance, Path]:
    """An instance and where to work in it: each of the three ways in which a change is noticed."""
    if request.param == "watch":
        made: Instance = request.getfixturevalue("watched")
        return made, made.directory
    made = request.getfixturevalue("fsx")
    return made, made.directory if request.param == "mount" else made.tree


def linked(place: tuple[Instance, Path], moto: MotoServer, bucket: str) -> tuple[Instance, Path]:
    made, directory = place
    made.associate(moto, f"s3://{bucket}/p/", "/d")
    return made, directory / "d"


def metadata(s3: Any, bucket: str, key: str) -> dict[str, str]:
    found: dict[str, str] = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    return found


def body(s3: Any, bucket: str, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def test_a_file_arrives_with_its_metadata(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    file = directory / "sub/ä b+c%.txt"
    file.parent.mkdir()
    file.write_bytes(b"data\n")
    file.chmod(0o640)
    os.chown(file, 1234, 2345)
    os.utime(file, ns=(NS - 5, NS))
    made.settle()
    assert keys_of(s3, bucket) == ["p/sub/", "p/sub/ä b+c%.txt"]
    assert body(s3, bucket, "p/sub/ä b+c%.txt") == b"data\n"
    found = metadata(s3, bucket, "p/sub/ä b+c%.txt")
    assert (found["file-permissions"], found["file-owner"], found["file-group"]) == ("0100640", "1234", "2345")
    assert (found["file-atime"], found["file-mtime"]) == (f"{NS - 5}ns", f"{NS}ns")
    assert found["user-agent"] == "aws-fsx-lustre"  # what FSx's own tools look for
    assert metadata(s3, bucket, "p/sub/")["user-agent"] == "aws-fsx-lustre"
    assert metadata(s3, bucket, "p/sub/")["file-permissions"] == "0040755"

    os.utime(file, ns=(NS + 1, NS + 2))  # nothing but times: no news for the repository
    made.settle()
    assert metadata(s3, bucket, "p/sub/ä b+c%.txt") == found
    assert made.state(file)["flags"] == ["exists", "archived"]


def test_only_the_last_of_many_writes_counts(
    place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str
) -> None:
    made, directory = linked(place, moto, bucket)
    for number in range(50):
        (directory / "f").write_text(f"{number}\n")
    os.truncate(directory / "f", 1)
    made.settle()
    assert body(s3, bucket, "p/f") == b"4"


def test_metadata_alone_moves_no_bytes(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    (directory / "f").write_text("data")
    made.settle()
    s3.put_object_tagging(Bucket=bucket, Key="p/f", Tagging={"TagSet": [{"Key": "by", "Value": "hand"}]})
    (directory / "f").chmod(0o600)
    made.settle()
    assert metadata(s3, bucket, "p/f")["file-permissions"] == "0100600"
    assert s3.get_object_tagging(Bucket=bucket, Key="p/f")["TagSet"] == [{"Key": "by", "Value": "hand"}]
    assert body(s3, bucket, "p/f") == b"data"


def test_deletes_and_rmdir(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    for name in ("a/b/c", "a/d", "e"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    made.settle()
    assert keys_of(s3, bucket) == ["p/a/", "p/a/b/", "p/a/b/c", "p/a/d", "p/e"]
    shutil.rmtree(directory / "a")
    made.settle()
    assert keys_of(s3, bucket) == ["p/e"]


def test_renames_are_copies(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    for number in range(30):
        (directory / f"old/{number % 3}").mkdir(parents=True, exist_ok=True)
        (directory / f"old/{number % 3}/{number}").write_text(f"data {number}")
    made.settle()
    s3.put_object_tagging(Bucket=bucket, Key="p/old/1/1", Tagging={"TagSet": [{"Key": "kept", "Value": "yes"}]})
    (directory / "old").rename(directory / "new")
    (directory / "new/0/0").rename(directory / "zero")
    made.settle()
    expected = sorted(
        ["p/new/", "p/zero"]
        + [f"p/new/{number}/" for number in range(3)]
        + [f"p/new/{number % 3}/{number}" for number in range(1, 30)]
    )
    assert keys_of(s3, bucket) == expected
    assert body(s3, bucket, "p/new/1/1") == b"data 1"
    assert body(s3, bucket, "p/zero") == b"data 0"
    assert s3.get_object_tagging(Bucket=bucket, Key="p/new/1/1")["TagSet"] == [{"Key": "kept", "Value": "yes"}]


def test_two_files_change_places(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    (directory / "a").write_text("was a")
    (directory / "b").write_text("was b!")
    made.settle()
    (directory / "a").rename(directory / "t")
    (directory / "b").rename(directory / "a")
    (directory / "t").rename(directory / "b")
    made.settle()
    assert (body(s3, bucket, "p/a"), body(s3, bucket, "p/b")) == (b"was b!", b"was a")
    assert keys_of(s3, bucket) == ["p/a", "p/b"]


def test_symlinks_and_empty_directories(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    (directory / "link").symlink_to("../outside/ü")
    (directory / "empty").mkdir(mode=0o700)
    made.settle()
    assert keys_of(s3, bucket) == ["p/empty/", "p/link"]
    assert body(s3, bucket, "p/link") == "../outside/ü".encode()
    assert metadata(s3, bucket, "p/link")["file-permissions"].startswith("0120")
    (directory / "link").unlink()
    (directory / "link").symlink_to("elsewhere")
    made.settle()
    assert body(s3, bucket, "p/link") == b"elsewhere"


def test_a_large_file_goes_in_parts(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    data = os.urandom(20 * 1024 * 1024 + 17)
    (directory / "large").write_bytes(data)
    made.settle()
    assert body(s3, bucket, "p/large") == data
    assert s3.head_object(Bucket=bucket, Key="p/large")["ETag"].endswith('-3"')
    with (directory / "large").open("r+b") as stream:
        stream.seek(9_000_000)
        stream.write(b"changed")
    made.settle()
    assert body(s3, bucket, "p/large") == data[:9_000_000] + b"changed" + data[9_000_007:]


def test_what_can_not_be_exported_stays_and_is_said(
    place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str
) -> None:
    made, directory = linked(place, moto, bucket)
    os.mkfifo(directory / "pipe")
    (directory / os.fsdecode(b"\xff\xfe")).write_text("odd name")
    (directory / "fine").write_text("fine")
    made.settle()
    assert keys_of(s3, bucket) == ["p/fine"]
    assert made.status()["associations"][0]["not_exportable"] == 2
    events = made.ok("events", "--json").out
    assert "pipe" in events
    assert (directory / os.fsdecode(b"\xff\xfe")).read_text() == "odd name"


def test_a_hard_link_is_a_second_object(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str) -> None:
    made, directory = linked(place, moto, bucket)
    (directory / "a").write_text("data")
    made.settle()
    os.link(directory / "a", directory / "b")
    made.settle()
    assert (body(s3, bucket, "p/a"), body(s3, bucket, "p/b")) == (b"data", b"data")
    (directory / "a").unlink()
    made.settle()
    assert keys_of(s3, bucket) == ["p/b"]


def test_atomic_replacement_as_editors_do_it(
    place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str
) -> None:
    made, directory = linked(place, moto, bucket)
    (directory / "f").write_text("one")
    made.settle()
    (directory / ".f.tmp").write_text("two!")
    (directory / ".f.tmp").rename(directory / "f")
    made.settle()
    assert keys_of(s3, bucket) == ["p/f"]
    assert body(s3, bucket, "p/f") == b"two!"


def test_a_file_that_is_written_to_is_not_exported_before_it_is_closed(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    with (fsx.directory / "d/log").open("w") as stream:
        stream.write("half a line")
        stream.flush()
        waited = fsx.run("wait", "--timeout", "3")
        assert waited.code == 1
        assert keys_of(s3, bucket) == []
        stream.write(" and the rest\n")
    fsx.settle()
    assert body(s3, bucket, "log") == b"half a line and the rest\n"


def test_a_tree_copied_in(place: tuple[Instance, Path], moto: MotoServer, s3: Any, bucket: str, tmp_path: Path) -> None:
    made, directory = linked(place, moto, bucket)
    source = Path(os.__file__).parent / "json"
    subprocess.run(["cp", "-a", source, directory / "json"], check=True)  # noqa: S603, S607
    made.settle()
    for path in source.rglob("*.py"):
        key = f"p/json/{path.relative_to(source)}"
        assert body(s3, bucket, key) == path.read_bytes()
        assert metadata(s3, bucket, key)["file-mtime"] == f"{path.stat().st_mtime_ns}ns"


def test_a_released_file_moved_to_another_association_behind_the_mount(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """Its data is in the first one's object only, which goes once the second one has it."""
    for name in ("one", "two"):
        s3.put_object(Bucket=bucket, Key=f"{name}/taken", Body=f"what was in {name}".encode())
        fsx.associate(moto, f"s3://{bucket}/{name}/", f"/{name}")
    s3.put_object(Bucket=bucket, Key="one/moved", Body=b"only here")
    s3.put_object(Bucket=bucket, Key="one/over", Body=b"over another")
    fsx.ok("association", "update", "/one", "--poll", "1")
    eventually(lambda: (fsx.tree / "one/over").exists() and (fsx.tree / "one/moved").exists())
    fsx.settle()
    (fsx.tree / "one/moved").rename(fsx.tree / "two/moved")
    (fsx.tree / "one/over").rename(fsx.tree / "two/taken")
    fsx.settle()
    assert keys_of(s3, bucket) == ["one/taken", "two/moved", "two/taken"]
    assert body(s3, bucket, "two/moved") == b"only here"
    assert body(s3, bucket, "two/taken") == b"over another"


def test_deleting_an_association_with_its_data_right_after_reading(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=os.urandom(30 * 1024 * 1024))
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    with (fsx.directory / "d/large").open("rb") as stream:
        assert len(stream.read(1000)) == 1000
    fsx.ok("association", "delete", "/d", "--delete-data")
    assert keys_of(s3, bucket) == ["large"]
    assert not (fsx.directory / "d").exists()


def test_metrics_are_served_where_asked(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    with instance(tmp_path, FSXSYNC_METRICS_LISTEN="127.0.0.1:0") as made:
        made.associate(moto, f"s3://{bucket}/", "/d")
        (made.directory / "d/f").write_text("x")
        made.settle()
        assert made.daemon is not None
        (port,) = listening_ports(made.daemon.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    assert re.search(r'^fsxsync_exported_total\{association="dra-.*",path="/d"\} 1.0$', text, re.MULTILINE)
