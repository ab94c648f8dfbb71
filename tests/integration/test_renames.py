"""Renames on the real daemon: copies on the server, resumed after ``kill -9`` at each of their durable steps, and at no
moment without the object under at least one of its keys.

FSXSYNC_RENAME_ENTRIES=10000 renames a directory of that many files; FSXSYNC_MODEL_EXAMPLES (any number) dies before the
steps of a large copy, too.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.crashing import CrashControl
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Proxy, Request, Unconditional, refusal

from fsxsync import _core

MIB = 1 << 20
ENTRIES = int(os.environ.get("FSXSYNC_RENAME_ENTRIES", "150"))
IN_PARTS = """
from fsxsync.repository import copying
copying.COPY_MAX = copying.PART = 5 << 20
from fsxsync.cli.main import main
main()
"""
"""A daemon for which S3's 5 GiB are 5 MiB."""


WHEN = ("before", "after") if os.environ.get("FSXSYNC_MODEL_EXAMPLES") else ("after",)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def objects(s3: Any, bucket: str, prefix: str = "p/") -> dict[str, str]:
    """Keys below the prefix -> digests; markers left out."""
    return {
        key.removeprefix(prefix): digest(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        for key in keys_of(s3, bucket, prefix)
        if not key.endswith("/")
    }


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): digest(path.read_bytes()) for path in directory.rglob("*") if path.is_file()
    }


def tree_names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


class Watch:
    """Looks at the bucket whenever the store has done something: what must be in it always is, under one key or
    another, and nothing is deleted before its copy was seen by a HEAD. With a ``tree`` it may be there instead, in a
    file that has its data (behind the mount, a released one reads as zeros), and writes to the store go one by one: of
    two that end together, the second hides what the first one did."""

    def __init__(self, proxy: Proxy, s3: Any, bucket: str, tree: Path | None = None) -> None:
        self._s3, self._bucket, self._proxy, self._tree = s3, bucket, proxy, tree
        self.wanted: set[str] = set()
        self.missing: list[tuple[Request, set[str]]] = []
        self.unseen: list[Request] = []
        self.hold: Callable[[Request], None] = lambda _request: None
        self.between_looks = self._lock = threading.Lock()
        """Held by a test while it renames in the ``tree``: a walk may miss what gets another name meanwhile."""
        self._writing = threading.Lock()
        self._copied: dict[str, list[str]] = {}
        self._seen: set[str] = set()
        proxy.done = self
        proxy.rule = self.rule

    def rule(self, request: Request) -> None:
        targets = self._copied.get(request.path)
        if request.method == "DELETE" and targets and not self._seen.intersection(targets):
            self.unseen.append(request)
        if self._tree is not None and is_write(request):
            self._writing.acquire()

    def __call__(self, request: Request) -> None:
        with self._lock:
            if request.method == "HEAD":
                self._seen.update(
                    target for found in self._copied.values() for target in found if target == request.path
                )
            elif request.copies:
                self._copied.setdefault("/" + request.copies.lstrip("/").partition("?")[0], []).append(request.path)
                self._seen.discard(request.path)
            if is_write(request):
                there = set(objects(self._s3, self._bucket).values())
                if self._tree is not None:
                    there |= set(files(self._tree).values())
                if not self.wanted <= there:
                    self.missing.append((request, self.wanted - there))
        if self._tree is not None and is_write(request):
            self._writing.release()
        self.hold(request)

    def check(self) -> None:
        assert self.missing == []
        assert self.unseen == []


class Stop:
    """Holds what ``picks`` chooses until released; ``reached`` is set when ``count`` of them are held."""

    def __init__(self, picks: Callable[[Request], bool], count: int = 1) -> None:
        self._picks, self._count, self._held = picks, count, 0
        self._lock = threading.Lock()
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Any:
        if self.released.is_set() or not self._picks(request):
            return None
        with self._lock:
            self._held += 1
            if self._held >= self._count:
                self.reached.set()
        self.released.wait(120)
        return refusal(503, "SlowDown")


def is_write(request: Request) -> bool:
    """It changes what objects there are."""
    return request.method in {"PUT", "DELETE", "POST"} and "/" in request.path.lstrip("/")


def is_copy(request: Request) -> bool:
    return bool(request.copies)


def is_delete(request: Request) -> bool:
    return request.method == "DELETE" and "/p/" in request.path


