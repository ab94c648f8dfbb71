"""Metadata that both sides changed: what only one of them changed reaches the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from support.hydrating import MTIME_NS, World

from fsxsync import _core
from fsxsync.catalog.changelog import Entry
from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.identity import Kind, Posix, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.ports import ObjectHeaders
from fsxsync.sync import acting
from fsxsync.sync.acting import Next
from fsxsync.sync.bulk import HELD_NS, import_new
from fsxsync.sync.look import look
from fsxsync.sync.task_imports import ImportStage

REMOTE = Policy(on_conflict=OnConflict.REMOTE)
OF_FILE = Entry("dra-1", b"f", True, True, None, 0, 0, 1, 0, None, None, "")
TOLD = Entry("dra-1", b"d", True, True, None, 0, 0, 1, 0, None, None, "")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("wins", [OnConflict.REMOTE, OnConflict.LOCAL, OnConflict.KEEP_BOTH])
async def test_a_mode_that_was_set_here_is_exported_though_the_marker_is_new(world: World, wins: OnConflict) -> None:
    """Also where the repository wins: its marker has other times, and the mode that both knew."""
    directory = world.base / "tree/d"
    directory.mkdir(mode=0o755)
    status = directory.stat()
    known = Posix(0o755, status.st_uid, status.st_gid, MTIME_NS)
    await world.store.put("d/", b"", ObjectHeaders(posix=known, kind=Kind.DIRECTORY), replaces=None)
    local, remote = world.tree.identify(b"d"), await world.store.head("d/")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"d", local, remote))

    directory.chmod(0o700)
    newer = known._replace(mtime_ns=MTIME_NS + 10**9)
    await world.store.put("d/", b"", ObjectHeaders(posix=newer, kind=Kind.DIRECTORY), replaces=remote)
    async with world.daemon() as daemon:
        for _ in range(3):
            outcome = await look(daemon.served, TOLD, policy=Policy(on_conflict=wins))
    assert outcome.next is Next.DONE

    there = await world.store.head("d/")
    assert there is not None
    assert (directory.stat().st_mode & 0o777, there.posix.mode) == (0o700, 0o700)


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


def crashing(*_: object) -> None:
    raise Crash


async def uploaded(store: Any, key: str, fd: int, size: int, headers: Any, *, replaces: Any, still: object) -> Any:
    """`ports.Mover.upload`, in one piece."""
    data = os.pread(fd, size, 0)
    return await store.put(key, data, headers, replaces=replaces), _core.xxh3_128(data)


@pytest.mark.parametrize("is_stub", [True, False])
@pytest.mark.parametrize("then", ["written", "nothing", "replaced there"])
async def test_an_own_copy_of_metadata_is_known_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch, is_stub: bool, then: str
) -> None:
    """A copy of an object that was uploaded in parts has another ETag. Who takes that for a change of somebody else's
    overwrites what was written here meanwhile, where the repository wins."""
    body = b"uploaded in parts"
    path = world.stub("f", body)
    if not is_stub:
        path.unlink()
        path.write_bytes(body)
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote, content_hash=_core.xxh3_128(body)))
    path.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setattr(acting, "record", crashing)
        async with world.daemon() as daemon:
            with pytest.raises(Crash):
                await look(daemon.served, OF_FILE, policy=REMOTE)
    there = world.store.objects["f"]
    world.store.objects["f"] = replace(there, etag="of-the-copy")
    if then == "replaced there":
        world.store.outside_put("f", b"somebody else's")
    elif then == "written":
        path.unlink()
        path.write_bytes(b"written here meanwhile")

    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        for _ in range(3):
            outcome = await look(daemon.served, OF_FILE, policy=REMOTE)
        assert outcome.next is Next.DONE
        wanted = {"written": b"written here meanwhile", "nothing": body, "replaced there": b"somebody else's"}[then]
        assert world.store.objects["f"].body == wanted
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(reader.path, reader.fd)
        assert path.read_bytes() == wanted
    assert world.catalog.moves.get("dra-1", b"f") is None


@pytest.mark.parametrize("then", ["written in place", "another file", "nothing"])
@pytest.mark.parametrize("there", ["ours", "somebody else's"])
async def test_an_own_upload_is_known_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch, then: str, there: str
) -> None:
    """Whoever takes it for somebody else's overwrites what was written here meanwhile, where the repository wins: also
    what was written to the very file that had been uploaded."""
    path = world.base / "tree/f"
    path.write_bytes(b"uploaded")
    with monkeypatch.context() as patch:
        patch.setattr(acting, "record", crashing)
        async with world.daemon() as daemon:
            patch.setattr(daemon.mover, "upload", uploaded)
            with pytest.raises(Crash):
                await look(daemon.served, OF_FILE, policy=REMOTE)
    assert world.store.objects["f"].body == b"uploaded"
    if there == "somebody else's":
        world.store.outside_put("f", there.encode())
    if then == "another file":
        path.unlink()
    if then != "nothing":
        path.write_bytes(then.encode())

    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        for _ in range(3):
            outcome = await look(daemon.served, OF_FILE, policy=REMOTE)
        assert outcome.next is Next.DONE
        ours = b"uploaded" if then == "nothing" else then.encode()
        wanted = ours if there == "ours" else there.encode()
        assert world.store.objects["f"].body == wanted
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(reader.path, reader.fd)
        assert path.read_bytes() == wanted
    assert world.catalog.moves.get("dra-1", b"f") is None


@pytest.mark.parametrize("bytes_stay", [True, False])
async def test_a_mode_set_after_an_upload_that_a_crash_ended_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch, bytes_stay: bool
) -> None:
    """Equal bytes on both sides are no proof that the object's metadata are somebody's wish: they are our own upload's,
    and where the repository wins they would take the new mode back. Nor is an untouched mtime proof of equal bytes."""
    path = world.base / "tree/f"
    path.write_bytes(b"uploaded")
    path.chmod(0o644)
    with monkeypatch.context() as patch:
        patch.setattr(acting, "record", crashing)
        async with world.daemon() as daemon:
            patch.setattr(daemon.mover, "upload", uploaded)
            with pytest.raises(Crash):
                await look(daemon.served, OF_FILE, policy=REMOTE)
    path.chmod(0o750)
    if not bytes_stay:
        status = path.stat()
        path.write_bytes(b"replaced")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        for _ in range(3):
            outcome = await look(daemon.served, OF_FILE, policy=REMOTE)
        assert outcome.next is Next.DONE
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    seen = world.store.objects["f"]
    body = b"uploaded" if bytes_stay else b"replaced"
    assert (seen.body, seen.metadata["file-permissions"]) == (body, "0100750")
    assert world.catalog.moves.get("dra-1", b"f") is None


async def described_on_both_sides(world: World, *, theirs: int) -> Path:
    """A file that was in sync; since then its object got another owner, and that mode."""
    body = b"as it was"
    path = world.stub("f", body)
    path.chmod(0o644)
    async with world.daemon() as daemon:
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(reader.path, reader.fd)
    status = path.stat()
    known = Posix(0o644, status.st_uid, status.st_gid, status.st_mtime_ns)
    world.store.outside_put("f", body, metadata=to_user_metadata(Kind.FILE, known))
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote, content_hash=_core.xxh3_128(body)))
    said = to_user_metadata(Kind.FILE, known._replace(uid=1000, gid=1000, mode=theirs))
    world.store.outside_put("f", body, metadata=said)
    return path


@pytest.mark.parametrize("then", ["is written again", "the daemon dies", "the daemon dies, and it is written again"])
@pytest.mark.parametrize("here", ["written", "described"])
async def test_metadata_that_could_not_be_given_to_a_file_come_with_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch, here: str, then: str
) -> None:
    """Somebody set the owner there while the file was written, or its mode set, here, and when the object has both the
    file can't be given them: what the object got from the other side is no news to be taken back."""
    path = await described_on_both_sides(world, theirs=0o640 if here == "written" else 0o644)
    if here == "written":
        path.write_bytes(b"once")
    else:
        path.chmod(0o600)
    copies = world.store.copy

    def again() -> None:
        if "written" in then:
            with path.open("ab") as stream:
                stream.write(b" and again")
        if "dies" in then:
            raise Crash

    async def upload(*args: Any, **kwargs: Any) -> Any:
        done = await uploaded(*args, **kwargs)
        again()
        return done

    async def copy(*args: Any, **kwargs: Any) -> Any:
        done = replace(await copies(*args, **kwargs), etag="of-the-copy")  # as with a KMS key
        world.store.objects["f"] = replace(world.store.objects["f"], etag=done.etag)
        again()
        return done

    async with world.daemon() as daemon:
        with monkeypatch.context() as patch:
            patch.setattr(daemon.mover, "upload", upload)
            patch.setattr(world.store, "copy", copy)
            with pytest.raises(Crash) if "dies" in then else nullcontext():
                await look(daemon.served, OF_FILE, policy=Policy())
        if "dies" not in then:
            assert [entry.remote for entry in world.catalog.changelog.pending("dra-1", b"", 9)] == [True]
    async with world.daemon() as daemon:
        monkeypatch.setattr(daemon.mover, "upload", uploaded)
        entry = replace(OF_FILE, remote=False, attempts=1)  # as after a failure
        for _ in range(4):
            outcome = await look(daemon.served, entry, policy=Policy())
            hints = world.catalog.changelog.pending("dra-1", b"", 9)
            entry = replace(OF_FILE, remote=outcome.remote or any(hint.remote for hint in hints))
    assert outcome.next is Next.DONE
    assert world.catalog.moves.get("dra-1", b"f") is None
    if here == "described" and "dies" in then:
        assert any(hint.remote for hint in hints)  # also if the file is as it was again

    mode = 0o640 if here == "written" else 0o600
    status, there = path.stat(), await world.store.head("f")
    assert there is not None
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 1000, 1000)
    assert (there.posix.mode, there.posix.uid, there.posix.gid) == (mode, 1000, 1000)
    assert world.store.objects["f"].body == path.read_bytes()


