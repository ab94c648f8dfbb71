"""Flushes that are shared: nobody returns before what he wrote is on the disk."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from fsxsync.errors import NoSpace
from fsxsync.sync.flushing import Flusher


class Disk:
    """Flushes end when a test lets them."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.go_on = threading.Semaphore(0)
        self.failure: NoSpace | None = None

    def one(self, fd: int) -> None:
        self._flush(fd)

    def all(self) -> None:
        self._flush(None)

    def _flush(self, fd: int | None) -> None:
        self.asked.append(fd)
        self.go_on.acquire(timeout=20)
        if self.failure is not None:
            raise self.failure


async def until(count: int, found: list[int]) -> None:
    with trio.fail_after(10):
        while len(found) < count:  # noqa: ASYNC110  a thread's doing
            await trio.sleep(0.001)


async def test_who_comes_meanwhile_shares_the_next_one_and_not_the_one_under_way() -> None:
    disk, done = Disk(), list[int]()
    flusher = Flusher(disk.one, disk.all)

    async def flush(fd: int) -> None:
        await flusher.flush(fd)
        done.append(fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, 1)
        with trio.fail_after(10):
            while not disk.asked:  # noqa: ASYNC110  a thread's doing
                await trio.sleep(0.001)
        for fd in (2, 3, 4):
            nursery.start_soon(flush, fd)
        await trio.testing.wait_all_tasks_blocked()
        assert (disk.asked, done) == ([1], [])
        disk.go_on.release()
        await until(1, done)
        assert done == [1]
        disk.go_on.release()
        await until(4, done)
    assert disk.asked == [1, None]


async def test_a_failure_is_everybodys_whose_files_it_was() -> None:
    disk, failed = Disk(), list[int]()
    disk.failure = NoSpace("flushing", "full")
    disk.go_on.release(2)
    flusher = Flusher(disk.one, disk.all)

    async def flush(fd: int) -> None:
        with pytest.raises(NoSpace):
            await flusher.flush(fd)
        failed.append(fd)

    async with trio.open_nursery() as nursery:
        for fd in (1, 2, 3):
            nursery.start_soon(flush, fd)
    assert sorted(failed) == [1, 2, 3]
    assert disk.asked == [None]
