"""Paths that a filter leaves out: who they are, and what is forgotten of them. What a look does with one: `leaving`.

What both sides agreed on is forgotten, since a row that nobody keeps up would turn a later change of the filters into
deletes: the file was removed meanwhile, and its object would follow. Without a row both sides are new, and compared.
"""

from __future__ import annotations

from fsxsync.errors import NotExportable
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.sync.loading import owner_of
from fsxsync.sync.served import Served


def is_left_out(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """The name of what stands or stood at the path does not take part."""
    kind = local.kind if local is not None else base.kind if base is not None else Kind.FILE
    return not served.filters.wants(path, directory=kind is Kind.DIRECTORY)


def takes_no_part(served: Served, path: bytes, base: Base | None, local: Local | None, remote: Remote | None) -> bool:
    """A filter leaves these versions out for good: for the name, a size, or because they are too old."""
    filters, here = served.filters, local or base or remote
    is_directory = here is not None and here.kind is Kind.DIRECTORY
    return (
        not filters.wants(path, directory=is_directory)
        or filters.leaves_out(base, local, remote)
        or filters.is_too_old(base, local, remote, served.shared.now_ns())
    )


def came_here(served: Served, path: bytes, local: Local) -> bool:
    """A stub that stands for the object of another path, which goes with that path's name."""
    if local.stub is None:
        return False
    try:
        return local.stub.key != served.key(path, Kind.FILE) or owner_of(served, local.ino, local.stub) is not served
    except NotExportable:
        return True


def forget(served: Served, base: Base, local: Local | None) -> None:
    """Drop the row of a path that is left out. A directory that exists through its keys goes on doing so."""
    if not base.is_implied or local is None:
        served.shared.catalog.files.delete(served.id, base.path)


def leave_unseen(served: Served, path: bytes, base: Base | None, local: Local | None) -> bool:
    """A hint of the tree at a path that is left out: its row goes at once, for the filters may change before a look.
    True if a look is needed all the same. ``local`` may be what a walk saw: that reads no marks."""
    if base is not None:
        forget(served, base, local)
    if local is None or local.kind is not Kind.FILE or local.size == 0:
        return False
    whole = served.shared.tree.identify(served.tree_path(path))
    return whole is not None and came_here(served, path, whole)
