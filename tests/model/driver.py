"""Worlds made of a number: what is done in each, one after the other, written down, done again, and made shorter.

A seed says all that is *done*. What comes of it also depends on when: a daemon is never quite the same twice. So a
failure keeps its steps, and is looked for again several times.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from model.daemons import Daemons
from model.deciding import KEEPS
from model.faulty_store import KINDS
from model.gates import MOMENTS
from model.meddling import CHANGES
from model.task_steps import TYPES
from model.world import World

# ruff: noqa: S311  nothing here is a secret

WAYS = ("mount", "behind", "watch")
BY_HAND = (("import",), ("export",), ("import", "export"))
POLICIES = ("keep-both", "local", "remote", "newest")


class Names(NamedTuple):
    files: list[str]
    directories: list[str]


APART = Names(["a", "b", "ü x", "d/a", "d/b", "d/e/a", "g/a"], ["d", "d/e", "g"])
CLASHING = Names([*APART.files, "d", "d/e", "g", "a/x", "d/a/x"], [*APART.directories, "a", "d/a"])
"""The same name is a file's here and a directory's there."""
PARTS = [[12], [100, 50], [5000], [5000, 5000, 70], [100_000, 60_000]]
"""Sizes of parts."""
SIZES = [0, 12, 100, 5000, 70_000, 200_000]
MODES = [0o600, 0o640, 0o755]
OWNERS = [0, 1000, 1001]
SAID = [None, None, *OWNERS]
"""By objects."""
LARGE = (5 << 20) + 70_000
"""Two parts of ours."""
LENGTH = 60
"""Steps of a world."""


@dataclass(frozen=True)
class Step:
    """A method of `World`, and what it is called with."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    is_in_second: bool = False

    def __str__(self) -> str:
        where = "world.second" if self.is_in_second else "world"
        return f"{where}.{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@dataclass(frozen=True)
class Plan:
    """All that is done in one world."""

    seed: int
    way: str
    versioned: bool
    steps: tuple[Step, ...]
    policy: str = POLICIES[0]
    keeps_clock: bool = False
    exclude: tuple[str, ...] = ()
    """Names that take no part."""
    second: str = ""
    """The policy of a second association; '': there is none."""
    by_hand: tuple[str, ...] = ()
    """Directions (``import``, ``export``) that are left to tasks."""

    def save(self, path: Path, error: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**asdict(self), "error": error}, indent=1)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        document = json.loads(path.read_text(encoding="utf-8"))
        steps = tuple(Step(**step) for step in document["steps"])
        rest = {name: document[name] for name in ("policy", "keeps_clock", "second") if name in document}
        exclude = tuple(document.get("exclude", ()))
        by_hand = tuple(document.get("by_hand", ()))
        made = cls(document["seed"], document["way"], document["versioned"], steps, **rest)
        return replace(made, exclude=exclude, by_hand=by_hand)


def _pick(rng: random.Random, **choices: Sequence[Any]) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in choices.items()}


def _change_during(rng: random.Random, names: Names) -> dict[str, Any]:
    request = rng.choice(["PUT", "PUT", "PUT", "COPY", "COPY", "GET", "GET", "COMPLETE"])
    in_parts = request == "COMPLETE" or (request == "PUT" and rng.random() < 0.15)
    return {
        "request": request,
        **_pick(rng, path=names.files, other=names.files, moment=MOMENTS, how=list(CHANGES)),
        "size": LARGE if in_parts else rng.choice([100, 5000, 200_000]),
    }


