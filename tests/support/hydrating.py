"""A hydrator over a real tree and a real catalog, a store in memory, a mover that holds back what a test picks, and
readers as the mount has them. Daemons come and go; the files, the catalog and the store stay."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing
from fakes.store import FakeStore

from fsxsync.catalog.database import Catalog
from fsxsync.config import Settings
from fsxsync.errors import FsxSyncError
from fsxsync.model.association import Association
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.ports import ChunkJob, End, Fetched, FileRange, ObjectStore, Priority, Sink
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.intake import Intake
from fsxsync.sync.served import Served, Shared
from fsxsync.telemetry.eventlog import EventLog
from fsxsync.tree.stub_data import chunk_crc64nvme
from fsxsync.tree.tree import Tree

CHUNK = 64 * 1024
"""The smallest that can be set; files of more than four of them are cut into such."""
MTIME_NS = 1_000_000_000_123_456_789
BOOT = "this-boot"


@dataclass
class HeldMover:
    """`ports.Mover` over a `FakeStore`. While ``held`` says so of a chunk, half of it is there and the rest waits."""

    asked: list[tuple[int, Priority]] = field(default_factory=list)
    """(number of the chunk, priority) of every download, in order."""
    under_way: int = 0
    most: int = 0
    ended: int = 0
    """Downloads that were cancelled."""
    passing: set[int] | None = None
    """Chunks that come; None: all."""
    held: set[str] = field(default_factory=set)
    """Keys that do not come, whatever ``passing`` says."""
    asked_keys: list[str] = field(default_factory=list)
    failures: list[FsxSyncError] = field(default_factory=list)
    garbled: int = 0
    """So many of the next downloads bring a wrong byte."""
    after: tuple[int, Callable[[], None]] | None = None
    """What happens when so many downloads are done."""
    done: int = 0
    _moved: trio.Event = field(default_factory=trio.Event)

    def let(self, *chunks: int) -> None:
        assert self.passing is not None
        self.passing.update(chunks)
        self._wake()

    def let_all(self) -> None:
        self.passing = None
        self.held.clear()
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def until(self, downloads: int) -> None:
        """Return when so many were asked for in all."""
        while len(self.asked) < downloads:
            await self._moved.wait()

    @property
    def chunks(self) -> list[int]:
        return [chunk for chunk, _ in self.asked]

    def _is_held(self, key: str, index: int) -> bool:
        return key in self.held or (self.passing is not None and index not in self.passing)

    async def fetch(self, job: ChunkJob, priority: Priority) -> Fetched:
        index = job.offset // CHUNK
        self.asked.append((index, priority))
        self.asked_keys.append(job.key)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self._wake()
        try:
            into = FileRange(job.fd, job.offset, job.length)
            if self._is_held(job.key, index):
                os.pwrite(job.fd, b"\xee" * (job.length // 2), job.offset)  # half a chunk, and not even right
                while self._is_held(job.key, index):
                    await self._moved.wait()
            if self.failures:
                raise self.failures.pop(0)
            fetched = await job.store.fetch(
                job.key, into, etag=job.etag, version_id=job.version_id, size=job.size, priority=priority
            )
            if self.garbled > 0:
                self.garbled -= 1
                os.pwrite(job.fd, b"\xbb", job.offset)
                fetched = Fetched(chunk_crc64nvme(job.fd, job.offset, job.length) or 0, fetched.checksums)
            self.done += 1
            if self.after is not None and self.after[0] == self.done:
                self.after[1]()
        except trio.Cancelled:
            self.ended += 1
            raise
        else:
            return fetched
        finally:
            self.under_way -= 1
            self._wake()

    async def fetch_many(
        self,
        store: ObjectStore,
        wanted: Sequence[StubMark],
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        """Eight at a time, in order, as `fetch`."""
        numbers = iter(range(len(wanted)))

        async def work() -> None:
            for number in numbers:
                one, scope, fetched = wanted[number], trio.CancelScope(), None

                def end(*, only_held: bool = False, scope: trio.CancelScope = scope) -> None:
                    if not only_held:  # all that begins is sent
                        scope.cancel()

                sink = begin(number, end)
                if sink is None:
                    continue
                fd = os.dup(sink.fd)
                try:
                    job = ChunkJob(store, one.key, one.etag, one.version_id, one.size, fd, 0, one.size)
                    with scope, suppress(FsxSyncError):
                        fetched = await self.fetch(job, priority)
                finally:
                    os.utime(fd, ns=(sink.atime_ns, sink.mtime_ns))
                    os.close(fd)
                    came(number, fetched)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(work)

    async def upload(self, *_: object, **__: object) -> tuple[object, bytes]:
        raise NotImplementedError


@dataclass
class CountingFront:
    """`ports.Front`: open handles per inode, and what was invalidated."""

    handles: dict[int, int] = field(default_factory=dict)
    data_dropped: list[int] = field(default_factory=list)
    used_ns: dict[int, int] = field(default_factory=dict)

    def catch_up(self) -> None:
        return

    def policies_changed(self) -> None:
        return

    def invalidate_entry(self, parent_ino: int, name: bytes, ino: int | None = None) -> None:
        return

    def invalidate_inode(self, ino: int, *, data: bool) -> None:
        if data:
            self.data_dropped.append(ino)

    async def told(self) -> None:
        await trio.lowlevel.checkpoint()

    def requests(self) -> int:
        return 0

    def open_handles(self, ino: int) -> int:
        return self.handles.get(ino, 0)

    def open_inodes(self) -> AbstractSet[int]:
        return {ino for ino, count in self.handles.items() if count}

    def last_use_ns(self, ino: int) -> int:
        return self.used_ns.get(ino, 0)

    def take_uses(self) -> dict[int, int]:
        return dict(self.used_ns)


@dataclass
class Reader:
    """An open file of the mount's."""

    daemon: Daemon
    path: bytes
    fd: int

    async def read(self, offset: int, length: int) -> bytes:
        """As `mount.content.Content.read`: nothing between the answer and the bytes."""
        await self.daemon.hydrator.ensure(self.path, self.fd, offset, length)
        return os.pread(self.fd, length, offset)


