"""A released file that was renamed to where its object can't follow: its data comes here before the object goes."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.hydrating import MTIME_NS, World, is_stub

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import TypeClash
from fsxsync.model.association import Event, Policy
from fsxsync.model.identity import Kind, Posix, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders, Written
from fsxsync.sync.look import look


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def told(path: bytes) -> Entry:
    return Entry("dra-1", path, True, True, None, 0, 0, 1, 0, None, None, "")


@pytest.mark.parametrize(
    ("there", "policy"),
    [
        ("g", Policy(imports=frozenset())),
        ("", Policy(exports=frozenset({Event.DELETED}))),
    ],
    ids=["a conflict that a person decides", "new files are not exported"],
)
async def test_a_released_file_is_loaded_where_its_object_can_not_follow(
    world: World, there: str, policy: Policy
) -> None:
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    if there:
        await world.store.put(there, b"", ObjectHeaders(posix=Posix(), kind=Kind.FILE), replaces=None)
    renamed = path.with_name("g")
    path.rename(renamed)
    async with world.daemon() as daemon:
        for _ in range(2):
            with suppress(TypeClash):
                await look(daemon.served, told(b"g"), policy=policy)
        await look(daemon.served, told(b"f"), policy=policy)

        assert await world.store.head("f") is None
        assert not is_stub(renamed)
        assert renamed.read_bytes() == b"small"


async def test_the_object_of_a_released_file_follows_it_to_where_a_directorys_marker_is(world: World) -> None:
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    await world.store.put("g/", b"", ObjectHeaders(posix=Posix(), kind=Kind.DIRECTORY), replaces=None)
    path.rename(path.with_name("g"))
    async with world.daemon() as daemon:
        for _ in range(2):
            with pytest.raises(TypeClash):
                await look(daemon.served, told(b"g"))
        await look(daemon.served, told(b"f"))

        copied = await world.store.head("g")
        assert copied is not None
        assert copied.etag == remote.etag
        assert await world.store.head("g/") is not None
        assert await world.store.head("f") is None


async def test_metadata_that_somebody_sets_right_after_a_copy_are_imported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes and the ETag are those of the copy: what the HEAD after it shows is not what the copy wrote."""
    world.stub("f", b"small").chmod(0o644)
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    renamed = world.base / "tree/g"
    (world.base / "tree/f").rename(renamed)
    copies = world.store.copy

    async def copy(*args: Any, **kwargs: Any) -> Written:
        written = await copies(*args, **kwargs)
        said = to_user_metadata(Kind.FILE, Posix(0o640, 1000, 1000, MTIME_NS))
        world.store.outside_put("g", world.store.objects["g"].body, metadata=said)
        return written

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "copy", copy)
        async with world.daemon() as daemon:
            await look(daemon.served, replace(told(b"g"), remote=False))
    async with world.daemon() as daemon:
        await look(daemon.served, told(b"g"))

    status = renamed.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 1000, 1000)
    assert world.store.objects["g"].metadata["file-permissions"] == "0100640"
