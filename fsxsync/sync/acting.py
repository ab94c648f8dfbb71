"""What a verdict does: its executor, the row that is written afterwards, and what is left for another look."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from fsxsync.errors import ObjectArchived, ObjectChanged
from fsxsync.model.association import Policy
from fsxsync.model.identity import Base, Kind, Local, Remote, base_of
from fsxsync.model.open_conflict import ConflictKind
from fsxsync.model.stub import StubMark
from fsxsync.sync import conflicts, exporter, importer, moves, releaser, renames
from fsxsync.sync.journal import HELD, forget_problems, is_clash, let_go, record_action, record_problem, shown
from fsxsync.sync.loading import object_of
from fsxsync.sync.reconcile import QUIET, Action, Verdict
from fsxsync.sync.served import Served


class Next(enum.Enum):
    """What becomes of the changelog entry."""

    DONE = "done"
    AGAIN = "look again at once"
    LATER = "not now: something else has to happen first"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``remote`` asks that the next look reads the repository; ``reason`` is shown as what the path waits for,
    ``until_ns`` is how long at least."""

    next: Next
    reason: str = ""
    until_ns: int = 0
    remote: bool = False
    local: bool = False


DONE = Outcome(Next.DONE)
LOST = "the object of a released file is gone"
_ENDS = frozenset({"lost", "damaged", "conflict", "not-exportable", HELD})
"""Kinds of problems of which a look that comes to a verdict leaves one at most."""


async def _export(served: Served, path: bytes, action: Action) -> Outcome:
    base, local = action.base, action.local
    assert local is not None
    if local.stub is None:
        exporter.exported_key(served, path, local.kind)  # neither uploaded nor copied to where it may not be
    if base is not None and base.released and await _is_brought_along(served, base, local):
        return Outcome(Next.AGAIN, local=True)
    needed = renames.needed_at(served, base) if base is not None and not _is_overwritten(base, action.remote) else None
    if needed is not None:
        if not renames.is_circle(served, path):
            return Outcome(Next.LATER, f"the object is still to be copied to {shown(served, needed.path)}")
        if local.stub is not None:
            return await _load_moved(served, path, local)
        if needed.is_stub:
            return Outcome(Next.LATER, f"the object is still to be loaded to {shown(served, needed.path)}")
    if local.stub is not None and local.size != local.stub.size:
        return await _load_moved(served, path, local)  # cut by somebody whose daemon died before the mark went
    if local.stub is not None:
        await renames.export_stub(served, path, action)
        return DONE
    # Not in a circle: what is copied there may be overwritten meanwhile, and not every store looks at the source.
    source = await renames.source_of(served, path, local) if needed is None and action.posix is None else None
    if source is not None and await renames.export_rename(served, path, local, source, replaces=action.remote):
        return DONE
    moves.uploading(served, path, action)
    record(served, await exporter.export(served, path, action))
    return DONE


async def _is_brought_along(served: Served, base: Base, local: Local) -> bool:
    """What stood at the path was released, and its object is overwritten now: as for a delete, its data may have moved
    on, unseen. True if it had, to where nobody else looks, and is there now."""
    await served.shared.take_in_tree()
    return base.ino != local.ino and await importer.load_astray(served, base)


def _is_overwritten(base: Base, remote: Remote | None) -> bool:
    """By somebody else: whoever needed the object that the row knows can't have it from there any more."""
    return remote is not None and (remote.etag, remote.size) != (base.etag, base.remote_size)


async def _load_moved(served: Served, path: bytes, local: Local) -> Outcome:
    await importer.load_moved(served, path, local, served)
    return Outcome(Next.AGAIN, local=True)


async def _export_delete(served: Served, path: bytes, action: Action) -> Outcome:
    assert action.base is not None
    if action.base.released:
        # What set this look off may be faster than what tells where the file is now, and its data is nowhere else.
        await served.shared.take_in_tree()
    hints = renames.hints_of(served, action.base)
    held = renames.may_delete(served, action.base)
    if not held and action.base.released:
        await served.shared.take_in_tree()
        if renames.hints_of(served, action.base) != hints:
            held = "the file was renamed meanwhile"  # perhaps to where it was looked for a moment before
    if held:
        return Outcome(Next.LATER, held)
    if (needing := moves.needing(served, action.base)) is not None:
        raise ObjectArchived(
            f"delete of {shown(served, path)}",
            f"the released file at {shown(served, needing)} has its data nowhere else",
        )
    if action.base.released and await importer.load_astray(served, action.base):
        return Outcome(Next.AGAIN, local=True)
    await exporter.export_delete(served, path, action)
    return DONE


