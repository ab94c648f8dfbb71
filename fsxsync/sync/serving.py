"""Serve one association until cancelled. Its repository's failures stay its own; a bug ends the daemon (TASTE §2.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, RepositoryError, TreeError
from fsxsync.model.association import Lifecycle
from fsxsync.ports import HELD_S
from fsxsync.sync import holding, obeying
from fsxsync.sync.filters import Filters
from fsxsync.sync.ignoring import read_filters
from fsxsync.sync.intake import Intake
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.looker import backoff_s, run_lookers
from fsxsync.sync.moves import look_again
from fsxsync.sync.reading import UNREAD_MAX_S, QueueReader
from fsxsync.sync.rescan import ScanRefused, check_directory, rescan
from fsxsync.sync.routes import Routes
from fsxsync.sync.served import Served
from fsxsync.sync.sources import Poller
from fsxsync.sync.uploads import run_sweeps

RETRY_MAX_S = 30.0
"""A misconfigured association is tried again at least this often; FSx takes up to 15 minutes (FSX-FACTS §1.3)."""

HELD_MAX_NS = 2 * HELD_S * 10**9
"""What a message that somebody holds tells of is hardly older: it comes back after half of that."""

LIST_WRITTEN_S = 0.1
"""How soon an ignore list is read again that was being written."""


DIRECTORY_CHECK_S = 2.0
"""How often it is looked whether the root and the association's directory still are the known ones: two or three system
calls. inotify tells of neither an unmount nor a mount over them, as long as we hold the directory open."""


class Service:
    """The life of one association: its life cycle, its sources, its lookers."""

    def __init__(
        self,
        served: Served,
        intake: Intake,
        *,
        reader: QueueReader | None,
        routes: Routes,
        watch: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self.served = served
        self._intake = intake
        self._watch = watch
        self.reader = reader
        self._routes = routes
        self.poller = Poller(served, on_listed=self._on_listed)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.available = trio.Event()
        self.failed: FsxSyncError | None = None
        self._decision = trio.Event()
        served.scanned = False  # nobody watched until now
        self._rescan_wanted = trio.Event()
        self._accept_gone = False
        self._retry = trio.Event()
        served.want_listing = self.poller.want
        served.tree_believed = False
        served.listing_believed = not self._wants_listing()

    async def run(self) -> None:
        """Serve, and start again after failures, until `scope` is cancelled."""
        try:
            with self.scope:
                attempts = 0
                while True:
                    try:
                        while True:
                            await self._serve()  # returns when the filters changed
                    except* (RepositoryError, TreeError) as failures:
                        error = first_leaf(failures)
                        assert isinstance(error, FsxSyncError)
                        if self.available.is_set():
                            attempts = 0
                        self._misconfigured(error)
                    self._retry = trio.Event()
                    with trio.move_on_after(min(backoff_s(self.served, attempts), RETRY_MAX_S)):
                        await _either(self._retry, self.served.filters_stale)  # somebody consented, or mended the list
                    attempts += 1
        finally:
            self.ended.set()

    async def _serve(self) -> None:
        """Serve until the filters change."""
        served = self.served
        served.filters_stale = trio.Event()
        check_directory(served)
        served.filters = await self._read_filters()
        await served.store.check(served.association.prefix)
        await obeying.at_start(served)
        if isinstance(self.failed, ScanRefused):  # or the association would seem AVAILABLE until it is refused again
            await self._scan()
        await self._routes.make(served.association)
        if self.reader is not None:
            await self.reader.check()
        look_again(served)
        async with trio.open_nursery() as nursery:
            if self.reader is not None:
                nursery.start_soon(self.reader.until_broken)
                nursery.start_soon(self._routes.watch, served.association)
            nursery.start_soon(run_lookers, served)
            nursery.start_soon(self._scans)
            nursery.start_soon(self._directory_stays)
            nursery.start_soon(run_sweeps, served)
            nursery.start_soon(holding.run, served)
            if self._wants_listing():
                nursery.start_soon(self.poller.run)
            else:
                self._on_listed()
                if served.association.policy.imports:
                    nursery.start_soon(partial(self.poller.run, at_once=False))
            served.shared.catalog.changelog.wake(served.id, served.shared.now_ns())
            served.wake()
            await served.filters_stale.wait()
            self.want_rescan()
            nursery.cancel_scope.cancel()

    async def _read_filters(self) -> Filters:
        while True:
            try:
                return read_filters(self.served)
            except LocalChanged:  # somebody writes the list just now
                await trio.sleep(LIST_WRITTEN_S)

    def _wants_listing(self) -> bool:
        """A daemon that starts reads the listing once: events may have come and gone while nobody read them."""
        association = self.served.association
        if not association.policy.imports:
            return False
        return association.import_metadata or self.served.shared.catalog.files.count(association.id) > 0

    async def _scans(self) -> None:
        """Tree against catalog: at the start, and whenever records were lost."""
        while True:
            wanted, self._rescan_wanted = self._rescan_wanted, trio.Event()
            if not self.served.scanned or wanted.is_set():
                await self._scan()
                self.served.scanned = not self._rescan_wanted.is_set()
            await self._rescan_wanted.wait()
            self.served.scanned = False

    async def _directory_stays(self) -> None:
        """Where the root is replaced meanwhile (unmounted, mounted over, moved), people would write where nobody looks,
        and be told that all is in sync. Raises TreeMoved."""
        while True:
            await trio.sleep(DIRECTORY_CHECK_S)
            check_directory(self.served)

    async def _scan(self) -> None:
        # Watches first: what changes while the scan runs is told by one or the other.
        await self._watch(self.served.association.directory)
        await rescan(self.served, self._intake, accept_deletes=self._accept_gone)
        self._accept_gone = False

    def accept_deletes(self) -> None:
        """Believe what was refused, however much is gone: the scan of the tree if that was it, else the next listing.
        The other one is still looked at with suspicion."""
        if isinstance(self.failed, ScanRefused):
            self._accept_gone = True
        else:
            self.poller.consent.given = True
        self._retry.set()

    def want_rescan(self) -> None:
        """inotify lost records: only the tree itself knows what happened."""
        self.served.scanned = False
        self._rescan_wanted.set()

    @property
    def is_scanned(self) -> bool:
        """No scan of the tree is asked for or under way."""
        return self.served.scanned

    def _on_listed(self) -> None:
        """The first listing after a start or a failure is in: the association is usable."""
        lifecycle = self.served.association.lifecycle
        if lifecycle not in {Lifecycle.AVAILABLE, Lifecycle.DELETING}:
            self.set_lifecycle(Lifecycle.AVAILABLE, "")
        self.failed = None
        self.available.set()
        self._decision.set()

    def _misconfigured(self, error: FsxSyncError) -> None:
        self.failed = error
        self.available = trio.Event()
        self._decision.set()
        lifecycle = self.served.association.lifecycle
        if lifecycle in {Lifecycle.DELETING, Lifecycle.CREATING}:
            return  # the request that made or ends it says what is wrong
        if (lifecycle, self.served.association.failure) != (Lifecycle.MISCONFIGURED, str(error)):
            self.served.shared.eventlog.emit(
                level="ERROR",
                code=error.code,
                flow="association",
                association=self.served.id,
                path=self.served.association.directory,
                message=f"MISCONFIGURED: {error}",
            )
            self.set_lifecycle(Lifecycle.MISCONFIGURED, str(error))

    async def decided(self) -> None:
        """Return when the association is either usable or has failed (``failed`` says why)."""
        while not self.available.is_set() and self.failed is None:
            self._decision = trio.Event()
            await self._decision.wait()

    def set_lifecycle(self, lifecycle: Lifecycle, failure: str) -> None:
        """Change the state and write it down."""
        self.served.association = replace(self.served.association, lifecycle=lifecycle, failure=failure)
        self.served.shared.catalog.associations.put(self.served.association)

    async def read_sources_up_to_now(self) -> None:
        """Return when all that happened in the repository before the call is in the changelog.

        Raises:
            TreeMoved: what happens in the tree is not seen. RepositoryError.
        """
        check_directory(self.served)
        if self.reader is not None:
            if await self.reader.read_up_to_now():
                return
            # A listing from now on shows all that the messages tell which somebody else holds, but for new metadata in
            # the second of the version before.
            if self.poller.is_running:
                await self.poller.read_up_to_now(closely_from_ns=self.served.shared.now_ns() - HELD_MAX_NS)
            else:
                await self.reader.read_up_to_now(UNREAD_MAX_S)
        elif self.served.association.poll_s and self.served.association.policy.imports:
            await self.poller.read_up_to_now()

    async def stop(self) -> None:
        """End the service; what is in flight is finished or put back."""
        self.scope.cancel()
        await self.ended.wait()


async def _either(one: trio.Event, other: trio.Event) -> None:
    """Return when one of them is set."""

    async def wait_for(event: trio.Event, nursery: trio.Nursery) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, one, nursery)
        nursery.start_soon(wait_for, other, nursery)
