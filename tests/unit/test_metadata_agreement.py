"""What a row says of both sides is what they have: else somebody's mode, owner, time or attribute is lost, or the sides
stay different for good."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.hydrating import MTIME_NS, World

from fsxsync import _core
from fsxsync.catalog.changelog import Entry
from fsxsync.errors import ObjectChanged
from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.identity import Kind, Local, Posix, Remote, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.model.xattrs import encode_xattrs
from fsxsync.ports import ObjectHint
from fsxsync.sync import acting, exporter, moves
from fsxsync.sync.acting import Next
from fsxsync.sync.bulk import import_new
from fsxsync.sync.intake import Intake
from fsxsync.sync.look import look

BODY = b"as it was"
KEEP_BOTH, REMOTE, LOCAL = Policy(), Policy(on_conflict=OnConflict.REMOTE), Policy(on_conflict=OnConflict.LOCAL)
THEM = 1000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


def crashing(*_: object, **__: object) -> None:
    raise Crash


async def uploaded(store: Any, key: str, fd: int, size: int, headers: Any, *, replaces: Any, still: object) -> Any:
    """`ports.Mover.upload`, in one piece."""
    data = os.pread(fd, size, 0)
    return await store.put(key, data, headers, replaces=replaces), _core.xxh3_128(data)


async def synced(world: World, name: str = "f") -> Path:
    """A file that is the same on both sides."""
    path = world.base / "tree" / name
    path.write_bytes(BODY)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    path.chmod(0o644)
    describe(world, ours(path), name)
    world.catalog.files.put(base_of("dra-1", name.encode(), *await sides(world, name)))
    row = world.catalog.files.get("dra-1", name.encode())
    assert row is not None
    world.catalog.files.put(row._replace(content_hash=_core.xxh3_128(BODY)))
    return path


async def released(world: World, path: Path) -> None:
    """It is the stub of its object, and its row says so."""
    world.place_stub(path.name, world.mark(path.name)).chmod(0o644)
    local, remote = await sides(world, path.name)
    carried = remote._replace(posix=remote.posix._replace(xattrs=None))
    world.catalog.files.put(base_of("dra-1", os.fsencode(path.name), local, carried))


def ours(path: Path) -> Posix:
    status = path.stat()
    return Posix(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def describe(world: World, posix: Posix, name: str = "f") -> None:
    """Somebody else puts other metadata onto the same bytes."""
    world.store.outside_put(name, BODY, metadata=to_user_metadata(Kind.FILE, posix))


async def sides(world: World, name: str = "f") -> tuple[Local, Remote]:
    local, remote = world.tree.identify(name.encode()), await world.store.head(name)
    assert local is not None
    assert remote is not None
    return local, remote


async def agreed(world: World, name: str = "f") -> Posix:
    """What both sides say."""
    local, remote = await sides(world, name)
    here = local.posix._replace(atime_ns=None)
    assert remote.posix._replace(atime_ns=None, xattrs=None) == here
    return here


def hint(name: str = "f", *, remote: bool = True) -> Entry:
    return Entry("dra-1", name.encode(), True, remote, None, 0, 0, 1, 0, None, None, "")


async def looks(
    world: World, policy: Policy = KEEP_BOTH, *, name: str = "f", remote: bool = True, export_xattrs: bool = False
) -> None:
    """As a looker: until nothing is to be done, and nobody asks for another look."""
    async with world.daemon() as daemon:
        daemon.served.association = replace(daemon.served.association, export_xattrs=export_xattrs)
        daemon.mover.upload = uploaded  # type: ignore[method-assign, assignment]
        for _ in range(8):
            pending = world.catalog.changelog.pending("dra-1", name.encode(), 1)
            remote = remote or any(entry.remote for entry in pending)
            for entry in pending:
                world.catalog.changelog.done(entry)
            try:
                outcome = await look(daemon.served, hint(name, remote=remote), policy=policy)
            except ObjectChanged:
                remote = True
                continue
            if outcome.next is Next.DONE and not world.catalog.changelog.pending("dra-1", name.encode(), 1):
                return
            remote = outcome.remote
        raise AssertionError("it goes on for ever")


async def crash(world: World, monkeypatch: pytest.MonkeyPatch, policy: Policy = KEEP_BOTH) -> None:
    """A look that ends when the store has done what it was asked: neither file nor row are told."""
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "_apply", crashing)
        patch.setattr(acting, "record", crashing)
        async with world.daemon() as daemon:
            daemon.mover.upload = uploaded  # type: ignore[method-assign, assignment]
            with pytest.raises(Crash):
                await look(daemon.served, hint(), policy=policy)


def give_other_etag(world: World) -> None:
    """As S3 has it for objects in parts: the ETag of a copy is another one."""
    there = world.store.objects["f"]
    world.store.objects["f"] = replace(there, etag="of-the-copy", crc64nvme=_core.crc64nvme(there.body))


# ---------------------------------------------------------------- a crash between the object and its row


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
