"""`ReadAhead`: one step of a blocking iterator goes on while the last one is worked on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio

from fsxsync.errors import RepositoryError
from fsxsync.sync.ahead import ReadAhead


async def test_all_steps_come_in_order() -> None:
    assert [one async for one in ReadAhead(iter(range(5)))] == list(range(5))
    assert [one async for one in ReadAhead(iter(()))] == []


async def test_the_next_step_goes_on_while_the_last_is_worked_on_and_no_further() -> None:
    begun = [threading.Event() for _ in range(3)]

    def steps() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    ahead = ReadAhead(steps())
    assert await anext(ahead) == 0
    assert await trio.to_thread.run_sync(begun[1].wait, 30)
    assert not begun[2].is_set()
    assert [one async for one in ahead] == [1, 2]


async def test_what_goes_wrong_comes_to_who_asks() -> None:
    def steps() -> Iterator[int]:
        yield 1
        raise RepositoryError("reading a listing", "no")

    ahead = ReadAhead(steps())
    assert await anext(ahead) == 1
    with pytest.raises(RepositoryError):
        await anext(ahead)


def test_who_stops_asking_need_not_wait() -> None:
    go_on = threading.Event()

    def steps() -> Iterator[int]:
        yield 1
        assert go_on.wait(30)
        yield 2

    async def ask() -> None:
        ahead = ReadAhead(steps())
        assert await anext(ahead) == 1
        with trio.move_on_after(0.01) as limit:
            await anext(ahead)
        assert limit.cancelled_caught

    trio.run(ask)
    go_on.set()  # its answer comes to nobody
