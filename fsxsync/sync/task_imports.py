"""IMPORT_METADATA_FROM_REPOSITORY: a listing is compared with rows, and what is new or changed is looked at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import trio

from fsxsync.catalog.files import Known, sort_key
from fsxsync.errors import FsxSyncError, KeyNotPosix, ObjectArchived
from fsxsync.model.association import Policy
from fsxsync.model.identity import Base
from fsxsync.model.keys import path_of
from fsxsync.model.release import ARCHIVE_CLASSES
from fsxsync.model.task import FAILED, WARNING, Failure
from fsxsync.ports import Listed, Planned
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.served import Served
from fsxsync.sync.task_looks import Side, each
from fsxsync.sync.task_settling import settle_path
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, Place, failure_of, planned
from fsxsync.sync.under_way import Going

LISTED_AT_ONCE = 8
"""Of many paths, which are a request each at least."""


def lies_at(path: bytes, under: bytes) -> bool:
    """It is that path or below it; b"" is everything."""
    return not under or path == under or path.startswith(under + b"/")


class Object(NamedTuple):
    """A key of a listing that is a path of the association, with its sort key."""

    key: bytes
    path: bytes
    listed: Listed


def known_of(row: Base) -> Known:
    """As much of it as a listing is compared with."""
    # What only a listing told of is older than all that a listing shows: it is read once more.
    last_modified_ns = row.last_modified_ns if row.posix_known else -1
    return Known(sort_key(row), row.etag, row.remote_size, last_modified_ns)


class ImportStage:
    """IMPORT_METADATA_FROM_REPOSITORY: what is new or changed in a listing."""

    at_once = 1

    def __init__(self, served: Served, unders: Sequence[bytes], policy: Policy, *, deletes: bool) -> None:
        self.served = served
        self._unders = unders
        self._policy = policy
        self._deletes = deletes

    async def estimate(self, goes_on: Going) -> int:
        counted = 0
        for number, under in enumerate(self._unders):
            counted += self.served.shared.catalog.files.count_under(self.served.id, under)
            if number % BATCH == BATCH - 1:
                await trio.lowlevel.checkpoint()
        return counted

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        batch = Batch(after=after)
        unders, key = Place.parse(after).rest(self._unders)
        for start in range(0, len(unders), LISTED_AT_ONCE):
            some = unders[start : start + LISTED_AT_ONCE]
            for under, (page, others) in zip(some, await self._begun(some, key), strict=True):
                rows = self._rows(under, key)
                row = next(rows, None)
                listed = page
                while listed:
                    row = self._merge(under, listed, rows, row, batch)
                    if batch.size >= BATCH:
                        yield batch
                        batch = Batch(after=batch.after)
                    listed = await trio.to_thread.run_sync(next, others, None)
                while row is not None:
                    self._missing(row, batch)
                    batch.after = Place(under, row.sort_key).encode()
                    row = next(rows, None)
                    if batch.size >= BATCH:
                        yield batch
                        batch = Batch(after=batch.after)
                key = b""
        yield batch

    def _merge(
        self, under: bytes, page: Sequence[Listed], rows: Iterator[Known], row: Known | None, batch: Batch
    ) -> Known | None:
        """Compare a page with rows, ``row`` before the others; the first one behind it."""
        for found in self._objects(under, page):
            if isinstance(found, Failure):
                batch.failures.append(found)
                continue
            key = found.key
            batch.after = Place(under, key).encode()
            while row is not None and row.sort_key < key:
                self._missing(row, batch)
                row = next(rows, None)
            known = row if row is not None and row.sort_key == key else None
            if known is not None:
                row = next(rows, None)
            self._compare(found, known, batch)
        return row

    # ------------------------------------------------------------- listings

    async def _begun(
        self, unders: Sequence[bytes], after: bytes
    ) -> list[tuple[list[Listed] | None, Iterator[list[Listed]]]]:
        """The first page of each, asked for at the same time, and the others; of the first path, after a sort key.

        Raises:
            RepositoryError: it can't be listed.
        """
        listings = [self._pages(under, after if number == 0 else b"") for number, under in enumerate(unders)]
        first: list[list[Listed] | None] = [None] * len(unders)

        async def begin(number: int) -> None:
            first[number] = await trio.to_thread.run_sync(next, listings[number], None)

        try:
            async with trio.open_nursery() as nursery:
                for number in range(len(unders)):
                    nursery.start_soon(begin, number)
        except* FsxSyncError as failures:
            raise first_leaf(failures) from failures
        return list(zip(first, listings, strict=True))

    def _pages(self, under: bytes, after: bytes) -> Iterator[list[Listed]]:
        """Pages that have what lies at a path and below it, after that sort key. What has the path's beginning lies
        between ('a-1' between 'a' and 'a/'): of more than a page of it no more is read. Blocking."""
        prefix = self.served.association.prefix
        start = prefix + after.decode("utf-8", "surrogateescape") if after else ""
        path = prefix + under.decode("utf-8", "surrogateescape")
        inside, behind = path + "/", path + "0"
        for number, page in enumerate(self.served.store.list_pages(path, start_after=start)):
            yield page
            if not under:
                continue
            if _order(page[-1].key) >= _order(behind):
                return
            if number > 0 and _order(page[-1].key) < _order(inside):
                yield from self.served.store.list_pages(inside, start_after=start)
                return

    async def pages(self, after: bytes) -> AsyncGenerator[list[Object | Failure], None]:
        """What a listing shows at the first path, in catalog order, after that sort key; failures are keys that are no
        paths."""
        under = self._unders[0]
        pages = self._pages(under, after)
        while page := await trio.to_thread.run_sync(next, pages, None):
            yield list(self._objects(under, page))

    def _objects(self, under: bytes, page: Iterable[Listed]) -> Iterator[Object | Failure]:
        return (found for listed in page if (found := self._object(under, listed)) is not None)

    def _object(self, under: bytes, listed: Listed) -> Object | Failure | None:
        prefix = self.served.association.prefix
        try:
            path, is_directory = path_of(listed.key, prefix)
        except KeyNotPosix as error:
            name = listed.key.removeprefix(prefix).encode("utf-8", "surrogateescape")
            return failure_of(self.served, name, error) if lies_at(name, under) else None
        if not path or not lies_at(path, under):
            return None
        return Object(path + b"/" if is_directory else path, path, listed)

    def _rows(self, under: bytes, after: bytes) -> Iterator[Known]:
        files = self.served.shared.catalog.files
        while rows := files.after(self.served.id, after, BATCH, under):
            yield from map(known_of, rows)
            if len(rows) < BATCH:
                return
            after = files.sort_key(rows[-1])

    def _missing(self, row: Known, batch: Batch) -> None:
        if self.side(None, row) is Side.GONE:
            batch.gone.append(row.sort_key)

    def side(self, found: Object | None, known: Known | None) -> Side | None:
        """What a listing says of a path, and ``known`` of what it said before; None: it has nothing to do there."""
        filters = self.served.filters
        if found is None:
            if not self._deletes or known is None or known.is_implied:
                return None
            return Side.GONE if filters.wants(known.path, directory=known.is_directory) else None
        listed, is_directory = found.listed, found.listed.key.endswith("/")
        if not filters.wants(found.path, directory=is_directory) or not filters.lists(is_directory, listed.size):
            return None
        state = listed.etag, listed.size, listed.last_modified_ns
        is_quiet = known is not None and not known.is_implied and known.matches_listing(*state)
        return Side.QUIET if is_quiet else Side.CHANGED

    def _compare(self, found: Object, known: Known | None, batch: Batch) -> None:
        match self.side(found, known):
            case Side.QUIET:
                batch.quiet += 1
            case Side.CHANGED:
                self.take(found, known, batch)

    def take(self, found: Object, known: Known | None, batch: Batch) -> None:
        """It is to be imported."""
        if known is None:
            batch.fresh[found.path] = found.listed
        if found.listed.storage_class in ARCHIVE_CLASSES:
            why = f"its storage class is {found.listed.storage_class}: it must be restored there before it can be read"
            batch.failures.append(
                Failure(self.served.tree_path(found.path), "S3ObjectInUnsupportedTier", why, status=WARNING)
            )
        batch.todo.append(Entry(found.path, None, None))

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        changelog, now_ns = self.served.shared.catalog.changelog, self.served.shared.now_ns
        until_ns = now_ns() + HELD_NS
        # Stubs at once; their metadata follows below, or if this ends before, with their looks.
        if batch.fresh and goes_on():
            await import_new(self.served, list(batch.fresh.items()), until_ns=until_ns)

        async def act(entry: Entry) -> Failure | None:
            try:
                await settle_path(self.served, entry.path, self._policy, remote=True)
                changelog.drop_held(self.served.id, entry.path, until_ns)
            except ObjectArchived as error:
                if self.served.shared.eager:
                    raise
                # A file would be a stub; only a symlink has to be read to be made.
                return Failure(self.served.tree_path(entry.path), "S3SymlinkInUnsupportedTier", str(error))
            return None

        done = await each(self.served, batch.todo, goes_on, act)
        while changelog.release(self.served.id, until_ns, now_ns(), BATCH):
            self.served.wake()
        done.moved = 0  # no bytes move, only what the listing says
        return done

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        archived = {failure.path: failure for failure in batch.failures if failure.is_warning}
        for entry in batch.todo:
            listed = batch.fresh.get(entry.path)
            size = listed.size if listed is not None else 0
            failure = archived.get(self.served.tree_path(entry.path))
            if failure is not None and self.served.shared.eager:  # where nothing is a stub its data would be needed
                failure = replace(failure, status=FAILED)
            yield planned(self.served, entry.path, "import", size, failure)
        for key in batch.gone:
            yield Planned(self.served.tree_path(key.removesuffix(b"/")), "delete file")


def _order(key: str) -> bytes:
    """Listings are in the order of UTF-8's bytes."""
    return key.encode("utf-8", "surrogatepass")
