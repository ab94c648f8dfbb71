"""Setting watches below a directory, in small batches on a worker thread: watch first, then list (DESIGN §2).

While a batch runs nobody reads records, so that every record's descriptor is known when it is read. Paths in a batch
are as the table has them; what was renamed since is found by the records read right after (`Watcher`).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import trio
from inotify_simple import flags

from fsxsync import _core
from fsxsync.errors import TreeError
from fsxsync.tree.beneath import ABSENT, DIRECTORY, RESOLVE, proc_path, shown, tree_error
from fsxsync.tree.watches import Directory, Root

BATCH_S = 0.02
"""How long one batch keeps the queue unread; the kernel holds 16,384 records by default."""
BATCH_ITEMS = 256
_LISTING_BYTES = 64 * 1024

# MODIFY is not wanted: a file is looked at when its writer is through. A write through mmap shows as CLOSE_WRITE too,
# when the descriptor is closed, be it before the last page is touched; the next scan or change finds the rest.
_MASK: int = (
    flags.CLOSE_WRITE | flags.ATTRIB | flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
    | flags.ONLYDIR | flags.EXCL_UNLINK
)  # fmt: skip
_ROOT_MASK: int = _MASK | flags.DELETE_SELF | flags.MOVE_SELF
# No DONT_FOLLOW: the name given to the kernel is one of /proc/self/fd, and the open before it followed nothing.

_FOREIGN = {errno.EXDEV}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EIO}
_FULL = {errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_DT_UNKNOWN, _DT_DIR = 0, 4


class Outcome(Enum):
    LISTED = auto()
    ABSENT = auto()
    FOREIGN = auto()  # a mount or another file system: not our tree
    REFUSED = auto()  # not ours to read
    FULL = auto()  # no watch left


@dataclass(eq=False, slots=True)
class Walk:
    """Everything below ``top`` is to be watched.

    ``deep`` looks also at directories that are watched already: records were lost. ``report``: the content is unknown
    to the callers, who are told once all is watched. ``rescan``: they are told to look at everything.
    """

    top: Directory
    report: bool = False
    deep: bool = False
    rescan: bool = False
    parent: Walk | None = None
    left: int = 0
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class Item:
    """One directory to be looked at, from an offset of its listing on."""

    walk: Walk
    node: Directory
    offset: int = 0


@dataclass(slots=True)
class Seen:
    """What a look found at ``path``. ``next_offset`` is 0 at the listing's end."""

    item: Item
    path: bytes
    outcome: Outcome
    wd: int = 0
    subdirectories: list[bytes] = field(default_factory=list)
    next_offset: int = 0
    error: int = 0


class Walks:
    """What waits to be looked at. Directories that appeared do not wait behind the walk of a whole root."""

    def __init__(self) -> None:
        self.open: set[Walk] = set()
        self._appeared: deque[Item] = deque()
        self._roots: deque[Item] = deque()

    def start(self, walk: Walk) -> Walk:
        self.open.add(walk)
        self.add(Item(walk, walk.top))
        return walk

    def add(self, item: Item) -> None:
        item.walk.left += 1
        self.again(item)

    def again(self, item: Item) -> None:
        """Look at an item that was counted before."""
        if item.walk.deep or not item.walk.report:
            self._roots.append(item)
        else:
            self._appeared.append(item)

    def take(self) -> list[Item]:
        """The next batch."""
        batch = [self._appeared.popleft() for _ in range(min(BATCH_ITEMS, len(self._appeared)))]
        batch += [self._roots.popleft() for _ in range(min(BATCH_ITEMS, len(self._roots)))]
        return batch


def look(inotify: Any, root_fd: int, dev: int, hidden: bytes | None, batch: Sequence[tuple[Item, bytes]]) -> list[Seen]:
    """Watch and list directories until the time of a batch is over, at least one. Blocking.

    Raises:
        TreeError: the kernel gave an answer that has no place here.
    """
    ends = time.monotonic() + BATCH_S
    found: list[Seen] = []
    for item, path in batch:
        try:
            found.append(_look_at(inotify, root_fd, dev, hidden, item, path))
        except OSError as error:
            found.append(Seen(item, path, _outcome(error, path), error=error.errno or 0))
        if time.monotonic() > ends:
            break
    return found


def _outcome(error: OSError, path: bytes) -> Outcome:
    for numbers, outcome in (
        (ABSENT, Outcome.ABSENT),
        (_FOREIGN, Outcome.FOREIGN),
        (_REFUSED, Outcome.REFUSED),
        (_FULL, Outcome.FULL),
    ):
        if error.errno in numbers:
            return outcome
    raise tree_error(error, f"watching {shown(path)}") from error


def _look_at(inotify: Any, root_fd: int, dev: int, hidden: bytes | None, item: Item, path: bytes) -> Seen:
    flags_ = DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = _core.openat2(root_fd, path or b".", flags_, 0, RESOLVE | _core.RESOLVE_NO_XDEV)
    try:
        if os.fstat(fd).st_dev != dev:
            return Seen(item, path, Outcome.FOREIGN)
        wd = inotify.add_watch(proc_path(fd), _ROOT_MASK if isinstance(item.node, Root) else _MASK)
        seen = Seen(item, path, Outcome.LISTED, wd)
        entries = _core.getdents(fd, item.offset, _LISTING_BYTES)
        seen.next_offset = entries[-1][3] if entries else 0
        for name, _, kind, _ in entries:
            if (kind == _DT_DIR or (kind == _DT_UNKNOWN and _is_directory(fd, name))) and (path or name != hidden):
                seen.subdirectories.append(name)
        return seen
    finally:
        os.close(fd)


def _is_directory(fd: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def limit_reason(error: int, watches: int) -> str:
    """Why not everything is watched, and what to do about it."""
    if error != errno.ENOSPC:
        return f"{watches} directories are watched, the rest is scanned every minute: {os.strerror(error)}"
    return (
        f"the limit fs.inotify.max_user_watches is reached with {watches} directories watched, the rest is scanned "
        f"every minute; raise it with 'sysctl -w fs.inotify.max_user_watches=...'"
    )


def no_instance(error: OSError) -> TreeError:
    """inotify itself can't be had."""
    advice = "raise it with 'sysctl -w fs.inotify.max_user_instances=...'" if error.errno == errno.EMFILE else ""
    why = "the limit fs.inotify.max_user_instances is reached" if error.errno == errno.EMFILE else str(error)
    return TreeError("inotify can't be used", why, advice=advice)
