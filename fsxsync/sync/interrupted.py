"""A release that was interrupted between the mark and the hole left a file that nobody takes for a released one: all of
its data is there. Who writes to it while no daemon runs writes to an ordinary file, and that is what it becomes."""

from __future__ import annotations

from fsxsync.errors import LocalChanged, TreeError
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.sync.served import Served


def taken_back(served: Served, path: bytes, base: Base | None, local: Local | None) -> Local | None:
    """The file without its mark, if that is what happened; else ``local``. No await.

    The hole moves the file's time too, until it is put back: a file that has one is left to `releaser.finished`.
    """
    if base is None or local is None or local.stub is None or base.kind is not Kind.FILE:
        return local
    if base.released or base.ino != local.ino or local.ino in served.shared.hydrating:
        return local
    if local.size == 0 or (base.size, base.mtime_ns) == (local.size, local.mtime_ns):
        return local
    try:
        return served.shared.tree.take_back(served.tree_path(path), local) or local
    except TreeError:
        return local  # it moved on: a hint tells of that


def refuse_written(served: Served | None, tree_path: bytes, local: Local) -> None:
    """Before the object's bytes come over what somebody wrote.

    Raises:
        LocalChanged: the file is an ordinary one now.
    """
    if local.blocks * 512 < local.size:
        return  # as nearly every stub: no row has to be asked for
    path = served.association.relative(tree_path) if served is not None else None
    if served is None or not path:
        return
    now = taken_back(served, path, served.shared.catalog.files.get(served.id, path), local)
    if now is not None and now.stub is None:
        served.add_hint(path, local=True, ino=now.ino)
        raise LocalChanged("reading a released file", "it was written to; it is none any more")
