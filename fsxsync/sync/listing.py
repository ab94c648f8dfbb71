"""Listing against catalog: a streaming merge of two sorted sequences, flat in memory (DESIGN §4).

A key that no row knows becomes a stub at once (`bulk`), everything else becomes a hint: the look decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import trio

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.files import Known
from fsxsync.errors import KeyNotPosix, RepositoryError
from fsxsync.model.association import Event
from fsxsync.model.keys import path_of
from fsxsync.model.open_conflict import ConflictKind
from fsxsync.ports import Listed
from fsxsync.sync import brakes
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.filters import Age, Filters
from fsxsync.sync.refused_keys import refuse_key
from fsxsync.sync.served import Served

PAGE = 1000


class ListingRefused(RepositoryError):
    """The listing is not believed; nothing was deleted."""

    code = "MassDeleteStopped"
    advice = brakes.LISTING_ADVICE


@dataclass(slots=True)
class Consent:
    """A person's word that much may go.

    It holds for one listing, and for what that one did not have until it is gone here: deletes take their time, and
    whoever lists meanwhile finds the same. Anything else that is missing by then is looked at with suspicion.
    """

    given: bool = False
    gone: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Progress:
    started_ns: int
    held_until_ns: int
    closely_from_ns: float
    listed: int = 0
    markers: int = 0
    """Keys among these that end with a slash."""
    known: int = 0
    new: list[tuple[bytes, Listed]] = field(default_factory=list)
    hints: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    missing_directories: set[bytes] = field(default_factory=set)
    """Paths among these whose objects were directory markers."""
    refused: set[bytes] = field(default_factory=set)
    """Paths in conflict with what is in their way, of which the listing has shown nothing yet."""


async def reconcile_listing(served: Served, consent: Consent, *, closely_from_ns: float = math.inf) -> int:
    """Read the whole listing and hint at every difference; returns the number of keys listed. ``closely_from_ns``: also
    at what was modified since then and shows none, which may be of the same second as what the row knows.

    Raises:
        RepositoryError: the listing could not be read. ListingRefused: it was read and is implausible.
    """
    started_ns = served.shared.now_ns()
    progress = _Progress(started_ns, started_ns + HELD_NS, closely_from_ns)
    clashes = served.shared.catalog.conflicts.all(served.id)
    progress.refused = {conflict.path for conflict in clashes if conflict.kind is ConflictKind.CLASH}
    rows = _Rows(served)
    pages: Iterator[list[Listed]] = iter(())
    pages = served.store.list_pages(served.association.prefix)
    while page := await trio.to_thread.run_sync(next, pages, None):
        for listed in page:
            _compare(served, rows, listed, progress)
        await _flush(served, progress)
    for count, row in enumerate(rows.rest()):
        _missing(served, row, progress)
        if count % PAGE == PAGE - 1:
            await trio.lowlevel.checkpoint()
    consent.gone.intersection_update(progress.missing)
    why = _implausible(progress, consent.gone)
    if why:
        left = [path for path in progress.missing if path not in consent.gone]
        why = _implausible(progress, consent.gone | await _gone_here(served, left))
    if why and Event.DELETED in served.association.policy.imports:
        if not consent.given:
            served.listing_believed = False
            raise ListingRefused(f"listing of {served.association.uri}", why)
        consent.gone.update(progress.missing)
    consent.given = False
    served.listing_believed = True
    served.shared.catalog.refused_keys.forget_unseen(served.id, started_ns)
    progress.hints.extend(progress.missing)
    progress.hints.extend(progress.refused)  # no row tells that their objects are gone
    await _flush(served, progress)
    await _release(served, progress)
    served.source_read_ns = started_ns
    return progress.listed


class _Rows:
    """The association's rows in listing order, with one row of look-ahead."""

    def __init__(self, served: Served) -> None:
        self._rows = served.shared.catalog.files.iterate_known(served.id)
        self._head = next(self._rows, None)

    def before(self, sort_key: bytes) -> Iterator[Known]:
        """Take the rows that come before a key."""
        while self._head is not None and self._head.sort_key < sort_key:
            row, self._head = self._head, next(self._rows, None)
            yield row

    def take(self, sort_key: bytes) -> Known | None:
        """The row of exactly this key, if there is one."""
        if self._head is None or self._head.sort_key != sort_key:
            return None
        row, self._head = self._head, next(self._rows, None)
        return row

    def rest(self) -> Iterator[Known]:
        while self._head is not None:
            row, self._head = self._head, next(self._rows, None)
            yield row


