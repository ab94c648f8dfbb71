"""`fsxsync status`: what the daemon knows about itself, and what needs a person."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fsxsync.model.association import Lifecycle
from fsxsync.ports import AssociationStatus, Status
from fsxsync.sync.complaints import DISK_FULL, PROBLEMS, complaints
from fsxsync.sync.journal import HELD, RESTORING
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.serving import Service
from fsxsync.sync.sources import describe
from fsxsync.sync.waiting import pending_item
from fsxsync.tree.watch import Watcher

TASKS_SHOWN = 20
_WAITING = ("not-exportable", HELD, RESTORING)


@dataclass(frozen=True, slots=True)
class StatusFacts:
    """What only the daemon's wiring knows."""

    version: str
    state_dir: str
    started_s: float
    mount: Callable[[], str | None]
    data_path: Callable[[], tuple[str, str]]


def collect(
    shared: Shared, services: Mapping[str, Service], facts: StatusFacts, watcher: Watcher, *, is_stuck: bool
) -> Status:
    """The whole status, from counters and indexed counts. ``is_stuck``: see `Watermark.is_stuck`."""
    rows = tuple(association_status(service) for service in services.values())
    disk = os.statvfs(shared.tree.root)
    data_path, reason = facts.data_path()
    watch = f"inotify, {watcher.watches} directories"
    if watcher.degraded_reason:
        watch += f", degraded: {watcher.degraded_reason}"
    return Status(
        version=facts.version,
        state_dir=facts.state_dir,
        tree=str(shared.tree.root),
        mount=facts.mount(),
        data_path=data_path,
        data_path_reason=reason,
        watch=watch,
        pid=os.getpid(),
        started_s=facts.started_s,
        associations=rows,
        open_for_writing=len(shared.writers),
        cache_bytes=sum(row.cache_bytes for row in rows),
        cache_free_bytes=disk.f_bavail * disk.f_frsize,
        transfers=_transfers(shared, rows),
        needs_person=tuple(_complaints(services, rows, watcher, is_stuck=is_stuck)),
        tasks=tuple(shared.catalog.tasks.open()[:TASKS_SHOWN]),
        operations=shared.front.operations(),
        opens=shared.front.opens(),
    )


def _transfers(shared: Shared, rows: Sequence[AssociationStatus]) -> dict[str, float]:
    told = {name: float(getattr(shared.mover, name, 0)) for name in ("bytes_down", "bytes_up", "in_flight")}
    return told | {
        "bytes_down_per_s": sum(row.down_per_s for row in rows),
        "bytes_up_per_s": sum(row.up_per_s for row in rows),
    }


def association_status(service: Service) -> AssociationStatus:
    """One association with its counters."""
    served: Served = service.served
    catalog = served.shared.catalog
    total, local, remote = catalog.changelog.count(served.id)
    now_ns, oldest = served.shared.now_ns(), catalog.changelog.oldest_ns(served.id)
    oldest_export = catalog.changelog.oldest_local_ns(served.id)
    requests, now_s = served.counts.requests, int(time.monotonic())
    errors = catalog.changelog.errors(served.id, 10)
    problems = {kind: catalog.problems.count(served.id, kind) for kind in (*_WAITING, *PROBLEMS)}
    return AssociationStatus(
        association=served.association,
        pending=total,
        pending_imports=remote,
        pending_exports=local,
        oldest_pending_s=max(0.0, (now_ns - oldest) / 1e9) if oldest else 0.0,
        import_lag_s=max(0.0, (now_ns - _imported_up_to_ns(service, now_ns)) / 1e9),
        conflicts=catalog.conflicts.count(served.id),
        errors=len(errors) + sum(problems[kind] for kind in PROBLEMS),
        not_exportable=problems["not-exportable"],
        held=problems[HELD],
        restoring=problems[RESTORING],
        imported=served.counts.imported,
        exported=served.counts.exported,
        lost=problems["lost"],
        export_lag_s=max(0.0, (now_ns - oldest_export) / 1e9) if oldest_export else 0.0,
        cache_bytes=catalog.files.resident_bytes(served.id),
        down_per_s=requests.down.per_s(now_s),
        up_per_s=requests.up.per_s(now_s),
        counts=served.counts,
        conditions=served.store.conditions,
        source=describe(served, service.reader),
        ignored=served.filters.ignored,
        recent_errors=tuple(pending_item(served, entry.path, entry) for entry in errors),
    )


def _imported_up_to_ns(service: Service, now_ns: int) -> int:
    """What happened in the repository before has arrived, as far as the sources have told. A source that can't be read
    has told nothing since."""
    served = service.served
    if not served.association.policy.imports:
        return now_ns
    up_to_ns = served.shared.catalog.changelog.oldest_remote_ns(served.id) or now_ns
    is_deaf = service.reader is not None and bool(service.reader.failure)
    if is_deaf or served.association.lifecycle is Lifecycle.MISCONFIGURED:
        up_to_ns = min(up_to_ns, served.source_read_ns or served.shared.started_ns)
    return up_to_ns


def _complaints(
    services: Mapping[str, Service], rows: Sequence[AssociationStatus], watcher: Watcher, *, is_stuck: bool
) -> Iterator[str]:
    for service, row in zip(services.values(), rows, strict=True):
        yield from complaints(service.served, row)
    if is_stuck:
        yield DISK_FULL
    if watcher.degraded_reason:
        yield f"inotify: {watcher.degraded_reason}"
