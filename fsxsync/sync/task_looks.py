"""Stages that bring one side to the other: exporting, importing, and the deletes of either.

They look at paths as the changelog's lookers do, at their own pace and under what the task allows instead of what the
association does by itself; the same path is never looked at twice at once, so both may run together (FSx can't).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import trio

from fsxsync.catalog.changelog import Entry as Looked
from fsxsync.catalog.files import Known
from fsxsync.errors import (
    FsxSyncError,
    KeyNotPosix,
    LocalChanged,
    ObjectArchived,
    ObjectChanged,
    RepositoryError,
    Throttled,
)
from fsxsync.model.association import ALL_EVENTS, Event, Policy
from fsxsync.model.identity import Kind
from fsxsync.model.keys import path_of
from fsxsync.model.release import ARCHIVE_CLASSES
from fsxsync.model.task import WARNING, Failure, Task
from fsxsync.ports import Listed, Planned
from fsxsync.sync import brakes
from fsxsync.sync.acting import Next
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.journal import shown
from fsxsync.sync.look import look
from fsxsync.sync.served import Served
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, entries, failure_of
from fsxsync.sync.under_way import Going
from fsxsync.sync.uploads import end_settled

AGAIN_MAX = 20
"""Looks at a path that something else comes in the way of, before it counts as busy."""
AGAIN_S = 0.1
COPIES = frozenset({Event.NEW, Event.CHANGED})


class DeletesRefused(RepositoryError):
    """So much is gone on one side that it is not believed; nothing was deleted."""

    code = "MassDeleteStopped"
    advice = "check that disks are mounted and the prefix is right; if it really is to go, add --accept-deletes"


def policy_of(served: Served, *, exports: frozenset[Event], imports: frozenset[Event]) -> Policy:
    """What the association does by itself, and what the task is to do."""
    own = served.association.policy
    return replace(own, exports=own.exports | exports, imports=own.imports | imports)


async def settle_path(served: Served, path: bytes, policy: Policy, *, remote: bool) -> None:
    """Bring both sides of one path together.

    Raises:
        FsxSyncError: they are not, and why.
    """
    changelog, shared = served.shared.catalog.changelog, served.shared
    error: FsxSyncError = LocalChanged(f"sync of {shown(served, path)}", "it changes all the time")
    for turn in range(AGAIN_MAX):
        if not changelog.reserve(served.id, [path]):
            await trio.sleep(AGAIN_S)
            continue
        try:
            now_ns = shared.now_ns()
            looked = Looked(served.id, path, True, remote or turn > 0, None, now_ns, now_ns, 0, 0, None, None, "")
            outcome = await look(served, looked, policy=policy)
        except (LocalChanged, ObjectChanged, Throttled) as moved:
            error = moved
            await trio.sleep(min(AGAIN_S * 2**turn, 5.0))
            continue
        finally:
            changelog.free(served.id, [path])
            served.wake()
        if outcome.next is Next.DONE:
            await end_settled(served, path)
            _check_settled(served, path)
            return
        if outcome.next is Next.LATER:
            error = LocalChanged(f"sync of {shown(served, path)}", outcome.reason)
            if outcome.until_ns > shared.now_ns():
                break
            await trio.sleep(AGAIN_S)
        remote = remote or outcome.remote
    raise error


class _Unsettled(FsxSyncError):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, advice="")
        self.code = code


def _check_settled(served: Served, path: bytes) -> None:
    """A look may end with a path that a person has to see to."""
    for problem in served.shared.catalog.problems.get(served.id, path):
        raise _Unsettled(problem.message, problem.code)


async def each(
    served: Served, todo: Iterable[Entry], goes_on: Going, act: Callable[[Entry], Awaitable[Failure | None]]
) -> Done:
    """Do it for as many at a time as the association's lookers look at."""
    done = Done()
    slots = trio.Semaphore(served.shared.settings.look_workers)

    async def one(entry: Entry) -> None:
        files = served.shared.catalog.files
        before = files.get(served.id, entry.path)
        try:
            if (failure := await act(entry)) is not None:
                done.failures.append(failure)
            if failure is None or failure.is_warning:
                done.succeeded += 1
        except FsxSyncError as error:
            done.failures.append(failure_of(served, entry.path, error))
        finally:
            slots.release()
        after = files.get(served.id, entry.path)
        if after is not None and not after.released and (before is None or before.etag != after.etag):
            done.moved += after.remote_size

    async with trio.open_nursery() as nursery:
        for entry in todo:
            await slots.acquire()
            if not goes_on():
                break
            nursery.start_soon(one, entry)
    return done