def _implausible(progress: _Progress, expected: set[bytes]) -> str:
    """'' if the listing may be believed; else why not. ``expected`` are paths that may be missing."""
    left = [path for path in progress.missing if path not in expected]
    return brakes.implausible_listing(
        progress.known - (len(progress.missing) - len(left)),
        len(left),
        progress.listed - progress.markers,
        missing_files=sum(path not in progress.missing_directories for path in left),
        markers=progress.markers,
    )


async def _gone_here(served: Served, paths: Sequence[bytes]) -> set[bytes]:
    """Those where nothing stands any more: their deletes are no accident, and lose nothing. Somebody removed
    the files, and their objects went, or are just going, while the rows were compared with the listing."""
    gone: set[bytes] = set()
    for start in range(0, len(paths), PAGE):
        part = paths[start : start + PAGE]
        found = served.shared.tree.identify_many([served.tree_path(path) for path in part])
        gone.update(path for path, local in zip(part, found.values(), strict=True) if local is None)
        await trio.lowlevel.checkpoint()
    return gone


def _missing(served: Served, row: Known, progress: _Progress) -> None:
    # A row that is left out now may be there for another moment (`rescan`): it is none of the listing's.
    if row.is_implied or not served.filters.wants(row.path, directory=row.is_directory):
        return
    progress.known += 1
    progress.missing.append(row.path)
    if row.is_directory:
        progress.missing_directories.add(row.path)


def _compare(served: Served, rows: _Rows, listed: Listed, progress: _Progress) -> None:
    progress.listed += 1
    progress.markers += listed.key.endswith("/")
    try:
        path, is_directory = path_of(listed.key, served.association.prefix)
    except KeyNotPosix as error:
        refuse_key(served, listed.key, error)
        return
    if not path:
        return
    sort_key = path + b"/" if is_directory else path
    for row in rows.before(sort_key):
        _missing(served, row, progress)
    row_here = rows.take(sort_key)
    filters = served.filters
    if not filters.wants(path, directory=is_directory):
        return
    is_let_through = filters.lists(is_directory, listed.size)
    if row_here is None:
        if is_let_through:
            if is_directory:  # the file beside it may be as new
                served.markers_beside_files.add(path)
            _new(filters, path, listed, progress)
        return
    if row_here.is_implied:
        progress.hints.append(path)
        return
    progress.known += 1
    is_known = row_here.matches_listing(listed.etag, listed.size, listed.last_modified_ns)
    if is_let_through and (not is_known or listed.last_modified_ns >= progress.closely_from_ns):
        progress.hints.append(path)


def _new(filters: Filters, path: bytes, listed: Listed, progress: _Progress) -> None:
    """A key without a row. One that is too old is not even looked at, or each listing would cost a HEAD of each."""
    match filters.age_of_new(listed.last_modified_ns, progress.started_ns):
        case Age.RIGHT:
            progress.refused.discard(path)
            progress.new.append((path, listed))
        case Age.TOO_YOUNG:
            progress.refused.discard(path)
            progress.hints.append(path)  # its look waits
        case Age.TOO_OLD:
            return


async def _flush(served: Served, progress: _Progress) -> None:
    """Act on one page: stubs for what is new, hints for what differs."""
    new, progress.new = progress.new, []
    hints, progress.hints = progress.hints, []
    if new and Event.NEW in served.association.policy.imports:
        hints += await import_new(served, new, until_ns=progress.held_until_ns)
    else:
        hints.extend(path for path, _ in new)
    for start in range(0, len(hints), PAGE):
        served.shared.catalog.changelog.add(
            [Hint(served.id, path, local=False, remote=True) for path in hints[start : start + PAGE]],
            now_ns=served.shared.now_ns(),
            delay_ns=0,
            cap_ns=0,
        )
        await trio.lowlevel.checkpoint()
    if hints:
        served.wake()


async def _release(served: Served, progress: _Progress) -> None:
    """The listing is read: let the looks at its new stubs begin."""
    changelog = served.shared.catalog.changelog
    while changelog.release(served.id, progress.held_until_ns, served.shared.now_ns(), PAGE):
        served.wake()
        await trio.lowlevel.checkpoint()
