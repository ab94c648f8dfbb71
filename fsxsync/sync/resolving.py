"""Carry out what a person decided on a conflict (`fsxsync conflicts resolve`).

Only what the person was shown is decided on: if a file or an object is another one by now, or somebody writes to it,
nothing is done, the list gets the new versions, and the answer says so. In the tree the choice is carried out at once,
by atomic exchanges that look at what came out; the objects follow as after any change made here, each request
conditional on the version that was seen. So a crash or a lost answer in between leaves both versions somewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import BadInput, ConflictMoved, LocalChanged, ObjectChanged, ObjectMissing, StillPending
from fsxsync.model.association import OnConflict
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.model.open_conflict import Conflict, ConflictKind, Keep, LocalVersion
from fsxsync.sync import clashes, conflicts, obeying
from fsxsync.sync.acting import Next
from fsxsync.sync.excluded import takes_no_part
from fsxsync.sync.journal import shown
from fsxsync.sync.look import Decision, look
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served

ALONE_WITHIN_S = 60.0
"""How long to wait for looks at the paths that are under way: an upload may take its time."""
_WORDS = {Keep.LOCAL: OnConflict.LOCAL, Keep.REMOTE: OnConflict.REMOTE, Keep.BOTH: OnConflict.KEEP_BOTH}


class Loader(Protocol):
    """The part of `ports.Hydrator` that is needed."""

    async def make_resident(self, path: bytes, fd: int) -> None: ...


async def resolve(served: Served, path: bytes, keep: Keep, loader: Loader) -> list[Conflict]:
    """Decide on the conflicts of a path, or of the one whose copy lies there; those that are closed now.

    Raises:
        BadInput: there is none, or not this choice. ConflictMoved: it is not what it was shown as any more; nothing was
            done. StillPending: somebody is at work on the path. RepositoryError. TreeError.
    """
    chosen = _chosen(served, path, keep)
    await obeying.before_writes(served)
    for conflict in chosen:
        try:
            async with alone(served, [one for one in (conflict.path, conflict.kept_as) if one]):
                _check_open(served, conflict)
                await _resolve(served, conflict, keep, loader)
        except (LocalChanged, ObjectChanged, ObjectMissing) as error:
            raise ConflictMoved(error.what, error.why) from error
        _tell(served, conflict, keep)
    return chosen


def _check_open(served: Served, conflict: Conflict) -> None:
    """A look that was waited for may have ended it: what is found of it now would list it anew."""
    if conflict.kept_as not in {one.kept_as for one in served.shared.catalog.conflicts.at(served.id, conflict.path)}:
        raise ConflictMoved(f"conflict at {shown(served, conflict.path)}", "it is over by now")


def _tell(served: Served, conflict: Conflict, keep: Keep) -> None:
    copy = f"; the copy was {shown(served, conflict.kept_as)}" if conflict.kept_as else ""
    served.shared.eventlog.emit(
        code="ConflictResolved",
        flow="import" if keep is Keep.REMOTE else "export",
        association=served.id,
        path=served.tree_path(conflict.path),
        message=f"{keep.value} kept by hand ({conflict.kind.value}){copy}",
    )


def _chosen(served: Served, path: bytes, keep: Keep) -> list[Conflict]:
    found = [one for one in conflicts.open_conflicts(served) if path in {one.path, one.kept_as}]
    if not found:
        for conflict in conflicts.kept_out_by(served, path):
            raise BadInput(
                f"{shown(served, path)} can't be decided on",
                f"it is part of the conflict of {shown(served, conflict.path)}: here it is no directory",
                advice="name that path instead",
            )
        raise BadInput(
            f"{shown(served, path)} is in no conflict", "", advice="'fsxsync conflicts' lists those that are open"
        )
    if keep is Keep.LOCAL and len(found) > 1:
        raise BadInput(
            f"{shown(served, path)} has {len(found)} conflict copies",
            "only one of them can take the path",
            advice="name that copy instead of the path",
        )
    return found


async def _resolve(served: Served, conflict: Conflict, keep: Keep, loader: Loader) -> None:
    match conflict.kind:
        case ConflictKind.BLOCKED:
            await _let_move(served, conflict, keep)
        case ConflictKind.CLASH:
            await clashes.part(served, conflict, keep)
            return  # it ends with the look that finds nothing in the way: until then that look must not be forgotten
        case ConflictKind.KEPT if keep is Keep.BOTH:
            pass
        case ConflictKind.KEPT:
            await _choose(served, conflict, keep, loader)
    served.shared.catalog.conflicts.delete(served.id, conflict.path, conflict.kept_as)


# ------------------------------------------------------------- a copy beside the path


async def _choose(served: Served, conflict: Conflict, keep: Keep, loader: Loader) -> None:
    kept = await _loaded(served, conflict.kept_as, loader) if keep is Keep.LOCAL else None
    remote = await served.store.head(served.key(conflict.path, Kind.FILE))
    tree = served.shared.tree
    here = tree.identify(served.tree_path(conflict.path))
    kept = kept or tree.identify(served.tree_path(conflict.kept_as))
    base = served.shared.catalog.files.get(served.id, conflict.path)
    _check(served, conflict, kept, remote)
    _check_path(served, conflict, base, here, remote)
    if kept is None:
        raise ConflictMoved(f"conflict at {shown(served, conflict.path)}", "its copy is gone")
    if keep is Keep.LOCAL:
        await _take_back(served, conflict, here, kept)
    elif here is None:
        raise BadInput(
            f"{shown(served, conflict.path)} has no remote version any more",
            "the kept copy is all there is",
            advice="--keep local gives it the path, --keep both leaves it where it is",
        )
    else:
        await _drop(served, conflict.kept_as, kept)


async def _loaded(served: Served, kept_as: bytes, loader: Loader) -> Local | None:
    """A copy that was released is loaded first: the object that has its data goes with the name."""
    tree, tree_path = served.shared.tree, served.tree_path(kept_as)
    kept = tree.identify(tree_path)
    if kept is None or kept.stub is None:
        return kept
    fd = tree.open_read(tree_path, kept)
    try:
        await loader.make_resident(tree_path, fd)
    finally:
        os.close(fd)
    return tree.identify(tree_path)


def _check(served: Served, conflict: Conflict, local: Local | None, remote: Remote | None) -> None:
    """The two versions still are those that were shown; otherwise the list gets the new ones. One that nobody could
    show is not looked at."""
    is_local = conflict.local is None or LocalVersion.of(local) == conflict.local
    is_remote = conflict.remote is None or conflict.remote.is_of(remote)
    if local is not None and served.shared.is_written(local.ino):
        raise ConflictMoved(f"conflict at {shown(served, conflict.path)}", "its file is open for writing")
    if is_local and is_remote:
        return
    served.shared.catalog.conflicts.put(conflict.seen(local, remote))
    moved = "its file here" if not is_local else "its object"
    raise ConflictMoved(f"conflict at {shown(served, conflict.path)}", f"{moved} was changed since it was listed")


def _check_path(
    served: Served, conflict: Conflict, base: Base | None, here: Local | None, remote: Remote | None
) -> None:
    """What stands at the path is the object that was shown, and nobody's newer edit."""
    where = f"conflict at {shown(served, conflict.path)}"
    if here is None and remote is None:
        return
    in_sync = base is not None and remote is not None and (base.etag, base.remote_size) == (remote.etag, remote.size)
    if not in_sync or here is None or local_delta(base, here) not in {Delta.SAME, Delta.META}:
        served.add_hint(conflict.path, local=True, remote=True)
        raise ConflictMoved(where, "the path was changed since, and is not in sync yet")
    if served.shared.is_written(here.ino):
        raise ConflictMoved(where, "its file is open for writing")


