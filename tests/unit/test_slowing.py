"""Who writes above ``cache_high`` waits as long as that helps, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fsxsync.model.measures import Measures
from fsxsync.sync.slowing import FREE_S, STALLED_S, Slowing


class Disk:
    """What `Slowing` asks about, as a test wants it."""

    def __init__(self) -> None:
        self.is_high = self.is_in_motion = True
        self.counts = Measures()
        served: Any = {"dra-1": SimpleNamespace(counts=self.counts)}
        self.slowing = Slowing(served, lambda: self.is_high, lambda: self.is_in_motion)

    async def every_second(self, act: Callable[[], None], times: int) -> None:
        for _ in range(times):
            await trio.sleep(1)
            act()

    async def waited_s(self) -> float:
        began = trio.current_time()
        await self.slowing.wait()
        assert self.slowing.held == 0
        return trio.current_time() - began


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def test_nobody_waits_below_the_mark(disk: Disk, autojump_clock: MockClock) -> None:
    disk.is_high = False
    assert await disk.waited_s() == 0


@pytest.mark.parametrize("moves", ["exported", "released", "a part of a large object"])
async def test_a_writer_waits_as_long_as_something_moves(disk: Disk, autojump_clock: MockClock, moves: str) -> None:
    def move() -> None:
        if moves == "exported":
            disk.counts.exported += 1
        elif moves == "released":
            disk.counts.released += 1
        else:
            disk.counts.requests.note("UploadPart", "200", 0, up=1 << 20)

    def end() -> None:
        disk.is_high = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.every_second, move, 60)
        nursery.start_soon(disk.waited_s)
        await trio.sleep(59.5)
        assert disk.slowing.held == 1
        end()


async def test_where_nothing_moves_writers_go_on_for_a_while(disk: Disk, autojump_clock: MockClock) -> None:
    assert STALLED_S < await disk.waited_s() < STALLED_S + 1
    assert await disk.waited_s() == 0
    await trio.sleep(FREE_S)
    assert STALLED_S < await disk.waited_s() < STALLED_S + 1


async def test_where_nothing_is_to_be_exported_waiting_does_not_help(disk: Disk, autojump_clock: MockClock) -> None:
    disk.is_in_motion = False
    assert await disk.waited_s() < 1


async def test_who_goes_away_is_not_counted(disk: Disk, autojump_clock: MockClock) -> None:
    with trio.move_on_after(0.5):
        await disk.slowing.wait()
    assert disk.slowing.held == 0
