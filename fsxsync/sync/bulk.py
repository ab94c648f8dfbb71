"""Bulk import: a page of new keys becomes stubs at once, their metadata follows (DESIGN §7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, TypeClash
from fsxsync.model.identity import Base, Kind, Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.ports import Listed
from fsxsync.sync.importer import chown_ids, ensure_parents
from fsxsync.sync.journal import record_problem
from fsxsync.sync.served import Served
from fsxsync.tree.tree import NewStub


def _remote_of(listed: Listed) -> Remote:
    return Remote(
        kind=Kind.FILE,
        etag=listed.etag,
        size=listed.size,
        last_modified_ns=listed.last_modified_ns,
        posix_known=False,
        storage_class=listed.storage_class,
    )


@dataclass(frozen=True, slots=True)
class Followed:
    """Paths that a look must follow up: ``made`` got a row and a stub, whose metadata can wait; ``left`` did not."""

    made: list[bytes]
    left: list[bytes]


async def import_new(served: Served, new: Sequence[tuple[bytes, Listed]]) -> Followed:
    """Make stubs for keys that no row knows; what is to be looked at afterwards.

    What needs a decision (something is in the tree already, a directory marker, an empty object, watch mode, which
    loads data) is left to its look.
    """
    left = dict.fromkeys(path for path, _ in new)
    if served.shared.eager:
        return Followed([], list(left))
    simple: dict[bytes, list[tuple[bytes, Listed]]] = {}
    taken: set[bytes] = set()
    for path, listed in new:
        if listed.key.endswith("/") or listed.size == 0:
            continue
        parent = path.rpartition(b"/")[0]
        if parent not in simple:
            try:
                refuse_below_file(path, taken)
                ensure_parents(served, path)
            except TypeClash as error:
                record_problem(served, path, "refused", str(error), error.code)
                del left[path]
                continue
            except FsxSyncError:
                continue  # the look meets the same error and reports it with its retries
        simple.setdefault(parent, []).append((path, listed))
        taken.add(path)
    if not simple:
        return Followed([], list(left))
    rows = await trio.to_thread.run_sync(_make, served, simple)
    if rows:
        served.shared.catalog.files.put_many(rows)
        served.imported += len(rows)
        _invalidate(served, simple)
    for row in rows:
        del left[row.path]
    return Followed([row.path for row in rows], list(left))


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


def _make(served: Served, simple: Mapping[bytes, Sequence[tuple[bytes, Listed]]]) -> list[Base]:
    """Stage and place stubs, a directory at a time; runs in a worker thread. A path that something took meanwhile is
    left to its look."""
    tree = served.shared.tree
    rows: list[Base] = []
    for parent, members in simple.items():
        remotes = [_remote_of(listed) for _, listed in members]
        stubs = [_stub(served, path, listed, remote) for (path, listed), remote in zip(members, remotes, strict=True)]
        try:
            placed = tree.place_stubs(served.tree_path(parent), stubs)
        except LocalChanged:
            continue
        rows += [
            base_of(served.id, path, local, remote)
            for (path, _), remote, local in zip(members, remotes, placed, strict=True)
            if local is not None
        ]
    return rows


def _stub(served: Served, path: bytes, listed: Listed, remote: Remote) -> NewStub:
    posix = served.posix_for(remote, None)
    uid, gid = chown_ids(served, posix)
    return NewStub(
        name=path.rpartition(b"/")[2],
        mark=StubMark(etag=listed.etag, size=listed.size, key=listed.key),
        mode=posix.mode or 0,
        uid=uid,
        gid=gid,
        mtime_ns=listed.last_modified_ns,
        atime_ns=listed.last_modified_ns,
    )


def _invalidate(served: Served, parents: Iterable[bytes]) -> None:
    """New names: the kernel keeps no negative entries, so only the directories' own attributes are stale."""
    front, tree = served.shared.front, served.shared.tree
    for parent in parents:
        directory = tree.identify(served.tree_path(parent))
        if directory is not None:
            front.invalidate_inode(directory.ino, data=False)
