"""Keys that are no path: told once, counted, never guessed at (DESIGN §7)."""

from __future__ import annotations

from fsxsync.errors import KeyNotPosix
from fsxsync.sync.served import Served
from fsxsync.telemetry.codes import as_event


def refuse_key(served: Served, key: str, error: KeyNotPosix) -> None:
    """There is such an object; a listing says so each time, and an event for each version."""
    if key.rpartition("/")[2].startswith(".fsxsync-probe-"):
        return
    if not served.shared.catalog.refused_keys.see(served.id, key, served.shared.now_ns()):
        return
    served.counts.failures["import", as_event(error.code, "import")] += 1
    served.shared.eventlog.emit(
        code=error.code,
        flow="import",
        association=served.id,
        key=key,
        message=str(error),
    )
