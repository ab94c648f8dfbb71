"""Both sides of one association, with somebody at work on each: what they do, and what must hold afterwards.

Every file that is made holds bytes that nothing else holds, so that whatever lies somewhere later tells where it came
from. ``must`` are the contents that have to survive: what somebody wrote and closed, or put, and what nobody removed or
replaced *on the side where it was*. An operation of one side never takes away what only the other side had: that is
what conflicts are for (DESIGN §8).

Where a name is a file's on one side and a directory's on the other, neither yields: a person decides, and until then
both stay (DESIGN §7). Under another policy than ``keep-both`` a conflict has a loser, whose content goes, as was asked
for (DESIGN §8): `note_losers` forgives exactly the contents that one side brought to a path which the other wrote, too.

What nobody can know is not held against the daemon: who fails half-way (the daemon died under him, the disk was full)
may have written, or a part; who writes while the other side does may have met its version or not.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from model.daemons import Daemon
from support.instance import DiedAtOnceError, eventually
from support.moto_server import MotoServer

from fsxsync.control.client import Client
from fsxsync.model.stub import XATTR, StubMark

WAIT_S = 60
ANCHOR = "anchor"
"""An object that nobody touches: a listing that is empty all of a sudden is not believed (DESIGN §3.6)."""
TAG = 12
"""Bytes at the start of every content that tell it from all others."""
_EXPECTED = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EIO,
    errno.ENODATA,
    errno.ESTALE,
    errno.EINVAL,
    errno.ENOTDIR,
    errno.EISDIR,
}
"""What an application may meet: the other side changed something under its hands, or put a file where it needs a
directory."""
_FAILED = {
    errno.ENOTCONN,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EAGAIN,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.ENODEV,
    errno.EXDEV,
}
"""What it may meet where something fails: the daemon, the store, the disk."""
FLOOD = 6000
"""Files made and removed in a row: three inotify records each, more than the queue's 16,384."""

P = ParamSpec("P")
W = TypeVar("W", bound="Acting")


class Thing(NamedTuple):
    """What is at a path: file, directory or symlink, its bytes or target, its permissions where they are known."""

    kind: str
    content: bytes = b""
    mode: int | None = None
    lost: bool = False


