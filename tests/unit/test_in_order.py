"""Acts that overlap and are recorded in their order (`sync.in_order`)."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from fsxsync.errors import LocalChanged
from fsxsync.sync.in_order import in_order


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_outcomes_are_recorded_in_the_order_of_beginning(most: int) -> None:
    under_way, highest = 0, 0
    recorded: list[tuple[int, int]] = []
    over = [trio.Event() for _ in range(6)]

    async def act(item: int) -> int:
        nonlocal under_way, highest
        under_way += 1
        highest = max(highest, under_way)
        if item % 2 == 0 and item + 1 < len(over) and most > 1:
            await over[item + 1].wait()  # the later one ends first
        await trio.lowlevel.checkpoint()
        over[item].set()
        under_way -= 1
        return item * 10

    async with in_order(most, act, lambda item, outcome: recorded.append((item, outcome))) as begin:
        for item in range(6):
            await begin(item)
            if most == 1:
                assert recorded[-1] == (item, item * 10)

    assert recorded == [(item, item * 10) for item in range(6)]
    assert highest == min(most, highest)
    assert (highest > 1) is (most > 1)


async def test_the_first_failure_is_raised_and_nothing_after_it_is_recorded() -> None:
    recorded: list[int] = []

    failed = trio.Event()

    async def act(item: int) -> int:
        if item == 1:
            failed.set()
            raise LocalChanged("releasing f", "it was changed")
        await failed.wait()  # the first one ends after the second one failed
        if item > 1:
            await trio.sleep_forever()
        return item

    async def all_of_them() -> None:
        async with in_order(3, act, lambda item, _: recorded.append(item)) as begin:
            for item in range(4):
                await begin(item)

    with pytest.raises(LocalChanged, match="releasing f"):
        await all_of_them()
    assert recorded == [0]


async def test_who_leaves_early_waits_for_what_is_begun() -> None:
    recorded: list[int] = []

    async def act(item: int) -> int:
        await trio.lowlevel.checkpoint()
        return item

    async def part() -> None:
        async with in_order(3, act, lambda item, _: recorded.append(item)) as begin:
            for item in range(4):
                if item == 2:
                    return
                await begin(item)

    await part()
    assert recorded == [0, 1]
