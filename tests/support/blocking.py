"""Asynchronous stores for tests that read better without `await`: a trio loop in a thread of its own, and its pool.

    with Loop() as loop:
        store = loop.blocking(open_store("bucket", access, None, loop.wire()))
        store.put("key", b"body", headers, replaces=None)

A blocking store has the methods of the one behind it (`behind`), and its attributes to read.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import trio

from fsxsync import _core
from fsxsync.ports import Fetched, FileRange, ObjectStore, Priority, UploadedPart
from fsxsync.transfer.wire import LaneWire, Pool

_START_S = 30
T = TypeVar("T")
S = TypeVar("S", bound=ObjectStore)


class Loop:
    """A context manager. Calls that are under way when it ends are finished first."""

    def __init__(self, **settings: Any) -> None:
        """``settings``: of the `Pool`."""
        self._settings = {"threads": 8, "buffer_memory": 1 << 20} | settings
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._ready = threading.Event()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._leaving = trio.Event()
        self._pool = Pool(**self._settings)
        async with self._pool.running():
            self._ready.set()
            await self._leaving.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_START_S), "the loop did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        trio.from_thread.run_sync(self._leaving.set, trio_token=self._token)
        self._thread.join()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Run it in the loop and wait for what it returns."""
        return trio.from_thread.run(functools.partial(function, *args, **kwargs), trio_token=self._token)

    def wire(self, most: int = 8) -> LaneWire:
        """A way out for one store."""
        return self._pool.lane(most)

    def blocking(self, store: S) -> Blocking[S]:
        return Blocking(store, self)


class Blocking(Generic[S]):
    def __init__(self, store: S, loop: Loop) -> None:
        self.behind = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.behind, name)
        return functools.partial(self._loop.call, found) if inspect.iscoroutinefunction(found) else found

    def fetched(
        self,
        key: str,
        offset: int,
        length: int,
        *,
        etag: str,
        version_id: str | None = None,
        size: int = -1,
    ) -> tuple[bytes, Fetched]:
        """What `fetch` left in an empty file, and what it said. ``size``: -1 makes it a range."""
        with open_file() as fd:
            where = FileRange(fd, offset, length)
            told = self.fetch(key, where, etag=etag, version_id=version_id, size=size, priority=Priority.FOREGROUND)
            assert not os.pread(fd, offset, 0).strip(b"\0"), "something before the range was written"
            assert os.fstat(fd).st_size <= offset + length, "something behind the range was written"
            return os.pread(fd, length, offset), told

    def read(self, key: str, offset: int, length: int, **version: Any) -> bytes:
        return self.fetched(key, offset, length, **version)[0]

    def send_part(self, key: str, upload_id: str, number: int, data: bytes) -> UploadedPart:
        """`upload_part` of a file with that data."""
        with file_range(data) as body:
            part: UploadedPart = self.upload_part(key, upload_id, number, body, crc64nvme=_core.crc64nvme(data))
            return part


@contextlib.contextmanager
def open_file(data: bytes = b"") -> Iterator[int]:
    """A file in memory."""
    fd = os.memfd_create("test")
    try:
        os.pwrite(fd, data, 0)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def file_range(data: bytes) -> Iterator[FileRange]:
    """Data in a file, with other data around it."""
    with open_file(b"before" + data + b"after") as fd:
        yield FileRange(fd, 6, len(data))
