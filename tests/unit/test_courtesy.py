"""Looks step back while the mount is hard at work, and never for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import World
from trio.testing import MockClock

from fsxsync.sync.courtesy import BUSY_PER_S, PAUSE_S, SAMPLE_S, WORK_S, Courtesy
from fsxsync.sync.looker import run_lookers


class Applications:
    """As many requests a second as they like, by the clock of the test."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s

    def requests(self) -> int:
        return int(trio.current_time() * self.per_s)


async def waited_s(courtesy: Courtesy) -> float:
    start_s = trio.current_time()
    await courtesy.give_way()
    return trio.current_time() - start_s


async def begun(courtesy: Courtesy) -> Courtesy:
    """One sample is taken: how fast requests come shows with the second."""
    courtesy.is_busy()
    await trio.sleep(SAMPLE_S)
    return courtesy


async def test_an_idle_mount_holds_up_nothing(autojump_clock: MockClock) -> None:
    courtesy = await begun(Courtesy(Applications(BUSY_PER_S * 0.9).requests, processors=2))

    assert await waited_s(courtesy) == 0


async def test_looks_wait_for_the_end_of_a_burst(autojump_clock: MockClock) -> None:
    applications = Applications(BUSY_PER_S * 2)
    courtesy = await begun(Courtesy(applications.requests, processors=2))

    async def end() -> None:
        await trio.sleep(1.0)
        applications.per_s = 0.0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        assert 1.0 <= await waited_s(courtesy) < 1.0 + 3 * SAMPLE_S


async def test_looks_have_their_share_of_a_burst_without_end(autojump_clock: MockClock) -> None:
    courtesy = await begun(Courtesy(Applications(BUSY_PER_S * 2).requests, processors=2))

    for _ in range(3):
        assert PAUSE_S <= await waited_s(courtesy) < PAUSE_S + 3 * SAMPLE_S
        await trio.sleep(WORK_S / 2)
        assert await waited_s(courtesy) == 0
        await trio.sleep(WORK_S / 2)


async def test_with_processors_enough_for_all_nobody_waits(autojump_clock: MockClock) -> None:
    courtesy = await begun(Courtesy(Applications(BUSY_PER_S * 2).requests, processors=4))

    assert await waited_s(courtesy) == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def test_a_look_that_is_due_in_a_burst_comes_after_it(world: World, autojump_clock: MockClock) -> None:
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        applications = Applications(BUSY_PER_S * 2)
        daemon.shared.courtesy = await begun(Courtesy(applications.requests, processors=2))
        world.store.outside_put("f", b"new")
        daemon.served.add_hint(b"f", remote=True)
        nursery.start_soon(run_lookers, daemon.served)

        await trio.sleep(PAUSE_S / 2)
        assert world.tree.identify(b"f") is None
        applications.per_s = 0.0
        while world.tree.identify(b"f") is None:  # noqa: ASYNC110  no event is set for it
            await trio.sleep(SAMPLE_S)
        nursery.cancel_scope.cancel()
