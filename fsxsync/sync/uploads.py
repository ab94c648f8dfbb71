"""Multipart uploads that nobody will go on with: they are aborted, for they cost money until somebody does."""

from __future__ import annotations

import contextlib
import logging

import trio

from fsxsync.catalog.uploads import Upload
from fsxsync.errors import KeyNotPosix, NotExportable, RepositoryError
from fsxsync.model.identity import Kind
from fsxsync.model.keys import path_of
from fsxsync.sync import moves
from fsxsync.sync.served import Served

log = logging.getLogger(__name__)

KEPT_NS = 24 * 3600 * 10**9
"""How long an upload is kept while nothing is pending at its path. `end_settled` ends it long before; this is for what
that could not end, and a day of its storage costs little."""
SWEEP_S = 3600.0
"""What is a day old may get an hour older."""


def is_stale(upload: Upload, *, now_ns: int, started_ns: int, pending: bool) -> bool:
    """Nobody will go on with it. ``started_ns``: when this daemon started; ``pending``: the changelog has its path."""
    if upload.started_ns < started_ns:
        # part_size None: an intent whose asker is dead, or an older version's. The rest is somebody's who has settled
        # the path otherwise, and died before he could end it.
        return upload.part_size is None or not pending
    return not pending and now_ns - upload.started_ns >= KEPT_NS


async def run_sweeps(served: Served) -> None:
    """Abort what is stale now and every hour, for ever."""
    while True:
        moves.forget_old(served)
        try:
            await sweep(served)
        except RepositoryError as error:
            log.warning("stale uploads can't be aborted", extra={"association": served.id, "reason": str(error)})
        await trio.sleep(SWEEP_S)


async def sweep(served: Served) -> None:
    """Abort what is stale.

    Raises:
        RepositoryError: the store did not let us; what is left stays remembered.
    """
    shared = served.shared
    for upload in shared.catalog.uploads.all(served.id):
        pending = _is_pending(served, upload.key)
        if is_stale(upload, now_ns=shared.now_ns(), started_ns=shared.started_ns, pending=pending):
            await _abort(served, upload)


async def end_settled(served: Served, path: bytes) -> None:
    """A look at the path is over: if nothing is left to do there, nobody will go on with an upload to its key. (An
    answer was lost and the object is there, the file was removed meanwhile …) What can't be ended waits for a sweep."""
    try:
        key = served.key(path, Kind.FILE)
    except NotExportable:
        return
    with contextlib.suppress(RepositoryError):
        for upload in served.shared.catalog.uploads.to_key(served.id, key):
            if not _is_pending(served, key):
                await _abort(served, upload)


async def abort_all(served: Served) -> None:
    """Before an association is forgotten, and its uploads with it. As far as the store lets us: it may be gone."""
    with contextlib.suppress(RepositoryError):
        for upload in served.shared.catalog.uploads.all(served.id):
            await _abort(served, upload)


def _is_pending(served: Served, key: str) -> bool:
    try:
        path, _ = path_of(key, served.association.prefix)
    except KeyNotPosix:
        return False
    return served.shared.catalog.changelog.count_under(served.id, path) > 0


async def _abort(served: Served, upload: Upload) -> None:
    uploads = served.shared.catalog.uploads
    if upload.upload_id is None:
        lost = await _lost_ids(served, upload)
        if lost is None:
            return
    else:
        lost = [upload.upload_id]
    for upload_id in lost:
        await served.store.abort_upload(upload.key, upload_id)
    uploads.finished(upload.number)


async def _lost_ids(served: Served, intent: Upload) -> list[str] | None:
    """What the store has at an intent's key and we don't know of; None if a newer one may be being started there."""
    listed = await served.store.uploads_of(intent.key)
    # After the answer: what it tells of and was started meanwhile is an intent here, or has its id by now.
    known = served.shared.catalog.uploads.to_key(served.id, intent.key)
    if any(other.upload_id is None and other.number > intent.number for other in known):
        return None
    return [upload_id for upload_id in listed if upload_id not in {other.upload_id for other in known}]
