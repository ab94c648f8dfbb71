"""What a person may say of a file or directory, and of all that lies below it: never release, never archive."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.stub import RESERVED_PREFIX

NAMES = ("norelease", "noarchive")
XATTRS = tuple(RESERVED_PREFIX + name.encode() for name in NAMES)
"""The only reserved attributes that the mount lets be set and removed, by who owns the file."""
NORELEASE = XATTRS[0]


@dataclass(frozen=True, slots=True)
class Flags:
    """Lustre's never_release and never_archive (FSX-FACTS §6.1)."""

    norelease: bool = False
    noarchive: bool = False

    def __or__(self, other: Flags) -> Flags:
        if not (other.norelease or other.noarchive):
            return self
        return Flags(self.norelease or other.norelease, self.noarchive or other.noarchive)
