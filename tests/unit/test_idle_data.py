"""Data of released files that nobody reads: its space may be taken back at any time, and it comes again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import CHUNK, World

BODY = os.urandom(CHUNK * 200)
FIFTH = (5 * CHUNK, CHUNK)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("is_opened_since", [True, False])
async def test_what_is_here_of_a_released_file_makes_room(world: World, is_opened_since: bool) -> None:
    path = world.stub("f", BODY)
    before = path.stat()
    async with world.daemon() as daemon:
        daemon.mover.passing = {5}
        with daemon.reader("f") as reader:
            await reader.read(*FIFTH)
            assert not daemon.shared.drop_partial(b"f", before.st_ino), "somebody has it open"
    async with world.daemon() as daemon:
        daemon.mover.passing = {5}
        if is_opened_since:
            with daemon.reader("f") as reader:
                await reader.read(*FIFTH)
            daemon.mover.let_all()
            await daemon.idle()
        assert path.stat().st_blocks * 512 >= CHUNK

        assert daemon.shared.drop_partial(b"f", before.st_ino)

        after = path.stat()
        assert after.st_blocks * 512 < CHUNK
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert world.catalog.partials.all() == []
        assert daemon.front.data_dropped == [before.st_ino]
        daemon.mover.let_all()
        with daemon.reader("f") as reader:
            assert await reader.read(0, len(BODY)) == BODY
