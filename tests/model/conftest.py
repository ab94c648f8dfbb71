"""One object store for all, and daemons that many worlds share until something goes wrong in one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.moto_server import MotoServer


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server
