"""The tree: one directory of the host, and all that may be done below it (ports: what sync asks of the local side)."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fsxsync import _core
from fsxsync.errors import BadInput, FsxSyncError, LocalChanged, TreeError, TreeMoved
from fsxsync.model.identity import Local
from fsxsync.model.stub import RESERVED_PREFIX, StubMark
from fsxsync.tree import identify as identities
from fsxsync.tree import releasing, settle_together, stubs, walk
from fsxsync.tree.beneath import DIRECTORY, translated
from fsxsync.tree.flags import FlagReader
from fsxsync.tree.leases import is_open_for_writing
from fsxsync.tree.placing import Places
from fsxsync.tree.recovery import Rescued, recover
from fsxsync.tree.releasing import Releasable
from fsxsync.tree.settle_together import Arrived
from fsxsync.tree.staging import INSIDE, NewStub, Staged, Staging, check_xattrs
from fsxsync.tree.walk import Entry

__all__ = ["NewStub", "Releasable", "Staged", "Tree"]

_OWNER = RESERVED_PREFIX + b"tree"
"""Extended attribute of the root: which instance's tree this is. An unmounted disk has none."""


class Tree:
    """``root`` opened once: every later call is relative to that descriptor, and through no symlink.

    All paths are bytes below the root, without slashes at their ends; b"" is the root itself. Methods block, for the
    time of a local file system call; they may be called from worker threads. Those that change something raise
    LocalChanged where the state is not the one that was judged.
    """

    def __init__(
        self, root: Path, root_fd: int, dev: int, instance: str, staging: Staging, staging_name: bytes | None
    ) -> None:
        self.root = root
        self.root_fd = root_fd
        self.dev = dev
        self.instance = instance
        self.staging_name = staging_name
        """Where staging lies directly below the root, its name there; no scan and no watch looks into it."""
        self.rescued: list[Rescued] = []
        """Files that a crash had caught between two places."""
        self.staging_path = staging.path
        self._staging = staging
        self._moments = staging.moments
        self._places = Places(root_fd, dev, staging)
        self._hidden = frozenset({INSIDE})
        self.place = self._places.place
        self.place_stubs = self._places.place_stubs
        self.exchange_in = self._places.exchange_in
        self.remove = self._places.remove
        self.move = self._places.move
        self.swap = self._places.swap
        self.settle = self._places.settle
        self.make_directories = self._places.make_directories
        self.stage_stub = staging.stub
        self.stage_symlink = staging.symlink
        self.stage_file = staging.file
        self.finish_staged = staging.finish
        self.discard_staged = staging.discard
        self.discarding = staging.discarding
        self.dress_staged = staging.dress

    @classmethod
    def open(cls, root: Path, staging: Path, *, instance: str | None, new_instance: str) -> Tree:
        """Open the tree of ``instance``; None (a catalog that is new) takes the root as whose it says it is, and marks
        it with ``new_instance`` if it says nothing.

        Raises:
            TreeMoved: it is not the tree of that instance. NoUserXattrs. BadInput: no directory. TreeError.
        """
        try:
            if instance is None:
                root.mkdir(parents=True, exist_ok=True, mode=0o755)
            root_fd = os.open(root, DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise TreeMoved(f"tree {root}", "there is no such directory any more") from error
        except OSError as error:
            raise BadInput(
                f"tree {root}", error.strerror or str(error), advice="name a directory that you may write to"
            ) from error
        try:
            check_xattrs(root_fd, root)
            owner = _claim(root_fd, root, instance, new_instance)
            dev = os.fstat(root_fd).st_dev
            opened, name = _open_staging(root_fd, root, staging, dev)
        except BaseException:
            os.close(root_fd)
            raise
        tree = cls(root, root_fd, dev, owner, opened, name)
        tree._moments.take_back()
        tree.rescued = recover(tree._places, opened)
        return tree

    def close(self) -> None:
        self._staging.close()
        os.close(self.root_fd)

    def verify(self) -> None:
        """The root's path still leads to this tree.

        Raises:
            TreeMoved: another directory lies there now (a disk was unmounted), or it is not ours any more.
        """
        try:
            now, known = os.stat(self.root), os.fstat(self.root_fd)
        except OSError as error:
            raise TreeMoved(f"tree {self.root}", error.strerror or str(error)) from error
        if (now.st_ino, now.st_dev) != (known.st_ino, known.st_dev) or _owner(self.root_fd) != self.instance:
            raise TreeMoved(f"tree {self.root}", "another directory lies there now")

    # ------------------------------------------------------------- looking

    def identify(self, path: bytes) -> Local | None:
        """What stands at the path, no symlink followed; None if nothing does. Raises TreeError."""
        return self._places.identify(path)

    def identify_many(self, paths: Sequence[bytes]) -> dict[bytes, Local | None]:
        """The same for many paths at a time."""
        return dict(zip(paths, self._places.identify_many(paths), strict=True))

    def standing(self, files: Sequence[identities.Stood]) -> list[bytes]:
        """Of regular files with one name each the paths of those that still stand there, unchanged."""
        return identities.standing(self.root_fd, self.dev, files)

    def identify_fd(self, fd: int) -> Local:
        """The same for an open descriptor."""
        return identities.identify_fd(fd, self.dev)

    hash_file = staticmethod(identities.hash_file)

    def walk(self, directory: bytes) -> Iterator[tuple[bytes, Local]]:
        """See `walk.walk`."""
        return walk.walk(self.root_fd, self.dev, directory, hidden=self._hidden)

    def walk_batches(self, directory: bytes, size: int = 500) -> Iterator[list[tuple[bytes, Local]]]:
        """The same, ``size`` entries at a time: one hop to a worker thread each."""
        entries = self.walk(directory)
        return iter(lambda: list(itertools.islice(entries, size)), [])

    def entry_batches(self, directory: bytes, size: int = 500, *, marks: Sequence[bytes] = ()) -> Iterator[list[Entry]]:
        """What `walk.entries` gives, in such batches."""
        entries = walk.entries(self.root_fd, self.dev, directory, hidden=self._hidden, marks=marks)
        return iter(lambda: list(itertools.islice(entries, size)), [])

    def find_apart(self, inodes: frozenset[int], apart: frozenset[bytes]) -> dict[int, bytes]:
        """Where files of these inodes are, but below the directories ``apart``. Blocking. Raises TreeError."""
        entries = walk.entries(self.root_fd, self.dev, b"", hidden=self._hidden, apart=apart)
        return {found.ino: key for key, found in entries if found.ino in inodes and not key.endswith(b"/")}

    # ------------------------------------------------------------- files

    def open_read(self, path: bytes, expect: Local) -> int:
        """See `stubs.open_read`."""
        return stubs.open_read(self.root_fd, self.dev, path, expect)

    def is_written(self, path: bytes, local: Local) -> bool:
        """Somebody has the file open for writing or mapped so, or it is not ``local`` any more. False also where the
        kernel does not tell (`leases`), or we may not look."""
        try:
            fd = self.open_read(path, local)
        except LocalChanged:
            return True
        except TreeError:
            return False
        try:
            return is_open_for_writing(fd)
        finally:
            os.close(fd)

    def open_write(self, path: bytes, expect_ino: int) -> int:
        """See `stubs.open_write`."""
        return stubs.open_write(self.root_fd, self.dev, self._moments, path, expect_ino)

    def open_stubs(self, paths: Sequence[bytes]) -> list[stubs.Opened | FsxSyncError | None]:
        """See `stubs.open_stubs`."""
        return stubs.open_stubs(self.root_fd, self.dev, self._moments, paths)

    def set_metadata(
        self,
        path: bytes,
        expect: Local,
        *,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        mtime_ns: int | None,
        atime_ns: int | None,
    ) -> Local:
        """See `stubs.set_metadata`."""
        return stubs.set_metadata(
            self.root_fd,
            self.dev,
            path,
            expect,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            atime_ns=atime_ns,
        )

    def flags(self) -> FlagReader:
        """Reads flags for one decision."""
        return FlagReader(self.root_fd)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """User extended attributes of a file or directory, ours left out; empty if nothing is there."""
        return stubs.xattrs(self.root_fd, path)

    def set_xattrs(self, path: bytes, expect: Local, wanted: Mapping[bytes, bytes]) -> tuple[Local, bool]:
        """See `stubs.set_xattrs`."""
        return stubs.set_xattrs(self.root_fd, self.dev, self._moments, path, expect, wanted)

    def unmark(self, fd: int, mark: StubMark, *, mtime_ns: int, atime_ns: int) -> Local:
        """See `stubs.unmark`."""
        return stubs.unmark(fd, self.dev, self._moments, mark, mtime_ns=mtime_ns, atime_ns=atime_ns)

    def compare_together(self, files: Sequence[Arrived]) -> list[bytes | FsxSyncError]:
        """See `settle_together.compare`."""
        return settle_together.compare(self.root_fd, files)

    def unmark_together(
        self, files: Sequence[Arrived], marks: Sequence[StubMark | None]
    ) -> list[Local | FsxSyncError | None]:
        """See `settle_together.unmark`."""
        return settle_together.unmark(self.root_fd, self.dev, self._moments, files, marks)

    def remark(self, path: bytes, expect: Local, mark: StubMark) -> Local:
        """See `stubs.remark`."""
        return stubs.remark(self.root_fd, self.dev, self._moments, path, expect, mark)

    def flush_all(self) -> None:
        """Bring everything to the disk. Raises NoSpace, TreeError."""
        with translated("flushing", b""):
            _core.syncfs(self.root_fd)

    def release(self, files: Sequence[Releasable], *, even_kept: bool = False) -> list[Local | FsxSyncError]:
        """See `releasing.release`."""
        return releasing.release(self.root_fd, self.dev, files, even_kept=even_kept)

    def take_back(self, path: bytes, found: Local) -> tuple[Local | None, bool]:
        """See `stubs.take_back`."""
        return stubs.take_back(self.root_fd, self.dev, self._moments, path, found)

    def finish_release(self, path: bytes, found: Local, *, mtime_ns: int) -> Local:
        """See `releasing.finish`."""
        return releasing.finish(self.root_fd, self.dev, self._moments, path, found, mtime_ns=mtime_ns)


def _owner(root_fd: int) -> str | None:
    try:
        return os.getxattr(root_fd, _OWNER).decode("ascii", "replace")
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def _claim(root_fd: int, root: Path, instance: str | None, new_instance: str) -> str:
    found = _owner(root_fd)
    if instance is not None and found != instance:
        raise TreeMoved(
            f"tree {root}",
            "it is another instance's tree" if found else "it is not the directory that was served before",
        )
    if found is None:
        os.setxattr(root_fd, _OWNER, new_instance.encode())
        return new_instance
    return found


def _open_staging(root_fd: int, root: Path, wanted: Path, dev: int) -> tuple[Staging, bytes | None]:
    """A staging directory from which files can be renamed into the tree: the state directory's, or one in the tree."""
    inside = root / os.fsdecode(INSIDE)
    # Files of value may have been left in either by an earlier daemon; the state directory may have moved since.
    # What is no directory of ours there, somebody else has put there: nothing was left in that.
    if not _is_own_directory(root_fd, INSIDE):
        staging = Staging(wanted, dev)
        if os.fstat(staging.fd).st_dev == dev and _can_rename(staging, root_fd):
            return staging, None
        staging.close()
    staging = Staging(inside, dev)
    if not _can_rename(staging, root_fd):
        staging.close()
        raise TreeError(f"tree {root}", "files can't be renamed into it", advice="check its mount options and quotas")
    return staging, INSIDE


def _is_own_directory(root_fd: int, name: bytes) -> bool:
    try:
        status = os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _can_rename(staging: Staging, root_fd: int) -> bool:
    """The same device is not enough: a bind mount of it is another mount, and rename(2) refuses that."""
    fd, name = staging.file()
    os.close(fd)
    probe = b".fsxsync-probe-" + name
    try:
        _core.renameat2(staging.fd, name, root_fd, probe, _core.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        staging.discard(name)
        return False
    os.unlink(probe, dir_fd=root_fd)
    return True
