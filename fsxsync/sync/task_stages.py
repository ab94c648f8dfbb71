"""What every task is made of: stages, each of which goes through paths of one association in catalog order.

A stage gives batches, does each of them, and can tell beforehand what it would do. All of it is flat in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fsxsync.catalog.files import sort_key
from fsxsync.errors import FsxSyncError, TreeError
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.shallow import Shallow
from fsxsync.model.task import Failure, report_code
from fsxsync.ports import Listed, Planned
from fsxsync.sync.ahead import ReadAhead
from fsxsync.sync.served import Served
from fsxsync.sync.under_way import Going

BATCH = 500
"""Entries of a walk at a time; progress is written down after each batch."""


COUNTED = 2000
"""Entries that are counted at a time."""


class Entry(NamedTuple):
    """What stands at a path and what the catalog knows of it. ``path`` is relative to the association; the state is a
    walk's, without mark (`tree.walk`). ``local`` None: nothing stands there, as far as the walk saw."""

    path: bytes
    local: Local | None
    base: Base | None

    @property
    def key(self) -> bytes:
        """Where it comes in catalog order."""
        if self.local is None and self.base is not None:
            return sort_key(self.base)
        is_directory = self.local is not None and self.local.kind is Kind.DIRECTORY
        return self.path + b"/" if is_directory else self.path


@dataclass(slots=True)
class Batch:
    """Some paths in catalog order. ``quiet`` of them need nothing and are counted as done; ``gone`` are sort keys of
    paths that one side lacks; ``fresh`` is what a listing said of those that no row knows; ``after`` is where the
    stage is when it is done: its last sort key, or an encoded `Place`."""

    todo: list[Entry] = field(default_factory=list)
    quiet: int = 0
    failures: list[Failure] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    fresh: dict[bytes, Listed] = field(default_factory=dict)
    after: bytes = b""

    @property
    def size(self) -> int:
        return len(self.todo) + self.quiet + len(self.failures) + len(self.gone)


@dataclass(slots=True)
class Done:
    """What became of a batch: how many paths are as they shall be, what failed, how many bytes moved."""

    succeeded: int = 0
    moved: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(not failure.is_warning for failure in self.failures)


class Stage(Protocol):
    """A part of a task."""

    served: Served
    at_once: int
    """So many batches may be under way at the same time."""

    async def estimate(self, goes_on: Going) -> int:
        """About how many paths there are. Ends early when ``goes_on`` says no."""

    def check(self) -> None:
        """Raises FsxSyncError: it must not be begun."""

    def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        """From the first path behind that on, which is `Batch.after` of an earlier one; b"" is the beginning."""

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        """What is begun is finished; what is not when ``goes_on`` says no is left, and not counted."""

    def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        """What `perform` would do."""


async def count(
    served: Served, unders: Sequence[bytes], is_counted: Callable[[bytes, Shallow], bool], goes_on: Going
) -> int:
    """How many entries of the tree there are at and below these paths: some microseconds each. What can't be read is
    left out, and whoever gets there tells of it."""
    counted = 0
    async for some in ReadAhead(_counts(served, unders, is_counted)):
        counted += some
        if not goes_on():
            break
    return counted


def _counts(served: Served, unders: Sequence[bytes], is_counted: Callable[[bytes, Shallow], bool]) -> Iterator[int]:
    """Blocking: for a worker thread."""
    counted = looked_at = 0
    for under in unders:
        with suppress(TreeError):
            for looked, some in _counts_at(served, under, is_counted):
                counted += some
                looked_at += looked
                if looked_at >= COUNTED:
                    yield counted
                    counted = looked_at = 0
    yield counted


def _counts_at(served: Served, under: bytes, is_counted: Callable[[bytes, Shallow], bool]) -> Iterator[tuple[int, int]]:
    """(entries looked at, those that count)."""
    tree, top, start = served.shared.tree, served.tree_path(under), served.association.start
    local = tree.identify(top)
    if local is None:
        return
    if under:
        yield 1, int(is_counted(under, Shallow.of(local)))
    if local.kind is Kind.DIRECTORY:
        for found in tree.entry_batches(top, COUNTED):
            yield len(found), sum(is_counted(key[start:].removesuffix(b"/"), state) for key, state in found)


def failure_of(served: Served, path: bytes, error: FsxSyncError) -> Failure:
    """A path of the association that an error kept from being done."""
    return Failure(served.tree_path(path), report_code(error.code), str(error))


