"""The rules that `fsxsync check` asks of one path. Pure: a test can try every row of the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fsxsync.model.association import Policy
from fsxsync.model.finding import Finding, Rule
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.stub import StubMark
from fsxsync.sync.reconcile import QUIET, reconcile
from fsxsync.sync.renames import base_as_remote

UNREADABLE = StubMark.decode(b"")
"""What a mark becomes that can't be read."""


@dataclass(frozen=True, slots=True)
class Place:
    """What there is to know of a path beside its row and its file.

    ``association`` is '' outside of every one. ``key`` is the object's; None where the path can't be exported.
    ``stays`` says that what is there only here stays here: left out by a filter, or a problem that `status` shows.
    """

    path: str
    association: str
    key: str | None
    policy: Policy
    stays: bool = False

    def finding(self, rule: Rule, message: str) -> Finding:
        return Finding(self.path, rule, message, self.association)


def broken(row: Base | None, local: Local | None, pending: bool, place: Place) -> list[Finding]:
    """The rules that one path breaks.

    ``pending``: somebody will look at the path, or is at work on it; only what no look may find is told then.
    """
    mark = local.stub if local is not None else None
    if mark == UNREADABLE:
        return [place.finding(Rule.STUB_UNREADABLE, "its mark can't be read, so nobody knows where its data is")]
    if not place.association:
        return [] if mark is None else [_astray(mark, place)]
    if pending:
        return []
    found = _of_mark(row, local, mark, place)
    return found or _of_change(row, local, place)


def misplaced(names: Iterable[bytes], place: Place) -> list[Finding]:
    """Reserved attributes where none belongs."""
    return [
        place.finding(Rule.RESERVED_ATTRIBUTE, f"it carries the reserved attribute {name.decode('utf-8', 'replace')}")
        for name in names
    ]


def _astray(mark: StubMark, place: Place) -> Finding:
    return place.finding(Rule.STUB_ASTRAY, f"a stub of {mark.key} outside of every association: it can't be loaded")


def _of_mark(row: Base | None, local: Local | None, mark: StubMark | None, place: Place) -> list[Finding]:
    if local is None or row is None or row.kind is not Kind.FILE or local.kind is not Kind.FILE:
        return []
    if mark is None:
        # Written since, it is a change like any other, which the policy may keep here.
        if not row.released or (row.ino, row.size, row.mtime_ns) != (local.ino, local.size, local.mtime_ns):
            return []
        return [place.finding(Rule.RELEASED_WITHOUT_MARK, "the catalog has it as released, but it carries no mark")]
    found: list[Finding] = []
    if not row.released:
        found.append(place.finding(Rule.RESIDENT_WITH_MARK, "the catalog has it as resident, but it carries a mark"))
    if local.size != mark.size:
        message = f"a stub of {local.size} bytes for an object of {mark.size}"
        found.append(place.finding(Rule.STUB_SIZE, message))
    if local.nlink > 1:
        return found  # a mark that several names share has the version and the key of one of their objects
    if mark.etag != row.etag:
        message = f"a stub of the version {mark.etag}, the catalog has {row.etag}"
        found.append(place.finding(Rule.STUB_VERSION, message))
    if mark.key != place.key:
        found.append(place.finding(Rule.STUB_KEY, f"a stub of {mark.key}, which is another path's object"))
    return found


def _of_change(row: Base | None, local: Local | None, place: Place) -> list[Finding]:
    """What a look would do something about, as the repository is known. ctime alone is no change: a hard link that is
    made elsewhere moves it, and nothing tells of that."""
    if place.stays or (row is None and local is None):
        return []
    if row is not None and local is not None and _same_but_ctime(row, local):
        return []
    remote = base_as_remote(row) if row is not None else None
    if reconcile(row, local, remote, place.policy).verdict in QUIET:
        return []
    if local is None:
        return [place.finding(Rule.ROW_WITHOUT_FILE, "it is in the catalog only, and nothing is pending")]
    if row is None:
        return [place.finding(Rule.FILE_WITHOUT_ROW, "it is not in the catalog, and nothing is pending")]
    message = f"it is not as the catalog has it ({_differences(row, local)}), and nothing is pending"
    return [place.finding(Rule.UNSEEN_CHANGE, message)]


def _same_but_ctime(row: Base, local: Local) -> bool:
    return row.matches_local(local) or row.matches_local(local._replace(ctime_ns=row.ctime_ns))


def _differences(row: Base, local: Local) -> str:
    if row.kind is not local.kind:
        return f"its kind ({row.kind.value}, now {local.kind.value})"
    pairs = {
        "inode": (row.ino, local.ino),
        "size": (row.size, local.size),
        "mtime": (row.mtime_ns, local.mtime_ns),
        "mode": (row.mode, local.mode),
        "owner": ((row.uid, row.gid), (local.uid, local.gid)),
        "target": (row.target, local.target),
    }
    return ", ".join(name for name, (known, now) in pairs.items() if known != now)
