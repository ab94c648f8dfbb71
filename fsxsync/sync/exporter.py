"""Tree -> repository: every write carries the version it replaces; the file is checked once more before it shows."""

from __future__ import annotations

import os
from dataclasses import replace

import trio

from fsxsync.errors import LocalChanged, NotExportable, ObjectArchived, ObjectChanged
from fsxsync.model.association import Event
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote, base_of
from fsxsync.model.metadata import from_user_metadata, guess_content_type, to_user_metadata
from fsxsync.model.stub import StubMark
from fsxsync.ports import ObjectHeaders, Written
from fsxsync.sync.carrying import bring_xattrs, tell_if_left
from fsxsync.sync.digests import same_bytes
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.journal import shown
from fsxsync.sync.reconcile import Action
from fsxsync.sync.rescan import check_directory
from fsxsync.sync.served import Served
from fsxsync.transfer.checksums import of_body


def as_stored(kind: Kind, posix: Posix, key: str) -> Posix:
    """What a HEAD will read back of this metadata: set-id bits are written and never read."""
    return from_user_metadata(to_user_metadata(kind, posix), key=key)[1]


def remote_after(kind: Kind, key: str, size: int, posix: Posix, written: Written, storage_class: str) -> Remote:
    """The object as our write left it. Its last-modified is not told, but is before the end of the second in which the
    store answered (its Date header)."""
    return Remote(
        kind=kind,
        etag=written.etag,
        size=size,
        last_modified_ns=written.date_ns + 10**9,
        version_id=written.version_id,
        posix=as_stored(kind, posix, key),
        storage_class=storage_class,
    )


def exported_key(served: Served, path: bytes, kind: Kind) -> str:
    """The key that a path is exported to. Raises NotExportable."""
    key = exportable_key(served, path, kind)
    if isinstance(key, NotExportable):
        raise key
    return key


def posix_of(action: Action) -> Posix:
    """What the object shall say of the file."""
    assert action.local is not None
    if action.posix is not None:
        return action.posix
    return action.base.said_of(action.local.posix) if action.base is not None else action.local.posix


async def export(served: Served, path: bytes, action: Action) -> Base:
    """Upload what stands at the path; the row to record.

    Raises:
        LocalChanged, ObjectChanged: the world moved; look again. NotExportable. RepositoryError.
    """
    local = action.local
    assert local is not None
    key = exported_key(served, path, local.kind)
    posix = posix_of(action)
    if local.kind is Kind.FILE:
        written, digest = await _upload(served, path, key, local, posix, action.remote)
        size = local.size
    else:
        body = local.target or b"" if local.kind is Kind.SYMLINK else b""
        headers = ObjectHeaders(
            posix=posix,
            kind=local.kind,
            content_type=guess_content_type(path, local.kind),
            # A bucket whose Object Lock holds every new object takes none without a checksum.
            crc64nvme=of_body(body),
        )
        _still(served, path, local)
        written = await served.store.put(key, body, headers, replaces=action.remote)
        digest, size = None, len(body)
    served.expect_echo(key, written.etag)
    served.counts.exported += 1
    served.counts.exported_bytes += size
    tell_if_left(served, path, local)
    local, posix = _apply(served, path, local, action, posix)
    # A PUT takes the association's class, whatever the object before it had.
    storage_class = served.association.access.storage_class or "STANDARD"
    remote = remote_after(local.kind, key, size, posix, written, storage_class)
    return base_of(served.id, path, local, remote, content_hash=digest)


async def _upload(
    served: Served, path: bytes, key: str, local: Local, posix: Posix, replaces: Remote | None
) -> tuple[Written, bytes]:
    if local.stub is not None:
        raise LocalChanged(f"export of {key}", "the file is a stub: its data is not here")  # DESIGN §3.4
    fd = served.shared.tree.open_read(served.tree_path(path), local)
    try:

        def still() -> None:
            now = os.fstat(fd)
            if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
                local.size,
                local.mtime_ns,
                local.ctime_ns,
            ):
                raise LocalChanged(f"export of {key}", "the file was changed during the upload")
            if served.shared.is_written(local.ino):
                raise LocalChanged(f"export of {key}", "the file was opened for writing during the upload")

        headers = ObjectHeaders(posix=posix, kind=Kind.FILE, content_type=guess_content_type(path))
        return await served.shared.mover.upload(
            served.store, key, fd, local.size, headers, replaces=replaces, still=still
        )
    finally:
        os.close(fd)


