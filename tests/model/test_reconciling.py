"""A RECONCILE task alone brings both sides together, also if the daemon dies in its middle, whenever that is.

Here nothing is done by itself in either direction, so that all there is to do is the task's. The moments of a first
round are counted, and then the daemon dies at each of them (at every seventh without FSXSYNC_MODEL_EXAMPLES).
"""

from __future__ import annotations

import os

import pytest
from model.conftest import world_of
from model.daemons import Daemons
from model.world import World

BY_HAND = {"import": [], "export": []}
LONG = bool(os.environ.get("FSXSYNC_MODEL_EXAMPLES"))
STEP = 1 if LONG else 41


def differ(world: World, at: str) -> None:
    """Below a directory, all that can have happened to a path on one side or on both since they agreed."""
    for name in ("changed", "changed-here", "changed-there", "edit-here", "edit-there", "gone-here", "gone-there"):
        world.write(f"{at}/{name}", 100)
    for name in ("chmod", "old", "same", "twice-gone", "emptied/x", "moved/x", "moved/y"):
        world.put(f"{at}/{name}", 90)
    world.symlink(f"{at}/link")
    world.mkdir(f"{at}/rmdir")
    world.agree()

    for name in ("changed", "changed-here", "edit-here"):
        world.replace(f"{at}/{name}", 200)
    for name in ("changed", "changed-there", "edit-there"):
        world.put(f"{at}/{name}", 300)
    for name in ("gone-here", "edit-there", "twice-gone", "link", "emptied/x"):
        world.unlink(f"{at}/{name}")
    for name in ("gone-there", "edit-here", "twice-gone"):
        world.delete(f"{at}/{name}")
    world.write(f"{at}/new", 60)
    world.put(f"{at}/new", 70)
    world.write(f"{at}/z-last", 60)
    world.write(f"{at}/new-here/x", 60)
    world.put(f"{at}/new-there/x", 70)
    world.put_marker(f"{at}/made-there", mode=0o700)
    world.chmod(f"{at}/chmod", 0o600)
    world.rename(f"{at}/old", f"{at}/renamed")
    world.rename(f"{at}/moved", f"{at}/elsewhere")
    world.rmtree(f"{at}/rmdir")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["behind", "watch"] if LONG else ["behind"])
def test_a_reconcile_is_the_same_whenever_the_daemon_dies(daemons: Daemons, way: str) -> None:
    with world_of(way, daemons, options=BY_HAND) as world:
        differ(world, "r0")
        before = len(world.crash.seen())
        world.agree()
        moments = len(world.crash.seen()) - before
        for at in range(1, moments, STEP):
            differ(world, f"r{at}")
            world.agree(moments=at)
            world.rmtree(f"r{at}")
        world.settle_and_read()


def test_a_whole_reconcile_keeps_each_conflict_once(daemons: Daemons) -> None:
    with world_of("behind", daemons, options=BY_HAND) as world:
        differ(world, "r")

        world.agree()

        assert sorted(path.partition(".")[0] for path in world.conflict_copies()) == ["r/changed", "r/new"]
        assert {"r/edit-here", "r/edit-there", "r/renamed", "r/elsewhere/x", "r/emptied/"} <= world.objects().keys()
        world.settle_and_read()


@pytest.mark.parametrize("task", ["export_task", "reconcile"])
def test_a_directory_whose_last_object_a_task_deleted_stayed_here_alone(daemons: Daemons, task: str) -> None:
    """It was there through its keys, and got no marker where the association itself exports nothing."""
    with world_of("behind", daemons, options=BY_HAND) as world:
        world.put("d/e/a", 100)
        world.agree()
        world.unlink("d/e/a")

        getattr(world, task)("", **({"deletes": True} if task == "export_task" else {}))
        world.agree()

        assert sorted(world.objects()) == ["anchor", "d/e/"]
        world.settle_and_read()


@pytest.mark.parametrize("restart", [False, True])
def test_a_released_file_that_was_renamed_lost_its_data_when_a_task_took_its_old_object(
    daemons: Daemons, *, restart: bool
) -> None:
    """Its new name lies outside of what the task is about, and nothing exports it before."""
    with world_of("behind", daemons, options=BY_HAND) as world:
        for name in ("deleted", "overwritten", "described"):
            world.put(f"d/{name}", 100)
        world.agree()
        for name in ("deleted", "overwritten", "described"):
            world.rename(f"d/{name}", f"moved/{name}")
        world.write("d/overwritten", 200)
        world.change_metadata("d/described", 0o600)
        if restart:
            world.stop()
        world.start()
        world.client.wait(world.name.encode(), 30)

        world.export_task("d/overwritten", deletes=False)
        world.export_task("d/deleted", deletes=True)
        world.reconcile("d/described")
        world.agree()

        assert [world.mark(f"moved/{name}") for name in ("deleted", "overwritten")] == [None, None]
        world.settle_and_read()


def test_a_reconcile_refused_what_lies_below_the_name_of_a_file_that_was_removed(daemons: Daemons) -> None:
    """Its object was in the way of the import, and is deleted later in the same task."""
    with world_of("behind", daemons, options=BY_HAND) as world:
        world.write("d", 100)
        world.agree()
        world.unlink("d")
        world.put("d/there", 70)

        world.agree()

        assert sorted(world.tree()) == ["anchor", "d/", "d/there"]
        world.settle_and_read()


def test_a_renamed_file_of_which_the_bucket_has_a_version_only_stayed_here_alone(daemons: Daemons) -> None:
    """Somebody deleted the object of its old name before a task came."""
    with world_of("behind", daemons, versioned=True, options=BY_HAND) as world:
        world.put("a", 100)
        world.agree()
        world.rename("a", "b")
        world.delete("a")

        world.agree()

        assert sorted(world.objects()) == ["anchor", "b"]
        world.settle_and_read()


@pytest.mark.parametrize("task", ["export_task", "reconcile"])
def test_a_released_file_that_was_renamed_and_copied_by_a_task_stays_released(daemons: Daemons, task: str) -> None:
    """It was loaded when its old object went, though it had its own by then."""
    with world_of("behind", daemons, options=BY_HAND) as world:
        world.put("d/a", 100)
        world.agree()
        world.rename("d/a", "d/b")
        world.start()
        world.client.wait(world.name.encode(), 30)

        getattr(world, task)("", **({"deletes": True} if task == "export_task" else {}))
        world.agree()

        assert sorted(world.objects()) == ["anchor", "d/b"]
        assert world.mark("d/b") is not None
        world.settle_and_read()


def test_a_clash_that_a_reconcile_met_was_forgotten_with_the_daemon(daemons: Daemons) -> None:
    """The look after the restart had nothing to import, and took the path for one where nothing is wrong."""
    with world_of("mount", daemons, versioned=True, options=BY_HAND) as world:
        world.put("d", 5000)
        world.settle()
        world.put_parts("d/a/x", [5000, 5000, 70])
        world.reconcile("d/e")
        world.agree("", moments=8)
        assert world.client.status()["associations"][0]["errors"] == 1