async def test_a_rename_before_its_metadata_was_read_takes_nothing_from_the_object(world: World) -> None:
    """A first import shows what a listing told; the owner follows. Who renames the file before that changed a name."""
    says = Posix(0o640, 4001, 4002, MTIME_NS + 10**9)
    await world.store.put("old", b"data", ObjectHeaders(posix=says, kind=Kind.FILE), replaces=None)
    world.place_stub("f", world.mark("old"))
    local, remote = world.tree.identify(b"f"), await world.store.head("old")
    assert local is not None
    assert remote is not None
    listed = remote._replace(posix=Posix(), posix_known=False)
    world.catalog.files.put(base_of("dra-1", b"old", local, listed))

    async with world.daemon() as daemon:
        for _ in range(3):
            outcome = await look(daemon.served, replace(OF_FILE, remote=False))
    assert outcome.next is Next.DONE

    there, here = await world.store.head("f"), world.tree.identify(b"f")
    assert there is not None
    assert there.posix._replace(atime_ns=None) == says
    assert here is not None
    assert (here.mode, here.uid, here.gid, here.mtime_ns) == (0o640, 4001, 4002, MTIME_NS + 10**9)


@pytest.mark.parametrize("ended", ["listing", "task", "task, and another one comes"])
async def test_what_only_a_listing_told_of_is_read_though_its_reader_ended(world: World, ended: str) -> None:
    """A daemon is stopped, a task cancelled, between stubs and metadata; no later listing shows a difference."""
    says = Posix(0o640, 4001, 4002, MTIME_NS + 10**9)
    await world.store.put("f", b"data", ObjectHeaders(posix=says, kind=Kind.FILE), replaces=None)
    async with world.daemon() as daemon:
        stage = ImportStage(daemon.served, [b""], Policy(), deletes=False)
        if ended == "listing":
            listed = [(b"f", one) for page in world.store.list_pages("") for one in page]
            with trio.CancelScope() as scope:
                scope.cancel()
                await import_new(daemon.served, listed, until_ns=HELD_NS)
            assert scope.cancelled_caught
        else:
            begun = iter([True])
            async for batch in stage.batches(b""):
                await stage.perform(batch, lambda: next(begun, False))
        row = world.catalog.files.get("dra-1", b"f")
        assert row is not None
        assert not row.posix_known
        [entry] = world.catalog.changelog.pending("dra-1", b"", 10)
        assert entry.path == b"f"
        if ended == "task, and another one comes":
            async for batch in stage.batches(b""):
                assert (await stage.perform(batch, lambda: True)).succeeded == 1
        else:
            assert (entry.not_before_ns == HELD_NS) == (ended == "listing")
            assert (await look(daemon.served, entry)).next is Next.DONE

    here = world.tree.identify(b"f")
    assert here is not None
    assert (here.mode, here.uid, here.gid, here.mtime_ns) == (0o640, 4001, 4002, MTIME_NS + 10**9)


