"""The one decision: base, local and remote of a path -> one action. Pure: a test can try every case.

Two deltas pick a row of `TABLE`; special cases above the table are those in which one side has no bytes
of its own (a stub) or in which both sides are equal already. Policy comes last: it turns conflicts into
actions (DESIGN §8) and refuses what a direction's events do not allow (FSX-FACTS §2).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from fsxsync.model.association import Event, OnConflict, Policy
from fsxsync.model.doubt import Trust
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.sync.merging import merge


class Delta(enum.Enum):
    """What one side did since the base was written."""

    NONE = "no base, nothing there"
    NEW = "no base, something there"
    SAME = "as the base"
    META = "metadata changed"
    CONTENT = "content changed"
    GONE = "removed"


class Verdict(enum.Enum):
    NOTHING = "nothing to do"
    REFRESH = "only the row is behind: write it"
    ADOPT = "both sides are equal already: write the row, move nothing"
    FORGET = "both sides are gone: drop the row"
    EXPORT = "upload content and metadata"
    EXPORT_META = "change the object's metadata"
    EXPORT_DELETE = "delete the object"
    IMPORT = "the object takes the path"
    IMPORT_META = "change the file's metadata"
    IMPORT_DELETE = "remove the file"
    MERGE_EXPORT = "upload our content with the merged metadata"
    MERGE_IMPORT = "import the object's content with the merged metadata"
    CONFLICT = "both contents changed"
    META_CONFLICT = "both metadata changed"
    KEEP_BOTH = "the object takes the path, the file is kept beside it"
    LOST = "a stub whose object is gone"
    DAMAGED = "a stub that lost its mark, or whose data was touched"
    BLOCKED = "the policy allows neither side to move: a person decides"


D, V = Delta, Verdict

TABLE: dict[tuple[Delta, Delta], Verdict] = {
    # (local, remote): no base
    (D.NONE, D.NONE): V.NOTHING,
    (D.NEW, D.NONE): V.EXPORT,
    (D.NONE, D.NEW): V.IMPORT,
    (D.NEW, D.NEW): V.CONFLICT,
    # one side moved
    (D.SAME, D.SAME): V.NOTHING,
    (D.META, D.SAME): V.EXPORT_META,
    (D.CONTENT, D.SAME): V.EXPORT,
    (D.GONE, D.SAME): V.EXPORT_DELETE,
    (D.SAME, D.META): V.IMPORT_META,
    (D.SAME, D.CONTENT): V.IMPORT,
    (D.SAME, D.GONE): V.IMPORT_DELETE,
    # both moved: an edit beats a delete, a delete beats metadata, content and metadata are both applied (DESIGN §8)
    (D.META, D.META): V.META_CONFLICT,
    (D.META, D.CONTENT): V.MERGE_IMPORT,
    (D.META, D.GONE): V.IMPORT_DELETE,
    (D.CONTENT, D.META): V.MERGE_EXPORT,
    (D.CONTENT, D.CONTENT): V.CONFLICT,
    (D.CONTENT, D.GONE): V.EXPORT,
    (D.GONE, D.META): V.EXPORT_DELETE,
    (D.GONE, D.CONTENT): V.IMPORT,
    (D.GONE, D.GONE): V.FORGET,
}

QUIET = frozenset({V.NOTHING, V.REFRESH, V.ADOPT, V.FORGET})


@dataclass(frozen=True, slots=True)
class Action:
    """A verdict with the state that it was made on; its executor must find that state again or give up.

    ``posix`` is the metadata that both sides shall have afterwards, where a merge decided it. ``conflict``
    asks for an entry in the event log. ``suppressed`` names what the policy did not allow.
    """

    verdict: Verdict
    base: Base | None
    local: Local | None
    remote: Remote | None
    posix: Posix | None = None
    conflict: bool = False
    suppressed: Verdict | None = None


def needs_digest(base: Base | None, local: Local | None) -> bool:
    """Reading the file can tell "touched" from "changed": worth it before bytes are moved."""
    return (
        base is not None
        and local is not None
        and local.kind is Kind.FILE
        and base.kind is Kind.FILE
        and local.stub is None
        and base.content_hash is not None
        and local.size == base.size
        and not base.matches_local(local)
    )


def _same_content(base: Base, local: Local) -> bool:
    if local.kind is not base.kind:
        return False
    if local.kind is Kind.DIRECTORY:
        return True
    if local.kind is Kind.SYMLINK:
        return local.target == base.target
    if local.stub is not None:
        return local.stub.etag == base.etag and local.size == local.stub.size
    if local.content_hash is not None and base.content_hash is not None:
        return local.content_hash == base.content_hash  # also of a released file: the row follows the mark
    if base.released:
        return False
    return (base.ino, base.size, base.mtime_ns, base.ctime_ns) == (
        local.ino,
        local.size,
        local.mtime_ns,
        local.ctime_ns,
    )


def _same_metadata(base: Base, local: Local) -> bool:
    if local.kind is Kind.SYMLINK:
        return (base.uid, base.gid) == (local.uid, local.gid)
    if (base.mode, base.uid, base.gid) != (local.mode, local.uid, local.gid):
        return False
    if local.xattrs is not None and local.xattrs != (base.posix.xattrs or ""):
        return False
    # A directory's times were set by somebody (utimensat leaves mtime behind ctime) rather than moved by an
    # entry (mtime and ctime are one instant then): tar and cp -a end with this, and nothing else tells of it.
    return not (
        local.kind is Kind.DIRECTORY and local.mtime_ns not in {base.mtime_ns, local.ctime_ns} and not base.is_implied
    )


def local_delta(base: Base | None, local: Local | None) -> Delta:
    """What happened in the tree since the base."""
    if base is None:
        return D.NONE if local is None else D.NEW
    if local is None:
        return D.GONE
    if not _same_content(base, local):
        return D.CONTENT
    return D.SAME if _same_metadata(base, local) else D.META


def remote_delta(base: Base | None, remote: Remote | None) -> Delta:
    """What happened in the repository since the base."""
    if base is None:
        return D.NONE if remote is None else D.NEW
    if remote is None:
        return D.SAME if base.is_implied else D.GONE
    if remote.kind is not base.kind and remote.posix_known:
        return D.CONTENT
    if base.kind is not Kind.DIRECTORY and (remote.etag, remote.size) != (base.etag, base.remote_size):
        return D.CONTENT
    if not remote.posix_known:
        return D.SAME
    if not base.posix_known or base.is_implied or _shared(remote.posix) != _shared(base.posix):
        return D.META
    return D.SAME


def _shared(posix: Posix) -> tuple[int | str | None, ...]:
    """What counts as metadata of an object; atime moves with every read and alone is no change."""
    return (posix.mode, posix.uid, posix.gid, posix.mtime_ns, posix.xattrs or None)


def _local_is_later(local: Local, remote: Remote) -> bool:
    return local.ctime_ns > remote.last_modified_ns


def _merged(verdict: Verdict, base: Base | None, local: Local, remote: Remote, policy: Policy) -> Posix:
    """The metadata that both sides shall have."""
    local_wins = policy.on_conflict is OnConflict.LOCAL or (
        policy.on_conflict is not OnConflict.REMOTE and _local_is_later(local, remote)
    )
    local_wins = local_wins and not (base is None and _is_as_listed(local, remote))
    posix = merge(base, local, remote, local_wins=local_wins)
    if verdict is not V.ADOPT:  # the times are those of the content
        content = local.posix if verdict is V.MERGE_EXPORT else remote.posix
        return posix._replace(mtime_ns=content.mtime_ns, atime_ns=content.atime_ns)
    if local_delta(base, local) is D.CONTENT and _time_was_set_there(local, remote, policy):
        return posix._replace(mtime_ns=remote.posix.mtime_ns)
    return posix


def _time_was_set_there(local: Local, remote: Remote, policy: Policy) -> bool:
    """Our own upload, whose row a crash prevented, said the file's time: another one is somebody's wish, also if it is
    that of the content before. A time alone is not exported, so that the sides can agree in theirs only."""
    if local.kind is Kind.DIRECTORY or remote.posix.mtime_ns is None:
        return False
    is_later_there = local.ctime_ns // 10**9 <= remote.last_modified_ns // 10**9
    return policy.on_conflict is OnConflict.REMOTE or is_later_there


def _is_as_listed(local: Local, remote: Remote) -> bool:
    """A stub that was made of a listing, and whose row a crash prevented: its mode and owner are nobody's wish. The
    object's own time it would have got with them."""
    return local.stub is not None and local.mtime_ns // 10**9 == remote.last_modified_ns // 10**9


