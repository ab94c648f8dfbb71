"""Which paths of an association travel. Pure; where a filter leaves a path out, `leaving` says what becomes of it.

Names are judged by globs, by a list of names that are never anybody's data, and by the ignore list that lies in the
association's directory; versions by their size, and by their age where their content would travel.
"""

from __future__ import annotations

import enum
import fnmatch
import functools
import re
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from fsxsync.model.association import DEFAULT_EXCLUDES, Association
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.sync.reconcile import Delta, local_delta, remote_delta

IGNORE_FILE = b".fsxsyncignore"
"""Directly below the association's directory. It does not travel: what is synced here is decided here."""
ALWAYS_EXCLUDED = (".fsxsync-*",)
"""Names of our own."""
_SIZED = frozenset({Kind.FILE, Kind.SYMLINK})
"""A symlink's size is the length of its target, here and there."""
_DEEP = 100
"""From so many directories on they are judged from the top: Python calls itself a thousand times at most."""
_CONTENT = frozenset({Delta.NEW, Delta.CONTENT})


class Age(enum.Enum):
    RIGHT = "right"
    TOO_YOUNG = "too young"
    TOO_OLD = "too old"


class Filters:
    """All filters of one association, made ready. Two are equal if they let the same paths through."""

    def __init__(self, association: Association, ignored: Iterable[str] = ()) -> None:
        """``ignored``: the lines of the ignore list.

        Raises:
            ValueError: a line is no pattern.
        """
        self.ignored = tuple(line for line in ignored if line.strip() and not line.startswith("#"))
        self.limits = association.limits
        defaults = DEFAULT_EXCLUDES if association.default_excludes else ()
        self._exclude = _Globs((*ALWAYS_EXCLUDED, *defaults, *association.exclude))
        self._include = _Globs(association.include) if association.include else None
        self._spec = GitIgnoreSpec.from_lines(self.ignored) if self.ignored else None
        self._is_ignored_directory = functools.lru_cache(maxsize=4096)(self._judge_directory)

    def wants(self, path: bytes, *, directory: bool) -> bool:
        """True if the name takes part in sync, be it a file's or a directory's.

        A glob without ``/`` is matched against each component, one with ``/`` against the whole relative path and
        the directories above. ``include``, where given, must match the path or one of its directories.
        """
        if path == IGNORE_FILE:
            return False
        name = path.decode("utf-8", "surrogateescape")
        if self._exclude.match(name):
            return False
        if self._include is not None and not self._include.match(name):
            return False
        return self._spec is None or not self._is_ignored(name, directory=directory)

    def why_not(self, path: bytes, association: Association, *, directory: bool) -> str:
        """For people: what in the filters makes `wants` say no."""
        name = path.decode("utf-8", "surrogateescape")
        if path == IGNORE_FILE:
            return "the ignore list itself does not travel"
        for globs, what in (
            (association.exclude, "--exclude {}"),
            (DEFAULT_EXCLUDES if association.default_excludes else (), "{}, a name of temporary files"),
            (ALWAYS_EXCLUDED, "{}, names of our own"),
        ):
            for glob in globs:
                if _Globs([glob]).match(name):
                    return what.format(glob)
        if self._include is not None and not self._include.match(name):
            return f"no --include names it ({', '.join(association.include)})"
        if self._spec is not None and self._is_ignored(name, directory=directory):
            return f"a line of {IGNORE_FILE.decode()}"
        return ""

    def _is_ignored(self, path: str, *, directory: bool) -> bool:
        parent = path.rpartition("/")[0]
        if path.count("/") > _DEEP:
            self._judge_from_the_top(parent)
        if parent and self._is_ignored_directory(parent):
            return True
        return self._is_ignored_directory(path) if directory else self._matches(path)

    def _judge_from_the_top(self, directory: str) -> None:
        """Each directory asks for the one above it; so many at once Python does not follow."""
        parts = directory.split("/")
        for depth in range(_DEEP, len(parts), _DEEP):
            self._is_ignored_directory("/".join(parts[:depth]))

    def _judge_directory(self, path: str) -> bool:
        """As in git: what lies in a directory that is left out can't be taken in again."""
        parent = path.rpartition("/")[0]
        return (bool(parent) and self._is_ignored_directory(parent)) or self._matches(path + "/")

    def _matches(self, path: str) -> bool:
        assert self._spec is not None
        return self._spec.match_file(path)

    def keeps(self, row: Base) -> bool:
        """What both sides agreed on still counts: its name and size are let through. A directory that only holds
        keys together is not judged by its name: ``include`` names files."""
        if row.is_implied:
            return True
        return self.wants(row.path, directory=row.kind is Kind.DIRECTORY) and not self._is_out(row.kind, row.size)

    def leaves_out(self, base: Base | None, local: Local | None, remote: Remote | None) -> bool:
        """One of the versions is too small or too large: then nothing is done to any of them."""
        return (
            (base is not None and self._is_out(base.kind, base.size))
            or (local is not None and self._is_out(local.kind, local.size))
            or (remote is not None and self._is_out(remote.kind, remote.size))
        )

    def lists(self, key_is_directory: bool, size: int) -> bool:
        """The size that a listing shows of an object is let through."""
        return key_is_directory or self.limits.holds(size)

    def _is_out(self, kind: Kind, size: int) -> bool:
        return kind in _SIZED and not self.limits.holds(size)

    # ------------------------------------------------------------- ages: only where content would travel

    def is_too_old(self, base: Base | None, local: Local | None, remote: Remote | None, now_ns: int) -> bool:
        """A path that was never in sync, and one of its versions is over ``max_age``. A released file is no version
        of its own: whatever its age, its object has to follow it."""
        limit = self.limits.max_age_ns
        if limit is None or base is not None or (local is not None and local.stub is not None):
            return False
        return any(now_ns - time_ns > limit for time_ns in _times(local, remote))

    def age_of_new(self, last_modified_ns: int, now_ns: int) -> Age:
        """What the same rules say of an object that only a listing has shown."""
        limits, age_ns = self.limits, now_ns - last_modified_ns
        if limits.max_age_ns is not None and age_ns > limits.max_age_ns:
            return Age.TOO_OLD
        if limits.min_age_ns is not None and age_ns < limits.min_age_ns:
            return Age.TOO_YOUNG
        return Age.RIGHT

    def young_until_ns(self, base: Base | None, local: Local | None, remote: Remote | None) -> int | None:
        """When the content that would travel will be ``min_age`` old; None if nothing has to wait for that."""
        limit = self.limits.min_age_ns
        if limit is None:
            return None
        new_local = local if local_delta(base, local) in _CONTENT and (local is None or local.stub is None) else None
        new_remote = remote if remote_delta(base, remote) in _CONTENT else None
        return max((time_ns + limit for time_ns in _times(new_local, new_remote)), default=None)


