"""Stop before a mass accident (DESIGN §3.6). Pure decisions: what is implausible, and the sentence that says so."""

from __future__ import annotations

EMPTY_FLOOR = 10
"""A listing that shows nothing where at least this many objects were known is not believed."""
SHARE_FLOOR = 1000
SHARE = 0.5


def implausible_listing(known: int, missing: int, listed: int) -> str:
    """'' if the listing may be believed; else why not.

    ``known`` objects were there at the last agreement, ``missing`` of them are not in a listing of ``listed`` keys.
    """
    if listed == 0 and known >= EMPTY_FLOOR:
        return f"the listing is empty, and {known} objects were known"
    if missing >= SHARE_FLOOR and missing > known * SHARE:
        return f"{missing} of {known} known objects are missing from the listing"
    return ""


ADVICE = (
    "check bucket, prefix and permissions; nothing was deleted here. If the objects really are to go, "
    "run 'fsxsync association update ID --accept-deletes'"
)
