"""Stages that move a file's data only: releasing and restoring."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import trio

from fsxsync.errors import FsxSyncError, ObjectArchived
from fsxsync.model.identity import KINDS, Kind
from fsxsync.model.release import Refusal, is_idle
from fsxsync.model.shallow import Shallow
from fsxsync.model.stub import XATTR
from fsxsync.model.task import Failure, Task
from fsxsync.ports import Planned
from fsxsync.sync import releaser
from fsxsync.sync.ahead import ReadAhead
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.releasable import Candidate
from fsxsync.sync.served import Served
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, Place, count, entries, failure_of
from fsxsync.sync.under_way import NOBODY, Going, UnderWay

BYTES_AT_ONCE = 256 << 20
"""Of a batch: who looks at the progress of a task wants to see some."""
FILE = KINDS.index(Kind.FILE)


class DataStage:
    """Regular files at and below paths, those of one owner where the task is for one."""

    batch_size = BATCH
    at_once = 2
    """While the last files of one are on their way, those of the next begin."""

    def __init__(self, served: Served, unders: Sequence[bytes], task: Task) -> None:
        self.served = served
        self._unders = unders
        self._task = task

    async def estimate(self, goes_on: Going) -> int:
        order = self._task.order
        if order.owner_uid is None and order.idle_ns == 0:  # their rows are counted in a twentieth of the time
            counted = 0
            for number, under in enumerate(self._unders):
                counted += self.served.shared.catalog.files.count_objects(self.served.id, under)[0]
                if number % BATCH == BATCH - 1:
                    await trio.lowlevel.checkpoint()
            return counted
        return await count(self.served, self._unders, self._is_counted, goes_on)

    def _is_counted(self, path: bytes, state: Shallow) -> bool:
        order = self._task.order  # whoever asks may not even know that there are others' files
        is_file = state.kind == FILE and (order.owner_uid is None or state.uid == order.owner_uid)
        if not is_file or not self.served.filters.wants(path, directory=False):
            return False
        created_ns, idle_ns = self._task.created_ns, order.idle_ns
        return idle_ns == 0 or is_idle(state.local(), created_ns=created_ns, idle_ns=idle_ns)

    def check(self) -> None:
        return

    def _refused(self, path: bytes, why: Refusal) -> Failure:
        return Failure(self.served.tree_path(path), why.code, why.why)


class ReleaseStage(DataStage):
    """RELEASE_DATA_FROM_FILESYSTEM."""

    batch_size = 4 * BATCH
    """No data moves: a batch takes no longer for it, and objects are looked up and marks made durable for more."""
    at_once = 4
    """One is judged and one looked up while others wait for the disk."""

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        files, all_unders = self.served.shared.catalog.files, frozenset(self._unders)
        unders, key = Place.parse(after).rest(self._unders)
        try:
            async for found in entries(self.served, unders, key, self.batch_size, remember=True):
                batch = Batch(after=Place.within(all_unders, found[-1].key).encode())
                for entry in found:
                    if not self._concerns(entry):
                        continue
                    if entry.local is not None and releaser.is_released(entry.base, entry.local):
                        batch.quiet += 1
                    else:
                        batch.todo.append(entry)
                if len(batch.todo) < len(found):
                    todo = {entry.path for entry in batch.todo}
                    files.forget_read(self.served.id, [entry.path for entry in found if entry.path not in todo])
                yield batch
        except BaseException:
            files.forget_read(self.served.id)  # what was read ahead; another task of it reads its own once more
            raise

    def _concerns(self, entry: Entry) -> bool:
        local, owner = entry.local, self._task.order.owner_uid
        if local is None or local.kind is not Kind.FILE:
            return False
        if owner is not None and local.uid != owner:
            return False  # whoever asks may not even know that it is there
        return self.served.filters.wants(entry.path, directory=False) and is_idle(
            local, created_ns=self._task.created_ns, idle_ns=self._task.order.idle_ns
        )

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        done = Done()
        part = _candidates(batch.todo)
        try:
            if not part or not goes_on():
                return done
            outcomes = await releaser.release(self.served, part)
        except FsxSyncError as error:
            done.failures += (failure_of(self.served, one.path, error) for one in part)
            return done
        finally:
            self._forget_read(batch)
        for one in part:
            if (why := outcomes[one.path]) is not None:
                done.failures.append(self._refused(one.path, why))
            else:
                done.succeeded += 1
                done.moved += one.local.size
        return done

    def _forget_read(self, batch: Batch) -> None:
        self.served.shared.catalog.files.forget_read(self.served.id, [entry.path for entry in batch.todo])

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        try:
            outcomes = await releaser.foresee(self.served, _candidates(batch.todo))
        finally:
            self._forget_read(batch)
        for entry in batch.todo:
            path, why = self.served.tree_path(entry.path), outcomes[entry.path]
            size = entry.local.size if entry.local is not None else 0
            if why is None:
                yield Planned(path, "release", size)
            else:
                yield Planned(path, "refuse", size, why.code, why.why)


def _walk(served: Served, unders: Sequence[bytes], size: int) -> Iterator[list[tuple[bytes, Shallow]]]:
    """What stands at paths and below them, about ``size`` at a time, by paths of the tree, with whether it is a stub.
    Blocking: for a worker thread."""
    gathered: list[tuple[bytes, Shallow]] = []
    for under in unders:
        for some in _walk_at(served, under, size):
            gathered += some
            if len(gathered) >= size:
                yield gathered
                gathered = []
    if gathered:
        yield gathered


def _walk_at(served: Served, under: bytes, size: int) -> Iterator[list[tuple[bytes, Shallow]]]:
    tree, top = served.shared.tree, served.tree_path(under)
    local = tree.identify(top)
    if local is None:
        return
    if local.kind is Kind.DIRECTORY:
        for found in tree.entry_batches(top, size, marks=(XATTR,)):
            yield [(key.removesuffix(b"/"), state) for key, state in found]
    else:
        yield [(top, Shallow.of(local)._replace(marks=int(local.stub is not None)))]


def _candidates(found: Sequence[Entry]) -> list[Candidate]:
    return [Candidate(path, local, base) for path, local, base in found if local is not None]


class RestoreStage(DataStage):
    """RESTORE_DATA: what is released is loaded, behind everything that somebody waits for."""

    batch_size = 8 * BATCH
    """At the end of each one less is under way for a moment. The first ones are smaller: it begins sooner, and no two
    of one size begin at one time, which would end at one time, too."""

    def __init__(self, served: Served, unders: Sequence[bytes], task: Task, hydrator: StubHydrator) -> None:
        super().__init__(served, unders, task)
        self._hydrator = hydrator

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        """The walk reads which files are marked: no row has to be asked for."""
        batch, size, most = Batch(), 0, min(BATCH, self.batch_size)
        async for found in ReadAhead(_walk(self.served, self._unders, BATCH)):
            for tree_path, state in found:
                path = self.served.association.relative(tree_path)
                if not path or path <= after or not self._is_counted(path, state):
                    continue
                if not state.marks:
                    batch.quiet += 1
                else:
                    batch.todo.append(Entry(path, None, None))
                    size += state.size
                batch.after = path
                if len(batch.todo) + batch.quiet >= most or size >= BYTES_AT_ONCE:
                    yield batch
                    batch, size, most = Batch(), 0, min(2 * most, self.batch_size)
        if batch.after:
            yield batch

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        done = Done()
        paths = [self.served.tree_path(entry.path) for entry in batch.todo]
        watcher = goes_on if isinstance(goes_on, UnderWay) else NOBODY
        outcomes = await self._hydrator.restore_many(paths, goes_on, watcher)
        for entry, outcome in zip(batch.todo, outcomes, strict=True):
            if isinstance(outcome, FsxSyncError):
                done.failures.append(self._failure(entry.path, outcome))
            elif outcome is not None:
                done.moved += outcome
                done.succeeded += 1
        return done

    def _failure(self, path: bytes, error: FsxSyncError) -> Failure:
        if isinstance(error, ObjectArchived):
            return Failure(self.served.tree_path(path), "S3ObjectInUnsupportedTier", str(error))
        return failure_of(self.served, path, error)

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        for entry in batch.todo:
            local = self.served.shared.tree.identify(self.served.tree_path(entry.path))
            if local is not None and local.stub is not None:
                yield Planned(self.served.tree_path(entry.path), "restore", local.size)