def equal(local: Local, remote: Remote, *, same_bytes: bool | None) -> bool:
    """Same content for certain. An unknown digest is not equal: doubt becomes a conflict, never an adopt."""
    if local.kind is not remote.kind:
        return False
    if local.kind is Kind.DIRECTORY:
        return True
    if local.stub is not None:
        return local.stub.etag == remote.etag and local.size == remote.size
    return same_bytes is True


def _stub_verdict(base: Base | None, local: Local, remote: Remote | None) -> Verdict | None:
    """A stub has no bytes of its own to lose or to export; None where the table may decide."""
    mark = local.stub
    if mark is None:
        return None
    if base is not None and mark.etag == base.etag and local.size == mark.size:
        if remote is None and remote_delta(base, remote) is D.GONE:
            return V.IMPORT_DELETE
        return None
    if remote is None:
        return V.LOST
    # A listing does not tell a symlink from a file: what was made of one is no symlink yet.
    return V.ADOPT if equal(local, remote, same_bytes=None) else V.IMPORT


def _verdict(
    base: Base | None, local: Local | None, remote: Remote | None, *, same_bytes: bool | None, moved: bool
) -> Verdict:
    if local is not None and local.written_in_part:
        return V.DAMAGED  # its hole may be somebody's zeros, or data which is missing
    if local is not None and not moved and (special := _stub_verdict(base, local, remote)) is not None:
        return special
    mine, theirs = local_delta(base, local), remote_delta(base, remote)
    verdict = TABLE[mine, theirs]
    is_news = bool({mine, theirs} & {D.NEW, D.CONTENT})
    if is_news and local is not None and remote is not None and equal(local, remote, same_bytes=same_bytes):
        return V.ADOPT  # a crash between upload and row looks like a conflict, and is none
    if mine is D.CONTENT and _is_stripped(base, local):
        return V.DAMAGED
    if (
        verdict is V.META_CONFLICT
        and local is not None
        and remote is not None
        and _metadata_agrees(base, local, remote)
    ):
        return V.REFRESH  # our own metadata copy, seen again after a crash
    if verdict is V.NOTHING and base is not None and _row_is_behind(base, local, remote):
        return V.REFRESH
    return verdict