def step(method: Callable[Concatenate[W, P], None]) -> Callable[Concatenate[W, P], None]:
    """Write the call down, so that a failure prints a script for `test_regressions.py`."""

    @wraps(method)
    def noted(self: W, *args: P.args, **kwargs: P.kwargs) -> None:
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
class Acting:
    """``way`` is how the directory is worked on: ``mount``, ``behind`` the mount, or ``watch`` mode."""

    daemon: Daemon
    moto: MotoServer
    way: str
    versioned: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """Of the association."""
    script: list[str] = field(default_factory=list)
    must: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    by_digest: dict[str, bytes] = field(default_factory=dict)
    contents: set[bytes] = field(default_factory=set)
    """All that anybody ever wrote as a whole."""
    parts: set[bytes] = field(default_factory=set)
    """What may be there up to some byte: its writer was stopped, or was seen between two writes."""
    held: list[dict[str, Any]] = field(default_factory=list)
    sure: list[dict[str, Any]] = field(default_factory=list)
    """Events of what a listing does not show: they may come again, but none is lost."""
    ours: dict[str, set[bytes]] = field(default_factory=dict)
    """By path: what applications brought there since both sides agreed last."""
    theirs: dict[str, set[bytes]] = field(default_factory=dict)
    """The same of the other user of the bucket."""
    events_lost: bool = False
    failed: bool = False
    is_frozen: bool = False
    number: int = 0
    deaths: int = 0
    was_full: bool = False
    """A daemon that finds no room for its catalog ends."""
    depth: int = 0

    def __post_init__(self) -> None:
        self.made, self.store, self.crash = self.daemon.made, self.daemon.store, self.daemon.crash
        self.store.begin()
        self.deaths = self.crash.deaths
        self.s3, self.sqs = self.moto.client("s3"), self.moto.client("sqs")
        self.bucket, self.collector = self.daemon.bucket(versioned=self.versioned)
        self.daemon.renew_queue()  # the last world's reader may be at it for another moment
        self._collect()  # what the last world left
        self.held = []
        self.name = f"m-{uuid.uuid4().hex[:12]}"
        self.prefix = f"{self.name}/"
        self.client = Client(self.made.state_dir)
        self.s3.put_object(Bucket=self.bucket, Key=self.prefix + ANCHOR, Body=self._content(100))
        association = self.client.associate(
            {
                "repository": f"s3://{self.bucket}/{self.prefix}",
                "path": f"/{self.name}",
                "endpoint_url": self.store.url,
                "events": f"sqs:{self.store.queue_url}",
                **self.options,
            }
        )
        self.id: str = association["id"]

    # ------------------------------------------------------------- places

    @property
    def is_up(self) -> bool:
        return self.made.is_alive()

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
        self._know(content)
        self._hold(content)

    def _hold(self, content: bytes) -> None:
        """It must not be lost from now on; the empty file is nothing that could be."""
        if content:
            self.must.add(content)

    def _know(self, content: bytes) -> None:
        self.by_digest[_md5(content)] = content
        self.contents.add(content)

    def _drop(self, thing: Thing | None) -> None:
        """Whoever had it before his eyes took it away."""
        if thing is not None and thing.content:
            self.must.discard(thing.content)
            self.gone.add(thing.content)

    def _brought(self, path: str, *contents: bytes) -> None:
        """An application did, to a path and to all other names of the file there."""
        if not self.has_losers:
            return
        inode = _inode(self.behind / path)
        names = {path}
        for directory, _, files in os.walk(self.behind):
            at = os.path.relpath(directory, self.behind)
            names |= {os.path.normpath(f"{at}/{name}") for name in files if _inode(Path(directory, name)) == inode}
        for name in names:
            self.ours.setdefault(name, set()).update(contents)

    def note_losers(self) -> None:
        """Whose content a conflict may cost under this policy, before the promises are looked at."""
        policy = self.options.get("on_conflict", "keep-both")
        for path in self.ours.keys() & self.theirs.keys():
            losers: set[bytes] = set()
            if policy in {"remote", "newest"}:
                losers |= self.ours[path]
            if policy in {"local", "newest"}:
                losers |= self.theirs[path]
            for content in losers:
                self._doubt(Thing("file", content))

    def doubt_all(self, path: str) -> None:
        """Somebody decides on the versions of a path, its conflict copies among them."""
        stem = Path(path).name
        for file in (self.behind / path).parent.iterdir():
            if file.name.startswith(stem):
                self._doubt(self.local(str(file.relative_to(self.behind))))
        self._doubt(self.remote(path))

    def _doubt(self, thing: Thing | None) -> None:
        """It may be gone, and nobody is to blame."""
        self._drop(thing)

    def is_known(self, content: bytes) -> bool:
        """Somebody wrote that, whole, or as far as a writer came who was stopped."""
        return not content or content in self.contents or any(part.startswith(content) for part in self.parts)

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
                content = file.read_bytes()
                if self.mark(path) is not None:
                    return self.local(path, root)  # it was released while it was read
                return Thing("file", content, mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if status.st_size == 0:  # who cut it died before its mark went: it is imported again
            return Thing("cut", mode=mode)
        assert mark.size == status.st_size, f"{path}: a stub of {mark} has {status.st_size} bytes"
        content = self.by_digest.get(mark.etag) or self._body(mark)
        assert content is not None, f"{path} stands for {mark}, which nobody made"
        return Thing("file", content, mode, lost=content in self.gone)

    def _body(self, mark: StubMark) -> bytes | None:
        """Of an object whose ETag is no digest: it came in parts."""
        for version in ({"VersionId": mark.version_id}, {}) if mark.version_id else ({},):
            try:
                answer = self.s3.get_object(Bucket=self.bucket, Key=mark.key, IfMatch=mark.etag, **version)
            except self.s3.exceptions.ClientError:
                continue
            body: bytes = answer["Body"].read()
            self.by_digest[mark.etag] = body
            return body
        return None

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
            with self.store.still():  # moto answers 500 if somebody deletes it meanwhile
                answer = self.s3.get_object(Bucket=self.bucket, Key=self.prefix + path)
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
        if self.is_frozen or daemon is None or not self.is_up:
            yield
            return
        daemon.send_signal(signal.SIGSTOP)
        self.is_frozen = True
        try:
            eventually(lambda: _stands_still(daemon.pid))
            with self.store.still():
                yield
        finally:
            self.is_frozen = False
            daemon.send_signal(signal.SIGCONT)

    def _work(self, action: Callable[[Path], object], *replaced: str) -> bool:
        """Do something in the directory. What stood at the paths ``replaced`` is gone then, unless it failed."""
        if self.front == self.behind:
            with self._frozen():
                return self._do(action, [(path, self.local(path)) for path in replaced])
        # Through the mount the daemon has to run: an import may come between our look and our deed, and what it
        # brought is then what the application replaced.
        return self._do(action, [(path, look(path)) for path in replaced for look in (self.local, self.remote)])

    def _do(self, action: Callable[[Path], object], before: list[tuple[str, Thing | None]]) -> bool:
        try:
            action(self.front)
        except OSError as error:
            if error.errno not in _EXPECTED | _FAILED:
                raise
            for path, thing in before:
                here = self.local(path)
                if thing is not None and (here is None or here.content != thing.content):
                    self._doubt(thing)
                if here is not None and (thing is None or here.content != thing.content):
                    self._brought(path)  # on a full disk: cut, and not written, which is a change all the same
            return False
        for _, thing in before:
            self._drop(thing)
        return True

    def _tried(self, path: str, old: bytes) -> None:
        """In vain, as it was told; the daemon may have died after the bytes were written and before it said so."""
        here = self.local(path)
        if here is not None and here.content != old:
            self._doubt(Thing("file", old))
            self._brought(path)

    # ------------------------------------------------------------- the application

    @step
    def write(self, path: str, size: int) -> None:
        """Make a file, or overwrite it in place."""
        content = self._content(size)
        self.must.discard(content)  # until it is written
        if not self._do_write(path, content):
            self.parts.add(content)
        else:
            self._hold(content)
            self._brought(path, content)

    def _do_write(self, path: str, content: bytes) -> bool:
        if self.front == self.behind:
            with self._frozen():
                before = self.local(path)
                if before is not None and (before.kind == "symlink" or self.mark(path) is not None):
                    # Who writes behind the mount replaces a released file, and does not write into it (DESIGN §5).
                    return self._do(lambda root: _replace(root / path, content), [(path, before)])
                return self._do(lambda root: _write(root / path, content), [(path, before)])
        before, inode = self.local(path), _inode(self.behind / path)
        if before is not None and before.kind == "symlink":
            replaced = [(path, before), (path, self.remote(path))]
            return self._do(lambda root: _replace(root / path, content), replaced)
        done = self._do(lambda root: _write(root / path, content, new=before is None), [(path, before)])
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
                self._check_read(path, old)
                self._know(old + more)
                started.append(old + more)
                stream.write(more)
                self._drop(Thing("file", old))
            if old:
                self._keep(old + more)
            self._brought(path, old + more)

        started: list[bytes] = []
        if not self._work(act):
            self.parts.update(started)  # the disk was full in the middle
            for content in started:
                self._tried(path, content[: -len(more)])

    @step
    def truncate(self, path: str, size: int) -> None:
        """Cut a file off, but not its tag."""

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b") as stream:
                old = stream.read()
                self._check_read(path, old)
                if TAG <= size < len(old):
                    self._know(old[:size])
                    started.append(old)
                    stream.truncate(size)
                    self._drop(Thing("file", old))
            if TAG <= size < len(old):
                self._keep(old[:size])
                self._brought(path, old[:size])

        started: list[bytes] = []
        if not self._work(act):
            for old in started:
                self._tried(path, old)

    @step
    def replace(self, path: str, size: int) -> None:
        """As editors save: a new file, renamed over the old one."""
        content = self._content(size)
        self.must.discard(content)
        if not self._work(lambda root: _replace(root / path, content), path):
            self.parts.add(content)
        else:
            self._hold(content)
            self._brought(path, content)

    @step
    def symlink(self, path: str) -> None:
        target = self._content(TAG)
        self.must.discard(target)

        def act(root: Path) -> None:
            beside = root / (path + ".tmp-link")
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(target.decode())
            _rename_or_remove(beside, root / path)

        if self._work(act, path):
            self._hold(target)
            self._brought(path, target)

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

        if old == new or new.startswith(old + "/"):
            return
        is_directory = (self.behind / old).is_dir()
        moved = self._contents_at(old)
        if self._work(act, *([] if is_directory else [new])):
            for below, contents in moved.items():
                self._brought(new + below, *contents)

    def _contents_at(self, path: str) -> dict[str, set[bytes]]:
        """What stands at a path and below it, by the rest of the path, on both sides: an import may come before a
        rename through the mount."""
        found: dict[str, set[bytes]] = {}
        if not self.has_losers:
            return found
        with self._frozen():
            names = [""]
            for directory, _, files in os.walk(self.behind / path):
                at = os.path.relpath(directory, self.behind / path)
                names += ["/" + os.path.normpath(f"{at}/{name}") for name in files]
            for below in names:
                things = [self.local(path + below), self.remote(path + below)]
                found[below] = {thing.content for thing in things if thing is not None and thing.content}
        return found

    @property
    def has_losers(self) -> bool:
        """A conflict costs one of the two versions, as the policy says."""
        return self.options.get("on_conflict", "keep-both") != "keep-both"

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
        through_mount = self.front != self.behind
        try:
            content = (self.front / path).read_bytes()
        except OSError as error:
            if error.errno not in _EXPECTED | _FAILED | {errno.EISDIR, errno.ELOOP}:
                raise
            return
        if through_mount or self.mark(path) is None:
            self._check_read(path, content)

    def _check_read(self, path: str, content: bytes) -> None:
        assert self.is_known(content), f"read {content[:80]!r} ({len(content)} bytes) from {path}, which nobody wrote"

    @step
    def link(self, old: str, new: str) -> None:
        """Another name for a file."""

        def act(root: Path) -> None:
            if not (root / old).is_symlink():
                (root / new).parent.mkdir(parents=True, exist_ok=True)
                (root / new).hardlink_to(root / old)

        linked = self._contents_at(old)
        if self._work(act):
            self._brought(new, *linked.get("", ()))

    @step
    def grow(self, path: str, pieces: int, piece: int) -> None:
        """Write a file piece by piece while the daemon works; what is seen between two pieces is no lie."""
        content = self._content(pieces * piece)
        self.must.discard(content)
        self.parts.add(content)

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                raise OSError(errno.ESTALE, "not to be written in place")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with (root / path).open("wb", buffering=0) as stream:
                for at in range(0, len(content), piece):
                    stream.write(content[at : at + piece])
                    time.sleep(0.01)

        before = [(path, look(path)) for look in (self.local, self.remote)]
        if self._do(act, before):
            self._hold(content)
            self._brought(path, content)

    @step
    def race(self, path: str, size: int) -> None:
        """Both sides write at the same moment. Ours is there afterwards, unless it was exported before theirs came."""
        ours, theirs = self._content(size), self._content(size + TAG)
        self.must -= {ours, theirs}
        self.gone.add(theirs)  # an import may have brought it before we wrote
        before = [(path, look(path)) for look in (self.local, self.remote)]
        replaced: list[Thing | None] = []

        def put() -> None:
            with self.store.still():
                replaced.append(self.remote(path))
                self._put_object(path, theirs, {})

        other = threading.Thread(target=put)
        other.start()
        done = self._do(lambda root: _replace(root / path, ours), before)
        other.join()
        if not done:
            self.parts.add(ours)
        else:
            self._hold(ours)
            self._brought(path, ours)
        self._drop(replaced[0])

    # ------------------------------------------------------------- the other user of the bucket

    @step
    def put(self, path: str, size: int, mode: int | None = None) -> None:
        metadata = {} if mode is None else {"file-permissions": f"{0o100000 | mode:07o}"}
        self._put(path, self._content(size), metadata)

    @step
    def put_parts(self, path: str, sizes: Sequence[int], mode: int | None = None) -> None:
        """Upload in parts: the object's ETag is no digest of its bytes."""
        body = self._content(sum(sizes))
        place = {"Bucket": self.bucket, "Key": self.prefix + path}
        metadata = {} if mode is None else {"file-permissions": f"{0o100000 | mode:07o}"}
        upload = place | {"UploadId": self.s3.create_multipart_upload(**place, Metadata=metadata)["UploadId"]}
        parts, at = [], 0
        for number, size in enumerate(sizes, 1):
            answer = self.s3.upload_part(**upload, PartNumber=number, Body=body[at : at + size])
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            at += size
        with self.store.still():
            self._drop(self.remote(path))
            answer = self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            self._made(path, answer["ETag"].strip('"'), answer)
        self.by_digest[answer["ETag"].strip('"')] = body
        self.theirs.setdefault(path, set()).add(body)

    @step
    def put_symlink(self, path: str) -> None:
        self._put(path, self._content(TAG), {"file-permissions": "0120777"})

    @step
    def put_marker(self, path: str, mode: int | None = None) -> None:
        self._put(path + "/", b"", {} if mode is None else {"file-permissions": f"{0o040000 | mode:07o}"})

    def _put(self, path: str, body: bytes, metadata: dict[str, str]) -> None:
        with self.store.still():
            self._drop(self.remote(path))
            self._put_object(path, body, metadata)
            if not body:  # it may replace another empty one: metadata only, see `change_metadata`
                self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Put"))

    def _put_object(self, path: str, body: bytes, metadata: dict[str, str]) -> None:
        answer = self.s3.put_object(Bucket=self.bucket, Key=self.prefix + path, Body=body, Metadata=metadata)
        self.theirs.setdefault(path, set()).add(body)
        self._made(path, answer["ETag"].strip('"'), answer)

    def _made(self, path: str, etag: str, answer: Any) -> None:
        place = f"/{self.bucket}/{self.prefix}{path}"
        self.store.made(place, etag, ours=False, version_id=answer.get("VersionId"))

    @step
    def delete(self, path: str) -> None:
        with self.store.still():
            self._drop(self.remote(path))
            answer = self.s3.delete_object(Bucket=self.bucket, Key=self.prefix + path)
            self._made(path, "", answer)
            if answer.get("DeleteMarker"):  # moto forgets to tell of these
                self.held.append(_record(self.bucket, self.prefix + path, "ObjectRemoved:DeleteMarkerCreated"))

    @step
    def change_metadata(self, path: str, mode: int) -> None:
        """A copy of the object onto itself with other permissions. This event is not lost: a listing shows neither
        metadata nor parts of a second, so that it can't make up for a change right after another one."""
        with self.store.still():
            thing = self.remote(path)
            if thing is not None and thing.kind == "file":
                self.theirs.setdefault(path, set()).add(thing.content)  # uploaded in parts, it gets another ETag
                answer = self.s3.copy_object(
                    Bucket=self.bucket,
                    Key=self.prefix + path,
                    CopySource={"Bucket": self.bucket, "Key": self.prefix + path},
                    MetadataDirective="REPLACE",
                    Metadata={"file-permissions": f"{0o100000 | mode:07o}"},
                )
                self._made(path, answer["CopyObjectResult"]["ETag"].strip('"'), answer)
                self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Copy"))

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

    def announce(self, path: str) -> None:
        """An object's metadata was changed."""
        self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Copy"))

    def _send_surely(self, body: dict[str, Any]) -> None:
        self.sure.append(body)
        self._send([body])

    def _send(self, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.store.queue, MessageBody=json.dumps(body))

    @step
    def deliver(self, order: str = "forward") -> None:
        """Bring the events to the daemon: ``forward``, ``backward``, ``shuffled``, ``double``, or ``stale``,
        which keeps them too."""
        self._collect()
        bodies = self.held[::-1] if order == "backward" else list(self.held)
        if order == "shuffled":
            random.Random(self.number).shuffle(bodies)  # noqa: S311
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
            died = code == -signal.SIGKILL and self.crash.deaths != self.deaths
            assert code == 0 or died or self.was_full, f"the daemon ended with {code}: {self.made.said()}"

    @step
    def start(self) -> None:
        if self.crash.deaths != self.deaths and self.made.daemon is not None:
            self.made.daemon.wait(60)  # it kills itself this moment
        while not self.is_up:
            self.daemon.renew_queue()
            self._send(self.sure)
            try:
                self.made.start()
            except DiedAtOnceError:
                if self.crash.is_armed or self.crash.deaths == self.deaths:
                    if not self.daemon.is_full:
                        raise
                    return  # without a byte of space it says so and ends
            self.deaths = self.crash.deaths

    # ------------------------------------------------------------- what goes wrong

    @step
    def die(self, moments: int) -> None:
        """The daemon dies at the so-many-th durable step from now."""
        self.crash.arm(moments)

    @step
    def fail(self, kind: str, method: str = "", count: int = 1) -> None:
        """The next requests of that kind fail, before they took effect or after."""
        self.store.faults += [(kind, method)] * count

    @step
    def go_down(self) -> None:
        """The endpoint is out of reach until the next `settle`, or `heal`."""
        self.store.hang_up()

    @step
    def heal(self) -> None:
        self.store.heal()
        self.daemon.empty()

    @step
    def fill(self) -> None:
        """No byte of space is left where tree and catalog are."""
        self.daemon.fill()
        self.was_full = True

    @step
    def jump(self, hours: int) -> None:
        """The daemon's clock is wrong by so much from now on."""
        self.crash.set_clock(hours * 3600 * 10**9)

    @step
    def flood(self, paths: Sequence[str] = ()) -> None:
        """inotify's queue overflows: what happens next is not told, to files that are written, renamed and removed
        behind the daemon's back among it (those at three ``paths``)."""
        with self._frozen():
            beside = self.behind / "flood~"
            for _ in range(FLOOD):
                os.close(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600))
                os.unlink(beside)
            if self.front == self.behind and paths:
                written, renamed, removed = paths
                content = self._content(100)
                self.must.discard(content)
                if self._do(lambda root: _replace(root / written, content), [(written, self.local(written))]):
                    self._hold(content)
                    self._brought(written, content)
                linked = self._contents_at(renamed)
                new = renamed + "-unseen"
                if self._do(lambda root: (root / renamed).rename(root / new), [(new, self.local(new))]):
                    for below, contents in linked.items():
                        self._brought(new + below, *contents)
                self._do(lambda root: (root / removed).unlink(), [(removed, self.local(removed))])

    def end(self) -> None:
        """Take the association out of the daemon, for the next world."""
        self.start()
        self.client.delete(self.id, delete_data=False, force=True, hydrate=False)
        # moto reads all keys of a bucket for each listing: what is left here would slow down all worlds to come.
        # (Delete markers stay: with notifications on, it can't delete one.)
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.prefix)
        for page in pages:
            for entry in page.get("Versions", []):
                self.s3.delete_object(Bucket=self.bucket, Key=entry["Key"], VersionId=entry["VersionId"])


def _record(bucket: str, key: str, name: str) -> dict[str, Any]:
    there = {"bucket": {"name": bucket}, "object": {"key": urllib.parse.quote_plus(key)}}
    return {
        "Records": [{"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-23T17:52:29.000Z", "s3": there}]
    }


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def shown(content: bytes) -> tuple[bytes, int]:
    return content[:40], len(content)


def _stands_still(pid: int) -> bool:
    """Also where it died meanwhile, whether somebody has waited for it or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except FileNotFoundError:
        return True


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, content: bytes, *, new: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb" if new else "wb") as stream:
        stream.write(content)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    _write(beside, content)
    _rename_or_remove(beside, path)


def _rename_or_remove(beside: Path, path: Path) -> None:
    """What can't be moved to its name is not left lying about: nobody would know it for what it is."""
    try:
        beside.rename(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
