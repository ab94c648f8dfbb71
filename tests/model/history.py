"""Who put each version of each object, which of them the daemon was told of, and what it knew when it replaced one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Made(NamedTuple):
    """One version that took effect. ``etag`` '' is a delete. ``by_ours``: the daemon put it."""

    etag: str
    by_ours: bool
    version_id: str | None
    at_s: float


class Row(NamedTuple):
    """What the catalog says of a path's object; None: it has no row, '': a directory that is there by its keys alone.
    ``is_known``: somebody could read it."""

    etag: str | None
    is_known: bool = True


UNKNOWN = Row(None, is_known=False)


@dataclass(frozen=True, slots=True)
class Replaced:
    """The daemon's write took the place of another user's version. ``row``: at that moment."""

    place: str
    theirs: Made
    ours: Made
    row: Row
    was_told: bool

    def __str__(self) -> str:
        deed = "deleted" if not self.ours.etag else f"replaced by {self.ours.etag}"
        knew = f"row of {self.row.etag!r}" if self.row.is_known else "unknown row"
        return f"{self.place}: {self.theirs.etag} was {deed}, with a {knew}, {'told' if self.was_told else 'unseen'}"


@dataclass
class History:
    """By place: /bucket/key. All in the store's lock."""

    versions: dict[str, list[Made]] = field(default_factory=dict)
    replaced: list[Replaced] = field(default_factory=list)
    rows: dict[str, Callable[[str], Row]] = field(default_factory=dict)
    """By an association's place: what its catalog says of a place below it this moment."""
    _told: set[tuple[str, str]] = field(default_factory=set)
    _copied: set[tuple[str, str]] = field(default_factory=set)

    def begin(self) -> None:
        """Forget the last world."""
        self.versions.clear()
        self.replaced.clear()
        self._told.clear()
        self._copied.clear()
        self.rows.clear()

    def row_of(self, place: str) -> Row:
        """What the daemon knows of it."""
        return next((ask(place) for root, ask in self.rows.items() if place.startswith(root)), UNKNOWN)

    def add(self, place: str, etag: str, *, by_ours: bool, version_id: str | None, row: Row | None = None) -> None:
        """Somebody wrote. ``row``: as it was before."""
        before = self.versions.setdefault(place, [])
        made = Made(etag, by_ours, version_id, time.time())
        if by_ours and before and not before[-1].by_ours and before[-1].etag:
            self.replaced.append(
                Replaced(place, before[-1], made, row or UNKNOWN, self.was_told(place, before[-1].etag))
            )
        before.append(made)

    def is_foreign(self, place: str) -> bool:
        """What is there is another user's."""
        before = self.versions.get(place)
        return bool(before) and not before[-1].by_ours and bool(before[-1].etag)

    def tell(self, place: str, etag: str) -> None:
        """The daemon knows of that version."""
        self._told.add((place, etag))

    def was_told(self, place: str, etag: str) -> bool:
        return (place, etag) in self._told

    def copied(self, source: str, etag: str) -> None:
        """The daemon had the store copy that version to another key."""
        self._copied.add((source, etag))

    def was_copied(self, source: str, etag: str) -> bool:
        return (source, etag) in self._copied
