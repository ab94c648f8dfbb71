"""Files and their marks: opening them as what was judged, settling hydrated bytes, metadata. Releasing: `releasing`.

The one rule (DESIGN §3.4): the mark is there before the data is not, and goes only after the data is on disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.errors import FsxSyncError, LocalChanged
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.beneath import ABSENT, check_path, open_beneath, open_pinned, proc_path, shown, translated, tree_error
from fsxsync.tree.identify import identify, identify_fd, local_of_core, same_file
from fsxsync.tree.moments import Moments
from fsxsync.tree.xattrs import read_xattrs, write_xattrs

# O_NONBLOCK: what was a file when it was judged may be a FIFO now, and opening that would wait for ever.
_NO_FILE = ABSENT | {errno.EISDIR, errno.ENXIO, errno.ENODEV}
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def open_read(root_fd: int, dev: int, path: bytes, expect: Local) -> int:
    """Open for reading exactly the state ``expect``; reading leaves no trace in atime where that is allowed.

    Raises:
        LocalChanged: it is something else now, or gone. PathEscapes. TreeError.
    """
    with translated("opening", path):
        try:
            fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_NOATIME | _OPEN)
        except PermissionError:  # O_NOATIME is the owner's right
            fd = open_beneath(root_fd, path, os.O_RDONLY | _OPEN)
        try:
            same = identify_fd(fd, dev).same_state(expect)
        except BaseException:
            os.close(fd)
            raise
        if same:
            return fd
        os.close(fd)
        raise LocalChanged(f"opening {shown(path)}", "it was changed meanwhile")


def open_write(root_fd: int, dev: int, moments: Moments, path: bytes, expect_ino: int) -> int:
    """Open a regular file for reading and writing, for hydration. A read-only file of our own is made writable for
    the moment of the open: the mode binds applications, not the one who keeps the file.

    Raises:
        LocalChanged: another inode stands there, or none. PathEscapes. TreeError.
    """
    with translated("opening", path):
        try:
            fd = open_beneath(root_fd, path, os.O_RDWR | _OPEN)
        except PermissionError:
            fd = _open_read_only_file(root_fd, moments, path, expect_ino)
        status = os.fstat(fd)
        if (status.st_ino, status.st_dev) == (expect_ino, dev) and stat.S_ISREG(status.st_mode):
            return fd
        os.close(fd)
        raise LocalChanged(f"opening {shown(path)}", "another file stands there")


def _open_read_only_file(root_fd: int, moments: Moments, path: bytes, expect_ino: int) -> int:
    pinned = open_pinned(root_fd, path)
    try:
        status = os.fstat(pinned)
        mine = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
        if status.st_ino != expect_ino or not mine:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        with moments.writable(pinned):
            return os.open(proc_path(pinned), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(pinned)


Opened = tuple[int, Local]
"""A descriptor for reading and writing, and the state of the stub behind it."""


def open_stubs(root_fd: int, dev: int, moments: Moments, paths: Sequence[bytes]) -> list[Opened | FsxSyncError | None]:
    """Open the stubs at paths as they are now; None where none stands there. An error in its place: LocalChanged,
    another file took its place meanwhile; TreeError.

    Raises:
        PathEscapes.
    """
    for path in paths:
        check_path(path)
    found = _core.open_marked(root_fd, paths, XATTR)
    return [_opened(root_fd, dev, moments, path, one) for path, one in zip(paths, found, strict=True)]


def _opened(
    root_fd: int, dev: int, moments: Moments, path: bytes, found: tuple[int, _core._Status, bytes | None] | int | None
) -> Opened | FsxSyncError | None:
    if isinstance(found, int):
        if found in _NO_FILE:
            return None
        if found != errno.EACCES:
            return tree_error(OSError(found, os.strerror(found)), f"opening {shown(path)}")
        try:
            return _open_read_only_stub(root_fd, dev, moments, path)
        except FsxSyncError as error:
            return error
    if found is None:
        return None
    fd, status, mark = found
    local = local_of_core(status, dev, stub=None if mark is None else StubMark.decode(mark))
    if local.stub is None or local.kind is not Kind.FILE:
        os.close(fd)
        return None
    return fd, local


def _open_read_only_stub(root_fd: int, dev: int, moments: Moments, path: bytes) -> Opened | None:
    local = identify(root_fd, dev, path)
    if local is None or local.stub is None:
        return None
    return open_write(root_fd, dev, moments, path, local.ino), local


def unmark(
    fd: int, dev: int, moments: Moments, mark: StubMark, *, mtime_ns: int, atime_ns: int, flushes: bool = True
) -> Local:
    """Settle: the bytes are durable first, then the times are the object's again, the mark goes last. That it went is
    durable before anybody may write. Without ``flushes`` the caller sees to both.

    Raises:
        LocalChanged: the mark is another one or gone, or the size is not the object's. NoSpace. TreeError.
    """
    with translated("settling", mark.key.encode()):
        if flushes:
            os.fdatasync(fd)
        os.utime(fd, ns=(atime_ns, mtime_ns))
        now = identify_fd(fd, dev)
        if now.stub != mark or now.size != mark.size:
            raise LocalChanged(f"settling {mark.key}", "its mark or size was changed meanwhile")
        with durable("stub.unmark"):
            _of_mark(fd, moments, lambda: os.removexattr(fd, XATTR))
            if flushes:
                os.fsync(fd)
        return identify_fd(fd, dev)


def _of_mark(fd: int, moments: Moments, change: Callable[[], None]) -> None:
    """Change the mark of a file that may be read-only: user attributes obey its mode, the owner's included, unless root
    asks. It is made writable for the moment, as in `open_write`."""
    try:
        change()
    except PermissionError:
        with moments.writable(fd):  # where it is so already, another moment was at its end just now
            change()


def take_back(root_fd: int, dev: int, moments: Moments, path: bytes, found: Local) -> Local | None:
    """Take the mark off a file that has all its data; its state then. None: it has a hole. Blocking, briefly.

    Raises:
        LocalChanged: it is not ``found`` any more. NoSpace. TreeError.
    """
    fd = open_write(root_fd, dev, moments, path, found.ino)
    try:
        with translated("taking back", path):
            if not same_file(found, identify_fd(fd, dev)):
                raise LocalChanged(f"taking back {shown(path)}", "it was changed meanwhile")
            if os.lseek(fd, 0, os.SEEK_HOLE) < found.size:
                return None
            with durable("stub.unmark"):
                _of_mark(fd, moments, lambda: os.removexattr(fd, XATTR))
            return identify_fd(fd, dev)
    finally:
        os.close(fd)


def remark(root_fd: int, dev: int, moments: Moments, path: bytes, expect: Local, mark: StubMark) -> Local:
    """Let a stub stand for the same bytes under another etag or key. Blocking, briefly.

    Raises:
        LocalChanged: its mark is another one now, or went: its data came meanwhile. NoSpace. TreeError.
    """
    changed = LocalChanged(f"marking {shown(path)}", "its mark was changed meanwhile")
    fd = open_write(root_fd, dev, moments, path, expect.ino)
    try:
        with translated("marking", path):
            try:
                if expect.stub is None or os.getxattr(fd, XATTR) != expect.stub.encode():
                    raise changed
                with durable("stub.remark"):
                    # Replaced, never made: it may be taken off by a worker thread this moment, and on a file with data
                    # that somebody is let in to write it would say that these are the object's.
                    _of_mark(fd, moments, lambda: os.setxattr(fd, XATTR, mark.encode(), os.XATTR_REPLACE))
            except OSError as error:
                if error.errno == errno.ENODATA:
                    raise changed from error
                raise
            return identify_fd(fd, dev)
    finally:
        os.close(fd)


def set_metadata(
    root_fd: int,
    dev: int,
    path: bytes,
    expect: Local,
    *,
    mode: int | None,
    uid: int | None,
    gid: int | None,
    mtime_ns: int | None,
    atime_ns: int | None,
) -> Local:
    """Change metadata of exactly the inode ``expect``; None leaves a field. Returns the state afterwards.

    Without privilege a new owner is skipped silently: only root can give files away. atime is set along with a new
    mtime only: setting an unchanged mtime once more could hide a write that came in between.

    Raises:
        LocalChanged: it is not ``expect`` any more. PathEscapes. TreeError.
    """
    with translated("changing the metadata of", path):
        fd = open_pinned(root_fd, path)
        try:
            _check_judged(identify_fd(fd, dev), expect, path)
            with durable("tree.metadata"):
                mode = _give(fd, expect, mode, uid, gid)
                if mode is not None and mode != stat.S_IMODE(os.fstat(fd).st_mode):
                    os.chmod(proc_path(fd), mode)
                if mtime_ns is not None and mtime_ns != expect.mtime_ns:
                    _set_times(fd, expect, mtime_ns, atime_ns, path)
            now = identify_fd(fd, dev)
        finally:
            os.close(fd)
    untouched = now.mtime_ns == expect.mtime_ns if mtime_ns is None else True
    if expect.kind is Kind.FILE and not (now.size == expect.size and untouched):
        raise LocalChanged(f"changing the metadata of {shown(path)}", "it was written meanwhile")
    return now


def xattrs(root_fd: int, path: bytes) -> dict[bytes, bytes]:
    """User extended attributes of what stands at the path, ours left out; empty if nothing does.

    Raises:
        PathEscapes. TreeError.
    """
    with translated("reading the attributes of", path):
        try:
            fd = open_pinned(root_fd, path)
        except OSError as error:
            if error.errno in ABSENT:
                return {}
            raise
        try:
            return read_xattrs(fd)
        finally:
            os.close(fd)


def set_xattrs(
    root_fd: int, dev: int, moments: Moments, path: bytes, expect: Local, wanted: Mapping[bytes, bytes]
) -> tuple[Local, bool]:
    """Make the user extended attributes of exactly ``expect`` those; the state afterwards, and whether all had room.

    Raises:
        LocalChanged: it is not ``expect`` any more. PathEscapes. TreeError.
    """
    with translated("changing the attributes of", path):
        fd = open_pinned(root_fd, path)
        try:
            _check_judged(identify_fd(fd, dev), expect, path)
            with durable("tree.xattrs"):
                complete = write_xattrs(fd, wanted, moments)
            return identify_fd(fd, dev), complete
        finally:
            os.close(fd)


def _check_judged(now: Local, expect: Local, path: bytes) -> None:
    if expect.kind is Kind.DIRECTORY:  # its size and times move with what is put into it
        judged = (now.kind, now.ino, now.mode, now.uid, now.gid) == (
            expect.kind,
            expect.ino,
            expect.mode,
            expect.uid,
            expect.gid,
        )
    else:
        judged = now.same_state(expect)
    if not judged:
        raise LocalChanged(f"changing the metadata of {shown(path)}", "it was changed meanwhile")


def _give(fd: int, expect: Local, mode: int | None, uid: int | None, gid: int | None) -> int | None:
    """Change the owner where it differs; the mode to set afterwards: chown clears set-id bits."""
    new_uid = -1 if uid is None or uid == expect.uid else uid
    new_gid = -1 if gid is None or gid == expect.gid else gid
    wanted = None if expect.kind is Kind.SYMLINK else mode
    if new_uid == new_gid == -1:
        return wanted
    try:
        os.chown(proc_path(fd), new_uid, new_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        return wanted
    if wanted is None and expect.kind is not Kind.SYMLINK:
        return expect.mode
    return wanted


def _set_times(fd: int, expect: Local, mtime_ns: int, atime_ns: int | None, path: bytes) -> None:
    now = os.fstat(fd)
    if expect.kind is Kind.FILE and (now.st_size, now.st_mtime_ns) != (expect.size, expect.mtime_ns):
        # Setting mtime now would hide that write from everybody who compares times, us included.
        raise LocalChanged(f"changing the metadata of {shown(path)}", "it was written meanwhile")
    os.utime(proc_path(fd), ns=(now.st_atime_ns if atime_ns is None else atime_ns, mtime_ns))
