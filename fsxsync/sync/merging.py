"""One metadata of two: what each side changed since the row was written. Pure."""

from __future__ import annotations

from fsxsync.model.identity import Base, Local, Posix, Remote


def merge(base: Base | None, local: Local, remote: Remote, *, local_wins: bool) -> Posix:
    """Field by field: who changed it decides, and ``local_wins`` where both did."""
    mine, theirs = local.posix, remote.posix

    def pick(name: str) -> int | None:
        ours: int | None = getattr(mine, name)
        other: int | None = getattr(theirs, name)
        if other is None:
            return ours  # the object says nothing: the file keeps what it has (FSX-FACTS §2.1)
        if base is None:
            return ours if local_wins else other
        if getattr(base, name) == ours:
            return other
        if getattr(base.posix, name) == other:
            return ours
        return ours if local_wins else other

    return Posix(
        mode=pick("mode"),
        uid=pick("uid"),
        gid=pick("gid"),
        mtime_ns=_merged_time(base, mine.mtime_ns, theirs.mtime_ns, local_wins=local_wins),
        atime_ns=mine.atime_ns,
        xattrs=_merged_xattrs(base, mine.xattrs, theirs.xattrs, local_wins=local_wins),
    )


def _merged_time(base: Base | None, mine: int | None, theirs: int | None, *, local_wins: bool) -> int | None:
    """As the other fields, but that the file's stays where nobody set one: what it has beyond its object's is kept."""
    if theirs is None or (base is not None and base.posix_known and base.posix.mtime_ns == theirs):
        return mine
    if base is not None and base.mtime_ns == mine:
        return theirs
    return mine if local_wins else theirs


def _merged_xattrs(base: Base | None, mine: str | None, theirs: str | None, *, local_wins: bool) -> str | None:
    """All of them as one field. What the object says nothing of stays as it is; None where they do not travel."""
    if mine is None or theirs is None:
        return mine if theirs is None else theirs
    known = (base.posix.xattrs or "") if base is not None else None
    if known in {mine, theirs}:
        return theirs if known == mine else mine
    return mine if local_wins else theirs
