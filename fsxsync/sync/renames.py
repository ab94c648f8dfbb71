"""A rename is a copy on the server: the base's inode shows up under another path (DESIGN §6).

The new key is written before the old one is deleted: `may_delete` holds a delete back while a pending hint says
that the inode may live on elsewhere. For a stub this is no optimisation: its data is nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import NotExportable, ObjectArchived, ObjectChanged, ObjectMissing
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.keys import path_of
from fsxsync.model.move import Move
from fsxsync.sync import moves
from fsxsync.sync.carrying import as_carried
from fsxsync.sync.digests import content_hash
from fsxsync.sync.exporter import set_metadata
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.journal import shown
from fsxsync.sync.merging import merge
from fsxsync.sync.reconcile import Action
from fsxsync.sync.served import Served, Shared


def base_as_remote(base: Base) -> Remote | None:
    """The object as the row knows it: what a conditional request will hold the store to."""
    if base.etag is None:
        return None
    return Remote(
        kind=base.kind,
        etag=base.etag,
        size=base.remote_size,
        last_modified_ns=base.last_modified_ns,
        version_id=base.version_id,
        posix=base.posix,
        posix_known=base.posix_known,
        storage_class=base.storage_class,
    )


async def source_of(served: Served, path: bytes, local: Local) -> Base | None:
    """The row of the object that holds this file's bytes under another path of the association, if there is one."""
    if local.kind is not Kind.FILE or local.size == 0:
        return None
    tree = served.shared.tree
    for row in served.shared.catalog.files.by_inode(local.ino):
        if row.association != served.id or row.path == path or row.kind is not Kind.FILE or row.etag is None:
            continue
        if local.stub is not None:
            # The mark says it all; a chunk that arrives just now has moved the time for a moment.
            if local.stub.etag == row.etag and local.size == local.stub.size == row.remote_size:
                return row
            continue
        if row.size != local.size or row.mtime_ns != local.mtime_ns:
            continue
        if row.content_hash is None or row.released:
            continue
        digest = await trio.to_thread.run_sync(content_hash, tree, served.tree_path(path), local)
        if digest == row.content_hash:
            return row
    return None


def foreign_source(served: Served, base: Base | None, local: Local | None) -> Served | None:
    """The association that a released file was moved out of, behind the mount: only its store has the data."""
    if local is None or local.stub is None or (base is not None and base.etag == local.stub.etag):
        return None
    for row in served.shared.catalog.files.by_inode(local.ino):
        if row.association != served.id and row.released and row.etag == local.stub.etag:
            return served.shared.served.get(row.association)
    return None


def unnameable_source(served: Served, path: bytes, base: Base | None, local: Local | None) -> Served | None:
    """A released file was renamed to what no object can be called: its data is to be loaded before its object goes."""
    if local is None or local.stub is None or (base is not None and base.etag == local.stub.etag):
        return None
    if not isinstance(exportable_key(served, path, Kind.FILE), NotExportable):
        return None
    for row in served.shared.catalog.files.by_inode(local.ino):
        if row.association == served.id and row.released and row.etag == local.stub.etag:
            return served
    return None


async def export_rename(
    served: Served, path: bytes, local: Local, source: Base, *, replaces: Remote | None
) -> Base | None:
    """Copy the object to its new key, in place of ``replaces``; the row that was written for the new path, or None if
    there is nothing to copy any more.

    Raises:
        ObjectChanged: something else is at the new key. LocalChanged. RepositoryError.
    """
    expect = base_as_remote(source)
    assert expect is not None
    old_key, new_key = served.key(source.path, Kind.FILE), served.key(path, Kind.FILE)
    if replaces is None and await served.store.head(new_key) is not None:
        raise ObjectChanged(f"rename to {new_key}", "an object is there")  # a copy never guards its target (SERVERS.md)
    posix = source.said_of(local.posix)
    now = as_carried(served, await served.store.head(old_key)) if not source.posix_known else None
    if now is not None and _is_same(source, now):
        posix, expect = _merged(source, local, now), now
        local = set_metadata(served, path, local, served.applied(posix))
    move = await moves.begin(served, path, local, source.path, expect, posix=posix, content_hash=source.content_hash)
    try:
        return await _copy(served, move, local, posix, expect=expect, replaces=replaces)
    except ObjectMissing:
        moves.forget(served, move)
        return None
    except ObjectArchived:
        if local.stub is not None:
            raise  # its data is nowhere else
        moves.forget(served, move)
        return None  # its data is here, and is uploaded
    except ObjectChanged:
        now = as_carried(served, await served.store.head(old_key))
        if local.stub is None and not move.is_source(now):
            return None  # somebody changed the old object: it comes back there, and our bytes are uploaded
        if local.stub is not None and now is None:
            return None
        is_as_known = now is not None and now.version_id == expect.version_id and now.is_described_as(expect)
        if now is None or not move.is_source(now) or is_as_known:
            raise
    # The same bytes with other metadata: the old path's row, which would learn of it, waits for this copy.
    posix = _merged(source, local, now)
    local = set_metadata(served, path, local, served.applied(posix))
    move = await moves.begin(served, path, local, source.path, now, posix=posix, content_hash=source.content_hash)
    return await _copy(served, move, local, posix, expect=now, replaces=replaces)


def _is_same(row: Base, seen: Remote) -> bool:
    return (seen.etag, seen.size) == (row.etag, row.remote_size)


def _merged(row: Base, local: Local, seen: Remote) -> Posix:
    """What copy and file shall say: metadata that nobody changed here is the object's, also where only a listing told
    of it so far."""
    posix = merge(row, local, seen, local_wins=True)
    if row.posix_known or seen.posix.mtime_ns is None or local.mtime_ns != row.mtime_ns:
        return posix
    return posix._replace(mtime_ns=seen.posix.mtime_ns)  # the listing's time was never the file's


