"""Which paths of an association travel: include and exclude globs, and names that are never anybody's data."""

from __future__ import annotations

import fnmatch
import functools
import re

from fsxsync.model.association import Association

EXCLUDED_BY_DEFAULT = (".fuse_hidden*", ".nfs*", ".fsxsync-*")
"""Names that a file system makes for itself while a deleted file is open, and our own."""


@functools.lru_cache(maxsize=256)
def _pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs))


def is_wanted(association: Association, path: bytes) -> bool:
    """True if the path takes part in sync.

    A glob without ``/`` is matched against each component, one with ``/`` against the whole relative path.
    ``include``, where given, must match the path or one of its directories.
    """
    parts = path.decode("utf-8", "surrogateescape").split("/")
    if any(_pattern(EXCLUDED_BY_DEFAULT).fullmatch(part) for part in parts):
        return False
    if association.exclude and _matches(association.exclude, parts):
        return False
    return not association.include or _matches(association.include, parts)


def _matches(globs: tuple[str, ...], parts: list[str]) -> bool:
    for glob in globs:
        pattern = _pattern((glob.strip("/"),))
        if "/" in glob.strip("/"):
            if any(pattern.fullmatch("/".join(parts[:count])) for count in range(1, len(parts) + 1)):
                return True
        elif any(pattern.fullmatch(part) for part in parts):
            return True
    return False
