"""Changing names in the tree: only what was judged is ever replaced or removed (DESIGN §3.2).

The way is always the same: put it in with one atomic call, look at what came *out*, and put that back if it is not
what was judged. No window is left in which a write could be lost.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.errors import LocalChanged
from fsxsync.model.conflict import conflict_name
from fsxsync.model.identity import Kind, Local
from fsxsync.tree.beneath import DIRECTORY, keeping_times, open_beneath, parent_of, proc_path, shown, translated
from fsxsync.tree.identify import identify, identify_fd, identify_many, local_of, same_file
from fsxsync.tree.leases import is_open_for_writing
from fsxsync.tree.staging import NewStub, Staged, Staging

NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV}
"""None is there, or what is there leads out of the tree."""


class Places:
    """The names below one root, and the staging directory beside them."""

    def __init__(self, root_fd: int, dev: int, staging: Staging) -> None:
        self._root_fd = root_fd
        self._dev = dev
        self._staging = staging

    def identify(self, path: bytes) -> Local | None:
        """See `identify.identify`."""
        return identify(self._root_fd, self._dev, path)

    def identify_many(self, paths: Sequence[bytes]) -> list[Local | None]:
        """See `identify.identify_many`."""
        return identify_many(self._root_fd, self._dev, paths)

    # ------------------------------------------------------------- new names

    def make_directories(self, path: bytes, *, mode: int, uid: int, gid: int) -> list[bytes]:
        """``mkdir -p``; the directories made, outermost first. -1 leaves the owner.

        Raises:
            LocalChanged: something that is no directory stands in the way. NoSpace. TreeError.
        """
        made: list[bytes] = []
        components = path.split(b"/") if path else []
        for count in range(1, len(components) + 1):
            part = b"/".join(components[:count])
            with translated("making the directory", part), parent_of(self._root_fd, part) as (parent, name):
                try:
                    with keeping_times(parent), durable("tree.mkdir"):
                        os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        raise LocalChanged(f"making the directory {shown(part)}", "a file stands there") from None
                    continue
                made.append(part)
                self._dress(parent, name, part, mode, uid, gid)
        return made

    @staticmethod
    def _dress(parent: int, name: bytes, path: bytes, mode: int, uid: int, gid: int) -> None:
        """Owner and mode of a directory just made. By its inode: chmod(2) by name would follow a symlink that
        somebody has put there since."""
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o777 != 0o700:
                raise LocalChanged(f"making the directory {shown(path)}", "another one has taken its place")
            os.chown(proc_path(fd), uid, gid)
            os.chmod(proc_path(fd), mode)
        finally:
            os.close(fd)

    def place(self, staged: Staged, path: bytes) -> Local:
        """Give something staged a name that is free.

        Raises:
            LocalChanged: the name is taken, or its directory is gone. NoSpace. TreeError.
        """
        with translated("placing", path), parent_of(self._root_fd, path) as (parent, name):
            with keeping_times(parent), durable("tree.place"):
                _core.renameat2(self._staging.fd, staged.name, parent, name, _core.RENAME_NOREPLACE)
            return self._as_placed(staged, parent, name)

    def place_stubs(self, directory: bytes, stubs: Sequence[NewStub]) -> list[Local | None]:
        """Make stubs under free names of one directory: the state of each, or None where something was faster, be it
        that the name was taken or that the stub was changed since; whoever asked has to look at that name.

        Four system calls a stub and no second look at its mark: `place` takes three times as long.

        Raises:
            LocalChanged: the directory is gone. NoSpace. PathEscapes. TreeError. Those before it are placed then.
        """
        placed: list[Local | None] = []
        with translated("placing stubs in", directory), self._directory(directory) as parent, keeping_times(parent):
            for stub in stubs:
                staged, ino = self._staging.make_stub(stub)
                try:
                    with durable("tree.place"):
                        _core.renameat2(self._staging.fd, staged, parent, stub.name, _core.RENAME_NOREPLACE)
                except OSError as error:
                    self._staging.discard(staged)
                    if error.errno != errno.EEXIST:
                        raise
                    placed.append(None)
                else:
                    placed.append(self._untouched(parent, stub, ino))
        return placed

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        fd = open_beneath(self._root_fd, path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def _untouched(self, parent: int, stub: NewStub, ino: int) -> Local | None:
        """The state under its new name (the rename moved ctime), if it still is what was made."""
        try:
            status = os.stat(stub.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        found = (status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode))
        if found != (ino, stub.mark.size, stub.mtime_ns, stub.mode):
            return None
        return local_of(status, self._dev, stub=stub.mark)

    def _as_placed(self, staged: Staged, parent: int, name: bytes) -> Local:
        """Its state under the new name (the rename moved ctime); if somebody was faster, the state that we gave."""
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return staged.local
        try:
            now = identify_fd(fd, self._dev)
        finally:
            os.close(fd)
        return now if same_file(staged.local, now) else staged.local

    # ------------------------------------------------------------- replacing and removing

    def exchange_in(self, staged: Staged, path: bytes, expect: Local, keep_as: bytes | None = None) -> Local:
        """Let something staged take the place of ``expect``, which is dropped, or kept under the free name ``keep_as``.

        Raises:
            LocalChanged: not ``expect`` stands there, or somebody writes to it, or ``keep_as`` is taken; nothing was
                changed then. PathEscapes. TreeError.
        """
        what = f"replacing {shown(path)}"
        if expect.kind is Kind.DIRECTORY:
            raise LocalChanged(what, "a directory stands there")
        self._check(path, expect, what)
        with (
            translated("replacing", path),
            self._staging.note(path, expect, keep_as, staged) as old,
            parent_of(self._root_fd, path) as (parent, name),
        ):
            _core.renameat2(self._staging.fd, staged.name, self._staging.fd, old, _core.RENAME_NOREPLACE)
            try:
                with keeping_times(parent), durable("tree.exchange"):
                    _core.renameat2(self._staging.fd, old, parent, name, _core.RENAME_EXCHANGE)
            except OSError:
                self._unrename(old, staged.name)
                raise
            try:
                self._check_out(old, expect, what)
                if keep_as is not None:
                    self.keep(old, keep_as)
            except (LocalChanged, OSError):
                self._put_back(old, staged, parent, name, path)
                raise
            if keep_as is None:
                self._drop(old)
            return self._as_placed(staged, parent, name)

    def _drop(self, old: bytes) -> None:
        with durable("staging.drop-old"):
            os.unlink(old, dir_fd=self._staging.fd)

    def _check(self, path: bytes, expect: Local, what: str) -> None:
        """A look before the deed spares most of the putting back."""
        now = self.identify(path)
        if now is None or not now.same_state(expect):
            raise LocalChanged(what, "it was changed meanwhile")

    def _check_out(self, old: bytes, expect: Local, what: str) -> None:
        # In this order: who wrote and closed between the two would be seen by neither. Out here nobody opens it anew.
        if self.is_written(old, self._staging.identify(old)):
            raise LocalChanged(what, "somebody has it open for writing")
        if not same_file(expect, self._staging.identify(old)):
            raise LocalChanged(what, "it was changed meanwhile")

    def keep(self, old: bytes, keep_as: bytes) -> None:
        """Give something in the staging directory a name that is free. Raises OSError, LocalChanged."""
        with parent_of(self._root_fd, keep_as) as (parent, name), durable("tree.keep"):
            _core.renameat2(self._staging.fd, old, parent, name, _core.RENAME_NOREPLACE)

    def settle(self, path: bytes) -> None:
        """What stands at the path stands there after a power cut, too. Blocking.

        Raises:
            LocalChanged: its directory is gone. TreeError.
        """
        with translated("settling", path):
            fd = open_beneath(self._root_fd, path.rpartition(b"/")[0], DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _unrename(self, old: bytes, name: bytes) -> None:
        with durable("staging.take-back"):
            _core.renameat2(self._staging.fd, old, self._staging.fd, name, _core.RENAME_NOREPLACE)

    def _put_back(self, old: bytes, staged: Staged, parent: int, name: bytes, path: bytes) -> None:
        """Undo an exchange. Whatever else came under the name meanwhile stays there, and what was taken out is kept."""
        try:
            with keeping_times(parent), durable("tree.put-back"):
                _core.renameat2(self._staging.fd, old, parent, name, _core.RENAME_EXCHANGE)
        except FileNotFoundError:  # somebody removed or renamed what we had put there
            self.rescue(old, path)
            return
        out = self._staging.identify(old)
        if out.ino == staged.local.ino:
            if not self.is_written(old, out) and same_file(staged.local, self._staging.identify(old)):
                self._unrename(old, staged.name)
            else:  # for a moment it stood there, and somebody wrote to it
                self.rescue(old, path)
            return
        # Somebody replaced what we had put there: that is the newest word on the name.
        with durable("tree.put-back"):
            _core.renameat2(self._staging.fd, old, parent, name, _core.RENAME_EXCHANGE)
        self.rescue(old, path)

    def rescue(self, old: bytes, path: bytes) -> bytes | None:
        """Give a file that was taken out a name beside where it stood, or in the nearest directory above that is there
        yet; its new path, None if no name is free. Raises OSError; it stays in the staging directory then."""
        directory, _, name = path.rpartition(b"/")
        seconds = self._staging.identify(old).mtime_ns // 10**9
        attempt = 0
        while attempt < 1000:
            beside = conflict_name(name, seconds, "recovered", attempt)
            kept = directory + b"/" + beside if directory else beside
            try:
                self.keep(old, kept)
            except FileExistsError:
                attempt += 1
            except OSError as error:
                if error.errno not in NO_DIRECTORY or not directory:
                    raise
                directory, attempt = directory.rpartition(b"/")[0], 0
            else:
                return kept
        return None

    def move(self, path: bytes, expect: Local, to: bytes) -> None:
        """Rename exactly ``expect`` to the free name ``to``.

        Raises:
            LocalChanged: something else stands there, somebody writes to it, or the name is taken; nothing was changed
                then. PathEscapes. TreeError.
        """
        what = f"moving {shown(path)}"
        self._check(path, expect, what)
        with (
            translated("moving", path),
            parent_of(self._root_fd, path) as (parent, name),
            parent_of(self._root_fd, to) as (new_parent, new_name),
        ):
            with durable("tree.move"):
                _core.renameat2(parent, name, new_parent, new_name, _core.RENAME_NOREPLACE)
            if not self._is_there(to, expect, new_parent, new_name):
                _core.renameat2(new_parent, new_name, parent, name, _core.RENAME_NOREPLACE)
                raise LocalChanged(what, "it was changed meanwhile, or somebody has it open for writing")

    def swap(self, path: bytes, expect: Local, other: bytes, expect_other: Local) -> None:
        """Let exactly these two change places: at no moment is either without a name.

        Raises:
            LocalChanged: one is another file now, or somebody writes to it; they are where they were then.
                PathEscapes. TreeError.
        """
        what = f"exchanging {shown(path)} and {shown(other)}"
        self._check(path, expect, what)
        self._check(other, expect_other, what)
        with (
            translated("exchanging", path),
            parent_of(self._root_fd, path) as (parent, name),
            parent_of(self._root_fd, other) as (other_parent, other_name),
        ):
            with durable("tree.swap"):
                _core.renameat2(parent, name, other_parent, other_name, _core.RENAME_EXCHANGE)
            are_there = self._is_there(path, expect_other, parent, name)
            if not are_there or not self._is_there(other, expect, other_parent, other_name):
                _core.renameat2(parent, name, other_parent, other_name, _core.RENAME_EXCHANGE)
                raise LocalChanged(what, "one was changed meanwhile, or somebody has it open for writing")

    def _is_there(self, path: bytes, expect: Local, parent: int, name: bytes) -> bool:
        now = self.identify(path)
        return now is not None and same_file(expect, now) and not self.is_written(name, now, parent)

    def remove(self, path: bytes, expect: Local) -> None:
        """Remove exactly ``expect``; a directory only when it is empty.

        Raises:
            LocalChanged: something else stands there, somebody writes to it, or the directory is not empty; nothing
                was changed then. PathEscapes. TreeError.
        """
        what = f"removing {shown(path)}"
        with translated("removing", path):
            if expect.kind is Kind.DIRECTORY:
                self._remove_directory(path, expect, what)
                return
            self._check(path, expect, what)
            with self._staging.note(path, expect) as old, parent_of(self._root_fd, path) as (parent, name):
                with keeping_times(parent), durable("tree.take-out"):
                    _core.renameat2(parent, name, self._staging.fd, old, _core.RENAME_NOREPLACE)
                try:
                    self._check_out(old, expect, what)
                except (LocalChanged, OSError):
                    self._give_back(old, parent, name, path)
                    raise
                self._drop(old)

    def _give_back(self, old: bytes, parent: int, name: bytes, path: bytes) -> None:
        try:
            with keeping_times(parent), durable("tree.put-back"):
                _core.renameat2(self._staging.fd, old, parent, name, _core.RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOENT}:
                raise
            self.rescue(old, path)

    def _remove_directory(self, path: bytes, expect: Local, what: str) -> None:
        with parent_of(self._root_fd, path) as (parent, name):
            fd = open_beneath(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_ino != expect.ino:
                    raise LocalChanged(what, "another directory stands there")
            finally:
                os.close(fd)
            with keeping_times(parent), durable("tree.rmdir"):
                os.rmdir(name, dir_fd=parent)

    def is_written(self, name: bytes, now: Local, directory: int | None = None) -> bool:
        """Somebody has the file open for that; ``directory`` None is the staging directory."""
        if now.kind is not Kind.FILE:
            return False
        try:
            fd = os.open(
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                dir_fd=self._staging.fd if directory is None else directory,
            )
        except PermissionError:
            return False  # another user's file that we may replace and not read: the state has to do
        try:
            return is_open_for_writing(fd)
        finally:
            os.close(fd)
