"""The staging directory: where new files are made before they take their place, outside what is watched.

Two kinds of names live here. ``new-…`` is being made: nothing of value is lost with it. ``old-…`` is a file that was
taken out of the tree to be checked; for a moment it may be the only copy of what somebody just wrote. Its note
(``old-….note``), written before it is taken out, says where it came from, so that a start after a crash finds it again.
The note is not brought to the disk first, which would cost each import a commit of the journal: after a power cut it
may be empty. Then nobody knows where the file came from, and it stays here (`recovery`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.errors import NoUserXattrs, TreeError
from fsxsync.model.identity import Local
from fsxsync.model.stub import RESERVED_PREFIX, XATTR, StubMark
from fsxsync.tree.beneath import DIRECTORY, translated, tree_error
from fsxsync.tree.identify import identify_fd, local_of
from fsxsync.tree.moments import Moments, write_whole
from fsxsync.tree.xattrs import write_xattrs

INSIDE = b".fsxsync-staging"
"""Its name directly below the root, where the state directory lies on another file system than the tree."""
NEW, OLD, NOTE = b"new-", b"old-", b".note"
_PROBE = RESERVED_PREFIX + b"probe"


@dataclass(frozen=True, slots=True)
class Staged:
    """Something ready to take its place: its name in the staging directory and its state there."""

    name: bytes
    local: Local


@dataclass(frozen=True, slots=True)
class NewStub:
    """A stub to be made: its name in the directory, the object it stands for, and its metadata. -1 leaves the owner."""

    name: bytes
    mark: StubMark
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """Where a file was taken from, how it was judged there, under which name it is to be kept, if any, and what takes
    its place: inode, size, time."""

    path: bytes
    ino: int
    size: int
    mtime_ns: int
    keep_as: bytes | None
    staged: tuple[int, int, int] | None = None

    def encode(self) -> bytes:
        return json.dumps(
            {
                "path": self.path.hex(),
                "ino": self.ino,
                "size": self.size,
                "mtime_ns": self.mtime_ns,
                "keep_as": self.keep_as.hex() if self.keep_as is not None else None,
                "staged": self.staged,
            }
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Note | None:
        """None for a note that is not whole. A killed daemon leaves such a one before anything was taken out; a power
        cut may do so after that."""
        try:
            document = json.loads(raw)
            kept, staged = document["keep_as"], document.get("staged")
            return cls(
                bytes.fromhex(document["path"]),
                int(document["ino"]),
                int(document["size"]),
                int(document["mtime_ns"]),
                bytes.fromhex(kept) if kept is not None else None,
                None if staged is None else (int(staged[0]), int(staged[1]), int(staged[2])),
            )
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return None


class Staging:
    """``path`` lies on the tree's file system; ``fd`` is open on it. Used by the trio thread and by workers."""

    def __init__(self, path: Path, dev: int) -> None:
        self.path = path
        self.dev = dev
        with translated("opening the staging directory", os.fsencode(path)):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.fd = _open_own(path)
        self.moments = Moments(self.fd, dev)
        # Apart from what an earlier daemon left here, and may have to stay: in a container, all have one process id.
        self._own = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._numbers = itertools.count(1)

    def close(self) -> None:
        os.close(self.fd)

    def _name(self, kind: bytes) -> bytes:
        return kind + f"{self._own}-{next(self._numbers)}".encode()

    # ------------------------------------------------------------- making

    def stub(self, mark: StubMark, *, mode: int, uid: int, gid: int, mtime_ns: int, atime_ns: int) -> Staged:
        """A sparse file that stands for an object. Raises NoSpace, TreeError."""
        made = NewStub(b"", mark, mode, uid, gid, mtime_ns, atime_ns)
        with translated("staging", mark.key.encode()):
            name, _ = self.make_stub(made)
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        return Staged(name, local_of(status, self.dev, stub=mark))

    def make_stub(self, stub: NewStub) -> tuple[bytes, int]:
        """The same, without a look at what came of it: its name in here and its inode. Raises OSError."""
        name = self._name(NEW)
        mark = stub.mark.encode()
        with durable("staging.make"):
            made = _core.create_stub(
                self.fd, name, stub.mark.size, stub.mode, stub.uid, stub.gid, stub.atime_ns, stub.mtime_ns, XATTR, mark
            )
        return name, made[0]

    def symlink(self, target: bytes, *, uid: int, gid: int, mtime_ns: int) -> Staged:
        """A symlink. Raises NoSpace, TreeError."""
        name = self._name(NEW)
        with self.discarding(name):
            with translated("staging", name), durable("staging.make"):
                os.symlink(target, name, dir_fd=self.fd)
                os.chown(name, uid, gid, dir_fd=self.fd, follow_symlinks=False)
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self.fd, follow_symlinks=False)
            return Staged(name, self.identify(name))

    def file(self) -> tuple[int, bytes]:
        """An empty file to be written, open for that, and its name."""
        name = self._name(NEW)
        with translated("staging", name):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=self.fd), name

    def finish(self, fd: int, name: bytes, *, mode: int, uid: int, gid: int, mtime_ns: int, atime_ns: int) -> Staged:
        """Make a written file durable and give it its metadata; ``fd`` is closed."""
        try:
            with translated("staging", name), durable("staging.make"):
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
                os.utime(fd, ns=(atime_ns, mtime_ns))
                os.fsync(fd)
                return Staged(name, identify_fd(fd, self.dev))
        finally:
            os.close(fd)

    def dress(self, name: bytes, wanted: Mapping[bytes, bytes]) -> bool:
        """Give something staged these user extended attributes. False if there was no room for all of them."""
        with translated("staging", name):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                return write_xattrs(fd, wanted, self.moments)
            finally:
                os.close(fd)

    def discard(self, name: bytes) -> None:
        """Drop what was made for nothing; fine if somebody made use of it after all (`Places.rescue`)."""
        with translated("dropping", name), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    @contextmanager
    def discarding(self, name: bytes) -> Iterator[None]:
        """Drop it if the block fails, by whatever: else each retry on a full disk would leave one more. What has its
        place in the tree by then is not here any more."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(TreeError):  # the next start drops it
                self.discard(name)
            raise

    def identify(self, name: bytes) -> Local:
        """The state of something in here. Raises TreeError."""
        with translated("looking at", name):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                return identify_fd(fd, self.dev)
            finally:
                os.close(fd)

    # ------------------------------------------------------------- taking out

    @contextmanager
    def note(
        self, path: bytes, judged: Local, keep_as: bytes | None = None, staged: Staged | None = None
    ) -> Iterator[bytes]:
        """Write down what is about to be taken out; gives its name in here. The note goes with the block.

        It goes too when the block fails: every failure that a program sees puts the file back before.
        """
        name = self._name(OLD)
        takes = None if staged is None else (staged.local.ino, staged.local.size, staged.local.mtime_ns)
        note = Note(path, judged.ino, judged.size, judged.mtime_ns, keep_as, takes)
        with self.discarding(name + NOTE), translated("staging", name):
            fd = os.open(name + NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            try:
                with durable("staging.write-note"):
                    write_whole(fd, note.encode())
            finally:
                os.close(fd)
        try:
            yield name
        finally:
            if not self._exists(name):
                with durable("staging.drop-note"):
                    os.unlink(name + NOTE, dir_fd=self.fd)

    def _exists(self, name: bytes) -> bool:
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def leftovers(self) -> Iterator[tuple[bytes, Note | None]]:
        """What an earlier daemon left behind, with its notes; the caller discards or places it."""
        names = sorted(os.fsencode(name) for name in os.listdir(self.fd))
        for name in names:
            if name.endswith(NOTE):
                if name.removesuffix(NOTE) not in names:
                    self.discard(name)
                continue
            yield name, self._read_note(name)

    def discard_leftover(self, name: bytes) -> None:
        """Drop a leftover and its note."""
        self.discard(name)
        self.discard_note(name)

    def discard_note(self, name: bytes) -> None:
        """Drop the note of a leftover, if it has one and the leftover is gone."""
        if self._exists(name + NOTE) and not self._exists(name):
            self.discard(name + NOTE)

    def _read_note(self, name: bytes) -> Note | None:
        try:
            fd = os.open(name + NOTE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            return Note.decode(os.read(fd, 1 << 16))
        finally:
            os.close(fd)


def _open_own(path: Path) -> int:
    """Open a directory of our own and close it to others. Nothing is changed through its name: directly below a root
    that others may write to, it can be a symlink by now, or somebody's directory with names of his choice in it.

    Raises:
        TreeError: it is somebody else's. OSError.
    """
    fd = os.open(path, DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    owner = os.fstat(fd).st_uid
    if owner == os.geteuid():
        os.fchmod(fd, 0o700)
        return fd
    os.close(fd)
    raise TreeError(
        f"the staging directory {path}", f"it belongs to user {owner}", advice="remove it; it is made again"
    )


def check_xattrs(fd: int, root: Path) -> None:
    """Files here can carry the stub mark.

    Raises:
        NoUserXattrs, NoSpace
    """
    try:
        os.setxattr(fd, _PROBE, b"1")
        os.removexattr(fd, _PROBE)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # it could, if the disk were not full
            raise tree_error(error, f"{root} can't be marked") from error
        raise NoUserXattrs(
            f"{root} can't hold the tree",
            f"its file system has no user extended attributes ({error.strerror})",
        ) from error
