"""Bulk import: a page of new keys becomes stubs at once, their metadata follows (DESIGN §7)."""

from __future__ import annotations

from collections.abc import Sequence, Set

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, TypeClash
from fsxsync.model.identity import Base, Kind, Posix, Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.ports import Listed
from fsxsync.sync.importer import chown_ids, ensure_parents
from fsxsync.sync.journal import record_problem
from fsxsync.sync.served import Served


def _remote_of(listed: Listed) -> Remote:
    return Remote(
        kind=Kind.FILE,
        etag=listed.etag,
        size=listed.size,
        last_modified_ns=listed.last_modified_ns,
        posix_known=False,
        storage_class=listed.storage_class,
    )


async def import_new(served: Served, new: Sequence[tuple[bytes, Listed]]) -> list[bytes]:
    """Make stubs for keys that no row knows; the paths that a look must follow up: all of them.

    What needs a decision (something is in the tree already, a directory marker, an empty object, watch mode, which
    loads data) is left to its look.
    """
    paths = [path for path, _ in new]
    if served.shared.eager:
        return paths
    simple: list[tuple[bytes, Listed]] = []
    taken: set[bytes] = set()
    for path, listed in new:
        if listed.key.endswith("/") or listed.size == 0:
            continue
        try:
            refuse_below_file(path, taken)
            ensure_parents(served, path)
        except TypeClash as error:
            record_problem(served, path, "refused", str(error), error.code)
            paths.remove(path)
            continue
        except FsxSyncError:
            continue  # the look meets the same error and reports it with its retries
        simple.append((path, listed))
        taken.add(path)
    if not simple:
        return paths
    rows = await trio.to_thread.run_sync(_make, served, simple)
    if rows:
        served.shared.catalog.files.put_many(rows)
        served.imported += len(rows)
        _invalidate(served, rows)
    return paths


def refuse_below_file(path: bytes, files: Set[bytes]) -> None:
    """Of the keys ``a`` and ``a/b`` only one can be in a tree: the first one that is listed, for all imports alike.

    Raises:
        TypeClash: one of ``files`` stands above the path.
    """
    parent = path.rpartition(b"/")[0]
    while parent:
        if parent in files:
            raise TypeClash(f"import of {path!r}", f"the object {parent!r} is a file, and can't hold others")
        parent = parent.rpartition(b"/")[0]


def _make(served: Served, simple: Sequence[tuple[bytes, Listed]]) -> list[Base]:
    """Stage and place stubs; runs in a worker thread. A path that something took meanwhile is left to its look."""
    tree = served.shared.tree
    rows: list[Base] = []
    for path, listed in simple:
        remote = _remote_of(listed)
        posix: Posix = served.posix_for(remote, None)
        uid, gid = chown_ids(served, posix)
        mark = StubMark(etag=listed.etag, size=listed.size, key=listed.key)
        staged = tree.stage_stub(
            mark,
            mode=posix.mode or 0,
            uid=uid,
            gid=gid,
            mtime_ns=listed.last_modified_ns,
            atime_ns=listed.last_modified_ns,
        )
        try:
            placed = tree.place(staged, served.tree_path(path))
        except LocalChanged:
            tree.discard_staged(staged.name)
            continue
        rows.append(base_of(served.id, path, placed, remote))
    return rows


def _invalidate(served: Served, rows: Sequence[Base]) -> None:
    """New names: the kernel keeps no negative entries, so only the directories' own attributes are stale."""
    front, tree = served.shared.front, served.shared.tree
    for parent in {row.path.rpartition(b"/")[0] for row in rows}:
        directory = tree.identify(served.tree_path(parent))
        if directory is not None:
            front.invalidate_inode(directory.ino, data=False)
