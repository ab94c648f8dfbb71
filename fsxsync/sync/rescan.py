"""Tree against catalog: the other streaming merge. Runs at start and whenever inotify lost records."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from fsxsync.errors import TreeError, TreeMoved
from fsxsync.model.association import Event
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.sync import brakes
from fsxsync.sync.excluded import forget
from fsxsync.sync.intake import BATCH, Intake, is_known
from fsxsync.sync.partials import end_interrupted
from fsxsync.sync.served import Served

PENDING_MAX = 1_000_000
"""Entries of the changelog that are read, beside one for each file, when a mass delete is in question."""
_REFUSED = "refused scans"


class ScanRefused(TreeError):
    """The tree is not believed; no object was deleted."""

    code = "MassDeleteStopped"
    advice = brakes.SCAN_ADVICE


@dataclass(slots=True)
class _Seen:
    """What a scan came across. ``known`` counts files: what happens to directories follows from theirs."""

    entries: int = 0
    known: int = 0
    gone: list[Base] = field(default_factory=list)
    appeared: set[tuple[int, int, int]] = field(default_factory=set)
    """Of files that no row knows under their name: they may be known under another one."""
    differ: set[bytes] = field(default_factory=set)
    """Files that are other ones than their rows say, or have none; noted while the tree is doubted."""


async def rescan(served: Served, intake: Intake, *, accept_deletes: bool = False) -> int:
    """Hint at every path where the tree is not what the catalog knows; returns the number of entries seen.

    What is there is hinted before what is gone, and deletes wait until the scan is through: a file that moved while
    nobody watched must not lose its object before its new name is known.

    Raises:
        TreeMoved: the root or the association's directory is not the one that was linked; nothing is hinted.
        ScanRefused: so much is gone that it is not believed; what is there is hinted, what is gone is not.
    """
    check_directory(served)
    shared = served.shared
    shared.expanding += 1
    try:
        seen = await _merge(served, intake)
        if accept_deletes:
            _note_refused(served, refused=False)
        else:
            _brake(served, intake, seen)
        served.tree_believed = True
        for start in range(0, len(seen.gone), BATCH):
            for row in seen.gone[start : start + BATCH]:
                intake.changed(served.tree_path(row.path))
            intake.flush()
            await trio.lowlevel.checkpoint()
        await intake.look_at_reports(served)
        _doubt(served, seen, accept_deletes=accept_deletes)
    finally:
        shared.expanding -= 1
    return seen.entries


def _brake(served: Served, intake: Intake, seen: _Seen) -> None:
    """Refuse a mass delete that nobody saw (DESIGN §3.6).

    What was seen path by path, by the mount or by inotify, waits in the changelog: somebody removed it, and it may
    go. What a scan alone finds gone may as well be a disk that is not there.
    """
    if Event.DELETED not in served.association.policy.exports:
        return
    was_refused = served.id in _refused(served)
    gone = [row for row in seen.gone if row.kind is not Kind.DIRECTORY and _mark(row) not in seen.appeared]
    why = brakes.implausible_scan(seen.known, len(gone), was_refused=was_refused)
    if why:
        served.shared.front.catch_up()
        intake.flush()
        pending = served.shared.catalog.changelog.pending(served.id, b"", seen.known + len(gone) + PENDING_MAX)
        removed = {entry.path for entry in pending if entry.local}
        unseen = sum(row.path not in removed for row in gone)
        why = brakes.implausible_scan(seen.known, unseen, was_refused=was_refused)
    _note_refused(served, refused=bool(why))
    if why:
        served.tree_believed = False
        raise ScanRefused(f"scan of {served.association.file_system_path}", why)


def _refused(served: Served) -> list[str]:
    """Associations whose last scan was refused, also by a daemon before this one."""
    return list(served.shared.catalog.facts.get(_REFUSED) or ())


def _note_refused(served: Served, *, refused: bool) -> None:
    before = _refused(served)
    others = [name for name in before if name != served.id]
    if (served.id in before) != refused:
        served.shared.catalog.facts.set(_REFUSED, [*others, served.id] if refused else others)


def _doubt(served: Served, seen: _Seen, *, accept_deletes: bool) -> None:
    """From now on it is known what the doubt is about. Who has another name now is not missing; nor does somebody doubt
    what he has just accepted."""
    doubt = served.doubt
    if doubt is None:
        return
    doubt.paths |= seen.differ
    if not accept_deletes:
        doubt.paths |= {row.path for row in seen.gone if _mark(row) not in seen.appeared}
    most = seen.known + len(seen.gone) + PENDING_MAX
    doubt.scan_ended(entry.path for entry in served.shared.catalog.changelog.pending(served.id, b"", most))
    served.end_doubt()
    served.wake()


def _mark(file: Base | Local) -> tuple[int, int, int]:
    """What a file keeps when it is renamed. An inode alone may be another file's by now."""
    return (file.ino, file.size, file.mtime_ns)


async def _merge(served: Served, intake: Intake) -> _Seen:
    files = served.shared.catalog.files
    rows = files.iterate(served.id)
    row = next(rows, None)
    seen = _Seen()

    def gone(row: Base) -> None:
        # The row may be younger than what the walk has read: an import puts files there meanwhile.
        here = served.shared.tree.identify(served.tree_path(row.path))
        if here is not None and (here.kind is Kind.DIRECTORY) == (row.kind is Kind.DIRECTORY):
            _known(served, intake, seen, row, here)
            return
        seen.gone.append(row)
        seen.known += row.kind is not Kind.DIRECTORY

    batches = served.shared.tree.walk_batches(served.association.directory, BATCH)
    while batch := await trio.to_thread.run_sync(next, batches, None):
        for tree_path, local in batch:
            path = served.association.relative(tree_path)
            if not path:
                continue
            seen.entries += 1
            here = path + b"/" if local.kind is Kind.DIRECTORY else path
            while row is not None and files.sort_key(row) < here:
                gone(row)
                row = next(rows, None)
            if row is not None and files.sort_key(row) == here:
                _known(served, intake, seen, row, local)
                row = next(rows, None)
            else:
                if local.kind is not Kind.DIRECTORY:
                    seen.appeared.add(_mark(local))
                _differs(served, seen, path, local)
                intake.changed(tree_path)
        intake.flush()
    while row is not None:
        gone(row)
        row = next(rows, None)
    return seen


def _known(served: Served, intake: Intake, seen: _Seen, row: Base, local: Local) -> None:
    if not served.filters.keeps(row):  # before it can be removed, and the filter changed once more
        forget(served, row, local)
    else:
        seen.known += row.kind is not Kind.DIRECTORY
        if is_known(row, local):
            return
        end_interrupted(served.shared, served.tree_path(row.path), row, local)
        _differs(served, seen, row.path, local)
    intake.changed(served.tree_path(row.path))


def _differs(served: Served, seen: _Seen, path: bytes, local: Local) -> None:
    if served.doubt is not None and local.kind is not Kind.DIRECTORY:
        seen.differ.add(path)


def check_directory(served: Served) -> None:
    """The association's directory is the one that was linked (DESIGN §3.6).

    Raises:
        TreeMoved
    """
    served.shared.tree.verify()
    association = served.association
    local = served.shared.tree.identify(association.directory)
    if local is None or local.kind is not Kind.DIRECTORY:
        raise TreeMoved(f"{association.file_system_path}", "the association's directory is gone")
    if association.directory_ino not in {0, local.ino}:
        raise TreeMoved(
            f"{association.file_system_path}",
            "the association's directory is not the one that was associated",
        )
