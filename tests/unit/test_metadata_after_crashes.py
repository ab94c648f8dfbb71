"""A crash between an object and its row: what our request wrote is nobody else's wish, nor the other way round."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agreeing import (
    KEEP_BOTH,
    LOCAL,
    REMOTE,
    THEM,
    Crash,
    agreed,
    crash,
    crashing,
    describe,
    give_other_etag,
    looks,
    ours,
    sides,
    synced,
)
from support.hydrating import MTIME_NS, World

from fsxsync.model.association import Policy
from fsxsync.model.identity import Kind, Posix, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.sync.bulk import import_new


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE])
@pytest.mark.parametrize("mode", [0o750, 0o644])
@pytest.mark.parametrize("other_etag", [False, True])
async def test_a_mode_set_after_a_copy_of_metadata_that_a_crash_ended_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch, other_etag: bool, mode: int, policy: Policy
) -> None:
    """What the object says is our own copy's, and no change of somebody else's. Also where it is set back."""
    path = await synced(world)
    path.chmod(0o600)
    await crash(world, monkeypatch, policy)
    assert (await sides(world))[1].posix.mode == 0o600
    if other_etag:
        give_other_etag(world)
    path.chmod(mode)

    await looks(world, policy)

    assert (await agreed(world)).mode == mode
    assert world.catalog.moves.get("dra-1", b"f") is None


@pytest.mark.parametrize("here", ["described", "written"])
@pytest.mark.parametrize("then", ["nothing", "described", "written"])
@pytest.mark.parametrize("other_etag", [False, True])
async def test_what_was_merged_into_an_object_reaches_the_file_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch, other_etag: bool, then: str, here: str
) -> None:
    """Mode here, or content, and owner there: the object was told both, the file misses theirs."""
    path = await synced(world)
    describe(world, ours(path)._replace(uid=THEM, gid=THEM))
    if here == "described":
        path.chmod(0o600)
    else:
        path.write_bytes(b"written")
    await crash(world, monkeypatch, LOCAL)
    assert (await sides(world))[1].posix.uid == THEM
    if other_etag:
        give_other_etag(world)
    if then == "described":
        path.chmod(0o640)
    elif then == "written":
        path.write_bytes(b"written anew")
    mode = stat.S_IMODE(path.stat().st_mode)

    await looks(world, LOCAL)

    local, remote = await sides(world)
    assert (local.mode, local.uid, local.gid) == (mode, THEM, THEM)
    assert (remote.posix.mode, remote.posix.uid, remote.posix.gid) == (mode, THEM, THEM)
    assert world.store.objects["f"].body == path.read_bytes()


async def test_a_mode_that_was_set_there_stays_where_a_crash_kept_it_from_the_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await synced(world)
    describe(world, ours(path)._replace(mode=0o600))
    path.write_bytes(b"written")
    await crash(world, monkeypatch)
    path.write_bytes(b"written anew")

    await looks(world)

    assert (await agreed(world)).mode == 0o600


async def test_a_link_that_changed_hands_after_its_upload_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read as if it were a file, at each look anew."""
    path = world.base / "tree/f"
    path.symlink_to("there")
    await crash(world, monkeypatch)
    os.lchown(path, THEM, THEM)

    await looks(world)

    local, remote = await sides(world)
    assert (local.uid, remote.posix.uid) == (THEM, THEM)


async def test_a_mode_set_after_a_directory_got_its_marker_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that its keys had made gets a marker with its first mode."""
    path = world.base / "tree/f"
    path.mkdir(mode=0o755)
    local = world.tree.identify(b"f")
    assert local is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, None))
    path.chmod(0o700)
    await crash(world, monkeypatch, REMOTE)
    path.chmod(0o750)

    await looks(world, REMOTE)

    there = await world.store.head("f/")
    assert there is not None
    assert (stat.S_IMODE(path.stat().st_mode), there.posix.mode) == (0o750, 0o750)


async def test_a_mode_set_before_content_came_that_says_none_is_exported_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await synced(world)
    path.chmod(0o600)
    world.store.outside_put("f", b"theirs")
    await crash(world, monkeypatch)

    await looks(world)

    assert (await agreed(world)).mode == 0o600


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
@pytest.mark.parametrize("moved_ns", [0, 10**9])
async def test_a_time_set_there_after_an_upload_that_a_crash_ended_is_imported(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Policy, moved_ns: int
) -> None:
    """Also if it is the one that the object before had."""
    path = await synced(world)
    path.write_bytes(b"written")
    written = ours(path)
    await crash(world, monkeypatch, policy)
    assert (await sides(world))[1].posix.mtime_ns == written.mtime_ns
    world.store.now_ns = lambda: path.stat().st_ctime_ns + 10**9
    says = to_user_metadata(Kind.FILE, written._replace(mtime_ns=MTIME_NS + moved_ns))
    world.store.outside_put("f", b"written", metadata=says)

    await looks(world, policy)

    assert (await agreed(world)).mtime_ns == MTIME_NS + moved_ns


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
async def test_a_crash_while_stubs_are_made_of_a_listing_takes_nothing_from_their_objects(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    """A listing tells of no metadata: what the stub has are nobody's wish."""
    says = Posix(0o600, THEM, THEM, MTIME_NS)
    describe(world, says)
    listed = [(b"f", one) for page in world.store.list_pages("") for one in page]
    with monkeypatch.context() as patch:
        patch.setattr(world.catalog.files, "put_many", crashing)
        async with world.daemon() as daemon:
            with pytest.raises(Crash):
                await import_new(daemon.served, listed, until_ns=0)
    assert world.tree.identify(b"f") is not None

    await looks(world, policy)

    assert await agreed(world) == says
