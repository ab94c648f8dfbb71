"""The end of a hydration: its bytes are compared with the object's, made durable, and the stub's mark goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import trio

from fsxsync.catalog.files import Loading
from fsxsync.errors import FsxSyncError, LocalChanged, ObjectArchived, ObjectChanged, ObjectDamaged, ObjectMissing
from fsxsync.model.identity import Base, Local
from fsxsync.model.stub import StubMark
from fsxsync.sync import links
from fsxsync.sync.archives import may_ask
from fsxsync.sync.carrying import do_differ
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.integrity import checksums_of, damaged_object, fits
from fsxsync.sync.journal import DAMAGED_OBJECT, record_problem
from fsxsync.sync.partials import PartialMemory
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.together import Together
from fsxsync.telemetry.codes import as_event
from fsxsync.tree.settle_together import Arrived, Garbled

log = logging.getLogger(__name__)

SETTLED_AT_ONCE = 64
TRIES = 2
"""Bytes that are wrong are loaded once more: they may have been damaged on their way."""

_Loaded = tuple[bytes, Hydration, Local, bytes]
"""A path of the association, what loaded it, the file as it is now, and its XXH3-128."""


def _outcome(digest: bytes | FsxSyncError, state: Local | FsxSyncError | None) -> tuple[Local, bytes] | FsxSyncError:
    if isinstance(digest, FsxSyncError):
        return digest
    assert state is not None
    return state if isinstance(state, FsxSyncError) else (state, digest)


class Settler:
    """What a hydrator does with files of which all chunks are here. In the trio thread."""

    def __init__(self, shared: Shared, served_for: Callable[[bytes], Served | None], memory: PartialMemory) -> None:
        self._shared = shared
        self._served_for = served_for
        self._memory = memory
        self._together = Together(self.settle_many, most=SETTLED_AT_ONCE)

    def _place(self, hydration_path: bytes) -> tuple[Served, bytes] | None:
        served = self._served_for(hydration_path)
        path = served.association.relative(hydration_path) if served else None
        return (served, path) if served and path else None

    def is_suspect(self, tree_path: bytes) -> bool:
        """The object was found damaged, and has not been replaced since."""
        if (place := self._place(tree_path)) is None:
            return False
        served, path = place
        return any(problem.kind == DAMAGED_OBJECT for problem in self._shared.catalog.problems.get(served.id, path))

    async def settle(self, hydration: Hydration) -> bool:
        """Compare the bytes, write down what they are, make them durable, take the mark off, write the row, in this
        order (DESIGN §5): after a crash before the last of these the file is known by its digest. False: they were not
        the object's, and have to be loaded again, or `Hydration.failure` says that it is no use.

        Raises:
            LocalChanged: the file is no stub of that object any more. NoSpace. TreeError.
        """
        if hydration.is_patient and hydration.count == 1:
            try:
                await self._together.do(hydration)
            except Garbled as wrong:
                self.drop(hydration, wrong)
                return False
            return True
        tree = self._shared.tree
        digest, crc = await trio.to_thread.run_sync(tree.hash_file, hydration.fd, hydration.mark.size)
        if (damage := await self._damage(hydration, crc)) is not None:
            self.drop(hydration, damage)
            return False
        hydration.refresh_mark()
        fd, mark = hydration.fd, hydration.mark
        self._memory.forget(hydration.ino)
        links.are_loading(self._shared, {hydration.ino: (mark, digest)})
        unmark = partial(tree.unmark, fd, mark, mtime_ns=hydration.mtime_ns, atime_ns=hydration.atime_ns)
        local = await trio.to_thread.run_sync(unmark)
        self._write_rows([(hydration, local, digest)])
        return True

    async def settle_many(self, hydrations: Sequence[Hydration]) -> Sequence[tuple[Local, bytes] | FsxSyncError]:
        """Those that nobody waits for in a read: one after the other, each would wait for the disk twice. Of one chunk
        each, whose bytes were compared with the object's checksum when they came. What came of each; `Garbled`: it is
        to be loaded again (`drop`)."""
        files = [
            Arrived(one.fd, one.mark.size, one.key, one.mtime_ns, one.atime_ns, one.crc64nvme()) for one in hydrations
        ]
        digests = await trio.to_thread.run_sync(self._shared.tree.compare_together, files)
        states = await self._unmark(hydrations, files, digests)
        renamed = [  # a rename gave it another mark, which is asked for only where the one that is known isn't there
            isinstance(state, LocalChanged) and hydration.refresh_mark()
            for hydration, state in zip(hydrations, states, strict=True)
        ]
        if any(renamed):
            left = [digest if is_to_do else None for digest, is_to_do in zip(digests, renamed, strict=True)]
            again = await self._unmark(hydrations, files, left)
            states = [late if is_to_do else state for late, state, is_to_do in zip(again, states, renamed, strict=True)]
        self._write_rows(
            [
                (hydration, state, digest)
                for hydration, state, digest in zip(hydrations, states, digests, strict=True)
                if isinstance(state, Local) and isinstance(digest, bytes)
            ]
        )
        return [_outcome(digest, state) for digest, state in zip(digests, states, strict=True)]

    async def _unmark(
        self, hydrations: Sequence[Hydration], files: Sequence[Arrived], digests: Sequence[bytes | FsxSyncError | None]
    ) -> list[Local | FsxSyncError | None]:
        """Write down which bytes those are that have a digest, and take their marks off."""
        marks: list[StubMark | None] = []
        arrived: dict[int, tuple[StubMark, bytes]] = {}
        with self._shared.catalog.transaction():
            for hydration, digest in zip(hydrations, digests, strict=True):
                marks.append(hydration.mark if isinstance(digest, bytes) else None)
                if isinstance(digest, bytes):
                    self._memory.forget(hydration.ino)
                    arrived[hydration.ino] = hydration.mark, digest
            links.are_loading(self._shared, arrived)
        return await trio.to_thread.run_sync(self._shared.tree.unmark_together, files, marks)

    async def _damage(self, hydration: Hydration, crc: int) -> FsxSyncError | None:
        """What is wrong with the bytes; ``crc`` is their CRC64NVME as they lie on the disk."""
        if crc != hydration.crc64nvme():
            return Garbled(hydration.key)
        if hydration.count <= 1:
            return None  # it was compared when it came
        told = await checksums_of(hydration.store, hydration.mark)
        if await fits(hydration.fd, hydration.mark.size, crc, told) is False:
            return damaged_object(hydration.key, told)
        return None

    def drop(self, hydration: Hydration, damage: FsxSyncError) -> None:
        hydration.drop_data()
        self._memory.forget(hydration.ino)
        hydration.tries += 1
        hydration.remembered = False
        self._shared.front.invalidate_inode(hydration.ino, data=True)
        log.warning("a file was not loaded right", extra={"key": hydration.key, "reason": str(damage)})
        if hydration.tries >= TRIES:
            self.condemn(hydration, damage)

    def condemn(self, hydration: Hydration, damage: FsxSyncError) -> None:
        """It was loaded twice and is not what the checksum says: nobody gets its bytes, and a person is told."""
        hydration.failure = damage
        place = self._place(hydration.path)
        if place is None or not isinstance(damage, ObjectDamaged):
            self.tell(hydration, damage)
        else:
            record_problem(*place, DAMAGED_OBJECT, str(damage), damage.code)

    def report(self, hydration: Hydration, error: FsxSyncError) -> None:
        """A chunk did not come, or what came could not be kept."""
        if isinstance(error, ObjectDamaged):
            self.condemn(hydration, error)
            return
        served = self._served_for(hydration.path)
        if isinstance(error, ObjectChanged | ObjectMissing) and served is not None:
            # The object moved on: the path gets a new stub; whoever has this one open is told (ESTALE, ENOENT).
            path = served.association.relative(hydration.path)
            if path:
                served.add_hint(path, remote=True)
        if isinstance(error, ObjectArchived) and served is not None and may_ask(served):
            return  # who waits for it says so
        if isinstance(error, LocalChanged) or hydration.reported == str(error):
            return
        hydration.reported = str(error)  # many chunks fail for one reason
        self.tell(hydration, error)

    def tell(self, hydration: Hydration, error: FsxSyncError) -> None:
        """One line in the event log."""
        served = self._served_for(hydration.path)
        is_archived = isinstance(error, ObjectArchived)
        if served is not None:
            served.counts.failures["restore", as_event(error.code, "restore")] += 1
        self._shared.eventlog.emit(
            code="S3RestoreUnsupportedTierWarning" if is_archived else error.code,
            flow="restore",
            association=served.id if served else "",
            path=hydration.path,
            key=hydration.key,
            message=str(error),
        )

    def _write_rows(self, loaded: Sequence[tuple[Hydration, Local, bytes]]) -> None:
        with self._shared.catalog.transaction():
            for served, some in self._by_association(loaded):
                self._write_rows_of(served, some)

    def _by_association(
        self, loaded: Sequence[tuple[Hydration, Local, bytes]]
    ) -> Iterable[tuple[Served, list[_Loaded]]]:
        owned: dict[str, tuple[Served, list[_Loaded]]] = {}
        for hydration, local, digest in loaded:
            if (place := self._place(hydration.path)) is not None:
                served, path = place
                owned.setdefault(served.id, (served, []))[1].append((path, hydration, local, digest))
        return owned.values()

    def _write_rows_of(self, served: Served, loaded: Sequence[_Loaded]) -> None:
        for path, hydration, local, digest in loaded:
            served.counts.restored += 1
            served.counts.restored_bytes += hydration.mark.size
            self._shared.catalog.problems.clear(served.id, path, [DAMAGED_OBJECT, "lost"])
            if local.nlink > 1:
                links.loaded(self._shared, served.id, path, local, digest)
        undisturbed = loaded if self._are_as_known(served, loaded) else self._write_undisturbed(served, loaded)
        self._shared.own_work.note(served.id, [(one.path, path, local) for path, one, local, _ in undisturbed])

    def _are_as_known(self, served: Served, loaded: Sequence[_Loaded]) -> bool:
        """Write the rows, where all are what the files say; of extended attributes a row in brief does not tell."""
        if served.association.export_xattrs:
            return False
        known = [(path, local, digest, hydration.mark.etag) for path, hydration, local, digest in loaded]
        return self._shared.catalog.files.set_loaded_as_known(served.id, known)

    def _write_undisturbed(self, served: Served, loaded: Sequence[_Loaded]) -> list[_Loaded]:
        """Write the rows that are of those objects; those whose files are what the rows say. The others' are looked
        at."""
        files = self._shared.catalog.files
        paths = [path for path, *_ in loaded]
        rows: Mapping[bytes, Base | Loading]
        has_xattrs = served.association.export_xattrs
        rows = files.get_many(served.id, paths) if has_xattrs else files.loading(served.id, paths)
        known: list[tuple[bytes, Local, bytes]] = []
        undisturbed: list[_Loaded] = []
        for path, hydration, local, digest in loaded:
            base = rows.get(path)
            is_known = base is not None and (base.etag == hydration.mark.etag or base.content_hash == digest)
            if base is None or base.ino != local.ino or not is_known:
                served.add_hint(path, local=True)
                continue
            known.append((path, local, digest))
            is_same = (base.mode, base.uid, base.gid) == (local.mode, local.uid, local.gid)
            if not is_same or (isinstance(base, Base) and do_differ(served, path, base, local)):
                served.add_hint(path, local=True)  # set meanwhile: a change to be exported, and no part of the loading
            else:
                undisturbed.append((path, hydration, local, digest))
        files.set_loaded_many(served.id, known)
        return undisturbed
