"""Handlers called without a kernel: what a mount can't be made to show for certain."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
import trio.testing
from fakes.hydrator import FakeHydrator, make_stub
from pyfuse3 import FlagT, FUSEError, InodeT, RequestContext

from fsxsync.mount.base import Served
from fsxsync.mount.descriptors import KEPT, Descriptors
from fsxsync.mount.handles import Handles
from fsxsync.mount.invalidate import KernelCache
from fsxsync.mount.nodes import Nodes
from fsxsync.mount.operations import TreeOperations

CALLER = cast("RequestContext", SimpleNamespace(uid=0))
BODY = b"x" * 100_000


class World:
    def __init__(self, tree: Path) -> None:
        self.tree = tree
        root_fd = os.open(tree, os.O_RDONLY)
        self.nodes = Nodes(os.fstat(root_fd).st_ino, stat.S_IFDIR)
        self.descriptors = Descriptors(self.nodes, root_fd)
        self.handles = Handles()
        self.hydrator = FakeHydrator(objects={"key": BODY})
        self.operations = TreeOperations(
            Served(
                self.nodes,
                self.descriptors,
                self.handles,
                self.hydrator,
                KernelCache(),
                attr_timeout_s=1.0,
                is_root=False,
            )
        )

    async def look_up(self, path: str) -> InodeT:
        inode = InodeT(1)
        for name in path.split("/"):
            entry: Any = await self.operations.lookup(inode, os.fsencode(name), CALLER)
            inode = entry.st_ino
        return inode


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.operations.close_all()
    world.descriptors.close()


async def test_whoever_waits_for_the_last_waiting_read_is_woken(world: World) -> None:
    make_stub(world.tree / "f", "key", len(BODY))
    opened = await world.operations.open(await world.look_up("f"), FlagT(os.O_RDONLY), CALLER)
    inode = world.handles.file(opened.fh).inode
    world.hydrator.gate = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.operations.read, opened.fh, 0, 10)
        nursery.start_soon(world.operations.read, opened.fh, 90_000, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert inode.waiting == 2
        idle = inode.idle = trio.Event()
        world.hydrator.gate.set()

    assert idle.is_set()
    assert (inode.waiting, inode.idle) == (0, None)


async def test_the_end_of_the_mount_fails_who_waits_and_who_comes_later(world: World) -> None:
    make_stub(world.tree / "f", "key", len(BODY))
    ino = await world.look_up("f")
    opened = await world.operations.open(ino, FlagT(os.O_RDONLY), CALLER)
    world.hydrator.gate = trio.Event()
    errors: list[int] = []

    async def fails(handler: Any, *arguments: object) -> None:
        with pytest.raises(FUSEError) as caught:
            await handler(*arguments)
        errors.append(caught.value.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, world.operations.read, opened.fh, 0, 10)
        nursery.start_soon(fails, world.operations.open, ino, os.O_RDWR, CALLER)
        await trio.testing.wait_all_tasks_blocked()
        world.operations.end_waiting()
    await fails(world.operations.read, opened.fh, 0, 10)

    assert errors == [errno.ENOTCONN] * 3
    inode = world.handles.inode(ino)
    assert inode is not None
    assert (len(inode.handles), inode.writers) == (1, 0)


async def test_no_more_descriptors_of_directories_are_kept_than_agreed(world: World) -> None:
    deep = "/".join(["d"] * 20)
    (world.tree / deep).mkdir(parents=True)
    for number in range(KEPT):
        (world.tree / f"{number}").mkdir()
        (world.tree / f"{number}" / "f").touch()
    (world.tree / deep / "f").touch()
    before = len(os.listdir("/proc/self/fd"))

    for number in range(KEPT):
        await world.look_up(f"{number}/f")
    await world.look_up(f"{deep}/f")
    first: Any = await world.operations.getattr(await world.look_up("0/f"), CALLER)

    assert first.st_size == 0
    assert len(os.listdir("/proc/self/fd")) - before <= KEPT


async def test_writers_that_a_lost_mount_leaves_are_told_to_be_gone(world: World) -> None:
    (world.tree / "f").touch()
    await world.operations.open(await world.look_up("f"), FlagT(os.O_WRONLY), CALLER)

    world.operations.close_all()

    assert [name for name, _ in world.hydrator.calls][-2:] == ["writer_opened", "writer_closed"]


async def test_an_inode_that_lost_its_place_behind_the_mount_is_stale_not_another_file(world: World) -> None:
    (world.tree / "f").write_bytes(b"old")
    ino = await world.look_up("f")
    os.link(world.tree / "f", world.tree / "unknown")  # so that its number is not given away
    (world.tree / "new").write_bytes(b"new")
    os.rename(world.tree / "new", world.tree / "f")

    for attempt in (world.operations.getattr(ino, CALLER), world.operations.open(ino, FlagT(os.O_RDONLY), CALLER)):
        with pytest.raises(FUSEError) as caught:
            await attempt
        assert caught.value.errno == errno.ESTALE
    node = world.nodes.find(ino)
    assert node is not None
    assert world.nodes.path(node) is None


async def test_staging_in_the_tree_is_not_for_applications(world: World) -> None:
    (world.tree / ".fsxsync-staging").mkdir()

    with pytest.raises(FUSEError) as looked:
        await world.look_up(".fsxsync-staging")
    with pytest.raises(FUSEError) as made:
        await world.operations.mkdir(InodeT(1), b".fsxsync-staging", 0o755, CALLER)

    assert (looked.value.errno, made.value.errno) == (errno.ENOENT, errno.EPERM)


async def test_a_directory_removed_behind_the_mount_is_stale(world: World) -> None:
    (world.tree / "d").mkdir()
    (world.tree / "d" / "f").touch()
    ino = await world.look_up("d")
    await world.look_up("d/f")  # now its descriptor is kept
    shutil.rmtree(world.tree / "d")

    with pytest.raises(FUSEError) as caught:
        await world.operations.getattr(ino, CALLER)

    assert caught.value.errno == errno.ESTALE


async def test_an_entry_that_the_kernel_did_not_take_leaves_no_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.tree / "f").touch()
    monkeypatch.setattr(pyfuse3, "readdir_reply", lambda *_: False)
    handle = await world.operations.opendir(InodeT(1), CALLER)

    await world.operations.readdir(handle, 0, cast("pyfuse3.ReaddirToken", None))

    assert len(world.nodes) == 1
