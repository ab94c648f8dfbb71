"""Restoring through the hydrator: behind what somebody waits for, within its limit, and to the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import CHUNK, Daemon, World, is_stub

from fsxsync.errors import AccessDenied
from fsxsync.ports import Priority


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def restore(daemon: Daemon, name: str) -> None:
    await daemon.hydrator.restore(name.encode())


async def test_a_reader_goes_before_what_is_restored_which_leaves_places_free(world: World) -> None:
    bodies = {f"f{number:02d}": os.urandom(8 * CHUNK) for number in range(6)}
    paths = {name: world.stub(name, body) for name, body in bodies.items()}
    read = world.stub("read", b"somebody waits" * 10)
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        async with trio.open_nursery() as nursery:
            for name in bodies:
                nursery.start_soon(restore, daemon, name)
            await daemon.idle()
            most = daemon.shared.settings.association_requests * 3 // 4
            assert [priority for _, priority in daemon.mover.asked] == [Priority.BACKGROUND] * most
            with daemon.reader("read") as reader:
                nursery.start_soon(daemon.hydrator.open_for_read, reader.path, reader.fd)
                await daemon.mover.until(most + 1)
                assert daemon.mover.asked[-1][1] is Priority.FOREGROUND
                daemon.mover.let_all()
        assert not any(map(is_stub, paths.values()))
        assert {name: path.read_bytes() for name, path in paths.items()} == bodies
    assert read.read_bytes() == b"somebody waits" * 10


async def test_what_can_not_be_loaded_is_told_and_tried_anew_the_next_time(world: World) -> None:
    path = world.stub("f", b"data")
    async with world.daemon() as daemon:
        daemon.mover.failures.append(AccessDenied("GET", "403"))
        with pytest.raises(AccessDenied):
            await restore(daemon, "f")
        assert is_stub(path)
        await restore(daemon, "f")
    assert path.read_bytes() == b"data"
    assert not is_stub(path)
