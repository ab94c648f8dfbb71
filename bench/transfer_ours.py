"""fsxsync's part of the transfer benchmark, a process of its own: the engine with the daemon's settings."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from support.moto_server import REGION

from bench.transfer_child import Gauge, Task, main
from fsxsync.config import Settings
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix
from fsxsync.ports import ChunkJob, ObjectHeaders, ObjectStore, Priority
from fsxsync.repository.store import open_store
from fsxsync.transfer.engine import Transfers
from fsxsync.transfer.wire import Pool

_AHEAD = 2
"""Chunks or files under way for each native thread: none of them waits for Python to think of the next one."""

Act = Callable[[], Awaitable[object]]


async def run(task: Task, gauge: Gauge) -> None:
    """As many requests at a time as the others: the pool has ``threads`` threads."""
    settings = _settings(task)
    pool = Pool(threads=task.threads, buffer_memory=settings.buffer_memory, down_limit=task.limit)
    mover = Transfers(part_size=settings.part_size)
    async with pool.running():
        wire = pool.lane(_AHEAD * task.threads)
        store = open_store(task.bucket, Access(endpoint_url=task.url, region=REGION), None, wire)
        if task.action == "upload":
            await store.probe("")
        await store.head(task.warm_key)
        acts = (_downloads if task.action == "download" else _uploads)(task, mover, store)
        async with gauge.measuring():
            await _all(acts, _AHEAD * task.threads)


def _downloads(task: Task, mover: Transfers, store: ObjectStore) -> Iterator[Act]:
    chunk_size = _settings(task).chunk_size

    async def fetch(key: str, etag: str, size: int, offset: int) -> None:
        with _opened(task, key, os.O_RDWR | os.O_CREAT) as fd:
            job = ChunkJob(store, key, etag, None, size, fd, offset, min(chunk_size, size - offset))
            await mover.fetch(job, Priority.FOREGROUND)

    for key, size, etag in zip(task.keys, task.sizes, task.etags, strict=True):
        for offset in range(0, size, chunk_size):
            yield partial(fetch, key, etag, size, offset)


def _uploads(task: Task, mover: Transfers, store: ObjectStore) -> Iterator[Act]:
    headers = ObjectHeaders(Posix(), Kind.FILE)

    async def upload(key: str, size: int) -> None:
        with _opened(task, key, os.O_RDONLY) as fd:
            await mover.upload(store, key, fd, size, headers, replaces=None, still=_is_still)

    for key, size in zip(task.keys, task.sizes, strict=True):
        yield partial(upload, key, size)


def _is_still() -> None:
    """Nobody writes to the files meanwhile."""


@contextmanager
def _opened(task: Task, key: str, flags: int) -> Iterator[int]:
    fd = os.open(os.path.join(task.directory, os.path.basename(key)), flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _settings(task: Task) -> Settings:
    """The daemon's, with nothing configured."""
    return Settings(state_dir=Path(task.directory))


async def _all(acts: Iterator[Act], at_once: int) -> None:
    async def work() -> None:
        for act in acts:
            await act()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work)


if __name__ == "__main__":
    main(run)
