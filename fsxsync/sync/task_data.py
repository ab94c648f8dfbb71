"""Stages that move a file's data only: releasing and restoring."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fsxsync.errors import FsxSyncError, ObjectArchived
from fsxsync.model.identity import Kind, Local
from fsxsync.model.release import Refusal, is_idle
from fsxsync.model.task import Failure, Task
from fsxsync.ports import Planned
from fsxsync.sync import releaser
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.releaser import Candidate
from fsxsync.sync.served import Served
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, Going, entries, failure_of


class DataStage:
    """Regular files at and below paths, those of one owner where the task is for one."""

    batch_size = BATCH
    reads_ahead = False

    def __init__(self, served: Served, unders: Sequence[bytes], task: Task) -> None:
        self.served = served
        self._unders = unders
        self._task = task

    def estimate(self) -> int:
        if self._task.order.owner_uid is not None:
            return 0  # how many others have is not told
        files = self.served.shared.catalog.files
        return sum(files.count_under(self.served.id, under) for under in self._unders)

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        owner = self._task.order.owner_uid
        async for found in entries(self.served, self._unders, after, self.batch_size):
            batch = Batch(after=found[-1].key)
            for entry in found:
                local = entry.local
                if local is None or local.kind is not Kind.FILE:
                    continue
                if not self.served.filters.wants(entry.path, directory=False) or not self._is_wanted(local):
                    continue
                if owner is not None and local.uid != owner:
                    continue  # whoever asks may not even know that it is there
                if self._is_done(entry, local):
                    batch.quiet += 1
                else:
                    batch.todo.append(entry)
            yield batch

    def _is_wanted(self, local: Local) -> bool:
        return True

    def _is_done(self, entry: Entry, local: Local) -> bool:
        raise NotImplementedError

    def _refused(self, path: bytes, why: Refusal) -> Failure:
        return Failure(self.served.tree_path(path), why.code, why.why)


class ReleaseStage(DataStage):
    """RELEASE_DATA_FROM_FILESYSTEM."""

    batch_size = 4 * BATCH
    """No data moves: a batch takes no longer for it, and objects are looked up and marks made durable for more."""

    def _is_wanted(self, local: Local) -> bool:
        return is_idle(local, created_ns=self._task.created_ns, idle_ns=self._task.order.idle_ns)

    def _is_done(self, entry: Entry, local: Local) -> bool:
        return releaser.is_released(entry.base, local)

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        done = Done()
        part = _candidates(batch.todo)
        if not part or not goes_on():
            return done
        try:
            outcomes = await releaser.release(self.served, part)
        except FsxSyncError as error:
            done.failures += (failure_of(self.served, one.path, error) for one in part)
            return done
        for one in part:
            if (why := outcomes[one.path]) is not None:
                done.failures.append(self._refused(one.path, why))
            else:
                done.succeeded += 1
                done.moved += one.local.size
        return done

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        outcomes = await releaser.foresee(self.served, _candidates(batch.todo))
        for entry in batch.todo:
            path, why = self.served.tree_path(entry.path), outcomes[entry.path]
            size = entry.local.size if entry.local is not None else 0
            if why is None:
                yield Planned(path, "release", size)
            else:
                yield Planned(path, "refuse", size, why.code, why.why)


def _candidates(found: Sequence[Entry]) -> list[Candidate]:
    return [Candidate(entry.path, entry.local) for entry in found if entry.local is not None]


class RestoreStage(DataStage):
    """RESTORE_DATA: what is released is loaded, behind everything that somebody waits for."""

    reads_ahead = True
    batch_size = 8 * BATCH
    """At the end of each one nothing is under way for a moment."""

    def __init__(self, served: Served, unders: Sequence[bytes], task: Task, hydrator: StubHydrator) -> None:
        super().__init__(served, unders, task)
        self._hydrator = hydrator

    def _is_done(self, entry: Entry, local: Local) -> bool:
        # Without the marks, which a walk does not read, only the row can say that there is nothing to do.
        return entry.base is not None and entry.base.matches_local(local) and not entry.base.released

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        done = Done()
        paths = [self.served.tree_path(entry.path) for entry in batch.todo]
        for entry, outcome in zip(batch.todo, await self._hydrator.restore_many(paths, goes_on), strict=True):
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
