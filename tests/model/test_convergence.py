"""Anything may happen on both sides, to the events and to the daemon: afterwards both agree, and nothing is lost.

A real daemon, a real mount, a real S3 API. Three ways of working in the directory, in turn: through the mount, behind
it, and in watch mode. By default a few examples that are always the same; for a long search with other ones:

    FSXSYNC_MODEL_EXAMPLES=500 .venv/bin/pytest tests/model/test_convergence.py

What such a search finds goes into `test_regressions.py`: the failure prints the steps, ready to paste.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from model.daemons import Daemons
from model.world import World

EXAMPLES = int(os.environ.get("FSXSYNC_MODEL_EXAMPLES", "0"))
DEFAULT_EXAMPLES = 6
STEPS = 15

DIRECTORIES = ["d", "d/e", "g"]
FILES = ["a", "b", "ü x", "d/a", "d/b", "d/e/a", "g/a"]
files = st.sampled_from(FILES)
directories = st.sampled_from(DIRECTORIES)
sizes = st.sampled_from([0, 12, 100, 5000, 70_000])
modes = st.sampled_from([0o600, 0o640, 0o755])


class TwoSides(RuleBasedStateMachine):
    """Each rule is one method of the world; what can't be done in its state does nothing."""

    daemons: Daemons
    way: str
    world: World

    @initialize(versioned=st.booleans(), local=st.sets(files), remote=st.sets(files), settled=st.booleans())
    def begin(self, versioned: bool, local: set[str], remote: set[str], settled: bool) -> None:
        made, queue = self.daemons.get(self.way)
        self.world = World(made, self.daemons.moto, self.way, queue, versioned=versioned)
        for path in sorted(local):
            self.world.write(path, 50)
        for path in sorted(remote):
            self.world.put(path, 60)
        if settled:
            self.world.settle()

    # ------------------------------------------------------------- the application

    @rule(path=files, size=sizes)
    def write(self, path: str, size: int) -> None:
        self.world.write(path, size)

    @rule(path=files, size=st.integers(1, 3000))
    def append(self, path: str, size: int) -> None:
        self.world.append(path, size)

    @rule(path=files, size=st.integers(12, 60))
    def truncate(self, path: str, size: int) -> None:
        self.world.truncate(path, size)

    @rule(path=files, size=sizes)
    def replace(self, path: str, size: int) -> None:
        self.world.replace(path, size)

    @rule(path=files)
    def symlink(self, path: str) -> None:
        self.world.symlink(path)

    @rule(path=files, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.world.chmod(path, mode)

    @rule(path=directories, mode=modes)
    def chmod_directory(self, path: str, mode: int) -> None:
        self.world.chmod(path, mode | 0o100)

    @rule(path=files)
    def unlink(self, path: str) -> None:
        self.world.unlink(path)

    @rule(old=files, new=files)
    def rename(self, old: str, new: str) -> None:
        self.world.rename(old, new)

    @rule(old=directories, new=directories)
    def rename_directory(self, old: str, new: str) -> None:
        self.world.rename(old, new)

    @rule(path=directories)
    def mkdir(self, path: str) -> None:
        self.world.mkdir(path)

    @rule(path=directories)
    def rmtree(self, path: str) -> None:
        self.world.rmtree(path)

    @rule(path=files)
    def read(self, path: str) -> None:
        self.world.read(path)

    # ------------------------------------------------------------- the other user of the bucket

    @rule(path=files, size=sizes, mode=st.none() | modes)
    def put(self, path: str, size: int, mode: int | None) -> None:
        self.world.put(path, size, mode=mode)

    @rule(path=files)
    def put_symlink(self, path: str) -> None:
        self.world.put_symlink(path)

    @rule(path=directories, mode=st.none() | modes)
    def put_marker(self, path: str, mode: int | None) -> None:
        self.world.put_marker(path, mode=mode)

    @rule(path=files)
    def delete(self, path: str) -> None:
        self.world.delete(path)

    @rule(path=directories)
    def delete_marker(self, path: str) -> None:
        self.world.delete(path + "/")

    @rule(path=files, mode=modes)
    def change_metadata(self, path: str, mode: int) -> None:
        self.world.change_metadata(path, mode)

    # ------------------------------------------------------------- events and the daemon

    @rule(order=st.sampled_from(["forward", "backward", "double", "stale"]))
    def deliver(self, order: str) -> None:
        self.world.deliver(order)

    @rule()
    def lose_events(self) -> None:
        self.world.lose_events()

    @rule(down=st.booleans())
    def kill(self, down: bool) -> None:
        self.world.kill()
        if not down:
            self.world.start()

    @rule(down=st.booleans())
    def stop(self, down: bool) -> None:
        self.world.stop()
        if not down:
            self.world.start()

    @rule()
    def start(self) -> None:
        self.world.start()

    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None or world.failed:
            self.daemons.drop(self.way)
            return
        try:
            world.settle()
            world.settle_and_read()
            world.end()
        except BaseException:
            self.daemons.drop(self.way)
            raise


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mount", "behind", "watch"])
def test_both_sides_agree_after_anything(daemons: Daemons, way: str) -> None:
    machine = type("TwoSides", (TwoSides,), {"daemons": daemons, "way": way})
    few = EXAMPLES == 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or DEFAULT_EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=few,
            database=None,
            deadline=None,
            print_blob=False,
            # A real daemon is never quite the same twice: the steps that are printed are worth more than shrunk ones.
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
