"""Bulk import: a page of new keys becomes stubs at once, their metadata follows (DESIGN §7)."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import trio

from fsxsync.errors import FsxSyncError, LocalChanged, TypeClash
from fsxsync.model.identity import Kind, Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.ports import Listed
from fsxsync.sync.conflicts import note_clash
from fsxsync.sync.importer import chown_ids, ensure_parents
from fsxsync.sync.journal import record_problem, shown
from fsxsync.sync.served import Served
from fsxsync.tree.tree import NewStub

HELD_NS = 24 * 3600 * 10**9
"""New stubs have all but their metadata: one HEAD each, that must not hold up a listing. These looks begin when it
is read, after a failure when the association is served again (`Changelog.wake`), and at the latest after this time."""
SLICE = 64
"""Stubs that are made at a time, some milliseconds: other tasks, the mount's among them, run in between."""


def _remote_of(listed: Listed) -> Remote:
    return Remote(
        kind=Kind.FILE,
        etag=listed.etag,
        size=listed.size,
        last_modified_ns=listed.last_modified_ns,
        posix_known=False,
        storage_class=listed.storage_class,
    )


async def import_new(served: Served, new: Sequence[tuple[bytes, Listed]], *, until_ns: int) -> list[bytes]:
    """Make stubs for keys that no row knows; returns the paths of which none was made, and which are to be hinted at.
    The looks at what was made are held until ``until_ns`` (`Changelog.hold`), for their metadata can wait: whoever
    listed is not the only one to know of them, for he may end.

    What needs a decision (something is in the tree already, a directory marker, an empty object, watch mode, which
    loads data) is left to its look.
    """
    if served.shared.eager:
        return [path for path, _ in new]
    simple, left = _choose(served, new)
    for parent, members in simple.items():
        for start in range(0, len(members), SLICE):
            part = members[start : start + SLICE]
            free = _make(served, parent, part, until_ns)
            if len(free) < len(part):
                left += {path for path, _ in part}.difference(free)
            await trio.lowlevel.checkpoint()
    return left


def _choose(
    served: Served, new: Sequence[tuple[bytes, Listed]]
) -> tuple[dict[bytes, list[tuple[bytes, Listed]]], list[bytes]]:
    """What can be a stub at once, by the directory that it lies in, which is there now; and what needs a look."""
    simple: dict[bytes, list[tuple[bytes, Listed]]] = {}
    left: list[bytes] = []
    taken: set[bytes] = set()
    ours = {move.path for move in served.shared.catalog.moves.all(served.id)}  # copies, perhaps: a look knows them
    for path, listed in new:
        parent = path.rpartition(b"/")[0]
        is_ours = path in ours or served.wrote(listed.key, listed.etag)
        if listed.key.endswith("/") or listed.size == 0 or is_ours:
            left.append(path)
            continue
        if parent not in simple:
            try:
                _refuse_below_file(served, path, taken)
                ensure_parents(served, path)
            except TypeClash as error:
                note_clash(served, path, _remote_of(listed))
                record_problem(served, path, "refused", str(error), error.code)
                continue
            except FsxSyncError:
                left.append(path)  # the look meets the same error and reports it with its retries
                continue
        simple.setdefault(parent, []).append((path, listed))
        taken.add(path)
    return simple, left


def _refuse_below_file(served: Served, path: bytes, files: AbstractSet[bytes]) -> None:
    """Of the keys ``a`` and ``a/b`` only one can be in a tree: the first one that is listed, for all imports alike. But
    where a directory stands already, it is the file that can't come.

    Raises:
        TypeClash: one of ``files`` will stand above the path.
    """
    parent = path.rpartition(b"/")[0]
    while parent:
        if parent in files:
            local = served.shared.tree.identify(served.tree_path(parent))
            if local is not None and local.kind is Kind.DIRECTORY:
                return
            raise TypeClash(
                f"import of {shown(served, path)}",
                f"the object {shown(served, parent)} is a file, and can't hold others",
            )
        parent = parent.rpartition(b"/")[0]


def _make(served: Served, parent: bytes, members: Sequence[tuple[bytes, Listed]], until_ns: int) -> list[bytes]:
    """Stage and place stubs in one directory and write their rows and the looks to come; the paths that were free.

    Here and not in a worker thread: what inotify and the mount tell of a stub finds its row, whenever it comes.
    """
    tree = served.shared.tree
    members = [(path, listed) for path, listed in members if not _has_row(served, path)]
    remotes = [_remote_of(listed) for _, listed in members]
    stubs = [_stub(served, path, listed, remote) for (path, listed), remote in zip(members, remotes, strict=True)]
    try:
        placed = tree.place_stubs(served.tree_path(parent), stubs)
    except LocalChanged:
        return []
    rows = [
        base_of(served.id, path, local, remote)
        for (path, _), remote, local in zip(members, remotes, placed, strict=True)
        if local is not None
    ]
    made = [row.path for row in rows]
    catalog = served.shared.catalog
    with catalog.transaction():  # a row that a listing agrees with is looked at by nobody else
        catalog.files.put_many(rows)
        catalog.changelog.hold(served.id, made, now_ns=served.shared.now_ns(), until_ns=until_ns)
    served.counts.imported += len(rows)
    served.counts.imported_bytes += sum(row.remote_size for row in rows)
    _invalidate(served, parent)
    return made


def _has_row(served: Served, path: bytes) -> bool:
    """It was no new key when its turn came: somebody brought the object in after the page was read, and if nothing
    stands there, it was removed again. Or it was a directory, whose row alone tells that its marker has to go."""
    row = served.shared.catalog.files.get(served.id, path)
    return row is not None and not row.is_implied


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


def _invalidate(served: Served, parent: bytes) -> None:
    """New names: the kernel keeps no negative entries, so only the directory's own attributes are stale."""
    directory = served.shared.tree.identify(served.tree_path(parent))
    if directory is not None:
        served.shared.front.invalidate_inode(directory.ino, data=False)
