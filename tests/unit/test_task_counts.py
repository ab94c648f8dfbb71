"""What tasks count, each path once, with a total that is about right from the beginning; and what dry runs foresee."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from support.hydrating import Daemon, World

from fsxsync._core import xxh3_128
from fsxsync.catalog.tasks import Tasks
from fsxsync.model.association import Lifecycle
from fsxsync.model.flags import NAMES, XATTRS
from fsxsync.model.task import Order, Task, TaskType
from fsxsync.sync.filters import Filters
from fsxsync.sync.task_data import ReleaseStage, RestoreStage
from fsxsync.sync.task_reconcile import Both, ReconcileStage
from fsxsync.sync.tasks import TaskRunner


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[tuple[Daemon, TaskRunner]]:
    """A daemon that does what tasks tell it, and nothing by itself."""

    async def upload(store: Any, key: str, fd: int, size: int, headers: Any, **more: Any) -> tuple[Any, bytes]:
        body = os.pread(fd, size, 0)
        written = await store.put(key, body, headers, replaces=more["replaces"])
        return written, xxh3_128(body)

    async with world.daemon() as daemon, trio.open_nursery() as nursery:
        daemon.mover.upload = upload  # type: ignore[method-assign,assignment]
        daemon.served.association = replace(daemon.served.association, lifecycle=Lifecycle.AVAILABLE)
        daemon.served.listing_believed = daemon.served.tree_believed = True
        world.catalog.associations.put(daemon.served.association)
        runner = TaskRunner(daemon.shared, daemon.shared.served, daemon.hydrator, trio.lowlevel.checkpoint)
        nursery.start_soon(runner.run)
        yield daemon, runner
        nursery.cancel_scope.cancel()


async def ended(runner: TaskRunner, kind: TaskType, **order: Any) -> Task:
    return await end_of(runner, runner.create(Order(kind, **order)).id)


async def end_of(runner: TaskRunner, task_id: str) -> Task:
    with trio.fail_after(20):
        while not (task := runner.get(task_id)).lifecycle.has_ended:  # noqa: ASYNC110  a task tells nobody
            await trio.sleep(0.01)
    return task


def counts(task: Task) -> tuple[int, int, int]:
    return task.counts.succeeded, task.counts.failed, task.counts.total


async def test_a_reconcile_counts_what_both_sides_have_once(world: World) -> None:
    (world.tree.root / "d").mkdir()
    for name in ("both", "gone-there", "gone-here", "edited-here", "edited-there", "edited-and-gone"):
        (world.tree.root / "d" / name).write_bytes(b"data")
    async with running(world) as (_, runner):
        assert counts(await ended(runner, TaskType.RECONCILE)) == (7, 0, 7)
        assert counts(await ended(runner, TaskType.RECONCILE, paths=("d",))) == (7, 0, 7)
        assert counts(await ended(runner, TaskType.RECONCILE, paths=("d/both", "d/gone-here"))) == (2, 0, 2)

        for name in ("edited-here", "edited-and-gone", "new-here"):
            (world.tree.root / "d" / name).write_bytes(b"edited here")
        (world.tree.root / "d" / "gone-here").unlink()
        world.store.outside_put("d/edited-there", b"edited there")
        for name in ("gone-there", "edited-and-gone"):
            world.store.outside_delete(f"d/{name}")
        world.store.outside_put("d/new-there", b"new there")
        assert counts(await ended(runner, TaskType.RECONCILE)) == (9, 0, 9)

    left = {"d/", *(f"d/{one}" for one in ("both", "edited-here", "edited-there", "edited-and-gone"))}
    assert set(world.store.objects) == left | {"d/new-here", "d/new-there"}
    assert {path.name for path in (world.tree.root / "d").iterdir()} == {
        key.removeprefix("d/") for key in world.store.objects if key != "d/"
    }


async def test_what_fails_in_a_reconcile_fails_once(world: World) -> None:
    (world.tree.root / "fine").write_bytes(b"data")
    (world.tree.root / "no utf-8 \udcff").write_bytes(b"data")
    world.store.outside_put("not//a/path", b"data")
    async with running(world) as (_, runner):
        task = await ended(runner, TaskType.RECONCILE)

        assert counts(task) == (1, 2, 3)
        assert sorted(one.path for one in runner.failures(task.id)) == [b"no utf-8 \xff", b"not//a/path"]


async def test_a_reconcile_exports_what_a_conflict_kept(world: World) -> None:
    (world.tree.root / "f").write_bytes(b"data")
    async with running(world) as (_, runner):
        await ended(runner, TaskType.RECONCILE)
        (world.tree.root / "f").write_bytes(b"edited here")
        world.store.outside_put("f", b"edited there")

        task = await ended(runner, TaskType.RECONCILE)

        assert counts(task) == (2, 0, 2)
        assert sorted(made.body for made in world.store.objects.values()) == [b"edited here", b"edited there"]


async def test_a_reconcile_exports_what_a_conflict_kept_before_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is done once more: both sides of the path agree by then, and the copy's name comes before its first."""
    (world.tree.root / "a.txt").write_bytes(b"data")
    async with running(world) as (daemon, runner):
        task = await ended(runner, TaskType.RECONCILE)
        (world.tree.root / "a.txt").write_bytes(b"edited here")
        world.store.outside_put("a.txt", b"edited there")
        policy = daemon.served.association.policy

        async def look_at_all() -> None:
            stage = ReconcileStage(daemon.served, task, b"", policy, exports_at=2, deletes_at=3, again_at=4)
            async with aclosing(stage.batches(b"a.d")) as batches:
                async for batch in batches:
                    await stage.perform(batch, lambda: True)

        noted, add_gone = list[Any](), Tasks.add_gone

        def note(tasks: Tasks, task_id: str, stage: int, paths: Any) -> None:
            noted.append(paths)
            if len(noted) == 3:
                raise RuntimeError  # kill -9, once the conflict is settled
            add_gone(tasks, task_id, stage, paths)

        monkeypatch.setattr(Tasks, "add_gone", note)
        with pytest.raises(RuntimeError):
            await look_at_all()
        assert not world.catalog.tasks.gone(task.id, 2, b"", 10)
        await look_at_all()

        [copy] = [path for path in world.tree.root.iterdir() if path.name not in {"a.txt", ".fsxsync"}]
        assert copy.read_bytes() == b"edited here"
        assert world.catalog.tasks.gone(task.id, 2, b"", 10) == [os.fsencode(copy.name)]


