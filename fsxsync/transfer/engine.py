"""The mover: chunks into files, files into objects. The bytes themselves never come by here (wire.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fsxsync.model.identity import Remote
from fsxsync.model.stub import StubMark
from fsxsync.ports import (
    ChunkJob,
    End,
    Fetched,
    FileRange,
    ObjectHeaders,
    ObjectStore,
    Priority,
    Sink,
    UploadJournal,
    Written,
)
from fsxsync.transfer.upload import upload_file


class Transfers:
    """`ports.Mover`, with counters for `status`."""

    def __init__(self, *, part_size: int, journal: UploadJournal | None = None) -> None:
        self._part_size = part_size
        self._journal = journal
        self.bytes_down = 0
        self.bytes_up = 0
        self.in_flight = 0

    async def fetch(self, job: ChunkJob, priority: Priority) -> Fetched:
        """Download one chunk into the file. Raises what `ports.ObjectStore.fetch` does."""
        self.in_flight += 1
        try:
            fetched = await job.store.fetch(
                job.key,
                FileRange(job.fd, job.offset, job.length),
                etag=job.etag,
                version_id=job.version_id,
                size=job.size,
                priority=priority,
            )
            self.bytes_down += job.length
            return fetched
        finally:
            self.in_flight -= 1

    async def fetch_many(
        self,
        store: ObjectStore,
        wanted: Sequence[StubMark],
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        """See `ports.Mover`."""

        def start(number: int, end: End) -> Sink | None:
            sink = begin(number, end)
            if sink is not None:
                self.in_flight += 1
            return sink

        def take(number: int, fetched: Fetched | None) -> None:
            self.in_flight -= 1
            if fetched is not None:
                self.bytes_down += wanted[number].size
            came(number, fetched)

        await store.fetch_many(wanted, priority=priority, begin=start, came=take)

    async def upload(
        self,
        store: ObjectStore,
        key: str,
        fd: int,
        size: int,
        headers: ObjectHeaders,
        *,
        replaces: Remote | None,
        still: Callable[[], None],
    ) -> tuple[Written, bytes]:
        """See `ports.Mover`."""
        self.in_flight += 1
        try:
            answer = await upload_file(
                store,
                key,
                fd,
                size,
                headers,
                replaces=replaces,
                still=still,
                part_size=self._part_size,
                journal=self._journal,
            )
            self.bytes_up += size
            return answer
        finally:
            self.in_flight -= 1
