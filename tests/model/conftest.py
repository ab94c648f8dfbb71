"""One object store for all, and daemons that many worlds share until something goes wrong in one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from model.daemons import SMALL_PARTS, Daemons
from model.world import World
from support import forked
from support.forked import ForkServer
from support.moto_server import MotoServer


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    with MotoServer(SMALL_PARTS) as server:
        yield server


@pytest.fixture(scope="session")
def fork_server() -> ForkServer:
    return forked.fork_server()


@pytest.fixture(scope="module")
def daemons(moto: MotoServer, fork_server: ForkServer) -> Iterator[Daemons]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-model-")))
        made = Daemons(moto, fork_server, base)
        stack.callback(made.close)
        yield made


@contextmanager
def _world(way: str, daemons: Daemons, *, versioned: bool) -> Iterator[World]:
    world = World(daemons.get(way), daemons.moto, way, versioned=versioned)
    yield world
    if world.failed:
        daemons.drop(way)
    else:
        world.end()


@pytest.fixture(params=["mount", "behind", "watch"])
def world(request: pytest.FixtureRequest, daemons: Daemons) -> Iterator[World]:
    with _world(request.param, daemons, versioned=False) as made:
        yield made


@pytest.fixture
def versioned(daemons: Daemons) -> Iterator[World]:
    with _world("mount", daemons, versioned=True) as made:
        yield made


@pytest.fixture
def behind(daemons: Daemons) -> Iterator[World]:
    with _world("behind", daemons, versioned=False) as made:
        yield made


@pytest.fixture
def watch(daemons: Daemons) -> Iterator[World]:
    with _world("watch", daemons, versioned=False) as made:
        yield made
