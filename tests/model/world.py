"""Both sides of one association, with somebody at work on each: what they do, and what must hold afterwards.

Every file that is made holds bytes that nothing else holds, so that whatever lies somewhere later tells where it came
from. ``must`` are the contents that have to survive: what somebody wrote and closed, or put, and what nobody removed or
replaced *on the side where it was*. An operation of one side never takes away what only the other side had: that is
what conflicts are for (DESIGN §8).

Names never make a file of a directory or the other way round: which of the two yields is for a person to decide.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec

from support.instance import Instance, bucket_with_events, eventually
from support.moto_server import MotoServer

from fsxsync.control.client import Client
from fsxsync.model.conflict import is_conflict_name
from fsxsync.model.stub import XATTR, StubMark

WAIT_S = 60
PREFIX = "p/"
ANCHOR = "anchor"
"""An object that nobody touches: a listing that is empty all of a sudden is not believed (DESIGN §3.6)."""
TAG = 12
"""Bytes at the start of every content that tell it from all others."""
_EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EIO, errno.ENODATA, errno.ESTALE, errno.EINVAL}
"""What an application may meet: the other side changed something under its hands."""

P = ParamSpec("P")


class Thing(NamedTuple):
    """What is at a path: file, directory or symlink, its bytes or target, its permissions where they are known."""

    kind: str
    content: bytes = b""
    mode: int | None = None
    lost: bool = False


def step(method: Callable[Concatenate[World, P], None]) -> Callable[Concatenate[World, P], None]:
    """Write the call down, so that a failure prints a script for `test_regressions.py`."""

    @wraps(method)
    def noted(self: World, *args: P.args, **kwargs: P.kwargs) -> None:
        words = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        if self.depth == 0:  # a step within a step comes by itself
            self.script.append(f"world.{method.__name__}({', '.join(words)})")
        self.depth += 1
        try:
            method(self, *args, **kwargs)
        except BaseException as error:
            if not self.failed:
                error.add_note(f"way = {self.way!r}, versioned = {self.versioned}\n" + self.log())
            self.failed = True
            raise
        finally:
            self.depth -= 1

    return noted


@dataclass
class World:
    """``way`` is how the directory is worked on: ``mount``, ``behind`` the mount, or ``watch`` mode."""

    made: Instance
    moto: MotoServer
    way: str
    daemon_queue: str
    versioned: bool = False
    script: list[str] = field(default_factory=list)
    must: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    by_digest: dict[str, bytes] = field(default_factory=dict)
    held: list[dict[str, Any]] = field(default_factory=list)
    events_lost: bool = False
    failed: bool = False
    number: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        self.s3, self.sqs = self.moto.client("s3"), self.moto.client("sqs")
        self.bucket = f"m-{uuid.uuid4().hex[:12]}"
        self.collector = bucket_with_events(self.moto, self.bucket, self.bucket)
        if self.versioned:
            self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.name = self.bucket
        self.client = Client(self.made.state_dir)
        self.s3.put_object(Bucket=self.bucket, Key=PREFIX + ANCHOR, Body=self._content(100))
        association = self.client.associate(
            {
                "repository": f"s3://{self.bucket}/{PREFIX}",
                "path": f"/{self.name}",
                "endpoint_url": self.moto.url,
                "events": f"sqs:{self.daemon_queue}",
            }
        )
        self.id: str = association["id"]

    # ------------------------------------------------------------- places

    @property
    def is_up(self) -> bool:
        return self.made.daemon is not None

    @property
    def behind(self) -> Path:
        """The association's directory where nothing stands between us and the file system."""
        return self.made.tree / self.name

    @property
    def front(self) -> Path:
        """The association's directory as this world's applications use it. Without a daemon nothing is mounted."""
        return self.made.directory / self.name if self.way == "mount" and self.is_up else self.behind

    def log(self) -> str:
        return "\n".join(self.script) + "\n" + self.made.said()

    # ------------------------------------------------------------- contents

    def _content(self, size: int) -> bytes:
        """New bytes of about that size; the empty file is nothing that could be lost."""
        self.number += 1
        tag = f"<{self.number:010}>".encode()
        assert len(tag) == TAG
        content = (tag * (size // TAG + 1))[: max(size, TAG)] if size else b""
        self._keep(content)
        return content

    def _keep(self, content: bytes) -> None:
        self.by_digest[_md5(content)] = content
        if content:
            self.must.add(content)

    def _drop(self, thing: Thing | None) -> None:
        """Whoever had it before his eyes took it away."""
        if thing is not None and thing.content:
            self.must.discard(thing.content)
            self.gone.add(thing.content)

    def local(self, path: str, root: Path | None = None) -> Thing | None:
        """What stands at a path behind the mount; a stub counts as the bytes that it stands for."""
        file = (root or self.behind) / path
        try:
            status = os.lstat(file)
            mode = status.st_mode & 0o3777
            if file.is_symlink():
                return Thing("symlink", os.fsencode(os.readlink(file)))
            if file.is_dir():
                return Thing("directory", mode=mode)
            mark = self.mark(path)
            if mark is None:
                return Thing("file", file.read_bytes(), mode)
        except FileNotFoundError:
            return None
        assert mark.size == status.st_size, f"{path}: a stub of {mark} has {status.st_size} bytes"
        content = self.by_digest.get(mark.etag)
        assert content is not None, f"{path} stands for {mark}, which nobody made"
        return Thing("file", content, mode, lost=content in self.gone)

    def mark(self, path: str) -> StubMark | None:
        try:
            return StubMark.decode(os.getxattr(self.behind / path, XATTR, follow_symlinks=False))
        except OSError as error:
            if error.errno == errno.ENODATA:
                return None
            raise

    def remote(self, path: str) -> Thing | None:
        """What the object of a path holds."""
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=PREFIX + path)
        except self.s3.exceptions.NoSuchKey:
            return None
        words = answer["Metadata"].get("file-permissions")
        mode = int(words, 8) if words else None
        kind = "symlink" if mode is not None and mode & 0o170000 == 0o120000 else "file"
        if path.endswith("/"):
            kind = "directory"
        return Thing(kind, answer["Body"].read(), None if mode is None or kind == "symlink" else mode & 0o3777)

    # ------------------------------------------------------------- one thing at a time

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """The daemon stands still, wherever it happens to be: who looks and acts now sees what he replaces."""
        daemon = self.made.daemon
        if daemon is None:
            yield
            return
        daemon.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            self.s3.list_buckets()  # what the store has begun is through before this is
            yield
        finally:
            daemon.send_signal(signal.SIGCONT)

    def _work(self, action: Callable[[Path], object], *replaced: str) -> bool:
        """Do something in the directory. What stood at the paths ``replaced`` is gone then, unless it failed."""
        if self.front == self.behind:
            with self._frozen():
                return self._do(action, [self.local(path) for path in replaced])
        # Through the mount the daemon has to run: an import may come between our look and our deed, and what it
        # brought is then what the application replaced.
        return self._do(action, [look(path) for path in replaced for look in (self.local, self.remote)])

    def _do(self, action: Callable[[Path], object], before: list[Thing | None]) -> bool:
        try:
            action(self.front)
        except OSError as error:
            if error.errno not in _EXPECTED:
                raise
            return False
        for thing in before:
            self._drop(thing)
        return True

    # ------------------------------------------------------------- the application

    @step
    def write(self, path: str, size: int) -> None:
        """Make a file, or overwrite it in place."""
        content = self._content(size)
        self.must.discard(content)  # until it is written
        if self._do_write(path, content) and content:
            self.must.add(content)

    def _do_write(self, path: str, content: bytes) -> bool:
        if self.front == self.behind:
            with self._frozen():
                before = self.local(path)
                if before is not None and (before.kind == "symlink" or self.mark(path) is not None):
                    # Who writes behind the mount replaces a released file, and does not write into it (DESIGN §5).
                    return self._do(lambda root: _replace(root / path, content), [before])
                return self._do(lambda root: _write(root / path, content), [before])
        before, inode = self.local(path), _inode(self.behind / path)
        if before is not None and before.kind == "symlink":
            return self._do(lambda root: _replace(root / path, content), [before, self.remote(path)])
        done = self._do(lambda root: _write(root / path, content, new=before is None), [before])
        if _inode(self.behind / path) != inode and before is not None:
            self._drop(self.remote(path))  # an import came before or after: nobody can tell
        return done

    @step
    def append(self, path: str, size: int) -> None:
        """Write at the end of what is there."""
        more = b"+" * size

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b") as stream:
                old = stream.read()
                assert not old or old in self.by_digest.values(), f"{path} holds {old[:80]!r}, which nobody wrote"
                stream.write(more)
            if old:
                self._drop(Thing("file", old))
                self._keep(old + more)
            else:
                self.by_digest[_md5(more)] = more

        self._work(act)

    @step
    def truncate(self, path: str, size: int) -> None:
        """Cut a file off, but not its tag."""

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b") as stream:
                old = stream.read()
                assert not old or old in self.by_digest.values(), f"{path} holds {old[:80]!r}, which nobody wrote"
                if TAG <= size < len(old):
                    stream.truncate(size)
            if TAG <= size < len(old):
                self._drop(Thing("file", old))
                self._keep(old[:size])

        self._work(act)

    @step
    def replace(self, path: str, size: int) -> None:
        """As editors save: a new file, renamed over the old one."""
        content = self._content(size)
        self.must.discard(content)
        if self._work(lambda root: _replace(root / path, content), path) and content:
            self.must.add(content)

    @step
    def symlink(self, path: str) -> None:
        target = self._content(TAG)
        self.must.discard(target)

        def act(root: Path) -> None:
            beside = root / (path + ".tmp-link")
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(target.decode())
            beside.rename(root / path)

        if self._work(act, path):
            self.must.add(target)

    @step
    def chmod(self, path: str, mode: int) -> None:
        def act(root: Path) -> None:
            if not (root / path).is_symlink():
                (root / path).chmod(mode)

        self._work(act)

    @step
    def unlink(self, path: str) -> None:
        self._work(lambda root: (root / path).unlink(), path)

    @step
    def rename(self, old: str, new: str) -> None:
        """Of a file or of a whole directory; onto a file, it replaces that."""

        def act(root: Path) -> None:
            (root / old).lstat()
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)

        if old != new and not new.startswith(old + "/"):
            self._work(act, *([new] if not (self.behind / old).is_dir() else []))

    @step
    def mkdir(self, path: str) -> None:
        self._work(lambda root: (root / path).mkdir(parents=True, exist_ok=True))

    @step
    def rmtree(self, path: str) -> None:
        """``rm -r``, file by file: what comes in meanwhile is seen or stays."""
        for directory, directories, names in os.walk(self.behind / path, topdown=False):
            at = os.path.relpath(directory, self.behind)
            links = [name for name in directories if (Path(directory) / name).is_symlink()]
            for below in sorted(f"{at}/{name}" for name in [*names, *links]):
                self._work(lambda root, below=below: (root / below).unlink(), below)
            self._work(lambda root, at=at: (root / at).rmdir())

    @step
    def read(self, path: str) -> None:
        """What a reader gets is what somebody wrote, whole."""
        try:
            content = (self.front / path).read_bytes()
        except OSError as error:
            if error.errno not in _EXPECTED | {errno.EISDIR, errno.ELOOP}:
                raise
            return
        if self.front != self.behind or self.mark(path) is None:
            assert not content or content in self.by_digest.values(), f"read {content[:80]!r} from {path}"

    # ------------------------------------------------------------- the other user of the bucket

    @step
    def put(self, path: str, size: int, mode: int | None = None) -> None:
        metadata = {} if mode is None else {"file-permissions": f"{0o100000 | mode:07o}"}
        self._put(path, self._content(size), metadata)

    @step
    def put_symlink(self, path: str) -> None:
        self._put(path, self._content(TAG), {"file-permissions": "0120777"})

    @step
    def put_marker(self, path: str, mode: int | None = None) -> None:
        self._put(path + "/", b"", {} if mode is None else {"file-permissions": f"{0o040000 | mode:07o}"})

    def _put(self, path: str, body: bytes, metadata: dict[str, str]) -> None:
        with self._frozen():
            self._drop(self.remote(path))
            self.s3.put_object(Bucket=self.bucket, Key=PREFIX + path, Body=body, Metadata=metadata)
            if not body:  # it may replace another empty one: metadata only, see `change_metadata`
                self._send([_record(self.bucket, PREFIX + path, "ObjectCreated:Put")])

    @step
    def delete(self, path: str) -> None:
        with self._frozen():
            self._drop(self.remote(path))
            answer = self.s3.delete_object(Bucket=self.bucket, Key=PREFIX + path)
            if answer.get("DeleteMarker"):  # moto forgets to tell of these
                self.held.append(_record(self.bucket, PREFIX + path, "ObjectRemoved:DeleteMarkerCreated"))

    @step
    def change_metadata(self, path: str, mode: int) -> None:
        """A copy of the object onto itself with other permissions. This event is not lost: a listing shows neither
        metadata nor parts of a second, so that it can't make up for a change right after another one."""
        with self._frozen():
            thing = self.remote(path)
            if thing is not None and thing.kind == "file":
                self.s3.copy_object(
                    Bucket=self.bucket,
                    Key=PREFIX + path,
                    CopySource={"Bucket": self.bucket, "Key": PREFIX + path},
                    MetadataDirective="REPLACE",
                    Metadata={"file-permissions": f"{0o100000 | mode:07o}"},
                )
                self._send([_record(self.bucket, PREFIX + path, "ObjectCreated:Copy")])

    # ------------------------------------------------------------- events

    def _collect(self) -> None:
        """Take the store's notifications: nobody but us brings them to the daemon."""
        while True:
            answer = self.sqs.receive_message(QueueUrl=self.collector, MaxNumberOfMessages=10, WaitTimeSeconds=0)
            messages = answer.get("Messages", [])
            if not messages:
                return
            for message in messages:
                body = json.loads(message["Body"])
                if "Records" in body:
                    self.held.append(body)
                self.sqs.delete_message(QueueUrl=self.collector, ReceiptHandle=message["ReceiptHandle"])

    def _send(self, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.daemon_queue, MessageBody=json.dumps(body))

    @step
    def deliver(self, order: str = "forward") -> None:
        """Bring the events to the daemon: ``forward``, ``backward``, ``double``, or ``stale``, which keeps them too."""
        self._collect()
        bodies = self.held[::-1] if order == "backward" else self.held
        self._send(bodies * 2 if order == "double" else bodies)
        if order != "stale":
            self.held = []

    @step
    def lose_events(self) -> None:
        """They never arrive; the next start's listing makes up for it."""
        self._collect()
        self.events_lost = self.events_lost or bool(self.held)
        self.held = []

    # ------------------------------------------------------------- the daemon

    @step
    def kill(self) -> None:
        """``kill -9``; it stays down."""
        if self.is_up:
            self.made.kill()

    @step
    def stop(self) -> None:
        if self.is_up:
            code = self.made.stop()
            assert code == 0, f"the daemon ended with {code}: {self.made.said()}"

    @step
    def start(self) -> None:
        if not self.is_up:
            self.made.start()

    # ------------------------------------------------------------- what must hold

    @step
    def settle(self) -> None:
        """Let both sides come to rest, and look at the promises of DESIGN §3."""
        if self.events_lost and self.is_up:
            self.stop()
        if not self.is_up:
            self.start()
        self.events_lost = False
        self.deliver()
        left = self.client.wait(self.name.encode(), WAIT_S)
        assert left == [], f"still pending: {left}"
        self.check()

    def check(self) -> None:
        tree, bucket = self.tree(), self.objects()
        lost = {path for path, thing in tree.items() if thing.lost and path not in bucket}
        self._check_agreement({path: thing for path, thing in tree.items() if path not in lost}, bucket)
        self._check_contents(
            {**{f"tree: {p}": t for p, t in tree.items()}, **{f"bucket: {p}": t for p, t in bucket.items()}}
        )
        there = {thing.content for thing in (*tree.values(), *bucket.values()) if not thing.lost}
        missing = sorted(self.must - there)
        assert not missing, f"lost: {[content[:TAG] for content in missing]}"
        (row,) = [row for row in self.client.status()["associations"] if row["id"] == self.id]
        assert (row["pending"], row["errors"], row["state"]) == (0, len(lost), "AVAILABLE"), row

    @staticmethod
    def _check_agreement(tree: dict[str, Thing], bucket: dict[str, Thing]) -> None:
        """Promise 5. A directory that keys lie below needs no marker."""
        implied = {key[: at + 1] for key in bucket for at, letter in enumerate(key) if letter == "/"}
        keys = {*bucket, *implied}
        assert set(tree) == keys, f"only in the tree: {set(tree) - keys}, only in the bucket: {keys - set(tree)}"
        for path, here in tree.items():
            there = bucket.get(path)
            if there is None:
                continue
            differ = f"{path} is {here.kind} {_shown(here.content)} here, {there.kind} {_shown(there.content)} there"
            assert (here.kind, here.content) == (there.kind, there.content), differ
            if here.mode is not None and there.mode is not None:
                assert here.mode == there.mode, f"{path} has {here.mode:o} here, {there.mode:o} there"

    def _check_contents(self, things: dict[str, Thing]) -> None:
        """Promises 3 and 4: whole contents only, and never zeros."""
        for where, thing in things.items():
            known = not thing.content or thing.content in self.by_digest.values()
            assert known, f"{where} holds {thing.content[:80]!r} ({len(thing.content)} bytes), which nobody wrote"

    @step
    def settle_and_read(self) -> None:
        """`settle`, and then read every file and every version there was."""
        self.settle()
        self.check_reading()
        self.check_versions()
        self.settle()

    def check_versions(self) -> None:
        """Promise 3 for all that ever was an object."""
        if not self.versioned:
            return
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=PREFIX)
        for entry in [entry for page in pages for entry in page.get("Versions", [])]:
            body = self.s3.get_object(Bucket=self.bucket, Key=entry["Key"], VersionId=entry["VersionId"])["Body"].read()
            assert not body or body in self.by_digest.values(), f"{entry['Key']} was once {body[:80]!r}"

    def check_reading(self) -> None:
        """What applications read is what the tree and the bucket agree on: loads every released file."""
        if self.made.mounted:
            root = self.made.directory / self.name
            for path, thing in self.tree().items():
                if thing.kind == "file" and not thing.lost:
                    assert _shown((root / path).read_bytes()) == _shown(thing.content), path

    def tree(self) -> dict[str, Thing]:
        """Everything in the directory; directories end with a slash, as keys do."""
        found: dict[str, Thing] = {}
        for directory, directories, names in os.walk(self.behind):
            at = Path(directory).relative_to(self.behind)
            for name in [*directories, *names]:
                path = str(at / name)
                thing = self.local(path)
                assert thing is not None
                found[path + "/" if thing.kind == "directory" else path] = thing
        return found

    def objects(self) -> dict[str, Thing]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=PREFIX)
        keys = [entry["Key"].removeprefix(PREFIX) for page in pages for entry in page.get("Contents", [])]
        return {key: thing for key in keys if (thing := self.remote(key)) is not None}

    def conflict_copies(self) -> list[str]:
        return [path for path in self.tree() if is_conflict_name(os.fsencode(path.rpartition("/")[2]))]

    def end(self) -> None:
        """Take the association out of the daemon, for the next world."""
        self.client.delete(self.id, delete_data=False, force=True, hydrate=False)
        self.sqs.delete_queue(QueueUrl=self.collector)


def _record(bucket: str, key: str, name: str) -> dict[str, Any]:
    there = {"bucket": {"name": bucket}, "object": {"key": urllib.parse.quote_plus(key)}}
    return {
        "Records": [{"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-23T17:52:29.000Z", "s3": there}]
    }


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _shown(content: bytes) -> tuple[bytes, int]:
    return content[:40], len(content)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes, *, new: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb" if new else "wb") as stream:
        stream.write(content)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    _write(beside, content)
    beside.rename(path)
