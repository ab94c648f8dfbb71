"""What is remembered of stubs that were read in part, and what of it is believed.

A chunk counts as remembered only until its bytes were read again and still fit their CRC64NVME (`Hydration.claims`).
So a row that is out of date costs a reading, and nothing that it says can make zeros of data (DESIGN §3.4). That is
also why a stub's mtime decides nothing here: a daemon that was killed while bytes came in left it moved.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable, Iterable

import trio

from fsxsync.catalog.database import Catalog
from fsxsync.catalog.partials import Partial
from fsxsync.errors import CatalogError, FsxSyncError, NoSpace
from fsxsync.model.identity import Base, Local
from fsxsync.model.stub import StubMark
from fsxsync.sync.boot import this_boot
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.served import Shared
from fsxsync.tree.beneath import translated
from fsxsync.tree.stub_data import holds_data, put_back
from fsxsync.tree.tree import Tree

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often arrivals are written down; what a crash loses of it is loaded again."""
DISK_PATIENCE_S = 10.0
"""How long the end of the daemon waits for the disk. What is not on it by then is only lost if the host fails."""
ON_DISK = ""


class Fate(enum.Enum):
    """What becomes of a row when a daemon starts."""

    KEEP = enum.auto()
    DROP = enum.auto()
    """The stub is there, its data can't be believed: a hole takes its place."""
    SWEEP = enum.auto()
    """The stub is gone."""


def is_believable(row: Partial, mark: StubMark, chunk_size: int, boot_id: str) -> bool:
    """The row speaks of what the mark stands for, cut as we cut it, and the data can't have been lost with the page
    cache."""
    return (row.etag, row.version_id, row.size, row.chunk_size) == (
        mark.etag,
        mark.version_id,
        mark.size,
        chunk_size,
    ) and row.boot_id in {ON_DISK, boot_id}


def fate_of(row: Partial, local: Local | None, chunk_size: int, boot_id: str) -> Fate:
    """``local`` is what stands where the row saw its stub."""
    if local is None or local.ino != row.ino or local.stub is None:
        return Fate.SWEEP
    return Fate.KEEP if is_believable(row, local.stub, chunk_size, boot_id) else Fate.DROP


def end_interrupted(shared: Shared, tree_path: bytes, row: Base, local: Local) -> None:
    """A daemon that was killed while a file came in one piece, of which nothing is remembered, left data in the stub,
    and its mtime moved: the time is the row's. Who only set a time left no data. The data stays: as far as anybody can
    tell it may be somebody's."""
    if not row.released or local.ino != row.ino or local.mtime_ns == row.mtime_ns or local.ino in shared.hydrating:
        return
    if shared.catalog.partials.get(local.ino) is not None:
        return
    try:
        whole = shared.tree.identify(tree_path)  # a walk reads no marks
        if whole is None or whole.ino != row.ino or whole.stub is None or whole.stub.etag != row.etag:
            return
        fd = shared.tree.open_write(tree_path, local.ino)
        try:
            if holds_data(fd):
                put_back(fd, tree_path, mtime_ns=row.mtime_ns, atime_ns=local.atime_ns, punch=False)
        finally:
            os.close(fd)
    except FsxSyncError as error:  # the next reader loads it all the same
        log.warning("a released file can't be looked at", extra={"reason": str(error)})


