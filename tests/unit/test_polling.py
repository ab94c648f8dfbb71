"""Who waits for a listing, and how closely it looks."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fsxsync.errors import RepositoryError
from fsxsync.sync import sources
from fsxsync.sync.sources import Poller


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """From when each listing looked closely; every one takes a second."""
    found: list[float] = []

    async def reconcile(*_: object, closely_from_ns: float) -> None:
        found.append(closely_from_ns)
        await trio.sleep(1)

    monkeypatch.setattr(sources, "reconcile_listing", reconcile)
    return found


def poller() -> Poller:
    served: Any = SimpleNamespace(association=SimpleNamespace(poll_s=0))
    return Poller(served, on_listed=lambda: None)


async def test_each_who_asks_for_a_close_listing_gets_one_that_began_after(
    listed: list[float], autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    made = poller()
    nursery.start_soon(made.run)
    await trio.sleep(0.5)
    nursery.start_soon(lambda: made.read_up_to_now(closely_from_ns=5))
    await trio.sleep(1)  # that one is under way
    await made.read_up_to_now(closely_from_ns=7)
    await made.read_up_to_now()
    assert listed[:3] == [math.inf, 5, 7]
    assert set(listed[3:]) == {math.inf}, "nobody asks any more; one that was waited for may be asked for once more"
    nursery.cancel_scope.cancel()


async def test_a_listing_that_fails_leaves_it_to_the_next_one(
    listed: list[float], monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    made, reconcile = poller(), sources.reconcile_listing

    async def fails(*_: object, **__: object) -> None:
        raise RepositoryError("listing", "it broke off")

    monkeypatch.setattr(sources, "reconcile_listing", fails)
    nursery.start_soon(lambda: made.read_up_to_now(closely_from_ns=5))
    await trio.sleep(0.1)
    with pytest.raises(RepositoryError):
        await made.run()
    monkeypatch.setattr(sources, "reconcile_listing", reconcile)
    nursery.start_soon(made.run)
    await trio.sleep(2)
    assert listed[:1] == [5]
    nursery.cancel_scope.cancel()
