"""What needs a person: lines of `fsxsync status` that say what is wrong, and what to do.

What is pending, in flight, waits for something in the repository or can't be exported by its nature is none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fsxsync.model.association import Lifecycle
from fsxsync.ports import AssociationStatus
from fsxsync.sync.journal import DAMAGED_OBJECT, shown
from fsxsync.sync.served import Served

NEEDS_PERSON_AFTER = 3
"""Failed attempts at one path after which somebody should look."""
PROBLEMS = {
    "lost": (
        "lost files, their objects are gone",
        "put the objects back and 'fsxsync import PATH', or remove the files",
    ),
    "refused": ("objects that can't be files here", "'fsxsync why PATH' says why; rename one of the two sides"),
    "damaged": ("damaged files, not exported", "'fsxsync why PATH' says what to do with each"),
    DAMAGED_OBJECT: ("objects that don't fit their checksum", "compare them with other copies, and upload them again"),
}
"""Kinds of problems that no other attempt mends: what they are, and what to do."""
DISK_FULL = (
    "the disk is full and nothing can be released: what is here is open, not exported yet, or kept by norelease; "
    "free some space on the file system of the state directory, or take norelease back ('fsxsync state --clear')"
)
_NAMED = 3


def complaints(served: Served, row: AssociationStatus) -> Iterator[str]:
    """Of one association, a line for each kind of trouble."""
    association, catalog = row.association, served.shared.catalog
    place = association.file_system_path
    if association.lifecycle in {Lifecycle.MISCONFIGURED, Lifecycle.FAILED}:
        yield f"{association.id} ({place}): {association.failure}"
    if row.conflicts:
        named = _named(served, catalog.conflicts.paths(served.id, _NAMED), row.conflicts)
        yield f"{place}: {row.conflicts} open conflicts ({named}); 'fsxsync conflicts resolve PATH --keep …' decides"
    for kind, (what, advice) in PROBLEMS.items():
        count = catalog.problems.count(served.id, kind)
        if count:
            named = _named(served, catalog.problems.paths_after(served.id, kind, b"", _NAMED), count)
            yield f"{place}: {count} {what} ({named}); {advice}"
    for item in row.recent_errors:
        if item.attempts >= NEEDS_PERSON_AFTER:
            yield f"{item.path}: {item.error or item.waiting_for}"


def _named(served: Served, paths: Sequence[bytes], count: int) -> str:
    more = ", …" if count > len(paths) else ""
    return ", ".join(shown(served, path) for path in paths) + more
