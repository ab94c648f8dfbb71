"""`wait` and drain: when is nothing left to do? Asked of the sources first, then of the changelog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import RepositoryError, TreeMoved
from fsxsync.ports import PendingItem
from fsxsync.sync.intake import Intake
from fsxsync.sync.journal import shown
from fsxsync.sync.served import Served
from fsxsync.sync.serving import Service
from fsxsync.tree.watch import Watcher

LOOK_EVERY_S = 0.05
SHOWN = 20
_SETTLING = "what was done in the tree, or loaded into it, is still being written down"
_READING = "the sources could not be read in time"
_TELLING = "the kernel is still being told of what was imported"
"""What `wait` waits for where no path is pending."""


class Waiter:
    """Knows what is still to be done below a path of the tree."""

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        intake: Intake,
        watcher: Watcher,
        told: Callable[[], Awaitable[None]],
        catch_up: Callable[[], None],
        until_loaded: Callable[[], Awaitable[None]],
    ) -> None:
        self._services = services
        self._intake = intake
        self._watcher = watcher
        self._told = told
        self._catch_up = catch_up
        self._until_loaded = until_loaded

    def _concerned(self, tree_path: bytes) -> list[tuple[Service, bytes]]:
        """Associations at, above or below the path, with the part of each that is asked for."""
        found: list[tuple[Service, bytes]] = []
        for service in self._services():
            association = service.served.association
            inside = association.relative(tree_path)
            if inside is not None:
                found.append((service, inside))
            elif not tree_path or association.directory.startswith(tree_path + b"/"):
                found.append((service, b""))
        return found

    async def settle_local(self) -> None:
        """Return when everything that was done in the tree before the call is in the changelog, and files that were
        loaded before it (their readers go on earlier) are known to be here."""
        await self._until_loaded()
        while True:
            await self._watcher.barrier()
            self._catch_up()
            self._intake.flush()
            scanned = all(service.is_scanned for service in self._services() if service.available.is_set())
            if self._intake.is_idle and scanned:
                return
            await trio.sleep(LOOK_EVERY_S)

    async def wait(self, tree_path: bytes, timeout_s: float) -> tuple[PendingItem, ...]:
        """See `ports.Administration.wait`."""
        waits_for = _SETTLING
        with trio.move_on_after(timeout_s):
            concerned = self._concerned(tree_path)
            await self.settle_local()
            waits_for = _READING
            for service, _ in concerned:
                await self._read_source(service)
            while True:
                waits_for = _SETTLING
                while self._count(concerned) > 0:  # noqa: ASYNC110  many rows, one look every now and then
                    await trio.sleep(LOOK_EVERY_S)
                # What was done may have done something to the tree again (a conflict copy, a new marker).
                await self.settle_local()
                if self._count(concerned) == 0:
                    # What was imported is there only when no process is shown the old name, size or page any more.
                    waits_for = _TELLING
                    await self._told()
                    return ()
        left = self.pending(tree_path)
        return left or (PendingItem("/", "", timeout_s, 0, None, waits_for),)

    async def _read_source(self, service: Service) -> None:
        while True:
            await service.available.wait()
            try:
                await service.read_sources_up_to_now()
            except (RepositoryError, TreeMoved):
                await trio.sleep(1)  # the reader reports it; the time-out of `wait` ends this
                continue
            return

    @staticmethod
    def _count(concerned: Sequence[tuple[Service, bytes]]) -> int:
        return sum(
            service.served.shared.catalog.changelog.count_under(service.served.id, under)
            for service, under in concerned
        )

    def pending(self, tree_path: bytes) -> tuple[PendingItem, ...]:
        """Up to some pending paths below a path, with why they wait."""
        items: list[PendingItem] = []
        for service, under in self._concerned(tree_path):
            served = service.served
            entries = served.shared.catalog.changelog.pending(served.id, under, SHOWN)
            items.extend(pending_item(served, entry.path, entry) for entry in entries)
        return tuple(items[:SHOWN])

    async def drain(self, timeout_s: float) -> int:
        """Wait for local changes to be exported; how many are left, also of those made a moment ago."""
        with trio.move_on_after(max(timeout_s, COUNT_S)):
            await self.settle_local()
        with trio.move_on_after(timeout_s):
            while self._local_left() > 0:  # noqa: ASYNC110  as above
                await trio.sleep(LOOK_EVERY_S)
        return self._local_left()

    def _local_left(self) -> int:
        left = 0
        for service in self._services():
            served = service.served
            if served.association.policy.exports:
                left += served.shared.catalog.changelog.count(served.id)[1]
        return left


def pending_item(served: Served, path: bytes, entry: Entry) -> PendingItem:
    """A changelog entry as `status` and `wait` show it."""

    return PendingItem(
        path=shown(served, path),
        association=served.id,
        age_s=max(0.0, (served.shared.now_ns() - entry.first_seen_ns) / 1e9),
        attempts=entry.attempts,
        error=None if entry.waiting_for else entry.last_error,  # that is an earlier look's
        waiting_for=entry.waiting_for or ("" if served.association.failure == "" else served.association.failure),
    )


COUNT_S = 5.0
"""How long it may take to learn of what was done in the tree before the daemon ends."""
