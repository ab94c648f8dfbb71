"""What a row says of both sides is what they have: else somebody's mode, owner, time or attribute is lost, or the sides
stay different for good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agreeing import (
    BODY,
    KEEP_BOTH,
    LOCAL,
    REMOTE,
    THEM,
    Crash,
    agreed,
    crashing,
    describe,
    hint,
    looks,
    ours,
    released,
    sides,
    synced,
)
from support.hydrating import MTIME_NS, World

from fsxsync.model.association import Policy
from fsxsync.model.identity import Kind, Posix
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.xattrs import encode_xattrs
from fsxsync.ports import ObjectHint
from fsxsync.sync import acting, moves
from fsxsync.sync.intake import Intake
from fsxsync.sync.look import look


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# ---------------------------------------------------------------- metadata that both sides changed


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
async def test_a_mode_set_here_is_exported_though_the_object_says_nothing_any_more(
    world: World, policy: Policy
) -> None:
    """Somebody put it anew without metadata: that is no agreement to what was set here."""
    path = await synced(world)
    path.chmod(0o600)
    os.chown(path, THEM, THEM)
    describe(world, Posix())

    await looks(world, policy)

    posix = await agreed(world)
    assert (posix.mode, posix.uid, posix.gid) == (0o600, THEM, THEM)


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
@pytest.mark.parametrize("mode", [0o600, 0o644])
async def test_a_time_set_there_reaches_a_file_whose_mode_was_set_here(world: World, mode: int, policy: Policy) -> None:
    """If theirs is the same mode, the sides agree in that alone. Only one of them set a time."""
    path = await synced(world)
    describe(world, ours(path)._replace(mode=mode, mtime_ns=MTIME_NS + 10**9))
    path.chmod(0o600)

    await looks(world, policy)

    posix = await agreed(world)
    assert (posix.mode, posix.mtime_ns) == (0o600, MTIME_NS + 10**9)


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
async def test_content_written_here_keeps_its_time_though_a_mode_was_set_there_later(
    world: World, policy: Policy
) -> None:
    """The time of the old content would have others, who compare size and time, miss the new one."""
    path = await synced(world)
    path.write_bytes(BODY.upper())
    os.utime(path, ns=(MTIME_NS, MTIME_NS + 10**9))
    world.store.now_ns = lambda: path.stat().st_ctime_ns + 10**9
    describe(world, ours(path)._replace(mode=0o600, mtime_ns=MTIME_NS))

    await looks(world, policy)

    posix = await agreed(world)
    assert (posix.mode, posix.mtime_ns) == (0o600, MTIME_NS + 10**9)
    assert world.store.objects["f"].body == BODY.upper()


# ---------------------------------------------------------------- extended attributes


@pytest.mark.parametrize("policy", [KEEP_BOTH, REMOTE, LOCAL])
@pytest.mark.parametrize("theirs", [{}, {b"user.b": b"2"}])
async def test_attributes_of_what_was_the_same_on_both_sides_are_exported(
    world: World, theirs: dict[bytes, bytes], policy: Policy
) -> None:
    """No scan looks for them: nobody would come back to a path whose row is written."""
    path = world.base / "tree/f"
    path.write_bytes(BODY)
    os.setxattr(path, b"user.a", b"1")
    describe(world, ours(path)._replace(xattrs=encode_xattrs(theirs)))

    await looks(world, policy, export_xattrs=True)

    here = world.tree.xattrs(b"f")
    assert (await sides(world))[1].posix.xattrs == encode_xattrs(here)
    assert here in ({b"user.a": b"1"}, theirs)
    assert here


async def test_an_attribute_of_a_file_that_was_renamed_right_after_is_exported(world: World) -> None:
    path = await synced(world, "old")
    os.setxattr(path, b"user.a", b"1")
    path.rename(path.with_name("f"))

    await looks(world, remote=False, export_xattrs=True)

    assert (await sides(world))[1].posix.xattrs == encode_xattrs({b"user.a": b"1"})


async def test_an_attribute_set_right_after_a_copy_for_a_released_file_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark is written anew then, and the time of that hides the one of the attribute."""
    path = await synced(world)
    await released(world, path)
    path.chmod(0o600)
    copies = world.store.copy

    async def copy(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(world.store, "copy", copies)
        written = await copies(*args, **kwargs)
        world.store.objects["f"] = replace(world.store.objects["f"], etag="of-the-copy")
        os.setxattr(path, b"user.a", b"1")
        return replace(written, etag="of-the-copy")

    monkeypatch.setattr(world.store, "copy", copy)

    await looks(world, remote=False, export_xattrs=True)

    assert (await sides(world))[1].posix.xattrs == encode_xattrs({b"user.a": b"1"})


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("is_released", [False, True])
async def test_a_rename_takes_no_attributes_from_an_object_where_these_do_not_travel(
    world: World, monkeypatch: pytest.MonkeyPatch, is_released: bool, killed: bool
) -> None:
    """Another host's association has them travel; here that is asked for later. Nor is our copy a stranger for them."""
    path = await synced(world, "old")
    theirs = encode_xattrs({b"user.b": b"2"})
    describe(world, ours(path)._replace(xattrs=theirs), "old")
    if is_released:
        await released(world, path)
    path.rename(path.with_name("f"))
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(moves, "finish", crashing)
            async with world.daemon() as daemon:
                with pytest.raises(Crash):
                    await look(daemon.served, hint(remote=False))
        path.with_name("f").rename(path.with_name("g"))
    await looks(world)
    if killed:
        assert not path.with_name("f").exists()
        return
    path.with_name("f").chmod(0o600)
    await looks(world, export_xattrs=True)

    assert (await sides(world))[1].posix.xattrs == theirs


async def test_an_attribute_of_a_file_that_got_new_content_is_exported_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is written, and tells of no attribute that a scan would look for: the next look is asked for with it."""
    path = await synced(world)
    os.setxattr(path, b"user.a", b"1")
    world.store.outside_put("f", b"theirs", metadata=to_user_metadata(Kind.FILE, ours(path)))
    record = acting.record

    def record_and_crash(*args: Any, **kwargs: Any) -> None:
        record(*args, **kwargs)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(acting, "record", record_and_crash)
        async with world.daemon() as daemon:
            daemon.served.association = replace(daemon.served.association, export_xattrs=True)
            with pytest.raises(Crash):
                await look(daemon.served, hint())

    [entry] = world.catalog.changelog.pending("dra-1", b"", 10)
    assert (entry.path, entry.local) == (b"f", True)
    await looks(world, export_xattrs=True)
    assert (await sides(world))[1].posix.xattrs == encode_xattrs({b"user.a": b"1"})


# ---------------------------------------------------------------- events


async def test_metadata_that_are_set_after_an_echo_that_came_too_early_are_imported(world: World) -> None:
    """The event of our write may come before its answer, or while nobody knows what became of it. Who expects it once
    more must not take the next one for it: the same bytes with other metadata have the same ETag."""
    path = await synced(world)
    async with world.daemon() as daemon:
        served, intake = daemon.served, Intake(daemon.shared, lambda _: daemon.served)
        etag, at_ns = world.store.objects["f"].etag, world.store.objects["f"].last_modified_ns
        served.expect_echo("f", etag)
        intake.object_hints(served, [ObjectHint("bucket", "f", etag, happened_ns=at_ns + 10**8)])
        assert world.catalog.changelog.count("dra-1")[0] == 0

        served.expect_echo("f", etag)
        describe(world, ours(path)._replace(mode=0o600))
        intake.object_hints(served, [ObjectHint("bucket", "f", etag, happened_ns=at_ns + 2 * 10**9)])
        assert world.catalog.changelog.count("dra-1")[0] == 1

    await looks(world)
    assert (await agreed(world)).mode == 0o600


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("is_released", [False, True])
async def test_a_mode_set_there_goes_with_a_file_that_is_renamed_here(
    tmp_path: Path, is_released: bool, versioned: bool
) -> None:
    """Before anybody was told of it: the copy to the new name takes nothing of it back."""
    world = World(tmp_path, versioned=versioned)
    path = await synced(world, "old")
    if is_released:
        await released(world, path)
    describe(world, ours(path)._replace(mode=0o600, uid=THEM), "old")
    path.rename(path.with_name("f"))

    await looks(world, remote=False)
    await looks(world, name="old", remote=False)
    await looks(world, remote=False)

    posix = await agreed(world)
    assert (posix.mode, posix.uid) == (0o600, THEM)
    assert "old" not in world.store.objects
    world.close()


async def test_a_mode_set_there_right_before_a_copy_of_metadata_is_merged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at the object and the copy onto itself: its ETag says nothing of that."""
    path = await synced(world)
    path.chmod(0o600)
    copies = world.store.copy

    async def copy(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(world.store, "copy", copies)
        describe(world, ours(path)._replace(mode=0o644, uid=THEM))
        return await copies(*args, **kwargs)

    monkeypatch.setattr(world.store, "copy", copy)

    await looks(world)

    posix = await agreed(world)
    assert (posix.mode, posix.uid) == (0o600, THEM)
