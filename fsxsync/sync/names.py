"""Hints for the other names of a file: what was done to it by one of them is told of by that one alone."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from fsxsync.catalog.changelog import Hint
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.sync.served import Served, Shared

_REPORTED = 500


def other_names(shared: Shared, served: Served, path: bytes, local: Local) -> Iterator[Hint]:
    """Whichever name of a file was written through: each has an object of its own (FSX-FACTS §2.4)."""
    rows = list(shared.other_names(local.ino, served.id, path))
    if len(rows) + 1 < local.nlink:
        yield from _names_without_row(shared, served, {path, *(row.path for row in rows)}, local)
    for row in rows:
        owner = shared.served.get(row.association)
        if owner is not None and not row.matches_local(local) and not is_loading(shared, row, local):
            yield Hint(row.association, row.path, local=True, remote=False, ino=local.ino)
            owner.wake()


def _names_without_row(shared: Shared, served: Served, known: AbstractSet[bytes], local: Local) -> Iterator[Hint]:
    """Names that never had an object, and of which nobody will tell: what a look ended with there is reported. What
    waits for its look needs no hint."""
    reported = shared.catalog.problems.under(served.id, b"", b"", _REPORTED)
    paths = {served.tree_path(path): path for path in reported if path not in known}
    for tree_path, found in shared.tree.identify_many(list(paths)).items():
        if found is not None and found.ino == local.ino:
            yield Hint(served.id, paths[tree_path], local=True, remote=False, ino=local.ino)


def names_left(shared: Shared, inodes: AbstractSet[int], told: AbstractSet[bytes]) -> Iterator[Hint]:
    """Names of files that lost another one. What was noticed there may have been done to the file before: inotify
    tells of it by the name that it was done by, only."""
    if not inodes:
        return
    owners: dict[bytes, tuple[Served, Base]] = {}
    for row in shared.catalog.files.by_inode_many(list(inodes)):
        owner = shared.served.get(row.association)
        if owner is not None and row.kind is Kind.FILE and (tree_path := owner.tree_path(row.path)) not in told:
            owners[tree_path] = (owner, row)
    for tree_path, local in shared.tree.identify_many(list(owners)).items():
        owner, row = owners[tree_path]
        if local is not None and not row.matches_local(local) and not is_loading(shared, row, local):
            yield Hint(row.association, row.path, local=True, remote=False, ino=local.ino)
            owner.wake()


def is_loading(shared: Shared, base: Base, local: Local) -> bool:
    """Its data is on the way, and nothing else happened. Under another name it is a rename, which must be seen:
    the object that is being loaded would be deleted as the old name's."""
    return (
        local.ino in shared.hydrating
        and base.ino == local.ino
        and (base.mode, base.uid, base.gid) == (local.mode, local.uid, local.gid)
    )
