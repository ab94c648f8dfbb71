"""Repository -> tree: stage outside, set the mark first, exchange in, check what came out (DESIGN §3.2, §3.4)."""

from __future__ import annotations

import os

import trio

from fsxsync.errors import (
    FsxSyncError,
    KeyRefused,
    LocalChanged,
    ObjectArchived,
    ObjectChanged,
    RepositoryError,
    TypeClash,
)
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote, base_of
from fsxsync.model.open_conflict import ConflictKind
from fsxsync.model.stub import StubMark
from fsxsync.sync import conflicts, links
from fsxsync.sync.carrying import dress
from fsxsync.sync.exporter import set_metadata
from fsxsync.sync.journal import shown
from fsxsync.sync.loading import load_object, object_of
from fsxsync.sync.reconcile import Action
from fsxsync.sync.served import Served
from fsxsync.tree.tree import Staged

SYMLINK_LIMIT = 4095  # PATH_MAX without its NUL: symlink(2)


def chown_ids(served: Served, posix: Posix) -> tuple[int, int]:
    """Owner and group to give, -1 where only root could."""
    if not served.shared.is_root:
        return -1, -1
    return posix.uid if posix.uid is not None else -1, posix.gid if posix.gid is not None else -1


def ensure_parents(served: Served, path: bytes) -> None:
    """Make the directories above a path; those made here exist in the repository only through their keys.

    Raises:
        TypeClash: a file stands where a directory is needed.
    """
    parent = path.rpartition(b"/")[0]
    if not parent:
        return
    tree, defaults = served.shared.tree, served.association.defaults
    uid, gid = served.association.imported_owner
    tree_parent = served.tree_path(parent)
    existing = tree.identify(tree_parent)
    if existing is not None and existing.kind is Kind.DIRECTORY:
        return
    components = parent.split(b"/")
    for count in range(1, len(components) + 1):
        part = b"/".join(components[:count])
        found = tree.identify(served.tree_path(part))
        if found is not None and found.kind is not Kind.DIRECTORY:
            raise TypeClash(
                f"import of {shown(served, path)}",
                f"a file stands at {shown(served, part)}, where a directory is needed",
            )
        row = served.shared.catalog.files.get(served.id, part)
        if row is not None and row.kind is not Kind.DIRECTORY:
            # A directory's row would take the place of the one that tells which object goes with the file.
            raise TypeClash(
                f"import of {shown(served, path)}",
                f"the object of the file that stood at {shown(served, part)} is still there",
            )
    owner, group = chown_ids(served, Posix(uid=uid, gid=gid))
    for made in tree.make_directories(tree_parent, mode=defaults.dir_mode, uid=owner, gid=group):
        relative = served.association.relative(made)
        local = tree.identify(made)
        if relative and local is not None:
            row = served.shared.catalog.files.get(served.id, relative)
            if row is None or row.is_implied:
                served.shared.catalog.files.put(base_of(served.id, relative, local, None))
            else:  # it was removed here a moment ago, and its marker is still there: the look at it sees the difference
                served.add_hint(relative, local=True)
            served.shared.invalidate(made, data=False)


async def stage(served: Served, path: bytes, remote: Remote, posix: Posix) -> tuple[Staged, bytes | None]:
    """Prepare what shall stand at the path, outside the watched tree. Also its XXH3-128 where the data is here."""
    tree = served.shared.tree
    key = served.key(path, remote.kind)
    uid, gid = chown_ids(served, posix)
    mtime_ns = posix.mtime_ns or 0
    atime_ns = posix.atime_ns if posix.atime_ns is not None else mtime_ns
    mode = posix.mode if posix.mode is not None else 0o644
    if remote.archived and (served.shared.eager or remote.kind is Kind.SYMLINK):
        # Without a mount a stub would read as zeros; of a symlink, there is no stub.
        refused = ObjectArchived(f"import of {key}", f"its storage class is {remote.storage_class}", key=key)
        if remote.kind is Kind.SYMLINK:
            refused.code = "S3SymlinkInUnsupportedTier"
        raise refused
    if remote.kind is Kind.SYMLINK:
        target = await served.store.get(key, etag=remote.etag, limit=SYMLINK_LIMIT)
        if not target or b"\0" in target:
            raise KeyRefused(
                f"import of {shown(served, path)}",
                "the object says symlink, and its body is no target",
                advice="the object stays as it is; upload one whose body is a path, or remove its metadata",
            )
        return tree.stage_symlink(target, uid=uid, gid=gid, mtime_ns=mtime_ns), None
    if remote.size > 0 and not served.shared.eager:
        mark = StubMark(etag=remote.etag, size=remote.size, key=key, version_id=remote.version_id)
        return tree.stage_stub(mark, mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, atime_ns=atime_ns), None
    return await _stage_loaded(served, key, remote, posix._replace(mode=mode, mtime_ns=mtime_ns, atime_ns=atime_ns))


