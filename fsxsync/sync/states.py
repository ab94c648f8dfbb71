"""`fsxsync state`: a path in Lustre's words and bits (FSX-FACTS §6.1)."""

from __future__ import annotations

from fsxsync.errors import NotExportable
from fsxsync.model.identity import Kind, Local
from fsxsync.ports import FileState
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served

EXISTS, DIRTY, RELEASED, ARCHIVED, LOST = 0x01, 0x02, 0x04, 0x08, 0x40
WORDS = (
    (RELEASED, "released"),
    (EXISTS, "exists"),
    (DIRTY, "dirty"),
    (ARCHIVED, "archived"),
    (LOST, "lost_from_hsm"),
)


def state_of(served: Served | None, tree_path: bytes, local: Local, resident_bytes: int | None) -> FileState:
    """The state of what stands at a path; ``resident_bytes`` where somebody is loading it."""
    shown = tree_path.decode("utf-8", "surrogateescape")
    size = 0 if local.kind is Kind.DIRECTORY else local.size
    here = size if local.stub is None else resident_bytes or 0
    path = served.association.relative(tree_path) if served is not None else None
    if served is None or not path:
        return FileState(
            shown, 0, (), local.kind, here, size, None, None, None, served.id if served else None, False, None
        )
    catalog = served.shared.catalog
    base = catalog.files.get(served.id, path)
    is_any_pending = catalog.changelog.count(served.id)[0] > 0
    entries = catalog.changelog.pending(served.id, path, 1) if is_any_pending else []
    pending = [entry for entry in entries if entry.path == path]
    problems = catalog.problems.get(served.id, path)
    bits = 0
    if base is not None and base.etag is not None:
        bits = EXISTS | ARCHIVED
        if local.stub is None and local_delta(base, local) is Delta.CONTENT:
            bits |= DIRTY
    if local.stub is not None:
        bits |= RELEASED
    if any(problem.kind == "lost" for problem in problems):
        bits = (bits | LOST) & ~ARCHIVED
    key = exportable_key(served, path, local.kind)
    error = next((entry.last_error for entry in pending if entry.last_error), None)
    return FileState(
        path=shown,
        bits=bits,
        flags=tuple(word for bit, word in WORDS if bits & bit),
        kind=local.kind,
        resident_bytes=here,
        size=size,
        etag=base.etag if base else None,
        version_id=base.version_id if base else None,
        key=None if isinstance(key, NotExportable) else key,
        association=served.id,
        pending=bool(pending),
        error=error or next((problem.message for problem in problems), None),
    )