async def test_a_reconcile_believes_no_empty_listing_though_there_are_files_to_export(world: World) -> None:
    for number in range(12):
        (world.tree.root / f"f{number}").write_bytes(b"data")
    async with running(world) as (_, runner):
        await ended(runner, TaskType.RECONCILE)
        for key in list(world.store.objects):
            world.store.outside_delete(key)
        (world.tree.root / "new").write_bytes(b"data")

        task = await ended(runner, TaskType.RECONCILE)

        assert "the listing is empty, and 12 objects were known" in task.failure
        assert len(list(world.tree.root.iterdir())) == 13


async def test_a_dry_run_of_a_reconcile_names_each_path_once(world: World) -> None:
    for name in ("quiet", "edited", "both", "gone-here", "gone-there"):
        (world.tree.root / name).write_bytes(b"data")
    async with running(world) as (_, runner):
        await ended(runner, TaskType.RECONCILE)
        for name in ("edited", "both"):
            (world.tree.root / name).write_bytes(b"edited here")
        for name in ("new-there", "both"):
            world.store.outside_put(name, b"edited there")
        (world.tree.root / "gone-here").unlink()
        world.store.outside_delete("gone-there")

        planned = [(one.path, one.action) async for one in runner.plan(Order(TaskType.RECONCILE))]

    assert sorted(planned) == [
        (b"both", "compare"),
        (b"edited", "export"),
        (b"gone-here", "delete object"),
        (b"gone-there", "delete file"),
        (b"new-there", "import"),
    ]


async def test_an_export_knows_from_the_beginning_how_much_there_is(world: World) -> None:
    (world.tree.root / "d").mkdir()
    for number in range(6):
        (world.tree.root / "d" / f"f{number}").write_bytes(b"data")
    (world.tree.root / "d" / "f.tmp").write_bytes(b"left out")
    (world.tree.root / "elsewhere").write_bytes(b"data")
    begun, go_on = trio.Event(), trio.Event()
    async with running(world) as (daemon, runner):
        daemon.served.filters = Filters(replace(daemon.served.association, exclude=("*.tmp",)))
        put = world.store.put

        async def held(*args: Any, **more: Any) -> Any:
            begun.set()
            await go_on.wait()
            return await put(*args, **more)

        world.store.put = held  # type: ignore[method-assign]
        task = runner.create(Order(TaskType.EXPORT, paths=("d",)))
        await begun.wait()
        assert counts(runner.get(task.id)) == (0, 0, 7)
        runner.cancel(task.id)
        go_on.set()
        cancelled = await end_of(runner, task.id)
        assert 0 < cancelled.counts.succeeded <= cancelled.counts.total == 7

        assert counts(await ended(runner, TaskType.EXPORT, paths=("d",))) == (7, 0, 7)


