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
from fsxsync.errors import LocalChanged, TypeClash
from fsxsync.model.association import Event, Policy
from fsxsync.model.identity import Kind, Posix, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders, Written
from fsxsync.sync import looker, moves
from fsxsync.sync.look import look
from fsxsync.sync.reconcile import Action, Verdict


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


async def test_a_rename_exports_nothing_where_only_deletes_are_exported(world: World) -> None:
    """Also where the first look asks the repository for nothing else."""
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    path.rename(path.with_name("g"))
    policy = Policy(exports=frozenset({Event.DELETED}))
    async with world.daemon() as daemon:
        for name in (b"g", b"g", b"f"):
            await look(daemon.served, replace(told(name), remote=False), policy=policy)

    assert world.store.objects == {}
    assert path.with_name("g").read_bytes() == b"small"


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


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


@pytest.mark.parametrize("first", [b"f", b"g"])
@pytest.mark.parametrize("ended", ["renamed", "killed"])
async def test_a_file_that_is_renamed_while_its_object_gets_another_etag_keeps_its_data(
    world: World, monkeypatch: pytest.MonkeyPatch, ended: str, first: bytes
) -> None:
    """A copy onto itself gives an object in parts, or one with a KMS key, another ETag than the file's mark names. With
    the old name the object would go, and with it the data."""
    path = world.stub("f", b"in parts")
    path.chmod(0o644)
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    path.chmod(0o600)
    copies = world.store.copy

    async def copy(*args: Any, **kwargs: Any) -> Written:
        written = await copies(*args, **kwargs)
        world.store.objects["f"] = replace(world.store.objects["f"], etag="of-the-copy")
        path.rename(path.with_name("g"))
        if ended == "killed":
            raise Crash
        return replace(written, etag="of-the-copy")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "copy", copy)
        async with world.daemon() as daemon:
            with pytest.raises((LocalChanged, Crash)):
                await look(daemon.served, replace(told(b"f"), remote=False))
    async with world.daemon() as daemon:
        served, changelog = daemon.served, world.catalog.changelog
        served.add_hint(b"f", local=True, ino=local.ino)
        served.add_hint(b"g", local=True, ino=local.ino)
        for _ in range(20):
            due = changelog.claim(2**62, 10, ["dra-1"])
            for entry in sorted(due, key=lambda one: one.path != first):
                await looker._handle(served, entry)
        assert changelog.count("dra-1")[0] == 0

        assert list(world.store.objects) == ["g"]
        with daemon.reader("g") as reader:
            assert await reader.read(0, 8) == b"in parts"
        assert world.catalog.problems.count("dra-1") == 0
    assert world.store.objects["g"].metadata["file-permissions"] == "0100600"


@pytest.mark.parametrize("again", ["by its look", "by the note of an upload"])
async def test_a_hint_of_the_file_before_hides_no_renamed_one(world: World, *, again: str) -> None:
    """Somebody renamed a released file over one that is looked at: the next look, or a start, names the one of before.
    By that nobody would find where the data of the old name's object is needed, and it would be deleted."""
    await world.store.put("g", b"before", ObjectHeaders(posix=Posix(), kind=Kind.FILE), replaces=None)
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    row = base_of("dra-1", b"f", local, remote)
    world.catalog.files.put(row)
    renamed = path.with_name("g")
    renamed.write_bytes(b"before")
    before = world.tree.identify(b"g")
    assert before is not None
    async with world.daemon() as daemon:
        served = daemon.served
        moves.uploading(served, b"g", Action(Verdict.EXPORT, None, before, None))
        path.rename(renamed)
        served.add_hint(b"g", local=True, ino=local.ino)  # as whoever saw it has it
        if again == "by its look":
            served.add_hint(b"g", local=True, remote=True, ino=before.ino)
        else:
            moves.look_again(served)

        await look(served, replace(told(b"f"), remote=False))
        assert (await world.store.head("f")) is not None
        found = [entry.path for entry in world.catalog.changelog.by_inode(local.ino)]
        assert found == [b"g"]