NAMES = ("resident-stays", "resident-moves", "released-stays", "released-moves", "parts-stays", "parts-moves")
STEPS = {
    "noted": (is_copy, "request"),
    "copied": (is_copy, "answer"),
    "seen": (lambda request: request.method == "HEAD" and request.path.endswith("-new"), "second"),
    "recorded": (is_delete, "request"),
    "deleted": (is_delete, "answer"),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_of_a_rename(fsx: Instance, proxy: Proxy, s3: Any, bucket: str, step: str) -> None:
    """Six files are all at the same step then. Half of them are renamed once more while nobody serves. Those in parts
    have another ETag as copies."""
    contents = {name: name.encode() * 10 for name in NAMES}
    for name in NAMES:
        if name.startswith("parts"):
            put_in_parts(s3, bucket, f"p/{name}", contents[name])
        elif name.startswith("released"):
            s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=contents[name])
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--poll", "60")
    d, behind = fsx.directory / "d", fsx.tree / "d"
    for name in NAMES[:2]:
        (d / name).write_bytes(contents[name])
    fsx.settle()
    watch = Watch(proxy, s3, bucket)
    watch.wanted = {digest(data) for data in contents.values()}
    picks, where = STEPS[step]
    if where == "second":  # the HEAD after the copy
        stop = Stop(
            lambda request: picks(request) and any(r.copies and r.path == request.path for r in proxy.requests), 6
        )
    else:
        stop = Stop(picks, 6)
    if where == "answer":
        watch.hold = stop
    else:
        proxy.rule = lambda request: (watch.rule(request), stop(request))[1]

    for name in NAMES:
        (d / name).rename(d / f"{name}-new")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    for name in NAMES:
        if name.endswith("-moves"):
            (behind / f"{name}-new").rename(behind / f"{name}-newest")
    fsx.start()
    fsx.settle()

    expected = {f"{name}-{'newest' if name.endswith('-moves') else 'new'}": digest(contents[name]) for name in NAMES}
    assert objects(s3, bucket) == expected
    assert tree_names(behind) == set(expected)
    watch.check()
    assert files(d) == expected
    fsx.settle()
    assert objects(s3, bucket) == expected
    status = fsx.ok("associations", "--json").json[0]
    assert (status["conflicts"], status["errors"]) == (0, 0)