def _doubted(verdict: Verdict, mine: Delta, theirs: Delta, trust: Trust) -> Verdict:
    """What is done where a power cut may have taken back what was done here, and an object is there."""
    if mine is D.GONE:
        return V.IMPORT
    if mine is D.CONTENT and theirs is not D.GONE and verdict in {V.EXPORT, V.MERGE_EXPORT} and trust is Trust.NONE:
        return V.CONFLICT
    return verdict


def _is_stripped(base: Base | None, local: Local | None) -> bool:
    """The row says stub, the file has no mark, and its bytes are neither the object's nor what was loaded last. It is
    untouched otherwise: the mark was stripped. That is never exported as zeros (DESIGN §3.4)."""
    if base is None or local is None or not base.released or local.stub is not None or local.kind is not Kind.FILE:
        return False
    is_touched = (local.ino, local.size, local.mtime_ns) != (base.ino, base.size, base.mtime_ns)
    return local.size > 0 and not is_touched


def _metadata_agrees(base: Base | None, local: Local, remote: Remote) -> bool:
    """Both sides were changed to the same. An object that says nothing agrees with what nobody changed here."""
    mine, theirs = base.said_of(local.posix) if base is not None else local.posix, remote.posix
    if mine.xattrs is not None and mine.xattrs != (theirs.xattrs or ""):
        return False
    for name in ("mode", "uid", "gid"):
        other, ours = getattr(theirs, name), getattr(mine, name)
        if other is None and base is not None:
            other, ours = getattr(base, name), getattr(local, name)
        if other not in {None, ours}:
            return False
    return _time_agrees(base, local, remote)


def _time_agrees(base: Base | None, local: Local, remote: Remote) -> bool:
    """A time that somebody set there is one to be imported; on a directory, one that was set here is to be exported."""
    ours, theirs = local.posix.mtime_ns, remote.posix.mtime_ns
    if base is None or ours == theirs:
        return True
    is_set_here = local.kind is Kind.DIRECTORY and local.mtime_ns not in {base.mtime_ns, local.ctime_ns}
    return not is_set_here and theirs in {None, base.posix.mtime_ns}


def _row_is_behind(base: Base, local: Local | None, remote: Remote | None) -> bool:
    if local is not None and (
        not base.matches_local(local) or base.mtime_ns != local.mtime_ns or base.released != (local.stub is not None)
    ):
        return True
    return remote is not None and (
        base.etag != remote.etag
        or base.version_id != remote.version_id
        or (remote.posix_known and not base.posix_known)
        or (remote.posix_known and base.last_modified_ns < remote.last_modified_ns)  # the same was written once more
        or base.storage_class != remote.storage_class
    )


