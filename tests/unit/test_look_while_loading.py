"""A look and what happens at the same moment: neither undoes or misses what the other did."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from support.hydrating import CHUNK, MTIME_NS, World, is_stub

from fsxsync.catalog.changelog import Entry
from fsxsync.model.identity import Remote, base_of
from fsxsync.model.stub import XATTR
from fsxsync.ports import ObjectHeaders
from fsxsync.sync.acting import Next
from fsxsync.sync.intake import Intake
from fsxsync.sync.look import look
from fsxsync.tree.tree import Tree


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def released_file(world: World) -> Path:
    """A stub that is in sync with its object."""
    path = world.stub("f", b"small")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    return path


TOLD = Entry("dra-1", b"f", False, True, None, 0, 0, 1, 0, None, None, "")
"""The changelog's entry after an event that names no version."""


async def test_a_file_whose_mark_just_went_is_not_taken_for_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmarked, go_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    unmark = Tree.unmark

    def slowly(*arguments: Any, **named: Any) -> Any:
        local = unmark(*arguments, **named)
        token.run_sync_soon(unmarked.set)
        go_on.wait(20)
        return local

    monkeypatch.setattr(Tree, "unmark", slowly)
    async with world.daemon() as daemon:
        path = await released_file(world)
        with daemon.reader("f") as reader:
            await daemon.hydrator.open_for_read(reader.path, reader.fd)
            await unmarked.wait()
            assert not is_stub(path)
            world.store.outside_put("f", b"changed there")

            outcome = await look(daemon.served, TOLD)

            go_on.set()
            await daemon.hydrator.make_resident(reader.path, reader.fd)

        assert (outcome.next, outcome.reason) == (Next.LATER, "being loaded")
        assert world.catalog.problems.get("dra-1", b"f") == []
        assert (await look(daemon.served, TOLD)).next is Next.DONE
        mark = world.tree.identify(b"f")
        assert mark is not None
        assert mark.stub == world.mark("f")


async def test_a_look_that_waited_for_the_store_does_not_write_down_what_is_no_longer_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        await released_file(world)
        world.store.outside_put("f", b"small")  # equal bytes, at another time: only the row is to be refreshed
        asked, answer = trio.Event(), trio.Event()
        head = world.store.head

        async def slow_head(key: str) -> Remote | None:
            asked.set()
            await answer.wait()
            return await head(key)

        monkeypatch.setattr(world.store, "head", slow_head)
        outcomes = []

        async def look_once() -> None:
            outcomes.append(await look(daemon.served, TOLD))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_once)
            await asked.wait()
            with daemon.reader("f") as reader:
                await daemon.hydrator.make_resident(reader.path, reader.fd)
            row = world.catalog.files.get("dra-1", b"f")
            assert row is not None
            assert not row.released
            answer.set()

        (outcome,) = outcomes
        assert (outcome.next, outcome.remote) == (Next.AGAIN, True)
        assert world.catalog.files.get("dra-1", b"f") == row


async def test_a_mark_that_outlived_the_object_it_names_is_mended_when_a_reader_found_nothing(world: World) -> None:
    """Two names shared it, and the daemon died right after the other one was replaced."""
    async with world.daemon() as daemon:
        await released_file(world)
        local = world.tree.identify(b"f")
        assert local is not None
        assert local.stub is not None
        os.setxattr(world.tree.root / "f", XATTR, replace(local.stub, key="gone").encode())

        await look(daemon.served, TOLD)

        with daemon.reader("f") as reader:
            await daemon.hydrator.open_for_read(reader.path, reader.fd)
            assert await reader.read(0, 5) == b"small"


async def test_what_another_name_did_while_the_first_object_of_a_name_was_made_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """inotify tells of a change under one name of a file, and the others are found by their rows."""
    path = await released_file(world)
    os.link(path, path.with_name("g"))
    copy = world.store.copy

    async def changed_meanwhile(*arguments: Any, **named: Any) -> Any:
        written = await copy(*arguments, **named)
        path.chmod(0o600)
        return written

    monkeypatch.setattr(world.store, "copy", changed_meanwhile)
    async with world.daemon() as daemon:
        outcome = await look(daemon.served, replace(TOLD, path=b"g", local=True, remote=False))

        row = world.catalog.files.get("dra-1", b"g")
        assert row is not None
        assert row.mode != 0o600
        assert (outcome.next, outcome.local) == (Next.AGAIN, True)


