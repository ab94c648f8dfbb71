"""What a crash left in the staging directory: what may be somebody's only copy goes back, the rest goes."""

from __future__ import annotations

from fsxsync.tree.placing import Places
from fsxsync.tree.staging import Note, Staging


def recover(places: Places, staging: Staging) -> list[tuple[bytes, bytes | None]]:
    """Clear what an earlier daemon left. (Path it stood at, path it has now or None if it had to stay) of each file
    that was of value. Raises TreeError."""
    rescued: list[tuple[bytes, bytes | None]] = []
    for name, note in staging.leftovers():
        if note is None or _is_worthless(places, staging, name, note):
            staging.discard_leftover(name)
            continue
        kept = _kept(places, name, note) or places.rescue(name, note.keep_as or note.path)
        rescued.append((note.path, kept))
        staging.discard_note(name)
    return rescued


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
