"""Which conflicts are open: written down before anything is moved, closed as soon as one of the two versions is gone.

A conflict is open while two versions are kept and nobody has chosen: as long as a conflict copy lies beside its path,
or until a look finds path and object in order again. `resolving` carries a person's choice out.
"""

from __future__ import annotations

from fsxsync.errors import TypeClash
from fsxsync.model.conflict import conflict_name
from fsxsync.model.identity import Kind, Local, Remote
from fsxsync.model.open_conflict import Conflict, ConflictKind
from fsxsync.sync.journal import is_clash, shown
from fsxsync.sync.served import Served

_ATTEMPTS = 1000


def note(
    served: Served, path: bytes, kind: ConflictKind, local: Local | None, remote: Remote | None, kept_as: bytes = b""
) -> Conflict:
    """Write a conflict down, with the versions as they are now. One that is open already stays as it was listed: a
    person may be about to decide on that, and is shown the new versions when the decision does not fit."""
    conflicts = served.shared.catalog.conflicts
    known = next((one for one in conflicts.at(served.id, path) if one.kept_as == kept_as), None)
    if known is not None and known.kind is kind:
        return known
    conflict = Conflict(served.id, path, kind, served.shared.now_ns(), kept_as).seen(local, remote)
    conflicts.put(conflict)
    return conflict


def note_clash(served: Served, path: bytes, remote: Remote | None) -> None:
    """A file here and a directory there, or the other way round: both stay as they are."""
    blocker = in_the_way(served, path)
    note(served, path, ConflictKind.CLASH, blocker[1] if blocker else None, remote)


def in_the_way(served: Served, path: bytes) -> tuple[bytes, Local] | None:
    """What in the tree keeps the object of that path from being imported: a file where a directory is needed, or what
    stands at the path itself."""
    components = path.split(b"/")
    for count in range(1, len(components) + 1):
        part = b"/".join(components[:count])
        local = served.shared.tree.identify(served.tree_path(part))
        if local is None:
            return None
        if count == len(components) or local.kind is not Kind.DIRECTORY:
            return part, local
    return None


def free_name(served: Served, path: bytes) -> bytes:
    """A conflict copy's name beside the path that neither the tree nor the catalog has: what a row knows is an object
    still, and must not be taken for this one's.

    Raises:
        TypeClash: there is none.
    """
    directory, _, name = path.rpartition(b"/")
    now_s = served.shared.now_ns() // 10**9
    for attempt in range(_ATTEMPTS):
        beside = conflict_name(name, now_s, served.shared.host, attempt)
        kept = directory + b"/" + beside if directory else beside
        is_known = served.shared.catalog.files.get(served.id, kept) is not None
        if not is_known and served.shared.tree.identify(served.tree_path(kept)) is None:
            return kept
    raise TypeClash(f"conflict at {shown(served, path)}", f"{_ATTEMPTS} conflict copies were made of it in this second")


def close_copy_if_gone(served: Served, path: bytes) -> None:
    """Somebody removed or renamed a conflict copy: that decides on it."""
    if served.shared.tree.identify(served.tree_path(path)) is None:
        served.shared.catalog.conflicts.delete_copy(served.id, path)


def still_clashes(served: Served, path: bytes) -> bool:
    """Somebody, perhaps a task alone, met a clash there, and what was in the object's way still is."""
    return is_clash(served, path) and in_the_way(served, path) is not None


def close_clash(served: Served, path: bytes) -> None:
    """What clashed with the path is gone."""
    catalog = served.shared.catalog
    if is_clash(served, path):
        catalog.conflicts.delete(served.id, path)
        catalog.problems.clear(served.id, path, ["refused"])


def open_conflicts(served: Served) -> list[Conflict]:
    """All of an association; those whose copy is gone are closed."""
    catalog, tree = served.shared.catalog, served.shared.tree
    found: list[Conflict] = []
    for conflict in catalog.conflicts.all(served.id):
        if conflict.kept_as and tree.identify(served.tree_path(conflict.kept_as)) is None:
            catalog.conflicts.delete(served.id, conflict.path, conflict.kept_as)
        elif conflict.kind is not ConflictKind.CLASH or in_the_way(served, conflict.path) is not None:
            found.append(conflict)
    return found


def kept_out_by(served: Served, path: bytes) -> list[Conflict]:
    """Clashes of paths below one that is no directory here."""
    local = served.shared.tree.identify(served.tree_path(path))
    if local is None or local.kind is Kind.DIRECTORY:
        return []
    below = served.shared.catalog.conflicts.below(served.id, path)
    return [conflict for conflict in below if conflict.kind is ConflictKind.CLASH]


def look_again_below(served: Served, path: bytes) -> None:
    """What stood in the way of objects at the path or below it may be gone: they can be imported now."""
    conflicts = served.shared.catalog.conflicts
    if conflicts.count(served.id) == 0:
        return
    for conflict in conflicts.at(served.id, path) + conflicts.below(served.id, path):
        if conflict.kind is ConflictKind.CLASH:
            served.add_hint(conflict.path, remote=True)
