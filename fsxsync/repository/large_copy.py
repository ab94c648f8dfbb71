"""A server-side copy of what is too large for one request: in parts, which a later try goes on with after a crash.

The store does the work, and may take minutes for it: what it has copied already is not copied again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from fsxsync import at_once
from fsxsync.crashpoint import durable
from fsxsync.errors import RepositoryError
from fsxsync.model.parts import Part, grown_part_size, plan_parts
from fsxsync.ports import PASSING, Begun, ObjectStore, SentPart, UploadedPart, UploadJournal, Written
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.copying import Source

AT_ONCE = 4
_MOVES_BY_ITSELF = "file-atime"
"""It alone makes no other copy: the object gets the one that the copy began with, as with uploads."""


@dataclass(frozen=True, slots=True)
class LargeCopy:
    """Of exactly one version. ``params``: boto3's words for what the new object says; ``store`` names it in the
    journal, without which nothing outlives a failure."""

    books: Bookkeeping
    store: ObjectStore
    journal: UploadJournal
    keeps: bool
    source: Source
    target: str
    params: Mapping[str, Any]
    part_size: int

    async def run(self, look: Callable[[], Awaitable[Mapping[str, Any]]]) -> Written:
        """``look`` is called once all parts are copied, which may take minutes, right before the completion: it looks
        at what the store does not look at by itself, and returns the conditions that it does.

        Raises what `ports.ObjectStore.copy` and ``look`` do.
        """
        size = self.source.remote.size
        plan = plan_parts(size, self.part_size)
        begun = await self._begin(plan, grown_part_size(size, self.part_size))
        try:
            parts = await self._copy_parts(begun, plan)
            condition = await look()
            with durable("upload.complete"):
                written = await trio.to_thread.run_sync(
                    lambda: self.books.complete_upload(self.target, begun.upload_id, parts, condition, crc64nvme=None)
                )
        except BaseException as error:
            if not self.keeps or (isinstance(error, RepositoryError) and not isinstance(error, PASSING)):
                with trio.CancelScope(shield=True):
                    await self._abort(begun)
            raise
        self.journal.finished(begun.number)
        return written

    # ------------------------------------------------------------- beginning

    async def _begin(self, plan: Sequence[Part], part_size: int) -> Begun:
        """An upload that an earlier try began for the same copy, or a new one. Any others to this key end with the look
        (sync/uploads.py)."""
        fixed = self._described()
        for found in reversed(self.journal.remembered(self.store, self.target)):
            if isinstance(found, Begun) and (found.part_size, found.described) == (part_size, fixed):
                listed = await self._listed(found)
                if listed is not None:
                    return Begun(found.number, found.upload_id, part_size, fixed, _still_there(found, plan, listed))
        number = self.journal.intended(self.store, self.target)
        try:
            with durable("upload.start"):
                upload_id = await trio.to_thread.run_sync(self.books.start_copy, self.source, self.target, self.params)
        except PASSING:
            raise  # it may have taken effect, and its answer was lost
        except RepositoryError:
            self.journal.finished(number)
            raise
        self.journal.started(number, upload_id, part_size=part_size, described=fixed)
        return Begun(number, upload_id, part_size, fixed)

    async def _listed(self, begun: Begun) -> list[UploadedPart] | None:
        """What the store has of it; None if it has it no more, or does not let us see."""
        try:
            return await trio.to_thread.run_sync(self.books.parts_of, self.target, begun.upload_id)
        except PASSING:
            raise
        except RepositoryError:
            return None

    def _described(self) -> bytes:
        """A digest of the version that is copied and of what is fixed when the copy starts."""
        remote = self.source.remote
        said = {name: value for name, value in self.params.items() if name != "Metadata"}
        metadata = {name: value for name, value in self.params["Metadata"].items() if name != _MOVES_BY_ITSELF}
        # The time, too: between two of the same bytes another version may have stood there, and have been copied from.
        seen = (remote.etag, remote.version_id, remote.size, remote.last_modified_ns)
        what = (self.source.bucket, self.source.key, *seen)
        return hashlib.blake2b(repr((what, sorted(said.items()), sorted(metadata.items()))).encode()).digest()

    # ------------------------------------------------------------- copying

    async def _copy_parts(self, begun: Begun, plan: Sequence[Part]) -> list[UploadedPart]:
        """All parts of the plan, in its order, once the store has them."""
        done = {part.number: UploadedPart(part.number, part.etag) for part in begun.parts}

        async def copy(part: Part) -> None:
            done[part.number] = await self._copy_part(begun, part)

        await at_once.each([part for part in plan if part.number not in done], copy, at_once=AT_ONCE)
        return [done[part.number] for part in plan]

    async def _copy_part(self, begun: Begun, part: Part) -> UploadedPart:
        with durable("upload.part"):
            copied = await trio.to_thread.run_sync(
                self.books.copy_part, self.source, self.target, begun.upload_id, part
            )
        self.journal.sent(begun.number, SentPart(part.number, part.length, copied.etag, 0))
        return copied

    async def _abort(self, begun: Begun) -> None:
        """If the store does not let us, the journal keeps the entry: that costs storage, not data."""
        with contextlib.suppress(RepositoryError), durable("upload.abort"):
            await trio.to_thread.run_sync(self.books.abort_upload, self.target, begun.upload_id)
            self.journal.finished(begun.number)


def _still_there(begun: Begun, plan: Sequence[Part], listed: Sequence[UploadedPart]) -> tuple[SentPart, ...]:
    """The parts that need not be copied again. Their version is the same, so their bytes are."""
    there = set(listed)
    return tuple(
        part
        for part in begun.parts
        if part.number <= len(plan)
        and part.length == plan[part.number - 1].length
        and UploadedPart(part.number, part.etag) in there
    )
