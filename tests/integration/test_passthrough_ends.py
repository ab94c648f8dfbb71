"""However a mount ends, with passthrough above all, no program hangs, and its mount point is usable again."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.applications import GONE, Applications
from support.instance import Instance, eventually, instance
from support.moto_server import MotoServer
from support.proxy import Proxy, Request, refusal

from fsxsync.mount.passthrough import why_not

CHUNK = 256 * 1024


def why_not_here() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    return why_not(Path(tempfile.gettempdir()))


pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "-")


class Gate:
    """A proxy's rule: downloads wait until it is opened, and fail then."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        """Objects whose download waits."""
        self.opened = threading.Event()

    def __call__(self, request: Request) -> Any:
        if request.method == "GET" and "slow" in request.path and not self.opened.is_set():
            self.waiting.add(request.path)
            self.opened.wait(120)
            return refusal(503, "SlowDown")
        return None


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def fsx(tmp_path: Path, word: str) -> Iterator[Instance]:
    with instance(tmp_path, options=["-o", f"passthrough={word}"], FSXSYNC_CHUNK_SIZE=str(CHUNK)) as made:
        yield made


@pytest.fixture
def busy(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, gate: Gate) -> Iterator[Applications]:
    """Programs in the middle of everything: in passthrough, in requests, and waiting for the network."""
    for name in ("slow-small", "slow-writer"):
        s3.put_object(Bucket=bucket, Key=name, Body=os.urandom(CHUNK // 2))
    s3.put_object(Bucket=bucket, Key="slow-large", Body=os.urandom(8 * CHUNK))
    with Proxy(moto.url) as proxy, Applications() as programs:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        d = fsx.directory / "d"
        for name in ("read", "write", "map"):
            (d / name).write_bytes(b"resident" * 4096)
        fsx.settle()
        proxy.rule = gate
        for what in ("read", "write", "map", "reopen", "make", "look"):
            programs.start(what, d / what if what != "look" else d / "read")
        programs.start("wait_for_bytes", d / "slow-large")
        programs.start("wait_for_open", d / "slow-small")
        programs.start("wait_for_writing", d / "slow-writer")
        eventually(lambda: len(gate.waiting) == 3)
        assert len(programs.running()) == 9
        yield programs
        proxy.rule = None


def abort(made: Instance) -> None:
    device = os.minor(os.stat(made.directory).st_dev)
    Path(f"/sys/fs/fuse/connections/{device}/abort").write_text("1")
    assert made.until_ended() == 0


def unmount_by_force(made: Instance) -> None:
    subprocess.run(["umount", "-f", made.directory], check=False, capture_output=True)  # noqa: S603, S607  it is busy
    assert made.until_ended() == 0


def unmount(made: Instance) -> None:
    made.run("unmount", made.directory, "--drain-timeout", "0")
    assert made.until_ended() == 0


def terminate(made: Instance) -> None:
    assert made.stop() == 0


@pytest.mark.parametrize(
    ("word", "end"),
    [
        *(("on", end) for end in (Instance.kill, terminate, unmount, abort, unmount_by_force)),
        *(("off", end) for end in (Instance.kill, terminate, abort)),
    ],
)
def test_nobody_hangs_however_it_ends(
    fsx: Instance, busy: Applications, gate: Gate, s3: Any, bucket: str, word: str, end: Callable[[Instance], None]
) -> None:
    end(fsx)

    busy.wait("wait_for_")  # while the network still hangs
    said = busy.end()
    for what in ("wait_for_bytes", "wait_for_open", "wait_for_writing"):
        assert said[what] in GONE, (what, said)
    for what in ("reopen", "make", "look"):
        assert said[what] in GONE | {"ENOENT"}, (what, said)  # the directory below the mount point is empty
    assert said["write"] in GONE | {"done"}  # fstat asks; the bytes themselves go on
    if word == "on":
        assert (said["read"], said["map"]) == ("done", "done")
    if end is not Instance.kill:
        assert not os.path.ismount(fsx.directory)
        assert os.listdir(fsx.directory) == []

    gate.opened.set()
    fsx.start()
    assert (fsx.directory / "d/write").read_bytes()[:8] == b"writtent"
    if word == "on":  # what was stored in pages of the mount goes with them
        assert (fsx.directory / "d/map").read_bytes()[:16] == b"resident" + b"mappednt"
    (fsx.directory / "d/read").write_bytes(b"works again")
    fsx.settle()
    assert s3.get_object(Bucket=bucket, Key="read")["Body"].read() == b"works again"
    assert len((fsx.directory / "d/slow-large").read_bytes()) == 8 * CHUNK
