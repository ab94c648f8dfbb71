"""A released file that was written to behind the mount, or in watch mode: the mark stays on the inode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.hydrating import World, is_stub

from fsxsync import _core
from fsxsync.catalog.changelog import Entry
from fsxsync.errors import NoSpace
from fsxsync.model.identity import base_of
from fsxsync.ports import ObjectHeaders, Written
from fsxsync.sync.acting import Next
from fsxsync.sync.look import look
from fsxsync.tree.tree import Tree

TOLD = Entry("dra-1", b"f", True, False, None, 0, 0, 1, 0, None, None, "")
BODY = b"0123456789"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def released(world: World) -> Path:
    """A released file that is in sync."""
    made = world.stub("f", BODY)
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    return made


def kinds(world: World) -> list[str]:
    return [problem.kind for problem in world.catalog.problems.get("dra-1", b"f")]


async def uploaded(
    store: object, key: str, fd: int, size: int, headers: ObjectHeaders, *, replaces: object, still: object
) -> tuple[Written, bytes]:
    data = os.pread(fd, size, 0)
    return await store.put(key, data, headers, replaces=replaces), _core.xxh3_128(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"new", b"new content, and more of it"])
async def test_what_was_written_over_a_released_file_behind_the_mount_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """`echo … > f`: all that is in the file is somebody's."""
    path = await released(world)
    path.write_bytes(content)
    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        assert (await look(daemon.served, TOLD)).next is Next.DONE
    assert path.read_bytes() == content == world.store.objects["f"].body
    assert not is_stub(path)
    assert kinds(world) == []


async def test_what_can_not_be_looked_into_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or no right to read it: its object must not take its place all the same."""
    path = await released(world)
    path.write_bytes(b"new")

    def full(*_: object) -> None:
        raise NoSpace("taking back f", "no space")

    async with world.daemon() as daemon:
        with monkeypatch.context() as patch:
            patch.setattr(Tree, "take_back", full)
            assert (await look(daemon.served, TOLD)).next is Next.DONE
        assert (path.read_bytes(), kinds(world)) == (b"new", ["damaged"])
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        assert (await look(daemon.served, TOLD)).next is Next.DONE
    assert path.read_bytes() == b"new" == world.store.objects["f"].body
    assert kinds(world) == []


async def test_who_has_just_emptied_a_released_file_may_write_it(world: World) -> None:
    """A look between the two, which would have the object take the path, waits for the close."""
    path = await released(world)
    async with world.daemon() as daemon:
        with path.open("wb") as stream:
            assert (await look(daemon.served, TOLD)).reason == "open for writing"
            stream.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
async def test_a_released_file_that_was_written_in_part_is_damaged_and_kept(world: World, size: int) -> None:
    """Nobody can tell what of it is somebody's zeros: it is told of, and goes nowhere. Once it is removed, the object
    comes back."""
    path = await released(world)
    with path.open("r+b") as stream:
        stream.truncate(size)
        stream.write(b"somebody's")
    async with world.daemon() as daemon:
        for _ in range(2):
            assert (await look(daemon.served, TOLD)).next is Next.DONE
        assert (path.stat().st_size, kinds(world)) == (size, ["damaged"])
        assert world.store.objects["f"].body == BODY

        path.unlink()
        assert (await look(daemon.served, TOLD)).next is Next.AGAIN
        assert (await look(daemon.served, replace(TOLD, remote=True))).next is Next.DONE
        assert world.store.objects["f"].body == BODY
        assert kinds(world) == []
        with daemon.reader("f") as reader:
            assert await reader.read(0, 10) == BODY


async def test_a_released_file_that_was_only_cut_is_made_whole(world: World) -> None:
    """Nobody's data is in it."""
    path = await released(world)
    os.truncate(path, 5)
    async with world.daemon() as daemon:
        assert (await look(daemon.served, TOLD)).next is Next.DONE
    assert is_stub(path)
    assert path.stat().st_size == len(BODY)
