"""Keys that are no path are told of once, by whichever way they come, and again when they went and came back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import Daemon, World

from fsxsync.model.identity import base_of
from fsxsync.ports import Listed, ObjectHint
from fsxsync.sync.intake import Intake
from fsxsync.sync.listing import Consent, ListingRefused, reconcile_listing

BAD = ["bad//key", "x/../key", "nul\0"]
CODE = "S3ImportObjectPathNotPosixCompliant"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def told(world: World) -> list[str]:
    """The keys of all events."""
    events, _ = world.eventlog.read()
    assert {(event.code, event.flow, event.level) for event in events} <= {(CODE, "import", "ERROR")}
    return [event.message.split("'")[1] for event in events]


async def listed(world: World, daemon: Daemon, *keys: str) -> None:
    """Read a listing of these keys."""
    pages = [[Listed(key, "e", 1, 0, "STANDARD") for key in sorted(keys)]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "list_pages", lambda _prefix: iter(pages))
        await reconcile_listing(daemon.served, Consent())


async def test_a_key_is_told_of_once_however_often_it_is_listed(world: World) -> None:
    async with world.daemon() as daemon:
        for _ in range(3):
            await listed(world, daemon, *BAD)
        assert len(told(world)) == len(BAD)
        await listed(world, daemon, *BAD, "late//r")
        assert told(world)[len(BAD) :] == ["late//r"]
        assert daemon.served.counts.failures == {("import", CODE): len(BAD) + 1}


async def test_a_key_that_went_and_came_back_is_told_of_again(world: World) -> None:
    async with world.daemon() as daemon:
        for keys in (["a//b", "c//d"], ["a//b"], ["a//b", "c//d"]):
            await listed(world, daemon, *keys)
        assert told(world) == ["a//b", "c//d", "c//d"]


async def test_a_listing_that_is_not_believed_makes_no_key_news(world: World) -> None:
    for number in range(20):
        world.stub(f"f{number}", b"small")
    async with world.daemon() as daemon:
        await listed(world, daemon, "a//b", *world.store.objects)
        for number in range(20):
            local, remote = world.tree.identify(b"f%d" % number), await world.store.head(f"f{number}")
            assert local is not None
            assert remote is not None
            world.catalog.files.put(base_of("dra-1", b"f%d" % number, local, remote))
        with pytest.raises(ListingRefused):
            await listed(world, daemon)
        await listed(world, daemon, "a//b", *world.store.objects)
        assert told(world) == ["a//b"]


async def test_events_of_a_key_tell_of_it_once_until_it_is_removed(world: World) -> None:
    async with world.daemon() as daemon:
        intake = Intake(daemon.shared, lambda _: daemon.served)
        created = ObjectHint("bucket", "a//\ud800b", etag="e")
        removed = ObjectHint("bucket", "a//\ud800b", is_removal=True)
        intake.object_hints(daemon.served, [removed, created, created])
        assert len(told(world)) == 1
        intake.object_hints(daemon.served, [removed, created])
        assert len(told(world)) == 2