async def test_a_file_that_is_back_while_its_object_is_deleted_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory was renamed away and back, which moves none of its times: it is what the row knows, as long as
    there is one, so that nothing was hinted at; then it was in the tree and nowhere else."""
    gone, back = world.base / "tree/gone", world.base / "tree/d"
    gone.mkdir()
    (gone / "f").write_bytes(b"bytes")
    gone.rename(back)
    world.put("d/f", b"bytes")
    local, remote = world.tree.identify(b"d/f"), await world.store.head("d/f")
    assert local is not None
    assert remote is not None
    row = base_of("dra-1", b"d/f", local, remote)
    world.catalog.files.put(row)
    back.rename(gone)
    delete = world.store.delete

    async def back_meanwhile(*arguments: Any, **named: Any) -> None:
        await delete(*arguments, **named)
        gone.rename(back)

    monkeypatch.setattr(world.store, "delete", back_meanwhile)
    async with world.daemon() as daemon:
        outcome = await look(daemon.served, replace(TOLD, path=b"d/f", local=True, remote=False))

        here = world.tree.identify(b"d/f")
        assert here is not None
        assert row.matches_local(here)
        assert world.catalog.files.get("dra-1", b"d/f") is None
        assert (outcome.next, outcome.local) == (Next.AGAIN, True)


async def test_a_file_that_is_back_while_another_one_is_exported_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directories changed places, and back."""
    one, other, third = (world.base / "tree" / name for name in ("one", "other", "third"))
    for directory in (one, other):
        directory.mkdir()
        (directory / "f").symlink_to(directory.name)
    local = world.tree.identify(b"one/f")
    assert local is not None
    await world.store.put("one/f", b"one", ObjectHeaders(posix=local.posix, kind=local.kind), replaces=None)
    world.catalog.files.put(base_of("dra-1", b"one/f", local, await world.store.head("one/f")))

    def change_places() -> None:
        one.rename(third)
        other.rename(one)
        third.rename(other)

    change_places()
    put = world.store.put

    async def back_meanwhile(*arguments: Any, **named: Any) -> Any:
        written = await put(*arguments, **named)
        change_places()
        return written

    monkeypatch.setattr(world.store, "put", back_meanwhile)
    async with world.daemon() as daemon:
        outcome = await look(daemon.served, replace(TOLD, path=b"one/f", local=True, remote=False))

        row = world.catalog.files.get("dra-1", b"one/f")
        assert row is not None
        assert row.target == b"other"
        assert (outcome.next, outcome.local) == (Next.AGAIN, True)


async def test_a_mode_that_is_set_while_the_one_before_is_exported_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a released file gets the copy's version, and the file was looked at once more then."""
    world = World(tmp_path, versioned=True)
    path = await released_file(world)
    path.chmod(0o755)
    copy = world.store.copy

    async def set_meanwhile(*arguments: Any, **named: Any) -> Any:
        written = await copy(*arguments, **named)
        path.chmod(0o640)
        return written

    monkeypatch.setattr(world.store, "copy", set_meanwhile)
    async with world.daemon() as daemon:
        outcome = await look(daemon.served, replace(TOLD, local=True, remote=False))

        row = world.catalog.files.get("dra-1", b"f")
        assert row is not None
        assert row.mode == 0o755
        assert (outcome.next, outcome.local) == (Next.AGAIN, True)
    world.close()


@pytest.mark.parametrize("exports", [True, False])
async def test_an_attribute_set_while_a_file_is_loaded_is_a_change_where_these_travel(
    world: World, monkeypatch: pytest.MonkeyPatch, *, exports: bool
) -> None:
    """Its row was written with the file's ctime of after that, so that nothing told of it any more."""
    path = await released_file(world)
    unmark = Tree.unmark

    def first_an_attribute(*arguments: Any, **named: Any) -> Any:
        os.setxattr(path, "user.a", b"1")
        return unmark(*arguments, **named)

    monkeypatch.setattr(Tree, "unmark", first_an_attribute)
    async with world.daemon() as daemon:
        daemon.served.association = replace(daemon.served.association, export_xattrs=exports)
        with daemon.reader("f") as reader:
            await daemon.hydrator.make_resident(reader.path, reader.fd)

        row, now = world.catalog.files.get("dra-1", b"f"), world.tree.identify(b"f")
        assert row is not None
        assert now is not None
        assert row.matches_local(now)
        assert [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 10)] == [b"f"] * exports


@pytest.mark.parametrize("exports", [True, False])
async def test_an_attribute_set_on_a_file_of_which_a_part_is_loaded_is_a_change_where_these_travel(
    world: World, *, exports: bool
) -> None:
    """The rest is never loaded, so that no end of that tells of it."""
    path = world.stub("f", os.urandom(8 * CHUNK))
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    async with world.daemon() as daemon:
        daemon.served.association = replace(daemon.served.association, export_xattrs=exports)
        intake = Intake(daemon.shared, lambda _: daemon.served)
        daemon.mover.passing = {0}
        with daemon.reader("f") as reader:
            await reader.read(0, 10)
            intake.noticed(b"f")
            intake.flush()
            assert world.catalog.changelog.pending("dra-1", b"", 10) == []

            os.setxattr(path, "user.a", b"1")
            intake.changed(b"f")
            intake.flush()

        assert [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 10)] == [b"f"] * exports


@pytest.mark.parametrize("renamed", [False, True])
async def test_what_is_exported_while_data_comes_says_when_the_file_was_written(world: World, *, renamed: bool) -> None:
    """Writing what is loaded moves the file's own mtime until all of it is here."""
    path = world.stub("f", os.urandom(8 * CHUNK))
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    name = "g" if renamed else "f"
    async with world.daemon() as daemon:
        daemon.mover.passing = set()
        with daemon.reader("f") as reader:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(reader.read, 0, 8 * CHUNK)
                await daemon.mover.until(1)
                await daemon.idle()
                assert path.stat().st_mtime_ns != MTIME_NS
                path.chmod(0o600)
                if renamed:
                    path.rename(path.with_name(name))

                outcome = await look(daemon.served, replace(TOLD, path=name.encode(), local=True, remote=False))

                daemon.mover.let_all()
            await daemon.hydrator.make_resident(name.encode(), reader.fd)
        assert outcome.next is Next.DONE
        after = await world.store.head(name)
        assert after is not None
        assert (after.posix.mode, after.posix.mtime_ns) == (0o600, MTIME_NS)
        assert path.with_name(name).stat().st_mtime_ns == MTIME_NS
