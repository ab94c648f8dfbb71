"""Stages that bring one side to the other: exporting and importing.

They look at paths as the changelog's lookers do, at their own pace and under what the task allows instead of what the
association does by itself; the same path is never looked at twice at once, so both may run together (FSx can't).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

import trio

from fsxsync.catalog.files import Known, sort_key
from fsxsync.errors import (
    FsxSyncError,
    KeyNotPosix,
    ObjectArchived,
)
from fsxsync.model.association import ALL_EVENTS, Event, Policy
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.keys import path_of
from fsxsync.model.release import ARCHIVE_CLASSES
from fsxsync.model.shallow import DIRECTORY, Shallow
from fsxsync.model.task import FAILED, WARNING, Failure
from fsxsync.ports import Listed, Planned
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.exporter import exported_key, is_left_alone
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served
from fsxsync.sync.task_settling import settle_path
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, count, entries, failure_of, planned
from fsxsync.sync.under_way import NOBODY, Going, UnderWay, Watcher

COPIES = frozenset({Event.NEW, Event.CHANGED})


class Side(enum.Enum):
    """What a path is on one side, compared with what is known of it."""

    QUIET = "as it was"
    CHANGED = "new or changed"
    GONE = "gone"


def policy_of(served: Served, *, exports: frozenset[Event], imports: frozenset[Event]) -> Policy:
    """What the association does by itself, and what the task is to do."""
    own = served.association.policy
    return replace(own, exports=own.exports | exports, imports=own.imports | imports)


async def each(
    served: Served, todo: Iterable[Entry], goes_on: Going, act: Callable[[Entry], Awaitable[Failure | None]]
) -> Done:
    """Do it for as many at a time as the association's lookers look at."""
    done = Done()
    slots = trio.Semaphore(served.shared.settings.look_workers)
    watcher: Watcher = goes_on if isinstance(goes_on, UnderWay) else NOBODY

    async def one(entry: Entry) -> None:
        files = served.shared.catalog.files
        before = files.get(served.id, entry.path)
        failure: Failure | None
        try:
            if (failure := await act(entry)) is not None:
                done.failures.append(failure)
        except FsxSyncError as error:
            done.failures.append(failure := failure_of(served, entry.path, error))
        finally:
            slots.release()
        after, size = files.get(served.id, entry.path), 0
        if after is not None and not after.released and (before is None or before.etag != after.etag):
            size = after.remote_size
        done.moved += size
        if failure is None or failure.is_warning:
            done.succeeded += 1
            watcher.came(size)

    async with trio.open_nursery() as nursery:
        for entry in todo:
            await slots.acquire()
            if not goes_on():
                break
            nursery.start_soon(one, entry)
    return done


def _is_content_new(row: Base | None, local: Local) -> bool:
    """As far as can be told without reading it: a mode that is set moves the ctime alone."""
    if row is None:
        return True
    is_same_data = (row.ino, row.size, row.mtime_ns) == (local.ino, local.size, local.mtime_ns)
    return not is_same_data and local_delta(row, local) is Delta.CONTENT


class ExportStage:
    """EXPORT_TO_REPOSITORY: what is new or changed in the tree."""

    at_once = 1

    def __init__(self, served: Served, unders: Sequence[bytes], policy: Policy, *, deletes: bool) -> None:
        self.served = served
        self._unders = unders
        self._policy = policy
        self._deletes = deletes

    async def estimate(self, goes_on: Going) -> int:
        """Rows would not do: most of what is to be exported has none."""
        wants = self.served.filters.wants

        def is_counted(path: bytes, state: Shallow) -> bool:
            return wants(path, directory=state.kind == DIRECTORY)

        return await count(self.served, self._unders, is_counted, goes_on)

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        async with aclosing(entries(self.served, self._unders, after)) as walked:
            async for found in walked:
                batch = Batch(after=found[-1].key)
                for entry in found:
                    match self.side(entry):
                        case Side.QUIET:
                            batch.quiet += 1
                        case Side.CHANGED:
                            batch.todo.append(entry)
                        case Side.GONE:
                            batch.gone.append(entry.key)
                yield batch

    def side(self, entry: Entry) -> Side | None:
        """What the tree says of a path; None: it has nothing to do there."""
        local, row = entry.local, entry.base
        if local is None:
            return Side.GONE if self._deletes and self._is_gone(entry) else None
        if not self.served.filters.wants(entry.path, directory=local.kind is Kind.DIRECTORY):
            return None
        is_same_time = local.kind is not Kind.DIRECTORY or (
            row is not None and local.mtime_ns in {row.mtime_ns, local.ctime_ns}
        )
        is_quiet = row is not None and row.matches_local(local) and is_same_time
        return Side.QUIET if is_quiet and not is_left_alone(self.served, row) else Side.CHANGED

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
            size = entry.local.size if entry.local is not None else 0
            yield planned(self.served, entry.path, "export", size, self._refusal(entry))
        for key in batch.gone:
            yield Planned(self.served.tree_path(key.removesuffix(b"/")), "delete object")

    def _refusal(self, entry: Entry) -> Failure | None:
        """What is known beforehand to keep it here."""
        try:
            local = self.served.shared.tree.identify(self.served.tree_path(entry.path))
            if local is not None and _is_content_new(entry.base, local):
                exported_key(self.served, entry.path, local.kind)
        except FsxSyncError as error:
            return failure_of(self.served, entry.path, error)
        return None


class Object(NamedTuple):
    """A key of a listing that is a path of the association, with its sort key."""

    key: bytes
    path: bytes
    listed: Listed


