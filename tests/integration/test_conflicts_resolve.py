"""Open conflicts: listed, and resolved as a person decides, without ever losing a byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, keys_of
from support.moto_server import MotoServer


def objects(s3: Any, bucket: str) -> dict[str, bytes]:
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket)}


def files(made: Instance) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (made.directory / "d").iterdir()}


def listed(made: Instance) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = made.ok("conflicts", "--json").json
    return rows


def edit_both(made: Instance, s3: Any, bucket: str, here: bytes, there: bytes, name: str = "f.txt") -> None:
    """Two edits of one path, neither of which knows of the other: the file is open while the object changes."""
    with (made.directory / "d" / name).open("wb") as writer:
        writer.write(here)
        writer.flush()
        s3.put_object(Bucket=bucket, Key=name, Body=there)
    made.settle()


@pytest.fixture
def conflict(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> dict[str, Any]:
    """One open conflict: ``here`` is kept beside ``there!``."""
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    assert (fsx.directory / "d/f.txt").read_bytes() == b"before"
    edit_both(fsx, s3, bucket, b"here", b"there!")
    (row,) = listed(fsx)
    return row


def test_a_conflict_on_an_open_file_is_listed_with_both_versions(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any]
) -> None:
    kept = Path(conflict["kept_as"])

    assert conflict["path"] == str(fsx.directory / "d/f.txt")
    assert conflict["kind"] == "kept"
    assert kept.read_bytes() == b"here"
    assert kept.name.startswith("f.conflict-")
    assert conflict["local"]["size"] == 4
    assert (conflict["remote"]["size"], conflict["remote"]["etag"]) == (
        6,
        s3.head_object(Bucket=bucket, Key="f.txt")["ETag"].strip('"'),
    )
    assert abs(conflict["detected_s"] - kept.stat().st_mtime) < 60
    assert fsx.ok("associations", "--json").json[0]["conflicts"] == 1
    assert kept.name in fsx.ok("conflicts").out


@pytest.mark.parametrize("named", ["path", "kept_as"])
@pytest.mark.parametrize(("keep", "left"), [("local", b"here"), ("remote", b"there!"), ("both", b"there!")])
def test_resolving_moves_both_sides(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any], keep: str, left: bytes, named: str
) -> None:
    fsx.ok("conflicts", "resolve", conflict[named], "--keep", keep)
    fsx.settle()

    wanted = {"f.txt": left}
    if keep == "both":
        wanted[Path(conflict["kept_as"]).name] = b"here"
    assert files(fsx) == objects(s3, bucket) == wanted
    assert listed(fsx) == []
    assert fsx.ok("associations", "--json").json[0]["conflicts"] == 0
    assert fsx.run("conflicts", "resolve", conflict["path"], "--keep", keep).code == 2
    assert f"{keep} kept by hand" in fsx.ok("events", "--json").out


def test_without_a_mount_it_is_the_same(watched: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"before")
    watched.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    watched.settle()
    assert watched.stop() == 0
    (watched.directory / "d/f.txt").write_bytes(b"here")
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"there!")
    watched.start()
    watched.settle()
    (row,) = listed(watched)

    watched.ok("conflicts", "resolve", row["path"], "--keep", "local")
    watched.settle()

    assert files(watched) == objects(s3, bucket) == {"f.txt": b"here"}
    assert listed(watched) == []


@pytest.mark.parametrize("keep", ["local", "remote"])
@pytest.mark.parametrize("changed", ["copy", "path", "object"])
def test_what_changed_since_it_was_listed_is_not_decided_on(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any], keep: str, changed: str
) -> None:
    if changed == "copy":
        Path(conflict["kept_as"]).write_bytes(b"merged by hand")
    elif changed == "path":
        Path(conflict["path"]).write_bytes(b"edited again")
    else:
        s3.put_object(Bucket=bucket, Key="f.txt", Body=b"edited there again")
    fsx.settle()
    before = files(fsx)

    refused = fsx.run("conflicts", "resolve", conflict["path"], "--keep", keep)

    assert refused.code == 1
    assert "since it was listed" in refused.err
    fsx.settle()
    assert files(fsx) == objects(s3, bucket) == before
    (now,) = listed(fsx)
    assert (now["local"], now["remote"]) != (conflict["local"], conflict["remote"])
    fsx.ok("conflicts", "resolve", conflict["path"], "--keep", keep)
    fsx.settle()
    kept = Path(conflict["kept_as"]).name
    assert files(fsx) == objects(s3, bucket) == {"f.txt": before[kept if keep == "local" else "f.txt"]}


@pytest.mark.parametrize("keep", ["local", "remote"])
def test_a_copy_that_is_open_for_writing_is_not_resolved(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any], keep: str
) -> None:
    with Path(conflict["kept_as"]).open("ab") as writer:
        refused = fsx.run("conflicts", "resolve", conflict["path"], "--keep", keep)
        assert refused.code == 1
        assert "open for writing" in refused.err
        writer.write(b", and more")
    fsx.settle()

    assert sorted(files(fsx).values()) == sorted(objects(s3, bucket).values()) == [b"here, and more", b"there!"]
    assert len(listed(fsx)) == 1


def test_a_reader_of_either_version_reads_on(fsx: Instance, conflict: dict[str, Any]) -> None:
    with Path(conflict["path"]).open("rb") as old, Path(conflict["kept_as"]).open("rb") as kept:
        fsx.ok("conflicts", "resolve", conflict["path"], "--keep", "local")

        assert (old.read(), kept.read()) == (b"there!", b"here")
    fsx.settle()
    assert Path(conflict["path"]).read_bytes() == b"here"


def test_a_path_in_conflict_twice_keeps_each_version_under_its_own_name(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any]
) -> None:
    edit_both(fsx, s3, bucket, b"here again", b"there again")

    first, second = listed(fsx)
    assert {first["path"], second["path"]} == {conflict["path"]}
    assert sorted(Path(row["kept_as"]).read_bytes() for row in (first, second)) == [b"here", b"here again"]
    assert len(objects(s3, bucket)) == 3
    assert fsx.run("conflicts", "resolve", conflict["path"], "--keep", "local").code == 2
    newer = next(row for row in (first, second) if row["kept_as"] != conflict["kept_as"])
    fsx.ok("conflicts", "resolve", newer["kept_as"], "--keep", "local")
    fsx.settle()
    assert files(fsx) == objects(s3, bucket) == {"f.txt": b"here again", Path(conflict["kept_as"]).name: b"here"}


def test_a_copy_in_conflict_itself_gets_a_name_that_is_no_longer(
    fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any]
) -> None:
    copy = Path(conflict["kept_as"]).name

    edit_both(fsx, s3, bucket, b"copy here", b"copy there", copy)

    (name,) = {name for name in files(fsx) if name not in {"f.txt", copy}}
    assert files(fsx) == objects(s3, bucket) == {"f.txt": b"there!", copy: b"copy there", name: b"copy here"}
    assert name.count(".conflict-") == 1
    assert len(name) <= len(copy) + len("-1")


def test_removing_a_copy_by_hand_closes_its_conflict(fsx: Instance, conflict: dict[str, Any]) -> None:
    Path(conflict["kept_as"]).unlink()
    fsx.settle()

    assert fsx.ok("associations", "--json").json[0]["conflicts"] == 0
    assert listed(fsx) == []


def test_an_open_conflict_outlives_kill_9(fsx: Instance, s3: Any, bucket: str, conflict: dict[str, Any]) -> None:
    fsx.kill()
    fsx.clean_up()
    fsx.log = None
    fsx.start()
    fsx.settle()

    assert listed(fsx) == [conflict]
    fsx.ok("conflicts", "resolve", conflict["path"], "--keep", "local")
    fsx.settle()
    assert files(fsx) == objects(s3, bucket) == {"f.txt": b"here"}


@pytest.mark.parametrize(("keep", "left"), [("local", b"here"), ("remote", b"there!")])
def test_what_the_policy_blocks_a_person_may_decide(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, keep: str, left: bytes
) -> None:
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    assert (fsx.directory / "d/f.txt").read_bytes() == b"before"
    fsx.ok("association", "update", "/d", "--import", "none")
    edit_both(fsx, s3, bucket, b"here", b"there!")
    (row,) = listed(fsx)
    assert (row["kind"], row["kept_as"]) == ("blocked", None)
    assert (files(fsx), objects(s3, bucket)) == ({"f.txt": b"here"}, {"f.txt": b"there!"})

    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"there, newer")
    refused = fsx.run("conflicts", "resolve", row["path"], "--keep", keep)
    assert (refused.code, objects(s3, bucket)) == (1, {"f.txt": b"there, newer"})
    fsx.ok("conflicts", "resolve", row["path"], "--keep", keep)

    left = b"there, newer" if keep == "remote" else left
    assert files(fsx) == objects(s3, bucket) == {"f.txt": left}
    assert listed(fsx) == []


def test_a_conflict_of_nothing_says_so(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    (fsx.directory / "d/f").write_bytes(b"x")

    assert listed(fsx) == []
    refused = fsx.run("conflicts", "resolve", fsx.directory / "d/f", "--keep", "both")
    assert (refused.code, "in no conflict" in refused.err) == (2, True)
    assert fsx.run("conflicts", "resolve", fsx.directory / "d/f").code == 2
    assert os.listdir(fsx.directory / "d") == ["f"]
