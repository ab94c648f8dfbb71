"""`ports.Hydrator`: gives the front the data of stubs, and takes its hints.

A small file is loaded when it is opened. A large one streams: a read waits for its own chunks only, what a sequential
reader will need is asked for ahead, and the rest follows in the background while somebody has the file open. What a
reader waits for is asked for at once; all else has a limit, over all files, so that it never stands in the way.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from fsxsync.errors import (
    FsxSyncError,
    LocalChanged,
    NoSpace,
    ObjectArchived,
)
from fsxsync.model.identity import Local
from fsxsync.model.parts import chunk_size_for
from fsxsync.ports import Priority
from fsxsync.sync.archives import may_ask, until_readable
from fsxsync.sync.beginning import begin
from fsxsync.sync.counting import counted
from fsxsync.sync.front_hints import FrontHints
from fsxsync.sync.hydration import HERE, MISSING, Hydration, mark_of, replaced
from fsxsync.sync.idle_data import IDLE_S, IdleData, is_partial
from fsxsync.sync.intake import Intake
from fsxsync.sync.interrupted import refuse_written
from fsxsync.sync.loaded_metadata import LoadedMetadata
from fsxsync.sync.loading import Owners, owner_of
from fsxsync.sync.partials import PartialMemory
from fsxsync.sync.readahead import WINDOW_MAX, Wish, choose
from fsxsync.sync.restoring import Outcome, Restorer
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.settling import Settler
from fsxsync.sync.under_way import NOBODY, Watcher
from fsxsync.tree.stub_data import cut


class StubHydrator(FrontHints):
    """One per daemon. Everything runs in the trio thread; downloads in the nursery of `run`, so that a reader that goes
    away takes none with it."""

    def __init__(
        self,
        shared: Shared,
        intake: Intake,
        served_for: Callable[[bytes], Served | None],
        *,
        boot_id: str | None = None,
    ) -> None:
        """``boot_id`` None is this boot's."""
        super().__init__(shared, intake, served_for)
        self._active: dict[int, Hydration] = {}
        self._wanting: dict[int, Hydration] = {}
        """Those of which chunks are wanted that nobody waits for."""
        self._ahead = 0
        self._landed = trio.Event()
        """Set when one of them has come."""
        self._ahead_most = max(1, shared.settings.association_requests * 3 // 4)
        self._nursery: trio.Nursery | None = None
        self._memory = PartialMemory(shared.catalog, shared.tree, self._chunk_size, boot_id)
        self._settler = Settler(shared, served_for, self._memory)
        self._idle = IdleData(shared, self._memory, self._active, forget=self.forget, report=self._settler.report)
        self._restorer = Restorer(shared, self, self._settler)
        shared.let_go = self.let_go
        self._metadata = LoadedMetadata(shared, self._active)
        shared.restore = self.restore

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the downloads, drop what nobody uses any more, and remember what is here."""
        self._memory.sweep()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._memory.run, name="partial files")
                task_status.started()
                try:
                    await self._idle.run()
                finally:
                    self._nursery = None  # while those in it end, nobody new comes in
        finally:
            partial = [hydration for hydration in self._active.values() if is_partial(hydration)]
            await self._memory.save_all(partial)
            for hydration in list(self._active.values()):
                self.forget(hydration)

    async def drop_below(self, directory: bytes) -> None:
        """Stop loading files of a directory that is about to be removed, and let go of them."""
        for hydration in list(self._active.values()):
            if not directory or hydration.path.startswith(directory + b"/"):
                await self._end(hydration)
                self._memory.forget(hydration.ino)

    async def _end(self, hydration: Hydration) -> None:
        """No byte of it is written any more."""
        hydration.discarded = True
        while hydration.settling is not None:
            await hydration.settling.wait()
        await hydration.cancel()
        await hydration.undisturbed()
        self.forget(hydration)

    def forget(self, hydration: Hydration) -> None:
        if self._active.get(hydration.ino) is hydration:
            del self._active[hydration.ino]
            self._wanting.pop(hydration.ino, None)
            self._shared.hydrating.discard(hydration.ino)
            hydration.is_forgotten = True
            os.close(hydration.fd)

    def is_loading(self, ino: int) -> bool:
        return ino in self._active

    def start(self, act: Callable[[], Awaitable[None]], name: str) -> None:
        if self._nursery is None:
            raise LocalChanged("reading a released file", "the daemon is ending")
        self._nursery.start_soon(act, name=name)

    def resident_bytes(self, ino: int) -> int | None:
        """Bytes of a stub that are here already; None if nothing is known to be."""
        hydration = self._active.get(ino)
        return hydration.resident_bytes if hydration else self._memory.resident_bytes(ino)

    # ------------------------------------------------------------- data

    def is_stub(self, fd: int) -> bool:
        return mark_of(fd) is not None

    def _chunk_size(self, size: int) -> int:
        return chunk_size_for(size, self._shared.settings.chunk_size)

    def hydration(self, path: bytes, fd: int) -> Hydration | None:
        """What loads the file; None if it is an ordinary one.

        Raises:
            FsxSyncError: it can't be loaded, or was found damaged a moment ago.
        """
        ino = os.fstat(fd).st_ino
        hydration = self._active.get(ino)
        if hydration is not None and hydration.failure is not None and hydration.settling is None:
            if trio.current_time() - hydration.last_use <= IDLE_S:
                raise hydration.failure
            self.forget(hydration)
            hydration = None
        if hydration is None:
            mark = mark_of(fd)
            if mark is None:
                return None
            try:
                own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:
                own = self._shared.tree.open_write(path, ino)
            try:
                local = self._shared.tree.identify_fd(own)._replace(stub=mark)
            except BaseException:
                os.close(own)
                raise
            hydration = self.begun(path, own, local)
        elif hydration.settling is None:
            hydration.refresh_mark()
        hydration.path = path
        hydration.is_patient = False
        hydration.last_use = trio.current_time()
        return hydration

    def begun(self, path: bytes, own: int, local: Local, owners: Owners | None = None) -> Hydration:
        """What loads the stub behind ``own``, which it takes over, from now on; ``local`` is its state, ``owners`` see
        `owner_of`."""
        assert local.stub is not None
        chunk_size = self._chunk_size(local.stub.size)
        try:
            here = self._served_for(path)
            refuse_written(here, path, local)
            served = owner_of(here, local.ino, local.stub, owners)
            hydration = begin(served, self._memory, path, own, local, chunk_size=chunk_size)
            hydration.suspect = self._settler.is_suspect(path)
        except BaseException:
            os.close(own)
            raise
        self._active[local.ino] = hydration
        self._shared.hydrating.add(local.ino)
        return hydration

    @asynccontextmanager
    async def let_go(self, ino: int) -> AsyncGenerator[None]:
        """See `Shared.let_go`."""
        while (hydration := self._active.get(ino)) is not None:
            if hydration.settling is not None:
                await hydration.settling.wait()
            elif hydration.resumed is not None:
                await hydration.resumed.wait()
            else:
                break
        if hydration is None:
            yield
            return
        async with hydration.without_descriptor():
            yield
        self._ask_ahead()

    async def open_for_read(self, path: bytes, fd: int) -> None:
        hydration = self.hydration(path, fd)
        if hydration is not None and 0 < hydration.mark.size <= self._shared.settings.chunk_size:
            with counted(hydration, range(hydration.count), hydration.mark.size):
                await self._load(hydration, range(hydration.count))

    async def ensure(self, path: bytes, fd: int, offset: int, length: int) -> bool:
        hydration = self.hydration(path, fd)
        if hydration is None:
            return False
        needed = hydration.touched(offset, length)
        with counted(hydration, needed, min(length, max(0, hydration.mark.size - offset))):
            if hydration.suspect and needed:
                await self.load_whole(hydration)
            elif needed:
                hydration.note_read(fd, offset, length)
                self._wanting[hydration.ino] = hydration
                await self._load(hydration, needed)
        return not hydration.settled.is_set()

    async def make_resident(self, path: bytes, fd: int) -> None:
        hydration = self.hydration(path, fd)
        if hydration is not None:
            await self.load_whole(hydration)

    async def restore(self, path: bytes) -> int:
        """See `Restorer.alone`."""
        return await self._restorer.alone(path)

    async def restore_many(
        self, paths: Sequence[bytes], goes_on: Callable[[], bool], watcher: Watcher = NOBODY
    ) -> list[Outcome]:
        """See `Restorer.restore`."""
        return await self._restorer.restore(paths, goes_on, watcher)

    async def load_whole(self, hydration: Hydration, priority: Priority = Priority.FOREGROUND) -> None:
        """On return the file is an ordinary one, whose bytes were compared with the object's."""
        while not hydration.settled.is_set():
            await self._load(hydration, range(hydration.count), priority)
            if hydration.settling is None and not hydration.settled.is_set():
                raise hydration.failure or replaced()
            while hydration.settling is not None:
                await hydration.settling.wait()
            if hydration.failure is not None:
                raise hydration.failure

    async def discard(self, path: bytes, fd: int) -> None:
        ino = os.fstat(fd).st_ino
        hydration = self._active.get(ino)
        if hydration is not None:
            await self._end(hydration)
        self._memory.forget(ino)
        cut(fd)

    async def until_settled(self, ino: int) -> None:
        await self._metadata.until_settled(ino)

    async def until_all_settled(self) -> None:
        """See `LoadedMetadata.until_all_settled`."""
        await self._metadata.until_all_settled()

    def retimed(self, ino: int, *, atime_ns: int | None, mtime_ns: int | None) -> tuple[int, int] | None:
        return self._metadata.retimed(ino, atime_ns=atime_ns, mtime_ns=mtime_ns)

    # ------------------------------------------------------------- downloads

    async def _load(self, hydration: Hydration, indexes: range, priority: Priority = Priority.FOREGROUND) -> None:
        """On return all of these chunks are here. No await since."""
        was_readable = False
        while not hydration.has(indexes):
            for place, index in enumerate(indexes):
                while hydration.states[index] != HERE:
                    if hydration.failure is not None:
                        raise hydration.failure
                    if hydration.discarded or hydration.is_forgotten:
                        raise replaced()
                    if not self._start_some(hydration, indexes[place : place + WINDOW_MAX], priority):
                        await self._landed.wait()
                        continue
                    self._ask_ahead()
                    try:
                        await hydration.until_here(index)
                    except NoSpace as error:
                        await self._make_room(error, hydration.begun_at.get(index, 0.0))
                    except ObjectArchived as error:
                        if was_readable:
                            raise  # its HEAD says that it can be read, and its GET that it can't
                        was_readable = not await self._until_restored(hydration, error)
        self._ask_ahead()
        self._settle_if_complete(hydration)

    async def _make_room(self, error: NoSpace, since: float) -> None:
        """Raises the error again if nothing more can be released."""
        if not await self._shared.make_room(since):
            raise error

    async def _until_restored(self, hydration: Hydration, error: ObjectArchived) -> bool:
        """Wait as long as somebody has the file open. False: its object was readable all the time."""
        served = self._served_for(hydration.path)
        is_open = lambda: self._shared.front.open_handles(hydration.ino) > 0 and not hydration.discarded  # noqa: E731
        path = served.association.relative(hydration.path) if served is not None else None
        if served is None or not path or not may_ask(served):
            raise error
        with hydration.waited_for():
            mark = hydration.mark
            return await until_readable(served, path, hydration.key, mark.etag, mark.version_id, is_open)

    def _start_some(self, hydration: Hydration, indexes: range, priority: Priority) -> bool:
        """Have chunks brought. False: nobody waits for them in a read, and there is no place for the first of them."""
        for index in indexes:
            if priority is not Priority.FOREGROUND and self._ahead >= self._ahead_most:
                return hydration.states[indexes.start] != MISSING
            self._start(hydration, index, priority)
        return True

    def _start(self, hydration: Hydration, index: int, priority: Priority) -> None:
        """Have a chunk brought, if nobody does it already."""
        if self._nursery is None:
            raise LocalChanged("reading a released file", "the daemon is ending")
        if not hydration.begin(index):
            if priority is Priority.FOREGROUND:
                hydration.hasten()
            return
        if hydration.count > 1 and not hydration.remembered:
            hydration.remembered = True
            self._memory.note(hydration)
            self._memory.write()  # before the first byte: should we be killed, its times can be told
        self._nursery.start_soon(self._carry, hydration, index, priority, name=f"load {hydration.key}")
        if priority >= Priority.PRELOAD:
            hydration.ahead += 1
            self._ahead += 1

    async def _carry(self, hydration: Hydration, index: int, priority: Priority) -> None:
        try:
            error = await hydration.carry(index, self._shared.mover, priority)
        finally:
            if priority >= Priority.PRELOAD:
                hydration.ahead -= 1
                self._ahead -= 1
                self._landed.set()
                self._landed = trio.Event()
        if error is None:
            hydration.reported = ""
            if hydration.count > 1:
                self._memory.note(hydration)
            self._settle_if_complete(hydration)
        else:
            # Nobody asks again for what failed; a reader that needs it does, and gets the error itself.
            self._wanting.pop(hydration.ino, None)
            self._settler.report(hydration, error)
        self._ask_ahead()

    def _ask_ahead(self) -> None:
        """Give the free places to chunks that nobody waits for yet."""
        while self._ahead < self._ahead_most and (wish := choose(self._wishes())) is not None:
            hydration = self._active[wish.ino]
            index = hydration.next_ahead() if wish.priority is Priority.PRELOAD else hydration.next_missing()
            assert index is not None
            self._start(hydration, index, wish.priority)

    def _wishes(self) -> list[Wish]:
        wishes = []
        for ino, hydration in list(self._wanting.items()):
            ended = hydration.discarded or hydration.failure is not None or hydration.next_missing() is None
            if ended or self._shared.front.open_handles(ino) == 0:
                del self._wanting[ino]  # until somebody reads on
            elif hydration.resumed is None and self._nursery is not None:
                ahead = hydration.next_ahead() is not None
                wishes.append(Wish(Priority.PRELOAD if ahead else Priority.BACKGROUND, hydration.ahead, ino))
        return wishes

    # ------------------------------------------------------------- the end of it

    def _settle_if_complete(self, hydration: Hydration) -> None:
        done = hydration.settled.is_set() or hydration.settling is not None or hydration.failure is not None
        if hydration.is_complete and not done and not hydration.discarded and self._nursery is not None:
            hydration.settling = trio.Event()
            self._nursery.start_soon(self._settle, hydration, name=f"settle {hydration.key}")

    async def _settle(self, hydration: Hydration) -> None:
        self._shared.settling += 1
        error: FsxSyncError | None = None
        is_settled = False
        try:
            await hydration.undisturbed()
            is_settled = await self._settler.settle(hydration)
        except FsxSyncError as caught:
            error = caught
        finally:
            self._shared.settling -= 1
            self.end_settling(hydration, error, is_settled=is_settled)

    def end_settling(self, hydration: Hydration, error: FsxSyncError | None, *, is_settled: bool) -> None:
        """Neither settled nor an error: it is to be loaded again."""
        over = hydration.settling
        assert over is not None
        if error is not None:
            hydration.failure = error
            self._settler.report(hydration, error)
        if is_settled or (error is not None and hydration.is_complete):  # all bytes are right, only the mark stays
            hydration.settled.set()
            self.forget(hydration)
        hydration.settling = None
        over.set()
        if hydration.settled.is_set():
            self._shared.front.invalidate_inode(hydration.ino, data=False)
        elif hydration.failure is None:
            self._wanting[hydration.ino] = hydration
            self._ask_ahead()
