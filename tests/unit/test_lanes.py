"""How many requests at a time, and whose turn is next."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fsxsync.ports import Priority
from fsxsync.transfer.lanes import Lane

FOREGROUND, REQUEST, PRELOAD, BACKGROUND = Priority


@dataclass
class Request:
    """Somebody who wants a turn; `end` makes them leave."""

    lane: Lane
    priority: Priority
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    leave: trio.Event = field(default_factory=trio.Event)
    has_turn: bool = False
    is_over: bool = False

    async def run(self) -> None:
        with self.scope:
            async with self.lane.turn(self.priority):
                self.has_turn = True
                await self.leave.wait()
        self.is_over = True

    @property
    def waits(self) -> bool:
        return not self.has_turn and not self.is_over

    @property
    def is_inside(self) -> bool:
        return self.has_turn and not self.is_over

    def end(self) -> None:
        self.leave.set()


class Crowd:
    """Requests for turns of one lane, and the order in which they got them."""

    def __init__(self, nursery: trio.Nursery, most: int) -> None:
        self.lane = Lane(most)
        self.all: list[Request] = []
        self._nursery = nursery

    def come(self, priority: Priority) -> Request:
        request = Request(self.lane, priority)
        self.all.append(request)
        self._nursery.start_soon(request.run)
        return request

    async def enter(self, priority: Priority) -> Request:
        request = self.come(priority)
        await wait_all_tasks_blocked()
        assert request.has_turn
        return request

    @property
    def inside(self) -> list[Request]:
        return [request for request in self.all if request.is_inside]

    @property
    def waiting(self) -> list[Request]:
        return [request for request in self.all if request.waits]


async def test_the_higher_priority_comes_first_and_among_equals_the_first_one(nursery: trio.Nursery) -> None:
    crowd = Crowd(nursery, 1)
    inside = await crowd.enter(REQUEST)
    wanted = []
    for priority in (BACKGROUND, REQUEST, PRELOAD, REQUEST, FOREGROUND):
        wanted.append(crowd.come(priority))
        await wait_all_tasks_blocked()  # else trio would choose who comes first

    order: list[int] = []
    for _ in wanted:
        inside.end()
        await wait_all_tasks_blocked()
        [inside] = crowd.inside
        order.append(wanted.index(inside))

    assert order == [4, 1, 3, 2, 0]
    inside.end()


@pytest.mark.parametrize(("most", "for_bulk"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (24, 18)])
async def test_one_turn_in_four_is_kept_free_from_bulk_data(nursery: trio.Nursery, most: int, for_bulk: int) -> None:
    crowd = Crowd(nursery, most)
    for priority in (PRELOAD, BACKGROUND) * most:
        crowd.come(priority)
    await wait_all_tasks_blocked()
    assert len(crowd.inside) == for_bulk

    for priority in (FOREGROUND, REQUEST) * most:
        crowd.come(priority)
    await wait_all_tasks_blocked()

    assert len(crowd.inside) == most
    nursery.cancel_scope.cancel()


async def test_bulk_data_waits_for_its_own_share(nursery: trio.Nursery) -> None:
    crowd = Crowd(nursery, 4)
    requests = [await crowd.enter(REQUEST) for _ in range(4)]
    bulk = crowd.come(BACKGROUND)

    requests[0].end()
    await wait_all_tasks_blocked()
    assert not bulk.has_turn, "three of four are taken, and the fourth is not for bulk"
    requests[1].end()
    await wait_all_tasks_blocked()

    assert bulk.has_turn
    nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- a store that is overrun


@pytest.mark.parametrize("status", [429, 503])
async def test_refusals_of_one_moment_halve_the_limit_once(status: int, autojump_clock: MockClock) -> None:
    lane = Lane(24)

    for _ in range(24):
        lane.answered(status)
        await trio.sleep(0.04)
    assert lane.limit == 12

    await trio.sleep(0.1)
    lane.answered(status)
    assert lane.limit == 6


async def test_one_request_may_always_be_under_way(autojump_clock: MockClock) -> None:
    lane = Lane(3)
    for _ in range(10):
        lane.answered(503)
        await trio.sleep(2)

    assert lane.limit == 1
    lane.answered(200)
    assert lane.limit == 2


async def test_the_limit_grows_by_one_in_as_many_answers_as_are_under_way(autojump_clock: MockClock) -> None:
    lane = Lane(24)
    lane.answered(503)

    for wanted in range(13, 25):
        answers = 0
        while lane.limit < wanted:
            lane.answered(200)
            answers += 1
        assert wanted - 2 <= answers <= wanted
    for _ in range(100):
        lane.answered(200)
    assert lane.limit == 24


@pytest.mark.parametrize("status", [200, 204, 206, 301, 403, 404, 412, 500])
async def test_other_answers_are_no_reason_to_slow_down(status: int) -> None:
    lane = Lane(8)
    lane.answered(status)
    assert lane.limit == 8


async def test_a_limit_that_fell_holds_back_those_who_come_and_ends_nobody(nursery: trio.Nursery) -> None:
    crowd = Crowd(nursery, 8)
    requests = [await crowd.enter(REQUEST) for _ in range(8)]
    late = crowd.come(FOREGROUND)

    crowd.lane.answered(503)
    for request in requests[:4]:
        request.end()
    await wait_all_tasks_blocked()
    assert (len(crowd.inside), late.has_turn) == (4, False)

    requests[4].end()
    await wait_all_tasks_blocked()
    assert late.has_turn
    nursery.cancel_scope.cancel()


async def test_a_limit_that_grows_lets_in_who_waits(nursery: trio.Nursery) -> None:
    crowd = Crowd(nursery, 2)
    crowd.lane.answered(503)
    await crowd.enter(REQUEST)
    late = crowd.come(REQUEST)
    await wait_all_tasks_blocked()
    assert not late.has_turn

    crowd.lane.answered(200)
    await wait_all_tasks_blocked()

    assert late.has_turn
    nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- cancellation, and all of it together


async def test_a_turn_that_is_handed_over_in_the_moment_of_cancellation_goes_on(nursery: trio.Nursery) -> None:
    crowd = Crowd(nursery, 1)
    inside = await crowd.enter(REQUEST)
    first = crowd.come(REQUEST)
    await wait_all_tasks_blocked()
    second = crowd.come(REQUEST)
    await wait_all_tasks_blocked()

    first.scope.cancel()
    inside.end()
    await wait_all_tasks_blocked()

    assert (first.has_turn, second.has_turn) == (False, True)
    second.end()


def take(crowd: Crowd, step: tuple[str, int]) -> None:
    match step:
        case ("come", priority):
            crowd.come(Priority(priority))
        case ("leave", number):
            for request in crowd.inside[number : number + 1]:
                request.end()
        case ("cancel", number):
            for request in [request for request in crowd.all if not request.is_over][number : number + 1]:
                request.scope.cancel()
        case ("answer", status):
            crowd.lane.answered(status)


def step(name: str, values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[str, int]]:
    return st.tuples(st.just(name), values)


COME = step("come", st.sampled_from(Priority).map(int))
OTHERS = [
    step("leave", st.integers(0, 5)),
    step("cancel", st.integers(0, 5)),
    step("answer", st.sampled_from([200, 200, 503])),
]
STEPS = st.one_of(COME, COME, *OTHERS)
BURSTS = st.lists(st.lists(STEPS, min_size=1, max_size=6), max_size=20)
"""What happens before anybody else may run, and what happens then."""


@given(most=st.integers(1, 9), bursts=BURSTS)
def test_nobody_is_over_the_limit_and_nobody_waits_while_there_is_room(
    most: int, bursts: list[list[tuple[str, int]]]
) -> None:
    async def play() -> None:
        async with trio.open_nursery() as nursery:
            crowd = Crowd(nursery, most)
            for burst in bursts:
                entered, limits = set(map(id, crowd.inside)), [crowd.lane.limit]
                for one in burst:
                    take(crowd, one)
                    limits.append(crowd.lane.limit)
                await trio.sleep(0.6)  # two of them are the lane's patience
                new = [request for request in crowd.inside if id(request) not in entered]
                assert not new or len(crowd.inside) <= max(limits)
                assert_settled(crowd)
            for request in crowd.all:
                request.end()
            await trio.sleep(1)
            while crowd.inside or crowd.waiting:
                assert_settled(crowd)
                await trio.sleep(1)
            assert crowd.lane.under_way == 0

    trio.run(play, clock=MockClock(autojump_threshold=0))


def assert_settled(crowd: Crowd) -> None:
    inside, limit = len(crowd.inside), crowd.lane.limit
    assert crowd.lane.under_way == inside
    if any(request.priority <= REQUEST for request in crowd.waiting):
        assert inside >= limit, "somebody waits, and there is room"
    if crowd.waiting:
        assert inside >= limit - max(1, limit // 4), "bulk waits, and there is room"
        assert inside > 0
