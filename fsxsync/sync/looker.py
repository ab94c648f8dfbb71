"""The loop of one association: claim due hints, look at each, and say what becomes of the entry."""

from __future__ import annotations

import math
import time

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import (
    BadCredentials,
    BucketMissing,
    EndpointUnreachable,
    FsxSyncError,
    LocalChanged,
    ObjectArchived,
    ObjectChanged,
    ObjectLocked,
    Throttled,
    TreeMoved,
)
from fsxsync.sync.acting import Next
from fsxsync.sync.holding import hold
from fsxsync.sync.journal import record_failure
from fsxsync.sync.look import look
from fsxsync.sync.refusing import REFUSED, refuse
from fsxsync.sync.served import Served
from fsxsync.sync.uploads import end_settled

CLAIM = 64
LATER_S = 0.25
"""How soon a path that waits for something else is looked at again."""
BACKOFF_MAX_S = 300.0
BUSY_MAX = 3
"""Looks in a row that may meet a busy store (500, 503), each of which asked several times, before that is told as a
failure: as a rule it passes, but what lasts somebody should know of."""
SET_BACK_NS = 10**9
"""By more than this the clock was set back: what was to be looked at soon would have to wait for so long."""
FATAL = (BadCredentials, BucketMissing, EndpointUnreachable, TreeMoved)
"""Not the path's fault but the association's: it becomes MISCONFIGURED, and its paths wait."""


def backoff_s(served: Served, attempts: int) -> float:
    """Seconds until the next try after ``attempts`` failures: 1, 2, 4 … 300, in units of the setting ``retry_s``."""
    return min(served.shared.settings.retry_s * 2.0 ** min(attempts, 20), BACKOFF_MAX_S)


async def run_lookers(served: Served) -> None:
    """Look at whatever is due, for ever.

    Raises:
        RepositoryError, TreeMoved: repository or directory can't be used at all; the supervisor marks the association
            and retries.
    """
    limit = served.shared.settings.look_workers
    slots = trio.Semaphore(limit)
    changelog = served.shared.catalog.changelog
    steadily = served.shared.now_ns() - time.monotonic_ns()
    async with trio.open_nursery() as nursery:
        while True:
            served.hints = trio.Event()
            before, steadily = steadily, served.shared.now_ns() - time.monotonic_ns()
            if steadily < before - SET_BACK_NS:
                changelog.wake(served.id, served.shared.now_ns())
            await served.shared.courtesy.give_way()
            await slots.acquire()
            slots.release()
            free = max(1, slots.value)
            entries = changelog.claim(served.shared.now_ns(), min(free, CLAIM), [served.id])
            for position, entry in enumerate(entries):
                try:
                    await slots.acquire()
                except trio.Cancelled:
                    for unstarted in entries[position:]:
                        changelog.postpone(unstarted, at_ns=served.shared.now_ns(), waiting_for="")
                    raise
                nursery.start_soon(_look_one, served, entry, slots)
            if not entries:
                await _wait_for_due(served)


async def _wait_for_due(served: Served) -> None:
    due_ns = served.shared.catalog.changelog.next_due_ns([served.id])
    wait_s = math.inf if due_ns is None else max(0.0, (due_ns - served.shared.now_ns()) / 1e9)
    with trio.move_on_after(wait_s):  # either something became due or a new hint came: look in both cases
        await served.hints.wait()


async def _look_one(served: Served, entry: Entry, slots: trio.Semaphore) -> None:
    served.in_flight += 1
    try:
        await _handle(served, entry)
    except BaseException:  # cancelled, perhaps as a nursery's group; or a bug, which ends the daemon
        # The action may or may not have taken effect: the next look sees which.
        served.shared.catalog.changelog.postpone(entry, at_ns=served.shared.now_ns(), waiting_for="")
        raise
    else:
        await end_settled(served, entry.path)
    finally:
        served.in_flight -= 1
        slots.release()
        served.wake()


async def _handle(served: Served, entry: Entry) -> None:
    changelog, now_ns = served.shared.catalog.changelog, served.shared.now_ns
    try:
        outcome = await look(served, entry)
    except (LocalChanged, ObjectChanged, Throttled) as moved:
        delay_s = min(0.1 * 2 ** min(entry.attempts, 8), 10.0)
        changelog.retry(entry, error=str(moved), code=moved.code, at_ns=now_ns() + int(delay_s * 1e9))
        if isinstance(moved, Throttled) and entry.attempts >= BUSY_MAX:
            record_failure(served, entry.path, moved, first=entry.attempts == BUSY_MAX, local=entry.local)
        return
    except (ObjectArchived, ObjectLocked) as error:
        await hold(served, entry.path, error)
        changelog.done(entry)
        return
    except REFUSED as error:
        refuse(served, entry.path, error)
        changelog.done(entry)
        served.looked(entry.path)
        return
    except FsxSyncError as error:
        record_failure(served, entry.path, error, first=entry.attempts == 0, local=entry.local)
        at_ns = now_ns() + int(backoff_s(served, entry.attempts) * 1e9)
        changelog.retry(entry, error=str(error), code=error.code, at_ns=at_ns)
        if isinstance(error, FATAL):
            raise
        return
    if outcome.next is Next.LATER:
        at_ns = max(now_ns() + int(LATER_S * 1e9), outcome.until_ns)
        changelog.postpone(entry, at_ns=at_ns, waiting_for=outcome.reason)
        return
    changelog.done(entry)
    if outcome.next is Next.AGAIN:
        served.add_hint(entry.path, local=outcome.local, remote=outcome.remote, ino=entry.ino)
    else:
        served.looked(entry.path)
