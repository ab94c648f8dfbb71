"""`wait`: what it says of a time that was too short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fsxsync.sync.waiting import Waiter


async def at_once() -> None:
    await trio.lowlevel.checkpoint()


def waiter(
    *,
    loaded: Callable[[], Awaitable[None]] = at_once,
    read: Callable[[], Awaitable[None]] = at_once,
    told: Callable[[], Awaitable[None]] = at_once,
) -> Waiter:
    """Of one association that has nothing to do."""
    changelog = SimpleNamespace(count_under=lambda *_: 0, pending=lambda *_: [])
    association = SimpleNamespace(relative=lambda path: path, directory=b"")
    shared = SimpleNamespace(catalog=SimpleNamespace(changelog=changelog))
    available = trio.Event()
    available.set()
    service: Any = SimpleNamespace(
        served=SimpleNamespace(id="dra-1", association=association, shared=shared),
        is_scanned=True,
        available=available,
        read_sources_up_to_now=read,
    )
    intake: Any = SimpleNamespace(flush=lambda: None, is_idle=True)
    watcher: Any = SimpleNamespace(barrier=at_once)
    return Waiter(lambda: [service], intake, watcher, told, lambda: None, loaded)


@pytest.mark.parametrize(
    ("stuck", "said"),
    [("loaded", "loaded into it, is still being"), ("read", "the sources"), ("told", "the kernel is still being told")],
)
async def test_what_takes_too_long_is_named(autojump_clock: object, stuck: str, said: str) -> None:
    left = await waiter(**{stuck: trio.sleep_forever}).wait(b"", 5.0)

    assert [said in item.waiting_for for item in left] == [True]


async def test_nothing_is_left_where_nothing_is_to_do() -> None:
    assert await waiter().wait(b"", 5.0) == ()
