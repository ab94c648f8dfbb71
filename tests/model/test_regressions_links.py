"""Files with several names or names that changed, and what long searches found of them: see `test_regressions`."""

from __future__ import annotations

import os

import pytest
from model.conftest import world_of
from model.daemons import Daemons
from model.world import World


def test_a_new_name_of_a_released_file_that_was_cut_stayed_empty(behind: World) -> None:
    """Its writer's daemon died between the cut and the end of the mark. The object was copied to the new name's key,
    and the row took the empty file for it."""
    behind.put("d/a", 5000)
    behind.settle()
    behind.link("d/a", "d/b")
    behind.stop()
    os.truncate(behind.behind / "d" / "b", 0)
    behind.settle()
    assert {"d/a", "d/b"} <= set(behind.objects())
    behind.settle_and_read()


def test_what_was_done_by_a_name_that_is_gone_was_not_exported_by_the_other(watch: World) -> None:
    """inotify told of the name that the mode was changed by, and another file stood there when it was looked at."""
    watch.write("d/b", 70_000)
    watch.link("d/b", "d/e/a")
    watch.settle()
    watch.chmod("d/b", 0o600)
    watch.replace("d/b", 12)
    watch.settle()


@pytest.mark.parametrize("versioned", [False, True])
def test_a_file_whose_predecessor_was_lost_under_another_name_was_never_exported(
    daemons: Daemons, *, versioned: bool
) -> None:
    """Its export waited for the copy of an object that somebody else had overwritten."""
    with world_of("mount", daemons, versioned=versioned, options={"on_conflict": "local"}) as world:
        world.put("g/a", 100)
        world.settle()
        world.rename("g/a", "d/b")
        world.put("g/a", 0)
        world.replace("g/a", 60)
        world.settle()