class ExportStage:
    """EXPORT_TO_REPOSITORY: what is new or changed in the tree."""

    at_once = 1

    def __init__(self, served: Served, unders: Sequence[bytes], policy: Policy, *, deletes: bool) -> None:
        self.served = served
        self._unders = unders
        self._policy = policy
        self._deletes = deletes

    def estimate(self) -> int:
        files = self.served.shared.catalog.files
        return sum(files.count_under(self.served.id, under) for under in self._unders)

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        async for found in entries(self.served, self._unders, after):
            batch = Batch(after=found[-1].key)
            for entry in found:
                local, row = entry.local, entry.base
                if local is None:
                    if self._deletes and self._is_gone(entry):
                        batch.gone.append(entry.key)
                    continue
                if not self.served.filters.wants(entry.path, directory=local.kind is Kind.DIRECTORY):
                    continue
                is_same_time = local.kind is not Kind.DIRECTORY or (
                    row is not None and local.mtime_ns in {row.mtime_ns, local.ctime_ns}
                )
                if row is not None and row.matches_local(local) and is_same_time:
                    batch.quiet += 1
                else:
                    batch.todo.append(entry)
            yield batch

    def _is_gone(self, entry: Entry) -> bool:
        row = entry.base
        if row is None or not self.served.filters.wants(entry.path, directory=row.kind is Kind.DIRECTORY):
            return False
        here = self.served.shared.tree.identify(self.served.tree_path(entry.path))
        return here is None or (here.kind is Kind.DIRECTORY) != (row.kind is Kind.DIRECTORY)

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        async def act(entry: Entry) -> None:
            await settle_path(self.served, entry.path, self._policy, remote=False)

        return await each(self.served, batch.todo, goes_on, act)

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        for entry in batch.todo:
            local = entry.local
            yield Planned(self.served.tree_path(entry.path), "export", local.size if local is not None else 0)
        for key in batch.gone:
            yield Planned(self.served.tree_path(key.removesuffix(b"/")), "delete object")


class ImportStage:
    """IMPORT_METADATA_FROM_REPOSITORY: what is new or changed in a listing."""

    at_once = 1

    def __init__(self, served: Served, under: bytes, policy: Policy, *, deletes: bool) -> None:
        self.served = served
        self._under = under
        self._policy = policy
        self._deletes = deletes
        self._fresh: dict[bytes, Listed] = {}
        """Of the batch at hand: what the listing said of paths that no row knows."""

    def estimate(self) -> int:
        return self.served.shared.catalog.files.count_under(self.served.id, self._under)

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        prefix = self.served.association.prefix
        start = prefix + after.decode("utf-8", "surrogateescape") if after else ""
        pages = self.served.store.list_pages(prefix + self._under.decode("utf-8", "surrogateescape"), start_after=start)
        rows = self._rows(after)
        row = next(rows, None)
        while page := await trio.to_thread.run_sync(next, pages, None):
            batch, fresh = Batch(), dict[bytes, Listed]()
            for listed in page:
                try:
                    path, is_directory = path_of(listed.key, prefix)
                except KeyNotPosix as error:
                    name = listed.key.removeprefix(prefix).encode("utf-8", "surrogateescape")
                    batch.failures.append(failure_of(self.served, name, error))
                    continue
                if not path or not self._lies_here(path):
                    continue
                key = path + b"/" if is_directory else path
                batch.after = key
                while row is not None and row.sort_key < key:
                    self._missing(row, batch)
                    row = next(rows, None)
                known = row if row is not None and row.sort_key == key else None
                if known is not None:
                    row = next(rows, None)
                self._compare(path, listed, known, batch, fresh)
            self._fresh = fresh
            if not batch.after:
                batch.after = after
            after = batch.after
            yield batch
        self._fresh = {}
        while row is not None:
            batch = Batch()
            while row is not None and len(batch.gone) < BATCH:
                self._missing(row, batch)
                batch.after, row = row.sort_key, next(rows, None)
            yield batch

    def _lies_here(self, path: bytes) -> bool:
        return not self._under or path == self._under or path.startswith(self._under + b"/")

    def _rows(self, after: bytes) -> Iterator[Known]:
        files = self.served.shared.catalog.files
        while rows := files.after(self.served.id, after, BATCH, self._under):
            for row in rows:
                after = files.sort_key(row)
                # What only a listing told of is older than all that a listing shows: it is read once more.
                yield Known(after, row.etag, row.remote_size, row.last_modified_ns if row.posix_known else -1)

    def _missing(self, row: Known, batch: Batch) -> None:
        wants = self.served.filters.wants
        if self._deletes and not row.is_implied and wants(row.path, directory=row.is_directory):
            batch.gone.append(row.sort_key)

    def _compare(
        self, path: bytes, listed: Listed, known: Known | None, batch: Batch, fresh: dict[bytes, Listed]
    ) -> None:
        is_directory = listed.key.endswith("/")
        filters = self.served.filters
        if not filters.wants(path, directory=is_directory) or not filters.lists(is_directory, listed.size):
            return
        is_known = known is not None and not known.is_implied
        if is_known and known is not None and known.matches_listing(listed.etag, listed.size, listed.last_modified_ns):
            batch.quiet += 1
            return
        if known is None:
            fresh[path] = listed
        if listed.storage_class in ARCHIVE_CLASSES:
            why = f"its storage class is {listed.storage_class}: it must be restored there before it can be read"
            batch.failures.append(
                Failure(self.served.tree_path(path), "S3ObjectInUnsupportedTier", why, status=WARNING)
            )
        batch.todo.append(Entry(path, None, None))

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        fresh, self._fresh = self._fresh, {}
        changelog, now_ns = self.served.shared.catalog.changelog, self.served.shared.now_ns
        until_ns = now_ns() + HELD_NS
        if fresh and goes_on():  # stubs at once; their metadata follows below, or if this ends before, with their looks
            await import_new(self.served, list(fresh.items()), until_ns=until_ns)

        async def act(entry: Entry) -> Failure | None:
            try:
                await settle_path(self.served, entry.path, self._policy, remote=True)
                changelog.drop_held(self.served.id, entry.path, until_ns)
            except ObjectArchived as error:
                if self.served.shared.eager:
                    raise
                # A file would be a stub; only a symlink has to be read to be made.
                return Failure(self.served.tree_path(entry.path), "S3SymlinkInUnsupportedTier", str(error))
            return None

        done = await each(self.served, batch.todo, goes_on, act)
        while changelog.release(self.served.id, until_ns, now_ns(), BATCH):
            self.served.wake()
        done.moved = 0  # no bytes move, only what the listing says
        return done

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        for entry in batch.todo:
            listed = self._fresh.get(entry.path)
            yield Planned(self.served.tree_path(entry.path), "import", listed.size if listed is not None else 0)
        for key in batch.gone:
            yield Planned(self.served.tree_path(key.removesuffix(b"/")), "delete file")