async def _stage_loaded(served: Served, key: str, remote: Remote, posix: Posix) -> tuple[Staged, bytes | None]:
    tree = served.shared.tree
    uid, gid = chown_ids(served, posix)
    fd, name = tree.stage_file()
    with tree.discarding(name):
        try:
            await load_object(served, key, remote, fd)
            digest = (await trio.to_thread.run_sync(tree.hash_file, fd, remote.size))[0]
        except BaseException:
            os.close(fd)
            raise
        staged = tree.finish_staged(
            fd,
            name,
            mode=posix.mode or 0,
            uid=uid,
            gid=gid,
            mtime_ns=posix.mtime_ns or 0,
            atime_ns=posix.atime_ns or 0,
        )
    return staged, digest


async def import_object(served: Served, path: bytes, action: Action) -> Base:
    """Let the object take the path, replacing ``action.local`` and nothing else.

    Raises:
        LocalChanged, ObjectChanged: the world moved; look again. TypeClash. RepositoryError. NoSpace.
    """
    local, remote = action.local, action.remote
    assert remote is not None
    ensure_parents(served, path)
    says = remote if action.posix is None else remote._replace(posix=action.posix)
    posix = served.posix_for(says, local.posix if local else None)
    if remote.kind is Kind.DIRECTORY:
        return _import_directory(served, path, local, remote, posix)
    stands = local or served.shared.tree.identify(served.tree_path(path))
    if stands is not None and stands.kind is Kind.DIRECTORY:
        raise TypeClash(f"import of {shown(served, path)}", "a directory stands where the object is a file")
    staged, digest = await stage(served, path, remote, posix)
    tree_path = served.tree_path(path)
    tree = served.shared.tree
    with tree.discarding(staged.name):
        dress(served, path, staged, local, posix)
        if local is None:
            placed = tree.place(staged, tree_path)
        else:
            async with served.shared.let_go(local.ino):
                placed = tree.exchange_in(staged, tree_path, local)
            links.look_at_others(served, path, local)
    served.counts.imported += 1
    served.counts.imported_bytes += remote.size
    served.shared.invalidate(tree_path, *([local.ino] if local else []), data=True)
    return base_of(served.id, path, placed, remote, content_hash=digest)


async def load_moved(served: Served, path: bytes, local: Local, owner: Served) -> None:
    """Give a stub that was renamed its data, from the key of ``owner`` that it stood for: nothing else will keep it.

    Raises:
        LocalChanged, ObjectChanged: the world moved; look again. RepositoryError. NoSpace.
    """
    mark = local.stub
    assert mark is not None
    source = await object_of(owner.store, mark)
    if source is None:
        raise ObjectChanged(f"reading {mark.key}", "it is another version now")
    try:
        if _is_loaded_in_place(served, local) and await served.shared.restore(served.tree_path(path)):
            return
        staged, _ = await _stage_loaded(owner, mark.key, source, local.posix)
    except (ObjectArchived, KeyRefused) as error:
        # Not the end of it, as for other looks: while this one is pending, nobody deletes the object.
        raise RepositoryError(
            error.what, error.why, advice="rename the file back, or have its object restored"
        ) from error
    tree_path = served.tree_path(path)
    with served.shared.tree.discarding(staged.name):
        dress(served, path, staged, local, Posix())
        served.shared.tree.exchange_in(staged, tree_path, local)
    served.shared.invalidate(tree_path, local.ino, data=True)
    # The object may go as soon as this look is through: after a power cut the stub must not stand here again.
    await trio.to_thread.run_sync(served.shared.tree.settle, tree_path)


