"""Objects of archived storage classes: whoever needs their bytes asks for a restore, if the association allows it, and
waits until a HEAD shows that they may be read.

  read of a stub -> GET refused -> `until_readable`: HEAD, RestoreObject, the path is restoring, the reader waits
  ObjectRestore:Completed, or the next check of what is held (holding.py) -> look -> HEAD -> `see`: the reader reads on

A restore that ended before its readers came is asked for anew, and so is one that ended while they waited.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from fsxsync.errors import KeyRefused, ObjectArchived, ObjectChanged, ObjectMissing
from fsxsync.model.identity import Kind, Remote
from fsxsync.sync.journal import HELD, RESTORING, record_problem
from fsxsync.sync.served import Awaited, Served

WAITING_MOST = 1000
"""Readers that wait at a time: each holds a place among the mount's requests, and others must still get theirs."""
_NO_DAYS = "INTELLIGENT_TIERING"
"""What is restored there comes back to its own tier, and for good: S3 refuses a number of days."""


def may_ask(served: Served) -> bool:
    """The association says that objects are restored for whoever reads them."""
    return served.association.restore_archived != "off"


async def until_readable(
    served: Served, path: bytes, key: str, etag: str, version_id: str | None, is_wanted: Callable[[], bool]
) -> bool:
    """Return when that version of an archived object may be read. False: it could all the time, says its HEAD.

    Raises:
        ObjectArchived: nobody may or nobody wants to wait for it. ObjectChanged, ObjectMissing: it is no more.
        RepositoryError: the restore was refused.
    """
    shared = served.shared
    if not may_ask(served):
        raise ObjectArchived(f"reading {key}", "its storage class is an archive's")
    place = (served.id, key)
    awaited = shared.awaited.get(place)
    is_first = awaited is None
    if awaited is None:
        awaited = shared.awaited[place] = Awaited()
    awaited.by += 1
    try:
        if is_first:
            try:
                is_readable = await ask(served, path, key, etag, version_id)
            except BaseException:
                shared.unarchived(*place)  # whoever came meanwhile asks for itself
                raise
            if is_readable:
                shared.unarchived(*place)
                return False
        while not awaited.readable.is_set():
            crowded = sum(each.by for each in shared.awaited.values()) > WAITING_MOST
            if crowded or not is_wanted() or served.id not in shared.served:
                raise ObjectArchived(
                    f"reading {key}",
                    "it is archived, and its restore is under way",
                    advice="read it again when it is done; 'fsxsync state' says so",
                )
            with trio.move_on_after(shared.settings.restore_check_s):  # then is it still wanted?
                await awaited.readable.wait()
    finally:
        awaited.by -= 1
        if awaited.by == 0 and shared.awaited.get(place) is awaited:
            del shared.awaited[place]
    return True


async def ask(served: Served, path: bytes, key: str, etag: str | None, version_id: str | None) -> bool:
    """Have an object restored, unless somebody did. True: it can be read.

    Raises:
        ObjectChanged, ObjectMissing: it is another one by now. RepositoryError.
    """
    seen = await _seen(served, key, etag, version_id)
    if seen.archived and not seen.restoring:
        await _request(served, key, version_id, seen)
        seen = await _seen(served, key, etag, version_id)  # some stores restore at once
    if not seen.archived:
        return True
    days, tier = served.association.restore_days, served.association.restore_archived
    message = f"{key} is archived ({seen.storage_class}); its restore is under way ({tier}, for {days} days)"
    record_problem(served, path, RESTORING, message, "S3ObjectRestoreRequested")
    return False


async def _seen(served: Served, key: str, etag: str | None, version_id: str | None) -> Remote:
    seen = await served.store.head(key, version_id=version_id)
    if seen is None:
        raise ObjectMissing(f"reading {key}", "it was deleted")
    if etag is not None and seen.etag != etag:
        raise ObjectChanged(f"reading {key}", "it is another version now")
    return seen


async def _request(served: Served, key: str, version_id: str | None, seen: Remote) -> None:
    tier = served.association.restore_archived
    days = None if seen.storage_class == _NO_DAYS else served.association.restore_days
    try:
        await served.store.restore(key, version_id=version_id, tier=tier, days=days)
    except KeyRefused:
        if tier != "expedited":
            raise
        # Deep Archive knows no such tier (InvalidArgument); slow is better than not at all.
        await served.store.restore(key, version_id=version_id, tier="standard", days=days)


async def see(served: Served, path: bytes, remote: Remote | None) -> None:
    """A look has just read the object's HEAD: wake its readers if they can read it.

    Raises:
        RepositoryError: it has to be asked for anew, and that was refused.
    """
    shared, key = served.shared, served.key(path, Kind.FILE)
    problems = shared.catalog.problems
    if remote is not None and remote.archived:
        awaited = shared.awaited.get((served.id, key))
        if awaited is not None and awaited.by and not remote.restoring:
            await _request(served, key, remote.version_id, remote)
        return
    shared.unarchived(served.id, key)
    if any(problem.kind == RESTORING for problem in problems.get(served.id, path)):
        problems.clear(served.id, path, [RESTORING])
        if remote is not None:
            shared.eventlog.emit(
                level="INFO",
                code="S3ObjectRestored",
                flow="restore",
                association=served.id,
                path=served.tree_path(path),
                key=key,
                message="the archived object can be read",
            )
    for move in shared.catalog.moves.of_source(served.id, path):
        # Its file was renamed, and the copy could not be made until now.
        if move.is_copy and any(problem.kind == HELD for problem in problems.get(served.id, move.path)):
            served.add_hint(move.path, local=True, remote=True, ino=move.row.ino)
