"""How a task brings one path together: look after look, until nothing is left to do, or a person has to see to it."""

from __future__ import annotations

import trio

from fsxsync.catalog.changelog import Entry as Looked
from fsxsync.errors import FsxSyncError, LocalChanged, ObjectChanged, Throttled
from fsxsync.model.association import Event, Policy
from fsxsync.sync.acting import Next
from fsxsync.sync.exporter import forget_left_alone, is_left_alone, parent_here
from fsxsync.sync.journal import shown
from fsxsync.sync.look import look
from fsxsync.sync.refusing import REFUSED, refuse
from fsxsync.sync.served import Served
from fsxsync.sync.uploads import end_settled

AGAIN_MAX = 20
"""Looks at a path that something else comes in the way of, before it counts as busy."""
AGAIN_S = 0.1


async def settle_path(served: Served, path: bytes, policy: Policy, *, remote: bool) -> None:
    """Bring both sides of one path together.

    Raises:
        FsxSyncError: they are not, and why.
    """
    changelog, shared = served.shared.catalog.changelog, served.shared
    was_here = shared.tree.identify(served.tree_path(path)) is not None
    if was_here and Event.NEW in policy.exports:
        forget_left_alone(served, path)
    error: FsxSyncError = LocalChanged(f"sync of {shown(served, path)}", "it changes all the time")
    for turn in range(AGAIN_MAX):
        if not changelog.reserve(served.id, [path]):
            await trio.sleep(AGAIN_S)
            continue
        try:
            now_ns = shared.now_ns()
            looked = Looked(served.id, path, True, remote or turn > 0, None, now_ns, now_ns, 0, 0, None, None, "")
            outcome = await look(served, looked, policy=policy)
        except (LocalChanged, ObjectChanged, Throttled) as moved:
            error = moved
            await trio.sleep(min(AGAIN_S * 2**turn, 5.0))
            continue
        except REFUSED as refused:
            refuse(served, path, refused)
            raise
        finally:
            changelog.free(served.id, [path])
            served.wake()
        if outcome.next is Next.DONE:
            await end_settled(served, path)
            _check_settled(served, path)
            if not was_here:
                await _keep_emptied(served, path, policy)
            return
        if outcome.next is Next.LATER:
            error = LocalChanged(f"sync of {shown(served, path)}", outcome.reason)
            if outcome.until_ns > shared.now_ns():
                break
            await trio.sleep(AGAIN_S)
        remote = remote or outcome.remote
    raise error


async def _keep_emptied(served: Served, path: bytes, policy: Policy) -> None:
    """With what was gone here its object went, too: a directory that had no other is to be exported, also where the
    association would not do that by itself."""
    if served.shared.catalog.files.get(served.id, path) is not None:
        return
    parent = parent_here(served, path)
    row = served.shared.catalog.files.get(served.id, parent)
    if parent and Event.NEW in policy.exports and (row is None or is_left_alone(served, row)):
        await settle_path(served, parent, policy, remote=False)


class _Unsettled(FsxSyncError):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, advice="")
        self.code = code


def _check_settled(served: Served, path: bytes) -> None:
    """A look may end with a path that a person has to see to."""
    for problem in served.shared.catalog.problems.get(served.id, path):
        raise _Unsettled(problem.message, problem.code)
