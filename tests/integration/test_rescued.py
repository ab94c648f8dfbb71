"""Files that a daemon's death, or a power cut, had caught outside their places."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support.instance import Instance
from support.moto_server import MotoServer

from fsxsync.tree.staging import Note


def recovered(fsx: Instance) -> list[tuple[str, str]]:
    """(Path, message) of each event that tells of one."""
    events = fsx.ok("events", "--json").json
    return [(event["path"], event["message"]) for event in events if event["code"] == "FileRecovered"]


def take_out(fsx: Instance, file: Path, name: str) -> Path:
    """As an import does right before it looks at what it took out."""
    out = fsx.state_dir / "staging" / name
    status = file.stat()
    path = os.fsencode(file.relative_to(fsx.tree))
    note = Note(path, status.st_ino, status.st_size, status.st_mtime_ns - 1, None)  # written since it was judged
    out.with_name(name + ".note").write_bytes(note.encode())
    file.rename(out)
    return out


def test_what_a_power_cut_left_without_its_path_stays_and_is_told_of_at_each_start(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    (fsx.directory / "d/f").write_bytes(b"only copy")
    fsx.settle()
    fsx.kill()
    out = take_out(fsx, fsx.tree / "d/f", "old-1-1")
    out.with_name("old-1-1.note").write_bytes(b"")
    s3.put_object(Bucket=bucket, Key="f", Body=b"what took its place")

    for start in (1, 2):
        fsx.start()
        told = recovered(fsx)
        assert len(told) == start
        assert told[-1][0] == ""
        assert "its former path is unknown" in told[-1][1]
        assert f"it lies at {out}:" in told[-1][1]
        checked = json.loads(fsx.run("check", "--repair", "--json").out)
        assert str(out) in {finding["path"] for finding in checked if finding["rule"] == "staging-leftover"}
        assert fsx.stop() == 0
        assert out.read_bytes() == b"only copy"

    out.rename(fsx.tree / "d/found")
    fsx.start()
    fsx.settle()
    assert len(recovered(fsx)) == 2
    assert os.listdir(fsx.state_dir / "staging") == []
    assert s3.get_object(Bucket=bucket, Key="found")["Body"].read() == b"only copy"


def test_what_is_put_back_after_a_crash_is_told_of_once(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    (fsx.directory / "d/f").write_bytes(b"only copy")
    fsx.settle()
    fsx.kill()
    take_out(fsx, fsx.tree / "d/f", "old-1-1")

    for _ in range(2):
        fsx.start()
        ((path, message),) = recovered(fsx)
        assert fsx.stop() == 0

    (now,) = (fsx.tree / "d").iterdir()
    assert path == "/d/f"
    assert f"it is /d/{now.name} now" in message
    assert now.read_bytes() == b"only copy"
