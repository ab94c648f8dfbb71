"""One object store for all, and daemons that many worlds share until something goes wrong in one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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
def world_of(
    way: str, daemons: Daemons, *, versioned: bool = False, options: dict[str, Any] | None = None
) -> Iterator[World]:
    """``options`` of the association."""
    world = World(daemons.get(way), daemons.moto, way, versioned=versioned, options=options or {})
    yield world
    if world.failed:
        daemons.drop(way)
    else:
        world.end()


@pytest.fixture(params=["mount", "behind", "watch"])
def world(request: pytest.FixtureRequest, daemons: Daemons) -> Iterator[World]:
    with world_of(request.param, daemons) as made:
        yield made


@pytest.fixture
def versioned(daemons: Daemons) -> Iterator[World]:
    with world_of("mount", daemons, versioned=True) as made:
        yield made


@pytest.fixture
def behind(daemons: Daemons) -> Iterator[World]:
    with world_of("behind", daemons) as made:
        yield made


@pytest.fixture
def watch(daemons: Daemons) -> Iterator[World]:
    with world_of("watch", daemons) as made:
        yield made