def _not_yet(served: Served, action: Action) -> str:
    """'' if the action may be taken; else what has to be seen before anything is deleted."""
    if action.verdict is Verdict.IMPORT_DELETE and not served.listing_believed:
        return "the listing is to be read first"
    if action.verdict is Verdict.EXPORT_DELETE and not served.tree_believed:
        return "the tree is to be scanned first"
    return ""


async def act(served: Served, path: bytes, action: Action, policy: Policy, *, seen: bool) -> Outcome:  # noqa: C901, PLR0912, PLR0915
    """Carry a verdict out; ``seen``: the action's object was read, and is not what the row knows. Raises what its
    executor raises."""
    base, local, remote = action.base, action.local, action.remote
    kept: bytes | None = None
    again = DONE
    if held := _not_yet(served, action):
        return Outcome(Next.LATER, held)
    match action.verdict:
        case Verdict.NOTHING:
            if local is None:
                if action.suppressed is None or not conflicts.still_clashes(served, path):
                    forget_problems(served, path)
            elif action.suppressed is None:
                let_go(served, path, seen=seen)
            elif action.suppressed is Verdict.EXPORT_META:
                _same_bytes(served, action)
            if action.suppressed is Verdict.IMPORT_DELETE and local is not None and local.stub is not None:
                await _report_lost(served, path, local.stub)
            return DONE
        case Verdict.FORGET:
            exporter.forget_gone(served, path)
            forget_problems(served, path)
            return DONE
        case Verdict.REFRESH:
            action = _with_version(served, path, action)
            record(served, releaser.finished(served, path, action.base, refreshed(action), action.local))
            let_go(served, path, seen=seen)
            return DONE
        case Verdict.ADOPT:
            again = _adopt(served, path, action)
        case Verdict.EXPORT | Verdict.MERGE_EXPORT:
            again = await _export(served, path, action)
            if again.next is not Next.DONE:
                return again
        case Verdict.EXPORT_META:
            if base is not None and base.etag and remote is not None:
                moves.describing(served, base, action)
            else:  # a directory that its keys alone made gets a marker
                moves.uploading(served, path, action)
            record(served, await exporter.export_metadata(served, path, action))
        case Verdict.EXPORT_DELETE:
            again = await _export_delete(served, path, action)
            if again.next is not Next.DONE:
                return again
        case Verdict.IMPORT:
            record(served, await importer.import_object(served, path, action))
        case Verdict.MERGE_IMPORT:
            row = await importer.import_object(served, path, action)
            # Where the object says nothing the base does: the mode that was set here is a change to be exported.
            record(served, as_remote_says(served, row, base or row), again=True)
            again = Outcome(Next.AGAIN, local=True)
        case Verdict.IMPORT_META:
            row = await importer.import_metadata(served, path, _with_version(served, path, action))
            if action.conflict:  # field by field: what only we changed stays, and is a change to be exported
                row, again = as_remote_says(served, row, base or row), Outcome(Next.AGAIN, local=True)
            record(served, row, again=again.next is Next.AGAIN)
        case Verdict.IMPORT_DELETE:
            await importer.import_delete(served, path, action)
        case Verdict.KEEP_BOTH:
            row, kept = await importer.keep_both(served, path, action)
            record(served, row)
            # With the inode: a stub's object must stay until it was copied to the new name (`renames.may_delete`).
            ino = local.ino if local is not None else None
            served.add_hint(kept, local=True, ino=ino, delay_s=served.shared.settings.export_delay_s)
        case Verdict.LOST:
            assert local is not None
            return await _lost(served, path, local, policy)
        case Verdict.DAMAGED:
            _report(
                served,
                path,
                "damaged",
                "a released file lost its mark or was written behind the mount; it is not exported",
                "S3ExportLocalObjectReleaseWithoutS3Source",
            )
            return DONE
        case Verdict.BLOCKED:
            conflicts.note(served, path, ConflictKind.BLOCKED, local, remote)
            _report(served, path, "conflict", "both sides changed and the policy lets neither move", "Conflict")
            return DONE
        case _:  # CONFLICT and META_CONFLICT never leave reconcile
            raise ObjectChanged(f"sync of {shown(served, path)}", f"undecided: {action.verdict}")
    if action.verdict not in QUIET:
        record_action(served, path, action, kept, again=again.next is Next.AGAIN)
    elif remote is not None:
        forget_problems(served, path, same_bytes=local is not None and local.stub is not None)
    return again


