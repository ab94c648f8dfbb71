"""Stop before a mass accident (DESIGN §3.6). Pure decisions: what is implausible, and the sentence that says so."""

from __future__ import annotations

EMPTY_FLOOR = 10
"""Nothing at all where at least this many were known is not believed."""
GONE_FLOOR = 100
SHARE = 0.5
"""Nor that more than this many and more than this share of all are gone at once."""


def implausible_listing(known: int, missing: int, listed: int, *, missing_files: int = 0, markers: int = 0) -> str:
    """'' if the listing may be believed; else why not.

    ``known`` objects were there at the last agreement. ``missing`` of them, ``missing_files`` of which are no directory
    markers, are not in a listing of ``listed`` keys. Not counted among these are ``markers`` of directories: they stay,
    or are made by a store's console, where everything else is gone.
    """
    if listed == 0 and known >= EMPTY_FLOOR and missing == known:
        return f"the listing is empty{_but_for(markers)}, and {known} objects were known"
    if listed == 0 and missing_files >= EMPTY_FLOOR:
        return f"the listing is empty{_but_for(markers)}, and {missing_files} objects of files were known"
    if _too_many(known, missing):
        return f"{missing} of {known} known objects are missing from the listing"
    return ""


def implausible_scan(known: int, gone: int, *, was_refused: bool = False) -> str:
    """'' if the scan may be believed; else why not.

    ``known`` files were there at the last agreement, ``gone`` of them are nowhere in the tree, and nobody saw them go.
    ``was_refused``: the scan before this one was; as long as any are gone somebody may be bringing them back, one after
    the other.
    """
    if gone == known and known >= EMPTY_FLOOR:
        return f"no file is left in the tree, and {known} were known"
    if _too_many(known, gone):
        return f"{gone} of {known} known files are gone from the tree, and nobody saw them go"
    if was_refused and gone:
        return f"{gone} of {known} known files are still gone from the tree, of more that nobody saw go"
    return ""


def _but_for(markers: int) -> str:
    return " but for directory markers" if markers else ""


def _too_many(known: int, gone: int) -> bool:
    return gone > GONE_FLOOR and gone > known * SHARE


LISTING_ADVICE = (
    "check bucket, prefix and permissions; nothing was deleted here. If the objects really are to go, "
    "run 'fsxsync association update ID --accept-deletes'"
)
SCAN_ADVICE = (
    "check that all its disks are mounted; no object was deleted. If the files really are to go, "
    "run 'fsxsync association update ID --accept-deletes'"
)
