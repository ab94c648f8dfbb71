"""A rename is a copy on the server: the base's inode shows up under another path (DESIGN §6).

The new key is written before the old one is deleted: `may_delete` holds a delete back while a pending hint says
that the inode may live on elsewhere. For a stub this is no optimisation: its data is nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import trio

from fsxsync.errors import ObjectChanged, ObjectMissing
from fsxsync.model.identity import Base, Kind, Local, Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.sync.digests import content_hash
from fsxsync.sync.exporter import remark, remote_after, set_metadata
from fsxsync.sync.reconcile import Action
from fsxsync.sync.served import Served


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


async def export_rename(served: Served, path: bytes, local: Local, source: Base) -> Base | None:
    """Copy the object to its new key; the row for the new path, or None if there is nothing to copy any more.

    Raises:
        ObjectChanged: something is at the new key. LocalChanged. RepositoryError.
    """
    expect = base_as_remote(source)
    assert expect is not None
    old_key, new_key = served.key(source.path, Kind.FILE), served.key(path, Kind.FILE)
    if await served.store.head(new_key) is not None:
        raise ObjectChanged(f"rename to {new_key}", "an object is there")  # a copy never guards its target (SERVERS.md)
    try:
        written = await served.store.copy(old_key, new_key, local.posix, Kind.FILE, expect=expect, replaces=None)
    except ObjectMissing:
        return None
    except ObjectChanged:
        if local.stub is None:
            return None  # somebody changed the old object: it comes back there, and our bytes are uploaded
        current = await served.store.head(old_key)
        if current is None:
            return None
        raise
    served.expect_echo(new_key, written.etag)
    served.exported += 1
    remote = remote_after(Kind.FILE, new_key, local.size, local.posix, written, expect.storage_class)
    if local.stub is not None:
        mark = replace(local.stub, etag=remote.etag, version_id=remote.version_id, key=new_key)
        local = remark(served, path, local, mark)
    return base_of(served.id, path, local, remote, content_hash=source.content_hash)


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
    """Copy the object that a renamed stub stands for to its new key, in place of ``action.remote``.

    Raises:
        ObjectChanged: either object is another one now. LocalChanged. RepositoryError.
    """
    local = action.local
    assert local is not None
    assert local.stub is not None
    old_key, key = local.stub.key, served.key(path, Kind.FILE)
    source = await served.store.head(old_key)
    if source is None or (source.etag, source.size) != (local.stub.etag, local.stub.size):
        raise ObjectChanged(f"rename to {key}", f"{old_key} is another version now")
    posix = action.posix or local.posix
    written = await served.store.copy(old_key, key, posix, Kind.FILE, expect=source, replaces=action.remote)
    served.expect_echo(key, written.etag)
    served.exported += 1
    if action.posix is not None:
        local = set_metadata(served, path, local, action.posix)
    remote = remote_after(Kind.FILE, key, source.size, posix, written, source.storage_class)
    mark = StubMark(etag=remote.etag, size=source.size, key=key, version_id=remote.version_id)
    return base_of(served.id, path, remark(served, path, local, mark), remote)


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
    if served.shared.expanding:
        return "a directory is being looked through"
    for entry in served.shared.catalog.changelog.by_inode(base.ino):
        if (entry.association, entry.path) != (base.association, base.path):
            return "the file may have moved"
    return ""
