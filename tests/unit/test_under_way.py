"""What is told of a task whose batches are still being done: a restore moves its counters file by file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import CHUNK, World

from fsxsync.model.task import Counts
from fsxsync.sync.under_way import UnderWay


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_what_is_under_way_is_added_to_what_is_written_down() -> None:
    batch = UnderWay(lambda: True)
    batch.came(5)
    assert batch.counted(Counts(total=10, succeeded=2, moved=7)) == Counts(total=10, succeeded=3, moved=12)
    with batch.loading(lambda: 100):
        assert batch.counted(Counts(total=10)) == Counts(total=10, succeeded=1, moved=105)
    batch.came(100)
    assert batch.counted(Counts(total=1)) == Counts(total=2, succeeded=2, moved=105)


async def test_a_restore_tells_of_each_file_and_of_the_bytes_of_a_large_one(world: World) -> None:
    small = [f"s{number}" for number in range(5)]
    for name in small:
        world.stub(name, os.urandom(100))
    world.stub("large", os.urandom(40 * CHUNK))
    batch = UnderWay(lambda: True)
    seen: list[Counts] = []
    async with world.daemon() as daemon, trio.open_nursery() as nursery:

        async def look() -> None:
            while True:
                now = batch.counted(Counts())
                if not seen or seen[-1] != now:
                    seen.append(now)
                await trio.sleep(0.001)

        nursery.start_soon(look)
        await daemon.hydrator.restore_many([os.fsencode(name) for name in [*small, "large"]], batch, batch)
        seen.append(batch.counted(Counts()))
        nursery.cancel_scope.cancel()
    assert seen[-1] == Counts(total=6, succeeded=6, moved=500 + 40 * CHUNK)
    assert any(counts.moved % CHUNK > 0 or 0 < counts.moved < 500 + 40 * CHUNK for counts in seen)
    assert any(500 < counts.moved < 500 + 40 * CHUNK for counts in seen), "a large one counts before it is whole"
    assert seen == sorted(seen, key=lambda counts: counts.moved)
