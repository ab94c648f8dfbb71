"""Paths that wait for something to happen in the repository: an archived object, one under a lock.

They are pending for nobody: a problem in the catalog says what they wait for, and they are looked at again every now
and then, or at once when an event tells of their object.
"""

from __future__ import annotations

import trio

from fsxsync.errors import FsxSyncError, ObjectArchived, ObjectLocked
from fsxsync.sync import archives
from fsxsync.sync.journal import HELD, RESTORING, record_problem
from fsxsync.sync.served import Served

AT_ONCE = 500
"""Looks of one check: each costs a HEAD, and there may be as many held paths as files in an archive."""


async def hold(served: Served, path: bytes, error: ObjectArchived | ObjectLocked) -> None:
    """Write down what a path waits for, before its hint goes; ask for a restore if it is its bytes that are needed."""
    why: FsxSyncError = error
    if isinstance(error, ObjectArchived) and error.key is not None and archives.may_ask(served):
        try:
            await archives.ask(served, path, error.key, None, None)
        except FsxSyncError as refused:
            why = refused
        else:
            why = ObjectArchived(error.what, error.why, advice="it goes on when the object is restored")
            why.code = error.code
    record_problem(served, path, HELD, str(why), why.code, error.flow)


async def run(served: Served) -> None:
    """Look at what is held every now and then, for ever."""
    last = {HELD: b"", RESTORING: b""}
    hinted: set[bytes] = set()
    changelog = served.shared.catalog.changelog
    while True:
        await trio.sleep(served.shared.settings.restore_check_s)
        # Held paths may wait for each other (both names of a rename): a round begins when the last one is through.
        hinted = {path for path in hinted if changelog.count_under(served.id, path)}
        if not hinted:
            hinted = _hint(served, last)


def _hint(served: Served, last: dict[str, bytes]) -> set[bytes]:
    """Have the next ones looked at, after those in ``last``; their paths."""
    hinted: set[bytes] = set()
    for kind, after in last.items():
        paths = served.shared.catalog.problems.paths_after(served.id, kind, after, AT_ONCE)
        for path in paths:
            served.add_hint(path, local=True, remote=True)
        last[kind] = paths[-1] if len(paths) == AT_ONCE else b""
        hinted.update(paths)
    return hinted