MOMENTS_AFTER = [0, 0, *range(1, 40)]
"""Steps after which a daemon dies in the middle of a task; 0: it does not."""
Maker = Callable[[random.Random, Names], dict[str, Any]]
WORK: list[tuple[int, str, Maker]] = [
    # the application
    (10, "write", lambda r, n: _pick(r, path=n.files, size=SIZES)),
    (5, "append", lambda r, n: {"path": r.choice(n.files), "size": r.randint(1, 3000)}),
    (3, "truncate", lambda r, n: {"path": r.choice(n.files), "size": r.randint(12, 60)}),
    (3, "rewrite", lambda r, n: _pick(r, path=n.files)),
    (5, "replace", lambda r, n: _pick(r, path=n.files, size=SIZES)),
    (2, "symlink", lambda r, n: _pick(r, path=n.files)),
    (2, "link", lambda r, n: _pick(r, old=n.files, new=n.files)),
    (3, "chmod", lambda r, n: _pick(r, path=n.files, mode=MODES)),
    (2, "chmod", lambda r, n: _pick(r, path=n.directories, mode=[0o700, 0o755])),
    (2, "chown", lambda r, n: _pick(r, path=[*n.files, *n.directories], uid=OWNERS, gid=OWNERS)),
    (2, "utime", lambda r, n: _pick(r, path=[*n.files, *n.directories], when=["past", "future"])),
    (5, "unlink", lambda r, n: _pick(r, path=n.files)),
    (7, "rename", lambda r, n: _pick(r, old=n.files, new=n.files)),
    (3, "rename", lambda r, n: _pick(r, old=n.directories, new=n.directories)),
    (2, "mkdir", lambda r, n: _pick(r, path=n.directories)),
    (2, "rmtree", lambda r, n: _pick(r, path=n.directories)),
    (6, "read", lambda r, n: _pick(r, path=n.files)),
    (4, "release", lambda r, n: _pick(r, path=[*n.files, *n.directories, ""])),
    (2, "restore", lambda r, n: _pick(r, path=[*n.files, *n.directories, ""])),
    (2, "export_task", lambda r, n: _pick(r, path=[*n.files, *n.directories, ""], deletes=[True, False])),
    (2, "import_task", lambda r, n: _pick(r, path=[*n.files, *n.directories, ""], deletes=[True, False])),
    (3, "reconcile", lambda r, n: _pick(r, path=[*n.files, *n.directories, "", ""])),
    (2, "cancel_task", lambda r, n: _pick(r, kind=TYPES, path=[*n.directories, ""], requests=[0, 1, 2, 3, 5, 8])),
    (4, "agree", lambda r, n: _pick(r, path=[*n.files, *n.directories, *[""] * 10], moments=MOMENTS_AFTER)),
    (2, "grow", lambda r, n: _pick(r, path=n.files, pieces=[3, 8], piece=[12, 5000, 20_000])),
    # the other user of the bucket
    (10, "put", lambda r, n: _pick(r, path=n.files, size=SIZES, mode=[None, *MODES], owner=SAID)),
    (3, "put_parts", lambda r, n: _pick(r, path=n.files, sizes=PARTS, mode=[None, *MODES], owner=SAID)),
    (1, "put_symlink", lambda r, n: _pick(r, path=n.files)),
    (1, "put_marker", lambda r, n: _pick(r, path=n.directories, mode=[None, 0o700, 0o755], owner=SAID)),
    (4, "delete", lambda r, n: _pick(r, path=n.files)),
    (1, "delete", lambda r, n: {"path": r.choice(n.directories) + "/"}),
    (3, "change_metadata", lambda r, n: _pick(r, path=n.files, mode=MODES, owner=SAID)),
    # both
    (3, "move_over", lambda r, n: _pick(r, old=[*n.files, *n.directories], new=n.files, back=[True, False])),
    (3, "race", lambda r, n: _pick(r, path=n.files, size=SIZES)),
    (4, "change_during", _change_during),
    (4, "resolve", lambda r, _: {"which": r.randint(0, 5), "keep": r.choice(KEEPS)}),
    # events
    (8, "deliver", lambda r, _: _pick(r, order=["forward", "backward", "shuffled", "double", "stale"])),
    (1, "lose_events", lambda *_: {}),
]
_TASKS = {"release", "restore", "export_task", "import_task", "reconcile", "cancel_task", "agree"}
_OF_THE_FIRST = _TASKS | {"resolve", "change_during", "move_over", "deliver", "lose_events"}
BESIDE = frozenset(name for _, name, _ in WORK) - _OF_THE_FIRST
"""Steps that may be taken in a second association, too."""
TROUBLES: list[tuple[int, str, Maker]] = [
    (2, "kill", lambda *_: {}),
    (1, "stop", lambda *_: {}),
    (6, "start", lambda *_: {}),
    (6, "die", lambda r, _: {"moments": r.randint(1, 80)}),
    (
        8,
        "fail",
        lambda r, _: _pick(r, kind=KINDS, method=["", "PUT", "GET", "HEAD", "DELETE", "POST"], count=[1, 1, 2, 6]),
    ),
    (1, "go_down", lambda *_: {}),
    (3, "heal", lambda *_: {}),
    (1, "fill", lambda *_: {}),
    (1, "jump", lambda r, _: _pick(r, hours=[-26, -1, 1, 26])),
    (1, "flood", lambda r, n: {"paths": r.choices(n.files, k=3)}),
    (1, "write", lambda r, n: {"path": r.choice(n.files), "size": (5 << 20) + r.randint(0, 1 << 20)}),
]


