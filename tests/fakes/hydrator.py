"""A hydrator whose repository is a dict: fills stubs chunk by chunk, notes what it was asked, waits or fails when told.

``objects`` maps the key in a stub's mark to its bytes. While ``gate`` is closed nobody gets data; ``failure`` is
raised instead of loading. ``calls`` holds (name, arguments) in order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import trio

from fsxsync.errors import FsxSyncError, ObjectMissing
from fsxsync.model.stub import XATTR, StubMark

CHUNK = 64 * 1024


def make_stub(path: str | os.PathLike[str], key: str, size: int, mtime_ns: int = 1_000_000_000_123_456_789) -> None:
    """A released file as an import leaves it."""
    with open(path, "wb") as file:
        os.setxattr(file.fileno(), XATTR, StubMark(etag="e", size=size, key=key).encode())
        file.truncate(size)
    os.utime(path, ns=(mtime_ns, mtime_ns))


@dataclass
class FakeHydrator:
    """See `ports.Hydrator`."""

    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, list[object]]] = field(default_factory=list)
    failure: FsxSyncError | None = None
    read_only: set[bytes] = field(default_factory=set)
    """First path components below which nothing may be written."""
    roots: set[bytes] = field(default_factory=set)
    """Association directories: also the borders that nothing is renamed across."""
    bugs: set[bytes] = field(default_factory=set)
    """Paths at which `may_write` has a bug."""
    gate: trio.Event = field(default_factory=trio.Event)
    loads: int = 0
    _here: dict[int, set[int]] = field(default_factory=dict)
    _mtimes_ns: dict[int, int] = field(default_factory=dict)
    _under_way: dict[tuple[int, int], trio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    # ------------------------------------------------------------- data

    def _mark(self, fd: int) -> StubMark | None:
        try:
            return StubMark.decode(os.getxattr(fd, XATTR))
        except OSError:
            return None

    def is_stub(self, fd: int) -> bool:
        return self._mark(fd) is not None

    async def _load(self, fd: int, mark: StubMark, indexes: range) -> None:
        ino = os.fstat(fd).st_ino
        for index in indexes:
            while index not in self._here.setdefault(ino, set()):
                under_way = self._under_way.get((ino, index))
                if under_way is not None:
                    await under_way.wait()
                    continue
                await self._bring(fd, ino, mark, index)

    async def _bring(self, fd: int, ino: int, mark: StubMark, index: int) -> None:
        arrived = self._under_way[ino, index] = trio.Event()
        try:
            self.loads += 1
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            if mark.key not in self.objects:
                raise ObjectMissing(f"reading {mark.key}", "there is no such object")
            data = self.objects[mark.key][index * CHUNK : (index + 1) * CHUNK]
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            try:
                os.pwrite(own, data, index * CHUNK)
            finally:
                os.close(own)
            self._here[ino].add(index)
        finally:
            del self._under_way[ino, index]
            arrived.set()

    def _settle_if_complete(self, fd: int, mark: StubMark, mtime_ns: int) -> bool:
        ino = os.fstat(fd).st_ino
        if len(self._here.get(ino, ())) < _chunks(mark.size):
            return False
        if self.is_stub(fd):
            os.utime(f"/proc/self/fd/{fd}", ns=(mtime_ns, mtime_ns))
            os.removexattr(f"/proc/self/fd/{fd}", XATTR)
        return True

    async def open_for_read(self, path: bytes, fd: int) -> None:
        self._note("open_for_read", path)
        mark = self._mark(fd)
        if mark is not None and _chunks(mark.size) <= 1:
            await self._load_and_settle(fd, mark, range(_chunks(mark.size)))

    async def ensure(self, path: bytes, fd: int, offset: int, length: int) -> bool:
        self._note("ensure", path, offset, length)
        mark = self._mark(fd)
        if mark is None:
            return False
        end = min(offset + length, mark.size)
        needed = range(offset // CHUNK, (end - 1) // CHUNK + 1) if offset < end else range(0)
        return not await self._load_and_settle(fd, mark, needed)

    async def make_resident(self, path: bytes, fd: int) -> None:
        self._note("make_resident", path)
        mark = self._mark(fd)
        if mark is not None:
            await self._load_and_settle(fd, mark, range(_chunks(mark.size)))

    async def _load_and_settle(self, fd: int, mark: StubMark, needed: range) -> bool:
        status = os.fstat(fd)
        mtime_ns = self._mtimes_ns.setdefault(status.st_ino, status.st_mtime_ns)  # loading moves it
        await self._load(fd, mark, needed)
        return self._settle_if_complete(fd, mark, mtime_ns)

    async def make_room(self, since: float) -> bool:
        self._note("make_room")
        return False

    async def until_settled(self, ino: int) -> None:
        return

    def retimed(self, ino: int, *, atime_ns: int | None, mtime_ns: int | None) -> tuple[int, int] | None:
        return None

    async def discard(self, path: bytes, fd: int) -> None:
        self._note("discard", path)
        os.ftruncate(fd, 0)
        if self.is_stub(fd):
            os.removexattr(fd, XATTR)

    # ------------------------------------------------------------- hints and questions

    def _note(self, name: str, *arguments: object) -> None:
        shown = [os.fsdecode(value) if isinstance(value, bytes) else value for value in arguments]
        self.calls.append((name, shown))

    def writer_opened(self, path: bytes, ino: int) -> None:
        self._note("writer_opened", path, ino)

    def writer_closed(self, path: bytes, ino: int) -> None:
        self._note("writer_closed", path, ino)

    def changed(self, path: bytes) -> None:
        self._note("changed", path)

    def told(self, path: bytes, word: str) -> bytes | None:
        return None

    def flagged(self, path: bytes) -> None:
        self._note("flagged", path)

    def renamed(self, old: bytes, new: bytes, *, exchanged: bool) -> None:
        self._note("renamed", old, new, exchanged)

    async def slow_down(self) -> None:
        return

    def least_free(self) -> int:
        return 0

    def is_tight(self) -> bool:
        return False

    def may_write(self, path: bytes) -> bool:
        if path in self.bugs:
            raise RuntimeError("a bug in a handler")
        return path.split(b"/")[0] not in self.read_only

    def may_rename(self, old: bytes, new: bytes) -> bool:
        return self._root_of(old) == self._root_of(new)

    def _root_of(self, path: bytes) -> bytes | None:
        return next((root for root in self.roots if path.startswith(root + b"/")), None)

    def is_association_root(self, path: bytes) -> bool:
        return path in self.roots


def _chunks(size: int) -> int:
    return (size + CHUNK - 1) // CHUNK
