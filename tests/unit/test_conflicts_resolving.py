"""Conflicts at the moments that no user can time: the daemon dies, or somebody is faster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from support.hydrating import World

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import BadInput, ConflictMoved, TypeClash
from fsxsync.model.association import Limits
from fsxsync.model.identity import Kind, Local, Posix, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.open_conflict import Conflict, ConflictKind, Keep
from fsxsync.model.xattrs import encode_xattrs
from fsxsync.sync import resolving
from fsxsync.sync.acting import Next
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.filters import Filters
from fsxsync.sync.look import look
from fsxsync.sync.resolving import alone, resolve
from fsxsync.sync.served import Served

A = "dra-1"
TOLD = Entry(A, b"f", True, True, None, 0, 0, 1, 0, None, None, "")


class Died(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def files(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in world.tree.root.iterdir()}


async def edited_on_both_sides(world: World) -> None:
    path = world.tree.root / "f"
    path.write_bytes(b"before")
    world.store.outside_put("f", b"before")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    world.catalog.files.put(base_of(A, b"f", local, remote, content_hash=b"x" * 16))
    path.write_bytes(b"edited here")
    world.store.outside_put("f", b"edited there!")


async def in_conflict(world: World, served: Any) -> Conflict:
    await edited_on_both_sides(world)
    assert (await look(served, TOLD)).next is Next.DONE
    (conflict,) = world.catalog.conflicts.all(A)
    return conflict


async def test_a_copy_that_was_made_right_before_the_end_is_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        await edited_on_both_sides(world)
        exchange_in = world.tree.exchange_in

        def and_die(*arguments: Any, **named: Any) -> Local:
            exchange_in(*arguments, **named)
            raise Died

        monkeypatch.setattr(world.tree, "exchange_in", and_die)
        with pytest.raises(Died):
            await look(daemon.served, TOLD)

        (conflict,) = world.catalog.conflicts.all(A)
        assert (world.tree.root / conflict.kept_as.decode()).read_bytes() == b"edited here"
        monkeypatch.undo()
        assert (await look(daemon.served, TOLD)).next is Next.DONE
        assert world.catalog.conflicts.all(A) == [conflict]


async def test_a_file_that_moved_on_before_it_was_kept_is_in_no_conflict_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        await edited_on_both_sides(world)
        exchange_in = world.tree.exchange_in

        def late(*arguments: Any, **named: Any) -> Local:
            (world.tree.root / "f").write_bytes(b"edited once more")
            return exchange_in(*arguments, **named)

        monkeypatch.setattr(world.tree, "exchange_in", late)
        with pytest.raises(Exception, match="changed meanwhile"):
            await look(daemon.served, TOLD)

        assert world.catalog.conflicts.all(A) == []
        assert files(world) == {"f": b"edited once more"}


@pytest.mark.parametrize("keep", [Keep.LOCAL, Keep.REMOTE])
async def test_dying_while_a_choice_is_carried_out_loses_neither_version(
    world: World, monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> None:
    async with world.daemon() as daemon:
        conflict = await in_conflict(world, daemon.served)

        def die(*_: Any, **__: Any) -> None:
            raise Died

        monkeypatch.setattr(world.tree, "remove", die)
        with pytest.raises(Died):
            await resolve(daemon.served, b"f", keep, daemon.hydrator)

        found = {world.tree.identify(b"f"), world.tree.identify(conflict.kept_as)}
        assert None not in found
        assert len({local.ino for local in found if local}) == 2
        assert world.store.objects["f"].body == b"edited there!"


async def test_an_object_that_changes_while_a_choice_is_carried_out_is_not_overwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        await in_conflict(world, daemon.served)
        await resolve(daemon.served, b"f", Keep.LOCAL, daemon.hydrator)
        assert files(world) == {"f": b"edited here"}
        world.store.outside_put("f", b"newest")

        assert (await look(daemon.served, TOLD)).next is Next.DONE

        (conflict,) = world.catalog.conflicts.all(A)
        assert conflict.kind is ConflictKind.KEPT
        assert files(world)[conflict.kept_as.decode()] == b"edited here"
        assert world.store.objects["f"].body == b"newest"


async def test_an_object_that_is_deleted_while_it_is_put_beside_ends_the_choice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.tree.root / "f").mkdir()
    world.store.outside_put("f", b"there")
    copies = world.store.copy

    async def copy(*args: Any, **kwargs: Any) -> Any:
        world.store.outside_delete("f")
        return await copies(*args, **kwargs)

    async with world.daemon() as daemon:
        with pytest.raises(TypeClash):
            await look(daemon.served, TOLD)
        monkeypatch.setattr(world.store, "copy", copy)
        with pytest.raises(ConflictMoved, match="not there"):
            await resolve(daemon.served, b"f", Keep.BOTH, daemon.hydrator)
        await look(daemon.served, TOLD)
        assert world.catalog.conflicts.all(A) == []
        assert (world.tree.root / "f").is_dir()


async def test_a_clash_that_a_look_ended_is_not_listed_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look was under way when somebody decided: the object went. What stands in its way was changed."""
    below = replace(TOLD, path=b"f/x")
    file = world.tree.root / "f"
    file.write_bytes(b"in the way")
    world.store.outside_put("f/x", b"there")
    waits = resolving.alone

    @asynccontextmanager
    async def after_a_look(served: Served, paths: Iterable[bytes]) -> AsyncIterator[None]:
        world.store.outside_delete("f/x")
        await look(served, below)
        async with waits(served, paths):
            yield

    async with world.daemon() as daemon:
        with pytest.raises(TypeClash):
            await look(daemon.served, below)
        file.write_bytes(b"in the way, and changed")
        monkeypatch.setattr(resolving, "alone", after_a_look)
        with pytest.raises(ConflictMoved):
            await resolve(daemon.served, b"f/x", Keep.REMOTE, daemon.hydrator)
        assert world.catalog.conflicts.all(A) == []
        assert file.read_bytes() == b"in the way, and changed"