def plan_of(seed: int, *, length: int = LENGTH, trouble: float = 0.18) -> Plan:
    """What a seed says. Every other world is in trouble now and then, the rest have it all the time or never. In every
    third one files and directories want the same names."""
    rng = random.Random(seed)
    way = WAYS[seed % len(WAYS)]
    policy = rng.choice((*POLICIES, POLICIES[0]))
    second = rng.choice(POLICIES) if rng.random() < 0.2 else ""
    names = CLASHING if rng.random() < 1 / 3 else APART
    share = rng.choice([0, trouble, trouble, 2 * trouble])
    steps = [
        Step(name, _pick(rng, path=names.files, size=SIZES), bool(second) and rng.random() < 0.5)
        for name in rng.choices(["write", "put"], k=rng.randint(0, 6))
    ]
    if rng.random() < 0.7:
        steps.append(Step("settle"))
    while len(steps) < length:
        table = TROUBLES if rng.random() < share else WORK
        _, name, make = rng.choices(table, weights=[weight for weight, _, _ in table])[0]
        steps.append(Step(name, make(rng, names), bool(second) and name in BESIDE and rng.random() < 0.4))
        if rng.random() < 0.09:
            steps.append(Step("settle"))
    is_versioned, keeps_clock = rng.random() < 0.85, rng.random() < 0.5
    exclude = ("b",) if rng.random() < 0.15 else ()
    by_hand = rng.choice(BY_HAND) if rng.random() < 0.2 else ()
    steps.append(Step("settle_and_read"))
    return Plan(seed, way, is_versioned, tuple(steps), policy, keeps_clock, exclude, second, by_hand)


def run(plan: Plan, daemons: Daemons, *, keep: Path | None = None) -> None:
    """Do what the plan says, and look at the promises. ``keep``: a directory for the daemon's event log and catalog, as
    they were when one did not hold.

    Raises:
        AssertionError: one does not hold. Whatever else went wrong.
    """
    world: World | None = None
    try:
        daemon = daemons.get(plan.way)
        options: dict[str, Any] = {"on_conflict": plan.policy, "exclude": list(plan.exclude)}
        options |= {direction: [] for direction in plan.by_hand}
        world = World(
            daemon,
            daemons.moto,
            plan.way,
            versioned=plan.versioned,
            options=options,
            keeps_clock=plan.keeps_clock,
        )
        if plan.second:
            beside = {"on_conflict": plan.second}
            world.join(World(daemon, daemons.moto, plan.way, versioned=plan.versioned, options=beside, beside=world))
        for step in plan.steps:
            getattr(world.second if step.is_in_second and world.second else world, step.name)(**step.arguments)
        world.end()
    except BaseException:
        if keep is not None and world is not None:
            _keep(world.made.state_dir, keep)
        daemons.drop(plan.way)
        raise


def _keep(state: Path, into: Path) -> None:
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for file in [*state.glob("catalog.db*"), *state.glob("events*")]:
        shutil.copy(file, into)


def shorten(plan: Plan, daemons: Daemons, *, minutes: float, failing: str = "", tries: int = 2) -> Plan:
    """A plan with fewer steps that fails too, with ``failing`` in its error: what can be left out is, halves first."""
    deadline = time.monotonic() + minutes * 60

    def fails(steps: tuple[Step, ...]) -> bool:
        for _ in range(tries):
            try:
                run(replace(plan, steps=steps), daemons)
            except Exception as error:  # noqa: BLE001  any failure may be the one
                if failing in str(error):
                    return True
            if time.monotonic() > deadline:
                break
        return False

    steps, size = plan.steps, len(plan.steps) // 2
    while size >= 1 and time.monotonic() < deadline:
        at = 0
        while at < len(steps) and time.monotonic() < deadline:
            fewer = steps[:at] + steps[at + size :]
            if fewer and fails(fewer):
                steps = fewer
            else:
                at += size
        size //= 2
    return replace(plan, steps=steps)
