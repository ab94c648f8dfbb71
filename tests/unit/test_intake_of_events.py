"""What an event says of an object, held against what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import Daemon, World

from fsxsync.model.identity import Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.ports import ObjectHint
from fsxsync.sync.intake import Intake
from fsxsync.sync.task_looks import COPIES, policy_of
from fsxsync.sync.task_settling import settle_path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, versioned=True)
    yield made
    made.close()


def told(world: World, daemon: Daemon, *hints: ObjectHint) -> list[bytes]:
    """Of these events, the paths that become hints."""
    Intake(daemon.shared, lambda _: daemon.served).object_hints(daemon.served, hints)
    return [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 100)]


def created(mark: StubMark) -> ObjectHint:
    return ObjectHint("bucket", mark.key, etag=mark.etag, version_id=mark.version_id)


async def exported(world: World, daemon: Daemon) -> StubMark:
    """An object that we wrote a moment ago, and whose event is to come."""
    mark = world.put("f", b"ours")
    (world.tree.root / "f").write_bytes(b"ours")
    local, remote = world.tree.identify(b"f"), await world.store.head("f")
    assert local is not None
    assert remote is not None
    world.catalog.files.put(base_of("dra-1", b"f", local, remote))
    daemon.served.expect_echo("f", mark.etag)
    return mark


async def test_another_version_of_the_same_bytes_is_no_echo_whichever_is_told_of_first(world: World) -> None:
    """Somebody set metadata (a copy of the object onto itself, its ETag stays) right after we had written it."""
    async with world.daemon() as daemon:
        ours = await exported(world, daemon)
        world.store.outside_put("f", b"ours", metadata={"file-permissions": "0100600"})
        theirs = world.mark("f")
        assert (theirs.etag, theirs.version_id) != (ours.etag, ours.version_id)
        assert theirs.etag == ours.etag

        assert told(world, daemon, created(theirs), created(ours)) == [b"f"]


async def test_our_own_version_is_an_echo_once_it_is_known(world: World) -> None:
    async with world.daemon() as daemon:
        ours = await exported(world, daemon)
        assert told(world, daemon, created(ours), created(ours)) == []


async def test_what_is_deleted_while_a_task_imports_it_does_not_stay_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event comes between the answer that the object is there and the file: nothing here tells of the path yet."""
    async with world.daemon() as daemon:
        intake = Intake(daemon.shared, lambda _: daemon.served)
        world.catalog.associations.put(daemon.served.association)
        world.put("f", b"data")
        head = world.store.head

        async def late(key: str, *, version_id: str | None = None) -> Remote | None:
            answer = await head(key, version_id=version_id)
            if key in world.store.objects:
                world.store.outside_delete(key)
                intake.object_hints(daemon.served, [ObjectHint("bucket", key, is_removal=True)])
            return answer

        monkeypatch.setattr(world.store, "head", late)
        policy = policy_of(daemon.served, exports=frozenset(), imports=COPIES)
        await settle_path(daemon.served, b"f", policy, remote=True)

        assert (world.tree.root / "f").exists()
        assert [entry.path for entry in world.catalog.changelog.pending("dra-1", b"", 100)] == [b"f"]
