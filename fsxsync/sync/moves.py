"""What a crash in the middle of a rename leaves behind, and how it is found again.

A file that is uploaded is written down too, though not up to the disk: it may be renamed or removed while nobody
serves, and what stands under its old name would come back as if somebody had put it there.

So is an object that is copied onto itself for other metadata (`describing`).

  begin    what is to be copied is written down, and on the disk            a crash here: nothing was asked for
  (copy)   the store copies                                                 here, or while the answer is on its way:
  finish   a HEAD shows the copy, and one transaction writes the new          `settle` finds the copy, knows it by the
           path's row, forgets the note and hints at the old path             note, and writes the row
  (look)   the old key is deleted, if it still is what was copied           here: row and file say so again

From then on the row says what the copy is, also where its file has moved on meanwhile: what nobody needs any more is
deleted as everything else is, and no copy comes back as if somebody had put it.
"""

from __future__ import annotations

from dataclasses import replace

import trio

from fsxsync.errors import LocalChanged, ObjectChanged
from fsxsync.model.association import Lifecycle
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote, base_of
from fsxsync.model.move import Move
from fsxsync.ports import Written
from fsxsync.sync.carrying import as_carried
from fsxsync.sync.digests import same_bytes
from fsxsync.sync.exporter import as_stored, posix_of, remark
from fsxsync.sync.journal import shown
from fsxsync.sync.reconcile import Action, Verdict
from fsxsync.sync.served import Served

KEPT_NS = 24 * 3600 * 10**9
"""How long a note is kept of a copy that nobody finds: the store may still be at it. A note costs a HEAD a start."""


async def begin(
    served: Served,
    path: bytes,
    local: Local,
    source: bytes,
    expect: Remote,
    *,
    posix: Posix,
    content_hash: bytes | None = None,
) -> Move:
    """Write down that the object of ``source``, which is ``expect``, is copied for the file at ``path``, with that
    metadata."""
    shared = served.shared
    as_read = expect._replace(posix=as_stored(Kind.FILE, posix, served.key(path, Kind.FILE)), posix_known=True)
    row = base_of(served.id, path, local, as_read, content_hash=content_hash)
    move = Move(source=source, row=row, started_ns=shared.now_ns())
    shared.catalog.moves.put(move)
    await trio.to_thread.run_sync(shared.catalog.bring_to_disk)
    return move


def uploading(served: Served, path: bytes, action: Action) -> None:
    """Write down that what stands at the path is uploaded; the row that follows takes the note away."""
    local = action.local
    assert local is not None
    size = local.size if local.kind is Kind.FILE else len(local.target or b"")
    told, had = _told_and_had(served, path, action)
    remote = Remote(local.kind, etag="", size=size, last_modified_ns=0, posix=told)
    row = base_of(served.id, path, local, remote)
    served.shared.catalog.moves.put(Move(source=path, row=row, started_ns=served.shared.now_ns(), had=had))


def describing(served: Served, base: Base, action: Action) -> None:
    """Write down that the row's object gets other metadata, by a copy onto itself: that may have another ETag, by which
    nobody would know it for the same content. The row that follows takes the note away."""
    local = action.local
    assert local is not None
    told, had = _told_and_had(served, base.path, action)
    row = base._replace(posix=told, posix_known=True, mode=local.mode, uid=local.uid, gid=local.gid)
    if local.kind is Kind.DIRECTORY:
        row = row._replace(mtime_ns=local.mtime_ns)  # one that somebody set is among what the object is told
    served.shared.catalog.moves.put(Move(source=base.path, row=row, started_ns=served.shared.now_ns(), had=had))


def _told_and_had(served: Served, path: bytes, action: Action) -> tuple[Posix, Posix | None]:
    """What the object is told of the file, and, where that is more than the file has, what this would be."""
    local, base = action.local, action.base
    assert local is not None
    key = served.key(path, local.kind)

    def stored(posix: Posix) -> Posix:
        if posix.xattrs is None and base is not None and action.verdict is Verdict.EXPORT_META:
            posix = posix._replace(xattrs=base.posix.xattrs)  # the copy leaves those of the object
        return as_stored(local.kind, posix, key)

    told = stored(posix_of(action))
    return told, stored(posix_of(replace(action, posix=None))) if action.posix is not None else None


