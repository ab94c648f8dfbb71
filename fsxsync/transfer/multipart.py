"""One file as a multipart upload: parts in parallel, and what an earlier try has sent already is not sent again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from fsxsync import _core, at_once
from fsxsync.errors import (
    ObjectChanged,
    ObjectMissing,
    RepositoryError,
    Throttled,
)
from fsxsync.model.identity import Remote
from fsxsync.model.parts import Part, grown_part_size, plan_parts
from fsxsync.ports import (
    PASSING,
    Begun,
    FileRange,
    Intent,
    ObjectHeaders,
    ObjectStore,
    SentPart,
    UploadedPart,
    UploadJournal,
    Written,
)
from fsxsync.transfer.hashing import compare, in_thread
from fsxsync.transfer.parts import combined, described, reusable


@dataclass(frozen=True, slots=True)
class Multipart:
    """See `upload.upload_file`. ``keeps``: the journal remembers what is kept for the next try."""

    store: ObjectStore
    key: str
    fd: int
    headers: ObjectHeaders
    still: Callable[[], None]
    journal: UploadJournal
    keeps: bool
    at_once: int

    async def upload(self, size: int, part_size: int, *, replaces: Remote | None) -> tuple[Written, bytes]:
        """Raises what `upload.upload_file` does."""
        plan = plan_parts(size, part_size)
        part_size = grown_part_size(size, part_size)
        digest, crcs = await in_thread(partial(_core.hash_parts, self.fd, 0, size, part_size), self.key)
        self.still()  # that took its time: no byte need be sent of a file that moved on
        begun = await self._begin(plan, crcs, part_size)
        crc = combined(plan, crcs)
        try:
            parts = await self._send(begun, plan, crcs)
            self.still()
            written = await self._complete(begun, parts, crc, replaces)
        except BaseException as error:
            if not self.keeps or (isinstance(error, RepositoryError) and not isinstance(error, PASSING)):
                with trio.CancelScope(shield=True):
                    await self._abort(begun.number, [begun.upload_id])
            raise
        self.journal.finished(begun.number)
        return compare(written, crc, self.key), digest

    # ------------------------------------------------------------- beginning

    async def _begin(self, plan: Sequence[Part], crcs: Sequence[int], part_size: int) -> Begun:
        """An upload to send parts to: the one that an earlier try began, as far as it still fits, or a new one. What
        else is remembered of this key is ended."""
        fixed = described(self.headers, checksum=self.store.conditions.checksum)
        remembered = self.journal.remembered(self.store, self.key)
        chosen: Begun | None = None
        for found in reversed(remembered):
            if isinstance(found, Intent):
                continue
            if chosen is None and (found.part_size, found.described) == (part_size, fixed):
                chosen = await self._resumed(found, plan, crcs)
            if chosen is None or chosen.number != found.number:
                await self._abort(found.number, [found.upload_id])
        intents = [found for found in remembered if isinstance(found, Intent)]
        if intents:
            await self._forget(intents, {found.upload_id for found in remembered if isinstance(found, Begun)})
        return chosen or await self._start(part_size, fixed)

    async def _resumed(self, begun: Begun, plan: Sequence[Part], crcs: Sequence[int]) -> Begun | None:
        """The same upload with the parts that are still good; None if the store does not have it any more, or does not
        let us see."""
        try:
            listed = await self.store.parts_of(self.key, begun.upload_id)
        except PASSING:
            raise
        except RepositoryError:
            return None
        if listed is None:
            return None
        return Begun(
            begun.number,
            begun.upload_id,
            begun.part_size,
            begun.described,
            tuple(reusable(begun, plan, crcs, listed)),
        )

    async def _start(self, part_size: int, fixed: bytes) -> Begun:
        number = self.journal.intended(self.store, self.key)
        try:
            upload_id = await self.store.start_upload(self.key, self.headers)
        except PASSING:
            raise  # it may have taken effect, and its answer was lost
        except RepositoryError:
            self.journal.finished(number)
            raise
        self.journal.started(number, upload_id, part_size=part_size, described=fixed)
        return Begun(number, upload_id, part_size, fixed)

    # ------------------------------------------------------------- sending

    async def _send(self, begun: Begun, plan: Sequence[Part], crcs: Sequence[int]) -> list[UploadedPart]:
        """All parts of the plan, once the store has them; its order is kept, `at_once` of them are under way."""
        done = {part.number: UploadedPart(part.number, part.etag, part.crc64nvme) for part in begun.parts}

        async def send(part: Part) -> None:
            crc = crcs[part.number - 1]
            done[part.number] = uploaded = await self._send_part(begun, part, crc)
            self.journal.sent(begun.number, SentPart(part.number, part.length, uploaded.etag, crc))

        await at_once.each([part for part in plan if part.number not in done], send, at_once=self.at_once)
        return [done[part.number] for part in plan]

    async def _send_part(self, begun: Begun, part: Part, crc: int) -> UploadedPart:
        body = FileRange(self.fd, part.offset, part.length)
        try:
            return await self.store.upload_part(self.key, begun.upload_id, part.number, body, crc64nvme=crc)
        except ObjectMissing as error:  # somebody ended the upload: the bucket's own rules, say
            raise ObjectChanged(error.what, error.why) from error

    async def _complete(
        self, begun: Begun, parts: Sequence[UploadedPart], crc: int, replaces: Remote | None
    ) -> Written:
        if replaces is not None:  # parts take their time, and no ETag tells of what was said there meanwhile
            found = await self.store.head(self.key)
            if found is not None and not found.is_described_as(replaces):
                raise ObjectChanged(f"upload to {self.key}", "it has other metadata now")
        try:
            return await self.store.complete_upload(self.key, begun.upload_id, parts, replaces=replaces, crc64nvme=crc)
        except Throttled:
            if len(begun.parts) == len(parts):
                # So it was last time, and nothing new was sent since. Perhaps a part is damaged there, and the whole
                # will never fit its checksum.
                await self._abort(begun.number, [begun.upload_id])
            raise

    # ------------------------------------------------------------- ending

    async def _abort(self, number: int, upload_ids: Sequence[str]) -> None:
        """End uploads; if the store does not let us, the journal keeps the entry: that costs storage, not data."""
        with contextlib.suppress(RepositoryError):
            for upload_id in upload_ids:
                await self.store.abort_upload(self.key, upload_id)
            self.journal.finished(number)

    async def _forget(self, intents: Sequence[Intent], ours: set[str]) -> None:
        """Find out what became of uploads whose ids were lost, and end them."""
        lost: list[str] = []
        with contextlib.suppress(RepositoryError):
            lost = [found for found in await self.store.uploads_of(self.key) if found not in ours]
            for intent in intents:
                await self._abort(intent.number, lost)
