"""The engine of a daemon: its associations, and what may be asked of them (`ports.Administration`)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import trio

from fsxsync.errors import AssociationNotFound, BadInput, FsxSyncError, StillPending
from fsxsync.model.association import Association, Lifecycle, check_overlap
from fsxsync.model.difference import Difference
from fsxsync.model.finding import Finding, Tally
from fsxsync.model.open_conflict import Conflict, Keep
from fsxsync.model.why import Evidence
from fsxsync.ports import EventQueue, EventRoute, FileState, ObjectStore, PendingItem, Status, StoreFactory
from fsxsync.sync.checking import Checker
from fsxsync.sync.conflicts import open_conflicts
from fsxsync.sync.differing import differences
from fsxsync.sync.explaining import find_out
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.intake import Intake
from fsxsync.sync.reading import Readers
from fsxsync.sync.removal import hydrate_all, released_count, remove_tree
from fsxsync.sync.resolving import resolve
from fsxsync.sync.routes import Routes
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.serving import Service
from fsxsync.sync.standing import drain_for_delete, make_directory, unmake
from fsxsync.sync.states import States
from fsxsync.sync.statusing import StatusFacts, collect
from fsxsync.sync.tasks import TaskRunner
from fsxsync.sync.uploads import abort_all
from fsxsync.sync.waiting import Waiter
from fsxsync.sync.watermark import Watermark
from fsxsync.tree.watch import Watcher

SETTLE_BEFORE_S = 2.0
IMMUTABLE = "the path and the repository of an association can't be changed; delete it and associate again"


class Engine:
    """Holds all state of the daemon; lives in one trio thread."""

    def __init__(
        self,
        shared: Shared,
        *,
        open_store: StoreFactory,
        open_queue: Callable[[str, Association], EventQueue],
        open_route: Callable[[Association], EventRoute],
        facts: StatusFacts,
    ) -> None:
        self._shared = shared
        self._open_store = open_store
        self._open_queue = open_queue
        self._facts = facts
        self._services: dict[str, Service] = {}
        self._served: dict[str, Served] = {}
        self._nursery: trio.Nursery | None = None
        self._stopping = trio.Event()
        shared.served = self._served
        self.intake = Intake(shared, self.served_for)
        self.intake.on_overflow = self._overflow
        self._routes = Routes(shared, open_route)
        self._readers = Readers(self.intake, open_queue, self._served_by_queue, shared.settings)
        self.hydrator = StubHydrator(shared, self.intake, self.served_for)
        self.hydrator.set_roots(self.is_association_root)
        self._states = States(shared.tree, self.served_for, self.hydrator.resident_bytes)
        self.watcher = Watcher(
            shared.tree,
            on_change=self.intake.noticed,
            on_moved=self._tree_moved,
            on_subtree=self._tree_appeared,
            on_gone=self.intake.gone,
            on_overflow=self._overflow,
        )
        shared.take_in_tree = self._take_in_tree
        # The front comes later than the engine.
        self.waiter = Waiter(
            self._services.values,
            self.intake,
            self.watcher,
            told=lambda: shared.front.told(),  # noqa: PLW0108 - the front comes later
            catch_up=lambda: shared.front.catch_up(),  # noqa: PLW0108
            until_loaded=self.hydrator.until_all_settled,
        )
        self._watermark = Watermark(shared, self._served, is_told=lambda: not self.intake.is_idle)
        self.tasks = TaskRunner(shared, self._served, self.hydrator, self.waiter.settle_local)

    async def _take_in_tree(self) -> None:
        """See `Shared.take_in_tree`."""
        await self.watcher.barrier()
        self._shared.front.catch_up()
        self.intake.flush()

    # ------------------------------------------------------------- running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve everything until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.hydrator.run)
            await nursery.start(self.watcher.run)
            nursery.start_soon(self.intake.run, name="intake")
            nursery.start_soon(self.tasks.run, name="tasks")
            nursery.start_soon(self._watermark.keep_reserves, name="reserves")
            nursery.start_soon(self._watermark.run, name="watermark")
            nursery.start_soon(self._watermark.make_room_ahead, name="room")
            nursery.start_soon(self._watermark.keep_uses, name="last uses")
            for association in self._shared.catalog.associations.all():
                if association.lifecycle is Lifecycle.DELETING:  # who asked for it was told of the daemon's end
                    association = replace(association, lifecycle=Lifecycle.UPDATING)  # noqa: PLW2901
                self._start(association)
            left = self._routes.left_over(self._is_routed)
            nursery.start_soon(self._routes.sweep, left, self._is_routed, name="event routes")
            task_status.started()
            await trio.sleep_forever()

    async def stopped(self) -> None:
        """Return when somebody asked the daemon to end."""
        await self._stopping.wait()

    def _start(self, association: Association) -> Service:
        assert self._nursery is not None
        served = self.served_alone(association)
        reader = self._readers.take(association, self._nursery)
        service = Service(served, self.intake, reader=reader, routes=self._routes, watch=self._watch)
        self._served[association.id] = served
        self._services[association.id] = service
        self._shared.front.policies_changed()
        self._nursery.start_soon(service.run, name=f"association {association.id}")
        return service

    def served_alone(self, association: Association) -> Served:
        """An association with its store, and nothing that would bring anything over."""
        requests = self._shared.counts[association.id].requests
        store = self._open_store(association.bucket, association.access, None, requests)
        return Served(shared=self._shared, association=association, store=store)

    async def _watch(self, directory: bytes) -> None:
        self.watcher.add_root(directory)
        await self.watcher.watched(directory)

    async def _end(self, association_id: str) -> None:
        service = await self._stop(association_id)
        self._shared.counts.pop(association_id, None)
        self._readers.give_back(service.reader)

    async def _stop(self, association_id: str) -> Service:
        service = self._services.pop(association_id)
        await service.stop()
        del self._served[association_id]
        self._shared.front.policies_changed()
        self.watcher.remove_root(service.served.association.directory)
        return service

    def _is_routed(self, association_id: str) -> bool:
        served = self._served.get(association_id)
        return served is not None and served.association.events_made

    def _served_by_queue(self, url: str) -> list[Served]:
        return [served for served in self._served.values() if served.association.events == url]

    # ------------------------------------------------------------- paths

    def owner_of(self, store: ObjectStore) -> str:
        """The id of the association that a store serves; '' once it is gone."""
        return next((served.id for served in self._served.values() if served.store is store), "")

    def served_for(self, tree_path: bytes) -> Served | None:
        """The association that a path of the tree belongs to."""
        for served in self._served.values():
            if served.association.relative(tree_path) is not None:
                return served
        return None

    def is_association_root(self, tree_path: bytes) -> bool:
        """An association's directory or an ancestor of one: the front refuses to move or remove it."""
        for served in self._served.values():
            directory = served.association.directory
            if directory == tree_path or directory.startswith(tree_path + b"/"):
                return True
        return False

    def _tree_moved(self, old: bytes, new: bytes, is_directory: bool) -> None:
        self.intake.renamed(old, new, is_directory)
        self._shared.noticed((old, new))

    def _tree_appeared(self, tree_path: bytes) -> None:
        self.intake.appeared(tree_path)
        self._shared.noticed((tree_path,))

    def _overflow(self) -> None:
        self._shared.eventlog.emit(
            level="WARN",
            code="InotifyOverflow",
            flow="export",
            association="",
            message=self.watcher.degraded_reason or "changes may have gone unseen; the tree is scanned",
        )
        for service in self._services.values():
            service.want_rescan()

    # ------------------------------------------------------------- ports.Administration

    def associations(self) -> tuple[Association, ...]:
        return tuple(served.association for served in self._served.values())

    def _service(self, association_id: str) -> Service:
        service = self._services.get(association_id)
        if service is None:
            raise AssociationNotFound(f"association {association_id}", "there is none of that id")
        return service

    async def create(self, association: Association, *, wait: bool) -> Association:
        check_overlap(association, self.associations())
        if not association.directory and self._served:
            raise BadInput(
                "/ can't be associated",
                "it is allowed only as the only association",
                advice="name a directory below it",
            )
        made = make_directory(self._shared, association)
        local = self._shared.tree.identify(association.directory)
        association = replace(
            association,
            id=f"dra-{secrets.token_hex(9)[:17]}",
            directory_ino=local.ino if local else 0,
            lifecycle=Lifecycle.CREATING,
            created_s=self._shared.now_ns() / 1e9,
        )
        store = self._open_store(
            association.bucket, association.access, None, self._shared.counts[association.id].requests
        )
        try:
            await store.check(association.prefix)
            if association.events is not None:
                queue = self._open_queue(association.events, association)
                await trio.to_thread.run_sync(queue.check)
            association = await self._routes.make(association)
            check_overlap(association, self.associations())  # somebody may have been faster while the store was asked
        except BaseException:  # also if the daemon is told to end meanwhile
            await self._routes.clean_up(association)
            unmake(self._shared, made)
            self._shared.counts.pop(association.id, None)
            raise
        self._shared.catalog.associations.put(association)
        service = self._start(association)
        if not wait:
            return association
        return await self._until_available(service, made)

    async def _until_available(self, service: Service, made: Sequence[bytes]) -> Association:
        await service.decided()
        association, error = service.served.association, service.failed
        if error is None:
            return association
        if self._shared.catalog.files.count(association.id) > 0:
            service.set_lifecycle(Lifecycle.MISCONFIGURED, str(error))  # it began well: keep it, it may heal
            raise error
        await self._end(association.id)
        self._shared.catalog.associations.delete(association.id)
        await self._routes.clean_up(association)
        unmake(self._shared, made)
        raise error

    async def update(self, association: Association) -> Association:
        service = self._service(association.id)
        before = service.served.association
        if (association.bucket, association.prefix, association.directory) != (
            before.bucket,
            before.prefix,
            before.directory,
        ):
            raise BadInput(f"update of {association.id}", IMMUTABLE)
        try:
            routed = await self._routes.make(association)
        except BaseException:
            if not before.events_made:
                await self._routes.clean_up(association)
            raise
        await self._stop(association.id)
        after = replace(
            routed,
            lifecycle=Lifecycle.UPDATING,
            failure="",
            directory_ino=before.directory_ino,
            created_s=before.created_s,
        )
        self._shared.catalog.associations.put(after)
        ended, service = service, self._start(after)
        self._readers.give_back(ended.reader)  # after the new one took it: a queue is not left and entered again
        if before.events_made and not after.events_made:
            await self._routes.clean_up(before)
        with trio.move_on_after(10):  # it goes on by itself; the answer says how far it is
            await service.decided()
        if service.failed is not None and not service.available.is_set():
            service.set_lifecycle(Lifecycle.MISCONFIGURED, str(service.failed))
        return service.served.association

    def accept_deletes(self, association_id: str) -> None:
        """See `ports.Administration.accept_deletes`."""
        self._service(association_id).accept_deletes()

    async def delete(self, association_id: str, *, delete_data: bool, force: bool, hydrate: bool) -> Association:
        service = self._service(association_id)
        before = service.served.association
        released = released_count(service.served)
        if released and not (delete_data or force or hydrate):
            raise StillPending(
                f"association {association_id} can't be deleted",
                f"{released} released files have their data only in {before.uri}",
                advice="add --hydrate to load them, --delete-data to remove them here, or --force to give them up",
            )
        service.set_lifecycle(Lifecycle.DELETING, "")
        try:
            if not force:
                await drain_for_delete(service, self.waiter)
            if hydrate:
                await hydrate_all(service.served, self.hydrator)
            await (self._routes.clean_up if force else self._routes.remove)(before)
        except FsxSyncError:
            service.set_lifecycle(before.lifecycle, before.failure)
            raise
        gone = service.served.association
        await self._end(association_id)
        await abort_all(service.served)
        # Before its files: after a crash in between, a scan would take what was removed for deletes to be exported.
        self._shared.catalog.associations.delete(association_id)
        if delete_data:
            await self.hydrator.drop_below(gone.directory)
            await remove_tree(self._shared, gone.directory)
        return gone

    def status(self) -> Status:
        is_stuck = self._watermark.is_stuck()
        return collect(self._shared, self._services, self._facts, self.watcher, is_stuck=is_stuck)

    def state(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[Sequence[FileState]]:
        return self._states.told(tree_paths, recursive=recursive)

    def check(
        self, tree_paths: Sequence[bytes], *, verify: bool, repair: bool = False
    ) -> AsyncIterator[Finding | Tally]:
        checker = Checker(
            self._shared,
            self._served,
            settle=self.waiter.settle_local,
            is_scanned=lambda association_id: self._service(association_id).is_scanned,
            verify=verify,
            repair=repair,
        )
        return checker.run(tree_paths)

    async def why(self, tree_path: bytes) -> Evidence:
        with trio.move_on_after(SETTLE_BEFORE_S):  # a scan may take longer than somebody wants to wait for a word
            await self.waiter.settle_local()
        local = self._shared.tree.identify(tree_path)
        resident = self.hydrator.resident_bytes(local.ino) if local is not None else None
        return await find_out(self._shared, self.served_for(tree_path), tree_path, resident)

    def diff(self, tree_path: bytes) -> AsyncIterator[Difference]:
        return differences(self._served, tree_path)

    def conflicts(self) -> tuple[Conflict, ...]:
        return tuple(
            _placed(served, conflict) for served in self._served.values() for conflict in open_conflicts(served)
        )

    async def resolve(self, tree_path: bytes, keep: Keep) -> tuple[Conflict, ...]:
        served = self.served_for(tree_path)
        path = served.association.relative(tree_path) if served is not None else None
        if served is None or not path:
            raise BadInput(f"/{tree_path.decode('utf-8', 'backslashreplace')}", "it belongs to no association")
        await self.waiter.settle_local()
        return tuple(_placed(served, conflict) for conflict in await resolve(served, path, keep, self.hydrator))

    async def wait(self, tree_path: bytes, timeout_s: float) -> tuple[PendingItem, ...]:
        return await self.waiter.wait(tree_path, timeout_s)

    async def drain(self, timeout_s: float) -> int:
        return await self.waiter.drain(timeout_s)

    def stop(self) -> None:
        self._stopping.set()


def _placed(served: Served, conflict: Conflict) -> Conflict:
    kept_as = served.tree_path(conflict.kept_as) if conflict.kept_as else b""
    return replace(conflict, path=served.tree_path(conflict.path), kept_as=kept_as)
