"""Giving the space of synced files back: mark, make the marks durable, punch. In this order, whatever happens.

    a file and its data  ->  the same, marked  ->  a stub

In the middle state nothing is lost and nothing is exported: the mark says that the data is in the repository, which it
is. Marks are made durable for many files at once; one by one, each would cost a commit of the file system's journal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from fsxsync import _core
from fsxsync.crashpoint import durable, each_durable
from fsxsync.errors import FsxSyncError, KeptHere, LocalChanged, PathEscapes, TreeError
from fsxsync.model.flags import NORELEASE
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.beneath import check_path, check_paths, proc_path, shown, translated, tree_error
from fsxsync.tree.identify import identify_fd, local_of_core, same_file
from fsxsync.tree.moments import Moments
from fsxsync.tree.stub_data import punch_all
from fsxsync.tree.stubs import open_write

LEASE_S = 30.0
"""Whoever opens a file that we hold waits for us, and is let in after 45 s (/proc/sys/fs/lease-break-time): after this
time a file may be in use, whatever we were told at first."""
_FILE = Kind.FILE  # the enumeration is asked for its members in five times as long
_MARKED = frozenset({_core.MARK_ALONE, _core.MARK_DONE})


class Releasable(NamedTuple):
    """A file to be released: the state that was judged, and the mark for it. ``names``: how many names it has, if each
    of them has an object with the same bytes."""

    path: bytes
    expect: Local
    mark: StubMark
    names: int = 1


class _Marked(NamedTuple):
    place: int
    wanted: Releasable
    fd: int
    has_lease: bool
    ctime_ns: int


def release(
    root_fd: int, dev: int, files: Sequence[Releasable], *, even_kept: bool = False
) -> list[Local | FsxSyncError]:
    """Drop the data of synced files, ``even_kept`` of those with norelease. For each: its state afterwards, or why it
    was left as it is. Blocking.

    LocalChanged: it is not what was judged any more, or somebody has it open. KeptHere: it has norelease itself; what
    lies above it is the caller's to ask. TreeError: the file system can't punch.

    Raises:
        TreeError: the marks could not be made durable. They stay, and so does the data.
    """
    outcomes: list[Local | FsxSyncError] = [TreeError("releasing", "it was not tried")] * len(files)
    deadline_s = time.monotonic() + LEASE_S
    marked: list[_Marked] = []
    kept = b"" if even_kept else NORELEASE
    refused = _refused(files)
    for place, error in refused.items():
        outcomes[place] = error
    sound = [one for one in enumerate(files) if one[0] not in refused] if refused else list(enumerate(files))
    for (place, wanted), (what, fd, number, ctime_ns) in zip(sound, _mark(root_fd, dev, kept, sound), strict=True):
        if what in _MARKED:
            marked.append(_Marked(place, wanted, fd, what == _core.MARK_ALONE, ctime_ns))
        else:
            outcomes[place] = _unmarked(wanted, what, number)
    if not marked:
        return outcomes
    try:
        with translated("releasing below", b""):
            _core.syncfs(root_fd)
    except BaseException:
        for one in marked:
            os.close(one.fd)
        raise
    for one, (what, number, status) in zip(marked, _punch(marked, deadline_s), strict=True):
        outcomes[one.place] = (
            local_of_core(status, dev, stub=one.wanted.mark)
            if status is not None
            else _unpunched(one.wanted, what, number)
        )
    return outcomes


def _refused(files: Sequence[Releasable]) -> dict[int, FsxSyncError]:
    """What must not even be looked at, by its place."""
    refused: dict[int, FsxSyncError] = {
        place: LocalChanged(_what(wanted), "it is no resident file of the object's size")
        for place, wanted in enumerate(files)
        if (expect := wanted.expect).kind is not _FILE or expect.stub is not None or expect.size != wanted.mark.size
    }
    try:
        check_paths([wanted.path for wanted in files])
    except PathEscapes:
        for place, wanted in enumerate(files):
            try:
                check_path(wanted.path)
            except PathEscapes as error:
                refused[place] = error
    return refused


def _what(wanted: Releasable) -> str:
    return f"releasing {shown(wanted.path)}"


def _mark(
    root_fd: int, dev: int, kept: bytes, files: Sequence[tuple[int, Releasable]]
) -> list[tuple[int, int, int, int]]:
    """What `_core.mark_released` says of each."""

    def mark(part: Sequence[Releasable]) -> list[tuple[int, int, int, int]]:
        return _core.mark_released(root_fd, dev, XATTR, kept, [_asked(wanted) for wanted in part])

    return each_durable("stub.mark", mark, [wanted for _, wanted in files])


def _asked(wanted: Releasable) -> tuple[bytes, int, int, int, int, int, int, int, int, bytes]:
    return (wanted.path, *wanted.expect.state, wanted.names, wanted.mark.encode())


def _punch(marked: Sequence[_Marked], deadline_s: float) -> list[tuple[int, int, _core._Status | None]]:
    """What `_core.punch_released` says of each. Their descriptors are closed."""

    def punch(part: Sequence[tuple[int, bool, int, int, int]]) -> list[tuple[int, int, _core._Status | None]]:
        return _core.punch_released(XATTR, part, deadline_s)

    files = [
        (one.fd, one.has_lease, one.wanted.expect.size, one.wanted.expect.mtime_ns, one.ctime_ns) for one in marked
    ]
    return each_durable("stub.punch", punch, files)


def _unmarked(wanted: Releasable, what: int, number: int) -> FsxSyncError:
    """Why a file was not marked."""
    match what:
        case _core.MARK_OPEN:
            return LocalChanged(_what(wanted), "it is open")
        case _core.MARK_CHANGED:
            return LocalChanged(_what(wanted), "it was changed meanwhile")
        case _core.MARK_LINKED:  # the mark would stand for data of names that may have no object
            return LocalChanged(_what(wanted), "it has other names (hard links), whose data would go with it")
        case _core.MARK_REPLACED:
            return LocalChanged(_what(wanted), "another file stands there")
        case _core.MARK_KEPT:
            return KeptHere(_what(wanted), "norelease is set on it")
    doing = "opening" if what == _core.MARK_UNOPENED else "releasing"
    return tree_error(OSError(number, os.strerror(number)), f"{doing} {shown(wanted.path)}")


def _unpunched(wanted: Releasable, what: int, number: int) -> FsxSyncError:
    """Why a marked file keeps its data."""
    match what:
        case _core.PUNCH_WRITTEN:
            return LocalChanged(_what(wanted), "it was changed meanwhile")
        case _core.PUNCH_WANTED:
            return LocalChanged(_what(wanted), "somebody opens it")
        case _core.PUNCH_NO_HOLES:
            return TreeError(_what(wanted), "the file system can't punch holes")
    return tree_error(OSError(number, os.strerror(number)), _what(wanted))


def finish(root_fd: int, dev: int, moments: Moments, path: bytes, found: Local, *, mtime_ns: int) -> Local:
    """What a crash kept from being done to a marked file: its data goes, its time is again what it was. Nobody has it
    open. Blocking, briefly.

    Raises:
        LocalChanged: it is not ``found`` any more. TreeError.
    """
    fd = open_write(root_fd, dev, moments, path, found.ino)
    try:
        with translated("releasing", path):
            if not same_file(found, identify_fd(fd, dev)):
                raise LocalChanged(f"releasing {shown(path)}", "it was changed meanwhile")
            with durable("stub.finish"):
                if found.size and found.blocks:
                    punch_all(fd, found.size)
                os.utime(proc_path(fd), ns=(os.fstat(fd).st_atime_ns, mtime_ns))
            return identify_fd(fd, dev)
    finally:
        os.close(fd)
