"""What `fsxsync check` says: rules that must always hold between tree, catalog, stubs and repository, where broken."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Rule(enum.Enum):
    """The values are words of the command line (``rule`` of ``check --json``): they stay as they are."""

    ROW_WITHOUT_FILE = "row-without-file"
    FILE_WITHOUT_ROW = "file-without-row"
    UNSEEN_CHANGE = "unseen-change"
    """It differs from its row, and nothing is pending that would bring the change over."""
    RELEASED_WITHOUT_MARK = "released-without-mark"
    RESIDENT_WITH_MARK = "resident-with-mark"
    STUB_SIZE = "stub-size"
    STUB_VERSION = "stub-version"
    STUB_KEY = "stub-key"
    STUB_UNREADABLE = "stub-unreadable"
    STUB_ASTRAY = "stub-astray"
    """A stub in no association: nobody knows where its data is."""
    RESERVED_ATTRIBUTE = "reserved-attribute"
    STAGING_LEFTOVER = "staging-leftover"
    # with --verify
    LOCAL_DAMAGED = "local-damaged"
    """Other bytes than were synced, under the size and time that were: the disk changed them, no program did."""
    OBJECT_DIFFERS = "object-differs"
    OBJECT_CHANGED = "object-changed"
    OBJECT_GONE = "object-gone"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. ``path`` is below the tree's root, or absolute for what lies elsewhere; bytes that are no
    UTF-8 are surrogates, as `os.fsdecode` makes them. ``association`` is '' outside of every one."""

    path: str
    rule: Rule
    message: str
    association: str = ""
    repaired: bool = False
    repair: str = ""
    """What was done about it, or why nothing was; '' if nobody asked for that."""


@dataclass(slots=True)
class Tally:
    """What was looked at. Nothing is said of ``skipped`` files, which are dirty, pending, open or being loaded."""

    entries: int = 0
    broken: int = 0
    skipped: int = 0
    released: int = 0
    """Files whose data is not here, so that --verify has nothing to read."""
    verified: int = 0
    """Files whose bytes are the object's."""
    without_checksum: int = 0
    """Files of which only the version was compared: the repository has no checksum of them that could be."""
    differing: int = 0
    repaired: int = 0
    """Of the ``broken`` ones."""
    not_imported: int = 0
    """Objects that changed since, and will be imported once their source is read."""