async def test_a_release_and_a_restore_count_no_directories(world: World) -> None:
    for name in ("d", "d/e", "d/e/f"):
        (world.tree.root / name).mkdir()
    for name in ("d/one", "d/e/two"):
        (world.tree.root / name).write_bytes(b"data")
    async with running(world) as (daemon, runner):
        await ended(runner, TaskType.EXPORT)
        order = Order(TaskType.RELEASE, ("d",), owner_uid=os.getuid())
        task = Task("task-1", order, 0)
        release = ReleaseStage(daemon.served, [b"d"], task)
        for stage in (release, RestoreStage(daemon.served, [b"d"], task, daemon.hydrator)):
            assert await stage.estimate(lambda: True) == 2
        others = ReleaseStage(daemon.served, [b""], Task("task-1", replace(order, owner_uid=12345), 0))
        assert await others.estimate(lambda: True) == 0


async def plan(runner: TaskRunner, kind: TaskType) -> list[tuple[bytes, str, str]]:
    return [(one.path, one.action, one.code) async for one in runner.plan(Order(kind))]


async def test_a_dry_run_of_an_export_refuses_what_the_export_will_refuse(world: World) -> None:
    for name in ("fine", "no utf-8 \udcff", "never", "mode-only"):
        (world.tree.root / name).write_bytes(b"data")
    os.mkfifo(world.tree.root / "fifo")
    async with running(world) as (_, runner):
        await ended(runner, TaskType.EXPORT, paths=("mode-only",))
        for name in ("never", "mode-only"):
            os.setxattr(world.tree.root / name, XATTRS[NAMES.index("noarchive")], b"1")
        (world.tree.root / "mode-only").chmod(0o600)

        planned = await plan(runner, TaskType.EXPORT)

        task = await ended(runner, TaskType.EXPORT)
        refused = [(one.path, "refuse", one.code) for one in runner.failures(task.id)]
    assert len(refused) == 3
    assert sorted(planned) == sorted([*refused, (b"fine", "export", ""), (b"mode-only", "export", "")])


async def test_a_dry_run_of_an_import_names_an_archived_object_once(world: World) -> None:
    world.store.outside_put("archived", b"data", storage_class="GLACIER", archived=True)
    world.store.outside_put("not//a/path", b"data")
    async with running(world) as (daemon, runner):
        assert await plan(runner, TaskType.IMPORT) == [
            (b"not//a/path", "refuse", "S3ObjectPathNotPosixCompliant"),
            (b"archived", "import", "S3ObjectInUnsupportedTier"),
        ]
        assert counts(await ended(runner, TaskType.IMPORT)) == (1, 1, 2)
        world.store.outside_put("archived", b"again", storage_class="GLACIER", archived=True)
        daemon.shared.eager = True
        assert (b"archived", "refuse", "S3ObjectInUnsupportedTier") in await plan(runner, TaskType.IMPORT)


async def test_a_reconcile_that_is_gone_on_with_after_a_restart_counts_the_rest(world: World) -> None:
    """Whatever was the last path: one of the tree, of the listing, or of both."""
    (world.tree.root / "d").mkdir()
    for number in range(700):
        (world.tree.root / "d" / f"{2 * number:04d}").write_bytes(b"")
        world.store.outside_put(f"d/{3 * number:04d}", b"data")
    every = 1 + len({2 * number for number in range(700)} | {3 * number for number in range(700)})
    async with running(world) as (daemon, _):
        task, policy = Task("task-1", Order(TaskType.RECONCILE), 0), daemon.served.association.policy
        stage = ReconcileStage(daemon.served, task, b"", policy, exports_at=2, deletes_at=3, again_at=4)
        done, after = 0, b""
        for _ in range(10):
            async with aclosing(stage.batches(after)) as batches:
                async for batch in batches:
                    assert isinstance(batch, Both)
                    done, after = done + batch.seen, batch.after
                    break  # the daemon is killed
        assert (done, after) == (every, b"d/2097")
