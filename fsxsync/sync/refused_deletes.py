"""Mass deletes that were refused, also by a daemon before this one: what is gone may be on its way back, one after the
other, and would soon look like few. They stay refused until nothing is gone, or a person accepts it (DESIGN §3.6)."""

from __future__ import annotations

from typing import Final, TypeAlias

from fsxsync.sync.served import Served

Which: TypeAlias = str
SCANS: Final = "refused scans"
"""Of the tree."""
LISTINGS: Final = "refused listings"


def was_refused(served: Served, which: Which) -> bool:
    """The last one of the association was."""
    return served.id in _names(served, which)


def note(served: Served, which: Which, *, refused: bool) -> None:
    """What became of this one."""
    names = _names(served, which)
    if (served.id in names) != refused:
        others = [name for name in names if name != served.id]
        served.shared.catalog.facts.set(which, [*others, served.id] if refused else others)


def _names(served: Served, which: Which) -> list[str]:
    return list(served.shared.catalog.facts.get(which) or ())
