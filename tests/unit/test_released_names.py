"""Names of one released file: its mark names the object of one of them, and must not outlive that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.hydrating import Daemon, World

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import FsxSyncError
from fsxsync.model.identity import Base, base_of
from fsxsync.sync import links
from fsxsync.sync.intake import Intake
from fsxsync.sync.look import look
from fsxsync.sync.served import Served

BODY = b"the data of all names"


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def look_at(daemon: Daemon, name: str) -> None:
    await look(daemon.served, Entry("dra-1", name.encode(), True, True, None, 0, 0, 1, 0, None, None, ""))


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("there", ["replaced", "deleted"])
async def test_a_crash_leaves_no_name_with_an_object_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, there: str, names: str
) -> None:
    """Right after one name got its new version, before the mark that it shared named the object of another one."""
    path = world.stub("a", BODY)
    for name in names:
        if name != "a":
            os.link(path, path.with_name(name))
            world.store.outside_put(name, BODY)
    for name in names:
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
    if there == "replaced":
        world.store.outside_put("a", b"another one's")
    else:
        world.store.outside_delete("a")
    stand_alone, looks = links.stand_alone, iter([True])

    def stand_alone_once(served: Served, path: bytes, base: Base | None) -> None:
        if not next(looks, False):
            raise Crash
        stand_alone(served, path, base)

    with monkeypatch.context() as patch:
        patch.setattr(links, "stand_alone", stand_alone_once)
        async with world.daemon() as daemon:
            with pytest.raises(Crash):
                await look_at(daemon, "a")

    async with world.daemon() as daemon:
        for name in names[1:]:
            with daemon.reader(name) as reader, suppress(FsxSyncError):
                await reader.read(0, len(BODY))
            await look_at(daemon, name)  # who could not read it asked for that
            with daemon.reader(name) as reader:
                assert await reader.read(0, len(BODY)) == BODY


@pytest.mark.parametrize("there", ["replaced", "deleted"])
async def test_a_mode_set_by_a_name_that_an_import_takes_counts_for_the_other(world: World, there: str) -> None:
    """What inotify tells is read a moment later: the name that it was done by is another file's then, or gone."""
    path = world.stub("a", BODY)
    path.chmod(0o644)
    os.link(path, path.with_name("b"))
    world.store.outside_put("b", BODY)
    for name in "ab":
        local, remote = world.tree.identify(name.encode()), await world.store.head(name)
        assert local is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))
    path.chmod(0o600)
    if there == "replaced":
        world.store.outside_put("a", b"another one's")
    else:
        world.store.outside_delete("a")
    async with world.daemon() as daemon:
        intake = Intake(daemon.shared, lambda _: daemon.served)
        intake.noticed(b"a")
        await look_at(daemon, "a")
        intake.flush()

        pending = [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 10)]
        assert b"b" in pending
        await look_at(daemon, "b")
    assert world.store.objects["b"].metadata["file-permissions"] == "0100600"