async def load_astray(served: Served, base: Base) -> bool:
    """The object of a released file is about to go, or to be overwritten, and the file was moved to where no
    association is, or where this one exports nothing by itself: give it its data there. False: it was not.

    Raises:
        LocalChanged, ObjectChanged: the world moved; look again. RepositoryError. NoSpace. TreeError.
    """
    if await _load_unfollowed(served, base):
        return True
    tree = served.shared.tree
    tree_path = await served.shared.outside.path_of(base.ino)
    local = tree.identify(tree_path) if tree_path else None
    mark = local.stub if local is not None else None
    if local is None or mark is None or (local.ino, mark.etag) != (base.ino, base.etag):
        return False
    source = await object_of(served.store, mark)
    if source is None:
        return False  # it is lost already
    try:
        staged, _ = await _stage_loaded(served, mark.key, source, local.posix)
    except (ObjectArchived, KeyRefused) as error:
        raise RepositoryError(
            error.what, error.why, advice="move the file back, or have its object restored"
        ) from error
    with tree.discarding(staged.name):
        tree.dress_staged(staged.name, tree.xattrs(tree_path))
        tree.exchange_in(staged, tree_path, local)
    served.shared.invalidate(tree_path, local.ino, data=True)
    await trio.to_thread.run_sync(tree.settle, tree_path)
    return True


async def _load_unfollowed(served: Served, base: Base) -> bool:
    """Raises as `load_astray`."""
    path = served.unfollowed.get(base.ino, base.path)
    local = served.shared.tree.identify(served.tree_path(path))
    mark = local.stub if local is not None else None
    if path == base.path or local is None or mark is None or (local.ino, mark.etag) != (base.ino, base.etag):
        return False
    if mark.key != served.key(base.path, base.kind):
        return False  # a task has copied it
    if await object_of(served.store, mark) is None:
        return False  # it is lost already
    await load_moved(served, path, local, served)
    served.unfollowed.pop(base.ino, None)
    return True


def _is_loaded_in_place(served: Served, local: Local) -> bool:
    """Another file in its place would not be its other names' any more, nor what somebody reads just now."""
    is_shared = local.nlink > 1 or local.ino in served.shared.hydrating
    return is_shared and local.stub is not None and local.size == local.stub.size


def _import_directory(served: Served, path: bytes, local: Local | None, remote: Remote, posix: Posix) -> Base:
    tree = served.shared.tree
    tree_path = served.tree_path(path)
    if local is not None and local.kind is not Kind.DIRECTORY:
        raise TypeClash(f"import of {shown(served, path)}", "a file stands where the object is a directory")
    if local is None:
        uid, gid = chown_ids(served, posix)
        mode = posix.mode if posix.mode is not None else served.association.defaults.dir_mode
        tree.make_directories(tree_path, mode=mode, uid=uid, gid=gid)
        local = tree.identify(tree_path)
        if local is None:
            raise LocalChanged(f"import of {shown(served, path)}", "the directory vanished again")
        served.counts.imported += 1
    after = set_metadata(served, path, local, posix)
    served.shared.invalidate(tree_path, data=False)
    return base_of(served.id, path, after, remote)


async def import_metadata(served: Served, path: bytes, action: Action) -> Base:
    """Bring the object's mode, owner and times to the file; its content is untouched."""
    base, local, remote = action.base, action.local, action.remote
    assert base is not None
    assert local is not None
    assert remote is not None
    posix = served.applied(action.posix or remote.posix)
    if posix.atime_ns is None and posix.mtime_ns is not None:
        posix = posix._replace(atime_ns=posix.mtime_ns)
    after = set_metadata(served, path, local, posix)
    return base_of(served.id, path, after, remote, content_hash=base.content_hash)