async def test_the_other_object_that_clashes_at_a_path_is_told_of_after_the_first(world: World) -> None:
    """`f/x` and `f/x/` below a file: whoever gives up the one has decided nothing on the other."""
    below = replace(TOLD, path=b"f/x")
    (world.tree.root / "f").write_bytes(b"in the way")
    world.store.outside_put("f/x", b"there")
    world.store.outside_put("f/x/", b"")
    async with world.daemon() as daemon:
        with pytest.raises(TypeClash):
            await look(daemon.served, below)
        await resolve(daemon.served, b"f/x", Keep.LOCAL, daemon.hydrator)
        assert list(world.store.objects) == ["f/x/"]
        (hint,) = world.catalog.changelog.pending(A, b"f/x", 9)
        assert hint.remote
        with pytest.raises(TypeClash):
            await look(daemon.served, below)
        assert [one.path for one in world.catalog.conflicts.all(A)] == [b"f/x"]


async def test_a_write_between_look_and_exchange_ends_the_choice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.daemon() as daemon:
        conflict = await in_conflict(world, daemon.served)
        swap = world.tree.swap

        def late(*arguments: Any) -> None:
            (world.tree.root / conflict.kept_as.decode()).write_bytes(b"late")
            swap(*arguments)

        monkeypatch.setattr(world.tree, "swap", late)
        with pytest.raises(ConflictMoved):
            await resolve(daemon.served, b"f", Keep.LOCAL, daemon.hydrator)

        assert (world.tree.root / conflict.kept_as.decode()).read_bytes() == b"late"
        assert len(world.catalog.conflicts.all(A)) == 1


async def test_the_choice_waits_for_a_look_that_is_under_way(world: World) -> None:
    async with world.daemon() as daemon:
        await in_conflict(world, daemon.served)
        changelog = world.catalog.changelog
        changelog.delete_all(A)
        daemon.served.add_hint(b"f", local=True)
        (entry,) = changelog.claim(2**62, 9, [A])
        done: list[str] = []

        async def choose() -> None:
            await resolve(daemon.served, b"f", Keep.BOTH, daemon.hydrator)
            done.append("chosen")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(choose)
            await trio.sleep(0.2)
            assert done == []
            changelog.done(entry)
        assert done == ["chosen"]


async def test_no_look_begins_while_a_choice_is_carried_out(world: World) -> None:
    async with world.daemon() as daemon:
        daemon.served.add_hint(b"f", local=True)
        async with alone(daemon.served, [b"f"]):
            assert world.catalog.changelog.claim(2**62, 9, [A]) == []
        (entry,) = world.catalog.changelog.claim(2**62, 9, [A])
        assert entry.path == b"f"