async def test_a_task_that_read_everything_leaves_no_looks(world: World) -> None:
    await world.store.put("f", b"data", ObjectHeaders(posix=Posix(0o640), kind=Kind.FILE), replaces=None)
    async with world.daemon() as daemon:
        stage = ImportStage(daemon.served, [b""], Policy(), deletes=False)
        async for batch in stage.batches(b""):
            assert (await stage.perform(batch, lambda: True)).succeeded == 1

    assert world.catalog.changelog.count("dra-1")[0] == 0


async def test_a_task_removes_what_only_a_listing_told_of_and_is_gone_there(world: World) -> None:
    world.store.outside_put("f", b"data")
    async with world.daemon() as daemon:
        listed = [(b"f", one) for page in world.store.list_pages("") for one in page]
        assert await import_new(daemon.served, listed, until_ns=HELD_NS) == []
        world.store.outside_delete("f")
        stage = ImportStage(daemon.served, [b""], Policy(), deletes=True)

        gone = [key async for batch in stage.batches(b"") for key in batch.gone]

    assert gone == [b"f"]


async def test_the_time_that_somebody_gave_a_released_file_goes_with_it(world: World) -> None:
    """Its object says another one; so it did before the file was renamed."""
    says = Posix(0o640, mtime_ns=MTIME_NS + 10**9)
    await world.store.put("old", b"data", ObjectHeaders(posix=says, kind=Kind.FILE), replaces=None)
    path = world.place_stub("f", world.mark("old"))
    path.chmod(0o640)
    os.utime(path, ns=(1, 2))
    local, remote = world.tree.identify(b"f"), await world.store.head("old")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"old", local, remote))

    async with world.daemon() as daemon:
        for _ in range(3):
            outcome = await look(daemon.served, OF_FILE)
    assert outcome.next is Next.DONE

    here = world.tree.identify(b"f")
    assert here is not None
    assert here.mtime_ns == 2


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_owner_that_an_ordinary_users_daemon_can_not_give_is_not_written_over(
    world: World, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """It leaves all files to that user, and the objects to whom they say; also where the row is written anew."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "chown", refused)
    says = Posix(0o644, 4001, 4002, MTIME_NS)
    await world.store.put("f", b"data", ObjectHeaders(posix=says, kind=Kind.FILE), replaces=None)
    path = world.place_stub("f", world.mark("f"))
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    if is_known:
        world.catalog.files.put(base_of("dra-1", b"f", local, remote))

    async with world.daemon() as daemon:
        for mode in (0o644, 0o600):
            path.chmod(mode)
            for _ in range(3):
                outcome = await look(daemon.served, OF_FILE)
    assert outcome.next is Next.DONE

    there = await world.store.head("f")
    assert there is not None
    assert (there.posix.mode, there.posix.uid, there.posix.gid) == (0o600, 4001, 4002)


def refused(*_: object) -> None:
    raise PermissionError(1, "not root")