def planned(served: Served, path: bytes, action: str, size: int, failure: Failure | None) -> Planned:
    """What a dry run says of a path: a warning keeps nothing from being done."""
    if failure is None:
        return Planned(served.tree_path(path), action, size)
    return Planned(failure.path, action if failure.is_warning else "refuse", size, failure.code, failure.message)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage is that goes through one path after the other: behind a sort key of one of them. Keys alone would
    not do: 'u-x' comes between 'u' and 'u/a', which is of the path 'u'."""

    under: bytes
    key: bytes

    @classmethod
    def parse(cls, cursor: bytes) -> Place:
        """What `encode` made; b"" is the beginning, and so is what a version before had: a key alone."""
        under, separator, key = cursor.partition(b"\0")  # neither has one in it
        return cls(under, key) if separator else cls(b"", b"")

    def encode(self) -> bytes:
        return self.under + b"\0" + self.key

    @staticmethod
    def within(unders: AbstractSet[bytes], key: bytes) -> Place:
        """That of a key that lies at or below one of these paths."""
        path = key.removesuffix(b"/")
        while path not in unders and path:
            path = path.rpartition(b"/")[0]
        return Place(path, key)

    def rest(self, unders: Iterable[bytes]) -> tuple[list[bytes], bytes]:
        """Of these paths, which do not contain each other, those that are not done, in their order; and the sort key
        behind which the first of them begins."""
        left = sorted(under for under in unders if under >= self.under)
        return left, self.key if left[:1] == [self.under] else b""


async def entries(
    served: Served, unders: Sequence[bytes], after: bytes, size: int = BATCH, *, remember: bool = False
) -> AsyncGenerator[list[Entry], None]:
    """Everything at and below these paths, which do not contain each other, tree and catalog merged, some ``size`` at a
    time; of the first one, what comes after a sort key. ``remember``: see `Files.after`.

    Raises:
        TreeError: a directory can't be read.
    """
    rows = _Rows(served, unders, after, remember=remember)
    async for parts in ReadAhead(_walk(served, unders, size)):
        for found in _some(_merged(parts, rows, after), 2 * size):
            yield found
    for found in _some(rows.gone_before(len(unders)), size):
        yield found


def _some(found: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    while some := list(itertools.islice(found, size)):
        yield some


def _merged(parts: Iterable[Part], rows: _Rows, after: bytes) -> Iterator[Entry]:
    for number, batch in parts:
        yield from rows.gone_before(number)
        done = after if number == 0 else b""
        for path, local in batch:
            key = path + b"/" if local.kind is Kind.DIRECTORY else path
            if not path or key <= done:
                continue
            if rows.key is not None and rows.key < key:
                yield from rows.before(key)
            yield Entry(path, local, rows.take() if rows.key == key else None)


Part = tuple[int, list[tuple[bytes, Local]]]


def _walk(served: Served, unders: Sequence[bytes], size: int) -> Iterator[list[Part]]:
    """What stands at and below paths, about ``size`` at a time, with the number of the path: of many that are files
    themselves, each would cost a thread. Blocking: for a worker thread."""
    parts: list[Part] = []
    gathered = 0
    for number, under in enumerate(unders):
        for some in _walk_at(served, under, size):
            parts.append((number, some))
            gathered += len(some)
            if gathered >= size:
                yield parts
                parts, gathered = [], 0
    if parts:
        yield parts


def _walk_at(served: Served, under: bytes, size: int) -> Iterator[list[tuple[bytes, Local]]]:
    tree, top = served.shared.tree, served.tree_path(under)
    local = tree.identify(top)
    if local is None:
        return
    if under:
        yield [(under, local)]
    if local.kind is Kind.DIRECTORY:
        start = served.association.start
        for batch in tree.entry_batches(top, size):
            yield [(key[start:].removesuffix(b"/"), state.local()) for key, state in batch]


class _Rows:
    """Rows at and below each of some paths, in catalog order; of the first path, those after a sort key. Those of one
    path wholly before those of the next (see `Place`)."""

    def __init__(self, served: Served, unders: Sequence[bytes], after: bytes, *, remember: bool) -> None:
        self._served = served
        self._unders = unders
        self._after = after
        self._remember = remember
        self._number = 0
        self._head: Base | None = None
        self._open()

    def _open(self) -> None:
        unders = self._unders[self._number : self._number + 1]
        after = self._after if self._number == 0 else b""
        self._batches = (rows for under in unders for rows in self._all(under, after))
        self._read: Iterator[Base] = iter(())
        self.key: bytes | None = None
        """Sort key of the next one; None: there is none."""
        self.take()

    def _all(self, under: bytes, after: bytes) -> Iterator[list[Base]]:
        files, association = self._served.shared.catalog.files, self._served.id
        while rows := files.after(association, after, BATCH, under, remember=self._remember):
            yield rows
            if len(rows) < BATCH:
                return
            after = sort_key(rows[-1])

    def gone_before(self, number: int) -> Iterator[Entry]:
        """What is left of the paths before that one: nothing stands there."""
        while self._number < number:
            while (row := self.take()) is not None:
                yield Entry(row.path, None, row)
            self._number += 1
            self._open()

    def before(self, key: bytes) -> Iterator[Entry]:
        """Of this path. Nothing stands there."""
        while self.key is not None and self.key < key and (row := self.take()) is not None:
            yield Entry(row.path, None, row)

    def take(self) -> Base | None:
        """The next one, and go on to the one after it."""
        row = self._head
        while (head := next(self._read, None)) is None and (some := next(self._batches, None)) is not None:
            self._read = iter(some)
        self._head, self.key = head, None if head is None else sort_key(head)
        return row
