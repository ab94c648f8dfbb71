"""User extended attributes, where an association lets them travel (``export_xattrs``), and where a file is replaced.

Without that option they are the file's own: no export says them, no import touches them, and they stay with the path
when a new version of its object takes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.metadata import fits, to_user_metadata
from fsxsync.model.xattrs import decode_xattrs, encode_xattrs
from fsxsync.sync.served import Served
from fsxsync.telemetry.codes import Flow
from fsxsync.tree.tree import Staged

_CARRIERS = frozenset({Kind.FILE, Kind.DIRECTORY})
"""User attributes are only on these two (xattr(7))."""


def with_xattrs(served: Served, path: bytes, base: Base | None, local: Local) -> Local:
    """``local`` with the attributes that an export would say; if they are more than S3 takes, it says nothing."""
    if not _do_travel(served, local.kind):
        return local
    mine = served.shared.tree.xattrs(served.tree_path(path))
    if not mine and base is not None and base.posix.xattrs is None:
        return local  # none here, and nobody looked whether the object says some: so there is nothing to say
    return local._replace(xattrs=encode_xattrs(mine)) if _can_travel(local, mine) else local


def do_differ(served: Served, path: bytes, base: Base, local: Local) -> bool:
    """The file's attributes travel, and are not those that its row knows."""
    now = with_xattrs(served, path, base, local)
    return now.xattrs is not None and now.xattrs != (base.posix.xattrs or "")


def as_carried(served: Served, remote: Remote | None) -> Remote | None:
    """The object without what it says of attributes, where they do not travel: no row then holds what nobody set."""
    if remote is None or remote.posix.xattrs is None or served.association.export_xattrs:
        return remote
    return remote._replace(posix=remote.posix._replace(xattrs=None))


def _can_travel(local: Local, xattrs: Mapping[bytes, bytes]) -> bool:
    """There is room for them beside the other metadata."""
    return fits(to_user_metadata(local.kind, local.posix._replace(xattrs=encode_xattrs(xattrs))))


def tell_if_left(served: Served, path: bytes, local: Local) -> None:
    """One line for a file that was exported without its attributes."""
    if local.xattrs is not None or not _do_travel(served, local.kind):
        return
    if not _can_travel(local, served.shared.tree.xattrs(served.tree_path(path))):
        _tell(served, path, "export", "it has more extended attributes than S3 takes (2 KiB); exported without them")


def bring_xattrs(served: Served, path: bytes, local: Local, text: str | None) -> Local:
    """Give the file the attributes that its object says. None: it says nothing, or they do not travel."""
    wanted = _wanted(served, local.kind, text)
    if wanted is None:
        return local
    mine = served.shared.tree.xattrs(served.tree_path(path))
    wanted = _beside(local, mine, wanted)
    if wanted == mine:
        return local
    after, complete = served.shared.tree.set_xattrs(served.tree_path(path), local, wanted)
    if not complete:
        _tell_no_room(served, path)
    return after


def dress(served: Served, path: bytes, staged: Staged, replaced: Local | None, posix: Posix) -> None:
    """Give a file that is about to take a path the attributes that its object says, or those that the path has."""
    wanted = _wanted(served, staged.local.kind, posix.xattrs)
    if replaced is not None and {replaced.kind, staged.local.kind} == {Kind.FILE}:
        mine = served.shared.tree.xattrs(served.tree_path(path))
        wanted = mine if wanted is None else _beside(replaced, mine, wanted)
    if wanted and not served.shared.tree.dress_staged(staged.name, wanted):
        _tell_no_room(served, path)


def _beside(local: Local, mine: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What a path has when its object says ``theirs``. Those that could never travel are nowhere else: they stay."""
    return theirs if _can_travel(local, mine) else theirs | mine


def _do_travel(served: Served, kind: Kind) -> bool:
    return served.association.export_xattrs and kind in _CARRIERS


def _wanted(served: Served, kind: Kind, text: str | None) -> dict[bytes, bytes] | None:
    return decode_xattrs(text) if text is not None and _do_travel(served, kind) else None


def _tell_no_room(served: Served, path: bytes) -> None:
    _tell(served, path, "import", "the file system has no room for all of its extended attributes")


def _tell(served: Served, path: bytes, flow: Flow, message: str) -> None:
    served.shared.eventlog.emit(
        level="WARN",
        code="ExtendedAttributesLeft",
        flow=flow,
        association=served.id,
        path=served.tree_path(path),
        message=message,
    )