def known_of(row: Base) -> Known:
    """As much of it as a listing is compared with."""
    # What only a listing told of is older than all that a listing shows: it is read once more.
    last_modified_ns = row.last_modified_ns if row.posix_known else -1
    return Known(sort_key(row), row.etag, row.remote_size, last_modified_ns)


class ImportStage:
    """IMPORT_METADATA_FROM_REPOSITORY: what is new or changed in a listing."""

    at_once = 1

    def __init__(self, served: Served, under: bytes, policy: Policy, *, deletes: bool) -> None:
        self.served = served
        self._under = under
        self._policy = policy
        self._deletes = deletes

    async def estimate(self, goes_on: Going) -> int:
        return self.served.shared.catalog.files.count_under(self.served.id, self._under)

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        rows = self._rows(after)
        row = next(rows, None)
        async with aclosing(self.pages(after)) as pages:
            async for page in pages:
                batch = Batch(after=after)
                for found in page:
                    if isinstance(found, Failure):
                        batch.failures.append(found)
                        continue
                    batch.after = key = found.key
                    while row is not None and row.sort_key < key:
                        self._missing(row, batch)
                        row = next(rows, None)
                    known = row if row is not None and row.sort_key == key else None
                    if known is not None:
                        row = next(rows, None)
                    self._compare(found, known, batch)
                after = batch.after
                yield batch
        while row is not None:
            batch = Batch()
            while row is not None and len(batch.gone) < BATCH:
                self._missing(row, batch)
                batch.after, row = row.sort_key, next(rows, None)
            yield batch

    async def pages(self, after: bytes) -> AsyncGenerator[list[Object | Failure], None]:
        """What a listing shows here, in catalog order, after that sort key; failures are keys that are no paths."""
        prefix = self.served.association.prefix
        start = prefix + after.decode("utf-8", "surrogateescape") if after else ""
        pages = self.served.store.list_pages(prefix + self._under.decode("utf-8", "surrogateescape"), start_after=start)
        while page := await trio.to_thread.run_sync(next, pages, None):
            yield [found for listed in page if (found := self._object(listed)) is not None]

    def _object(self, listed: Listed) -> Object | Failure | None:
        prefix = self.served.association.prefix
        try:
            path, is_directory = path_of(listed.key, prefix)
        except KeyNotPosix as error:
            name = listed.key.removeprefix(prefix).encode("utf-8", "surrogateescape")
            return failure_of(self.served, name, error)
        if not path or not self.lies_here(path):
            return None
        return Object(path + b"/" if is_directory else path, path, listed)

    def lies_here(self, path: bytes) -> bool:
        return not self._under or path == self._under or path.startswith(self._under + b"/")

    def _rows(self, after: bytes) -> Iterator[Known]:
        files = self.served.shared.catalog.files
        while rows := files.after(self.served.id, after, BATCH, self._under):
            after = files.sort_key(rows[-1])
            yield from map(known_of, rows)

    def _missing(self, row: Known, batch: Batch) -> None:
        if self.side(None, row) is Side.GONE:
            batch.gone.append(row.sort_key)

    def side(self, found: Object | None, known: Known | None) -> Side | None:
        """What a listing says of a path, and ``known`` of what it said before; None: it has nothing to do there."""
        filters = self.served.filters
        if found is None:
            if not self._deletes or known is None or known.is_implied:
                return None
            return Side.GONE if filters.wants(known.path, directory=known.is_directory) else None
        listed, is_directory = found.listed, found.listed.key.endswith("/")
        if not filters.wants(found.path, directory=is_directory) or not filters.lists(is_directory, listed.size):
            return None
        state = listed.etag, listed.size, listed.last_modified_ns
        is_quiet = known is not None and not known.is_implied and known.matches_listing(*state)
        return Side.QUIET if is_quiet else Side.CHANGED

    def _compare(self, found: Object, known: Known | None, batch: Batch) -> None:
        match self.side(found, known):
            case Side.QUIET:
                batch.quiet += 1
            case Side.CHANGED:
                self.take(found, known, batch)

    def take(self, found: Object, known: Known | None, batch: Batch) -> None:
        """It is to be imported."""
        if known is None:
            batch.fresh[found.path] = found.listed
        if found.listed.storage_class in ARCHIVE_CLASSES:
            why = f"its storage class is {found.listed.storage_class}: it must be restored there before it can be read"
            batch.failures.append(
                Failure(self.served.tree_path(found.path), "S3ObjectInUnsupportedTier", why, status=WARNING)
            )
        batch.todo.append(Entry(found.path, None, None))

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        changelog, now_ns = self.served.shared.catalog.changelog, self.served.shared.now_ns
        until_ns = now_ns() + HELD_NS
        # Stubs at once; their metadata follows below, or if this ends before, with their looks.
        if batch.fresh and goes_on():
            await import_new(self.served, list(batch.fresh.items()), until_ns=until_ns)

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
        archived = {failure.path: failure for failure in batch.failures if failure.is_warning}
        for entry in batch.todo:
            listed = batch.fresh.get(entry.path)
            size = listed.size if listed is not None else 0
            failure = archived.get(self.served.tree_path(entry.path))
            if failure is not None and self.served.shared.eager:  # where nothing is a stub its data would be needed
                failure = replace(failure, status=FAILED)
            yield planned(self.served, entry.path, "import", size, failure)
        for key in batch.gone:
            yield Planned(self.served.tree_path(key.removesuffix(b"/")), "delete file")


EVERYTHING = ALL_EVENTS
__all__ = ["COPIES", "EVERYTHING", "ExportStage", "ImportStage", "Side", "each", "known_of", "policy_of"]
