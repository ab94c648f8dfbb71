"""Files with a mark that are no released ones: all of their data is there, and it is somebody's.

A release that was interrupted between the mark and the hole left such a file, and who writes to it while no daemon runs
writes to an ordinary one. `echo … > file`, behind the mount or in watch mode, empties a released file and writes it
anew, and the mark stays. What of it is a hole nobody can tell from data that is missing: that is damage, and told.
"""

from __future__ import annotations

from fsxsync.errors import LocalChanged, TreeError
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.sync.served import Served


def taken_back(served: Served, path: bytes, base: Base | None, local: Local | None) -> Local | None:
    """The file without its mark, if that is what happened; else ``local``. No await.

    The hole moves the file's time too, until it is put back: a file that has one is left to `releaser.finished`.
    """
    if local is None or local.stub is None or local.size == 0 or local.ino in served.shared.hydrating:
        return local
    if not is_rewritten(local) and not _is_written_since(base, local):
        return local
    try:
        taken, holds_data = served.shared.tree.take_back(served.tree_path(path), local)
    except TreeError:
        # It moved on, which a hint tells of, or can't be read: nothing may take the place of what is in it.
        return local._replace(written_in_part=is_rewritten(local))
    return taken or local._replace(written_in_part=holds_data and is_rewritten(local))


def is_rewritten(local: Local) -> bool:
    """It has a mark, and a size that the mark's object never had; an empty one is about to be written, or was cut by a
    daemon that died."""
    return local.stub is not None and local.stub.size >= 0 and local.size not in {0, local.stub.size}


def _is_written_since(base: Base | None, local: Local) -> bool:
    """Its row knows it as an ordinary file, and another one."""
    if base is None or base.kind is not Kind.FILE or base.released or base.ino != local.ino:
        return False
    return (base.size, base.mtime_ns) != (local.size, local.mtime_ns)


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
