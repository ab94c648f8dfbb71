"""What many ask for is done for several of them at a time; nobody returns before it was done for him."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from fsxsync.errors import FsxSyncError, LocalChanged, NoSpace
from fsxsync.sync.together import Together


class Acting:
    """Acts end when a test lets them."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go_on = trio.Semaphore(0)
        self.failure: NoSpace | None = None

    async def act(self, numbers: Sequence[int]) -> list[int | FsxSyncError]:
        self.asked.append(list(numbers))
        await self.go_on.acquire()
        if self.failure is not None:
            raise self.failure
        return [LocalChanged("it", "was changed") if number == 13 else 10 * number for number in numbers]


async def test_who_comes_meanwhile_is_of_the_next_ones_up_to_a_limit() -> None:
    acting, done = Acting(), list[int]()
    together = Together(acting.act, most=3)

    async def do(number: int) -> None:
        done.append(await together.do(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do, 1)
        await trio.testing.wait_all_tasks_blocked()
        for number in (2, 3, 4, 5):
            nursery.start_soon(do, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (acting.asked, done) == ([[1]], [])
        for upto in ([10], [10, 20, 30, 40], [10, 20, 30, 40, 50]):
            acting.go_on.release()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(done) == upto
    assert acting.asked == [[1], [2, 3, 4], [5]]


async def test_an_error_is_whose_it_is() -> None:
    acting, told = Acting(), dict[int, object]()
    together = Together(acting.act, most=9)

    async def do(number: int) -> None:
        try:
            told[number] = await together.do(number)
        except FsxSyncError as error:
            told[number] = type(error)

    for failure, expected in (
        (None, {1: 10, 13: LocalChanged, 2: 20}),
        (NoSpace("it", "full"), {1: NoSpace, 2: NoSpace}),
    ):
        acting.failure = failure
        told.clear()
        acting.go_on.release()
        acting.go_on.release()
        async with trio.open_nursery() as nursery:
            for number in expected:
                nursery.start_soon(do, number)
        assert told == expected


async def test_who_goes_away_ends_nothing_that_was_begun_and_takes_along_what_was_not() -> None:
    acting = Acting()
    together = Together(acting.act, most=9)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(together.do, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(together.do, 2)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            acting.go_on.release()
    assert acting.asked == [[1]]
    acting.go_on.release()
    assert await together.do(3) == 30
    assert acting.asked == [[1], [3]]
    acting.go_on.release()
    with pytest.raises(LocalChanged):
        await together.do(13)
