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
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.daemons import Daemon
from model.history import Row
from model.ledger import Ledger
from model.rows import row_of
from model.things import Thing, inode_of, metadata_of
from support.instance import eventually
from support.moto_server import MotoServer

from fsxsync.control.client import Client
from fsxsync.model.stub import XATTR, StubMark

WAIT_S = 150
"""More than the daemon waits for an answer (60 s) before it asks again, which is no failure to be told of."""
ANCHOR = "anchor"
"""An object that nobody touches: a listing that is empty all of a sudden is not believed (DESIGN §3.6)."""
EXPECTED = {
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
FAILED = {
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


@dataclass
class Sides(Ledger):
    """``way`` is how the directory is worked on: ``mount``, ``behind`` the mount, or ``watch`` mode."""

    daemon: Daemon
    moto: MotoServer
    way: str
    versioned: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """Of the association."""
    beside: Sides | None = None
    """The world that this is a second association of: one daemon, one queue, one ledger."""
    is_one_of_two: bool = False
    called: str = "world"
    keeps_clock: bool = False
    """A clock that is wrong stays so while both sides come to rest: no promise depends on the time of day."""
    script: list[str] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    sure: list[dict[str, Any]] = field(default_factory=list)
    """Events of what a listing does not show: they may come again, but none is lost."""
    ours: dict[str, set[bytes]] = field(default_factory=dict)
    """By path: what applications brought there since both sides agreed last."""
    theirs: dict[str, set[bytes]] = field(default_factory=dict)
    """The same of the other user of the bucket."""
    brought_s: dict[str, float] = field(default_factory=dict)
    """By path: when an application brought something there since both sides agreed last, or the later time that it
    gave the file."""
    decided: set[tuple[str, str]] = field(default_factory=set)
    """Keys and ETags of objects that a person gave up."""
    events_lost: bool = False
    failed: bool = False
    deaths: int = 0
    was_full: bool = False
    """A daemon that finds no room for its catalog ends."""
    depth: int = 0

    def __post_init__(self) -> None:
        self.made, self.store, self.crash = self.daemon.made, self.daemon.store, self.daemon.crash
        self.s3, self.sqs = self.moto.client("s3"), self.moto.client("sqs")
        self.bucket, self.collector = self.daemon.bucket(versioned=self.versioned)
        self.name = f"m-{uuid.uuid4().hex[:12]}"
        self.prefix = f"{self.name}/"
        self.client = Client(self.made.state_dir)
        self.deaths = self.crash.deaths
        if self.beside is None:
            self._begin()
        else:
            self._share(self.beside)
            self.script, self.held, self.sure = self.beside.script, self.beside.held, self.beside.sure
        answer = self.s3.put_object(Bucket=self.bucket, Key=self.prefix + ANCHOR, Body=self._content(100))
        etag = answer["ETag"].strip('"')
        self.store.history.add(self.place_of(ANCHOR), etag, by_ours=False, version_id=answer.get("VersionId"))
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
        self.store.history.rows[self.place_of("")] = self._row_of

    def _begin(self) -> None:
        """Nothing of the last world is left."""
        self.store.begin()
        self.crash.set_clock(0)
        self.daemon.renew_queue()  # the last world's reader may be at it for another moment
        self._collect()
        self.held.clear()

    def place_of(self, path: str) -> str:
        """As the store's history has it."""
        return f"/{self.bucket}/{self.prefix}{path}"

    def _row_of(self, place: str) -> Row:
        return row_of(self.made.state_dir, self.id, place.removeprefix(self.place_of("")))

    # ------------------------------------------------------------- places

    @property
    def is_up(self) -> bool:
        code = self.made.daemon.poll() if self.made.daemon is not None else None
        if code not in {None, 0, -signal.SIGKILL}:  # one that finds no room for its catalog says so in words
            is_told = self.was_full and "Traceback" not in self.made.said()
            assert is_told, f"the daemon ended by itself with {code}: {self.made.said()}"
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

    def described(self) -> str:
        """For the note of a failure."""
        return f"way = {self.way!r}, versioned = {self.versioned}\n" + self.log()

    # ------------------------------------------------------------- contents

    def _brought(self, path: str, *contents: bytes) -> None:
        """An application did, to a path and to all other names of the file there."""
        if not self.has_losers:
            return
        inode = inode_of(self.behind / path)
        names = {path}
        for directory, _, files in os.walk(self.behind):
            at = os.path.relpath(directory, self.behind)
            names |= {os.path.normpath(f"{at}/{name}") for name in files if inode_of(Path(directory, name)) == inode}
        for name in names:
            self.ours.setdefault(name, set()).update(contents)
            self.brought_s[name] = max(time.time(), _mtime_s(self.behind / name))

    @property
    def by_hand(self) -> bool:
        """In one direction or both nothing is done but by tasks."""
        return [] in (self.options.get("import"), self.options.get("export"))

    def is_left_out(self, path: str) -> bool:
        """By a filter of whole names."""
        return any(part in self.options.get("exclude", ()) for part in path.rstrip("/").split("/"))

    def note_losers(self) -> None:
        """Whose content a conflict may cost under this policy, before the promises are looked at."""
        policy = self.options.get("on_conflict", "keep-both")
        for path in self.ours.keys() & self.theirs.keys():
            if self.is_left_out(path):
                continue  # there is no conflict
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

    def local(self, path: str, root: Path | None = None) -> Thing | None:
        """What stands at a path behind the mount; a stub counts as the bytes that it stands for."""
        file = (root or self.behind) / path
        try:
            status = os.lstat(file)
            mode = status.st_mode & 0o3777
            said: dict[str, Any] = {"owner": (status.st_uid, status.st_gid), "mtime_ns": status.st_mtime_ns}
            if file.is_symlink():
                return Thing("symlink", os.fsencode(os.readlink(file)), **said)
            if file.is_dir():
                return Thing("directory", mode=mode, **said)
            mark = self.mark(path)
            if mark is None:
                content = file.read_bytes()
                if self.mark(path) is not None:
                    return self.local(path, root)  # it was released while it was read
                return Thing("file", content, mode, **said)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if status.st_size == 0:  # who cut it died before its mark went: it is imported again
            return Thing("cut", mode=mode)
        assert mark.size == status.st_size, f"{path}: a stub of {mark} has {status.st_size} bytes"
        content = self.by_digest.get(mark.etag) or self._body(mark)
        assert content is not None, f"{path} stands for {mark}, which nobody made"
        return Thing("file", content, mode, lost=content in self.gone, **said)

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
        known = None if mode is None or kind == "symlink" else mode & 0o3777
        said = metadata_of(answer["Metadata"])
        return Thing(kind, answer["Body"].read(), known, etag=answer["ETag"].strip('"'), **said)

    # ------------------------------------------------------------- one thing at a time

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """The daemon stands still, wherever it happens to be: who looks and acts now sees what he replaces."""
        daemon = self.made.daemon
        if self.daemon.is_frozen or daemon is None or not self.is_up:
            yield
            return
        daemon.send_signal(signal.SIGSTOP)
        self.daemon.is_frozen = True
        try:
            eventually(lambda: _stands_still(daemon.pid))
            with self.store.still():
                yield
        finally:
            self.daemon.is_frozen = False
            daemon.send_signal(signal.SIGCONT)

    def _work(self, action: Callable[[Path], object], *replaced: str) -> bool:
        """Do something in the directory. What stood at the paths ``replaced`` is gone then, unless it failed."""
        root = self.front
        if root == self.behind:
            with self._frozen():
                return self._do(action, [(path, self.local(path)) for path in replaced], root)
        # Through the mount the daemon has to run: an import may come between our look and our deed, and what it
        # brought is then what the application replaced.
        return self._do(action, [(path, look(path)) for path in replaced for look in (self.local, self.remote)], root)

    def _do(
        self, action: Callable[[Path], object], before: list[tuple[str, Thing | None]], root: Path | None = None
    ) -> bool:
        """``before`` is what stands at paths that it replaces, in the tree, and in the bucket: see `_may_be_here`.
        ``root`` is where, for who asked already: `front` changes when the daemon dies."""
        try:
            action(root or self.front)
        except OSError as error:
            if error.errno not in EXPECTED | FAILED:
                raise
            for path, thing in before:
                here = self.local(path)
                if thing is not None and (here is None or here.content != thing.content):
                    self._replaced(path, thing)
                if here is not None and (thing is None or here.content != thing.content):
                    self._brought(path)  # on a full disk: cut, and not written, which is a change all the same
            return False
        for path, thing in before:
            self._replaced(path, thing)
        return True

    def _replaced(self, path: str, thing: Thing | None) -> None:
        """Somebody took it away, or might have, who had the path before his eyes."""
        if thing is not None and self._may_be_here(path, thing):
            self._drop(thing)

    def _may_be_here(self, path: str, thing: Thing) -> bool:
        """An import may have brought that object by now, or may be about to: the daemon was told of it. Of a version
        that it has not heard of no application can have replaced anything: that is a conflict, and both stay."""
        if not thing.etag:
            return True
        is_told = self.store.history.was_told(self.place_of(path), thing.etag)
        return is_told and not self.is_left_out(path)

    def _tried(self, path: str, old: bytes) -> None:
        """In vain, as it was told; the daemon may have died after the bytes were written and before it said so."""
        here = self.local(path)
        if here is not None and here.content != old:
            self._doubt(Thing("file", old))
            self._brought(path)
        elif here is not None and here.mtime_ns is not None:
            self.set_times.add(here.mtime_ns)  # a write that fails moves it all the same


def _stands_still(pid: int) -> bool:
    """Also where it died meanwhile, whether somebody has waited for it or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except FileNotFoundError:
        return True


def _mtime_s(path: Path) -> float:
    """0: nothing is there any more."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
