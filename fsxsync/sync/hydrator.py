"""`ports.Hydrator`: gives the front the data of stubs, and takes its hints.

A small file is loaded when it is opened. A large one streams: a read waits for its own chunks only, a few chunks
ahead are asked for, and the rest follows in the background while somebody has the file open.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, ObjectChanged, ObjectMissing
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.ports import ObjectStore, Priority
from fsxsync.sync.hydration import Hydration, mark_of, open_hydration
from fsxsync.sync.importer import first_leaf
from fsxsync.sync.intake import Intake
from fsxsync.sync.served import Served, Shared

READ_AHEAD_CHUNKS = 3
IDLE_S = 60.0
"""How long what was loaded of a file is remembered after the last use; then its descriptor is given back."""


class StubHydrator:
    """One per daemon. Everything runs in the trio thread; background work in the nursery given to `run`."""

    def __init__(self, shared: Shared, intake: Intake, served_for: Callable[[bytes], Served | None]) -> None:
        self._shared = shared
        self._intake = intake
        self._served_for = served_for
        self._active: dict[int, Hydration] = {}
        self._nursery: trio.Nursery | None = None
        shared.let_go = self.let_go

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the background fills, and drop what nobody uses any more."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    await trio.sleep(IDLE_S / 4)
                    self._drop_idle()
            finally:
                self._nursery = None

    def _drop_idle(self) -> None:
        now = trio.current_time()
        for hydration in list(self._active.values()):
            in_use = hydration.is_busy or hydration.filling or hydration.settling
            idle = now - hydration.last_use > IDLE_S and not in_use
            if idle and self._shared.front.open_handles(hydration.ino) == 0:
                self._forget(hydration)

    async def drop_below(self, directory: bytes) -> None:
        """Stop loading files of a directory that is about to be removed, and let go of them."""
        for hydration in list(self._active.values()):
            if not directory or hydration.path.startswith(directory + b"/"):
                hydration.discarded = True
                if hydration.settling:
                    await hydration.settled.wait()
                while hydration.is_busy:
                    await next(iter(hydration.arrivals.values())).wait()
                self._forget(hydration)

    def _forget(self, hydration: Hydration) -> None:
        if self._active.pop(hydration.ino, None) is not None:
            self._shared.hydrating.discard(hydration.ino)
            os.close(hydration.fd)

    def resident_bytes(self, ino: int) -> int | None:
        """Bytes of a stub that are here already; None if nobody is loading it."""
        hydration = self._active.get(ino)
        return hydration.resident_bytes if hydration else None

    # ------------------------------------------------------------- data

    def is_stub(self, fd: int) -> bool:
        return mark_of(fd) is not None

    def _store_of(self, path: bytes, mark: StubMark) -> tuple[ObjectStore, str]:
        served = self._served_for(path)
        if served is None:
            raise ObjectMissing(f"reading /{path.decode('utf-8', 'backslashreplace')}", "its association is gone")
        return served.store, mark.key

    def _hydration(self, path: bytes, fd: int) -> Hydration | None:
        ino = os.fstat(fd).st_ino
        hydration = self._active.get(ino)
        if hydration is None:
            hydration = open_hydration(
                fd,
                path,
                chunk_size=self._shared.settings.chunk_size,
                store_of=lambda mark: self._store_of(path, mark),
                reopen=self._shared.tree.open_write,
            )
            if hydration is None:
                return None
            self._active[ino] = hydration
            self._shared.hydrating.add(ino)
        if not hydration.settling:
            hydration.refresh_mark()
        hydration.path = path
        hydration.last_use = trio.current_time()
        return hydration

    @asynccontextmanager
    async def let_go(self, ino: int) -> AsyncGenerator[None]:
        """See `Shared.let_go`."""
        hydration = self._active.get(ino)
        if hydration is not None and hydration.settling:
            await hydration.settled.wait()
            hydration = None
        if hydration is None:
            yield
            return
        async with hydration.without_descriptor():
            yield

    async def open_for_read(self, path: bytes, fd: int) -> None:
        hydration = self._hydration(path, fd)
        if hydration is not None and len(hydration.chunks) == 1:
            await self._load(hydration, range(1), Priority.FOREGROUND)

    async def ensure(self, path: bytes, fd: int, offset: int, length: int) -> bool:
        hydration = self._hydration(path, fd)
        if hydration is None:
            return False
        needed = hydration.touched(offset, length)
        if needed:
            hydration.read_up_to = max(offset + length, 0)
            self._fill_in_background(hydration, needed)
            await self._load(hydration, needed, Priority.FOREGROUND)
        return not hydration.settled.is_set()

    async def make_resident(self, path: bytes, fd: int) -> None:
        hydration = self._hydration(path, fd)
        if hydration is None:
            return
        await self._load(hydration, range(len(hydration.chunks)), Priority.FOREGROUND)
        await hydration.settled.wait()
        if hydration.failure is not None:
            raise hydration.failure

    async def discard(self, path: bytes, fd: int) -> None:
        ino = os.fstat(fd).st_ino
        hydration = self._active.get(ino)
        if hydration is not None:
            hydration.discarded = True
            if hydration.settling:
                await hydration.settled.wait()
            while hydration.is_busy:  # a chunk under way would be written into the new content
                await next(iter(hydration.arrivals.values())).wait()
            self._forget(hydration)
        # Cut first: a crash in between leaves a mark on an empty file, which is imported again; the other order
        # would leave a file of zeros without a mark (DESIGN §3.4).
        os.ftruncate(fd, 0)
        if self.is_stub(fd):
            os.removexattr(fd, XATTR)

    async def _load(self, hydration: Hydration, indexes: range, priority: Priority) -> None:
        try:
            if len(indexes) == 1:
                await hydration.fetch(indexes[0], self._shared.mover, priority)
            else:
                async with trio.open_nursery() as nursery:
                    for index in indexes:
                        nursery.start_soon(hydration.fetch, index, self._shared.mover, priority)
        except* FsxSyncError as failures:
            error = first_leaf(failures)
            self._report(hydration, error)
            raise error from failures
        if hydration.is_complete and not hydration.settling and self._nursery is not None:
            hydration.refresh_mark()
            hydration.settling = True
            self._nursery.start_soon(self._settle, hydration, name=f"settle {hydration.key}")

    def _report(self, hydration: Hydration, error: BaseException) -> None:
        served = self._served_for(hydration.path)
        if isinstance(error, ObjectChanged | ObjectMissing) and served is not None:
            # The object moved on: the path gets a new stub; whoever has this one open is told (ESTALE, ENOENT).
            path = served.association.relative(hydration.path)
            if path:
                served.add_hint(path, remote=True)
        if isinstance(error, FsxSyncError) and not isinstance(error, LocalChanged):
            self._shared.eventlog.emit(
                level="ERROR",
                code=error.code,
                flow="restore",
                association=served.id if served else "",
                path="/" + hydration.path.decode("utf-8", "backslashreplace"),
                key=hydration.key,
                message=str(error),
            )

    async def _settle(self, hydration: Hydration) -> None:
        """All chunks are here: make them durable, then take the mark off, then write the row (DESIGN §5)."""
        tree = self._shared.tree
        try:
            digest, _ = await trio.to_thread.run_sync(tree.hash_file, hydration.fd, hydration.mark.size)
            local = await trio.to_thread.run_sync(
                lambda: tree.unmark(
                    hydration.fd, hydration.mark, mtime_ns=hydration.mtime_ns, atime_ns=hydration.atime_ns
                )
            )
            self._write_row(hydration, local, digest)
        except FsxSyncError as error:
            hydration.failure = error
            self._report(hydration, error)
        finally:
            self._forget(hydration)
            hydration.settled.set()
        self._shared.front.invalidate_inode(hydration.ino, data=False)

    def _write_row(self, hydration: Hydration, local: Local, digest: bytes) -> None:
        served = self._served_for(hydration.path)
        path = served.association.relative(hydration.path) if served else None
        if served is None or not path:
            return
        served.hydrated += 1
        base = self._shared.catalog.files.get(served.id, path)
        if base is not None and base.ino == local.ino and base.etag == hydration.mark.etag:
            # A mode or owner that was set meanwhile is a change to be exported, not a part of the loading.
            row = base.with_local(replace(local, mode=base.mode, uid=base.uid, gid=base.gid))
            self._shared.catalog.files.put(replace(row, content_hash=digest, released=False))
            if (base.mode, base.uid, base.gid) != (local.mode, local.uid, local.gid):
                served.add_hint(path, local=True)
        else:
            served.add_hint(path, local=True)

    def _fill_in_background(self, hydration: Hydration, needed: range) -> None:
        if hydration.filling or self._nursery is None or len(hydration.chunks) == len(needed):
            return
        hydration.filling = True
        self._nursery.start_soon(self._fill, hydration, name=f"fill {hydration.key}")

    async def _fill(self, hydration: Hydration) -> None:
        """Bring the rest while somebody has the file open: the chunks right ahead of the reader first."""
        try:
            while not hydration.discarded and self._shared.front.open_handles(hydration.ino) > 0:
                index = hydration.next_missing()
                if index is None:
                    break
                last = min(index + READ_AHEAD_CHUNKS, len(hydration.chunks))
                near = range(index, last)
                await self._load(hydration, near, Priority.PRELOAD if index else Priority.BACKGROUND)
        except FsxSyncError:
            return  # reported by _load; a reader that needs the chunk tries again and gets the error itself
        finally:
            hydration.filling = False

    # ------------------------------------------------------------- hints of the front

    def writer_opened(self, path: bytes, ino: int) -> None:
        self._shared.writers[ino] = self._shared.writers.get(ino, 0) + 1

    def writer_closed(self, path: bytes, ino: int) -> None:
        left = self._shared.writers.get(ino, 0) - 1
        if left > 0:
            self._shared.writers[ino] = left
            return
        self._shared.writers.pop(ino, None)
        self._intake.changed(path)

    def changed(self, path: bytes) -> None:
        self._intake.changed(path)

    def renamed(self, old: bytes, new: bytes, *, exchanged: bool) -> None:
        local = self._shared.tree.identify(new)
        is_directory = local is not None and local.kind is Kind.DIRECTORY
        self._intake.renamed(old, new, is_directory)
        if exchanged:
            other = self._shared.tree.identify(old)
            self._intake.renamed(new, old, other is not None and other.kind is Kind.DIRECTORY)

    def may_write(self, path: bytes) -> bool:
        served = self._served_for(path)
        return served is None or not served.association.read_only

    def may_rename(self, old: bytes, new: bytes) -> bool:
        one, other = self._served_for(old), self._served_for(new)
        return (one.id if one else None) == (other.id if other else None)

    def is_association_root(self, path: bytes) -> bool:
        return self._is_root(path)

    _is_root: Callable[[bytes], bool] = staticmethod(lambda _path: False)

    def set_roots(self, is_root: Callable[[bytes], bool]) -> None:
        """How to tell an association's directory or an ancestor of one."""
        self._is_root = is_root
