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
from model.driver import WAYS, plan_of, run
from support.forked import ForkServer
from support.moto_server import MotoServer

LENGTH = 40
SEEDS = range(9000, 9006)


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
    run(plan_of(seed, length=LENGTH, trouble=0.25), with_small_disks)


def test_a_seed_always_says_the_same() -> None:
    assert plan_of(SEEDS[0]) == plan_of(SEEDS[0])
    assert {plan_of(seed).way for seed in SEEDS} == set(WAYS)