def _still(served: Served, path: bytes, local: Local) -> None:
    now = served.shared.tree.identify(served.tree_path(path))
    if now is None or (now.kind, now.ino, now.target) != (local.kind, local.ino, local.target):
        raise LocalChanged(f"export of {shown(served, path)}", "it was changed meanwhile")


def _apply(served: Served, path: bytes, local: Local, action: Action, posix: Posix) -> tuple[Local, Posix]:
    """Give the file merged metadata; the file, and what its row shall say of the object, which was told ``posix``.

    If the file moved on meanwhile, that is what the file had: then the next look sees what the object has beyond it as
    somebody's change, and brings it over, instead of taking the file's for the newer one.
    """
    if action.posix is None:
        return local, posix
    try:
        return set_metadata(served, path, local, served.applied(action.posix)), posix
    except LocalChanged:
        served.add_hint(path, local=True, remote=True)
        return local, local.posix


def set_metadata(served: Served, path: bytes, local: Local, posix: Posix) -> Local:
    """Change the file's metadata and tell the kernel.

    Raises:
        LocalChanged: it is another file by now, or its data has just come. TreeError.
    """
    tree_path = served.tree_path(path)
    if posix.mtime_ns is not None:
        served.shared.give_times(local.ino, posix.atime_ns, posix.mtime_ns)
    after = served.shared.tree.set_metadata(
        tree_path,
        local,
        mode=posix.mode if local.kind is not Kind.SYMLINK else None,
        uid=posix.uid,
        gid=posix.gid,
        mtime_ns=posix.mtime_ns,
        atime_ns=posix.atime_ns,
    )
    after = bring_xattrs(served, path, after, posix.xattrs)
    served.shared.front.invalidate_inode(after.ino, data=False)
    return after


async def export_metadata(served: Served, path: bytes, action: Action) -> Base:
    """Change the object's metadata in place; content, tags and foreign metadata stay (DESIGN §6)."""
    local, remote, base = action.local, action.remote, action.base
    assert local is not None
    assert base is not None
    kind = local.kind
    if remote is None:  # an implied directory: its first own metadata makes a marker
        return await export(served, path, action)
    key = served.key(path, local.kind)  # `noarchive` keeps content back: what has an object is described and deleted
    posix = posix_of(action)
    try:
        written = await served.store.copy(key, key, posix, kind, expect=remote, replaces=remote)
    except ObjectArchived:
        own_class = served.association.access.storage_class
        if local.stub is not None or kind is not Kind.FILE or remote.storage_class != own_class:
            raise
        return await export(served, path, action)  # it is archived at our wish, and its data is here
    digest = await _digest_after(served, path, action, key, written)
    served.expect_echo(key, written.etag)
    served.counts.exported += 1
    tell_if_left(served, path, local)
    local, posix = _apply(served, path, local, action, posix)
    if posix.xattrs is None:  # then the copy left those of the object
        posix = posix._replace(xattrs=base.posix.xattrs)
    after = remote_after(local.kind, key, remote.size, posix, written, remote.storage_class)
    if local.stub is not None:
        local = remark(served, path, local, replace(local.stub, etag=after.etag, version_id=after.version_id, key=key))
    return base_of(served.id, path, local, after, content_hash=digest)


