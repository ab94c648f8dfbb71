"""The C pool as trio sees it: a request goes in, a task sleeps until the pool's eventfd says that it is answered."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import outcome
import trio

from fsxsync import _core
from fsxsync.errors import (
    EndpointUnreachable,
    FsxSyncError,
    InvariantBroken,
    KeyRefused,
    LocalChanged,
    NoSpace,
    RepositoryError,
    TreeError,
)
from fsxsync.ports import Answer, FileRange, Priority, SignedRequest, Sink
from fsxsync.transfer.gets import Came, Getter, Prepare, Taken
from fsxsync.transfer.lanes import Lane

KEPT_MAX = 1 << 20
"""The most of an answer that is kept in memory: error documents, symlinks' targets, results of copies."""
_BUFFER_MIN, _BUFFER_MAX = 64 << 10, 1 << 20
_QUEUE = 4096
_LOW_SPEED_S = 60
"""A connection that carries nothing for so long is given up, as boto3's read time-out does."""
_NO_ANSWER = frozenset(
    {_core.TRANSFER_CONNECT, _core.TRANSFER_TIMEOUT, _core.TRANSFER_TLS, _core.TRANSFER_RESET, _core.TRANSFER_SHORT}
)


class Pool:
    """The native threads of one daemon, and the tasks that wait for them."""

    def __init__(
        self, *, threads: int, buffer_memory: int, down_limit: int = 0, up_limit: int = 0, ca_bundle: str | None = None
    ) -> None:
        """``buffer_memory``: bytes for all threads' buffers. ``down_limit``, ``up_limit``: bytes a second; 0: none.

        Threads do not survive a fork: make it afterwards.
        """
        self._core = _core.TransferPool(
            threads,
            queue=_QUEUE,
            # Half for us, half for what libcurl and the sockets hold.
            buffer_bytes=min(_BUFFER_MAX, max(_BUFFER_MIN, buffer_memory // (2 * threads))),
            ca_bundle=ca_bundle,
            low_speed_s=_LOW_SPEED_S,
            down_limit=down_limit,
            up_limit=up_limit,
        )
        self._waiting: dict[int, trio.lowlevel.Task | Taken] = {}
        self._room = trio.Event()
        """Set once something is answered; whoever finds the queue full waits for it, all for the same one."""
        self._proxies: dict[str, str | None] = {}
        self._lanes = 0
        """How many there were."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Inside, requests are answered. On the way out all that is under way is cancelled."""
        delivering = trio.CancelScope(shield=True)  # whoever is cancelled outside waits for the pool's word, too
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, delivering, name="transfer answers")
                try:
                    yield
                finally:
                    delivering.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._core.close)
                self._hand_over()  # to whoever asked from outside: nobody else would ever wake them

    def close(self) -> None:
        """End the threads of a pool that never ran."""
        self._core.close()

    def lane(self, most: int) -> LaneWire:
        """A `ports.Wire` with a limit of its own."""
        self._lanes += 1
        return LaneWire(self, Lane(most), self._lanes)

    def stats(self) -> Mapping[str, int]:
        """Counters: jobs waiting and running, bytes up and down, connections opened."""
        return self._core.stats()

    async def _deliver(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.lowlevel.wait_readable(self._core.fileno())
                self._hand_over()

    def _hand_over(self) -> None:
        getters: dict[Getter, None] = {}
        for result in self._core.collect():
            waiting = self._waiting.pop(result.id)
            if isinstance(waiting, Taken):
                waiting.came(result)
                getters[waiting.getter] = None
            else:
                trio.lowlevel.reschedule(waiting, outcome.Value(result))
        self._room.set()
        for getter in getters:
            getter.pump()

    def proxy_for(self, url: str) -> str | None:
        """The proxy that the environment names for that server (HTTPS_PROXY, NO_PROXY …), as boto3 reads it."""
        origin = url[: url.find("/", len("https://"))]  # each request comes by here: no need to take it all apart
        if origin not in self._proxies:
            parts = urlsplit(origin)
            named = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
            if named and "://" not in named:
                named = f"http://{named.removeprefix('//')}"
            self._proxies[origin] = named or None
        return self._proxies[origin]

    def submit_gets(
        self,
        gets: Sequence[tuple[SignedRequest, Sink]],
        priority: Priority,
        taken: Sequence[Taken],
        *,
        lane: int,
        at_once: int,
    ) -> list[int]:
        """See `gets.Carrier`. All of them go to one server."""
        asked = tuple(
            (
                request.url,
                [f"{name}: {value}".encode("ascii") for name, value in request.headers],
                sink.fd,
                sink.size,
                sink.mtime_ns,
                sink.atime_ns,
            )
            for request, sink in gets
        )
        proxy = self.proxy_for(asked[0][0]) if asked else None
        try:
            jobs = self._core.submit_gets(asked, lane, at_once, priority=int(priority), proxy=proxy)
        except OSError:  # there is no descriptor to be had: asked for alone, each says so itself
            return []
        self._waiting.update(zip(jobs, taken, strict=False))
        return jobs

    def cancel(self, job: int, *, only_held: bool = False) -> None:
        """End a job; its result comes at once. ``only_held``: only if its lane holds it."""
        self._core.cancel(job, only_held=only_held)

    async def carry(
        self,
        request: SignedRequest,
        priority: Priority,
        *,
        body: bytes | FileRange,
        body_crc64nvme: int | None,
        into: FileRange | None,
        object_offset: int | None,
    ) -> _core.TransferResult:
        """Have one request carried out; its result, whatever became of it.

        Raises:
            trio.Cancelled: it was not answered, and nothing uses the descriptors any more.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = await self._submit(request, priority, body, body_crc64nvme, into, object_offset)
        self._waiting[job] = trio.lowlevel.current_task()

        def end(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._core.cancel(job)  # its result comes at once, and wakes the task
            return trio.lowlevel.Abort.FAILED

        result: _core.TransferResult = await trio.lowlevel.wait_task_rescheduled(end)
        if result.error == _core.TRANSFER_CANCELLED:
            await trio.lowlevel.checkpoint_if_cancelled()
        return result

    async def _submit(
        self,
        request: SignedRequest,
        priority: Priority,
        body: bytes | FileRange,
        body_crc64nvme: int | None,
        into: FileRange | None,
        object_offset: int | None,
    ) -> int:
        headers = [f"{name}: {value}".encode("ascii") for name, value in request.headers]
        proxy = self.proxy_for(request.url)
        source, moved = -1, into
        if isinstance(body, FileRange):
            source, moved = body.fd, body
        while True:
            try:
                if moved is None:
                    return self._core.submit(
                        request.method,
                        request.url,
                        headers,
                        body=body if request.method in {"PUT", "POST"} and isinstance(body, bytes) else None,
                        priority=int(priority),
                        keep_body=KEPT_MAX,
                        proxy=proxy,
                    )
                return self._core.submit(
                    request.method,
                    request.url,
                    headers,
                    source=source,
                    sink=-1 if into is None else into.fd,
                    offset=moved.offset,
                    length=moved.length,
                    object_offset=-1 if object_offset is None else object_offset,
                    expect_crc64nvme=body_crc64nvme,
                    hashes=_core.TRANSFER_HASH_CRC64NVME,
                    priority=int(priority),
                    proxy=proxy,
                )
            except BlockingIOError:  # the queue is full
                if self._room.is_set():
                    self._room = trio.Event()
                await self._room.wait()


class LaneWire:
    """`ports.Wire`: the pool, as far as one association may use it."""

    def __init__(self, pool: Pool, lane: Lane, number: int) -> None:
        self._pool = pool
        self.lane = lane
        self._getter = Getter(pool, lane, number)

    async def get_many(self, count: int, priority: Priority, prepare: Prepare, came: Came) -> None:
        """See `ports.Wire`."""
        await self._getter.get_many(count, priority, prepare, came)

    async def send(
        self,
        request: SignedRequest,
        *,
        what: str,
        priority: Priority,
        body: bytes | FileRange = b"",
        body_crc64nvme: int | None = None,
        into: FileRange | None = None,
        object_offset: int | None = None,
    ) -> Answer:
        """See `ports.Wire`."""
        async with self.lane.turn(priority):
            result = await self._pool.carry(
                request,
                priority,
                body=body,
                body_crc64nvme=body_crc64nvme,
                into=into,
                object_offset=object_offset,
            )
        if result.error not in {_core.TRANSFER_OK, _core.TRANSFER_HTTP}:
            raise failure_of(result, what, length=None if into is None else into.length)
        self.lane.answered(result.status)
        return Answer(result.status, result.headers, result.body, result.crc64nvme)


def failure_of(result: _core.TransferResult, what: str, *, length: int | None) -> FsxSyncError:
    """What a result without a usable answer means. ``length``: of what should have gone to a file."""
    error, why = result.error, result.message
    if error == _core.TRANSFER_SHORT and _announces_other(result, length):
        return RepositoryError(what, why)  # it is all there is: asked again, the store would say the same
    if error in _NO_ANSWER:
        return EndpointUnreachable(what, why)
    if error in {_core.TRANSFER_LOCAL_SHORT, _core.TRANSFER_LOCAL_CHANGED}:
        return LocalChanged(what, why)
    if error == _core.TRANSFER_LOCAL_IO:
        if result.errno in {errno.ENOSPC, errno.EDQUOT}:
            return NoSpace(what, "no space is left")
        return TreeError(what, f"{os.strerror(result.errno)} ({why})")
    if error == _core.TRANSFER_LONG and length is None:
        return KeyRefused(what, f"the answer is longer than expected: {why}")
    if error == _core.TRANSFER_CANCELLED:
        raise InvariantBroken(f"{what}: ended by nobody")
    return RepositoryError(what, why)


def _announces_other(result: _core.TransferResult, length: int | None) -> bool:
    announced = dict(result.headers).get("content-length")
    return length is not None and announced is not None and announced != str(length)


def ca_bundle_of(environment: Mapping[str, str]) -> str | None:
    """The file of trusted certificates that the environment names, as boto3 reads it; None: the system's."""
    return environment.get("AWS_CA_BUNDLE") or environment.get("REQUESTS_CA_BUNDLE") or None
