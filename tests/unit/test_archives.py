"""Readers of an archived object: who waits, who asks, and what ends it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.hydrating import CHUNK, Daemon, World

from fsxsync.errors import KeyRefused, ObjectArchived, ObjectMissing
from fsxsync.model.identity import Remote
from fsxsync.sync import archives
from fsxsync.sync.archives import see
from fsxsync.sync.holding import hold
from fsxsync.sync.journal import HELD, RESTORING

BODY = bytes(range(256)) * (CHUNK // 256) * 6


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def frozen(world: World, *, restoring: bool = False, storage_class: str = "GLACIER") -> None:
    world.stub("f", BODY)
    state(world, archived=True, restoring=restoring, storage_class=storage_class)


def state(world: World, *, archived: bool, restoring: bool = False, storage_class: str = "GLACIER") -> None:
    world.store.objects["f"] = replace(
        world.store.objects["f"], archived=archived, restoring=restoring, storage_class=storage_class
    )


def let(daemon: Daemon, tier: str = "standard") -> None:
    daemon.served.association = replace(daemon.served.association, restore_archived=tier)


def restores(world: World) -> int:
    return world.store.requests.count(("restore", "f"))


async def looked(world: World, daemon: Daemon) -> None:
    """As a look does."""
    remote = await world.store.head("f")
    await see(daemon.served, b"f", remote)


def kinds(daemon: Daemon) -> list[str]:
    return [problem.kind for problem in daemon.shared.catalog.problems.get("dra-1", b"f")]


async def test_a_reader_waits_and_reads_ahead_asks_for_nothing(world: World) -> None:
    """What is asked for ahead fails at once: it holds no place that other files need."""
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.read, 0, 10)
                await daemon.idle()
                assert (restores(world), daemon.mover.under_way) == (1, 0)
                assert kinds(daemon) == [RESTORING]
                state(world, archived=False)
                await looked(world, daemon)
                assert await reader.read(CHUNK, 10) == BODY[CHUNK : CHUNK + 10]
                assert (restores(world), kinds(daemon)) == (1, [])


async def test_a_restore_that_ended_while_somebody_waits_is_asked_for_anew(world: World) -> None:
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.read, 0, 10)
                await daemon.idle()
                state(world, archived=True)
                await looked(world, daemon)
                assert restores(world) == 2
                state(world, archived=False)
                await looked(world, daemon)
    async with world.daemon() as daemon:
        let(daemon)
        state(world, archived=True)
        await looked(world, daemon)
        assert restores(world) == 2  # nobody waits


async def test_a_restore_that_somebody_else_asked_for_is_waited_for(world: World) -> None:
    frozen(world, restoring=True)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.read, 0, 10)
                await daemon.idle()
                assert (restores(world), kinds(daemon)) == (0, [RESTORING])
                state(world, archived=False)
                await looked(world, daemon)


async def test_what_nobody_has_open_asks_and_does_not_wait(world: World) -> None:
    """`association delete --hydrate`, for one, which must not take a day."""
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            daemon.front.handles.clear()
            with pytest.raises(ObjectArchived, match="under way"):
                await reader.read(0, 10)
            daemon.front.handles[world.tree.identify(b"f").ino] = 1  # type: ignore[union-attr]
    assert restores(world) == 1


async def test_an_object_that_goes_ends_the_wait(world: World) -> None:
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            failed: list[ObjectMissing] = []

            async def read() -> None:
                try:
                    await reader.read(0, 10)
                except ObjectMissing as error:
                    failed.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await daemon.idle()
                world.store.outside_delete("f")
                await looked(world, daemon)
            assert failed


async def test_a_store_that_contradicts_itself_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its HEAD says readable and its GET archived: an error, not a loop."""
    frozen(world)
    head = world.store.head

    async def readable(key: str, *, version_id: str | None = None) -> Remote | None:
        seen = await head(key, version_id=version_id)
        return None if seen is None else seen._replace(archived=False)

    monkeypatch.setattr(world.store, "head", readable)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader, pytest.raises(ObjectArchived):
            await reader.read(0, 10)
    assert restores(world) == 0


@pytest.mark.parametrize(
    ("storage_class", "days"), [("GLACIER", 7), ("DEEP_ARCHIVE", 7), ("INTELLIGENT_TIERING", None)]
)
async def test_what_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, storage_class: str, days: int | None
) -> None:
    """Intelligent-Tiering takes no days, Deep Archive is not expedited."""
    frozen(world, storage_class=storage_class)
    asked: list[tuple[str, int | None]] = []

    async def restore(key: str, *, version_id: str | None, tier: str, days: int | None) -> None:
        await trio.lowlevel.checkpoint()
        asked.append((tier, days))
        if storage_class == "DEEP_ARCHIVE" and tier == "expedited":
            raise KeyRefused(f"restore of {key}", "InvalidArgument")
        state(world, archived=False)

    monkeypatch.setattr(world.store, "restore", restore)
    async with world.daemon() as daemon:
        let(daemon, "expedited")
        with daemon.reader("f") as reader:
            assert await reader.read(0, 10) == BODY[:10]
    tiers = ["expedited", "standard"] if storage_class == "DEEP_ARCHIVE" else ["expedited"]
    assert asked == [(tier, days) for tier in tiers]


async def test_only_whoever_needs_the_bytes_has_them_restored(world: World) -> None:
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        await hold(daemon.served, b"f", ObjectArchived("copy of f", "its storage class is GLACIER"))
        assert (restores(world), kinds(daemon)) == (0, [HELD])
        await hold(daemon.served, b"f", ObjectArchived("import of f", "its storage class is GLACIER", key="f"))
        assert (restores(world), kinds(daemon)) == (1, [HELD, RESTORING])


async def test_one_reader_too_many_is_told_to_come_again_while_the_restore_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "WAITING_MOST", 0)
    frozen(world)
    async with world.daemon() as daemon:
        let(daemon)
        with daemon.reader("f") as reader:
            with pytest.raises(ObjectArchived, match="under way") as refused:
                await reader.read(0, 10)
            assert (refused.value.errno, restores(world), kinds(daemon)) == (errno.ENODATA, 1, [RESTORING])
            state(world, archived=False)
            assert await reader.read(0, 10) == BODY[:10]
