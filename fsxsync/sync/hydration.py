"""One stub on its way to being a file: which chunks are here, which are under way, who waits for them."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import trio

from fsxsync.catalog.partials import Partial
from fsxsync.crashpoint import durable
from fsxsync.errors import FsxSyncError, LocalChanged, NoSpace, ObjectChanged, ObjectMissing
from fsxsync.model.measures import Measures
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.ports import ChunkJob, End, Fetched, Mover, ObjectStore, Priority, Sink
from fsxsync.sync.integrity import damaged_object, fits
from fsxsync.sync.readahead import Readers
from fsxsync.tree.beneath import translated
from fsxsync.tree.stub_data import chunk_crc64nvme, combined_crc64nvme, put_back

KEPT_FREE = 64 << 20
KEPT_FREE_SHARE = 20
"""So much of the disk, or one part in that many of a small one, is left to what is written: the catalog, the event log
and the application's own files. Data that can be had again from the repository must not take the last block."""
MISSING, UNDER_WAY, HERE = range(3)
"""What becomes of a chunk."""


def kept_free(total: int) -> int:
    """Bytes of a file system that loading leaves to those who write; ``total`` are all that it has."""
    return min(KEPT_FREE, total // KEPT_FREE_SHARE)


@dataclass(slots=True, eq=False)
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
    counts: Measures
    """Where its reads are counted."""
    claims: dict[int, int] = field(default_factory=dict)
    """Chunks that a daemon before us brought, with the CRC64NVME that their bytes must still have."""
    states: bytearray = field(init=False)
    here: int = 0
    """How many chunks are HERE."""
    resident_bytes: int = 0
    crcs: dict[int, int] = field(default_factory=dict)
    """Of the chunks that are HERE."""
    arrivals: dict[int, trio.Event] = field(default_factory=dict)
    failures: dict[int, FsxSyncError] = field(default_factory=dict)
    begun_at: dict[int, float] = field(default_factory=dict)
    """When the last try of chunks began (trio's clock) that are not here."""
    ahead: int = 0
    """Chunks UNDER_WAY that nobody waited for when they were asked for."""
    resumed: trio.Event | None = None
    """While somebody replaces the file: set when downloads may go on."""
    settling: trio.Event | None = None
    """While the file is being compared and made an ordinary one: set when that is over, well or not."""
    settled: trio.Event = field(default_factory=trio.Event)
    failure: FsxSyncError | None = None
    """Nothing is to be had from here any more: what readers are told."""
    discarded: bool = False
    is_forgotten: bool = False
    """``fd`` is closed."""
    suspect: bool = False
    """It was damaged when it was loaded before: no byte is shown before all of them are compared."""
    tries: int = 0
    """How often its bytes were found not to be the object's."""
    is_patient: bool = False
    """Nobody waits for it in a read or an open: it was asked for beforehand."""
    remembered: bool = False
    """The catalog has a row of it."""
    waiting: int = 0
    """How many wait for its archived object to be restored, or for its turn among many."""
    last_use: float = 0.0
    reported: str = ""
    read_up_to: int = 0
    readers: Readers = field(default_factory=Readers)
    sent_times: tuple[int, int] | None = None
    """(atime, mtime) that the file gets when the answer that comes among many is over."""
    _end_whole: End | None = None
    """Ends that one."""
    _ends: set[Callable[[], None]] = field(default_factory=set)
    """End each of the downloads that are under way."""
    _flights: int = 0
    _landed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.states = bytearray(-(-self.mark.size // self.chunk_size))
        self.resident_bytes = sum(self._span(index)[1] for index in self.claims)

    # ------------------------------------------------------------- what is here

    @property
    def count(self) -> int:
        """Chunks in all."""
        return len(self.states)

    @property
    def is_complete(self) -> bool:
        return self.here == len(self.states)

    @property
    def is_busy(self) -> bool:
        return bool(self.arrivals)

    @property
    def rests(self) -> bool:
        """Nothing is done with it, and nothing is to come."""
        return not self.is_busy and self.settling is None and self.resumed is None and self.waiting == 0

    def _span(self, index: int) -> tuple[int, int]:
        offset = index * self.chunk_size
        return offset, min(self.chunk_size, self.mark.size - offset)

    def touched(self, offset: int, length: int) -> range:
        """Indexes of the chunks that a byte range needs."""
        end = min(offset + length, self.mark.size)
        if offset >= end:
            return range(0)
        return range(offset // self.chunk_size, (end - 1) // self.chunk_size + 1)

    def has(self, indexes: range) -> bool:
        return self.states.count(HERE, indexes.start, indexes.stop) == len(indexes)

    def crc64nvme(self) -> int:
        """Of the whole file, as its chunks came; all of them are HERE."""
        if self.count == 1:
            return self.crcs[0]
        return combined_crc64nvme((self.crcs[index], self._span(index)[1]) for index in range(self.count))

    def as_partial(self, boot_id: str) -> Partial:
        """What a later daemon has to know of it."""
        return Partial(
            ino=self.ino,
            path=self.path,
            etag=self.mark.etag,
            version_id=self.mark.version_id,
            size=self.mark.size,
            chunk_size=self.chunk_size,
            mtime_ns=self.mtime_ns,
            atime_ns=self.atime_ns,
            boot_id=boot_id,
            crcs=self.claims | self.crcs,
        )

    def drop_data(self) -> None:
        """Nothing of it is believed any more. The bytes stay until they are overwritten: somebody may be reading them
        this moment, and must not see a hole. Nothing is under way."""
        self.states = bytearray(len(self.states))
        self.here = self.resident_bytes = 0
        self.crcs.clear()
        self.claims.clear()

    def punch(self) -> None:
        """Give the space back. Nobody has the file open. Raises TreeError."""
        put_back(self.fd, self.path, mtime_ns=self.mtime_ns, atime_ns=self.atime_ns, punch=True)

    # ------------------------------------------------------------- what is wanted

    def note_read(self, reader: int, offset: int, length: int) -> None:
        """Follow an open file's reading; ``reader`` is its descriptor."""
        absent = (index for index in self.touched(offset, length) if self.states[index] != HERE)
        self.readers.note(reader, offset, length, missed=next(absent, None), chunk_size=self.chunk_size)
        self.read_up_to = offset + length

    def next_ahead(self) -> int | None:
        """The next chunk that nobody brings and a reader will need soon."""
        for wanted in self.readers.wanted(self.chunk_size, self.count):
            index = self.states.find(MISSING, wanted.start, wanted.stop)
            if index >= 0:
                return index
        return None

    def next_missing(self) -> int | None:
        """The next chunk that nobody brings: from where the last reader was, then from the front."""
        start = min(self.read_up_to // self.chunk_size, self.count)
        index = self.states.find(MISSING, start)
        if index < 0:
            index = self.states.find(MISSING, 0, start)
        return index if index >= 0 else None

    # ------------------------------------------------------------- bringing

    def begin(self, index: int) -> bool:
        """True: whoever calls has to `carry` that chunk now. False: somebody does, or nobody may."""
        if self.states[index] != MISSING or self.discarded or self.is_forgotten or self.failure is not None:
            return False
        self.states[index] = UNDER_WAY
        self.begun_at[index] = trio.current_time()
        self.arrivals[index] = trio.Event()
        self.failures.pop(index, None)
        return True

    async def until_here(self, index: int) -> None:
        """Wait for whoever brings the chunk. On return it may be absent again: look.

        Raises:
            FsxSyncError: the download failed; a later call tries again.
        """
        if (arrival := self.arrivals.get(index)) is not None:
            await arrival.wait()
        if self.states[index] == MISSING:
            if (error := self.failure or self.failures.get(index)) is not None:
                raise error
            if self.discarded:
                raise replaced()

    async def carry(self, index: int, mover: Mover, priority: Priority) -> FsxSyncError | None:
        """Bring one chunk, after `begin`. Whoever waits for it is told; also returns what went wrong."""
        crc: int | None = None
        error: FsxSyncError | None = replaced()  # should `cancel` end it
        scope = trio.CancelScope()
        self._ends.add(scope.cancel)
        try:
            with scope:
                if self.discarded:
                    scope.cancel()
                crc = await self._bring(index, mover, priority)
                error = None
        except FsxSyncError as caught:
            error = caught
        finally:
            self._ends.discard(scope.cancel)
            if crc is None and error is not None:
                self.failures[index] = error
            self._arrived(index, crc)
        return error

    def _arrived(self, index: int, crc: int | None) -> None:
        """None: it did not come. Whoever waits for it looks."""
        if crc is None:
            self.states[index] = MISSING
        else:
            self.states[index] = HERE
            self.begun_at.pop(index, None)
            self.here += 1
            self.crcs[index] = crc
        self.arrivals.pop(index).set()

    def begin_whole(self, end: End) -> Sink | None:
        """As `begin` for a file of one chunk that comes among many (`restoring`): where its bytes go to. None: somebody
        brings it, or nobody may, or somebody is replacing the file."""
        if self.resumed is not None or self.claims or not self.begin(0):
            return None
        self._ends.add(end)
        self._end_whole = end
        self._flights += 1
        self.sent_times = self.atime_ns, self.mtime_ns
        return Sink(self.fd, self.mark.size, self.mtime_ns, self.atime_ns)

    def came_whole(self, end: End, fetched: Fetched | None) -> None:
        """What `begin_whole` began is over, and the file has its times. ``fetched``: its bytes are the object's; None:
        they are not here, and whoever waits for them asks for them alone."""
        self._ends.discard(end)
        if self.sent_times != (self.atime_ns, self.mtime_ns):  # somebody gave it others meanwhile, through the mount
            with suppress(OSError):  # who settles it tries again, and tells
                os.utime(self.fd, ns=(self.atime_ns, self.mtime_ns))
        self.sent_times = self._end_whole = None
        self._land()
        if fetched is not None:
            self.resident_bytes += self.mark.size
        self._arrived(0, None if fetched is None else fetched.crc64nvme)

    def hasten(self) -> None:
        """Somebody waits for what was asked for behind many others: if it was not sent yet, he asks for it himself."""
        if self._end_whole is not None:
            self._end_whole(only_held=True)

    async def cancel(self) -> None:
        """End what is under way; on return nothing is."""
        for end in list(self._ends):
            end()
        while self.arrivals:
            await next(iter(self.arrivals.values())).wait()

    async def _bring(self, index: int, mover: Mover, priority: Priority) -> int:
        while True:
            await self.undisturbed()
            try:
                with translated("loading", self.path), self._flight():
                    if index in self.claims and await self._claim_holds(index):
                        return self.claims.pop(index)
                    return await self._download(index, mover, priority)
            except (ObjectMissing, ObjectChanged):
                if not self.refresh_mark():
                    raise

    async def _claim_holds(self, index: int) -> bool:
        offset, length = self._span(index)
        crc = await trio.to_thread.run_sync(chunk_crc64nvme, self.fd, offset, length)
        if crc == self.claims[index]:
            return True
        del self.claims[index]
        self.resident_bytes -= length
        return False

    async def _download(self, index: int, mover: Mover, priority: Priority) -> int:
        offset, length = self._span(index)
        mark = self.mark
        job = ChunkJob(self.store, self.key, mark.etag, mark.version_id, mark.size, self.fd, offset, length)
        self._check_room()
        with durable("stub.chunk"):
            fetched = await mover.fetch(job, priority)
        # What tells of the whole object comes with a chunk only where the chunk is the whole of it.
        if await fits(self.fd, mark.size, fetched.crc64nvme, fetched.checksums) is False:
            fetched = await mover.fetch(job, priority)
            if await fits(self.fd, mark.size, fetched.crc64nvme, fetched.checksums) is False:
                raise damaged_object(self.key, fetched.checksums)
        self.resident_bytes += length
        return fetched.crc64nvme

    @contextmanager
    def _flight(self) -> Iterator[None]:
        self._flights += 1
        try:
            yield
        finally:
            self._land()
            # Loading data is no modification: a file's times must not move because it was read.
            os.utime(self.fd, ns=(self.atime_ns, self.mtime_ns))

    def _land(self) -> None:
        self._flights -= 1
        self._landed.set()

    def _check_room(self) -> None:
        disk = os.fstatvfs(self.fd)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        kept = kept_free(total)
        if free - self._flights * self.chunk_size < kept:
            raise NoSpace(f"loading {self.key}", f"{free >> 20} MiB are free, of which {kept >> 20} MiB are kept")

    # ------------------------------------------------------------- others at the file

    def refresh_mark(self) -> bool:
        """A rename gave the same bytes another key, and a copy another etag: take what the mark says now. True if it
        says something else than before."""
        mark = mark_of(self.fd)
        if mark is None or mark == self.mark or mark.size != self.mark.size:
            return False
        self.mark, self.key = mark, mark.key
        return True

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Inside, somebody waits for something that it needs: it does not rest."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self.last_use = trio.current_time()

    async def undisturbed(self) -> None:
        """Wait until nobody is replacing the file."""
        while self.resumed is not None:
            await self.resumed.wait()

    @asynccontextmanager
    async def without_descriptor(self) -> AsyncGenerator[None]:
        """Nothing here has the file open for writing inside: no chunk is under way, none starts. What is done inside
        must not await. Nobody else is inside, and the file is not being settled."""
        self.resumed = trio.Event()
        try:
            while self._flights:
                self._landed = trio.Event()
                await self._landed.wait()
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
            resumed.set()


def replaced() -> LocalChanged:
    return LocalChanged("reading a released file", "its content was replaced meanwhile")


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
