"""After a power cut: what the tree shows may be older than what the catalog and the repository know.

A file system brings to the disk what was written some seconds ago; of what came later a file may be missing, shorter,
or under the name that it had before. The catalog and the bucket may be ahead of it. So what the first scan after a
machine went down finds missing or changed is no word of anybody's:

    gone here, and an object is there  ->  it is imported again, not deleted
    changed here                       ->  both are kept, whatever the policy says; unless the changelog knew of it
                                           before, and the object is the one that it was changed from

A daemon that ends by itself brings the tree to the disk first (`end`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fsxsync.catalog.changelog import Entry
from fsxsync.catalog.facts import Facts
from fsxsync.model.doubt import Trust
from fsxsync.sync.boot import this_boot

_RUNNING, _DOUBTED = "running under boot", "doubted after a power cut"


@dataclass(slots=True)
class Doubt:
    """Of one association, until its tree was scanned and all that differed was looked at. ``again``: a daemon has begun
    with that before, so that the changelog's entries may be what a scan found."""

    started_ns: int
    again: bool
    noted: set[bytes]
    """Of renames that were under way: their rows may come after the scan has passed."""
    scanned: bool = False
    """Until then what differs waits: what is missing may have been renamed."""
    paths: set[bytes] = field(default_factory=set)
    """What the scan found to be different, and was not looked at yet."""

    def trust(self, entry: Entry) -> Trust:
        """How far a look at a path may believe the tree."""
        if self.scanned and entry.path not in self.paths:
            return Trust.FULL
        was_pending = entry.local and entry.first_seen_ns < self.started_ns and not self.again
        return Trust.EDITS if was_pending else Trust.NONE

    def scan_ended(self, pending: Iterable[bytes]) -> None:
        """What differs is in the changelog; of the rest it was found out that it does not."""
        self.paths = (self.paths | self.noted).intersection(pending)
        self.scanned = True

    @property
    def is_over(self) -> bool:
        return self.scanned and not self.paths


def begin(facts: Facts, associations: Iterable[str]) -> dict[str, bool]:
    """Which of them have trees that are doubted, and whether they had before. Written down for the next start."""
    boot, before, earlier = this_boot(), facts.get(_RUNNING), facts.get(_DOUBTED) or {}
    went_down = before not in {None, boot}
    doubted = {name: name in earlier for name in associations if went_down or name in earlier}
    facts.set(_DOUBTED, doubted)
    facts.set(_RUNNING, boot)
    return doubted


def settled(facts: Facts, association: str) -> None:
    """All that differed was looked at."""
    facts.set(_DOUBTED, {name: again for name, again in (facts.get(_DOUBTED) or {}).items() if name != association})


def end(facts: Facts) -> None:
    """The tree is on the disk, and nobody works in it on our behalf any more."""
    facts.set(_RUNNING, None)
