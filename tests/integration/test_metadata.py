"""Owners, modes, times, symlinks and what else an object carries, both ways (FSX-FACTS §3)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, keys_of, news_of
from support.moto_server import MotoServer

NS = 1_595_002_920_123_456_789
FOREIGN = {"project": "blue", "owner-name": "mallory"}


def posix(path: Path) -> tuple[int, int, int, int]:
    status = path.lstat()
    return status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns


def told(s3: Any, bucket: str, key: str) -> dict[str, str]:
    found: dict[str, str] = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    return found


DIALECTS = {
    "as FSx writes it": (
        {"file-permissions": "0100640", "file-owner": "7", "file-group": "8", "file-mtime": f"{NS}ns"},
        (0o640, 7, 8, NS),
    ),
    "without the leading zero": (
        {"file-permissions": "100640", "file-owner": "7", "file-group": "8", "file-mtime": f"{NS}ns"},
        (0o640, 7, 8, NS),
    ),
    "DataSync, bits only, milliseconds": (
        {"file-permissions": "0640", "file-owner": "7", "file-group": "8", "file-mtime": "1595002920123"},
        (0o640, 7, 8, 1_595_002_920_123_000_000),
    ),
    "s3fs": ({"mode": "33184", "uid": "7", "gid": "8", "mtime": "1595002920"}, (0o640, 7, 8, 1_595_002_920 * 10**9)),
    "rclone": ({"mode": "100640", "uid": "7", "gid": "8", "mtime": "1595002920.123456789"}, (0o640, 7, 8, NS)),
    "FSx's keys before the others": (
        {"file-permissions": "0100640", "file-owner": "7", "file-group": "8", "file-mtime": f"{NS}ns"}
        | {"mode": "33279", "uid": "1", "gid": "1", "mtime": "1"},
        (0o640, 7, 8, NS),
    ),
    "nonsense here, sense there": (
        {"file-permissions": "rw-r-----", "file-owner": "root", "file-group": "8", "file-mtime": f"{NS}ns"},
        (0o604, 77, 8, NS),
    ),
    "set-id bits": (
        {"file-permissions": "0106755", "file-owner": "7", "file-group": "8", "file-mtime": f"{NS}ns"},
        (0o755, 7, 8, NS),
    ),
}


def test_every_dialect_is_imported(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    for name, (meta, _) in DIALECTS.items():
        s3.put_object(Bucket=bucket, Key=f"{name}/f", Body=b"data", Metadata=meta)
        s3.put_object(Bucket=bucket, Key=f"{name}/later", Body=b"data")
    news = news_of(moto, bucket)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--uid", "77", "--gid", "78", "--file-mode", "0604", *news)
    d = fsx.directory / "d"
    fsx.settle()
    found = {name: posix(d / name / "f") for name in DIALECTS}
    assert found == {name: wanted for name, (_, wanted) in DIALECTS.items()}
    assert {posix(d / name / "later")[:3] for name in DIALECTS} == {(0o604, 77, 78)}

    # metadata alone, without new content: as the owner of the bucket changes it (FSX-FACTS §3)
    for name, (meta, _) in DIALECTS.items():
        source = {"Bucket": bucket, "Key": f"{name}/later"}
        s3.copy_object(
            Bucket=bucket, Key=f"{name}/later", CopySource=source, MetadataDirective="REPLACE", Metadata=meta
        )
    fsx.settle()
    assert {name: posix(d / name / "later") for name in DIALECTS} == found


def test_the_time_of_the_last_access_is_imported(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """With the file, and along with another time of its content; an object without one was used when it was made."""
    meta = {"file-permissions": "0100640", "file-mtime": f"{NS}ns"}
    accessed = {"file-atime": f"{NS + 7}ns"}
    s3.put_object(Bucket=bucket, Key="f", Body=b"data", Metadata=meta | accessed)
    s3.put_object(Bucket=bucket, Key="without", Body=b"data", Metadata=meta)
    fsx.associate(moto, f"s3://{bucket}/", "/d", *news_of(moto, bucket))
    d = fsx.directory / "d"
    fsx.settle()
    s3.put_object(Bucket=bucket, Key="later", Body=b"data", Metadata=meta | accessed)
    fsx.settle()
    found = {name: ((d / name).stat().st_atime_ns, (d / name).stat().st_mtime_ns) for name in os.listdir(d)}
    assert found == {"f": (NS + 7, NS), "later": (NS + 7, NS), "without": (NS, NS)}

    source = {"Bucket": bucket, "Key": "f"}
    changed = meta | {"file-mtime": f"{NS + 20}ns", "file-atime": f"{NS + 30}ns"}
    s3.copy_object(Bucket=bucket, Key="f", CopySource=source, MetadataDirective="REPLACE", Metadata=changed)
    fsx.settle()

    assert ((d / "f").stat().st_atime_ns, (d / "f").stat().st_mtime_ns) == (NS + 30, NS + 20)
    (d / "f").chmod(0o600)  # nor does our own change of the object lose it
    fsx.settle()
    meta = told(s3, bucket, "f")
    assert (meta["file-atime"], meta["file-mtime"]) == (f"{NS + 30}ns", f"{NS + 20}ns")


@pytest.mark.needs("storage classes")
def test_what_an_object_carries_survives_our_change_of_metadata(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    about = {"ContentType": "text/x-own", "CacheControl": "max-age=60", "ContentLanguage": "de"}
    for key in ("f", "renamed", "dir/"):
        body = b"" if key == "dir/" else b"data"
        cold = {} if key == "dir/" else {"StorageClass": "STANDARD_IA"}
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=FOREIGN, Tagging="team=a%20b", **about, **cold)
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    fsx.settle()
    (d / "f").chmod(0o4711)
    os.chown(d / "f", 7, 8)
    (d / "f").chmod(0o4711)
    (d / "dir").chmod(0o2700)
    os.chown(d / "dir", 9, 10)
    (d / "renamed").rename(d / "new")
    fsx.settle()

    assert keys_of(s3, bucket) == ["dir/", "f", "new"]
    for key, wanted in (("f", ("0104711", "7", "8")), ("dir/", ("0042700", "9", "10"))):
        meta = told(s3, bucket, key)
        assert (meta["file-permissions"], meta["file-owner"], meta["file-group"]) == wanted
    for key in ("f", "new", "dir/"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert {name: head["Metadata"][name] for name in FOREIGN} == FOREIGN
        assert {name: head.get(name) for name in about} == about
        assert head.get("StorageClass", "STANDARD") == ("STANDARD" if key == "dir/" else "STANDARD_IA")
        assert s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] == [{"Key": "team", "Value": "a b"}]
    assert (d / "f").read_bytes() == (d / "new").read_bytes() == b"data"


def test_symlinks_are_retargeted_and_change_hands_both_ways(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    link = {"file-permissions": "0120777", "file-owner": "5", "file-group": "6", "file-mtime": f"{NS}ns"}
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"first", Metadata=link)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    fsx.settle()
    assert (os.readlink(d / "theirs"), posix(d / "theirs")[1:]) == ("first", (5, 6, NS))

    s3.put_object(Bucket=bucket, Key="theirs", Body=b"second", Metadata=link | {"file-owner": "15"})
    os.symlink("one", d / "ours")
    fsx.settle()
    assert (os.readlink(d / "theirs"), posix(d / "theirs")[1:3]) == ("second", (15, 6))
    os.symlink("two", d / "new")
    (d / "new").rename(d / "ours")
    os.chown(d / "ours", 21, 22, follow_symlinks=False)
    os.chown(d / "theirs", 23, 24, follow_symlinks=False)
    fsx.settle()
    bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in ("ours", "theirs")]
    assert bodies == [b"two", b"second"]
    for key, owner, group in (("ours", "21", "22"), ("theirs", "23", "24")):
        meta = told(s3, bucket, key)
        assert (meta["file-permissions"], meta["file-owner"], meta["file-group"]) == ("0120777", owner, group)


def test_directories_carry_metadata_both_ways(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    mine = {"file-permissions": "0100664", "file-owner": "5", "file-group": "6", "file-mtime": f"{NS}ns"}
    s3.put_object(Bucket=bucket, Key="theirs/", Metadata=mine)
    fsx.associate(moto, f"s3://{bucket}/", "/d", *news_of(moto, bucket))
    d = fsx.directory / "d"
    (d / "ours").mkdir(mode=0o750)
    fsx.settle()
    assert posix(d / "theirs") == (0o664, 5, 6, NS)

    s3.put_object(Bucket=bucket, Key="theirs/", Metadata=mine | {"file-permissions": "0041777", "file-owner": "9"})
    os.chown(d / "ours", 11, 12)
    fsx.settle()
    assert posix(d / "theirs") == (0o1777, 9, 6, NS)
    meta = told(s3, bucket, "ours/")
    assert (meta["file-permissions"], meta["file-owner"], meta["file-group"]) == ("0040750", "11", "12")

    # a time that somebody set is exported, one that an entry moved is not
    os.utime(d / "ours", ns=(NS, NS))
    fsx.settle()
    assert told(s3, bucket, "ours/")["file-mtime"] == f"{NS}ns"
    (d / "ours/entry").write_text("x")
    fsx.settle()
    assert (d / "ours").stat().st_mtime_ns > NS
    assert told(s3, bucket, "ours/")["file-mtime"] == f"{NS}ns"


def test_new_content_without_metadata_keeps_owner_and_mode(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    meta = {"file-permissions": "0100640", "file-owner": "7", "file-group": "8", "file-mtime": f"{NS}ns"}
    s3.put_object(Bucket=bucket, Key="f", Body=b"old", Metadata=meta)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    f = fsx.directory / "d/f"
    fsx.settle()
    s3.put_object(Bucket=bucket, Key="f", Body=b"newer")
    fsx.settle()

    assert posix(f)[:3] == (0o640, 7, 8)
    assert posix(f)[3] > NS
    assert f.read_bytes() == b"newer"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.html", "text/html"), ("b.tar.gz", "application/gzip"), ("noext", "application/octet-stream")],
)
def test_the_content_type_is_guessed(
    watched: Instance, moto: MotoServer, s3: Any, bucket: str, name: str, wanted: str
) -> None:
    watched.associate(moto, f"s3://{bucket}/", "/d")
    (watched.directory / "d" / name).write_text("x")
    watched.settle()

    assert s3.head_object(Bucket=bucket, Key=name)["ContentType"] == wanted


# ---------------------------------------------------------------- extended attributes


def user_xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}


def test_extended_attributes_stay_here_and_with_the_path(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"old", Metadata={"fsxsync-xattrs": "evil=MQ=="})
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    d = fsx.directory / "d"
    (d / "ours").write_text("data")
    for name in ("ours", "theirs"):
        os.setxattr(d / name, "user.colour", b"red")
    fsx.settle()
    assert "fsxsync-xattrs" not in told(s3, bucket, "ours")
    assert user_xattrs(d / "theirs") == {"user.colour": b"red"}

    s3.put_object(Bucket=bucket, Key="theirs", Body=b"newer")
    s3.put_object(Bucket=bucket, Key="ours", Body=b"newer")
    fsx.settle()
    for name in ("ours", "theirs"):
        assert (d / name).read_bytes() == b"newer"
        assert user_xattrs(d / name) == {"user.colour": b"red"}
    assert not (d / "ours").read_bytes().startswith(b"data")


def test_extended_attributes_travel_where_that_is_asked_for(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    evil = "colour=cmVk,fsxsync.stub=MQ==,%C3%A4%20b=AP8="
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"old", Metadata=FOREIGN | {"fsxsync-xattrs": evil})
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--export-xattrs", *news_of(moto, bucket))
    d = fsx.directory / "d"
    (d / "ours").write_text("data")
    os.setxattr(d / "ours", "user.colour", b"blue")
    (d / "dir").mkdir()
    os.setxattr(d / "dir", "user.kind", b"set")
    fsx.settle()
    assert user_xattrs(d / "theirs") == {"user.colour": b"red", "user.ä b": b"\0\xff"}
    assert told(s3, bucket, "ours")["fsxsync-xattrs"] == "colour=Ymx1ZQ=="
    assert told(s3, bucket, "dir/")["fsxsync-xattrs"] == "kind=c2V0"
    assert is_released(fsx, d / "theirs")

    os.setxattr(d / "theirs", "user.colour", b"green")  # an attribute alone, of a released file
    os.removexattr(d / "ours", "user.colour")
    fsx.settle()
    meta = told(s3, bucket, "theirs")
    assert (meta["fsxsync-xattrs"], {name: meta[name] for name in FOREIGN}) == (
        "colour=Z3JlZW4=,%C3%A4%20b=AP8=",
        FOREIGN,
    )
    assert "fsxsync-xattrs" not in told(s3, bucket, "ours")
    assert (d / "theirs").read_bytes() == b"old"

    s3.put_object(Bucket=bucket, Key="theirs", Body=b"newer", Metadata={"fsxsync-xattrs": "size=OQ=="})
    s3.put_object(Bucket=bucket, Key="ours", Body=b"newer")
    fsx.settle()
    assert user_xattrs(d / "theirs") == {"user.size": b"9"}
    assert (d / "ours").read_bytes() == (d / "theirs").read_bytes() == b"newer"

    os.setxattr(d / "ours", "user.big", b"x" * 1600)  # stays here, also when the object says something
    fsx.settle()
    source = {"Bucket": bucket, "Key": "ours"}
    s3.copy_object(
        Bucket=bucket,
        Key="ours",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"fsxsync-xattrs": "size=OQ==", "file-permissions": "0100600"},
    )
    fsx.settle()
    assert user_xattrs(d / "ours") == {"user.big": b"x" * 1600, "user.size": b"9"}
    os.setxattr(d / "ours", "user.size", b"10")
    (d / "ours").chmod(0o604)
    fsx.settle()
    meta = told(s3, bucket, "ours")
    assert (meta["fsxsync-xattrs"], meta["file-permissions"]) == ("size=OQ==", "0100604")
    assert user_xattrs(d / "ours") == {"user.big": b"x" * 1600, "user.size": b"10"}

    (d / "theirs").rename(d / "renamed")
    fsx.settle()
    assert told(s3, bucket, "renamed")["fsxsync-xattrs"] == "size=OQ=="
    assert user_xattrs(d / "renamed") == {"user.size": b"9"}


def owner(path: Path) -> tuple[int, int]:
    return posix(path)[1:3]


def owner_told(s3: Any, bucket: str, key: str) -> tuple[str | None, str | None]:
    meta = told(s3, bucket, key)
    return meta.get("file-owner"), meta.get("file-group")


def is_linked_again(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, options: tuple[str, ...]) -> None:
    d = fsx.directory / "d"
    # linked again: equal on both sides, whoever owns it
    fsx.ok("association", "delete", "/d", "--hydrate")
    fsx.associate(moto, f"s3://{bucket}/", "/d", *options)
    fsx.settle()
    (d / "mode").chmod(0o640)
    fsx.settle()
    assert owner_told(s3, bucket, "mode") == owner_told(s3, bucket, "moved") == ("4001", "4002")
    assert owner(d / "mode") == owner(d / "moved") == (7001, 7002)

    # squashed no more: what comes in from now on says whose it is
    fsx.ok("association", "update", "/d", "--squash", "none")
    (d / "mode").chmod(0o644)
    s3.put_object(Bucket=bucket, Key="replaced", Body=b"last", Metadata={"file-owner": "4001", "file-group": "4002"})
    fsx.settle()
    assert owner_told(s3, bucket, "mode") == ("4001", "4002")
    assert (owner(d / "replaced"), owner(d / "mode")) == ((4001, 4002), (7001, 7002))


def test_squashed_owners_are_not_those_of_the_objects_and_not_written_over_them(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    theirs = {"file-permissions": "0100644", "file-owner": "4001", "file-group": "4002", "file-mtime": f"{NS}ns"}
    of_link, of_dir = theirs | {"file-permissions": "0120777"}, theirs | {"file-permissions": "0040755"}
    names = ("mode", "content", "renamed", "replaced", "described", "given", "asked")
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"data", Metadata=theirs)
    s3.put_object(Bucket=bucket, Key="over", Body=b"over", Metadata=theirs)
    s3.put_object(Bucket=bucket, Key="under", Body=b"under", Metadata=theirs | {"file-owner": "4003"})
    s3.put_object(Bucket=bucket, Key="link", Body=b"mode", Metadata=of_link)
    s3.put_object(Bucket=bucket, Key="dir/", Body=b"", Metadata=of_dir)
    s3.put_object(Bucket=bucket, Key="implied/plain", Body=b"data")
    options = ("--squash", "7001:7002", "--uid", "77", "--gid", "78", *news_of(moto, bucket))
    fsx.associate(moto, f"s3://{bucket}/", "/d", *options)
    d = fsx.directory / "d"
    fsx.settle()
    assert {owner(path) for path in (d, *d.rglob("*"))} == {(7001, 7002)}
    assert fsx.ok("association", "show", "/d", "--json").json["squash"] == "7001:7002"

    # what is changed here of something else leaves the owner that the object says
    (d / "mode").chmod(0o600)
    (d / "content").write_bytes(b"new")
    (d / "renamed").rename(d / "moved")
    (d / "over").rename(d / "under")  # it is released: its object is all there is
    (d / "dir").chmod(0o700)
    # what is changed there of it never arrives
    s3.put_object(Bucket=bucket, Key="replaced", Body=b"newer", Metadata=theirs | {"file-owner": "0"})
    s3.put_object(Bucket=bucket, Key="link", Body=b"content", Metadata=of_link | {"file-owner": "0"})
    s3.copy_object(
        Bucket=bucket,
        Key="described",
        CopySource={"Bucket": bucket, "Key": "described"},
        MetadataDirective="REPLACE",
        Metadata=theirs | {"file-owner": "0", "file-permissions": "0100640"},
    )
    # a person's chown is a change like any other
    os.chown(d / "given", 8001, 8002)
    (d / "own").write_bytes(b"own")
    os.chown(d / "own", 8003, 8004)
    fsx.settle()
    for key in ("mode", "content", "moved", "under", "dir/", "asked"):
        assert owner_told(s3, bucket, key) == ("4001", "4002"), key
    assert told(s3, bucket, "mode")["file-permissions"] == "0100600"
    assert told(s3, bucket, "dir/")["file-permissions"] == "0040700"
    assert s3.get_object(Bucket=bucket, Key="content")["Body"].read() == b"new"
    assert owner_told(s3, bucket, "given") == ("8001", "8002")
    assert owner_told(s3, bucket, "own") == ("8003", "8004")
    assert (d / "replaced").read_bytes() == b"newer"
    assert os.readlink(d / "link") == "content"
    assert posix(d / "described")[0] == 0o640
    assert (d / "under").read_bytes() == b"over"
    squashed = ("mode", "content", "moved", "under", "dir", "replaced", "link", "described", "asked")
    assert {name: owner(d / name) for name in squashed} == dict.fromkeys(squashed, (7001, 7002))

    # an owner that was given here stays with the path, and is not written over one that is newer there
    s3.put_object(Bucket=bucket, Key="given", Body=b"newest", Metadata=theirs | {"file-owner": "4009"})
    fsx.settle()
    (d / "given").chmod(0o604)
    fsx.settle()
    assert (owner(d / "given"), (d / "given").read_bytes()) == ((8001, 8002), b"newest")
    assert owner_told(s3, bucket, "given") == ("4009", "4002")
    is_linked_again(fsx, moto, s3, bucket, options)


def is_released(made: Instance, path: Path) -> bool:
    return "released" in made.state(path)["flags"]


def test_more_attributes_than_s3_takes_are_left_and_told_once(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--export-xattrs")
    f = fsx.directory / "d/f"
    f.write_text("data")
    os.setxattr(f, "user.big", b"x" * 1600)
    fsx.settle()

    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"data"
    assert "fsxsync-xattrs" not in told(s3, bucket, "f")
    assert user_xattrs(f) == {"user.big": b"x" * 1600}
    events = fsx.ok("events", "--json").out
    assert events.count("ExtendedAttributesLeft") == 1
    fsx.ok("association", "update", "/d")
    fsx.settle()
    assert fsx.ok("events", "--json").out.count("ExtendedAttributesLeft") == 1


def test_asking_for_it_later_takes_nothing_from_the_objects(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"data", Metadata={"fsxsync-xattrs": "colour=cmVk"})
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    f = fsx.directory / "d/f"
    fsx.settle()
    f.chmod(0o600)
    fsx.settle()
    assert (user_xattrs(f), told(s3, bucket, "f")["fsxsync-xattrs"]) == ({}, "colour=cmVk")

    fsx.ok("association", "update", "/d", "--export-xattrs")
    f.chmod(0o640)
    fsx.settle()
    meta = told(s3, bucket, "f")
    assert (meta["fsxsync-xattrs"], meta["file-permissions"]) == ("colour=cmVk", "0100640")
