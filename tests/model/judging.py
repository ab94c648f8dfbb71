"""Promise 2, from outside: why another user's version might stop being the current one by an act of the daemon.

Each such version was imported before (the row of its path stood for it), or the policy in force let the file win, or a
person did, or its bytes are in what took its place, or the store copied it to another key first. That the daemon was
told of a version is not enough: who asks for what is there and replaces that has overwritten it unseen.

What can't be decided from outside:

- A row knows its version by ETag, and so do the conditions of requests: of two versions with the same bytes and other
  metadata the second counts as imported with the first. Whether its metadata was merged shows when both sides are at
  rest (`World.check`).
- What time the file had that `newest` compared. Here it is the later of its mtime and of when an application brought
  something to that path (a rename or a link brings an old one), so a file may win rather too often than too seldom.
- Where nobody can read the row (the disk is full, the catalog not there yet) it is enough that the daemon was told.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.history import Replaced

SLACK_S = 1.0
"""An object's time is told in whole seconds."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of one replaced version, at its path."""

    policy: str
    edited_s: float | None
    """The time of what an application last brought there since both sides agreed; None: none did."""
    is_decided: bool
    """A person chose among the versions of the path."""
    has_its_bytes: bool
    """What took its place is made of the same bytes."""
    was_copied: bool


def reason_for(one: Replaced, there: Circumstances) -> str:
    """Why that was right; '' if nothing says so."""
    if one.row.is_known and one.row.etag == one.theirs.etag:
        return "imported before"
    if not one.row.is_known and one.was_told:
        return "told, and more can't be known"
    if there.edited_s is not None and there.policy == "local":
        return "the policy prefers the file"
    if there.edited_s is not None and there.policy == "newest" and one.theirs.at_s - SLACK_S <= there.edited_s:
        return "the file is the newer one"
    if there.is_decided:
        return "a person decided"
    if there.has_its_bytes:
        return "its bytes are there"
    if one.place.endswith("/") and one.row.etag == "" and one.was_told:
        return "a directory's marker is metadata of what its keys made: a delete of that wins"
    if there.was_copied and not one.ours.etag:
        return "moved to another key"
    return ""