class PartialMemory:
    """The catalog's rows of hydrations. In the trio thread, as the catalog wants it."""

    def __init__(
        self, catalog: Catalog, tree: Tree, chunk_size_of: Callable[[int], int], boot_id: str | None = None
    ) -> None:
        """``chunk_size_of`` a file of that size."""
        self._catalog = catalog
        self._tree = tree
        self._chunk_size_of = chunk_size_of
        self._boot_id = this_boot() if boot_id is None else boot_id
        self._unwritten: dict[int, Hydration] = {}
        self._news = trio.Event()

    async def run(self) -> None:
        """Write down what arrives, for ever."""
        while True:
            await self._news.wait()
            await trio.sleep(EVERY_S)
            self._news = trio.Event()
            self.write()

    def note(self, hydration: Hydration) -> None:
        """Something of it arrived."""
        self._unwritten[hydration.ino] = hydration
        self._news.set()

    def write(self) -> None:
        """Write what was noted, now."""
        hydrations, self._unwritten = self._unwritten, {}
        self._put(hydration.as_partial(self._boot_id) for hydration in hydrations.values())

    def _put(self, rows: Iterable[Partial]) -> None:
        try:
            self._catalog.partials.put_many(rows)
        except (CatalogError, NoSpace) as error:
            log.warning("what is here of released files can't be written down", extra={"reason": str(error)})

    def forget(self, ino: int) -> None:
        """Its data goes, or its mark does. Before either: a row must not outlive what it tells of."""
        self._unwritten.pop(ino, None)
        self._catalog.partials.delete(ino)

    def recall(self, ino: int, mark: StubMark) -> Partial | None:
        """What is known of a stub, as far as it is believed."""
        row = self._catalog.partials.get(ino)
        if row is None or is_believable(row, mark, self._chunk_size_of(mark.size), self._boot_id):
            return row
        self.forget(ino)
        return None

    def resident_bytes(self, ino: int) -> int | None:
        return self._catalog.partials.resident_bytes(ino)

    async def save(self, hydration: Hydration) -> bool:
        """Bring to the disk what is here of it, and write that down. False if more came meanwhile."""
        here = hydration.here
        fd = os.dup(hydration.fd)

        def sync() -> None:
            try:
                with translated("saving", hydration.path):
                    os.fsync(fd)
            finally:
                os.close(fd)

        await trio.to_thread.run_sync(sync, abandon_on_cancel=True)
        if hydration.here != here or hydration.is_busy:
            return False
        self._unwritten.pop(hydration.ino, None)
        self._put([hydration.as_partial(ON_DISK)])
        return True

    async def save_all(self, hydrations: Iterable[Hydration]) -> None:
        """At the end of the daemon."""
        self.write()
        with trio.move_on_after(DISK_PATIENCE_S, shield=True):
            for hydration in hydrations:
                try:
                    await self.save(hydration)
                except FsxSyncError as error:
                    log.warning("a released file can't be saved", extra={"reason": str(error)})

    # ------------------------------------------------------------- at the start

    def sweep(self) -> None:
        """Look at every row before anybody reads: put back times that a crash left moved, drop what may be lost."""
        for row in self._catalog.partials.all():
            try:
                self._look_at(row)
            except FsxSyncError as error:  # it is looked at again when somebody opens it
                log.warning("a released file can't be looked at", extra={"reason": str(error)})

    def _look_at(self, row: Partial) -> None:
        path, local = self._find(row)
        fate = fate_of(row, local, self._chunk_size_of(row.size), self._boot_id)
        if fate is not Fate.KEEP:
            self.forget(row.ino)
        if fate is Fate.SWEEP or (fate is Fate.KEEP and row.boot_id == ON_DISK):
            return
        fd = self._tree.open_write(path, row.ino)
        try:
            put_back(fd, path, mtime_ns=row.mtime_ns, atime_ns=row.atime_ns, punch=fate is Fate.DROP)
        finally:
            os.close(fd)

    def _find(self, row: Partial) -> tuple[bytes, Local | None]:
        """Where the stub is now: where it was, or where the catalog has that inode."""
        local = self._tree.identify(row.path)
        if local is not None and local.ino == row.ino:
            return row.path, local
        tree_paths = {association.id: association.tree_path for association in self._catalog.associations.all()}
        for base in self._catalog.files.by_inode(row.ino):
            if base.association in tree_paths:
                path = tree_paths[base.association](base.path)
                local = self._tree.identify(path)
                if local is not None and local.ino == row.ino:
                    return path, local
        return row.path, None
