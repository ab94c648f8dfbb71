"""The mover: takes chunk jobs in order of priority, a bounded number at a time.

Blocking store calls run in worker threads. A later engine in C replaces what happens inside one job;
the queue, the priorities and the interface (`ports.Mover`) stay.
"""

from __future__ import annotations

import errno
import heapq
import itertools
from collections.abc import Callable

import trio

from fsxsync.errors import LocalChanged, NoSpace
from fsxsync.model.identity import Remote
from fsxsync.ports import ChunkJob, ObjectHeaders, ObjectStore, Priority, Written
from fsxsync.transfer.files import write_all
from fsxsync.transfer.upload import UploadJournal, upload_file


class _Slots:
    """A semaphore whose waiters leave in order of priority, first come first served within one."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, trio.Event]] = []

    async def acquire(self, priority: Priority) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = (int(priority), next(self._order), trio.Event())
        heapq.heappush(self._waiting, turn)
        try:
            await turn[2].wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
                heapq.heapify(self._waiting)
            else:
                self.release()  # the slot was handed over in the moment of cancellation
            raise

    def release(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._free += 1


class ThreadMover:
    """`ports.Mover` over worker threads."""

    def __init__(
        self, *, fetch_workers: int, upload_workers: int, part_size: int, journal: UploadJournal | None = None
    ) -> None:
        self._slots = _Slots(fetch_workers)
        self._fetch_limiter = trio.CapacityLimiter(fetch_workers)
        self._upload_limiter = trio.CapacityLimiter(upload_workers)
        self._part_size = part_size
        self._journal = journal
        self.bytes_down = 0
        self.bytes_up = 0
        self.in_flight = 0

    async def fetch(self, job: ChunkJob, priority: Priority) -> None:
        """Download one chunk into the file.

        Raises:
            RepositoryError: from the store. NoSpace: the disk is full.
        """
        await self._slots.acquire(priority)
        self.in_flight += 1
        try:
            await trio.to_thread.run_sync(_fetch, job, limiter=self._fetch_limiter)
            self.bytes_down += job.length
        finally:
            self.in_flight -= 1
            self._slots.release()

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
        """See `ports.Mover`. ``still`` runs in a worker thread."""
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
                limiter=self._upload_limiter,
                journal=self._journal,
            )
            self.bytes_up += size
            return answer
        finally:
            self.in_flight -= 1


def _fetch(job: ChunkJob) -> None:
    data = job.store.get_range(job.key, job.offset, job.length, etag=job.etag, version_id=job.version_id)
    if len(data) != job.length:
        raise LocalChanged(f"download of {job.key}", f"{len(data)} bytes came where {job.length} were asked for")
    try:
        write_all(job.fd, data, job.offset)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(f"download of {job.key}", "no space is left") from error
        raise
