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
import shutil
import signal
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
        self.script.append(f"world.{method.__name__}({', '.join(words)})")
        method(self, *args, **kwargs)

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
    number: int = 0

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
                "events": self.daemon_queue,
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
        self.by_digest[hashlib.md5(content, usedforsecurity=False).hexdigest()] = content
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

    @contextmanager
    def _at_work(self, *replaced: str) -> Iterator[Path]:
        """Work in the directory; what stood at the paths ``replaced`` is gone afterwards, unless it failed."""
        if self.front != self.behind:
            # The mount's answers need the daemon: an import may come between our look and our deed, and what it
            # brought is then what the application replaced.
            before = [thing for path in replaced for thing in (self.local(path), self.remote(path))]
            if self._do(before, self.front):
                yield self.front
            return
        with self._frozen():
            yield self.behind

    def _do(self, before: list[Thing | None], root: Path) -> bool:
        raise NotImplementedError
