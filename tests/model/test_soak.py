"""Anything may happen on both sides, to events, requests, disk, clock and daemon: afterwards the promises hold.

A few worlds that are always the same; `make soak` makes thousands. What it finds goes into `test_regressions.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from model.daemons import Daemons
from model.driver import POLICIES, TROUBLES, WAYS, WORK, plan_of, run
from model.gates import KINDS as REQUESTS
from support.forked import ForkServer
from support.moto_server import MotoServer

LENGTH, TROUBLE = 40, 0.25
SEEDS = (9296, 9855, 10353, 12865)
"""They have all steps, ways, policies, held requests and kinds of worlds between them."""


@pytest.fixture(scope="module")
def with_small_disks(moto: MotoServer, fork_server: ForkServer) -> Iterator[Daemons]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-model-")))
        made = Daemons(moto, fork_server, base, own_disk=True)
        stack.callback(made.close)
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_promises_hold_after_anything(with_small_disks: Daemons, seed: int) -> None:
    run(plan_of(seed, length=LENGTH, trouble=TROUBLE), with_small_disks)


def test_a_seed_always_says_the_same() -> None:
    assert plan_of(SEEDS[0]) == plan_of(SEEDS[0])


def test_these_worlds_have_everything_that_worlds_can_have() -> None:
    plans = [plan_of(seed, length=LENGTH, trouble=TROUBLE) for seed in SEEDS]

    assert {step.name for plan in plans for step in plan.steps} >= {name for _, name, _ in (*WORK, *TROUBLES)}
    assert {plan.way for plan in plans} == set(WAYS)
    assert {plan.policy for plan in plans} == set(POLICIES)
    steps = [step for plan in plans for step in plan.steps if step.name == "change_during"]
    assert {step.arguments["request"] for step in steps} == set(REQUESTS)
    assert any(plan.keeps_clock for plan in plans)
    assert any(plan.exclude for plan in plans)
    assert any(plan.second for plan in plans)
    assert any(plan.by_hand for plan in plans)
