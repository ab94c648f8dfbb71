"""What is too much to be believed: more than a hundred and more than half, or all of ten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.catalog.changelog import Entry
from fsxsync.model.identity import base_of
from fsxsync.ports import Listed
from fsxsync.sync.brakes import implausible_listing, implausible_scan
from fsxsync.sync.listing import Consent, ListingRefused, reconcile_listing
from fsxsync.sync.look import Next, look
from fsxsync.sync.served import nobody_watches


@pytest.mark.parametrize(
    ("known", "gone", "stops"),
    [
        (0, 0, False),
        (9, 9, False),
        (10, 10, True),
        (100, 99, False),
        (102, 100, False),
        (102, 101, True),
        (201, 101, True),
        (202, 101, False),
        (1_000_000, 500_000, False),
        (1_000_000, 500_001, True),
    ],
)
def test_more_than_half_and_more_than_a_hundred_or_all_of_ten(known: int, gone: int, stops: bool) -> None:
    assert bool(implausible_scan(known, gone)) is stops
    assert bool(implausible_listing(known, gone, known - gone)) is stops


def test_what_was_refused_stays_so_as_long_as_any_are_gone() -> None:
    assert implausible_scan(210, 100) == implausible_scan(210, 1) == ""
    assert "1 of 210 known files are still gone" in implausible_scan(210, 1, was_refused=True)
    assert implausible_scan(210, 0, was_refused=True) == ""


def test_a_listing_of_other_keys_is_no_empty_one() -> None:
    assert implausible_listing(20, 20, listed=3) == ""
    assert "empty" in implausible_listing(20, 20, listed=0)


@pytest.mark.parametrize(
    ("known", "missing", "missing_files", "stops"),
    [
        (9, 9, 9, False),
        (12, 12, 12, True),
        (15, 12, 12, True),  # the markers of three directories are still there
        (11, 11, 6, True),  # and of none: all is gone
        (30, 14, 9, False),
        (30, 12, 0, False),  # of directories only some are gone
    ],
)
def test_a_listing_of_directory_markers_is_as_an_empty_one(
    known: int, missing: int, missing_files: int, stops: bool
) -> None:
    why = implausible_listing(known, missing, 0, missing_files=missing_files, markers=1)

    assert bool(why) is stops
    assert not why or "but for directory markers" in why
    assert implausible_listing(known, missing, 1, missing_files=missing_files, markers=1) == ""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def test_no_object_goes_before_a_scan_was_believed(world: World) -> None:
    """Whatever made somebody look at a path: after a start it may be gone with the disk that it was on."""
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    path.unlink()
    seen = Entry("dra-1", b"f", True, True, None, 0, 0, 1, 0, None, None, "")
    async with world.daemon() as daemon:
        daemon.served.tree_believed = False
        outcome = await look(daemon.served, seen)
        assert (outcome.next, outcome.reason) == (Next.LATER, "the tree is to be scanned first")
        assert await world.store.head("f") is not None

        daemon.served.tree_believed = True
        assert (await look(daemon.served, seen)).next is Next.AGAIN  # whether a marker of that name waits for its place
        assert await world.store.head("f") is None


@pytest.mark.parametrize("by", ["nothing", "a new file"])
async def test_the_object_of_a_released_file_stays_while_nobody_knows_where_the_file_went(
    world: World, by: str
) -> None:
    """It was renamed behind the mount, and an event sets a look off before inotify's record of that is read."""
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    path.rename(path.with_name("g"))
    if by == "a new file":
        path.write_bytes(b"other")
    seen = Entry("dra-1", b"f", False, True, None, 0, 0, 1, 0, None, None, "")
    async with world.daemon() as daemon:

        async def read_records() -> None:
            daemon.served.add_hint(b"g", local=True, ino=local.ino)

        daemon.shared.take_in_tree = read_records

        outcome = await look(daemon.served, seen)

        assert outcome.next is Next.LATER
        reason = "the file may have moved" if by == "nothing" else "the object is still to be copied to /g"
        assert outcome.reason == reason
        assert await world.store.head("f") == remote


async def test_names_that_a_file_had_in_between_do_not_wait_for_each_other(world: World) -> None:
    """Renamed to and fro, a to b to a to b to c: hints of both a and b named its inode, and neither went, for ever."""
    at_c = world.stub("c", b"small")
    local, remote = world.tree.identify(b"c"), await world.store.head("c")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"c", local, remote))
    for name in ("a", "b"):
        world.stub(name, b"small").unlink()
        before = await world.store.head(name)
        assert before is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, before))
    async with world.daemon() as daemon:
        for name in (b"a", b"b"):
            daemon.served.add_hint(name, local=True, ino=local.ino)
        seen = Entry("dra-1", b"a", False, True, None, 0, 0, 1, 0, None, None, "")

        async def rename_meanwhile() -> None:
            daemon.served.add_hint(b"b", local=True, ino=local.ino)

        daemon.shared.take_in_tree = rename_meanwhile
        outcome = await look(daemon.served, seen)
        assert (outcome.next, outcome.reason) == (Next.LATER, "the file was renamed meanwhile")
        assert await world.store.head("a") is not None
        daemon.shared.take_in_tree = nobody_watches
        for name in ("a", "b"):
            await look(daemon.served, replace(seen, path=name.encode()))
            assert await world.store.head(name) is None

    assert await world.store.head("c") is not None
    assert at_c.exists()


@pytest.mark.parametrize("are_gone", [True, False])
async def test_objects_whose_files_were_removed_here_while_the_listing_was_read_are_no_accident(
    world: World, monkeypatch: pytest.MonkeyPatch, *, are_gone: bool
) -> None:
    """The rows were read before, and the deletes of a person's ``rm`` went on meanwhile."""
    paths = [world.stub(f"f{number}", b"small") for number in range(20)]
    for path in paths:
        local, remote = world.tree.identify(path.name.encode()), await world.store.head(path.name)
        assert local is not None
        assert remote is not None
        world.catalog.files.put(base_of("dra-1", path.name.encode(), local, remote))

    def nothing(_prefix: str) -> Iterator[list[Listed]]:
        for path in paths if are_gone else ():
            path.unlink()
        return iter(())

    monkeypatch.setattr(world.store, "list_pages", nothing)
    async with world.daemon() as daemon:
        if are_gone:
            assert await reconcile_listing(daemon.served, Consent()) == 0
        else:
            with pytest.raises(ListingRefused, match="empty"):
                await reconcile_listing(daemon.served, Consent())
        assert daemon.served.listing_believed is are_gone
