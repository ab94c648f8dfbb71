"""What a filter leaves out is left alone on both sides, whatever becomes of the filter; nothing is lost on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer


def put(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"data of " + key.encode())


def bodies(s3: Any, bucket: str) -> dict[str, bytes]:
    """The bucket's files."""
    return {
        key: s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys_of(s3, bucket)
        if not key.endswith("/")
    }


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def show(made: Instance) -> dict[str, Any]:
    found: dict[str, Any] = made.ok("association", "show", "/d", "--json").json
    return found


def is_stub(made: Instance, path: Path) -> bool:
    return "released" in made.state(path)["flags"]


@pytest.fixture(params=["option", "ignore list"])
def leave_out(request: pytest.FixtureRequest, fsx: Instance) -> Any:
    """Changes what a linked directory leaves out: by ``association update``, or by its ignore list."""

    def change(*globs: str) -> None:
        if request.param == "option":
            fsx.ok("association", "update", "/d", *(word for glob in globs or ("",) for word in ("--exclude", glob)))
        else:
            (fsx.directory / "d/.fsxsyncignore").write_text("".join(f"{glob}\n" for glob in globs))
        fsx.settle()

    return change


# ---------------------------------------------------------------- what is left out, and the directory it lies in


def test_a_directory_that_holds_only_what_is_left_out_stays_here(
    made: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """When its last object goes, it can't; nor does its marker call it back on the other hosts."""
    put(s3, bucket, "day/1.csv", "day/2.csv")
    made.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", moto.url, "--poll", "1")
    made.settle()
    (made.directory / "d/day/.notes.swp").write_bytes(b"mine")

    for key in ("day/1.csv", "day/2.csv"):
        s3.delete_object(Bucket=bucket, Key=key)
    eventually(lambda: files(made.directory / "d") == ["day/.notes.swp"])
    made.settle()

    assert (made.directory / "d/day/.notes.swp").read_bytes() == b"mine"
    assert keys_of(s3, bucket) == []
    (made.directory / "d/day/.notes.swp").rename(made.directory / "d/day/notes")
    made.settle()
    assert keys_of(s3, bucket) == ["day/notes"]


# ---------------------------------------------------------------- names that are left out by default

TEMPORARY = (".f.swp", "f~", ".nfs0001", ".fuse_hidden01")


def test_temporary_files_stay_where_they_are(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    theirs = [f"there/{name}" for name in TEMPORARY]
    put(s3, bucket, "there/f", *theirs)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    (d / "here").mkdir()
    for name in ("f", *TEMPORARY):
        (d / "here" / name).write_text(name)
    fsx.settle()

    assert sorted(bodies(s3, bucket)) == sorted(["here/f", "there/f", *theirs])
    assert files(d / "there") == ["f"]
    assert show(fsx)["default_excludes"] == [".*.swp", "*~", ".nfs*", ".fuse_hidden*"]
    assert "*~" in fsx.ok("association", "show", "/d").out

    fsx.ok("association", "update", "/d", "--no-default-excludes")
    fsx.settle()
    assert files(d / "there") == sorted(["f", *TEMPORARY])
    assert sorted(bodies(s3, bucket)) == sorted([*theirs, "there/f", *(f"here/{name}" for name in ("f", *TEMPORARY))])
    assert show(fsx)["default_excludes"] == []


def test_an_editor_saves_through_a_temporary_file(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    (d / ".f.swp").write_text("first")
    (d / ".f.swp").rename(d / "f")
    fsx.settle()
    assert bodies(s3, bucket) == {"f": b"first"}

    (d / "f").rename(d / "f~")
    (d / "f").write_text("second")
    fsx.settle()
    assert bodies(s3, bucket) == {"f": b"second"}
    assert (d / "f~").read_text() == "first"

    (d / "f~").rename(d / "f")
    fsx.settle()
    assert bodies(s3, bucket) == {"f": b"first"}


# ---------------------------------------------------------------- a filter that changes


def test_a_change_of_the_filter_deletes_nothing(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, leave_out: Any
) -> None:
    put(s3, bucket, "a.tmp", "b.tmp", "c.tmp", "e.tmp", "f", "sub/g.tmp")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    for path in (d / "a.tmp", d / "b.tmp"):
        path.read_bytes()
    fsx.settle()

    leave_out("*.tmp")
    (d / "a.tmp").unlink()
    (d / "sub/g.tmp").unlink()
    s3.delete_object(Bucket=bucket, Key="b.tmp")
    (d / "n.tmp").write_text("new")
    put(s3, bucket, "m.tmp")
    assert (d / "e.tmp").read_bytes() == b"data of e.tmp"  # a released file is still loaded by who reads it
    fsx.settle()
    assert sorted(bodies(s3, bucket)) == ["a.tmp", "c.tmp", "e.tmp", "f", "m.tmp", "sub/g.tmp"]
    assert [name for name in files(d) if name != ".fsxsyncignore"] == ["b.tmp", "c.tmp", "e.tmp", "f", "n.tmp"]
    fsx.ok("check")

    leave_out()
    everything = ["a.tmp", "b.tmp", "c.tmp", "e.tmp", "f", "m.tmp", "n.tmp", "sub/g.tmp"]
    assert sorted(bodies(s3, bucket)) == everything
    assert [name for name in files(d) if name != ".fsxsyncignore"] == everything
    assert (d / "c.tmp").read_bytes() == b"data of c.tmp"
    assert fsx.status()["conflicts"] == 0

    leave_out("*.tmp")
    (d / "c.tmp").write_text("edited here")
    s3.put_object(Bucket=bucket, Key="c.tmp", Body=b"edited there")
    fsx.settle()
    leave_out()
    fsx.settle()
    assert fsx.status()["conflicts"] == 1
    assert sorted(path.read_bytes() for path in d.glob("c*.tmp")) == [b"edited here", b"edited there"]


def test_nothing_is_deleted_while_the_daemon_is_down(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a.log", "b.log", "f")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    fsx.stop()
    (fsx.tree / "d/.fsxsyncignore").write_text("*.log\n")
    (fsx.tree / "d/a.log").unlink()
    s3.delete_object(Bucket=bucket, Key="b.log")
    fsx.start()
    fsx.settle()

    assert sorted(bodies(s3, bucket)) == ["a.log", "f"]
    assert "b.log" in files(fsx.directory / "d")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Instance]:
    """An instance whose changes wait long enough for a filter to change in between."""
    with instance(tmp_path, FSXSYNC_EXPORT_DELAY_S="4", FSXSYNC_EXPORT_CAP_S="8") as made:
        yield made


def test_what_is_pending_is_judged_by_the_filter_of_its_look(
    slow: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, "gone.tmp", "f")
    slow.associate(moto, f"s3://{bucket}/", "/d")
    d = slow.directory / "d"
    slow.settle()
    (d / "new.tmp").write_text("new")
    (d / "gone.tmp").unlink()
    (d / "g").write_text("g")
    eventually(lambda: show(slow)["pending"] == 3, 3)
    slow.ok("association", "update", "/d", "--exclude", "*.tmp")
    slow.settle()

    assert sorted(bodies(s3, bucket)) == ["f", "g", "gone.tmp"]


def test_what_was_removed_while_it_was_left_out_is_no_delete_however_soon_it_is_let_in(
    slow: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, "a.tmp", "large")
    slow.associate(moto, f"s3://{bucket}/", "/d")
    d = slow.directory / "d"
    slow.settle()
    slow.ok("association", "update", "/d", "--exclude", "*.tmp", "--max-size", "5")
    slow.settle()
    (d / "a.tmp").unlink()
    (d / "large").unlink()
    slow.ok("association", "update", "/d", "--exclude", "", "--max-size", "none")
    slow.settle()

    assert sorted(bodies(s3, bucket)) == files(d) == ["a.tmp", "large"]


# ---------------------------------------------------------------- released files and names that are left out


def test_a_released_file_is_loaded_before_its_object_goes_with_its_old_name(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, "f", "dir/g", "dir/sub/h", "over")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--exclude", "*.old")
    d = fsx.directory / "d"
    fsx.settle()
    assert is_stub(fsx, d / "f")

    (d / "f").rename(d / "f~")
    (d / "dir").rename(d / "dir.old")
    (d / "over").rename(d / "over~")
    (d / "over").write_text("new")
    fsx.settle()
    assert bodies(s3, bucket) == {"over": b"new"}
    assert (fsx.tree / "d/f~").read_bytes() == b"data of f"
    assert (fsx.tree / "d/dir.old/sub/h").read_bytes() == b"data of dir/sub/h"
    assert (fsx.tree / "d/over~").read_bytes() == b"data of over"

    (d / "dir.old").rename(d / "dir")
    (d / "f~").rename(d / "f")
    fsx.settle()
    assert bodies(s3, bucket) == {
        "dir/g": b"data of dir/g",
        "dir/sub/h": b"data of dir/sub/h",
        "f": b"data of f",
        "over": b"new",
    }


def test_a_released_file_moved_while_nobody_watched_is_loaded_too(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, "f", "g")
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()
    fsx.kill()
    (fsx.tree / "d/f").rename(fsx.tree / "d/f~")
    fsx.start()
    fsx.settle()

    assert bodies(s3, bucket) == {"g": b"data of g"}
    assert (fsx.tree / "d/f~").read_bytes() == b"data of f"


@pytest.mark.needs("storage classes")
def test_an_archived_object_outlives_a_rename_that_its_data_can_not_follow(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"data of f", StorageClass="GLACIER")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    fsx.settle()
    (d / "f").rename(d / "f~")
    done = fsx.run("wait", "--timeout", "4")
    assert done.code == 1
    assert "/d/f (the file may have moved)" in done.err
    assert "storage class" in done.err
    assert keys_of(s3, bucket) == ["f"]

    (d / "f~").rename(d / "f")
    fsx.settle()
    assert (keys_of(s3, bucket), files(d), fsx.status()["conflicts"]) == (["f"], ["f"], 0)


def test_a_released_file_that_was_left_out_moves_back_with_its_data(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, leave_out: Any
) -> None:
    put(s3, bucket, "f.tmp", "g")
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    fsx.settle()
    leave_out("*.tmp")
    (d / "f.tmp").rename(d / "f")
    fsx.settle()

    assert bodies(s3, bucket) == {"f": b"data of f.tmp", "f.tmp": b"data of f.tmp", "g": b"data of g"}
    assert (d / "f").read_bytes() == b"data of f.tmp"


# ---------------------------------------------------------------- the ignore list


def test_the_ignore_list_is_obeyed_at_once_and_stays_here(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, "kept.log", "there.log", "build/there", ".fsxsyncignore")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    assert files(d) == ["build/there", "kept.log", "there.log"]

    (d / ".fsxsyncignore").write_text("# what nobody needs\n*.log\n!kept.log\n/build/\n")
    (d / "a.log").write_text("a")
    (d / "kept.log").write_text("changed")
    (d / "build/here").write_text("here")
    (d / "sub/build").mkdir(parents=True)
    (d / "sub/build/f").write_text("f")
    fsx.settle()
    assert bodies(s3, bucket) == {
        ".fsxsyncignore": b"data of .fsxsyncignore",
        "build/there": b"data of build/there",
        "kept.log": b"changed",
        "sub/build/f": b"f",
        "there.log": b"data of there.log",
    }
    assert show(fsx)["ignored"] == ["*.log", "!kept.log", "/build/"]

    (d / ".fsxsyncignore").unlink()
    fsx.settle()
    assert {"a.log", "build/here"} <= bodies(s3, bucket).keys()
    assert bodies(s3, bucket)[".fsxsyncignore"] == b"data of .fsxsyncignore"
    assert not (d / ".fsxsyncignore").exists()


@pytest.mark.parametrize("text", [b"*.log\n!\n", b"\xff\n", b"#" * 70000])
def test_a_list_that_can_not_be_read_stops_everything(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, text: bytes
) -> None:
    put(s3, bucket, "f")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    (d / ".fsxsyncignore").write_bytes(text)
    eventually(lambda: show(fsx)["state"] == "MISCONFIGURED")
    assert "/d/.fsxsyncignore" in show(fsx)["failure"]
    (d / "a.log").write_text("a")
    (d / "n").write_text("n")
    (d / "f").unlink()
    time.sleep(1)
    assert sorted(bodies(s3, bucket)) == ["f"]

    (d / "written").write_text("*.log\n")
    (d / "written").rename(d / ".fsxsyncignore")
    eventually(lambda: show(fsx)["state"] == "AVAILABLE", 10)
    fsx.settle()
    assert sorted(bodies(s3, bucket)) == ["n"]


# ---------------------------------------------------------------- sizes and ages


def test_what_is_too_small_or_too_large_is_left_alone(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    for key, size in (("small", 9), ("right", 10), ("large", 101)):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--min-size", "10", "--max-size", "100", "--poll", "1")
    d = fsx.directory / "d"
    assert files(d) == ["right"]
    assert (show(fsx)["min_size"], show(fsx)["max_size"]) == (10, 100)
    for name, size in (("here-small", 9), ("here-right", 100), ("here-large", 101)):
        (d / name).write_bytes(b"y" * size)
    fsx.settle()
    assert keys_of(s3, bucket) == ["here-right", "large", "right", "small"]

    (d / "here-right").write_bytes(b"y" * 200)  # it grows out of the limits, and its object stays
    s3.put_object(Bucket=bucket, Key="right", Body=b"x" * 200)
    fsx.settle()
    assert len(bodies(s3, bucket)["here-right"]) == 100
    assert (d / "right").stat().st_size == 10
    (d / "here-right").write_bytes(b"z" * 50)  # and comes back
    fsx.settle()
    assert bodies(s3, bucket)["here-right"] == b"z" * 50
    assert fsx.status()["conflicts"] == 0
    (d / "right").unlink()  # its object is too large, and not ours to delete
    fsx.settle()
    assert len(bodies(s3, bucket)["right"]) == 200

    fsx.ok("association", "update", "/d", "--min-size", "none", "--max-size", "none")
    fsx.settle()
    names = ["here-large", "here-right", "here-small", "large", "right", "small"]
    assert files(d) == keys_of(s3, bucket) == names
    assert (d / "right").stat().st_size == 200


def test_a_limit_set_later_deletes_nothing(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    for key in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x" * 50)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    fsx.ok("association", "update", "/d", "--max-size", "20")
    (fsx.directory / "d/a").unlink()
    s3.delete_object(Bucket=bucket, Key="b")
    fsx.settle()
    assert (keys_of(s3, bucket), files(fsx.directory / "d")) == (["a"], ["b"])

    fsx.ok("association", "update", "/d", "--max-size", "none")
    fsx.settle()
    assert (keys_of(s3, bucket), files(fsx.directory / "d")) == (["a"], ["a", "b"])


def test_what_is_too_young_waits_and_what_is_too_old_stays(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--min-age", "4s", "--max-age", "1h", "--poll", "1")
    d = fsx.directory / "d"
    (d / "old").write_text("old")
    os.utime(d / "old", (1_000_000_000, 1_000_000_000))
    (d / "middle").write_text("middle")
    hour_ago = time.time() - 1800
    os.utime(d / "middle", (hour_ago, hour_ago))
    (d / "young").write_text("young")
    put(s3, bucket, "theirs")
    eventually(lambda: keys_of(s3, bucket) == ["middle", "theirs"], 3)
    done = fsx.run("wait", "--timeout", "1")
    assert done.code == 1
    assert "younger than --min-age" in done.out + done.err
    assert files(d) == ["middle", "old", "young"]

    fsx.settle()
    assert (keys_of(s3, bucket), files(d)) == (["middle", "theirs", "young"], ["middle", "old", "theirs", "young"])

    (d / "middle").rename(d / "renamed")  # moves and deletes do not wait, and age does not part a file from its object
    (d / "theirs").unlink()
    (d / "old").chmod(0o600)  # not exported, and no reason to be
    (d / "young").chmod(0o600)
    fsx.settle(timeout=3)
    assert keys_of(s3, bucket) == ["renamed", "young"]
    assert s3.head_object(Bucket=bucket, Key="young")["Metadata"]["file-permissions"] == "0100600"
    fsx.ok("association", "update", "/d", "--max-age", "none", "--min-age", "none")
    fsx.settle()
    assert keys_of(s3, bucket) == ["old", "renamed", "young"]


@pytest.mark.parametrize("globs", [("--exclude", "*.conflict-*"), ("--include", "f.txt")], ids=" ".join)
def test_a_conflict_copy_whose_name_is_left_out_stays_here_and_says_so(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, globs: tuple[str, str]
) -> None:
    """Neither lost nor claimed to be in the bucket; what a person decides about it, or a later filter, finds it."""
    put(s3, bucket, "f.txt")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0", *globs)
    fsx.settle()
    for number in (1, 2):
        (fsx.directory / "d/f.txt").write_text(f"edited here {number}")
        s3.put_object(Bucket=bucket, Key="f.txt", Body=b"edited there %d" % number)
        fsx.settle()

    for restart in (True, False):
        assert bodies(s3, bucket) == {"f.txt": b"edited there 2"}
        open_ones = fsx.ok("conflicts", "--json").json
        copies = {Path(row["kept_as"]).read_text(): Path(row["kept_as"]) for row in open_ones}
        assert copies.keys() == {"edited here 1", "edited here 2"}
        for copy in copies.values():
            assert not {"exists", "archived"} & set(fsx.state(copy)["flags"])
        if restart:
            fsx.kill()  # the scan of the next start sees nothing to delete, on neither side
            fsx.start()
            fsx.settle()

    fsx.ok("conflicts", "resolve", copies["edited here 2"], "--keep", "local")
    fsx.settle()
    assert bodies(s3, bucket) == {"f.txt": b"edited here 2"}
    assert copies["edited here 1"].read_text() == "edited here 1"
    fsx.ok("association", "update", "/d", "--exclude", "", "--include", "")
    fsx.settle()
    assert bodies(s3, bucket) == {"f.txt": b"edited here 2", copies["edited here 1"].name: b"edited here 1"}
