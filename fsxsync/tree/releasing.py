"""Giving the space of synced files back: mark, make the marks durable, punch. In this order, whatever happens.

    a file and its data  ->  the same, marked  ->  a stub

In the middle state nothing is lost and nothing is exported: the mark says that the data is in the repository, which it
is. Marks are made durable for many files at once; one by one, each would cost a commit of the file system's journal.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.errors import FsxSyncError, LocalChanged, TreeError
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.beneath import proc_path, shown, translated
from fsxsync.tree.identify import identify_fd, local_of, same_file
from fsxsync.tree.leases import alone_with, is_wanted
from fsxsync.tree.stub_data import punch_all
from fsxsync.tree.stubs import open_write

LEASE_S = 30.0
"""Whoever opens a file that we hold waits for us, and is let in after 45 s (/proc/sys/fs/lease-break-time): after this
time a file may be in use, whatever we were told at first."""


@dataclass(frozen=True, slots=True)
class Releasable:
    """A file to be released: the state that was judged, and the mark for it. ``names``: how many names it has, if each
    of them has an object with the same bytes."""

    path: bytes
    expect: Local
    mark: StubMark
    names: int = 1


@dataclass(slots=True)
class _Marked:
    place: int
    wanted: Releasable
    fd: int
    has_lease: bool
    resources: ExitStack

    @property
    def what(self) -> str:
        return _what(self.wanted)


def release(root_fd: int, dev: int, files: Sequence[Releasable]) -> list[Local | FsxSyncError]:
    """Drop the data of synced files. For each: its state afterwards, or why it was left as it is. Blocking.

    LocalChanged: it is not what was judged any more, or somebody has it open. TreeError: the file system can't punch.

    Raises:
        TreeError: the marks could not be made durable. They stay, and so does the data.
    """
    outcomes: list[Local | FsxSyncError] = [TreeError("releasing", "it was not tried")] * len(files)
    started_s = time.monotonic()
    with ExitStack() as all_of_them:
        marked: list[_Marked] = []
        for place, wanted in enumerate(files):
            try:
                marked.append(_mark(root_fd, dev, place, wanted, all_of_them))
            except FsxSyncError as error:
                outcomes[place] = error
        if marked:
            with translated("releasing below", b""):
                _core.syncfs(root_fd)
        for one in marked:
            is_late = time.monotonic() - started_s > LEASE_S
            try:
                outcomes[one.place] = _punched(one, dev, is_late=is_late)
            except FsxSyncError as error:
                outcomes[one.place] = error
            finally:
                one.resources.close()
    return outcomes


def _what(wanted: Releasable) -> str:
    return f"releasing {shown(wanted.path)}"


def _mark(root_fd: int, dev: int, place: int, wanted: Releasable, owner: ExitStack) -> _Marked:
    expect, what = wanted.expect, _what(wanted)
    if expect.kind is not Kind.FILE or expect.stub is not None or expect.size != wanted.mark.size:
        raise LocalChanged(what, "it is no resident file of the object's size")
    resources = ExitStack()
    with ExitStack() as undo:
        undo.callback(resources.close)
        fd = open_write(root_fd, dev, wanted.path, expect.ino)
        resources.callback(os.close, fd)
        with translated("releasing", wanted.path):
            has_lease = resources.enter_context(alone_with(fd, what))
            now = local_of(os.fstat(fd), dev)  # that it carries no mark is seen when it gets one
            if not now.same_state(expect):
                raise LocalChanged(what, "it was changed meanwhile")
            if now.nlink != wanted.names:  # the mark would stand for data of names that may have no object
                raise LocalChanged(what, "it has other names (hard links), whose data would go with it")
            with durable("stub.mark"):
                os.setxattr(fd, XATTR, wanted.mark.encode(), os.XATTR_CREATE)
        undo.pop_all()
    owner.callback(resources.close)  # should anything raise before it is punched; closing twice does nothing
    return _Marked(place, wanted, fd, has_lease, resources)


def _punched(one: _Marked, dev: int, *, is_late: bool) -> Local:
    expect, fd = one.wanted.expect, one.fd
    with translated("releasing", one.wanted.path):
        status = os.fstat(fd)
        is_touched = (status.st_size, status.st_mtime_ns) != (expect.size, expect.mtime_ns)
        if is_late:
            # Somebody may have been let in, and may be loading it by its mark: it stays a marked file with its data.
            if is_touched:
                raise LocalChanged(one.what, "it was written meanwhile")
            return local_of(status, dev, stub=one.wanted.mark)
        if is_touched or (one.has_lease and is_wanted(fd)):  # the first only where no lease was to be had
            os.removexattr(fd, XATTR)
            raise LocalChanged(one.what, "it was written meanwhile" if is_touched else "somebody opens it")
        if expect.size:
            _punch(fd, expect.size, one.what)
        os.utime(fd, ns=(status.st_atime_ns, expect.mtime_ns))
        return local_of(os.fstat(fd), dev, stub=one.wanted.mark)


def _punch(fd: int, size: int, what: str) -> None:
    try:
        with durable("stub.punch"):
            punch_all(fd, size)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # then nothing was punched; after any other error the mark stays
            os.removexattr(fd, XATTR)
            raise TreeError(what, "the file system can't punch holes") from error
        raise


def finish(root_fd: int, dev: int, path: bytes, found: Local, *, mtime_ns: int) -> Local:
    """What a crash kept from being done to a marked file: its data goes, its time is again what it was. Nobody has it
    open. Blocking, briefly.

    Raises:
        LocalChanged: it is not ``found`` any more. TreeError.
    """
    fd = open_write(root_fd, dev, path, found.ino)
    try:
        with translated("releasing", path):
            if not same_file(found, identify_fd(fd, dev)):
                raise LocalChanged(f"releasing {shown(path)}", "it was changed meanwhile")
            if found.size and found.blocks:
                punch_all(fd, found.size)
            os.utime(proc_path(fd), ns=(os.fstat(fd).st_atime_ns, mtime_ns))
            return identify_fd(fd, dev)
    finally:
        os.close(fd)