async def test_the_last_version_is_never_dropped(world: World) -> None:
    async with world.daemon() as daemon:
        conflict = await in_conflict(world, daemon.served)
        (world.tree.root / "f").unlink()
        world.catalog.files.delete(A, b"f")
        world.store.outside_delete("f")

        for _ in range(2):
            with pytest.raises((BadInput, ConflictMoved)):
                await resolve(daemon.served, b"f", Keep.REMOTE, daemon.hydrator)
        assert files(world) == {conflict.kept_as.decode(): b"edited here"}
        await resolve(daemon.served, b"f", Keep.LOCAL, daemon.hydrator)

        assert files(world) == {"f": b"edited here"}


async def test_a_copy_that_was_released_is_loaded_before_it_takes_the_path(world: World) -> None:
    """Its object goes with its name."""
    async with world.daemon() as daemon:
        conflict = await in_conflict(world, daemon.served)
        name = conflict.kept_as.decode()
        (world.tree.root / name).unlink()
        world.stub(name, b"edited here")
        local, remote = world.tree.identify(conflict.kept_as), await world.store.head(name)
        assert local is not None
        assert local.stub is not None
        world.catalog.files.put(base_of(A, conflict.kept_as, local, remote))
        world.catalog.conflicts.put(conflict.seen(local, await world.store.head("f")))

        await resolve(daemon.served, conflict.kept_as, Keep.LOCAL, daemon.hydrator)

        taken = world.tree.identify(b"f")
        assert taken is not None
        assert taken.stub is None
        assert files(world) == {"f": b"edited here"}


async def test_a_copy_whose_versions_nobody_recorded_may_be_decided_on(world: World) -> None:
    """From an older catalog. What is at the path has to be in sync all the same."""
    async with world.daemon() as daemon:
        conflict = await in_conflict(world, daemon.served)
        world.catalog.conflicts.put(conflict.seen(None, None))
        world.store.outside_put("f", b"newer")
        with pytest.raises(ConflictMoved):
            await resolve(daemon.served, b"f", Keep.LOCAL, daemon.hydrator)

        assert (await look(daemon.served, TOLD)).next is Next.DONE
        await resolve(daemon.served, b"f", Keep.LOCAL, daemon.hydrator)

        assert files(world) == {"f": b"edited here"}


# ------------------------------------------------------------- beside filters and extended attributes


async def test_nobody_is_told_of_a_choice_that_a_filter_keeps_from_being_carried_out(world: World) -> None:
    async with world.daemon() as daemon:
        served = daemon.served
        await edited_on_both_sides(world)
        remote = await world.store.head("f")
        blocked = Conflict(A, b"f", ConflictKind.BLOCKED, 1).seen(world.tree.identify(b"f"), remote)
        world.catalog.conflicts.put(blocked)
        served.filters = Filters(replace(served.association, limits=Limits(min_size=100)))

        with pytest.raises(BadInput, match="a filter leaves it out"):
            await resolve(served, b"f", Keep.REMOTE, daemon.hydrator)

        assert world.catalog.conflicts.all(A) == [blocked]
        assert files(world) == {"f": b"edited here"}
        served.filters = Filters(served.association)
        await resolve(served, b"f", Keep.REMOTE, daemon.hydrator)
        taken = world.tree.identify(b"f")
        assert taken is not None
        assert taken.stub is not None
        assert taken.size == len(b"edited there!")


async def test_a_clash_ends_when_a_filter_leaves_out_what_clashed(world: World) -> None:
    async with world.daemon() as daemon:
        served = daemon.served
        (world.tree.root / "f").mkdir()
        world.store.outside_put("f", b"a file")
        with pytest.raises(TypeClash):
            await look(served, TOLD)
        assert [one.kind for one in world.catalog.conflicts.all(A)] == [ConflictKind.CLASH]

        served.filters = Filters(replace(served.association, limits=Limits(min_size=100)))
        assert (await look(served, TOLD)).next is Next.DONE

        assert world.catalog.conflicts.all(A) == []
        assert (await world.store.head("f")) is not None


async def test_each_version_of_a_conflict_keeps_its_extended_attributes(world: World) -> None:
    async with world.daemon() as daemon:
        served = daemon.served
        served.association = replace(served.association, export_xattrs=True)
        await edited_on_both_sides(world)
        os.setxattr(world.tree.root / "f", "user.side", b"here")
        there = to_user_metadata(Kind.FILE, Posix(xattrs=encode_xattrs({b"user.side": b"there"})))
        world.store.outside_put("f", b"edited there!", metadata=there)

        assert (await look(served, TOLD)).next is Next.DONE

        (conflict,) = world.catalog.conflicts.all(A)
        assert os.getxattr(world.tree.root / "f", "user.side") == b"there"
        assert os.getxattr(world.tree.root / conflict.kept_as.decode(), "user.side") == b"here"


