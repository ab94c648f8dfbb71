"""Hard links: one file, an object for each of its names; what becomes of one name harms no other."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, keys_of, news_of
from support.moto_server import MotoServer

PART = 5 << 20
LARGE = array("I", range(2 * PART // 4)).tobytes()


def objects(s3: Any, bucket: str) -> dict[str, bytes]:
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket)}


def files(made: Instance) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (made.directory / "d").iterdir()}


def put_in_parts(s3: Any, bucket: str, key: str, data: bytes) -> None:
    """An object whose ETag no copy of it has."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(data), PART), 1):
        told = s3.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data[start : start + PART]
        )
        parts.append({"PartNumber": number, "ETag": told["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def is_well(made: Instance) -> None:
    made.ok("check")
    (row,) = made.ok("associations", "--json").json
    assert (row["pending"], row["errors"], row["conflicts"]) == (0, 0, 0)


@pytest.fixture
def d(fsx: Instance, moto: MotoServer, bucket: str) -> Path:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    return fsx.directory / "d"


@pytest.fixture
def linked(fsx: Instance, d: Path) -> Path:
    """``a``, ``b`` and ``c`` are one file."""
    (d / "a").write_bytes(b"one")
    fsx.settle()
    os.link(d / "a", d / "b")
    os.link(d / "b", d / "c")
    fsx.settle()
    return d


def test_each_name_has_its_own_object(fsx: Instance, s3: Any, bucket: str, linked: Path) -> None:
    assert objects(s3, bucket) == {"a": b"one", "b": b"one", "c": b"one"}
    assert (linked / "a").stat().st_nlink == 3
    is_well(fsx)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_write_through_one_name_updates_the_object_of_each(
    fsx: Instance, s3: Any, bucket: str, linked: Path, name: str, behind: bool
) -> None:
    where = fsx.tree / "d" if behind else linked
    with (where / name).open("ab") as file:
        file.write(b", two")
    fsx.settle()
    assert objects(s3, bucket) == dict.fromkeys("abc", b"one, two")

    (where / name).chmod(0o604)
    fsx.settle()
    modes = {s3.head_object(Bucket=bucket, Key=key)["Metadata"]["file-permissions"] for key in "abc"}
    assert modes == {"0100604"}
    is_well(fsx)


def test_removing_one_name_deletes_its_object_only(fsx: Instance, s3: Any, bucket: str, linked: Path) -> None:
    (linked / "b").unlink()
    fsx.settle()

    assert objects(s3, bucket) == files(fsx) == {"a": b"one", "c": b"one"}
    for name in ("a", "c"):
        assert fsx.state(linked / name)["flags"] == ["exists", "archived"], "what lost a name did not change"
    is_well(fsx)
    (fsx.tree / "d/c").unlink()
    fsx.settle()
    assert fsx.state(linked / "a")["flags"] == ["exists", "archived"]
    fsx.ok("release", linked / "a")
    assert files(fsx) == {"a": b"one"}


def test_renaming_one_name_moves_its_object_only(fsx: Instance, s3: Any, bucket: str, linked: Path) -> None:
    (linked / "b").rename(linked / "e")
    fsx.settle()

    assert objects(s3, bucket) == files(fsx) == dict.fromkeys("ace", b"one")
    assert (linked / "a").stat().st_nlink == 3
    is_well(fsx)


def test_a_new_version_of_one_object_is_that_names_own(fsx: Instance, s3: Any, bucket: str, linked: Path) -> None:
    s3.put_object(Bucket=bucket, Key="b", Body=b"there")
    fsx.settle()
    assert files(fsx) == {"a": b"one", "b": b"there", "c": b"one"}

    (linked / "a").write_bytes(b"here")
    fsx.settle()
    assert objects(s3, bucket) == files(fsx) == {"a": b"here", "b": b"there", "c": b"here"}
    is_well(fsx)


@pytest.fixture(params=["one part", "several parts"])
def released(request: pytest.FixtureRequest, fsx: Instance, d: Path, s3: Any, bucket: str) -> bytes:
    """``a`` and ``b`` are one released file; its content. In several parts, the two objects have different ETags."""
    data = LARGE if request.param == "several parts" else b"small"
    if request.param == "several parts":
        put_in_parts(s3, bucket, "a", data)
    else:
        s3.put_object(Bucket=bucket, Key="a", Body=data)
    fsx.settle()
    os.link(d / "a", d / "b")
    fsx.settle()
    assert objects(s3, bucket) == {"a": data, "b": data}
    for name in "ab":
        assert "released" in fsx.state(d / name)["flags"]
    before = [s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in "ab"]
    (d / "touch").write_bytes(b"x")
    fsx.settle()
    assert [s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in "ab"] == before
    (d / "touch").unlink()
    fsx.settle()
    is_well(fsx)
    return data


@pytest.mark.parametrize("first", ["a", "b"])
def test_loading_one_name_loads_the_other(
    fsx: Instance, s3: Any, bucket: str, d: Path, released: bytes, first: str
) -> None:
    other = "b" if first == "a" else "a"
    assert (d / first).read_bytes() == released
    for name in (first, other):  # it is compared and made durable after its last byte was read
        eventually(lambda name=name: "released" not in fsx.state(d / name)["flags"])
    fsx.settle()
    is_well(fsx)
    with (d / other).open("r+b") as file:
        file.write(b"X")
    fsx.settle()
    assert objects(s3, bucket) == files(fsx) == dict.fromkeys("ab", b"X" + released[1:])


@pytest.mark.parametrize("goes", ["a", "b"])
@pytest.mark.parametrize("how", ["removed here", "removed there", "replaced there"])
def test_what_becomes_of_one_released_name_leaves_the_other_readable(
    fsx: Instance, s3: Any, bucket: str, d: Path, released: bytes, goes: str, how: str
) -> None:
    stays = "b" if goes == "a" else "a"
    if how == "removed here":
        (d / goes).unlink()
    elif how == "removed there":
        s3.delete_object(Bucket=bucket, Key=goes)
    else:
        s3.put_object(Bucket=bucket, Key=goes, Body=b"another")
    fsx.settle()

    assert (d / stays).read_bytes() == released
    fsx.settle()
    wanted = {stays: released} | ({goes: b"another"} if how == "replaced there" else {})
    assert objects(s3, bucket) == files(fsx) == wanted
    is_well(fsx)


@pytest.mark.parametrize("behind", [False, True], ids=["mount", "behind"])
def test_a_name_that_is_left_out_shares_the_data_of_a_released_file(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, behind: bool
) -> None:
    """``ln f f~``: nobody keeps an object for ``f~``, and both stay one file, whoever of the two goes or is written."""
    names = ("written", "left", "gone", "named", "cut", "replaced", "removed")
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=name.encode() * 3)
    fsx.associate(moto, f"s3://{bucket}/", "/d", *news_of(moto, bucket))
    fsx.settle()
    d = fsx.directory / "d"
    where = fsx.tree / "d" if behind else d
    for name in names:
        os.link(where / name, where / f"{name}~")
    fsx.settle()
    assert objects(s3, bucket) == {name: name.encode() * 3 for name in names}
    for name in names:
        assert os.path.samefile(d / name, d / f"{name}~"), name
        assert (d / f"{name}~").read_bytes() == (d / name).read_bytes() == name.encode() * 3
    is_well(fsx)

    refused = fsx.run("release", "--json", d / "left")
    assert (refused.code, refused.json["succeeded"]) == (1, 0)  # nothing brings the data of the other name back
    with (where / "written~").open("ab") as stream:
        stream.write(b", more")
    with (where / "cut~").open("r+b") as stream:
        stream.truncate(3)
    (where / "gone").unlink()
    (where / "left~").unlink()
    (where / "named").rename(where / "renamed")
    s3.put_object(Bucket=bucket, Key="replaced", Body=b"theirs")
    s3.delete_object(Bucket=bucket, Key="removed")
    fsx.settle()

    wanted = {
        "written": b"written" * 3 + b", more",
        "left": b"left" * 3,
        "renamed": b"named" * 3,
        "cut": b"cut",
        "replaced": b"theirs",
    }
    assert objects(s3, bucket) == wanted
    kept = {f"{name}~": name.encode() * 3 for name in ("gone", "named", "replaced", "removed")}
    assert files(fsx) == wanted | kept | {"written~": wanted["written"], "cut~": b"cut"}
    assert os.path.samefile(d / "written", d / "written~")
    assert os.path.samefile(d / "renamed", d / "named~")
    assert fsx.state(d / "written~")["flags"] == []
    is_well(fsx)

    (where / "gone~").rename(where / "gone")  # and back: it is a file as any other
    fsx.ok("release", d / "left")
    fsx.settle()
    assert objects(s3, bucket) == wanted | {"gone": b"gone" * 3}
    assert (d / "left").read_bytes() == wanted["left"]
    is_well(fsx)
