"""What a person has to see to before anything is synced at a path: written down alike, whoever's look met it."""

from __future__ import annotations

from fsxsync.errors import FsxSyncError, KeyRefused, NotExportable, ObjectEncrypted, TypeClash
from fsxsync.sync.journal import HELD, is_clash, record_problem
from fsxsync.sync.served import Served

REFUSED = (NotExportable, TypeClash, KeyRefused, ObjectEncrypted)
"""No other attempt mends these."""


def refuse(served: Served, path: bytes, error: FsxSyncError) -> None:
    """Report the path; whatever another look was refused for is not the reason any more."""
    kind = "not-exportable" if isinstance(error, NotExportable) else "refused"
    others = {"not-exportable", "refused", HELD} - {kind}
    if is_clash(served, path):
        others.discard("refused")
    served.shared.catalog.problems.clear(served.id, path, others)
    record_problem(served, path, kind, str(error), error.code, error.flow)
