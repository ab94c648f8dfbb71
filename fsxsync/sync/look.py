"""One hint, one look: identify, reconcile, act, record. Start reading the engine here.

hint (association, path)
  -> base from the catalog, local from the tree, remote from the repository
  -> reconcile(base, local, remote, policy): one verdict
  -> its executor, which must find that state again or raise LocalChanged / ObjectChanged
  -> the new base, or a later look
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import KeyRefused, LocalChanged, ObjectChanged, ObjectEncrypted, TypeClash
from fsxsync.model.association import Event, OnConflict, Policy
from fsxsync.model.doubt import Trust
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.model.open_conflict import Conflict, LocalVersion
from fsxsync.sync import archives, conflicts, exporter, importer, links, moves, renames
from fsxsync.sync.acting import DONE, Next, Outcome, act
from fsxsync.sync.carrying import as_carried, with_xattrs
from fsxsync.sync.digests import content_hash, same_bytes
from fsxsync.sync.excluded import forget, is_left_out, takes_no_part
from fsxsync.sync.interrupted import taken_back
from fsxsync.sync.journal import (
    asks_repository,
    forget_problems,
    forget_refuted,
    going_its_way,
    is_clash,
    shown,
    was_damaged,
)
from fsxsync.sync.leaving import leave
from fsxsync.sync.reconcile import QUIET, Delta, Verdict, local_delta, needs_digest, reconcile
from fsxsync.sync.renames import base_as_remote
from fsxsync.sync.served import Served


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word on a conflict that the policy blocks, and the versions that it was said about."""

    keep: OnConflict
    about: Conflict

    def check(self, where: str, local: Local | None, remote: Remote | None) -> None:
        """Raises LocalChanged, ObjectChanged: they are others by now."""
        if LocalVersion.of(local) != self.about.local:
            raise LocalChanged(f"conflict at {where}", "the file was changed meanwhile")
        if self.about.remote is None or not self.about.remote.is_of(remote):
            raise ObjectChanged(f"conflict at {where}", "the object was changed meanwhile")


async def look(served: Served, entry: Entry, decision: Decision | None = None, policy: Policy | None = None) -> Outcome:
    """Handle one hint. ``policy``: what a task may do that was asked for, instead of the association's own.

    Raises:
        LocalChanged, ObjectChanged: the state moved between decision and deed: look again.
        NotExportable, TypeClash, KeyRefused: a person decides. RepositoryError, NoSpace: try again later.
    """
    shared, path = served.shared, entry.path
    base = shared.catalog.files.get(served.id, path)
    links.stand_alone(served, path, base)
    local = taken_back(served, path, base, shared.tree.identify(served.tree_path(path)))
    local = links.name_own_object(served, base, local) if entry.remote else local
    if local is not None and local.stub is not None:
        local = local._replace(own_times=shared.own_times(local.ino))
    if local is None and base is not None and was_damaged(served, path):
        shared.catalog.files.delete(served.id, path)  # no delete to be exported: the object's version is to come back
        return Outcome(Next.AGAIN, remote=True)
    forget_refuted(served, path, base, local)
    if is_left_out(served, path, base, local):  # also where it was let through when the hint came
        await leave(served, path, base, local)
        return _made_way(served, path, base, local)
    if (reason := _not_now(served, path, base, local)) is not None:
        return Outcome(Next.LATER, reason)
    if base is None and local is not None and local.kind is Kind.OTHER:
        raise_not_exportable(served, path)
    if base is not None and local is not None and (base.kind is Kind.DIRECTORY) != (local.kind is Kind.DIRECTORY):
        return await _part_with(served, path, base, entry, policy)
    trust = served.doubt.trust(entry) if served.doubt is not None else Trust.FULL
    try:
        outcome = await _settle(served, path, base, local, entry, decision, policy, trust)
    except (KeyRefused, ObjectEncrypted, TypeClash):  # that is all there is to be done about the path
        await _loaded_if_moved(served, path, policy, DONE)
        raise
    outcome = await _loaded_if_moved(served, path, policy, outcome)
    links.stand_alone(served, path, base)
    if outcome.next is not Next.DONE:
        return _going_on(served, path, base, outcome)
    if _moved_on_unseen(served, path, base, local):
        return Outcome(Next.AGAIN, local=True)
    return _made_way(served, path, base, local)


_DOUBTFUL = frozenset({Delta.GONE, Delta.CONTENT})


