"""What a crash left in the staging directory: what may be somebody's only copy goes back, or stays; the rest goes."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.errors import FsxSyncError
from fsxsync.tree.placing import Places
from fsxsync.tree.staging import OLD, Note, Staging


@dataclass(frozen=True, slots=True)
class Rescued:
    """A file that may be of value. ``name`` is what the staging directory calls it, ``was`` where it stood, None if
    nobody knows; ``now`` where it is, None if it had to stay in the staging directory."""

    name: bytes
    was: bytes | None
    now: bytes | None


def recover(places: Places, staging: Staging) -> list[Rescued]:
    """Clear what an earlier daemon left; what was of value. What has to stay is named at each start. Raises
    TreeError."""
    rescued: list[Rescued] = []
    for name, note in staging.leftovers():
        if note is None:
            if _may_be_of_value(staging, name):
                rescued.append(Rescued(name, None, None))
            else:
                staging.discard_leftover(name)
        elif _is_worthless(places, staging, name, note):
            staging.discard_leftover(name)
        else:
            kept = _kept(places, name, note) or _rescue(places, name, note.keep_as or note.path)
            rescued.append(Rescued(name, note.path, kept))
            staging.discard_note(name)
    return rescued


def _may_be_of_value(staging: Staging, name: bytes) -> bool:
    """Of something without a note that can be read: a power cut emptied it, and whether this was taken out of the tree
    or was to be put in its place, nobody knows. The bytes of a stub are in the repository; of a size of its own, it is
    none any more."""
    if not name.startswith(OLD):
        return False
    now = staging.identify(name)
    return now.stub is None or now.stub.size != now.size


def _rescue(places: Places, name: bytes, path: bytes) -> bytes | None:
    """One that can't be placed keeps no daemon from starting: it stays, and is named again at the next start."""
    try:
        return places.rescue(name, path)
    except (FsxSyncError, OSError):
        return None


def _kept(places: Places, name: bytes, note: Note) -> bytes | None:
    """It was about to get that name, by which its conflict is known."""
    if note.keep_as is None:
        return None
    try:
        places.keep(name, note.keep_as)
    except OSError:
        return None
    return note.keep_as


def _is_worthless(places: Places, staging: Staging, name: bytes, note: Note) -> bool:
    now = staging.identify(name)
    if now.ino != note.ino:  # it was never exchanged in, or was taken back; or somebody replaced it where it stood
        return (now.ino, now.size, now.mtime_ns) == note.staged
    if note.keep_as is not None:
        return False  # also a stub: somebody renamed it, and its object is the old name's, which goes without it
    if now.stub is not None:
        return True  # what came in its place is a newer version of its object
    if places.is_written(name, now):
        return False
    now = staging.identify(name)  # after that: see `Places.exchange_in`
    return (now.size, now.mtime_ns) == (note.size, note.mtime_ns)
