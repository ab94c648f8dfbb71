"""What the kernel is told to forget: only what it may know, once, and never a page that somebody waits for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyfuse3
import pytest
import trio
import trio.testing

from fsxsync.mount.direct import Direct
from fsxsync.mount.handles import Handles
from fsxsync.mount.invalidate import KernelCache
from fsxsync.mount.nodes import Nodes

ROOT, KNOWN = 500, 1002


@dataclass
class World:
    nodes: Nodes = field(default_factory=lambda: Nodes(ROOT, stat.S_IFDIR))
    handles: Handles = field(default_factory=Handles)
    cache: KernelCache = field(default_factory=KernelCache)
    told: list[tuple[object, ...]] = field(default_factory=list)
    error: OSError | None = None

    def tell(self, *arguments: object) -> None:
        self.told.append(arguments)
        if self.error is not None:
            raise self.error


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    world.nodes.met(KNOWN, stat.S_IFREG, world.nodes.root, b"f", pinned=False, nlink=1).lookups += 1
    world.cache.attach(world.nodes, world.handles, Direct())
    monkeypatch.setattr(pyfuse3, "invalidate_entry", lambda parent, name: world.tell("entry", parent, name))
    monkeypatch.setattr(pyfuse3, "invalidate_inode", lambda ino, attr_only: world.tell("inode", ino, attr_only))
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)  # so that "all tasks blocked" means that all is told
    yield world
    world.handles.close_all(lambda _: None)


async def at_once(act: Callable[..., object], *arguments: object, limiter: object = None) -> object:
    await trio.lowlevel.checkpoint()
    return act(*arguments)


async def run_until_quiet(world: World) -> None:
    """Let the task send what is queued."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.cache.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_what_is_known_is_told_once_and_the_root_is_1(world: World) -> None:
    for _ in range(3):
        world.cache.invalidate_entry(ROOT, b"f")
        world.cache.invalidate_inode(KNOWN, data=False)
    world.cache.invalidate_inode(KNOWN, data=True)

    await run_until_quiet(world)

    assert sorted(world.told, key=str) == [("entry", 1, b"f"), ("inode", KNOWN, False), ("inode", KNOWN, True)]


async def test_what_the_kernel_can_not_know_is_not_told(world: World) -> None:
    world.cache.invalidate_entry(4711, b"f")
    world.cache.invalidate_entry(KNOWN, b"f")  # a file to the kernel
    world.cache.invalidate_inode(4711, data=True)
    KernelCache().invalidate_entry(ROOT, b"f")  # nothing is mounted yet

    await run_until_quiet(world)

    assert world.told == []


async def test_pages_are_not_kept_over_the_next_open(world: World) -> None:
    node = world.nodes.find(KNOWN)
    assert node is not None
    node.cached = (1, 2)

    world.cache.invalidate_inode(KNOWN, data=False)
    assert node.cached == (1, 2)
    world.cache.invalidate_inode(KNOWN, data=True)

    assert node.cached is None


async def test_pages_that_a_reader_waits_for_are_dropped_when_it_has_them(world: World) -> None:
    node = world.nodes.find(KNOWN)
    assert node is not None
    handle = world.handles.open(node, os.open(os.devnull, os.O_RDONLY), uid=0)
    world.handles.give(handle)
    handle.inode.waiting = 1
    world.cache.invalidate_inode(KNOWN, data=True)
    world.cache.invalidate_entry(ROOT, b"f")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.cache.run)
        await trio.testing.wait_all_tasks_blocked()
        assert world.told == [("entry", 1, b"f")]
        handle.inode.waiting = 0
        assert handle.inode.idle is not None
        handle.inode.idle.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert world.told[1:] == [("inode", KNOWN, False)]


@pytest.mark.parametrize(("number", "lines"), [(errno.ENOENT, 0), (errno.EINVAL, 2), (errno.ENOTCONN, 0)])
async def test_what_the_kernel_answers(world: World, number: int, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    world.error = OSError(number, "the kernel's answer")
    world.cache.invalidate_entry(ROOT, b"f")
    world.cache.invalidate_entry(ROOT, b"g")

    await run_until_quiet(world)

    assert len(caplog.records) == lines


def test_open_handles_are_counted_per_inode(world: World) -> None:
    node = world.nodes.find(KNOWN)
    assert node is not None
    assert world.cache.open_handles(KNOWN) == 0

    handles = [world.handles.open(node, os.open(os.devnull, os.O_RDONLY), uid=0) for _ in range(2)]
    assert world.cache.open_handles(KNOWN) == 2
    for handle in handles:
        world.handles.close(handle)

    assert world.cache.open_handles(KNOWN) == 0


async def test_who_asks_is_told_when_the_kernel_has_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = trio.Event()

    async def slowly(act: Callable[..., object], *arguments: object, limiter: object = None) -> object:
        await gate.wait()
        return act(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", slowly)
    asked: list[str] = []

    async def ask() -> None:
        await world.cache.told()
        asked.append("told")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.cache.run)
        await ask()
        world.cache.invalidate_inode(KNOWN, data=False)
        world.cache.invalidate_inode(KNOWN, data=True)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert asked == ["told"]

        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert asked == ["told", "told"]
        assert len(world.told) == 2
        nursery.cancel_scope.cancel()
