"""The only place that builds objects: who gets what, in one page."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fsxsync import __version__
from fsxsync.catalog.database import Catalog
from fsxsync.config import Settings
from fsxsync.crashpoint import VARIABLE, arm
from fsxsync.daemon.upload_journal import UploadJournal
from fsxsync.model.association import Access, Association
from fsxsync.model.measures import Requests
from fsxsync.ports import Conditions, EventQueue, ObjectStore
from fsxsync.repository.queue import open_queue
from fsxsync.repository.route import open_route
from fsxsync.repository.store import open_store
from fsxsync.sync import doubt
from fsxsync.sync.engine import Engine
from fsxsync.sync.served import Shared
from fsxsync.sync.statusing import StatusFacts
from fsxsync.telemetry.eventlog import EventLog
from fsxsync.transfer.engine import Transfers
from fsxsync.transfer.wire import Pool, ca_bundle_of
from fsxsync.tree.tree import Tree


@dataclass(slots=True)
class Parts:
    """What the daemon holds while it runs."""

    settings: Settings
    catalog: Catalog
    tree: Tree
    eventlog: EventLog
    shared: Shared
    engine: Engine
    pool: Pool
    instance: str


def build(
    settings: Settings,
    state_dir: Path,
    tree_root: Path,
    *,
    eager: bool,
    mount: Callable[[], str | None],
    data_path: Callable[[], tuple[str, str]],
) -> Parts:
    """Open catalog and tree and build the engine around them.

    Raises:
        CatalogCorrupt, TreeMoved, NoUserXattrs: a person has to mend something first.
    """
    arm(os.environ.get(VARIABLE))
    catalog = Catalog.open(state_dir / "catalog.db")
    known = catalog.facts.get("instance")
    tree = Tree.open(
        tree_root,
        state_dir / "staging",
        instance=known if isinstance(known, str) else None,
        new_instance=uuid.uuid4().hex,
    )
    catalog.facts.set("instance", tree.instance)
    eventlog = EventLog(
        state_dir / "events.jsonl", max_bytes=settings.event_log_max_bytes, keep=settings.event_log_keep
    )
    pool = Pool(
        threads=settings.transfer_threads,
        buffer_memory=settings.buffer_memory,
        down_limit=settings.bandwidth_down,
        up_limit=settings.bandwidth_up,
        ca_bundle=ca_bundle_of(os.environ),
    )
    journal = UploadJournal(catalog, lambda store: engine.owner_of(store))  # noqa: PLW0108  made below
    mover = Transfers(part_size=settings.part_size, journal=journal)
    shared = Shared(settings=settings, catalog=catalog, tree=tree, mover=mover, eventlog=eventlog, eager=eager)
    for name, again in doubt.begin(catalog.facts, [row.id for row in catalog.associations.all()]).items():
        noted = {path for move in catalog.moves.all(name) for path in (move.path, move.source)}
        shared.doubts[name] = doubt.Doubt(shared.started_ns, again, noted)
        _tell_of_doubt(eventlog, name)
    engine = Engine(
        shared,
        open_store=partial(_open_store, pool, journal, settings.association_requests),
        open_queue=_open_queue,
        open_route=open_route,
        facts=StatusFacts(
            version=__version__,
            state_dir=str(state_dir),
            started_s=time.time(),
            mount=mount,
            data_path=data_path,
        ),
    )
    return Parts(settings, catalog, tree, eventlog, shared, engine, pool, tree.instance)


def _tell_of_doubt(eventlog: EventLog, association: str) -> None:
    eventlog.emit(
        level="WARN",
        code="MachineWentDown",
        flow="association",
        association=association,
        message="the machine went down under the last daemon: what is missing here is imported again, and of what was"
        " changed here and is not waiting to be exported both versions are kept",
    )


def _open_store(
    pool: Pool,
    journal: UploadJournal,
    requests: int,
    bucket: str,
    access: Access,
    conditions: Conditions | None,
    counted: Requests,
) -> ObjectStore:
    return open_store(bucket, access, conditions, pool.lane(requests), counted, journal)


def _open_queue(url: str, association: Association) -> EventQueue:
    return open_queue(url, association.access)
