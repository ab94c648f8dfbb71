"""Symlinks whose two sides changed, under each policy: no target is lost, as no bytes of a file are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, keys_of
from support.moto_server import MotoServer

LATE_NS = 4_000_000_000 * 10**9
LINK, FILE = {"file-permissions": "0120777"}, {"file-permissions": "0100644"}
POLICIES = ["keep-both", "local", "remote", "newest"]


def here(directory: Path) -> dict[str, tuple[str, str]]:
    """Name -> (what it is, its target or content)."""
    return {
        path.name: ("link", os.readlink(path)) if path.is_symlink() else ("file", path.read_text())
        for path in directory.iterdir()
    }


def there(s3: Any, bucket: str) -> dict[str, tuple[str, str]]:
    found = {}
    for key in keys_of(s3, bucket):
        answer = s3.get_object(Bucket=bucket, Key=key)
        is_link = answer["Metadata"].get("file-permissions", "").startswith("012")
        found[key] = ("link" if is_link else "file", answer["Body"].read().decode())
    return found


def retarget(path: Path, target: str, *, mtime_ns: int) -> None:
    path.unlink()
    path.symlink_to(target)
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def agreed(fsx: Instance, s3: Any, bucket: str, path: str, policy: str) -> dict[str, tuple[str, str]]:
    """What both sides hold then."""
    fsx.start()
    fsx.settle()
    found = here(fsx.directory / "d")
    assert found == there(s3, bucket)
    assert "Conflict" in {event["code"] for event in fsx.ok("events", "--json").json}
    assert len(fsx.ok("conflicts", "--json").json) == (policy == "keep-both")
    assert len(found) == 1 + (policy == "keep-both")
    assert path in found
    return found


def winner(policy: str, later: str, ours: tuple[str, str], theirs: tuple[str, str]) -> tuple[str, str]:
    if policy == "newest":
        policy = later
    return ours if policy == "local" else theirs


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("later", ["local", "remote"])
def test_a_link_retargeted_on_both_sides(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, policy: str, later: str
) -> None:
    s3.put_object(Bucket=bucket, Key="l", Body=b"before", Metadata=LINK)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--on-conflict", policy, "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    retarget(fsx.tree / "d/l", "ours", mtime_ns=LATE_NS if later == "local" else 10**18)
    s3.put_object(Bucket=bucket, Key="l", Body=b"theirs", Metadata=LINK)

    found = agreed(fsx, s3, bucket, "l", policy)

    assert found.pop("l") == winner(policy, later, ("link", "ours"), ("link", "theirs"))
    assert list(found.values()) == ([("link", "ours")] if policy == "keep-both" else [])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("link", ["here", "there"])
def test_a_link_on_one_side_and_a_file_on_the_other(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, policy: str, link: str
) -> None:
    """The change here is the later one."""
    s3.put_object(Bucket=bucket, Key="x", Body=b"before", Metadata=FILE)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--on-conflict", policy, "--poll", "1")
    assert (fsx.directory / "d/x").read_bytes() == b"before"
    fsx.settle()
    assert fsx.stop() == 0
    path = fsx.tree / "d/x"
    if link == "here":
        retarget(path, "ours", mtime_ns=LATE_NS)
        s3.put_object(Bucket=bucket, Key="x", Body=b"theirs", Metadata=FILE)
        ours, theirs = ("link", "ours"), ("file", "theirs")
    else:
        path.write_text("ours")
        os.utime(path, ns=(LATE_NS, LATE_NS))
        s3.put_object(Bucket=bucket, Key="x", Body=b"theirs", Metadata=LINK)
        ours, theirs = ("file", "ours"), ("link", "theirs")

    found = agreed(fsx, s3, bucket, "x", policy)

    assert found.pop("x") == winner(policy, "local", ours, theirs)
    assert list(found.values()) == ([ours] if policy == "keep-both" else [])
