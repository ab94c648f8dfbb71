"""`fsxsync check` finds what is broken between tree, catalog, stubs and repository, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.instance import Done, Instance, eventually, fill, keys_of
from support.moto_server import MotoServer

from fsxsync import _core
from fsxsync.model.stub import XATTR, StubMark

MIB = 1 << 20


@pytest.fixture
def linked(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> Path:
    """A directory with an object that was imported (``old``) and a file that was exported (``new``)."""
    s3.put_object(Bucket=bucket, Key="old", Body=b"old bytes")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "3600")
    (fsx.directory / "d/new").write_bytes(b"new bytes" * 1000)
    fsx.settle()
    return fsx.directory / "d"


def broken(fsx: Instance, *arguments: str | Path) -> dict[str, list[str]]:
    """Path below the mount -> the rules it breaks."""
    done = fsx.run("check", "--json", *arguments)
    found: dict[str, list[str]] = {}
    for finding in json.loads(done.out):
        found.setdefault(os.path.relpath(finding["path"], fsx.directory), []).append(finding["rule"])
    assert done.code == (1 if found else 0), done
    return found


def counted(done: Done) -> dict[str, int]:
    """The numbers of the summary."""
    assert done.code == 0, done
    parts = (part.rpartition(" ") for part in done.out.strip().split(", "))
    return {name: int(number) for name, _, number in parts}


def execute(fsx: Instance, sql: str, *parameters: object) -> None:
    """Change the catalog as only a bug could."""
    with closing(sqlite3.connect(fsx.state_dir / "catalog.db", timeout=30)) as connection, connection:
        assert connection.execute(sql, parameters).rowcount == 1


@contextmanager
def unseen(fsx: Instance, name: str) -> Iterator[Path]:
    """Inside, the file may be changed as a failing disk would: afterwards its times are as before, and nobody noticed.
    ctime can't be set, so it is the row that follows."""
    fsx.stop()
    file = fsx.tree / "d" / name
    before = file.stat()
    yield file
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    execute(fsx, "UPDATE files SET ctime_ns = ? WHERE sort_key = ?", file.stat().st_ctime_ns, name.encode())
    fsx.start()
    fsx.settle()


def flip(file: Path) -> None:
    with file.open("r+b") as stream:
        byte = stream.read(1)[0]
        stream.seek(0)
        stream.write(bytes([byte ^ 1]))


# ---------------------------------------------------------------- sound


def test_what_was_synced_is_sound(fsx: Instance, linked: Path) -> None:
    (linked / "directory").mkdir()
    (linked / "directory/file").write_bytes(b"x")
    (linked / "link").symlink_to("new")
    os.link(linked / "new", linked / "directory/other name")  # moves the ctime of a path that nobody hears of
    (linked / "empty").touch()
    fsx.settle()

    assert counted(fsx.run("check"))["checked"] == 8
    assert counted(fsx.run("check", "--verify")) == {
        "checked": 8,
        "skipped": 0,
        "verified": 4,
        "without a checksum": 0,
        "released": 1,
        "changed in the repository": 0,
        "differing": 0,
    }
    assert (linked / "old").read_bytes() == b"old bytes"
    verified = counted(fsx.run("check", "--verify"))
    assert (verified["verified"], verified["released"]) == (5, 0)