async def import_delete(served: Served, path: bytes, action: Action) -> None:
    """Remove the file, if it still is the one that was judged; then the directories that only its key made."""
    base, local = action.base, action.local
    assert base is not None
    tree, files = served.shared.tree, served.shared.catalog.files
    tree_path = served.tree_path(path)
    if local is not None and local.kind is Kind.DIRECTORY and not _is_empty(served, tree_path):
        # The marker is gone, the directory is not empty: from now on it exists through what lies in it.
        files.put(base._replace(etag=None, version_id=None, remote_size=0, posix=Posix()))
        return
    if local is not None:
        async with served.shared.let_go(local.ino):
            tree.remove(tree_path, local)
        links.look_at_others(served, path, local)
        served.counts.deleted_local += 1
        served.shared.invalidate(tree_path, local.ino, data=True)
    gone = [path, *_remove_implied_parents(served, path)]
    with served.shared.catalog.transaction():  # nothing would look again at a directory that is left alone
        for each in gone:
            files.delete(served.id, each)
        conflicts.close_copy_if_gone(served, path)
        conflicts.look_again_below(served, gone[-1])


def remove_needless_parents(served: Served, path: bytes) -> None:
    """The directories that were made for an object which did not come, where no other key lies below them."""
    gone = _remove_implied_parents(served, path)
    if gone:
        with served.shared.catalog.transaction():
            for each in gone:
                served.shared.catalog.files.delete(served.id, each)
            conflicts.look_again_below(served, gone[-1])


def _is_empty(served: Served, tree_path: bytes) -> bool:
    return next(iter(served.shared.tree.walk(tree_path)), None) is None


def _remove_implied_parents(served: Served, path: bytes) -> list[bytes]:
    """A directory that existed only because keys lay below it goes with the last of them, as in the bucket. Which ones
    went; the path still has its row."""
    tree, files = served.shared.tree, served.shared.catalog.files
    gone: list[bytes] = []
    parent = path.rpartition(b"/")[0]
    while parent:
        row = files.get(served.id, parent)
        local = tree.identify(served.tree_path(parent))
        known = {base.path for base in files.after(served.id, b"", len(gone) + 3, parent)}
        if row is None or not row.is_implied or local is None or not known <= {parent, path, *gone}:
            return gone
        if (local.mode, local.uid, local.gid) != (row.mode, row.uid, row.gid):
            return gone  # somebody cared for it
        try:
            tree.remove(served.tree_path(parent), local)
        except LocalChanged:
            return gone  # a local file lies in it
        served.shared.invalidate(served.tree_path(parent), local.ino, data=False)
        gone.append(parent)
        parent = parent.rpartition(b"/")[0]
    return gone


async def keep_both(served: Served, path: bytes, action: Action) -> tuple[Base, bytes]:
    """The object takes the path, the file is kept beside it; the row, and the conflict copy's path."""
    local, remote = action.local, action.remote
    assert local is not None
    assert remote is not None
    tree = served.shared.tree
    posix = served.posix_for(remote, None)
    staged, digest = await stage(served, path, remote, posix)
    with tree.discarding(staged.name):
        dress(served, path, staged, None, posix)  # what the file has goes with it
        async with served.shared.let_go(local.ino):
            kept = conflicts.free_name(served, path)
            # First: a crash after the exchange must not leave a copy that nobody is told of.
            conflicts.note(served, path, ConflictKind.KEPT, local, remote, kept)
            try:
                placed = tree.exchange_in(staged, served.tree_path(path), local, keep_as=served.tree_path(kept))
            except FsxSyncError:
                there = tree.identify(served.tree_path(kept))
                if there is None or there.ino != local.ino:
                    served.shared.catalog.conflicts.delete_copy(served.id, kept)
                raise
            links.look_at_others(served, path, local)
    served.counts.imported += 1
    served.counts.imported_bytes += remote.size
    served.shared.invalidate(served.tree_path(path), local.ino, data=True)
    served.shared.invalidate(served.tree_path(kept), data=False)
    return base_of(served.id, path, placed, remote, content_hash=digest), kept
