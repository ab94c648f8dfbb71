"""Ends and starts: by order, by kill -9 in the middle of things, with changes on both sides meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Proxy, Request, refusal


class Hold:
    """A proxy's rule: requests that ``picks`` chooses pass until ``after`` of them came; the others wait for ever,
    and `reached` is set."""

    def __init__(self, picks: Any, after: int) -> None:
        self._picks, self._after = picks, after
        self._lock = threading.Lock()
        self._seen = 0
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self, request: Request) -> Any:
        if not self._picks(request):
            return None
        with self._lock:
            self._seen += 1
            held = self._seen > self._after
        if held:
            self.reached.set()
            self.released.wait(120)
            return refusal(503, "SlowDown")
        return None


def in_bucket(s3: Any, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """Keys below the prefix -> bodies; directory markers left out."""
    return {
        key[len(prefix) :]: s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys_of(s3, bucket, prefix)
        if not key.endswith("/")
    }


def in_directory(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mounted", [True, False], ids=["mount", "watch"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_happened_meanwhile_on_both_sides_converges(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str, end: str, *, mounted: bool
) -> None:
    with instance(tmp_path, mounted=mounted) as made:
        for name in ("r-stays", "r-changes", "r-goes", "r-sub/deep", "r-released", "r-moves"):
            s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=b"from there: " + name.encode())
        made.associate(moto, f"s3://{bucket}/p/", "/d", "--poll", "60")
        d = made.directory / "d"
        for name in ("l-stays", "l-changes", "l-goes", "l-moves", "l-sub/deep", "l-dir/a", "l-dir/b"):
            (d / name).parent.mkdir(exist_ok=True)
            (d / name).write_text(f"from here: {name}")
        made.settle()
        getattr(made, end)()

        tree = made.tree / "d"
        (tree / "l-new").write_text("made while nobody looked")
        (tree / "l-changes").write_text("changed while nobody looked")
        (tree / "l-goes").unlink()
        (tree / "l-moves").rename(tree / "l-moved")
        (tree / "l-dir").rename(tree / "l-renamed")
        (tree / "r-moves").rename(tree / "r-moved")  # a stub under the mount: its object has to follow
        (tree / "l-sub/deep").chmod(0o600)
        s3.put_object(Bucket=bucket, Key="p/r-new/x", Body=b"made over there")
        s3.put_object(Bucket=bucket, Key="p/r-changes", Body=b"changed over there")
        s3.delete_object(Bucket=bucket, Key="p/r-goes")
        made.start()
        made.settle()

        expected = {
            **{name: b"from there: " + name.encode() for name in ("r-stays", "r-sub/deep", "r-released")},
            **{name: b"from here: " + name.encode() for name in ("l-stays", "l-sub/deep")},
            "r-changes": b"changed over there",
            "r-new/x": b"made over there",
            "r-moved": b"from there: r-moves",
            "l-new": b"made while nobody looked",
            "l-changes": b"changed while nobody looked",
            "l-moved": b"from here: l-moves",
            "l-renamed/a": b"from here: l-dir/a",
            "l-renamed/b": b"from here: l-dir/b",
        }
        assert in_bucket(s3, bucket, "p/") == expected
        assert in_directory(d) == expected
        mode = s3.head_object(Bucket=bucket, Key="p/l-sub/deep")["Metadata"]["file-permissions"]
        assert mode == "0100600"


def test_killed_in_the_middle_of_an_import(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    for number in range(500):
        s3.put_object(Bucket=bucket, Key=f"{number % 7}/{number}", Body=b"data %d" % number)
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    before = {entry["Key"]: (entry["ETag"], entry["LastModified"]) for entry in listed}
    hold = Hold(lambda request: request.method == "HEAD" and request.path.count("/") == 3, after=150)
    proxy.rule = hold
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--no-wait")
    assert hold.reached.wait(60)
    fsx.kill()
    hold.released.set()
    proxy.rule = None

    with pytest.raises(OSError, match="not connected"):
        os.statvfs(fsx.directory)  # the dead mount is still there
    fsx.start()
    fsx.settle()

    d = fsx.directory / "d"
    expected = {f"{number % 7}/{number}": b"data %d" % number for number in range(500)}
    assert {str(path.relative_to(d)): path.stat().st_size for path in d.rglob("*") if path.is_file()} == {
        name: len(body) for name, body in expected.items()
    }
    for number in range(0, 500, 10):
        assert (d / f"{number % 7}/{number}").read_bytes() == b"data %d" % number
    fsx.settle()
    after = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert {entry["Key"]: (entry["ETag"], entry["LastModified"]) for entry in after} == before
    assert fsx.ok("associations", "--json").json[0]["state"] == "AVAILABLE"


def test_killed_in_the_middle_of_exports(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    hold = Hold(lambda request: request.method == "PUT", after=120)
    proxy.rule = hold
    for number in range(300):
        (fsx.directory / f"d/{number % 5}").mkdir(exist_ok=True)
        (fsx.directory / f"d/{number % 5}/{number}").write_text(f"data {number}")
    assert hold.reached.wait(60)
    fsx.kill()
    hold.released.set()
    proxy.rule = None
    expected = {f"{number % 5}/{number}": b"data %d" % number for number in range(300)}
    assert in_directory(fsx.tree / "d") == expected

    fsx.start()
    fsx.settle()

    assert in_bucket(s3, bucket) == expected
    assert in_directory(fsx.directory / "d") == expected
    assert fsx.ok("associations", "--json").json[0]["conflicts"] == 0


def test_killed_in_the_middle_of_a_multipart_upload(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    hold = Hold(lambda request: "partNumber" in request.query, after=1)
    proxy.rule = hold
    data = os.urandom(30 * 1024 * 1024)
    (fsx.directory / "d/large").write_bytes(data)
    assert hold.reached.wait(60)
    fsx.kill()
    assert keys_of(s3, bucket) == []
    assert len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])) == 1
    hold.released.set()
    proxy.rule = None

    fsx.start()
    fsx.settle()

    assert in_bucket(s3, bucket) == {"large": data}
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_killed_while_a_file_is_loaded(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    data = os.urandom(30 * 1024 * 1024)
    s3.put_object(Bucket=bucket, Key="large", Body=data)
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    # The reader's own chunk comes, the others wait for ever.
    hold = Hold(
        lambda request: request.path.endswith("/large") and request.range is not None and request.range[0] > 0, 0
    )
    proxy.rule = hold
    fd = os.open(fsx.directory / "d/large", os.O_RDONLY)
    try:
        assert os.pread(fd, 100, 0) == data[:100]
        assert hold.reached.wait(60)
        fsx.kill()
    finally:
        with suppress(OSError):  # passthrough is not told of a reader's close, so nothing fails there
            os.close(fd)
    hold.released.set()
    proxy.rule = None

    fsx.start()
    assert (fsx.directory / "d/large").read_bytes() == data
    fsx.settle()
    assert in_bucket(s3, bucket) == {"large": data}


def test_an_end_by_order_says_what_is_left(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    proxy.rule = lambda request: refusal(403, "AccessDenied") if request.method == "PUT" else None
    for number in range(3):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")
    waited = fsx.run("wait", "--timeout", "1")
    assert waited.code == 1
    assert "/d/" in waited.err

    assert fsx.stop() == 0

    assert "fsxsync: 3 changes are not exported yet; they are kept for the next start" in fsx.said()
    assert not os.path.ismount(fsx.directory)
    proxy.rule = None
    fsx.start()
    fsx.settle()
    assert in_bucket(s3, bucket) == {f"{number}": b"data %d" % number for number in range(3)}


def test_unmount_without_patience_keeps_what_is_pending(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    proxy.rule = lambda request: refusal(503, "SlowDown") if request.method == "PUT" else None
    for number in range(4):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")

    done = fsx.run("unmount", fsx.directory, "--drain-timeout", "0")

    assert done.code == 1
    assert "4 changes are pending" in done.err
    assert "kept for the next start" in done.err
    assert done.err.count("\n") == 1
    assert not os.path.ismount(fsx.directory)
    assert fsx.until_ended() == 0
    proxy.rule = None
    fsx.start()
    fsx.settle()
    assert len(in_bucket(s3, bucket)) == 4
    assert fsx.run("unmount").code == 0


def test_unmount_waits_for_what_is_pending(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    for number in range(50):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")
    fsx.ok("unmount", fsx.directory)
    assert len(in_bucket(s3, bucket)) == 50


def test_a_dead_daemons_mount_can_be_unmounted(fsx: Instance) -> None:
    fsx.kill()
    assert fsx.run("status").code == 3
    done = fsx.ok("unmount", fsx.directory)
    assert "cleared away" in done.err
    assert not os.path.ismount(fsx.directory)
    assert os.listdir(fsx.directory) == []


def test_a_symlink_that_only_a_listing_had_told_of_is_none_the_less_one(
    fsx: Instance, proxy: Proxy, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """A listing makes a released file of it. What has its mark and no row any more is taken for what it stands for."""
    s3.put_object(Bucket=bucket, Key="link", Body=b"the target", Metadata={"file-permissions": "0120777"})
    s3.put_object(Bucket=bucket, Key="the target", Body=b"data")
    hold = Hold(lambda request: request.method == "HEAD" and request.path.count("/") == 2, after=0)
    proxy.rule = hold
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--no-wait")
    assert hold.reached.wait(60)
    assert not (fsx.tree / "d/link").is_symlink()
    fsx.kill()
    hold.released.set()
    for file in fsx.state_dir.glob("catalog.db*"):
        file.unlink()

    fsx.start()
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()

    assert os.readlink(fsx.directory / "d/link") == "the target"
    assert (fsx.directory / "d/link").read_bytes() == b"data"
    assert fsx.run("diff", fsx.directory / "d").out == ""


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_lost_catalog_exports_no_zeros(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, end: str) -> None:
    large = os.urandom(20 * 1024 * 1024)
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"stub/{number}", Body=b"data %d" % number)
    s3.put_object(Bucket=bucket, Key="half", Body=large)
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    with (d / "half").open("rb") as stream:
        assert stream.read(10) == large[:10]  # some chunks are here, not all of them for sure
    for number in range(5):
        (d / f"own {number}").write_text(f"made here {number}")
    fsx.settle()
    getattr(fsx, end)()
    before = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}
    for file in fsx.state_dir.glob("catalog.db*"):
        file.unlink()
    (fsx.tree / "d/own 0").write_text("changed after the loss")
    (fsx.tree / "d/own 5").write_text("made after the loss")
    copied = fsx.tree / "d/copied"
    shutil.copy2(fsx.tree / "d/stub/7", copied)  # with its mark, as cp -a and backups do

    fsx.start()
    assert fsx.ok("associations", "--json").json == []
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()

    after = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}
    assert {key: when for key, when in after.items() if key in before and key != "own 0"} == {
        key: when for key, when in before.items() if key != "own 0"
    }
    contents = in_bucket(s3, bucket)
    assert all(body.strip(b"\0") for body in contents.values())
    assert contents["half"] == large
    assert contents["own 5"] == b"made after the loss"
    assert (
        b"changed after the loss" in contents.values()
    )  # a conflict copy, or the object: nothing tells which was first
    assert b"made here 0" in contents.values()
    for number in range(10):
        assert (d / f"stub/{number}").read_bytes() == b"data %d" % number
    assert (d / "half").read_bytes() == large
