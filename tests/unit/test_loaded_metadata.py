"""Who has read a file goes on before it is durable: what is asked for next waits for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from support.hydrating import World, is_stub

from fsxsync.sync.hydration import Hydration
from fsxsync.sync.waiting import Waiter


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class NobodyWatches:
    async def barrier(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_what_was_read_is_known_to_be_here_when_the_tree_has_settled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.stub("f", b"body")
    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        settle, may_end, is_over = daemon.hydrator._settler.settle, trio.Event(), trio.Event()

        async def slow(hydration: Hydration) -> bool:
            await may_end.wait()
            return await settle(hydration)

        monkeypatch.setattr(daemon.hydrator._settler, "settle", slow)
        waiter = Waiter(
            lambda: (),
            daemon.hydrator._intake,
            cast("Any", NobodyWatches()),
            told=trio.lowlevel.checkpoint,
            catch_up=lambda: None,
            until_loaded=daemon.hydrator.until_all_settled,
        )

        async def settled() -> None:
            await waiter.settle_local()
            is_over.set()

        with daemon.reader("f") as reader:
            assert await reader.read(0, 4) == b"body"
            nursery.start_soon(settled)
            await daemon.idle()
            assert (is_stub(path), is_over.is_set()) == (True, False)
            may_end.set()
            with trio.fail_after(60):
                await is_over.wait()
            assert not is_stub(path)
