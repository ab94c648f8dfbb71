"""Stages that bring one side to the other: exporting and importing.

They look at paths as the changelog's lookers do, at their own pace and under what the task allows instead of what the
association does by itself; the same path is never looked at twice at once, so both may run together (FSx can't).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

import trio

from fsxsync.errors import (
    FsxSyncError,
)
from fsxsync.model.association import ALL_EVENTS, Event, Policy
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.shallow import DIRECTORY, Shallow
from fsxsync.model.task import Failure
from fsxsync.ports import Planned
from fsxsync.sync.exporter import exported_key, is_left_alone
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served
from fsxsync.sync.task_settling import settle_path
from fsxsync.sync.task_stages import Batch, Done, Entry, Place, count, entries, failure_of, planned
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
        all_unders = frozenset(self._unders)
        async with aclosing(entries(self.served, *Place.parse(after).rest(self._unders))) as walked:
            async for found in walked:
                batch = Batch(after=Place.within(all_unders, found[-1].key).encode())
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


EVERYTHING = ALL_EVENTS
__all__ = ["COPIES", "EVERYTHING", "ExportStage", "Side", "each", "policy_of"]