async def _copy(
    served: Served, move: Move, local: Local, posix: Posix, *, expect: Remote, replaces: Remote | None
) -> Base:
    """Between `moves.begin` and `moves.finish`."""
    old_key, new_key = served.key(move.source, Kind.FILE), served.key(move.path, Kind.FILE)
    written = await served.store.copy(old_key, new_key, posix, Kind.FILE, expect=expect, replaces=replaces)
    if not served.store.conditions.copy_source_if_match and written.etag != expect.etag:
        after = await served.store.head(old_key)
        if after is not None and not move.is_source(after):
            moves.forget(served, move)  # the copy may be of what came after: an object as any other
            raise ObjectChanged(f"rename to {new_key}", f"{old_key} changed while it was copied")
    return await moves.finish(served, move, local, written)


async def is_moved_stub(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """A stub that somebody renamed to this path, whose object still is under its old key."""
    mark = local.stub if local is not None else None
    if mark is None or (base is not None and mark.etag == base.etag) or mark.key == served.key(path, Kind.FILE):
        return False
    if not mark.key or not mark.key.startswith(served.association.prefix):  # no key: a mark that can't be read
        return False
    source = await served.store.head(mark.key)
    return source is not None and (source.etag, source.size) == (mark.etag, mark.size)


async def export_stub(served: Served, path: bytes, action: Action) -> Base:
    """Copy the object that a renamed stub stands for to its new key, in place of ``action.remote``; the row that was
    written.

    Raises:
        ObjectChanged: either object is another one now. LocalChanged. RepositoryError.
    """
    local = action.local
    assert local is not None
    assert local.stub is not None
    old_key = local.stub.key
    source = as_carried(served, await served.store.head(old_key))
    if source is None or (source.etag, source.size) != (local.stub.etag, local.stub.size):
        raise ObjectChanged(f"rename to {shown(served, path)}", f"{old_key} is another version now")
    old_path = path_of(old_key, served.association.prefix)[0]
    stood = served.shared.catalog.files.get(served.id, old_path)
    is_row = stood is not None and (stood.ino, stood.etag) == (local.ino, local.stub.etag)
    posix = action.posix
    if posix is None and stood is not None and is_row:
        posix = _merged(stood, local, source)
    if posix is None:
        posix = local.posix
    else:
        local = set_metadata(served, path, local, served.applied(posix))
    move = await moves.begin(served, path, local, old_path, source, posix=posix)
    return await _copy(served, move, local, posix, expect=source, replaces=action.remote)


@dataclass(frozen=True, slots=True)
class Needed:
    """Where an object's file was renamed to; b"" where a directory is still to be looked through for such."""

    path: bytes
    is_stub: bool


def needed_at(served: Served, base: Base) -> Needed | None:
    """Who needs the object at the base's key, so that it must not be overwritten before it was copied: a file that was
    renamed away from there. For a stub its bytes are nowhere else."""
    if base.kind is not Kind.FILE or base.etag is None:
        return None
    here = served.shared.tree.identify(served.tree_path(base.path))
    if here is not None and here.ino == base.ino and here.stub is None:
        return None  # it is no rename: other names of the file are links, and hold what this one holds
    for entry in served.shared.catalog.changelog.by_inode(base.ino):
        if entry.association != served.id or entry.path == base.path:
            continue
        local = served.shared.tree.identify(served.tree_path(entry.path))
        if local is None or local.ino != base.ino:
            continue
        if local.stub is not None and local.stub.etag == base.etag:
            return Needed(entry.path, is_stub=True)
        if local.stub is None and not served.shared.is_written(local.ino):
            return Needed(entry.path, is_stub=False)
    if (refused := moves.needing(served, base)) is not None:
        return Needed(refused, is_stub=True)
    return Needed(b"", is_stub=True) if base.released and served.shared.expanding else None


def is_circle(served: Served, path: bytes) -> bool:
    """Released files changed places: each waits for another one to be copied before its own object is overwritten."""
    seen: set[bytes] = set()
    here: bytes | None = path
    while here and here not in seen:
        seen.add(here)
        base = served.shared.catalog.files.get(served.id, here)
        needed = needed_at(served, base) if base is not None else None
        here = needed.path if needed is not None else None
    return here == path


def may_delete(served: Served, base: Base) -> str:
    """'' if the object may go; else what has to be seen first."""
    if base.kind is not Kind.FILE:
        return ""
    if served.shared.expanding or any(moves.not_seen_yet(other, served) for other in served.shared.served.values()):
        return "a directory is being looked through"
    if moves.under_way(served, base):
        return "it is being copied"
    for entry in served.shared.catalog.changelog.by_inode(base.ino):
        if (entry.association, entry.path) != (base.association, base.path) and _may_stand(served.shared, entry):
            return "the file may have moved"
    return ""


def _may_stand(shared: Shared, entry: Entry) -> bool:
    """The file is where the hint saw it. Names that it had only in between hold up nothing: with a file renamed
    to and fro, each of them would wait for the others for ever."""
    there = shared.served.get(entry.association)
    if there is None:
        return True
    local = shared.tree.identify(there.tree_path(entry.path))
    return local is not None and local.ino == entry.ino


def hints_of(served: Served, base: Base) -> frozenset[tuple[str, bytes, int]]:
    """What `may_delete` looks through; another value if the file was renamed meanwhile."""
    found = served.shared.catalog.changelog.by_inode(base.ino)
    return frozenset((entry.association, entry.path, entry.seq) for entry in found)