async def _report_lost(served: Served, path: bytes, mark: StubMark | None) -> Remote | None:
    """A bucket that keeps versions may have the one that the stub stands for: that is returned, and nothing is lost."""
    version = await object_of(served.store, mark) if mark is not None and mark.version_id is not None else None
    if version is not None:
        served.shared.catalog.problems.clear(served.id, path, ["lost"])
    else:
        _report(served, path, "lost", LOST, "S3ObjectNotFound")
    return version


async def _lost(served: Served, path: bytes, local: Local, policy: Policy) -> Outcome:
    """A stub of no object that is known here, and whose own is gone. If its version can be read, it is a new file."""
    version = await _report_lost(served, path, local.stub)
    if version is None or version.archived or not policy.exports:
        return DONE
    return await _load_moved(served, path, local)


def _report(served: Served, path: bytes, kind: str, message: str, code: str) -> None:
    """What a look ends with instead of an action; it takes the place of what another one ended with."""
    catalog = served.shared.catalog
    catalog.problems.clear(served.id, path, _ENDS - {kind})
    if kind != "conflict" and not is_clash(served, path):
        catalog.conflicts.delete(served.id, path)
    record_problem(served, path, kind, message, code)


def record(served: Served, row: Base, *, again: bool = False) -> None:
    """Write down what both sides are now. ``again``: that they are to be looked at once more goes with it, as no scan
    would find all that differs (extended attributes)."""
    catalog = served.shared.catalog
    with catalog.transaction():
        catalog.files.put(row)
        if again:
            served.add_hint(row.path, local=True)
        catalog.moves.delete(served.id, row.path)  # of a copy that was not made


def _with_version(served: Served, path: bytes, action: Action) -> Action:
    """Tell a stub from a listing, which names no versions, which one it stands for: it is read to its end from then on,
    also when another one is put over it."""
    local, remote = action.local, action.remote
    mark = local.stub if local is not None else None
    if local is None or mark is None or remote is None or remote.version_id is None:
        return action
    if mark.etag != remote.etag or mark.version_id == remote.version_id:
        return action
    if mark.key != served.key(path, Kind.FILE):
        return action  # one mark for several names (links.py): a version of another name's object
    told = exporter.remark(served, path, local, replace(mark, version_id=remote.version_id))
    return replace(action, local=told)


def refreshed(action: Action) -> Base:
    """The row with both sides as seen now; content and metadata are known to be the same."""
    base = action.base
    assert base is not None
    if action.local is not None:
        base = base.with_local(action.local)
    if action.remote is not None:
        base = base.with_remote(action.remote)
    return base


def _same_bytes(served: Served, action: Action) -> None:
    """A change of mode or owner that may not be exported moved ctime; the bytes were read, and are the row's. Without
    this they would pass for changed (`states`), and be read again at each look."""
    base, local = action.base, action.local
    if base is None or local is None or local.content_hash is None or local.content_hash != base.content_hash:
        return
    record(served, base.with_local(local._replace(mode=base.mode, uid=base.uid, gid=base.gid)))


def as_remote_says(served: Served, row: Base, before: Base) -> Base:
    """The row with the object's metadata on its local side, and that of ``before`` where the object has none, or its
    owner is not taken: what the tree has beyond that is a local change."""
    says = row.posix if served.takes_owners else row.posix._replace(uid=None, gid=None)
    return row._replace(
        mode=says.mode if says.mode is not None else before.mode,
        uid=says.uid if says.uid is not None else before.uid,
        gid=says.gid if says.gid is not None else before.gid,
    )


def _adopt(served: Served, path: bytes, action: Action) -> Outcome:
    """Equal bytes on both sides: write the row. Metadata is brought together as the policy says."""
    local, remote = action.local, action.remote
    assert local is not None
    assert remote is not None
    if action.posix is not None and remote.posix_known:
        local = exporter.set_metadata(served, path, local, served.applied(action.posix))
    if local.stub is not None:
        key = served.key(path, Kind.FILE)
        mark = replace(local.stub, etag=remote.etag, version_id=remote.version_id, key=key)
        local = exporter.remark(served, path, local, mark)
    row = base_of(
        served.id,
        path,
        local,
        remote,
        content_hash=action.local.content_hash if action.local else None,
    )
    # As for new content: a crash may have come between that and its row.
    told = as_remote_says(served, row, action.base or row)
    if local.kind is Kind.DIRECTORY and remote.posix.mtime_ns is not None:
        told = told._replace(mtime_ns=remote.posix.mtime_ns)  # one that somebody set here is still to be exported
    mine = action.posix.xattrs if action.posix is not None else None
    is_told = mine is None or not remote.posix_known or mine == (remote.posix.xattrs or "")
    again = told != row or not is_told
    record(served, told, again=again)
    return Outcome(Next.AGAIN, local=True) if again else DONE
