"""`fsxsync why` explains a path on a real mount: each state as a user meets it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.instance import Instance
from support.moto_server import MotoServer


def why(fsx: Instance, path: Path) -> dict[str, Any]:
    told: dict[str, Any] = fsx.ok("why", "--json", path).json
    assert told["path"] == str(path)
    return told


def test_each_state_is_explained(  # noqa: PLR0915  one daemon for all of them
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    for name in ("released", "both", "lost", "left.tmp"):
        s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=name.encode())
    one = fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--poll", "0", "--import", "new,changed", "--exclude", "left*")
    directory = fsx.directory / "d"
    (directory / "synced").write_bytes(b"synced")
    (directory / "both").read_bytes()
    (fsx.directory / "elsewhere").write_bytes(b"x")
    os.mkfifo(directory / "pipe")
    fsx.settle()

    told = why(fsx, directory / "synced")
    assert (told["state"], told["association"], told["key"]) == ("a synced file", one, "p/synced")
    assert told["local"]["size"] == told["base"]["size"] == told["remote"]["size"] == 6
    assert told["base"]["etag"] == told["remote"]["etag"]
    assert "Both sides agree" in told["why"][0]
    assert (told["pending"], told["problems"], told["advice"]) == (None, [], [])
    told = why(fsx, directory / "released")
    assert told["state"].startswith("a released file")
    assert told["advice"] == [f"'fsxsync restore {directory / 'released'}' loads it now"]
    assert "no association" in why(fsx, fsx.directory / "elsewhere")["state"]
    (directory / "left.tmp").write_bytes(b"mine")
    assert why(fsx, directory / "left.tmp")["excluded_by"] == "--exclude left*"
    told = why(fsx, directory / "pipe")
    assert "No object can hold it" in told["why"][0]
    assert told["events"][-1]["code"] == "OperationNotPermitted"
    assert fsx.run("why", directory / "nothing").code == 2

    # lost
    s3.delete_object(Bucket=bucket, Key="p/lost")
    assert fsx.run("restore", directory / "lost").code == 1
    fsx.settle()
    told = why(fsx, directory / "lost")
    assert told["state"].startswith("a lost file")
    assert "put the object back" in told["advice"][0]
    assert "being loaded" not in " ".join(told["why"])
    assert told["next"] == "nothing until its object is back"

    # what the policy holds back, on both sides, and a conflict
    fsx.ok("association", "update", "/d", "--export", "none")
    (directory / "both").write_bytes(b"here")
    fsx.settle()
    told = why(fsx, directory / "both")
    assert (told["state"], told["verdict"], told["suppressed"]) == ("a changed file", "NOTHING", "EXPORT")
    assert "--export none" in told["why"][0]
    s3.put_object(Bucket=bucket, Key="p/both", Body=b"and there")
    told = why(fsx, directory / "both")
    assert told["verdict"] == "KEEP_BOTH"
    assert told["next"].startswith("conflict: ")
    fsx.ok("import", directory)
    fsx.settle()
    (copy,) = directory.glob("both.conflict-*")
    assert str(copy.name) in " ".join(why(fsx, directory / "both")["why"])
    assert "conflict copy" in why(fsx, copy)["why"][0]

    # open, and out of reach
    fsx.ok("association", "update", "/d", "--export", "new,changed,deleted")
    with (directory / "synced").open("ab") as stream:
        stream.write(b" more")
        stream.flush()
        assert "open for writing" in why(fsx, directory / "synced")["why"][0]
    fsx.settle()
    fsx.ok("state", "--set", "noarchive", directory / "synced")
    assert "noarchive" in why(fsx, directory / "synced")["why"][0]
    (directory / "synced").write_bytes(b"kept here")
    fsx.settle()
    told = why(fsx, directory / "synced")
    assert "noarchive is set" in " ".join(told["why"])
    assert "another name" not in " ".join(told["advice"])
    assert told["next"] == "nothing: it is not exported"

    text = fsx.ok("why", directory / "lost").out
    assert text.startswith(f"path    {directory}/lost\nis      a lost file")
    assert "to do   put the object back" in text


def test_a_failure_is_told_with_what_it_needs(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    s3.delete_bucket(Bucket=bucket)
    file = fsx.directory / "d/file"
    file.write_bytes(b"x")
    while not (told := why(fsx, file))["pending"] or not told["pending"]["error"]:
        pass
    assert told["remote_error"]
    assert "MISCONFIGURED" in " ".join(told["why"]) or "failed" in " ".join(told["why"])
    assert told["events"]