async def test_a_clash_is_still_told_of_when_the_file_was_removed_and_its_object_is_a_newer_one(world: World) -> None:
    """The object comes back as a file, in the way of the same marker."""
    path = world.tree.root / "f"
    path.write_bytes(b"mine")
    world.store.outside_put("f", b"mine")
    world.store.outside_put("f/")
    async with world.daemon() as daemon:
        served = daemon.served
        with pytest.raises(TypeClash):
            await look(served, TOLD)
        path.unlink()
        world.store.outside_put("f", b"theirs")

        with pytest.raises(TypeClash):
            await look(served, TOLD)

        here = world.tree.identify(b"f")
        assert here is not None
        assert here.stub is not None
        [conflict] = world.catalog.conflicts.at(A, b"f")
        assert conflict.kind is ConflictKind.CLASH
        world.store.outside_delete("f/")
        assert (await look(served, TOLD)).next is Next.DONE
        assert world.catalog.conflicts.at(A, b"f") == []


async def test_a_listing_that_comes_between_a_directory_and_the_end_of_its_marker_leaves_none(world: World) -> None:
    """The directory was renamed, the object of its name can come, and its own marker is still to be deleted."""
    async with world.daemon() as daemon:
        served = daemon.served
        (world.tree.root / "f").mkdir()
        world.store.outside_put("f/")
        local, marker = world.tree.identify(b"f"), await world.store.head("f/")
        assert local is not None
        world.catalog.files.put(base_of(A, b"f", local, marker))
        world.store.outside_put("f", b"a file")
        (world.tree.root / "f").rmdir()
        listed = [one for page in world.store.list_pages("") for one in page if one.key == "f"]

        left = await import_new(served, [(b"f", one) for one in listed], until_ns=HELD_NS)

        assert left == [b"f"]
        outcome = await look(served, TOLD)
        assert (outcome.next, outcome.remote) == (Next.AGAIN, True)
        assert await world.store.head("f/") is None
        assert (await look(served, TOLD)).next is Next.DONE
        taken = world.tree.identify(b"f")
        assert taken is not None
        assert taken.size == len(b"a file")


async def test_the_marker_that_a_file_kept_out_comes_with_the_look_that_deletes_its_object(world: World) -> None:
    async with world.daemon() as daemon:
        served = daemon.served
        (world.tree.root / "f").write_bytes(b"a file")
        world.store.outside_put("f", b"a file")
        local, remote = world.tree.identify(b"f"), await world.store.head("f")
        assert local is not None
        world.catalog.files.put(base_of(A, b"f", local, remote))
        world.store.outside_put("f/")
        (world.tree.root / "f").unlink()

        outcome = await look(served, TOLD)

        assert (outcome.next, outcome.remote) == (Next.AGAIN, True)
        assert await world.store.head("f") is None
        assert (await look(served, TOLD)).next is Next.DONE
        assert (world.tree.root / "f").is_dir()


@pytest.mark.parametrize("made", ["before the look at the file that went", "after it"])
async def test_what_a_file_kept_out_comes_when_a_directory_took_its_place(world: World, made: str) -> None:
    """There is a marker, too, of which a look at the file's end wants to see more at once."""
    path = world.tree.root / "f"
    path.write_bytes(b"mine")
    world.store.outside_put("f", b"mine")
    world.store.outside_put("f/")
    world.store.outside_put("f/x", b"theirs")
    inside = replace(TOLD, path=b"f/x")
    async with world.daemon() as daemon:
        served = daemon.served
        for entry in (TOLD, inside):
            with pytest.raises(TypeClash):
                await look(served, entry)
        path.unlink()
        if made == "after it":
            assert (await look(served, TOLD)).next is Next.AGAIN
        path.mkdir()
        while (await look(served, TOLD)).next is Next.AGAIN:
            continue

        assert await world.store.head("f") is None
        assert [entry.path for entry in world.catalog.changelog.pending(A, b"f/x", 1)] == [b"f/x"]
        assert (await look(served, inside)).next is Next.DONE
        taken = world.tree.identify(b"f/x")
        assert taken is not None
        assert taken.size == len(b"theirs")
