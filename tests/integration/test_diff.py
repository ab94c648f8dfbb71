"""`fsxsync diff` names what differs between tree and bucket, and changes neither."""

from __future__ import annotations

from typing import Any

from support.instance import Instance
from support.moto_server import MotoServer


def test_diff_names_every_difference_and_changes_nothing(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """With both directions off, differences stay."""
    for key in ("same", "mine", "theirs", "both", "gone", "deep/down", "deep-er", "lost", "e.tmp"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"first")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0", "--export", "none", "--exclude", "*.tmp")
    here = fsx.directory / "d"
    fsx.settle()
    fsx.ok("association", "update", "/d", "--import", "none")
    fsx.settle()
    clean = fsx.run("diff", "--json")
    assert (clean.code, clean.json) == (0, []), clean
    for name in ("mine", "both"):
        (here / name).write_bytes(b"mine, longer")
    (here / "added").write_bytes(b"x")
    (here / "x.tmp").write_bytes(b"left out")
    (here / "clash").mkdir()
    (here / "gone").unlink()
    for key in ("theirs", "both", "came", "clash", "y.tmp", "odd//key"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"theirs!")
    s3.delete_object(Bucket=bucket, Key="lost")
    expected = {
        "added": "A", "lost": "A", "gone": "R", "came": "R", "mine": "L", "theirs": "M", "both": "C", "clash": "T",
    }  # fmt: skip
    told = fsx.run("diff", here)
    assert told.code == 1, told
    assert sorted(told.out.splitlines()) == sorted(f"{letter} {here / name}" for name, letter in expected.items())
    again = fsx.run("diff", "--json")
    assert {row["path"]: row["change"] for row in again.json} == {str(here / n): c for n, c in expected.items()}
    assert fsx.run("diff", here / "deep").code == 0
    assert fsx.run("diff", here / "mine").out == f"L {here / 'mine'}\n"
    assert fsx.run("diff", "/nowhere").code == 2
