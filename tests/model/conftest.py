"""One object store for all, and daemons that many worlds share until something goes wrong in one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from model.daemons import SMALL_PARTS, Daemons
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
