"""One stub on its way to being a file: which chunks are here, which are under way, who waits for them."""

from __future__ import annotations

import enum
import errno
import itertools
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, NoSpace, ObjectChanged, ObjectMissing
from fsxsync.model.parts import Part, plan_chunks
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.ports import ChunkJob, Mover, ObjectStore, Priority

KEPT_FREE = 64 << 20
KEPT_FREE_SHARE = 20
"""So much of the disk, or one part in that many of a small one, is left to what is written: the catalog, the event log
and the application's own files. Data that can be had again from the repository must not take the last block."""


class Residency(enum.Enum):
    MISSING = 0
    UNDER_WAY = 1
    HERE = 2


@dataclass(slots=True)
class Hydration:
    """The data of one object version, on its way into one inode.

    ``fd`` is our own descriptor on that inode, so that a rename, an unlink or an exchange of the path never
    redirects a byte. All methods run in the trio thread.
    """

    ino: int
    path: bytes
    mark: StubMark
    store: ObjectStore
    key: str
    fd: int
    mtime_ns: int
    atime_ns: int
    chunk_size: int
    chunks: list[Part] = field(init=False)
    states: list[Residency] = field(init=False)
    arrivals: dict[int, trio.Event] = field(default_factory=dict)
    failures: dict[int, FsxSyncError] = field(default_factory=dict)
    resumed: trio.Event | None = None
    """While somebody replaces the file: set when downloads may go on."""
    settled: trio.Event = field(default_factory=trio.Event)
    failure: FsxSyncError | None = None
    discarded: bool = False
    filling: bool = False
    settling: bool = False
    last_use: float = 0.0
    read_up_to: int = 0

    def __post_init__(self) -> None:
        self.chunks = plan_chunks(self.mark.size, self.chunk_size)
        self.states = [Residency.MISSING] * len(self.chunks)

    @property
    def is_complete(self) -> bool:
        return all(state is Residency.HERE for state in self.states)

    @property
    def resident_bytes(self) -> int:
        return sum(
            chunk.length for chunk, state in zip(self.chunks, self.states, strict=True) if state is Residency.HERE
        )

    def touched(self, offset: int, length: int) -> range:
        """Indexes of the chunks that a byte range needs."""
        end = min(offset + length, self.mark.size)
        if offset >= end:
            return range(0)
        return range(offset // self.chunk_size, (end - 1) // self.chunk_size + 1)

    async def fetch(self, index: int, mover: Mover, priority: Priority) -> None:
        """Bring one chunk, or wait for whoever is bringing it: two readers of a chunk cause one download.

        Raises:
            FsxSyncError: the download failed; a later call tries again.
        """
        while self.states[index] is not Residency.HERE:
            if self.discarded:
                raise LocalChanged("reading a released file", "its content was replaced meanwhile")
            if self.states[index] is Residency.UNDER_WAY:
                await self.arrivals[index].wait()
                if (error := self.failures.get(index)) is not None and self.states[index] is Residency.MISSING:
                    raise error
                continue
            if self.resumed is not None:
                await self.resumed.wait()
                continue
            try:
                await self._bring(index, mover, priority)
            except (ObjectMissing, ObjectChanged):
                if not self.refresh_mark():
                    raise

    def refresh_mark(self) -> bool:
        """A rename gave the same bytes another key, and a copy another etag: take what the mark says now. True if it
        says something else than before."""
        mark = mark_of(self.fd)
        if mark is None or mark == self.mark or mark.size != self.mark.size:
            return False
        self.mark, self.key = mark, mark.key
        return True

    def _check_room(self) -> None:
        disk = os.fstatvfs(self.fd)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        wanted = sum(self.chunks[index].length for index in self.arrivals)
        kept = min(KEPT_FREE, total // KEPT_FREE_SHARE)
        if free - wanted < kept:
            raise NoSpace(f"loading {self.key}", f"{free >> 20} MiB are free, of which {kept >> 20} MiB are kept")

    @asynccontextmanager
    async def without_descriptor(self) -> AsyncGenerator[None]:
        """Nothing here has the file open for writing inside: no chunk is under way, none starts. What is done inside
        must not await."""
        while self.resumed is not None:
            await self.resumed.wait()
        self.resumed = trio.Event()
        try:
            while self.is_busy:
                await next(iter(self.arrivals.values())).wait()
            # A name for the inode that is no open file: it may be unlinked or exchanged out meanwhile.
            name = os.open(f"/proc/self/fd/{self.fd}", os.O_PATH | os.O_CLOEXEC)
            os.close(self.fd)
            try:
                yield
            finally:
                self.fd = os.open(f"/proc/self/fd/{name}", os.O_RDWR | os.O_CLOEXEC)
                os.close(name)
        finally:
            resumed, self.resumed = self.resumed, None
            assert resumed is not None
            resumed.set()

    async def _bring(self, index: int, mover: Mover, priority: Priority) -> None:
        chunk = self.chunks[index]
        self.states[index] = Residency.UNDER_WAY
        self.arrivals[index] = trio.Event()
        self.failures.pop(index, None)
        job = ChunkJob(self.store, self.key, self.mark.etag, self.mark.version_id, self.fd, chunk.offset, chunk.length)
        arrived = False
        try:
            self._check_room()
            await mover.fetch(job, priority)
            arrived = True
        except FsxSyncError as error:
            self.failures[index] = error
            raise
        finally:
            # Loading data is no modification: a file's times must not move because it was read.
            os.utime(self.fd, ns=(self.atime_ns, self.mtime_ns))
            self.states[index] = Residency.HERE if arrived else Residency.MISSING
            self.arrivals.pop(index).set()

    @property
    def is_busy(self) -> bool:
        return bool(self.arrivals)

    def next_missing(self) -> int | None:
        """The next chunk that nobody brings: from where the last reader was, then from the front."""
        start = min(self.read_up_to // self.chunk_size, len(self.states))
        for index in itertools.chain(range(start, len(self.states)), range(start)):
            if self.states[index] is Residency.MISSING:
                return index
        return None


def mark_of(fd: int) -> StubMark | None:
    """The stub mark; None for an ordinary file.

    Raises:
        OSError: it can't be told. Never taken for "no stub": then somebody would read zeros.
    """
    try:
        return StubMark.decode(os.getxattr(fd, XATTR))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def open_hydration(
    fd: int,
    path: bytes,
    *,
    chunk_size: int,
    store_of: Callable[[StubMark], tuple[ObjectStore, str]],
    reopen: Callable[[bytes, int], int],
) -> Hydration | None:
    """Start on the stub behind ``fd``; None if it is an ordinary file."""
    mark = mark_of(fd)
    if mark is None:
        return None
    store, key = store_of(mark)
    status = os.fstat(fd)
    if status.st_size != mark.size:
        raise LocalChanged("reading a released file", "its size is not its object's; it will be imported again")
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        own = reopen(path, status.st_ino)
    return Hydration(
        ino=status.st_ino,
        path=path,
        mark=mark,
        store=store,
        key=key,
        fd=own,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_atime_ns,
        chunk_size=chunk_size,
    )