async def _digest_after(served: Served, path: bytes, action: Action, key: str, written: Written) -> bytes | None:
    """The digest of what a copy in place left there: the row's, unless what was copied may be another version, which
    somebody put there between our look and the copy, and the store did not look at the condition on its source.

    Another ETag alone proves nothing: that of an object in parts, or with a KMS key, is another one after each copy.

    Raises:
        ObjectChanged: nobody can tell; the object is one that somebody wrote, and comes in as such.
    """
    local, remote, base = action.local, action.remote, action.base
    assert local is not None
    assert remote is not None
    assert base is not None
    is_same = written.etag == remote.etag or remote.version_id is not None  # a version is named in the request
    if is_same or served.store.conditions.copy_source_if_match or local.kind is Kind.DIRECTORY:
        return base.content_hash
    found = await served.store.head(key) if local.kind is Kind.FILE and local.stub is None else None
    if found is not None and found.etag == written.etag:
        tree, tree_path = served.shared.tree, served.tree_path(path)
        known, digest = await trio.to_thread.run_sync(same_bytes, tree, tree_path, local, found)
        if known:
            return digest
    served.shared.catalog.moves.delete(served.id, path)  # it would have the next look know this for our own
    raise ObjectChanged(f"change of the metadata of {key}", "another version may have been copied onto itself")


def remark(served: Served, path: bytes, local: Local, mark: StubMark) -> Local:
    """Let a stub stand for the same bytes under another etag or key (a copy made them). Raises as `stubs.remark`.

    Returns the file with mode and owner as judged: what was set meanwhile is a change to be exported.
    """
    if local.stub == mark:
        return local
    if served.association.export_xattrs:
        before = served.shared.tree.identify(served.tree_path(path))
        if before is None or before.ctime_ns != local.ctime_ns:
            served.add_hint(path, local=True)  # an attribute, perhaps, of which the new ctime would not tell
    now = served.shared.tree.remark(served.tree_path(path), local, mark)
    return now._replace(mode=local.mode, uid=local.uid, gid=local.gid)


async def export_delete(served: Served, path: bytes, action: Action) -> None:
    """Delete the object, if it still is the version that the file stood for; then drop the row.

    Raises:
        TreeMoved: the association's directory is not there; nothing is deleted (DESIGN §3.6). LocalChanged.
    """
    base, remote = action.base, action.remote
    assert base is not None
    # A file is gone only if it is its directory that misses it: the whole association may have been moved away.
    check_directory(served)
    local = served.shared.tree.identify(served.tree_path(path))
    if local is not None and (local.kind is Kind.DIRECTORY) == (base.kind is Kind.DIRECTORY):
        raise LocalChanged(f"delete of {shown(served, path)}", "the file is there again")
    if remote is not None:
        key = served.key(path, base.kind)
        await served.store.delete(key, expect=remote)
        served.counts.deleted_remote += 1
    forget_gone(served, path)


def forget_gone(served: Served, path: bytes) -> None:
    """Drop the row of what is on neither side any more."""
    with served.shared.catalog.transaction():  # nothing would look again at a directory that is left alone
        served.shared.catalog.files.delete(served.id, path)
        _keep_empty_parent(served, path)


def _keep_empty_parent(served: Served, path: bytes) -> None:
    """A directory that existed only through its keys, and whose last file was removed here, gets a marker.

    Otherwise it would be in the tree and nowhere in the repository: the next host would not have it.
    """
    parent = parent_here(served, path)
    if parent and Event.NEW in served.association.policy.exports and forget_left_alone(served, parent):
        served.add_hint(parent, local=True, delay_s=served.shared.settings.export_delay_s)


def parent_here(served: Served, path: bytes) -> bytes:
    """The directory that it lies in, or if that went, too, what that lay in, which may be empty now; b"" for the
    association's own."""
    parent = path.rpartition(b"/")[0]
    while parent and served.shared.tree.identify(served.tree_path(parent)) is None:
        parent = parent.rpartition(b"/")[0]
    return parent


def is_left_alone(served: Served, row: Base | None) -> bool:
    """A directory's, which existed only through keys that are gone."""
    return row is not None and row.is_implied and not served.shared.catalog.files.children_exist(served.id, row.path)


def forget_left_alone(served: Served, path: bytes) -> bool:
    """From now on it is new here, if it `is_left_alone`."""
    files = served.shared.catalog.files
    if not is_left_alone(served, files.get(served.id, path)):
        return False
    files.delete(served.id, path)
    return True
