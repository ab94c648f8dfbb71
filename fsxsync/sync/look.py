"""One hint, one look: identify, reconcile, act, record. Start reading the engine here.

hint (association, path)
  -> base from the catalog, local from the tree, remote from the repository
  -> reconcile(base, local, remote, policy): one verdict
  -> its executor, which must find that state again or raise LocalChanged / ObjectChanged
  -> the new base, or a later look
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import ObjectArchived, ObjectChanged, TypeClash
from fsxsync.model.identity import Base, Kind, Local, Remote, base_of
from fsxsync.sync import exporter, importer, moves, renames
from fsxsync.sync.carrying import as_carried, with_xattrs
from fsxsync.sync.digests import content_hash, same_bytes
from fsxsync.sync.excluded import forget, is_left_out
from fsxsync.sync.journal import forget_problems, record_action, record_problem
from fsxsync.sync.leaving import leave
from fsxsync.sync.reconcile import QUIET, Action, Delta, Verdict, local_delta, needs_digest, reconcile
from fsxsync.sync.renames import base_as_remote
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


async def look(served: Served, entry: Entry) -> Outcome:
    """Handle one hint.

    Raises:
        LocalChanged, ObjectChanged: the state moved between decision and deed: look again.
        NotExportable, TypeClash, KeyRefused: a person decides. RepositoryError, NoSpace: try again later.
    """
    shared, path = served.shared, entry.path
    base = shared.catalog.files.get(served.id, path)
    local = shared.tree.identify(served.tree_path(path))
    if is_left_out(served, path, base, local):  # also where it was let through when the hint came
        await leave(served, path, base, local)
        return DONE
    if local is not None and local.kind is not Kind.DIRECTORY and shared.is_written(local.ino):
        return Outcome(Next.LATER, "open for writing")
    if (
        base is not None
        and base.released
        and local is not None
        and local.stub is None
        and local.ino in shared.hydrating
    ):
        return Outcome(Next.LATER, "being loaded")  # its mark went a moment ago, and its row is about to follow
    if base is None and local is not None and local.kind is Kind.OTHER:
        raise_not_exportable(served, path)
    if base is not None and local is not None and (base.kind is Kind.DIRECTORY) != (local.kind is Kind.DIRECTORY):
        # File here, directory there: the old key goes first, then the path is new.
        outcome = await _settle(served, path, base, None, entry)
        return replace(outcome, local=True, next=Next.AGAIN) if outcome.next is Next.DONE else outcome
    outcome = await _settle(served, path, base, local, entry)
    if base is None and outcome.next is Next.DONE and _vanished(served, path):
        return Outcome(Next.AGAIN, local=True)
    return outcome


def _vanished(served: Served, path: bytes) -> bool:
    """There is a row now, and no file any more: it was removed while nothing knew of the path, and so nobody was told.

    No await between this and the writing of the row: whoever removes it from now on makes a hint that finds the row.
    """
    if served.shared.catalog.files.get(served.id, path) is None:
        return False
    return served.shared.tree.identify(served.tree_path(path)) is None


def raise_not_exportable(served: Served, path: bytes) -> None:
    """Raise what keeps a special file local."""
    exporter.exported_key(served, path, Kind.OTHER)


async def _settle(served: Served, path: bytes, base: Base | None, local: Local | None, entry: Entry) -> Outcome:
    shared = served.shared
    if await _moved_here(served, path, base, local):
        return Outcome(Next.AGAIN, local=True, remote=entry.remote)
    hinted = entry.remote or entry.attempts > 0  # after a failure the row's knowledge is no longer enough
    if served.filters.leaves_out(base, local, None):
        return _leave_size(served, base, local)
    if base is None and local is not None and not hinted and await _follow(served, path, local):
        return DONE
    remote, other_form = await _see_remote(served, path, base, local, hinted=hinted)
    remote = as_carried(served, remote)
    if local is not None and remote is not None and (local.kind is Kind.DIRECTORY) != (remote.kind is Kind.DIRECTORY):
        raise TypeClash(f"sync of {path!r}", f"{local.kind.value} in the tree, {remote.kind.value} in the repository")
    known: bool | None = None
    if local is not None:
        local = await _read_closer(served, path, base, local)
    if _worth_comparing(base, local, remote):
        assert local is not None
        assert remote is not None
        known, local = await _compare(served, path, local, remote)
    if (held := _held_back(served, base, local, remote)) is not None:
        return held
    moved = await renames.is_moved_stub(served, path, base, local)
    action = reconcile(base, local, remote, served.association.policy, same_bytes=known, moved=moved)
    if action.verdict in _UNCHECKED and _moved_on(served, path, base, local):
        return Outcome(Next.AGAIN, local=True, remote=hinted)
    outcome = await _act(served, path, action)
    if other_form and outcome.next is Next.DONE and shared.catalog.files.get(served.id, path) is None:
        return Outcome(Next.AGAIN, remote=True)
    return outcome


async def _read_closer(served: Served, path: bytes, base: Base | None, local: Local) -> Local:
    """The file with what lstat does not say, as far as it counts: its digest, its extended attributes."""
    if needs_digest(base, local):
        digest = await trio.to_thread.run_sync(content_hash, served.shared.tree, served.tree_path(path), local)
        local = replace(local, content_hash=digest)
    return with_xattrs(served, path, base, local)


async def _follow(served: Served, path: bytes, local: Local) -> bool:
    """Copy the object of a file that was renamed to this path. False if it was not, or nothing is there to copy."""
    source = await renames.source_of(served, path, local)
    if source is None or not served.association.policy.exports:
        return False
    return await renames.export_rename(served, path, local, source, replaces=None) is not None


def _leave_size(served: Served, base: Base | None, local: Local | None) -> Outcome:
    """A version is too small or too large. The row stays if it is not the one: what grew may shrink again."""
    if base is not None and not served.filters.keeps(base):
        forget(served, base, local)
    return DONE


def _held_back(served: Served, base: Base | None, local: Local | None, remote: Remote | None) -> Outcome | None:
    """What a filter says of the versions now that all of them are known."""
    filters, now_ns = served.filters, served.shared.now_ns()
    if filters.leaves_out(base, local, remote):
        return _leave_size(served, base, local)
    if filters.is_too_old(base, local, remote, now_ns):
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
        return remote, False
    if base is not None:
        return None, hinted and not base.is_implied
    return await served.store.head(served.key(path, kinds[1])), False


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
    return known, replace(local, content_hash=digest) if digest is not None else local


async def _export(served: Served, path: bytes, action: Action) -> Outcome:
    base, local = action.base, action.local
    assert local is not None
    needed = renames.needed_at(served, base) if base is not None else None
    if needed is not None:
        if not renames.is_circle(served, path):
            return Outcome(Next.LATER, f"the object is still to be copied to {needed.path!r}")
        if local.stub is not None:
            await importer.load_moved(served, path, local, served)
            return Outcome(Next.AGAIN, local=True)
        if needed.is_stub:
            return Outcome(Next.LATER, f"the object is still to be loaded to {needed.path!r}")
    if local.stub is not None:
        await renames.export_stub(served, path, action)
        return DONE
    # Not in a circle: what is copied there may be overwritten meanwhile, and not every store looks at the source.
    source = await renames.source_of(served, path, local) if needed is None and action.posix is None else None
    if source is not None and await renames.export_rename(served, path, local, source, replaces=action.remote):
        return DONE
    exporter.exported_key(served, path, local.kind)  # or it is none that could be uploaded
    moves.uploading(served, path, local, action.posix or local.posix)
    _record(served, await exporter.export(served, path, action))
    return DONE


async def _export_delete(served: Served, path: bytes, action: Action) -> Outcome:
    assert action.base is not None
    if held := renames.may_delete(served, action.base):
        return Outcome(Next.LATER, held)
    if (needing := moves.needing(served, action.base)) is not None:
        raise ObjectArchived(f"delete of {path!r}", f"the released file at {needing!r} has its data nowhere else")
    await exporter.export_delete(served, path, action)
    return DONE


async def _act(served: Served, path: bytes, action: Action) -> Outcome:  # noqa: C901, PLR0912
    files = served.shared.catalog.files
    base, local, remote = action.base, action.local, action.remote
    kept: bytes | None = None
    again = DONE
    if held := _not_yet(served, action):
        return Outcome(Next.LATER, held)
    match action.verdict:
        case Verdict.NOTHING:
            if action.suppressed is Verdict.IMPORT_DELETE and local is not None and local.stub is not None:
                record_problem(served, path, "lost", "the object of a released file is gone", "S3ObjectNotFound")
            return DONE
        case Verdict.FORGET:
            files.delete(served.id, path)
            return DONE
        case Verdict.REFRESH:
            _record(served, refreshed(action))
            return DONE
        case Verdict.ADOPT:
            again = _adopt(served, path, action)
        case Verdict.EXPORT | Verdict.MERGE_EXPORT:
            again = await _export(served, path, action)
            if again.next is not Next.DONE:
                return again
        case Verdict.EXPORT_META:
            _record(served, await exporter.export_metadata(served, path, action))
        case Verdict.EXPORT_DELETE:
            again = await _export_delete(served, path, action)
            if again.next is not Next.DONE:
                return again
        case Verdict.IMPORT:
            _record(served, await importer.import_object(served, path, action))
        case Verdict.MERGE_IMPORT:
            row = await importer.import_object(served, path, action)
            # Where the object says nothing the base does: the mode that was set here is a change to be exported.
            _record(served, as_remote_says(row, base or row))
            again = Outcome(Next.AGAIN, local=True)
        case Verdict.IMPORT_META:
            _record(served, await importer.import_metadata(served, path, action))
        case Verdict.IMPORT_DELETE:
            await importer.import_delete(served, path, action)
        case Verdict.KEEP_BOTH:
            row, kept = await importer.keep_both(served, path, action)
            _record(served, row)
            # With the inode: a stub's object must stay until it was copied to the new name (`renames.may_delete`).
            ino = local.ino if local is not None else None
            served.add_hint(kept, local=True, ino=ino, delay_s=served.shared.settings.export_delay_s)
        case Verdict.LOST:
            record_problem(served, path, "lost", "the object of a released file is gone", "S3ObjectNotFound")
            return DONE
        case Verdict.DAMAGED:
            record_problem(
                served,
                path,
                "damaged",
                "a released file lost its mark or was written behind the mount; it is not exported",
                "S3ExportLocalObjectReleaseWithoutS3Source",
            )
            return DONE
        case Verdict.BLOCKED:
            record_problem(served, path, "conflict", "both sides changed and the policy lets neither move", "Conflict")
            return DONE
        case _:  # CONFLICT and META_CONFLICT never leave reconcile
            raise ObjectChanged(f"sync of {path!r}", f"undecided: {action.verdict}")
    if action.verdict not in QUIET:
        record_action(served, path, action, kept)
    elif remote is not None:
        forget_problems(served, path)
    return again


def _not_yet(served: Served, action: Action) -> str:
    """'' if the action may be taken; else what has to be seen before anything is deleted."""
    if action.verdict is Verdict.IMPORT_DELETE and not served.listing_believed:
        return "the listing is to be read first"
    if action.verdict is Verdict.EXPORT_DELETE and not served.tree_believed:
        return "the tree is to be scanned first"
    return ""


def _record(served: Served, row: Base) -> None:
    catalog = served.shared.catalog
    with catalog.transaction():
        catalog.files.put(row)
        catalog.moves.delete(served.id, row.path)  # of a copy that was not made


def refreshed(action: Action) -> Base:
    """The row with both sides as seen now; content and metadata are known to be the same."""
    base = action.base
    assert base is not None
    if action.local is not None:
        base = base.with_local(action.local)
    if action.remote is not None:
        base = base.with_remote(action.remote)
    return base


def as_remote_says(row: Base, before: Base) -> Base:
    """The row with the object's metadata on its local side, and that of ``before`` where the object has none: what the
    tree has beyond that is a local change."""
    return replace(
        row,
        mode=row.posix.mode if row.posix.mode is not None else before.mode,
        uid=row.posix.uid if row.posix.uid is not None else before.uid,
        gid=row.posix.gid if row.posix.gid is not None else before.gid,
    )


def _adopt(served: Served, path: bytes, action: Action) -> Outcome:
    """Equal bytes on both sides: write the row. Metadata is brought together as the policy says."""
    local, remote = action.local, action.remote
    assert local is not None
    assert remote is not None
    if action.posix is not None and remote.posix_known:
        local = exporter.set_metadata(served, path, local, action.posix)
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
    told = as_remote_says(row, row)
    _record(served, told)
    forget_problems(served, path)
    return DONE if told == row else Outcome(Next.AGAIN, local=True)