async def _take_back(served: Served, conflict: Conflict, here: Local | None, kept: Local) -> None:
    """The local version gets its path again, in one step; what stood there goes, or stays as the copy if in use."""
    shared, tree = served.shared, served.shared.tree
    path, kept_as = served.tree_path(conflict.path), served.tree_path(conflict.kept_as)
    if here is None:
        tree.move(kept_as, kept, path)
    else:
        async with shared.let_go(kept.ino), shared.let_go(here.ino):
            tree.swap(path, here, kept_as, kept)
    shared.invalidate(path, kept.ino, data=True)
    shared.invalidate(kept_as, *([here.ino] if here else []), data=True)
    # With the inodes: what an object holds must not go before it was copied to where its file is now.
    served.add_hint(conflict.path, local=True, ino=kept.ino)
    served.add_hint(conflict.kept_as, local=True, ino=here.ino if here else None)
    if here is None:
        return
    # The choice is made, whatever becomes of the other version: the next one on this path is another conflict.
    shared.catalog.conflicts.delete(served.id, conflict.path, conflict.kept_as)
    out = tree.identify(kept_as)
    if out is None:
        return
    try:
        await _drop(served, conflict.kept_as, out)
    except LocalChanged as error:
        raise StillPending(
            f"{shown(served, conflict.path)} is the local version now",
            f"the other one is in use and stays as {shown(served, conflict.kept_as)}",
            advice="remove it when nobody needs it",
        ) from error