def _times(local: Local | None, remote: Remote | None) -> list[int]:
    """When the content of files and objects was written; directories have none."""
    found: list[int] = []
    if local is not None and local.kind in _SIZED:
        found.append(local.mtime_ns)
    if remote is not None and remote.kind in _SIZED:
        found.append(remote.last_modified_ns)
    return found


class _Globs:
    """Some globs as two patterns: one for names, one for paths."""

    def __init__(self, globs: Iterable[str]) -> None:
        plain = [glob.strip("/") for glob in globs]
        self._names = _pattern([glob for glob in plain if "/" not in glob])
        self._paths = _pattern([glob for glob in plain if "/" in glob])
        self._match_directory = functools.lru_cache(maxsize=4096)(self._match_each)

    def match(self, path: str) -> bool:
        """One of them matches the path or one of the directories above it."""
        directory, _, name = path.rpartition("/")
        return (bool(directory) and self._match_directory(directory)) or self._match_one(name, path)

    def _match_each(self, directory: str) -> bool:
        parts = directory.split("/")
        return any(self._match_one(part, "/".join(parts[:count])) for count, part in enumerate(parts, start=1))

    def _match_one(self, name: str, path: str) -> bool:
        if self._names is not None and self._names.fullmatch(name):
            return True
        return self._paths is not None and self._paths.fullmatch(path) is not None


def _pattern(globs: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)) if globs else None
