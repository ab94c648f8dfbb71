"""The life of one association: which of its sources are read, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from support.hydrating import World

from fsxsync.sync.routes import Routes
from fsxsync.sync.serving import Service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def unwatched(_: bytes) -> None:
    return


async def no_routes(*_: Any) -> None:
    return


@pytest.mark.parametrize("asked", ["after its time", "at once"])
async def test_an_association_that_imports_no_listing_at_first_polls_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Its first listing is read when it is due, or when somebody has to know of everything. (None was read before the
    next start, and nobody heard of what happened in the bucket.)"""
    monkeypatch.setattr(Routes, "make", no_routes)
    monkeypatch.setattr(world.store, "check", no_routes)
    async with world.daemon() as daemon:
        poll_s = 0.2 if asked == "after its time" else 60.0
        daemon.served.association = replace(daemon.served.association, import_metadata=False, poll_s=poll_s)
        world.catalog.associations.put(daemon.served.association)
        service = Service(
            daemon.served, daemon.hydrator._intake, reader=None, routes=cast(Routes, Routes), watch=unwatched
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            await service.decided()
            assert service.available.is_set()
            assert ("list", "") not in world.store.requests
            world.store.outside_put("new", b"there")

            with trio.fail_after(5):
                if asked == "at once":
                    await service.read_sources_up_to_now()
                while world.catalog.files.get("dra-1", b"new") is None:  # noqa: ASYNC110  rows, not events
                    await trio.sleep(0.01)
            await service.stop()