class DeleteStage:
    """What another stage found gone on one side, once it is plausible that it is (DESIGN §3.6)."""

    at_once = 1

    def __init__(
        self, served: Served, task: Task, found_by: int, unders: Sequence[bytes], policy: Policy, *, remote: bool
    ) -> None:
        """``remote``: the listing lacks it, and the files go; otherwise the tree does, and the objects go."""
        self.served = served
        self._task = task
        self._found_by = found_by
        self._unders = unders
        self._policy = policy
        self._remote = remote

    def estimate(self) -> int:
        return 0  # they were counted as rows already

    def check(self) -> None:
        if self._task.order.accept_deletes:
            return
        catalog, found = self.served.shared.catalog, (self._task.id, self._found_by)
        gone, gone_files = catalog.tasks.count_gone(*found), catalog.tasks.count_gone_files(*found)
        known = [catalog.files.count_objects(self.served.id, under) for under in self._unders]
        files = max(gone_files, sum(count for count, _ in known))
        if self._remote:
            markers = max(gone - gone_files, sum(count for _, count in known))
            why = brakes.implausible_listing(
                files + markers,
                gone,
                files - gone_files,
                missing_files=gone_files,
                markers=markers - (gone - gone_files),
            )
        else:  # an empty directory is left of a disk that is not mounted
            why = brakes.implausible_scan(files, gone_files)
        if why:
            raise DeletesRefused(f"deletes of {self.served.association.file_system_path}", why)

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        tasks = self.served.shared.catalog.tasks
        while keys := tasks.gone(self._task.id, self._found_by, after, BATCH):
            after = keys[-1]
            yield Batch(todo=[Entry(key.removesuffix(b"/"), None, None) for key in keys], after=after)

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        async def act(entry: Entry) -> None:
            await settle_path(self.served, entry.path, self._policy, remote=self._remote)

        done = await each(self.served, batch.todo, goes_on, act)
        done.moved = 0
        return done

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        for entry in batch.todo:
            yield Planned(self.served.tree_path(entry.path), "delete")


EVERYTHING = ALL_EVENTS
__all__ = ["COPIES", "EVERYTHING", "DeleteStage", "DeletesRefused", "ExportStage", "ImportStage", "policy_of"]