def _not_now(served: Served, path: bytes, base: Base | None, local: Local | None) -> str | None:
    """Why the path has to wait for something that ends by itself."""
    shared = served.shared
    if local is not None and local.kind is not Kind.DIRECTORY and shared.is_written(local.ino):
        return "open for writing"
    if base is None:
        return "open for writing" if _is_written_elsewhere(served, path, base, local) else None
    if base.released and local is not None and local.stub is None and local.ino in shared.hydrating:
        return "being loaded"  # its mark went a moment ago, and its row is about to follow
    if _is_written_elsewhere(served, path, base, local):
        return "open for writing"
    if served.doubt is not None and not served.doubt.scanned and local_delta(base, local) in _DOUBTFUL:
        return "the tree is looked through first: the machine went down"
    return None


def _is_written_elsewhere(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """Somebody has a changed file open for writing behind the mount, or mapped. What is written through a mapping to a
    page that is still to be brought to the disk moves no time of the file, and its close would look like nothing."""
    if local is None or local.kind is not Kind.FILE:
        return False
    if local.stub is not None and local.stub.size == local.size:
        return False  # another size it has from somebody who is about to write it anew
    if base is not None and base.matches_local(local):
        return False
    return served.shared.tree.is_written(served.tree_path(path), local)


async def _part_with(served: Served, path: bytes, base: Base, entry: Entry, policy: Policy | None) -> Outcome:
    """A file stood here and a directory does now, or the other way round: the old key goes first, then the path is new.
    If its object was changed, it stays, and clashes with what is new here like any other."""
    files = served.shared.catalog.files
    try:
        outcome = await _settle(served, path, base, None, entry, policy=policy)
    except TypeClash:
        files.delete(served.id, path)
        outcome = Outcome(Next.DONE, remote=True)
    if outcome.next is Next.LATER or files.get(served.id, path) == base:
        return outcome
    conflicts.look_again_below(served, path)
    return replace(outcome, local=True, next=Next.AGAIN)


async def _loaded_if_moved(served: Served, path: bytes, policy: Policy | None, outcome: Outcome) -> Outcome:
    """A released file was renamed to where its object does not follow it, as a person decides first, or the policy does
    not want it: the object goes with the old name, so the data is to be here before.

    Raises:
        LocalChanged. RepositoryError, NoSpace: the look is tried again, and holds the object until then.
    """
    shared = served.shared
    local = shared.tree.identify(served.tree_path(path))
    exports = (policy or served.association.policy).exports
    if outcome.next is not Next.DONE or local is None or local.stub is None:
        return outcome
    if not exports:  # its object stays as it is, until a task takes it
        if local.stub.key != served.key(path, Kind.FILE):
            served.unfollowed[local.ino] = path
        return outcome
    if shared.catalog.moves.get(served.id, path) is not None:
        return outcome  # the copy is refused, and so is to delete what it would be made of (`moves.needing`)
    base = shared.catalog.files.get(served.id, path)
    if not await renames.is_moved_stub(served, path, base, links.as_own(served, path, base, local)):
        return outcome
    await importer.load_moved(served, path, local, served)
    return Outcome(Next.AGAIN, local=True)


def _made_way(served: Served, path: bytes, base: Base | None, local: Local | None) -> Outcome:
    """Where nothing stands at the path: that decides on a copy which lay there, what waited for the name may come, and
    an object that went before it came has no need of its directories."""
    if local is None:
        conflicts.close_copy_if_gone(served, path)
        if not conflicts.still_clashes(served, path):  # a file above is in the way of all below, too
            conflicts.look_again_below(served, path)
        if base is None and served.shared.catalog.files.get(served.id, path) is None:
            importer.remove_needless_parents(served, path)
    return DONE


def _going_on(served: Served, path: bytes, base: Base | None, outcome: Outcome) -> Outcome:
    """What waited for the name of a file whose row went is told now: by the next look a directory may stand there."""
    if base is not None and served.shared.catalog.files.get(served.id, path) is None:
        conflicts.look_again_below(served, path)
    return outcome


def _moved_on_unseen(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """The row was written or dropped, and is not what stands at the path by now; perhaps nobody was told.

    What happens is held against the row (`Intake`), and that was the old one until now. Nothing is hinted at where it
    knew nothing of the path: the file was removed again, or changed by another name. Nor where it knew the file that is
    back: neither the directory that was renamed away and back changed the times of what lies in it.
    """
    shared = served.shared
    row = shared.catalog.files.get(served.id, path)
    if row == base or (row is None and local is not None):
        return False  # the second: it is left out from now on
    now = shared.tree.identify(served.tree_path(path))
    if row is None or now is None:
        return row is not None or now is not None
    is_moving = now.ino in shared.hydrating or served.tree_path(path) in shared.releasing
    return not row.matches_local(now) and not is_moving  # or the end of that writes the row


def raise_not_exportable(served: Served, path: bytes) -> None:
    """Raise what keeps a special file local."""
    exporter.exported_key(served, path, Kind.OTHER)


async def _settle(  # noqa: C901
    served: Served,
    path: bytes,
    base: Base | None,
    local: Local | None,
    entry: Entry,
    decision: Decision | None = None,
    policy: Policy | None = None,
    trust: Trust = Trust.FULL,
) -> Outcome:
    shared = served.shared
    policy = policy or served.association.policy
    if await _moved_here(served, path, base, local):
        return Outcome(Next.AGAIN, local=True, remote=entry.remote)
    # After a failure, or where something is wrong with the object, the row's knowledge is no longer enough.
    hinted = entry.remote or entry.attempts > 0 or asks_repository(served, path) or trust is not Trust.FULL
    was_clash = is_clash(served, path)  # asked before an action forgets it
    if served.filters.leaves_out(base, local, None):
        return _leave_size(served, path, base, local)
    if base is None and local is not None and not hinted and await _follow(served, path, local, policy):
        forget_problems(served, path)
        return DONE
    own = links.as_own(served, path, base, local)
    remote, other_form = await _see_remote(served, path, base, own, hinted=hinted)
    if hinted:
        await archives.see(served, path, remote)
    remote = as_carried(served, remote)
    if decision is not None:
        decision.check(shown(served, path), local, remote)
    known: bool | None = None
    if local is not None:
        local = await _read_closer(served, path, base, local)
    if _worth_comparing(base, local, remote):
        assert local is not None
        assert remote is not None
        known, local = await _compare(served, path, local, remote)
    own = links.as_own(served, path, base, local)
    if (held := _held_back(served, path, base, own, remote)) is not None:
        return held
    moved = await renames.is_moved_stub(served, path, base, own)
    decided = decision.keep if decision is not None else None
    action = reconcile(base, own, remote, policy, same_bytes=known, moved=moved, decided=decided, trust=trust)
    action = replace(action, local=local)  # executors have to find the mark that there is
    if action.verdict in _UNCHECKED and _moved_on(served, path, base, local):
        return Outcome(Next.AGAIN, local=True, remote=hinted)
    try:
        with going_its_way(action.verdict):
            outcome = await act(served, path, action, policy, seen=hinted)
    except TypeClash:
        conflicts.note_clash(served, path, remote)
        raise
    if hinted and outcome.next is Next.DONE:
        await _refuse_other_form(served, path, local, is_new=base is None, is_clash=was_clash)
    # The row told which form of the name was asked for. A hint may have been about the other one.
    other_form = other_form or ((was_clash or hinted) and base is not None and local is None)
    if other_form and outcome.next is Next.DONE and shared.catalog.files.get(served.id, path) is None:
        return Outcome(Next.AGAIN, remote=True)
    return outcome


async def _read_closer(served: Served, path: bytes, base: Base | None, local: Local) -> Local:
    """The file with what lstat does not say, as far as it counts: its digest, its extended attributes."""
    if needs_digest(base, local):
        digest = await trio.to_thread.run_sync(content_hash, served.shared.tree, served.tree_path(path), local)
        local = local._replace(content_hash=digest)
    return with_xattrs(served, path, base, local)


async def _follow(served: Served, path: bytes, local: Local, policy: Policy) -> bool:
    """Copy the object of a file that was renamed to this path. False if it was not, or nothing is there to copy."""
    source = await renames.source_of(served, path, local)
    if source is None or not {Event.NEW, Event.CHANGED} & policy.exports:
        return False
    local = with_xattrs(served, path, source, local)
    with going_its_way(Verdict.EXPORT):
        return await renames.export_rename(served, path, local, source, replaces=None) is not None


def _leave_size(served: Served, path: bytes, base: Base | None, local: Local | None) -> Outcome:
    """A version is too small or too large. The row stays if it is not the one: what grew may shrink again."""
    conflicts.close_clash(served, path)
    if base is not None and not served.filters.keeps(base):
        forget(served, base, local)
    return DONE


def _held_back(
    served: Served, path: bytes, base: Base | None, local: Local | None, remote: Remote | None
) -> Outcome | None:
    """What a filter says of the versions now that all of them are known."""
    filters, now_ns = served.filters, served.shared.now_ns()
    if filters.leaves_out(base, local, remote):
        return _leave_size(served, path, base, local)
    if filters.is_too_old(base, local, remote, now_ns):
        conflicts.close_clash(served, path)
        return DONE
    until_ns = filters.young_until_ns(base, local, remote)
    if until_ns is not None and until_ns > now_ns:
        return Outcome(Next.LATER, "younger than --min-age", until_ns=until_ns)
    return None


async def _moved_here(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """A rename to this path left something to be done first, which is done now."""
    move = served.shared.catalog.moves.get(served.id, path)
    if move is not None and await moves.settle(served, move, base, local):
        return True
    if await moves.settle_source(served, path, base, local):
        return True
    owner = renames.foreign_source(served, base, local) or renames.unnameable_source(served, path, base, local)
    if owner is None or local is None:
        return False
    await importer.load_moved(served, path, local, owner)
    return True


_UNCHECKED = QUIET | {Verdict.LOST, Verdict.DAMAGED, Verdict.BLOCKED}
"""Nothing is done to either side, so no executor looks whether the state still is the one that was judged."""


def _moved_on(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """Row or file changed while the repository was asked: a file may have been loaded meanwhile, and the verdict's row
    would undo what was written of that."""
    if served.shared.catalog.files.get(served.id, path) != base:
        return True
    now = served.shared.tree.identify(served.tree_path(path))
    if local is None:  # also where the row is a directory's and a file stands there, or the other way round
        return now is not None and (base is None or (now.kind is Kind.DIRECTORY) == (base.kind is Kind.DIRECTORY))
    if local.kind is Kind.DIRECTORY and now is not None:  # its size and times move with what is put into it
        return (now.kind, now.ino, now.mode, now.uid, now.gid) != (
            local.kind,
            local.ino,
            local.mode,
            local.uid,
            local.gid,
        )
    return not local.same_state(now)


async def _see_remote(
    served: Served, path: bytes, base: Base | None, local: Local | None, *, hinted: bool
) -> tuple[Remote | None, bool]:
    """The object at the path as far as this look needs it. Also: whether its other form (``a``, ``a/``) waits.

    Where a conditional request will check it anyway (a new file, a delete), the row's knowledge is enough.
    """
    if not hinted:
        delta = local_delta(base, local)
        if base is None and (local is None or local.stub is None):
            return None, False
        if base is not None and (delta in {Delta.SAME, Delta.GONE} or (delta is Delta.META and base.is_implied)):
            return base_as_remote(base), False
    directory_first = (base.kind if base else local.kind if local else Kind.FILE) is Kind.DIRECTORY
    kinds = [Kind.DIRECTORY, Kind.FILE] if directory_first else [Kind.FILE, Kind.DIRECTORY]
    remote = await served.store.head(served.key(path, kinds[0]))
    if remote is not None:
        return remote, hinted and base is not None and local is None
    if base is not None:
        return None, hinted and not base.is_implied
    if local is not None:
        return None, False  # the other form is no version of what stands here (`_refuse_other_form`)
    return await served.store.head(served.key(path, kinds[1])), False


async def _refuse_other_form(served: Served, path: bytes, local: Local | None, *, is_new: bool, is_clash: bool) -> None:
    """Of the keys ``a`` and ``a/`` only one can be in the tree. A directory may have an object ``a`` beside it at any
    time; that a file has a marker beside it is worth a request only where it is new or somebody saw one.

    Raises:
        TypeClash: there are both.
    """
    has_marker = is_clash or path in served.markers_beside_files
    if local is None:
        # It was imported this moment: a file before a marker, which is looked for only if there is no file.
        local = served.shared.tree.identify(served.tree_path(path)) if has_marker else None
        if local is None or local.kind is Kind.DIRECTORY:
            served.markers_beside_files.discard(path)
            return
    is_directory = local.kind is Kind.DIRECTORY
    if not is_directory and not is_new and not has_marker:
        return
    remote = await served.store.head(served.key(path, Kind.FILE if is_directory else Kind.DIRECTORY))
    served.markers_beside_files.discard(path)  # not before: who failed to ask asks again
    if remote is None or takes_no_part(served, path, None, None, remote):
        conflicts.close_clash(served, path)
    else:
        _refuse(served, path, local, remote)


def _refuse(served: Served, path: bytes, local: Local, remote: Remote) -> NoReturn:
    conflicts.note_clash(served, path, remote)
    raise TypeClash(
        f"sync of {shown(served, path)}", f"{local.kind.value} in the tree, {remote.kind.value} in the repository"
    )


def _worth_comparing(base: Base | None, local: Local | None, remote: Remote | None) -> bool:
    """Both sides may hold equal bytes: a crash between upload and row, or data that was on both sides before."""
    if local is None or remote is None or local.stub is not None or local.kind is not remote.kind:
        return False
    if local.kind is Kind.DIRECTORY:
        return False
    if base is None:
        return True
    changed = local_delta(base, local) is Delta.CONTENT
    return changed and (base.released or (remote.etag, remote.size) != (base.etag, base.remote_size))


async def _compare(served: Served, path: bytes, local: Local, remote: Remote) -> tuple[bool | None, Local]:
    if local.kind is Kind.SYMLINK:
        key = served.key(path, Kind.SYMLINK)
        body = await served.store.get(key, etag=remote.etag, limit=importer.SYMLINK_LIMIT)
        return body == local.target, local
    known, digest = await trio.to_thread.run_sync(same_bytes, served.shared.tree, served.tree_path(path), local, remote)
    return known, local._replace(content_hash=digest) if digest is not None else local