async def _drop(served: Served, path: bytes, expect: Local) -> None:
    tree_path = served.tree_path(path)
    async with served.shared.let_go(expect.ino):
        served.shared.tree.remove(tree_path, expect)
    served.shared.invalidate(tree_path, expect.ino, data=True)
    served.add_hint(path, local=True)


# ------------------------------------------------------------- each where it was


async def _let_move(served: Served, conflict: Conflict, keep: Keep) -> None:
    """One look that may do what the policy does not let the others do."""
    if keep is Keep.LOCAL and served.association.read_only:
        raise BadInput(
            f"{shown(served, conflict.path)} can't be exported",
            "the association is read-only",
            advice="--keep remote, or --keep both",
        )
    path = conflict.path
    local = served.shared.tree.identify(served.tree_path(path))
    remote = await served.store.head(served.key(path, Kind.FILE))
    _check(served, conflict, local, remote)
    if takes_no_part(served, path, served.shared.catalog.files.get(served.id, path), local, remote):
        raise BadInput(
            f"{shown(served, path)} takes no part in sync",
            "a filter leaves it out",
            advice="'fsxsync association show' tells the filters",
        )
    now_ns = served.shared.now_ns()
    entry = Entry(served.id, path, True, True, None, now_ns, now_ns, 0, 0, None, None, "")
    before = set(served.shared.catalog.conflicts.at(served.id, path))
    outcome = await look(served, entry, Decision(_WORDS[keep], conflict))
    if outcome.next is Next.LATER:
        raise ConflictMoved(f"conflict at {shown(served, path)}", f"it has to wait: {outcome.reason}")
    for made in set(served.shared.catalog.conflicts.at(served.id, path)) - before:
        served.shared.catalog.conflicts.delete(served.id, path, made.kept_as)  # that there are two was the wish


# ------------------------------------------------------------- nobody else at work on it


@asynccontextmanager
async def alone(served: Served, paths: Iterable[bytes]) -> AsyncGenerator[None]:
    """No look at these paths is under way inside, and none starts."""
    changelog, wanted = served.shared.catalog.changelog, list(paths)
    deadline = trio.current_time() + ALONE_WITHIN_S
    while not changelog.reserve(served.id, wanted):
        if trio.current_time() > deadline:
            raise StillPending(f"conflict at {shown(served, wanted[0])}", "it is worked on", advice="ask again later")
        await trio.sleep(0.05)
    try:
        yield
    finally:
        changelog.free(served.id, wanted)
        served.wake()
