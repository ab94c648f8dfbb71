"""A task's deletes are held back as a listing's and a scan's are: files count, not the directories around them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import Daemon, World

from fsxsync.model.identity import Kind, base_of
from fsxsync.model.task import Order, Task, TaskType
from fsxsync.sync.task_imports import ImportStage
from fsxsync.sync.task_left import DeletesRefused, DeleteStage
from fsxsync.sync.task_looks import EVERYTHING, ExportStage, policy_of
from fsxsync.sync.tasks import TaskRunner

FILES = [f"d/f{number}" for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def in_sync(world: World, *, marker: bool) -> None:
    """Twelve files in a directory, which has a marker or exists through its keys."""
    directory = world.tree.root / "d"
    directory.mkdir()
    if marker:
        world.store.outside_put("d/")
    for name in FILES:
        world.stub(name, b"data")
    for name, key in [("d", "d/"), *((name, name) for name in FILES)]:
        local, remote = world.tree.identify(name.encode()), await world.store.head(key)
        assert local is not None
        world.catalog.files.put(base_of("dra-1", name.encode(), local, remote))


async def deletes_of(daemon: Daemon, stage: ExportStage | ImportStage, *, remote: bool) -> DeleteStage:
    """What comes after a stage that has found what is gone."""
    kind = TaskType.IMPORT if remote else TaskType.EXPORT
    task, catalog = Task("task-1", Order(kind, deletes=True), 0), daemon.shared.catalog
    catalog.tasks.add(task)
    async for batch in stage.batches(b""):
        catalog.tasks.add_gone(task.id, 0, batch.gone)
    policy = policy_of(daemon.served, exports=EVERYTHING, imports=EVERYTHING)
    return DeleteStage(daemon.served, task, 0, [b""], policy, remote=remote)


@pytest.mark.parametrize("marker", [True, False])
async def test_a_task_believes_no_listing_without_files(world: World, *, marker: bool) -> None:
    await in_sync(world, marker=marker)
    for name in FILES:
        world.store.outside_delete(name)
    async with world.daemon() as daemon:
        policy = policy_of(daemon.served, exports=frozenset(), imports=EVERYTHING)
        stage = await deletes_of(daemon, ImportStage(daemon.served, [b""], policy, deletes=True), remote=True)

        with pytest.raises(DeletesRefused, match="the listing is empty"):
            stage.check()

        world.store.outside_put("other", b"somebody's")  # one key of a file, known or not, lifts it
        local = world.tree.identify(b"d")
        other = await world.store.head("other")
        assert local is not None
        assert other is not None
        world.catalog.files.put(base_of("dra-1", b"other", local._replace(kind=Kind.FILE), other))
        stage.check()


@pytest.mark.parametrize("marker", [True, False])
async def test_a_task_believes_no_tree_without_files(world: World, *, marker: bool) -> None:
    """A disk that is not mounted: where it was there is an empty directory."""
    await in_sync(world, marker=marker)
    for name in FILES:
        (world.tree.root / name).unlink()
    async with world.daemon() as daemon:
        policy = policy_of(daemon.served, exports=EVERYTHING, imports=frozenset())
        stage = await deletes_of(daemon, ExportStage(daemon.served, [b""], policy, deletes=True), remote=False)

        with pytest.raises(DeletesRefused, match="no file is left in the tree, and 12 were known"):
            stage.check()


async def test_what_a_task_was_believed_before_a_restart_it_is_believed_after(world: World) -> None:
    """Half of its deletes are done, and what is left of the rows makes the other half look like everything."""
    await in_sync(world, marker=False)
    for name in FILES[:11]:
        world.store.outside_delete(name)
    async with world.daemon() as daemon:
        world.catalog.associations.put(daemon.served.association)
        policy = policy_of(daemon.served, exports=frozenset(), imports=EVERYTHING)
        stage = await deletes_of(daemon, ImportStage(daemon.served, [b""], policy, deletes=True), remote=True)
        stage.check()
        for name in (*FILES[:5], FILES[11]):  # the last one was removed by somebody else meanwhile
            world.catalog.files.delete("dra-1", name.encode())
        runner = TaskRunner(daemon.shared, daemon.shared.served, daemon.hydrator, trio.lowlevel.checkpoint)

        await runner._run_stage("task-1", 1, stage, FILES[5].encode())

        assert not [name for name in FILES[6:10] if (world.tree.root / name).exists()]