def test_a_large_listing_is_walked_in_its_own_order(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    keys = ["a/x", "a-b/x", "a.b", "a0", "b/c/d", "b/c-d"] + [
        f"n/{number:04}" for number in range(1010)
    ]  # over a page of a listing, and of rows
    fill(moto, bucket, {key: key.encode() for key in keys})
    fsx.associate(moto, f"s3://{bucket}/a/", "/a", "--poll", "0")  # and a neighbour that sorts around it
    fsx.associate(moto, f"s3://{bucket}/n/", "/a-b", "--poll", "0")
    fsx.settle()
    (fsx.tree / "a/behind").write_bytes(b"x")
    (fsx.directory / "elsewhere").write_bytes(b"x")
    fsx.settle()

    done = counted(fsx.run("check"))
    assert done == {"checked": 1 + 1010 + 1 + 3, "skipped": 0}
    assert counted(fsx.run("check", fsx.directory / "a-b", fsx.directory / "a-b/0007"))["checked"] == 1011
    assert counted(fsx.run("check", fsx.directory / "a-b/0007"))["checked"] == 1


def test_what_the_policy_keeps_here_is_sound(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--export", "none", "--exclude", "*.tmp", "--poll", "0")
    fsx.settle()
    (fsx.directory / "d/mine").write_bytes(b"x")
    (fsx.directory / "d/a").write_bytes(b"other")
    os.mkfifo(fsx.tree / "d/fifo")
    fsx.settle()

    assert broken(fsx) == {}
    done = counted(fsx.run("check", "--verify"))
    assert (done["skipped"], done["verified"]) == (1, 0)


@pytest.mark.parametrize("where", ["mount", "tree"])
def test_a_file_that_is_written_is_left_out(fsx: Instance, linked: Path, where: str) -> None:
    file = linked / "new" if where == "mount" else fsx.tree / "d/new"
    with file.open("r+b") as stream:
        stream.write(b"half")
        stream.flush()
        assert broken(fsx) == {}
        done = counted(fsx.run("check", "--verify"))
    assert (done["skipped"], done["verified"]) == (1, 0)
    fsx.settle()
    assert counted(fsx.run("check", "--verify"))["verified"] == 1


def test_check_changes_nothing(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    before = [(path, path.lstat()) for path in sorted((fsx.tree / "d").iterdir())]
    objects = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert broken(fsx, "--verify") == {}
    assert [(path, path.lstat()) for path in sorted((fsx.tree / "d").iterdir())] == before
    assert s3.list_objects_v2(Bucket=bucket)["Contents"] == objects


# ---------------------------------------------------------------- broken


def test_rows_and_files_that_lost_each_other(fsx: Instance, linked: Path) -> None:
    for name in ("forgotten", "changed", "moved"):
        (linked / name).write_bytes(name.encode())
    fsx.settle()
    execute(fsx, "DELETE FROM files WHERE sort_key = ?", b"forgotten")
    execute(fsx, "UPDATE files SET size = 99 WHERE sort_key = ?", b"changed")
    execute(fsx, "UPDATE files SET sort_key = ? WHERE sort_key = ?", b"gone", b"moved")

    assert broken(fsx) == {
        "d/forgotten": ["file-without-row"],
        "d/changed": ["unseen-change"],
        "d/gone": ["row-without-file"],
        "d/moved": ["file-without-row"],
    }
    assert broken(fsx, linked / "changed", linked / "gone") == {
        "d/changed": ["unseen-change"],
        "d/gone": ["row-without-file"],
    }
    assert broken(fsx, linked / "new") == {}


def test_a_finding_is_a_line(fsx: Instance, linked: Path) -> None:
    execute(fsx, "DELETE FROM files WHERE sort_key = ?", b"new")
    done = fsx.run("check")
    assert done.code == 1
    assert done.out == f"{linked}/new: file-without-row: it is not in the catalog, and nothing is pending\n"
    assert done.err.startswith("fsxsync: a rule is broken: checked 3, skipped 0; ")
    assert done.err.count("\n") == 1


def test_stubs_that_were_touched_behind_the_mount(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    names = ("stripped", "cut", "version", "key", "garbled", "sound")
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"0123456789")
    fsx.settle()
    assert broken(fsx) == {}

    fsx.ok("association", "update", "/d", "--import", "none")  # it would import most of them again
    fsx.settle()
    behind = {name: fsx.tree / "d" / name for name in names}
    mark = StubMark.decode(os.getxattr(behind["key"], XATTR))
    os.removexattr(behind["stripped"], XATTR)
    os.truncate(behind["cut"], 4)
    os.setxattr(behind["version"], XATTR, replace(mark, etag="e0", key="version").encode())
    os.setxattr(behind["key"], XATTR, replace(mark, key="old").encode())
    os.setxattr(behind["garbled"], XATTR, b"{}")
    fsx.settle()

    assert broken(fsx) == {
        "d/stripped": ["released-without-mark"],
        "d/cut": ["stub-size"],
        "d/version": ["stub-version"],
        "d/key": ["stub-key"],
        "d/garbled": ["stub-unreadable"],
    }


def test_marks_where_none_belong(fsx: Instance, linked: Path) -> None:
    (fsx.tree / "astray").write_bytes(b"")
    os.setxattr(fsx.tree / "astray", XATTR, StubMark("e", 0, "k").encode())
    os.setxattr(fsx.tree / "d", XATTR, b"x")
    os.setxattr(fsx.tree / "d/new", b"user.fsxsync.probe", b"x")
    os.setxattr(fsx.tree / "d/new", b"user.other", b"x")
    fsx.settle()

    assert broken(fsx) == {
        "astray": ["stub-astray"],
        "d": ["reserved-attribute"],
        "d/new": ["reserved-attribute"],
    }


# ---------------------------------------------------------------- --verify


def test_a_byte_that_the_disk_changed_is_found(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    with unseen(fsx, "new") as file:
        flip(file)

    assert broken(fsx) == {}
    assert broken(fsx, "--verify") == {"d/new": ["local-damaged"]}
    assert broken(fsx, "--verify", linked / "old") == {}
    done = fsx.run("check", "--verify")
    assert f"{linked}/new: local-damaged: " in done.out
    assert "differing 1" in done.err
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"new bytes" * 1000


def test_a_file_that_is_not_what_its_object_holds_is_found(fsx: Instance, linked: Path) -> None:
    with unseen(fsx, "new") as file:
        flip(file)
        digest = _core.xxh3_128(file.read_bytes())
        execute(fsx, "UPDATE files SET content_hash = ? WHERE sort_key = ?", digest, b"new")

    assert broken(fsx) == {}
    assert broken(fsx, "--verify") == {"d/new": ["object-differs"]}


def test_an_object_that_somebody_replaced_is_left_to_the_next_sync(
    fsx: Instance, linked: Path, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="new", Body=b"own bytes" * 1000)

    done = counted(fsx.run("check", "--verify"))
    assert (done["verified"], done["changed in the repository"]) == (0, 1)
    fsx.settle()
    assert (linked / "new").read_bytes() == b"own bytes" * 1000
    fsx.settle()
    done = counted(fsx.run("check", "--verify"))
    assert (done["verified"], done["changed in the repository"]) == (1, 0)


def test_what_no_sync_would_ever_see_is_told(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--import", "none")
    for name in ("gone", "changed", "left"):
        (fsx.directory / "d" / name).write_bytes(name.encode())
    fsx.settle()
    s3.delete_object(Bucket=bucket, Key="gone")
    s3.put_object(Bucket=bucket, Key="changed", Body=b"CHANGED")

    assert broken(fsx) == {}
    assert broken(fsx, "--verify") == {"d/gone": ["object-gone"], "d/changed": ["object-changed"]}


def test_an_object_in_parts_is_compared_too(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    data = os.urandom(13 * MIB)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(data), 5 * MIB), start=1):
        part = s3.upload_part(
            Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=data[start : start + 5 * MIB]
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    fsx.settle()
    assert (linked / "parts").read_bytes() == data
    eventually(
        lambda: "released" not in fsx.state(linked / "parts")["flags"]
    )  # what was read to its end becomes an ordinary file soon

    assert counted(fsx.run("check", "--verify", linked / "parts"))["verified"] == 1


# ---------------------------------------------------------------- asking


def test_paths_that_are_no_paths(fsx: Instance, linked: Path) -> None:
    for path, why in (
        (linked / "nothing", f"fsxsync: {linked}/nothing: no such file or directory; check the name"),
        (Path("/etc"), "does not lie in"),
    ):
        done = fsx.run("check", path)
        assert (done.code, done.out) == (2, "")
        assert why in done.err


def test_without_a_daemon(fsx: Instance, linked: Path, s3: Any, bucket: str, tmp_path: Path) -> None:
    for name in ("stripped", "version", "gone"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"0123456789")
    (linked / "own").write_bytes(b"12345678")
    fsx.settle()
    fsx.stop()
    here = fsx.tree / "d"
    assert counted(fsx.run("check")) == {"checked": 7, "skipped": 0}

    (here / "new").write_bytes(b"changed while nobody watched")
    (here / "made").write_bytes(b"so was this")
    (here / "gone").unlink()
    assert counted(fsx.run("check")) == {"checked": 8, "skipped": 3}
    assert fsx.run("check", "--repair").code == 3

    os.removexattr(here / "stripped", XATTR)
    mark = StubMark.decode(os.getxattr(here / "version", XATTR))
    os.setxattr(here / "version", XATTR, replace(mark, etag="e0").encode())
    before = (here / "own").stat()
    flip(here / "own")
    os.utime(here / "own", ns=(before.st_atime_ns, before.st_mtime_ns))
    execute(fsx, "UPDATE files SET ctime_ns = ? WHERE sort_key = ?", (here / "own").stat().st_ctime_ns, b"own")
    done = fsx.run("check", "--verify", "--json", here)
    assert done.code == 1
    assert {os.path.relpath(one["path"], here): one["rule"] for one in json.loads(done.out)} == {
        "stripped": "released-without-mark",
        "version": "stub-version",
        "own": "local-damaged",
    }
    assert replace(fsx, base=tmp_path / "elsewhere", server=None).run("check").code == 3


def test_a_directory_in_watch_mode_is_checked(watched: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="old", Body=b"old bytes")
    watched.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    (watched.directory / "d/new").write_bytes(b"new")
    watched.settle()
    assert counted(watched.run("check", "--verify", watched.directory / "d"))["verified"] == 2


# ---------------------------------------------------------------- --repair


def repaired(fsx: Instance, *arguments: str | Path) -> dict[str, list[tuple[str, bool]]]:
    """Path below the mount -> (rule, whether it holds again)."""
    done = fsx.run("check", "--repair", "--json", *arguments)
    found: dict[str, list[tuple[str, bool]]] = {}
    for finding in json.loads(done.out):
        assert finding["repair"], finding
        path = os.path.relpath(finding["path"], fsx.directory)
        found.setdefault(path, []).append((finding["rule"], finding["repaired"]))
    assert done.code == (0 if all(is_well for rules in found.values() for _, is_well in rules) else 1), done
    return found


def test_rows_and_files_are_brought_together_again(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    names = ("forgotten", "changed", "unexported", "orphan", "etag", "moved")
    for name in names:
        (linked / name).write_bytes(name.encode() * 100)
    fsx.settle()
    fsx.stop()
    before = {name: s3.head_object(Bucket=bucket, Key=name)["LastModified"] for name in names}
    execute(fsx, "DELETE FROM files WHERE sort_key = ?", b"forgotten")
    execute(fsx, "DELETE FROM files WHERE sort_key = ?", b"old")  # of a stub
    execute(fsx, "UPDATE files SET size = 99 WHERE sort_key = ?", b"changed")
    execute(fsx, "UPDATE files SET etag = 'wrong' WHERE sort_key = ?", b"etag")
    fsx.start()
    fsx.settle()
    # After the scan of the start: nobody is told of these.
    execute(fsx, "DELETE FROM files WHERE sort_key = ?", b"unexported")
    execute(fsx, "UPDATE files SET sort_key = ? WHERE sort_key = ?", b"gone", b"moved")
    s3.delete_object(Bucket=bucket, Key="unexported")
    execute(fsx, "UPDATE files SET mode = 0 WHERE sort_key = ?", b"orphan")
    s3.delete_object(Bucket=bucket, Key="orphan")  # a look would take the file away, too

    assert repaired(fsx) == {
        "d/unexported": [("file-without-row", True)],
        "d/moved": [("file-without-row", True)],
        "d/orphan": [("unseen-change", True)],
        "d/gone": [("row-without-file", True)],
    }
    fsx.settle()
    assert broken(fsx, "--verify") == {}
    assert broken(fsx) == {}
    for name in names:
        assert (linked / name).read_bytes() == name.encode() * 100
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == name.encode() * 100
    assert (linked / "old").read_bytes() == b"old bytes"
    for name in ("forgotten", "moved"):
        assert s3.head_object(Bucket=bucket, Key=name)["LastModified"] == before[name]  # nothing was sent again


def test_a_file_that_is_missing_comes_back_and_no_object_goes(
    fsx: Instance, linked: Path, s3: Any, bucket: str
) -> None:
    """A row of a name that never was, as after a bad disk, and one whose file nobody saw go."""
    (linked / "removed").write_bytes(b"removed")
    fsx.settle()
    execute(fsx, "UPDATE files SET sort_key = ? WHERE sort_key = ?", b"never was", b"removed")
    s3.put_object(Bucket=bucket, Key="never was", Body=b"someone else's")

    assert repaired(fsx) == {
        "d/removed": [("file-without-row", True)],
        "d/never was": [("row-without-file", True)],
    }
    assert (linked / "removed").read_bytes() == b"removed"
    assert (linked / "never was").read_bytes() == b"someone else's"
    assert s3.get_object(Bucket=bucket, Key="never was")["Body"].read() == b"someone else's"


def test_nothing_is_repaired_where_the_directory_is_another_one(
    fsx: Instance, linked: Path, s3: Any, bucket: str
) -> None:
    """As when a disk below the tree is not mounted."""
    fsx.stop()
    elsewhere = fsx.state_dir / "elsewhere"
    (fsx.tree / "d").rename(elsewhere)
    (fsx.tree / "d").mkdir()
    fsx.start()
    eventually(lambda: fsx.status()["associations"][0]["state"] == "MISCONFIGURED")

    done = fsx.run("check", "--repair")
    assert "repaired:" not in done.out
    assert keys_of(s3, bucket) == ["new", "old"]
    fsx.stop()
    (fsx.tree / "d").rmdir()
    elsewhere.rename(fsx.tree / "d")
    fsx.start()
    fsx.settle()
    assert broken(fsx) == {}
    assert (linked / "new").read_bytes() == b"new bytes" * 1000


def test_stubs_are_made_whole(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    names = ("stripped", "written", "cut", "version", "garbled", "resident")
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=name.encode() * 10)
    fsx.settle()
    fsx.ok("association", "update", "/d", "--poll", "3600", "--import", "none")  # looks would mend most of them
    fsx.settle()
    behind = {name: fsx.tree / "d" / name for name in names}
    mark = StubMark.decode(os.getxattr(behind["version"], XATTR))
    os.removexattr(behind["stripped"], XATTR)
    os.removexattr(behind["written"], XATTR)
    times = behind["written"].stat()
    behind["written"].write_bytes(b"own bytes".ljust(70))
    os.utime(behind["written"], ns=(times.st_atime_ns, times.st_mtime_ns))
    os.truncate(behind["cut"], 4)
    os.setxattr(behind["version"], XATTR, replace(mark, etag="e0").encode())
    os.setxattr(behind["garbled"], XATTR, b"{}")
    fsx.settle()
    execute(fsx, "UPDATE files SET released = 0 WHERE sort_key = ?", b"resident")
    os.setxattr(fsx.tree / "d/new", b"user.fsxsync.probe", b"x")
    os.setxattr(fsx.tree / "d", XATTR, b"x")

    fsx.ok("association", "update", "/d", "--import", "new,changed,deleted")
    fsx.settle()
    found = repaired(fsx)
    assert found.pop("d/written") == [("released-without-mark", False)]
    assert (linked / "written").read_bytes() == b"own bytes".ljust(70)
    assert all(is_well for rules in found.values() for _, is_well in rules), found
    assert found["d"] == [("reserved-attribute", True)]
    assert found["d/new"] == [("reserved-attribute", True)]
    assert broken(fsx) == {"d/written": ["released-without-mark"]}
    for name in set(names) - {"written"}:
        assert (linked / name).read_bytes() == name.encode() * 10
    assert "probe" not in str(os.listxattr(fsx.tree / "d/new"))


def test_data_under_a_mark_is_believed_only_as_far_as_the_object_says(fsx: Instance, linked: Path) -> None:
    """A crash between the last byte and the mark: the bytes are looked at again, or loaded again."""
    with unseen(fsx, "old") as file, file.open("r+b") as stream:
        stream.write(b"OLD BYTES")

    assert repaired(fsx) == {}
    assert (linked / "old").read_bytes() == b"old bytes"


def test_what_the_repository_says_is_brought_with_verify(fsx: Instance, linked: Path, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="new", Body=b"own bytes" * 1000)  # without an event

    assert repaired(fsx, "--verify") == {}
    fsx.settle()
    assert (linked / "new").read_bytes() == b"own bytes" * 1000


def test_what_only_a_person_can_decide_is_left(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--import", "none")
    directory = fsx.directory / "d"
    for name in ("gone", "changed", "damaged"):
        (directory / name).write_bytes(name.encode())
    fsx.settle()
    s3.delete_object(Bucket=bucket, Key="gone")
    s3.put_object(Bucket=bucket, Key="changed", Body=b"CHANGED")
    with unseen(fsx, "damaged") as file:
        flip(file)
    (fsx.tree / "astray").write_bytes(b"")
    os.setxattr(fsx.tree / "astray", XATTR, StubMark("e", 0, "k").encode())
    fsx.settle()

    assert repaired(fsx, "--verify") == {
        "astray": [("stub-astray", False)],
        "d/changed": [("object-changed", False)],
        "d/damaged": [("local-damaged", False)],
        "d/gone": [("object-gone", True)],
    }
    assert s3.get_object(Bucket=bucket, Key="gone")["Body"].read() == b"gone"
    assert s3.get_object(Bucket=bucket, Key="changed")["Body"].read() == b"CHANGED"
    assert (directory / "changed").read_bytes() == b"changed"
    line = fsx.run("check", "--repair", "--verify", directory / "changed").out
    assert line.startswith(f"{directory}/changed: object-changed: ")
    assert "; left: the association imports no changes" in line
