"""What an event says of an object, held against what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.model.identity import Remote
from fsxsync.ports import ObjectHint
from fsxsync.sync.intake import Intake
from fsxsync.sync.task_looks import COPIES, policy_of, settle_path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, versioned=True)
    yield made
    made.close()


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