@dataclass
class Daemon:
    """One life of a daemon."""

    shared: Shared
    hydrator: StubHydrator
    served: Served
    mover: HeldMover
    front: CountingFront

    @contextmanager
    def reader(self, name: str) -> Iterator[Reader]:
        fd = os.open(self.shared.tree.root / name, os.O_RDONLY)
        ino = os.fstat(fd).st_ino
        self.front.handles[ino] = self.front.handles.get(ino, 0) + 1
        try:
            yield Reader(self, os.fsencode(name), fd)
        finally:
            self.front.handles[ino] -= 1
            os.close(fd)

    async def idle(self) -> None:
        """Return when nothing moves any more but by a test's doing: worker threads count as moving."""
        await trio.testing.wait_all_tasks_blocked(0.005)
        while trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.005)

    def write_down(self) -> None:
        """What arrived so far is in the catalog, as it is after a second."""
        self.hydrator._memory.write()


class World:
    """What outlives a daemon."""

    def __init__(self, base: Path, *, versioned: bool = False) -> None:
        self.base = base
        self.store = FakeStore(versioned=versioned)
        self.tree = Tree.open(base / "tree", base / "staging", instance=None, new_instance="one")
        self.catalog = Catalog.open(base / "catalog.db")
        self.eventlog = EventLog(base / "events.jsonl", max_bytes=1 << 20, keep=1)

    def close(self) -> None:
        self.catalog.close()
        self.tree.close()
        self.eventlog.close()

    def put(self, name: str, body: bytes) -> StubMark:
        """An object."""
        self.store.outside_put(name, body)
        return self.mark(name)

    def mark(self, name: str) -> StubMark:
        """What a stub of the object as it is now says."""
        made = self.store.objects[name]
        return StubMark(etag=made.etag, size=len(made.body), key=name, version_id=made.version_id)

    def stub(self, name: str, body: bytes) -> Path:
        """An object and its stub."""
        return self.place_stub(name, self.put(name, body))

    def place_stub(self, name: str, mark: StubMark) -> Path:
        path = self.base / "tree" / name
        temporary = path.with_name(path.name + ".new")
        with temporary.open("wb") as stream:
            os.setxattr(stream.fileno(), XATTR, mark.encode())
            stream.truncate(mark.size)
        os.utime(temporary, ns=(MTIME_NS, MTIME_NS))
        temporary.rename(path)
        return path

    @asynccontextmanager
    async def daemon(self, *, boot_id: str = BOOT, chunk_size: int = CHUNK) -> AsyncIterator[Daemon]:
        """One that serves, and ends in order."""
        mover, front = HeldMover(), CountingFront()
        settings = Settings(state_dir=self.base, chunk_size=chunk_size)
        shared = Shared(
            settings=settings,
            catalog=self.catalog,
            tree=self.tree,
            mover=mover,  # type: ignore[arg-type]
            eventlog=self.eventlog,
            eager=False,
            front=front,
        )
        served = Served(
            shared=shared,
            association=Association(id="dra-1", directory=b"", bucket="bucket", prefix=""),
            store=self.store,
        )
        shared.served = {served.id: served}
        hydrator = StubHydrator(shared, Intake(shared, lambda _: served), lambda _: served, boot_id=boot_id)
        async with trio.open_nursery() as nursery:
            await nursery.start(hydrator.run)
            yield Daemon(shared, hydrator, served, mover, front)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def killed_daemon(self, *, boot_id: str = BOOT) -> AsyncIterator[Daemon]:
        """One that ends as after ``kill -9``: what it does after the block, to end in order, is taken back."""
        async with self.daemon(boot_id=boot_id) as daemon:
            yield daemon
            rows = self.catalog.partials.all()
            times = {path: path.stat().st_mtime_ns for path in (self.base / "tree").iterdir()}
        for row in self.catalog.partials.all():
            self.catalog.partials.delete(row.ino)
        self.catalog.partials.put_many(rows)
        for path, mtime_ns in times.items():
            os.utime(path, ns=(mtime_ns, mtime_ns))


def is_stub(path: Path) -> bool:
    return XATTR.decode() in os.listxattr(path)