_NEEDS: dict[Verdict, tuple[str, Event]] = {
    V.EXPORT: ("exports", Event.CHANGED),
    V.EXPORT_META: ("exports", Event.CHANGED),
    V.MERGE_EXPORT: ("exports", Event.CHANGED),
    V.EXPORT_DELETE: ("exports", Event.DELETED),
    V.IMPORT: ("imports", Event.CHANGED),
    V.IMPORT_META: ("imports", Event.CHANGED),
    V.MERGE_IMPORT: ("imports", Event.CHANGED),
    V.KEEP_BOTH: ("imports", Event.CHANGED),
    V.IMPORT_DELETE: ("imports", Event.DELETED),
}


def _allowed(verdict: Verdict, base: Base | None, policy: Policy) -> bool:
    if verdict not in _NEEDS:
        return True
    side, event = _NEEDS[verdict]
    if base is None and event is Event.CHANGED:
        event = Event.NEW
    if base is not None and not base.posix_known and verdict is V.IMPORT_META:
        event = Event.NEW  # the second half of an import: the listing gave the name, this gives the metadata
    allowed: frozenset[Event] = policy.exports if side == "exports" else policy.imports
    return event in allowed


def _resolve(verdict: Verdict, local: Local, remote: Remote, policy: Policy) -> Verdict:
    """Turn a conflict into an action (DESIGN §8)."""
    if verdict is V.META_CONFLICT:
        local_wins = policy.on_conflict is OnConflict.LOCAL or (
            policy.on_conflict in {OnConflict.KEEP_BOTH, OnConflict.NEWEST} and _local_is_later(local, remote)
        )
        return V.EXPORT_META if local_wins else V.IMPORT_META
    match policy.on_conflict:
        case OnConflict.LOCAL:
            return V.EXPORT
        case OnConflict.REMOTE:
            return V.IMPORT
        case OnConflict.NEWEST:
            return V.EXPORT if local.mtime_ns > remote.last_modified_ns else V.IMPORT
        case OnConflict.KEEP_BOTH:
            return V.KEEP_BOTH


def reconcile(
    base: Base | None,
    local: Local | None,
    remote: Remote | None,
    policy: Policy,
    *,
    same_bytes: bool | None = None,
    moved: bool = False,
    decided: OnConflict | None = None,
    trust: Trust = Trust.FULL,
) -> Action:
    """Decide what to do about one path.

    ``same_bytes`` is what comparing the file with the object's checksum said; None where nobody could tell.
    ``moved`` says of a stub that the object it stands for is there, under another key: somebody renamed it to this
    path, and its content is an edit like any other. Its bytes are only where the copy to this path's key gets them.
    ``decided`` is a person's word on a conflict of contents: it stands above the policy, also above what that allows.
    ``trust``: how far the tree is believed; where it is not, no content loses to another, whatever the policy says.
    """
    verdict = _verdict(base, local, remote, same_bytes=same_bytes, moved=moved)
    if trust is not Trust.FULL and remote is not None:
        verdict = _doubted(verdict, local_delta(base, local), remote_delta(base, remote), trust)
        policy = replace(policy, on_conflict=OnConflict.KEEP_BOTH)
    posix: Posix | None = None
    conflict = False
    if verdict in {V.CONFLICT, V.META_CONFLICT} and local is not None and remote is not None:
        conflict = True
        by_hand = decided is not None and verdict is V.CONFLICT
        if by_hand and decided is not None:
            policy = replace(policy, on_conflict=decided)
        wanted = _resolve(verdict, local, remote, policy)
        if verdict is V.META_CONFLICT:
            posix = merge(base, local, remote, local_wins=wanted is V.EXPORT_META)
        if not by_hand and not _allowed(wanted, base, policy):
            return Action(V.BLOCKED, base, local, remote, conflict=True, suppressed=wanted)
        return Action(wanted, base, local, remote, posix=posix, conflict=True)
    if verdict in {V.MERGE_EXPORT, V.MERGE_IMPORT, V.ADOPT} and local is not None and remote is not None:
        posix = _merged(verdict, base, local, remote, policy)
    if (local_delta(base, local), remote_delta(base, remote)) in {(D.CONTENT, D.GONE), (D.GONE, D.CONTENT)}:
        conflict = verdict in {V.EXPORT, V.IMPORT} and not (local is not None and local.stub is not None)
    if not _allowed(verdict, base, policy):
        return Action(V.NOTHING, base, local, remote, suppressed=verdict)
    return Action(verdict, base, local, remote, posix=posix, conflict=conflict)