async def settle_source(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """A released file was renamed to the path while its object got other metadata, which may have given that another
    ETag: by the old one, which the mark names, nobody would know it any more. True if that is settled now.

    Raises:
        LocalChanged: who asked for it is still at it. RepositoryError.
    """
    catalog, tree = served.shared.catalog, served.shared.tree
    mark = local.stub if local is not None else None
    if local is None or mark is None or (base is not None and base.etag == mark.etag):
        return False
    for row in catalog.files.by_inode(local.ino):
        move = catalog.moves.get(served.id, row.path) if row.association == served.id else None
        if move is None or not move.is_description or row.path == path or row.etag != mark.etag:
            continue
        here = tree.identify(served.tree_path(row.path))
        if here is not None and here.ino == row.ino:
            continue  # that is another name of it
        if await _settle_described(served, move, row, here, moved_to=served.tree_path(path)):
            return True
        if catalog.changelog.count_under(served.id, row.path):
            raise LocalChanged(
                f"rename to {shown(served, path)}", f"the metadata of {shown(served, row.path)} are being changed"
            )
    return False


async def _settle_described(
    served: Served, move: Move, base: Base | None, local: Local | None, moved_to: bytes | None = None
) -> bool:
    """The object's metadata may have been changed. True if it was, which is in the row now: its content is what it was,
    whatever the file has become meanwhile. With ``moved_to``, where its file is, they may be changed just now."""
    key = served.key(move.path, move.row.kind)
    is_known = base is not None and base.etag == move.row.etag
    seen = as_carried(served, await served.store.head(key)) if is_known else None
    if base is None or seen is None or not move.made(seen):
        if moved_to is None:
            forget(served, move)
        return False
    if seen.etag != base.etag and not await _is_of_what_was_known(served, base, local, seen):
        forget(served, move)
        return False  # it is somebody's, as far as anybody can tell, and comes in as such
    served.expect_echo(key, seen.etag)
    if local is not None and local.stub is not None and local.stub.etag == base.etag:
        remark(served, move.path, local, replace(local.stub, etag=seen.etag, version_id=seen.version_id, key=key))
    elif base.released and seen.etag != base.etag and (local is None or local.ino != base.ino):
        await _remark_moved(served, base, key, seen, moved_to)
    # Mode and owner as the object got them: what was set since, or set back, is a change to be exported.
    row = base._replace(mode=move.row.mode, uid=move.row.uid, gid=move.row.gid)
    if base.kind is Kind.DIRECTORY:
        row = row._replace(mtime_ns=move.row.mtime_ns)
    _write(served, move, row.with_remote(move.known(seen)))
    return True


async def _remark_moved(served: Served, base: Base, key: str, seen: Remote, moved_to: bytes | None) -> None:
    """Let the row's stub, wherever it was renamed to, stand for ``seen``: else it would be lost when the old name goes.

    Raises:
        LocalChanged: nobody knows yet where it is.
    """
    shared = served.shared
    tree_paths = [moved_to] if moved_to is not None else await _found_again(served, base)
    for tree_path in tree_paths:
        local = shared.tree.identify(tree_path)
        mark = local.stub if local is not None and local.ino == base.ino else None
        if local is not None and mark is not None and (mark.etag, mark.key) == (base.etag, key):
            shared.tree.remark(tree_path, local, replace(mark, etag=seen.etag, version_id=seen.version_id))
            return


async def _found_again(served: Served, base: Base) -> list[bytes]:
    """Where in the tree the row's file may be now."""
    shared = served.shared
    await shared.take_in_tree()
    if shared.expanding or any(not_seen_yet(other, served) for other in shared.served.values()):
        raise LocalChanged(f"rename of {shown(served, base.path)}", "a directory is being looked through")
    hints = shared.catalog.changelog.by_inode(base.ino)
    found = [there.tree_path(hint.path) for hint in hints if (there := shared.served.get(hint.association)) is not None]
    return [path for path in (*found, await shared.outside.path_of(base.ino)) if path]


def not_seen_yet(served: Served, asking: Served) -> bool:
    """A file may have moved there while nobody watched. An association that can't be served holds up no other."""
    return not served.scanned and (served is asking or served.association.lifecycle is Lifecycle.AVAILABLE)


async def _is_of_what_was_known(served: Served, base: Base, local: Local | None, seen: Remote) -> bool:
    """Our copy onto itself copied the version that the row knows, and not one that somebody put there right before."""
    if served.store.conditions.copy_source_if_match or base.version_id is not None or base.kind is not Kind.FILE:
        return True
    if local is None or local.stub is not None:
        return False
    if (local.ino, local.size, local.mtime_ns) != (base.ino, base.size, base.mtime_ns):
        return False
    tree, tree_path = served.shared.tree, served.tree_path(base.path)
    known, _ = await trio.to_thread.run_sync(same_bytes, tree, tree_path, local, seen)
    return known is True


async def finish(served: Served, move: Move, local: Local, written: Written) -> Base:
    """The copy was answered: look at it, and write the new path's row.

    Raises:
        ObjectChanged: what is there is another object. LocalChanged. RepositoryError.
    """
    key = served.key(move.path, Kind.FILE)
    served.expect_echo(key, written.etag)
    seen = as_carried(served, await served.store.head(key))
    if seen is None or (seen.etag, seen.size) != (written.etag, move.row.remote_size):
        raise ObjectChanged(f"rename to {key}", "what came of the copy is another object")
    served.counts.exported += 1
    served.counts.renamed += 1
    copied = move.row.posix if move.row.posix.xattrs is not None else move.row.posix._replace(xattrs=seen.posix.xattrs)
    if seen.posix != copied:  # somebody described it anew since: a change to be imported, and not what we made
        seen = seen._replace(posix=copied)
        served.add_hint(move.path, remote=True)
    return _record(served, move, local, seen, move.row.content_hash)


async def settle(served: Served, move: Move, base: Base | None, local: Local | None) -> bool:
    """A note was left behind. True if its object is there, which is in the path's row now.

    Raises:
        LocalChanged. RepositoryError.
    """
    if move.is_description:
        return await _settle_described(served, move, base, local)
    row = move.row
    is_same = local is not None and (local.kind, local.ino, local.size, local.mtime_ns) == (
        row.kind,
        row.ino,
        row.size,
        row.mtime_ns,
    )
    if is_same and not move.is_copy and local is not None and local.ctime_ns == row.ctime_ns:
        return False  # file and object can be compared, byte for byte
    seen = as_carried(served, await served.store.head(served.key(move.path, move.row.kind)))
    if seen is None or not move.made(seen) or (base is not None and base.etag == seen.etag):
        return False
    served.expect_echo(served.key(move.path, move.row.kind), seen.etag)  # the crash may have come before its event
    digest = row.content_hash
    if is_same and not move.is_copy and local is not None:
        # If it still is what was put: mode, owner or attributes were set since, and not by whoever put the object.
        is_same = local.target == row.target
        if local.kind is Kind.FILE:
            tree, tree_path = served.shared.tree, served.tree_path(move.path)
            known, digest = await trio.to_thread.run_sync(same_bytes, tree, tree_path, local, seen)
            is_same = known is True
    if is_same and local is not None:
        _record(served, move, local, move.known(seen), digest)
    else:  # the file was changed, or has moved on: the next look sees how
        _write(served, move, row.with_remote(move.known(seen)))
    return True


def _record(served: Served, move: Move, local: Local, seen: Remote, content_hash: bytes | None) -> Base:
    """``local`` is the file that the object was made for."""
    row = move.row
    mark = local.stub
    if mark is not None and mark.etag == row.etag:
        key = served.key(move.path, Kind.FILE)
        local = remark(served, move.path, local, replace(mark, etag=seen.etag, version_id=seen.version_id, key=key))
    made = base_of(served.id, move.path, local, seen, content_hash=content_hash)
    # Mode and owner as the object got them: what was set since is a change to be exported.
    made = made._replace(mode=row.mode, uid=row.uid, gid=row.gid)
    _write(served, move, made)
    return made


def _write(served: Served, move: Move, row: Base) -> None:
    catalog = served.shared.catalog
    with catalog.transaction():
        catalog.files.put(row)
        catalog.moves.delete(served.id, move.path)
        if move.is_copy:
            served.add_hint(move.source, local=True)
        if move.had is not None:
            served.add_hint(move.path, remote=True)


def forget(served: Served, move: Move) -> None:
    """There is no copy of ours, for certain."""
    served.shared.catalog.moves.delete(served.id, move.path)


def look_again(served: Served) -> None:
    """At a start: every object that may have been written is looked for."""
    for move in served.shared.catalog.moves.all(served.id):
        served.add_hint(move.path, local=True, remote=True, ino=move.row.ino)
        if move.is_copy:
            served.add_hint(move.source, local=True)


def under_way(served: Served, base: Base) -> bool:
    """The row's object is being copied, or somebody is about to find out whether it was."""
    shared = served.shared
    found = shared.catalog.moves.of_source(served.id, base.path)
    return any(move.is_copy and shared.catalog.changelog.count_under(served.id, move.path) for move in found)


def stands_for(served: Served, move: Move) -> bool:
    """A released file at the new path has its data in the old path's object only."""
    local = served.shared.tree.identify(served.tree_path(move.path))
    return local is not None and local.stub is not None and local.stub.etag == move.row.etag


def needing(served: Served, base: Base) -> bytes | None:
    """Where a released file is whose copy could not be made, so that the row's object must stay."""
    for move in served.shared.catalog.moves.of_source(served.id, base.path):
        if move.row.etag == base.etag and stands_for(served, move):
            return move.path
    return None


def forget_old(served: Served) -> None:
    """Drop the notes of what was never written."""
    shared = served.shared
    for move in shared.catalog.moves.all(served.id):
        is_old = shared.now_ns() - move.started_ns >= KEPT_NS
        if is_old and not stands_for(served, move) and not shared.catalog.changelog.count_under(served.id, move.path):
            forget(served, move)
