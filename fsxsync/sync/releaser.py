"""Releasing: the data of synced files goes, and stays in the repository (DESIGN §5).

    may it go? (model.release)  ->  is its object there?  ->  mark, flush, punch (tree.releasing)  ->  the rows

A crash after any of these loses nothing. A file that is marked and whose row says resident is one whose release was
under way: the next look finishes it (`finished`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import trio

from fsxsync.errors import FsxSyncError, KeptHere, LocalChanged, TreeError
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.release import Refusal, refuse_object
from fsxsync.model.stub import StubMark
from fsxsync.sync.interrupted import taken_back
from fsxsync.sync.objects_seen import Looked, all_of, see_objects
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.releasable import Candidate, Moment, is_idle, is_pending, is_plain, judge, moment_of
from fsxsync.sync.served import Served
from fsxsync.tree.flags import FlagReader
from fsxsync.tree.tree import Releasable

SLICE = 250
"""Files that are released at a time: as many leases are held while their marks are made durable, for each of
`RELEASED_AT_ONCE`."""
STUB_BLOCKS = 128
"""A stub that takes more (of 512 bytes) holds data that was read since; fewer are not worth it."""
BUSY_S = (0.05, 0.2, 0.8)
"""Pauses after which a file that was open is tried again: the kernel tells of a close a moment after it."""


def _judge_unless_done(
    served: Served, one: Candidate, base: Base | None, moment: Moment
) -> tuple[list[Base], Refusal | None]:
    """As `judge`; neither names nor a reason: there is nothing to do any more. No await."""
    if base is not None and _is_done(served, one, base):
        return [], None
    return judge(one, base, moment)


def is_released(base: Base | None, local: Local) -> bool:
    """There is nothing to do: its data is gone, or there never was any."""
    return base is not None and _has_no_data(base, local) and base.matches_local(local)


def _has_no_data(base: Base, local: Local) -> bool:
    return local.size == 0 or (base.released and local.blocks <= STUB_BLOCKS)


def _stands_for(served: Served, one: Candidate, base: Base) -> bool:
    """It is the stub of what the row of a released file knows, whatever its times are: loading a part of it moved
    them."""
    if base.ino != one.local.ino:
        return False
    now = _now(served, one.path)
    return now is not None and now.stub is not None and now.stub.etag == base.etag


def _refuse_drop(served: Served, one: Candidate, base: Base, seen: Looked, flags: FlagReader) -> Refusal | None:
    """The first reason against giving back what is here of a stub."""
    if flags.of(served.tree_path(one.path)).norelease:
        return Refusal("OperationNotPermitted", "it is kept here: norelease is set on it or above it")
    if served.shared.front.open_handles(one.local.ino) > 0:
        return Refusal("ResourceBusy", "it is open")
    return refuse_object(base, seen)


async def _release_stubs(
    served: Served, candidates: Sequence[Candidate], rows: Mapping[bytes, Base], *, acts: bool = True
) -> dict[bytes, Refusal | None]:
    """What becomes of those that are stubs: what was loaded of them goes again."""
    stubs = [
        one
        for one in candidates
        if (row := rows.get(one.path)) is not None and row.released and _stands_for(served, one, row)
    ]
    if not stubs:
        return {}
    outcomes: dict[bytes, Refusal | None] = {one.path: None for one in stubs}
    partly = [one for one in stubs if not is_released(rows[one.path], one.local)]
    if not partly:
        return outcomes
    seen = await see_objects(served, [rows[one.path] for one in partly])
    flags = served.shared.tree.flags()
    for one in partly:
        why = _refuse_drop(served, one, rows[one.path], seen.get(one.path), flags)
        if why is None and acts and not served.shared.drop_partial(served.tree_path(one.path), one.local.ino):
            why = Refusal("ResourceBusy", "its data is being loaded")
        outcomes[one.path] = why
    return outcomes


async def release(served: Served, candidates: Sequence[Candidate]) -> dict[bytes, Refusal | None]:
    """Release files of one association, in catalog order; why each was not, None where it is released now.

    Raises:
        RepositoryError: the objects can't be looked at. TreeError: the disk failed.
    """
    outcomes: dict[bytes, Refusal | None] = {}
    left = list(candidates)
    for pause_s in (0.0, *BUSY_S):
        if pause_s:
            await trio.sleep(pause_s)
        rows = _as_they_are(served, left)
        if stubs := await _release_stubs(served, left, rows):
            rows = _rows(served, left)
        found = await _survey(served, _without(left, stubs), rows)
        decided = found.decided | stubs
        outcomes |= decided
        outcomes |= await _release_slices(served, _without(left, decided), found)
        kept = [(one, why) for one in left if (why := outcomes[one.path]) is not None]
        left = [now for one, why in kept if (now := _to_try_again(served, one, why)) is not None]
        if not left:
            break
    return outcomes


def _without(candidates: Sequence[Candidate], decided: Collection[bytes]) -> Sequence[Candidate]:
    return [one for one in candidates if one.path not in decided] if decided else candidates


async def mark_empty(served: Served, row: Base, local: Local) -> Refusal | None:
    """Mark a file that has no byte of its own as the stub that its row takes it for; why not, or None.

    Raises:
        TreeError: the disk failed.
    """
    one = Candidate(row.path, local)
    return (await _punch(served, [(_releasable(served, one, [row]), [row])], even_kept=True))[row.path]


def _to_try_again(served: Served, one: Candidate, why: Refusal) -> Candidate | None:
    """The file as it is now, if it may soon be released: it is in use, a look that refreshes its row is to come, or it
    was judged by what it was before its data had come."""
    if (now := _now(served, one.path)) is None:
        return None
    is_soon = why.code == "ResourceBusy" or now.ctime_ns != one.local.ctime_ns
    is_soon = is_soon or is_pending(served, one.path)
    return Candidate(one.path, now) if is_soon else None


async def _release_slices(
    served: Served, candidates: Sequence[Candidate], found: _Survey
) -> dict[bytes, Refusal | None]:
    outcomes: dict[bytes, Refusal | None] = {}

    async def one_slice(part: Sequence[Candidate]) -> None:
        async with served.shared.release_slots:
            # The repository was asked meanwhile. No await from here to the marks but for a thread's start, and these
            # find the file's state again, not what it inherits.
            refused, chosen = _choose(part, found, _moment_for(served, part))
            outcomes.update(refused)
            outcomes.update(await _punch(served, chosen))

    slices = [candidates[start : start + SLICE] for start in range(0, len(candidates), SLICE)]
    await all_of(partial(one_slice, part) for part in slices)
    return outcomes


def _as_they_are(served: Served, candidates: Sequence[Candidate]) -> Mapping[bytes, Base]:
    """Their rows at this moment: most were read before, and not written since."""
    read = [one.base for one in candidates if one.base is not None]
    current = served.shared.catalog.files.unwritten(served.id, read)
    if len(current) == len(candidates):
        return current
    return {**current, **_rows(served, [one for one in candidates if one.path not in current])}


def _rows(served: Served, candidates: Sequence[Candidate]) -> Mapping[bytes, Base]:
    return served.shared.catalog.files.get_many(served.id, [one.path for one in candidates])


def _now(served: Served, path: bytes) -> Local | None:
    return served.shared.tree.identify(served.tree_path(path))


async def foresee(served: Served, candidates: Sequence[Candidate]) -> dict[bytes, Refusal | None]:
    """What `release` would come to.

    Raises:
        RepositoryError: the objects can't be looked at.
    """
    stubs = await _release_stubs(served, candidates, _as_they_are(served, candidates), acts=False)
    others = _without(candidates, stubs)
    found = await _survey(served, others, _as_they_are(served, others))
    left = _without(others, found.decided)
    decided = found.decided | stubs
    refused, chosen = _choose(left, found, _moment_with_flags(served, left))
    return decided | refused | {names[0].path: None for _, names in chosen}


class _Survey(NamedTuple):
    """By path: what is decided already, the rows of plain files (`is_plain`) among the others, the objects of these."""

    decided: dict[bytes, Refusal | None]
    plain: dict[bytes, Base]
    seen: dict[bytes, Looked]


async def _survey(served: Served, candidates: Sequence[Candidate], known: Mapping[bytes, Base]) -> _Survey:
    decided: dict[bytes, Refusal | None] = {}
    plain: dict[bytes, Base] = {}
    asked: dict[bytes, Base] = {}
    moment = moment_of(served)
    for one in candidates:
        row = known.get(one.path)
        if row is not None and is_plain(one.local, row) and is_idle(row, moment):
            plain[one.path] = row  # what goes on there is asked once more, right before the marks
            continue
        names, why = _judge_unless_done(served, one, row, moment)
        if why is not None or not names:
            decided[one.path] = why
        else:
            asked |= {row.path: row for row in names}
    rows = sorted((plain | asked).values() if asked else plain.values(), key=attrgetter("path"))
    return _Survey(decided, plain, await see_objects(served, rows) if rows else {})


def _moment_for(served: Served, candidates: Sequence[Candidate]) -> Moment:
    """A task's candidates come once, and their marks tell whether they are kept. Others come again and again: who is
    opened to be marked is told of by inotify each time."""
    if all(one.base is not None for one in candidates):
        return moment_of(served)
    return _moment_with_flags(served, candidates)


def _moment_with_flags(served: Served, candidates: Sequence[Candidate]) -> Moment:
    flags = served.shared.tree.flags()
    flags.read([served.tree_path(one.path) for one in candidates])
    return moment_of(served, flags)


def _choose(
    candidates: Sequence[Candidate], found: _Survey, moment: Moment
) -> tuple[dict[bytes, Refusal | None], list[tuple[Releasable, list[Base]]]]:
    """Why not, and what may be released now, with the rows of all its names. No await."""
    refused: dict[bytes, Refusal | None] = {}
    chosen: list[tuple[Releasable, list[Base]]] = []
    served, plain, seen = moment.served, found.plain, found.seen
    rows = _as_they_are(served, candidates)
    for one in candidates:
        row = rows.get(one.path)
        if row is not None and plain.get(one.path) is row and is_idle(row, moment):
            names, why = [row], refuse_object(row, seen.get(one.path))
        else:
            names, why = judge(one, row, moment)
            for name in names:
                why = why or refuse_object(name, seen.get(name.path))
        if why is not None:
            refused[one.path] = why
        else:
            chosen.append((_releasable(served, one, names), names))
    return refused, chosen


def _releasable(served: Served, one: Candidate, names: Sequence[Base]) -> Releasable:
    row = names[0]
    assert row.etag is not None
    mark = StubMark(row.etag, row.size, served.key(row.path, Kind.FILE), row.version_id)
    return Releasable(served.tree_path(one.path), one.local, mark, len(names))


async def _punch(
    served: Served, chosen: Sequence[tuple[Releasable, list[Base]]], *, even_kept: bool = False
) -> dict[bytes, Refusal | None]:
    changelog, shared = served.shared.catalog.changelog, served.shared
    outcomes: dict[bytes, Refusal | None] = {}
    taken: list[tuple[Releasable, list[Base]]] = []
    reserved: list[bytes] = []
    paths = [[row.path for row in names] for _, names in chosen]
    for one, its, is_free in zip(chosen, paths, changelog.reserve_each(served.id, paths), strict=True):
        if is_free:
            reserved += its
            taken.append(one)
        else:
            outcomes[its[0]] = Refusal("ResourceBusy", "it is being looked at")
    if not taken:
        return outcomes
    try:
        with trio.CancelScope(shield=True):  # what is punched has to get into its row
            files = [wanted for wanted, _ in taken]
            places = {wanted.path for wanted in files}
            if len(reserved) > len(files):
                places |= {served.tree_path(path) for path in reserved}
            shared.releasing |= places
            try:
                states = await trio.to_thread.run_sync(partial(shared.tree.release, files, even_kept=even_kept))
                outcomes |= _write_down(served, taken, states)
            finally:
                shared.releasing -= places
    finally:
        changelog.free(served.id, reserved)
        served.wake()
    return outcomes


def _write_down(
    served: Served, taken: Sequence[tuple[Releasable, list[Base]]], states: Sequence[Local | FsxSyncError]
) -> dict[bytes, Refusal | None]:
    """What became of files gets into their rows. No await."""
    shared, outcomes = served.shared, dict[bytes, Refusal | None]()
    changed: list[tuple[bytes, Local]] = []
    ours: list[tuple[bytes, bytes, Local]] = []
    released_bytes = released = 0
    for (wanted, names), state in zip(taken, states, strict=True):
        path = names[0].path
        if isinstance(state, FsxSyncError):
            outcomes[path] = _refusal_of(state)
            continue
        outcomes[path] = None
        released += 1
        released_bytes += state.size
        changed += [(path, state)] if len(names) == 1 else [(row.path, state) for row in names]
        if state.description == wanted.expect.description:  # else its row does not know of that change
            ours.append((wanted.path, path, state))
        shared.front.invalidate_inode(state.ino, data=True)
    shared.catalog.files.set_local_many(served.id, changed)
    shared.own_work.note(served.id, ours)
    served.counts.released += released
    served.counts.released_bytes += released_bytes
    return outcomes


def _refusal_of(error: FsxSyncError) -> Refusal:
    if isinstance(error, LocalChanged | KeptHere):
        return Refusal(error.code, error.why)
    return Refusal("InternalError", str(error))


def _is_done(served: Served, one: Candidate, base: Base) -> bool:
    """It is released, or is so now: a crash came between the mark and the row, and the rest is done. No await."""
    path = one.path
    if base.matches_local(one.local):
        return _has_no_data(base, one.local)
    if base.released:
        return False
    local = taken_back(served, path, base, _now(served, path))
    if local is None or local.stub is None or local_delta(base, local) is not Delta.SAME:
        return False
    served.shared.catalog.files.put(finished(served, path, base, base.with_local(local), local))
    return True


def finished(served: Served, path: bytes, before: Base | None, row: Base, local: Local | None) -> Base:
    """The row of a stub that was resident when it was last written: a crash came between. What was not done any more
    is done now. No await."""
    if before is None or local is None or local.stub is None or before.released:
        return row
    shared = served.shared
    if local.ino in shared.hydrating or shared.front.open_handles(local.ino) > 0:
        return row
    try:
        return row.with_local(shared.tree.finish_release(served.tree_path(path), local, mtime_ns=before.mtime_ns))
    except TreeError:
        return row  # it moved on: a hint tells of that