def put_in_parts(s3: Any, bucket: str, key: str, data: bytes) -> None:
    """One part, but its ETag is none of a whole object."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=data)
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )


def test_a_directory_with_many_entries(made: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """Killed twice on the way and renamed again meanwhile; every byte stays on the store's side."""
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    behind = made.tree / "d"
    for number in range(ENTRIES):
        path = behind / f"one/{number % 5}/file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"data {number}")
    made.settle(timeout=ENTRIES // 5 + 120)
    before = len(proxy.requests)

    for old, new in (("one", "two"), ("two", "three")):
        enough = threading.Event()
        copies = 0

        def count(request: Request, enough: threading.Event = enough) -> None:
            nonlocal copies
            copies += bool(request.copies)
            if copies >= ENTRIES // 3:
                enough.set()

        proxy.done = count
        (behind / old).rename(behind / new)
        assert enough.wait(ENTRIES / 3 + 60)
        made.kill()
        proxy.done = None
        made.start()
    made.settle(timeout=ENTRIES // 5 + 120)

    expected = {f"three/{number % 5}/file {number}" for number in range(ENTRIES)}
    names = set(keys_of(s3, bucket, "p/"))
    assert names == {f"p/{name}" for name in expected} | {"p/three/", *(f"p/three/{n}/" for n in range(5))}
    assert tree_names(behind) == expected | {"three", *(f"three/{n}" for n in range(5))}
    for number in range(0, ENTRIES, max(1, ENTRIES // 50)):
        key = f"p/three/{number % 5}/file {number}"
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"data %d" % number
    later = proxy.requests[before:]
    uploads = [r for r in later if r.method == "PUT" and not r.copies and "file" in r.path]
    reads = [r for r in later if r.method == "GET" and "file" in r.path]
    assert (uploads, reads) == ([], [])


def test_chains_and_a_rename_over_a_file(made: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    behind = made.tree / "d"
    for name in ("quick", "slow", "over", "below", "over-2"):
        (behind / name).write_text(f"this was {name}")
    made.settle()
    watch = Watch(proxy, s3, bucket)
    watch.wanted = {digest(f"this was {name}".encode()) for name in ("quick", "slow", "over", "over-2")}
    before = len(proxy.requests)
    (behind / "quick").rename(behind / "q2")
    (behind / "q2").rename(behind / "q3")
    (behind / "slow").rename(behind / "s2")
    (behind / "over").rename(behind / "below")
    made.settle()
    (behind / "s2").rename(behind / "s3")
    (behind / "over-2").rename(behind / "s2")
    made.settle()
    assert objects(s3, bucket) == {
        "q3": digest(b"this was quick"),
        "s3": digest(b"this was slow"),
        "below": digest(b"this was over"),
        "s2": digest(b"this was over-2"),
    }
    watch.check()
    assert [r for r in proxy.requests[before:] if r.method == "PUT" and not r.copies] == []


@pytest.mark.parametrize("kind", ["resident", "released"])
def test_killed_while_files_change_places(fsx: Instance, proxy: Proxy, s3: Any, bucket: str, kind: str) -> None:
    """At every moment each content is in the bucket, or in a file that has its data."""
    contents = {"a": b"was a", "b": b"was b, and longer"}
    behind = linked_with(fsx, proxy, s3, bucket, contents, kind)
    watch = Watch(proxy, s3, bucket, behind)
    watch.wanted = {digest(data) for data in contents.values()}
    stop = watch.hold = Stop(lambda request: request.method == "PUT")
    with watch.between_looks:
        (behind / "a").rename(behind / "t")
        (behind / "b").rename(behind / "a")
        (behind / "t").rename(behind / "b")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    fsx.start()
    fsx.settle()
    watch.check()
    expected = {"a": digest(contents["b"]), "b": digest(contents["a"])}
    assert objects(s3, bucket) == expected
    assert files(fsx.directory / "d") == expected


@pytest.mark.needs("flat keys")
@pytest.mark.parametrize("kind", ["resident", "released"])
def test_an_exchange_through_the_mount_reaches_the_bucket(
    fsx: Instance, proxy: Proxy, s3: Any, bucket: str, kind: str
) -> None:
    """Of two files, and of a file and a directory: RENAME_EXCHANGE is one step here, and many there."""
    contents = {"a": b"was a", "b": b"was b, and longer", "file": b"was a file", "dir/below": b"was below"}
    behind, d = linked_with(fsx, proxy, s3, bucket, contents, kind), fsx.directory / "d"
    watch = Watch(proxy, s3, bucket, behind)
    watch.wanted = {digest(data) for data in contents.values()}

    with watch.between_looks:
        for one, other in (("a", "b"), ("file", "dir")):
            _core.renameat2(-1, bytes(d / one), -1, bytes(d / other), _core.RENAME_EXCHANGE)
    fsx.settle()

    watch.check()
    after = {"a": contents["b"], "b": contents["a"], "dir": contents["file"], "file/below": contents["dir/below"]}
    expected = {name: digest(data) for name, data in after.items()}
    assert objects(s3, bucket) == expected
    assert files(d) == expected
    status = fsx.ok("associations", "--json").json[0]
    assert (status["conflicts"], status["errors"]) == (0, 0)


def linked_with(fsx: Instance, proxy: Proxy, s3: Any, bucket: str, contents: dict[str, bytes], kind: str) -> Path:
    """Files on both sides, with their data here or without; where they are behind the mount."""
    if kind == "released":
        for name, data in contents.items():
            s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=data)
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    behind = fsx.tree / "d"
    if kind == "resident":
        for name, data in contents.items():
            (behind / name).parent.mkdir(exist_ok=True)
            (behind / name).write_bytes(data)
    fsx.settle()
    return behind


def test_renamed_while_it_is_uploaded(made: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    made.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    small, large = b"small", os.urandom(20 * MIB + 1)
    held = Stop(
        lambda request: request.method == "PUT" and ("/p/small" in request.path or "partNumber=2" in request.query), 2
    )

    def rule(request: Request) -> None:
        held(request)  # for a while; then it goes on

    proxy.rule = rule
    behind = made.tree / "d"
    (behind / "small").write_bytes(small)
    (behind / "large").write_bytes(large)
    assert held.reached.wait(60)
    (behind / "small").rename(behind / "small-new")
    (behind / "large").rename(behind / "large-new")
    held.released.set()
    made.settle()
    expected = {"small-new": digest(small), "large-new": digest(large)}
    assert objects(s3, bucket) == expected
    assert files(made.directory / "d") == expected
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_killed_after_an_upload_and_renamed_meanwhile(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """No row tells of what was uploaded; its name does not come back."""
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    behind = fsx.tree / "d"
    (behind / "edited").write_text("first")
    fsx.settle()
    stop = Stop(lambda request: request.method == "PUT", 4)
    proxy.done = stop
    (behind / "edited").write_text("second version")
    (behind / "new").write_text("new")
    (behind / "dir").mkdir()
    (behind / "link").symlink_to("new")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    for name in ("edited", "new", "dir", "link"):
        (behind / name).rename(behind / f"{name}-2")
    fsx.start()
    fsx.settle()
    assert tree_names(behind) == {"edited-2", "new-2", "dir-2", "link-2"}
    assert set(keys_of(s3, bucket, "p/")) == {"p/edited-2", "p/new-2", "p/dir-2/", "p/link-2"}
    assert objects(s3, bucket)["edited-2"] == digest(b"second version")


def test_an_object_that_appears_where_a_copy_lands(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """It came between the copy and the look at it: both contents stay."""
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--poll", "60")
    behind = fsx.tree / "d"
    (behind / "a").write_text("ours")
    fsx.settle()
    watch = Watch(proxy, s3, bucket)
    watch.wanted = {digest(b"ours")}

    def meanwhile(request: Request) -> None:
        if request.copies.endswith("/p/a") and request.path.endswith("/p/b"):
            s3.put_object(Bucket=bucket, Key="p/b", Body=b"somebody else's")

    watch.hold = meanwhile
    (behind / "a").rename(behind / "b")
    fsx.settle()
    found = objects(s3, bucket)
    assert found["b"] == digest(b"somebody else's")
    assert sorted(found.values()) == sorted([digest(b"ours"), digest(b"somebody else's")])
    assert "a" not in found
    assert files(fsx.directory / "d") == found
    watch.check()


def test_an_old_object_that_changed_is_not_deleted(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """Somebody put another version under the old key after it was copied, and before the crash."""
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--poll", "60")
    behind = fsx.tree / "d"
    (behind / "a").write_text("ours")
    fsx.settle()
    stop = Stop(is_copy)
    proxy.done = stop
    (behind / "a").rename(behind / "b")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    s3.put_object(Bucket=bucket, Key="p/a", Body=b"a new a")
    fsx.start()
    fsx.settle()
    assert objects(s3, bucket) == {"a": digest(b"a new a"), "b": digest(b"ours")}
    assert files(fsx.directory / "d") == objects(s3, bucket)


def test_between_associations_and_out_of_one(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """Behind the mount, where nothing refuses it, with a kill on the way."""
    for name in ("one", "two"):
        s3.put_object(Bucket=bucket, Key=f"{name}/anchor", Body=b"anchor")
        fsx.ok("associate", f"s3://{bucket}/{name}/", f"/{name}", "--endpoint-url", proxy.url)
    s3.put_object(Bucket=bucket, Key="one/released", Body=b"only in the bucket")
    fsx.ok("association", "update", "/one", "--poll", "1")
    for name in ("moved", "out"):
        (fsx.tree / f"one/{name}").write_text(f"this is {name}")
    eventually((fsx.tree / "one/released").exists)
    fsx.settle()
    (fsx.tree / "elsewhere").mkdir()
    stop = Stop(lambda request: request.method == "PUT", 2)
    proxy.done = stop
    (fsx.tree / "one/moved").rename(fsx.tree / "two/moved")
    (fsx.tree / "one/released").rename(fsx.tree / "two/released")
    (fsx.tree / "one/out").rename(fsx.tree / "elsewhere/out")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    fsx.start()
    fsx.settle()
    assert objects(s3, bucket, "one/") == {"anchor": digest(b"anchor")}
    assert objects(s3, bucket, "two/") == {
        "anchor": digest(b"anchor"),
        "moved": digest(b"this is moved"),
        "released": digest(b"only in the bucket"),
    }
    for name in ("moved", "released"):
        put, delete = (
            next(n for n, asked in enumerate(proxy.requests) if asked.method == method and asked.path.endswith(path))
            for method, path in (("PUT", f"/two/{name}"), ("DELETE", f"/one/{name}"))
        )
        assert put < delete, name
    assert (fsx.tree / "elsewhere/out").read_text() == "this is out"
    assert tree_names(fsx.tree / "one") == {"anchor"}


def test_a_released_file_is_loaded_where_no_association_is(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """Behind the mount: its object goes with its old name, or is overwritten there, and nothing else had its data."""
    names = ("f", "dir/g", "dir/sub/h", "over", "later", "kept", "removed")
    for name in names:
        s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=name.encode() * 9)
    fsx.associate(moto, f"s3://{bucket}/p/", "/x/d")
    fsx.settle()
    d, away = fsx.tree / "x/d", fsx.tree / "x/away/below"
    away.mkdir(parents=True)
    os.setxattr(d / "f", "user.colour", b"red")
    fsx.settle()
    (d / "f").rename(away / "f2")
    (d / "dir").rename(away / "dir")
    (d / "over").rename(away / "over")
    (d / "over").write_text("new")
    (d / "removed").unlink()
    fsx.settle()
    fsx.kill()
    (d / "later").rename(fsx.tree / "later")
    fsx.start()
    fsx.settle()

    assert objects(s3, bucket) == {"over": digest(b"new"), "kept": digest(b"kept" * 9)}
    moved = {"f2": b"f", "dir/g": b"dir/g", "dir/sub/h": b"dir/sub/h", "over": b"over", "../../../later": b"later"}
    assert {name: (away / name).read_bytes() for name in moved} == {name: old * 9 for name, old in moved.items()}
    assert os.getxattr(away / "f2", "user.colour") == b"red"
    assert (fsx.directory / "x/away/below/f2").read_bytes() == b"f" * 9
    fsx.ok("check")


@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "killed"])
@pytest.mark.parametrize("name", ["renamed", "large"], ids=["rename", "chmod"])
def test_a_copy_in_parts(tmp_path: Path, proxy: Proxy, s3: Any, bucket: str, name: str, *, kill: bool) -> None:
    """S3 copies up to 5 GiB at once; here it is 5 MiB. What was copied before ``kill -9`` is not copied again."""
    data = os.urandom(12 * MIB + 3)
    s3.put_object(Bucket=bucket, Key="p/large", Body=data)
    s3.put_object_tagging(Bucket=bucket, Key="p/large", Tagging={"TagSet": [{"Key": "kept", "Value": "yes"}]})
    with instance(tmp_path, program=[sys.executable, "-c", IN_PARTS]) as fsx:
        fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
        fsx.settle()
        before = len(proxy.requests)
        watch = Watch(proxy, s3, bucket)
        watch.wanted = {digest(data)}
        stop = Stop(lambda request: bool(request.copies) and "partNumber=2" in request.query)
        if kill:
            watch.hold = stop
        if name == "large":
            (fsx.directory / "d/large").chmod(0o640)
        else:
            (fsx.directory / "d/large").rename(fsx.directory / "d" / name)
        if kill:
            assert stop.reached.wait(60)
            eventually(lambda: remembered_parts(fsx) == [1, 3])
            fsx.kill()
            stop.released.set()
            assert len(s3.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
            fsx.start()
        fsx.settle()
        later = proxy.requests[before:]
        assert objects(s3, bucket) == {name: digest(data)}
        head = s3.head_object(Bucket=bucket, Key=f"p/{name}")
        assert head["ETag"].endswith('-3"')
        assert name != "large" or head["Metadata"]["file-permissions"] == "0100640"
        assert s3.get_object_tagging(Bucket=bucket, Key=f"p/{name}")["TagSet"] == [{"Key": "kept", "Value": "yes"}]
        eventually(lambda: s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == [])
        assert remembered_parts(fsx) == []
        copied = sorted(part for r in later if r.copies for part in (1, 2, 3) if f"partNumber={part}" in r.query)
        assert copied == ([1, 2, 2, 3] if kill else [1, 2, 3])
        assert len([r for r in later if r.method == "POST" and r.query.startswith("uploads")]) == 1
        # Parts are copied, none is sent, and nothing is read: no data goes through the host.
        assert [r for r in later if "partNumber" in r.query and not r.copies] == []
        assert [r for r in later if r.method == "GET" and "large" in r.path and not is_about(r)] == []
        watch.check()
        assert digest((fsx.directory / "d" / name).read_bytes()) == digest(data)


@pytest.mark.parametrize("released", [True, False], ids=["released", "resident"])
@pytest.mark.parametrize(
    ("name", "edited"),
    [("renamed", "renamed"), ("renamed", "large"), ("large", "large")],
    ids=["target", "source", "chmod"],
)
def test_what_is_put_while_a_copy_in_parts_is_under_way(
    tmp_path: Path, proxy: Proxy, s3: Any, bucket: str, name: str, edited: str, *, released: bool
) -> None:
    """It takes minutes. What somebody puts there meanwhile, under either key, is not overwritten, and no object is of
    two versions: the store looks at no condition, moto not even at those of a copy's source."""
    before, there = os.urandom(6 * MIB), os.urandom(6 * MIB)
    torn: list[Request] = []

    def look(request: Request) -> None:
        if request.method == "POST" and not set(objects(s3, bucket).values()) <= {digest(before), digest(there)}:
            torn.append(request)

    def rule(request: Request) -> Any:
        if bool(request.copies) and "partNumber=2" in request.query and not came.is_set():
            s3.put_object(Bucket=bucket, Key=f"p/{edited}", Body=there)
            came.set()
        return None if request.method in {"GET", "HEAD"} else Unconditional()

    proxy.rule, came = rule, threading.Event()
    s3.put_object(Bucket=bucket, Key="p/large", Body=before)
    with instance(tmp_path, program=[sys.executable, "-c", IN_PARTS]) as fsx:
        fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
        fsx.settle()
        d = fsx.directory / "d"
        if not released:
            assert digest((d / "large").read_bytes()) == digest(before)
            fsx.settle()
        proxy.done = look
        (d / "large").chmod(0o640) if name == "large" else (d / "large").rename(d / name)
        assert came.wait(60)
        fsx.settle()
        fsx.ok("import", d)
        fsx.settle()

        assert torn == []
        found = objects(s3, bucket)
        assert found[edited] == digest(there)
        if (name, edited, released) == ("renamed", "large", True):  # what was replaced was nowhere else
            assert digest((d / "large").read_bytes()) == digest(there)
        else:
            assert files(d) == found
            assert name == "large" or sorted(found.values()) == sorted([digest(before), digest(there)])
        eventually(lambda: s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == [])


IN_PARTS_STEPS = [f"{point}:{when}" for point in ("upload.start", "upload.part", "upload.complete") for when in WHEN]


def test_a_copy_in_parts_dies_at_each_of_its_steps(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    with (
        closing(CrashControl(tmp_path / "crash")) as crash,
        instance(tmp_path, program=[sys.executable, "-c", IN_PARTS], **crash.env) as fsx,
    ):
        fsx.associate(moto, f"s3://{bucket}/p/", "/d")
        expected: dict[str, str] = {}
        for step in IN_PARTS_STEPS:
            data = os.urandom(6 * MIB)
            s3.put_object(Bucket=bucket, Key="p/large", Body=data)
            fsx.ok("import", fsx.directory / "d")
            fsx.settle()
            deaths = crash.deaths
            crash.arm(1, step)
            (fsx.directory / "d/large").rename(fsx.directory / "d" / step)
            eventually(lambda: not fsx.is_alive())
            assert crash.deaths == deaths + 1
            crash.arm(0)
            fsx.start()
            fsx.settle()
            expected[step] = digest(data)
            assert objects(s3, bucket) == expected
            assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
        assert files(fsx.directory / "d") == expected


def is_about(request: Request) -> bool:
    """It reads something about an object, not the object."""
    return "tagging" in request.query or "uploadId" in request.query


def remembered_parts(fsx: Instance) -> list[int]:
    """The numbers of those that the catalog knows."""
    with closing(sqlite3.connect(f"file:{fsx.state_dir / 'catalog.db'}?mode=ro", uri=True)) as catalog:
        return [number for (number,) in catalog.execute("SELECT number FROM upload_parts ORDER BY number")]


def test_a_copy_keeps_to_the_key_of_its_association(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """SSE-KMS: the store encrypts the copy, and its ETag tells nothing."""
    key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--sse", f"aws:kms:{key}")
    behind = fsx.tree / "d"
    (behind / "a").write_text("secret")
    fsx.settle()
    before = len(proxy.requests)
    stop = Stop(is_copy)
    proxy.done = stop
    (behind / "a").rename(behind / "b")
    assert stop.reached.wait(60)
    fsx.kill()
    stop.released.set()
    (behind / "b").rename(behind / "c")
    fsx.start()
    fsx.settle()
    assert objects(s3, bucket) == {"c": digest(b"secret")}
    head = s3.head_object(Bucket=bucket, Key="p/c")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    later = proxy.requests[before:]
    assert [r for r in later if r.method == "PUT" and not r.copies and "/p/" in r.path] == []
    assert [r for r in later if r.method == "GET" and "/p/" in r.path] == []


def test_a_released_file_gets_a_name_that_no_object_can_have(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """Its data was in the object only, which goes: it is loaded before."""
    s3.put_object(Bucket=bucket, Key="p/a", Body=b"only there")
    s3.put_object(Bucket=bucket, Key="p/anchor", Body=b"anchor")
    fsx.associate(moto, f"s3://{bucket}/p/", "/d")
    fsx.settle()
    odd = fsx.tree / "d" / os.fsdecode(b"\xff\xfe")
    (fsx.tree / "d/a").rename(odd)
    fsx.settle()
    assert odd.read_bytes() == b"only there"
    assert set(objects(s3, bucket)) == {"anchor"}


def test_an_archived_object_whose_file_was_renamed_is_not_deleted(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """It can't be copied, and the file has its data nowhere else."""
    s3.put_object(Bucket=bucket, Key="p/a", Body=b"frozen", StorageClass="GLACIER")
    fsx.associate(moto, f"s3://{bucket}/p/", "/d")
    fsx.settle()
    (fsx.directory / "d/a").rename(fsx.directory / "d/b")
    fsx.settle()
    assert keys_of(s3, bucket, "p/") == ["p/a"]
    (fsx.directory / "d/c").write_text("later")
    fsx.kill()
    fsx.start()
    fsx.settle()
    assert "p/a" in keys_of(s3, bucket, "p/")
    assert (fsx.tree / "d/b").exists()


@pytest.mark.parametrize(("mounted", "released"), [(True, True), (True, False), (False, False)])
def test_files_that_changed_places_and_went_do_not_wait_for_each_other(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str, *, mounted: bool, released: bool
) -> None:
    with instance(tmp_path, mounted=mounted, FSXSYNC_EXPORT_DELAY_S="1") as made:  # so that both are looked at together
        d = made.directory / "d"
        d.mkdir(parents=True, exist_ok=True)
        made.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
        for name in ("one", "other"):
            (d / name).write_text(name)
        made.settle()
        if released:
            made.ok("release", d / "one", d / "other")
        (d / "one").rename(d / "aside")
        (d / "other").rename(d / "one")
        (d / "aside").rename(d / "other")
        eventually(lambda: made.status()["associations"][0]["pending_exports"] >= 2)  # each with the other's inode

        for name in ("one", "other"):
            (d / name).rename(d / "last")
        (d / "last").unlink()

        made.settle()
        assert keys_of(s3, bucket) == []


def test_a_copy_keeps_the_key_of_its_object(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    """SSE-KMS with a key that the association knows nothing of: renamed, and its mode changed. A rename of a file that
    has its data and of one that was never loaded."""
    key = "arn:aws:kms:us-east-1:111122223333:key/9876abcd-12ab-34cd-56ef-1234567890ab"
    for name in ("resident", "released", "changed"):
        s3.put_object(
            Bucket=bucket,
            Key=f"p/{name}",
            Body=name.encode(),
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=key,
            BucketKeyEnabled=True,
        )
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url)
    fsx.settle()
    d = fsx.directory / "d"
    assert (d / "resident").read_text() == "resident"
    before = len(proxy.requests)
    for name in ("resident", "released"):
        (d / name).rename(d / f"{name}-new")
    (d / "changed").chmod(0o600)
    fsx.settle()

    expected = {"resident-new": digest(b"resident"), "released-new": digest(b"released"), "changed": digest(b"changed")}
    assert objects(s3, bucket) == expected
    for name in expected:
        head = s3.head_object(Bucket=bucket, Key=f"p/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key), name
        assert head["BucketKeyEnabled"], name
    assert s3.head_object(Bucket=bucket, Key="p/changed")["Metadata"]["file-permissions"] == "0100600"
    later = proxy.requests[before:]
    assert [r for r in later if r.method == "PUT" and not r.copies and "/p/" in r.path] == []
    assert [r for r in later if r.method == "GET" and "/p/" in r.path] == []
