"""Small files that a task restores: opened, loaded and settled by the slice.

Alone each of them costs three tasks, a turn, a job, two waits for the disk and three looks at the catalog; together
these are had once for all of them. Only what is simple comes here: a stub of one chunk, of which nothing is here and
that nobody loads. Whatever is not, or does not come at the first try, goes the way of all others
(`Restorer.alone`), which finds out what is wrong. Who reads a file whose request has not gone yet asks for it
himself, with the priority of one who waits.

    open  ->  _active  ->  GET, its turn and its answer (Hydration.begin_whole, came_whole)  ->  settled together
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from fsxsync.crashpoint import durable, is_armed
from fsxsync.errors import FsxSyncError, LocalChanged
from fsxsync.model.checksum import Algorithm
from fsxsync.model.identity import Local
from fsxsync.ports import End, Fetched, Priority, Sink
from fsxsync.sync.hydration import Hydration, kept_free
from fsxsync.sync.loading import Owners
from fsxsync.sync.served import Shared
from fsxsync.sync.settling import Settler
from fsxsync.sync.under_way import NOBODY, Watcher
from fsxsync.transfer.checksums import choose, matches
from fsxsync.tree.settle_together import Garbled

LARGEST = 1 << 20
"""Bytes. Of larger files it is the bytes that cost."""
SLICE = 64
"""Files that are opened and settled at a time."""
SLICES = 6
"""So many at a time: one is loaded, while others are compared, flushed, and written down."""
ALONE = 48
"""Files that are loaded at the same time the way of all others."""

Outcome = int | FsxSyncError | None
"""Bytes that came, what went wrong, or that it was left."""


class Loader(Protocol):
    """What the hydrator does for a restore."""

    def begun(self, path: bytes, own: int, local: Local, owners: Owners | None = None) -> Hydration:
        """What loads the stub behind ``own``, from now on; ``owners`` see `owner_of`."""

    def is_loading(self, ino: int) -> bool: ...

    def forget(self, hydration: Hydration) -> None:
        """Nobody loads it any more."""

    def end_settling(self, hydration: Hydration, error: FsxSyncError | None, *, is_settled: bool) -> None: ...

    def start(self, act: Callable[[], Awaitable[None]], name: str) -> None:
        """Run it where downloads do not end with who asked for them. Raises LocalChanged: the daemon is ending."""

    def hydration(self, path: bytes, fd: int) -> Hydration | None:
        """What loads the file; None if it is an ordinary one. Raises FsxSyncError."""

    async def load_whole(self, hydration: Hydration, priority: Priority) -> None: ...


@dataclass(slots=True, eq=False)
class _Slice:
    """Some files that are loaded together; those of one store."""

    files: list[Hydration] = field(default_factory=list)
    goes_on: Callable[[], bool] = lambda: True
    ends: dict[int, End] = field(default_factory=dict)
    """Number -> what ends its request, of those that are under way."""
    steps: dict[int, AbstractContextManager[None]] = field(default_factory=dict)
    doubtful: list[tuple[int, Fetched]] = field(default_factory=list)
    """They have come, and their bytes are to be compared with what the store told of them."""
    arrived: trio.Event = field(default_factory=trio.Event)
    is_over: bool = False
    left: set[int] = field(default_factory=set)
    """They were not begun: it was too late."""
    done: trio.Event = field(default_factory=trio.Event)


class Restorer:
    """One per hydrator. In the trio thread."""

    def __init__(self, shared: Shared, loader: Loader, settler: Settler) -> None:
        self._shared = shared
        self._loader = loader
        self._settler = settler
        self._slices = trio.Semaphore(SLICES)
        self._alone_now = trio.Semaphore(ALONE)
        self._under_way = 0
        """Bytes of files that are open here."""

    async def restore(
        self, paths: Sequence[bytes], goes_on: Callable[[], bool], watcher: Watcher = NOBODY
    ) -> list[Outcome]:
        """Load files, behind everything that somebody waits for; what came of each, in their order. What is begun when
        ``goes_on`` says no is finished, and the rest is left."""
        outcomes: list[Outcome] = [None] * len(paths)
        slices, alone = self._slices, self._alone_now

        async def act(numbers: Sequence[int]) -> None:
            try:
                rest = await self._together(paths, numbers, outcomes, goes_on)
                _tell(watcher, [outcomes[number] for number in numbers])
                # As long as these have no place, no others are opened: their descriptors would pile up.
                for number, hydration in rest:
                    await alone.acquire()
                    if goes_on():
                        nursery.start_soon(load, number, hydration)
                    else:
                        alone.release()
                        self._let_be(hydration)
            finally:
                slices.release()

        async def load(number: int, hydration: Hydration | None) -> None:
            try:
                outcomes[number] = await self._on(paths[number], hydration, watcher)
                _tell(watcher, [outcomes[number]])
            except FsxSyncError as error:
                outcomes[number] = error
            finally:
                alone.release()

        async with trio.open_nursery() as nursery:
            for start in range(0, len(paths), SLICE):
                await slices.acquire()
                if not goes_on():
                    slices.release()
                    break
                nursery.start_soon(act, range(start, min(start + SLICE, len(paths))))
        return outcomes

    async def alone(self, path: bytes, watcher: Watcher = NOBODY) -> int:
        """Load one file, behind whoever waits in a read. Returns the size of what was no ordinary file before.

        Raises:
            LocalChanged: another file took its place. FsxSyncError: it can't be loaded.
        """
        [opened] = self._shared.tree.open_stubs([path])
        if opened is None:
            return 0
        if isinstance(opened, FsxSyncError):
            raise opened
        fd, local = opened
        hydration: Hydration | None
        if self._loader.is_loading(local.ino):  # somebody loads it already, or did a moment ago
            try:
                hydration = self._loader.hydration(path, fd)
            finally:
                os.close(fd)
        else:
            hydration = self._loader.begun(path, fd, local)
            hydration.is_patient = True
        if hydration is None:
            return 0
        await self._load_whole(hydration, watcher)
        return local.size

    async def _on(self, path: bytes, hydration: Hydration | None, watcher: Watcher) -> int:
        """Load what did not come together with others."""
        if hydration is None or hydration.is_forgotten:
            return await self.alone(path, watcher)
        if hydration.failure is not None:
            raise hydration.failure
        await self._load_whole(hydration, watcher)
        return hydration.mark.size

    async def _load_whole(self, hydration: Hydration, watcher: Watcher) -> None:
        before = hydration.resident_bytes
        with hydration.waited_for(), watcher.loading(lambda: hydration.resident_bytes - before):
            await self._loader.load_whole(hydration, Priority.BACKGROUND)

    async def _together(
        self, paths: Sequence[bytes], numbers: Sequence[int], outcomes: list[Outcome], goes_on: Callable[[], bool]
    ) -> list[tuple[int, Hydration | None]]:
        """Restore what can be together; the rest, with what loads it if something does."""
        part = _Slice(goes_on=goes_on)
        rest: list[tuple[int, Hydration | None]] = []
        chosen: list[int] = []
        for number, taken in zip(numbers, self._open([paths[number] for number in numbers]), strict=True):
            if not isinstance(taken, Hydration):
                outcomes[number] = taken
                if taken is None:
                    rest.append((number, None))
            elif part.files and taken.store is not part.files[0].store:
                self._leave(taken, paths[number])
                rest.append((number, taken))
            else:
                part.files.append(taken)
                chosen.append(number)
        if part.files:
            try:
                await self._carried(part)
            finally:
                for number, hydration in zip(chosen, part.files, strict=True):
                    self._leave(hydration, paths[number])
        for place, (number, hydration) in enumerate(zip(chosen, part.files, strict=True)):
            if hydration.settled.is_set() and hydration.failure is None:
                outcomes[number] = hydration.mark.size
            elif place in part.left:
                self._let_be(hydration)
            else:
                rest.append((number, hydration))
        return rest

    def _leave(self, hydration: Hydration, path: bytes) -> None:
        """It is not loaded together with others any more. ``path``: as it was taken, it may have moved since."""
        hydration.waiting -= 1
        self._shared.restoring.discard(path)

    def _let_be(self, hydration: Hydration | None) -> None:
        """It is not loaded after all; unless somebody came to it meanwhile."""
        if hydration is not None and hydration.is_patient and hydration.rests and not hydration.is_complete:
            self._loader.forget(hydration)

    def _open(self, paths: Sequence[bytes]) -> list[Hydration | Outcome]:
        """What loads each together with others; 0: it is no stub; None: it has to be alone."""
        found: list[Hydration | Outcome] = []
        stubs = self._shared.tree.open_stubs(paths)
        owners = self._owners([one[1].ino for one in stubs if isinstance(one, tuple)])
        for path, opened in zip(paths, stubs, strict=True):
            if opened is None:
                found.append(0)
            elif isinstance(opened, FsxSyncError):  # it is tried again: descriptors may have been short
                found.append(None)
            else:
                try:
                    found.append(self._taken(path, *opened, owners))
                except FsxSyncError as error:
                    found.append(error)
        return found

    def _owners(self, inodes: Sequence[int]) -> Owners:
        """Where there is one association, no row has to say whose a stub is that was moved."""
        return self._shared.catalog.files.released_owners(inodes) if len(self._shared.served) > 1 else {}

    def _taken(self, path: bytes, fd: int, local: Local, owners: Owners) -> Hydration | None:
        """What loads the stub together with others; None if it has to be alone. ``fd`` is taken over."""
        assert local.stub is not None
        if self._loader.is_loading(local.ino) or not 0 < local.size <= min(LARGEST, self._shared.settings.chunk_size):
            os.close(fd)
            return None
        hydration = self._loader.begun(path, fd, local, owners)
        hydration.is_patient = True
        if hydration.suspect or hydration.claims or hydration.count != 1:
            self._loader.forget(hydration)
            return None
        hydration.waiting += 1  # so long nobody takes it for one that rests
        self._shared.restoring.add(path)
        return hydration

    async def _carried(self, part: _Slice) -> None:
        size = sum(one.mark.size for one in part.files)
        self._under_way += size
        try:
            self._loader.start(lambda: self._carry(part), "restore some")
            await part.done.wait()
        except LocalChanged:
            return  # each of them is told so
        except trio.Cancelled:
            part.goes_on = lambda: False  # what is under way is finished all the same
            raise
        finally:
            self._under_way -= size

    # ------------------------------------------------------------- downloads

    async def _carry(self, part: _Slice) -> None:
        try:
            if self._has_room():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._compare, part)
                    await self._fetch(part)
            arrived = [one for one in part.files if _is_to_settle(one)]
            if arrived:
                await self._settle(arrived)
        finally:
            for number in list(part.ends):  # the daemon ends before they were compared
                self._came(part, number, None)
            part.done.set()

    def _has_room(self) -> bool:
        """Where there is none, each asks for some."""
        try:
            disk = os.fstatvfs(self._shared.tree.root_fd)
        except OSError:
            return False  # each of them is told so
        return disk.f_bavail * disk.f_frsize - self._under_way >= kept_free(disk.f_blocks * disk.f_frsize)

    async def _fetch(self, part: _Slice) -> None:
        files, marks = part.files, [one.mark for one in part.files]

        def begin(number: int, end: End) -> Sink | None:
            if not part.goes_on():
                part.left.add(number)
                return None
            if files[number].mark is not marks[number] or (sink := files[number].begin_whole(end)) is None:
                return None
            part.ends[number] = end
            if is_armed():
                part.steps[number] = step = durable("stub.chunk")
                step.__enter__()
            return sink

        def came(number: int, fetched: Fetched | None) -> None:
            if (step := part.steps.pop(number, None)) is not None and fetched is not None:
                step.__exit__(None, None, None)
            told = choose(fetched.checksums) if fetched is not None else None
            if fetched is None or told is None:
                self._came(part, number, fetched)
            elif told.algorithm is Algorithm.CRC64NVME:
                is_right = fetched.crc64nvme.to_bytes(8, "big") == told.value
                self._came(part, number, fetched if is_right else None)
            else:
                part.doubtful.append((number, fetched))
                part.arrived.set()

        try:
            await self._shared.mover.fetch_many(files[0].store, marks, Priority.BACKGROUND, begin, came)
        except FsxSyncError:
            pass  # each of them is told so
        finally:
            part.is_over = True
            part.arrived.set()

    @staticmethod
    def _came(part: _Slice, number: int, fetched: Fetched | None) -> None:
        part.files[number].came_whole(part.ends.pop(number), fetched)

    async def _compare(self, part: _Slice) -> None:
        """Nobody is shown a byte of a file before all of it was compared."""
        while not part.is_over or part.doubtful:
            await part.arrived.wait()
            part.arrived = trio.Event()
            some, part.doubtful = part.doubtful, []
            if some:
                compared = [(part.files[number], fetched) for number, fetched in some]
                are_right = [False] * len(some)
                try:
                    with trio.CancelScope(shield=True):
                        are_right = await trio.to_thread.run_sync(_compared, compared)
                finally:
                    for (number, fetched), is_right in zip(some, are_right, strict=True):
                        self._came(part, number, fetched if is_right else None)

    # ------------------------------------------------------------- the end of it

    async def _settle(self, arrived: Sequence[Hydration]) -> None:
        for one in arrived:
            one.settling = trio.Event()
        self._shared.settling += len(arrived)
        outcomes: Sequence[object | None] = [None] * len(arrived)
        try:
            for one in arrived:
                await one.undisturbed()
            # What is begun is finished: nobody else knows of all of them.
            with trio.CancelScope(shield=True):
                outcomes = await self._settler.settle_many(arrived)
        except FsxSyncError as caught:
            outcomes = [caught] * len(arrived)
        finally:
            self._shared.settling -= len(arrived)
            for one, outcome in zip(arrived, outcomes, strict=True):
                self._end_settling(one, outcome)

    def _end_settling(self, one: Hydration, outcome: object | None) -> None:
        """None: it did not come to that."""
        if isinstance(outcome, Garbled):
            self._settler.drop(one, outcome)
            outcome = None
        error = outcome if isinstance(outcome, FsxSyncError) else None
        self._loader.end_settling(one, error, is_settled=outcome is not None and error is None)


def _tell(watcher: Watcher, outcomes: Sequence[Outcome]) -> None:
    for size in outcomes:
        if isinstance(size, int):
            watcher.came(size)


def _is_to_settle(one: Hydration) -> bool:
    is_under_way = one.settled.is_set() or one.settling is not None
    is_ours = not one.discarded and not one.is_forgotten
    return one.is_complete and is_ours and not is_under_way and one.failure is None


def _compared(files: Sequence[tuple[Hydration, Fetched]]) -> list[bool]:
    """Blocking."""
    are_right = []
    for one, fetched in files:
        try:
            are_right.append(matches(one.fd, one.mark.size, fetched.checksums) is not False)
        except (FsxSyncError, OSError):
            are_right.append(False)
    return are_right
