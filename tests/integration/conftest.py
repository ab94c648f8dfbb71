"""One S3 server for the whole run, buckets of its own for each test.

The server is moto, or the one that FSXSYNC_TEST_SERVER names (`make test-s3 SERVER=…`). What a test needs
that not every store does is said by a marker, ``needs("…")``; a test that asks for SQS is skipped where there is none.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.built_servers import BuiltServer, chosen_server, server_class, skip_what_it_lacks
from support.instance import Instance, instance
from support.moto_server import MotoServer, moto_of_the_run
from support.proxy import Proxy

SERVER = os.environ.get("FSXSYNC_TEST_SERVER", "moto")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another server than moto, leave out what asks no store: it was tested with moto."""
    if SERVER == "moto":
        return
    here = Path(__file__).parent
    asks_none = [item for item in items if item.path.is_relative_to(here) and "moto" not in item.fixturenames]  # type: ignore[attr-defined]
    config.hook.pytest_deselected(items=asks_none)
    items[:] = [item for item in items if item not in asks_none]


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer | BuiltServer]:
    if SERVER == "moto":
        yield moto_of_the_run()
        return
    with pytest.MonkeyPatch.context() as patch, chosen_server(SERVER, tmp_path_factory.mktemp(SERVER)) as built:
        if built.bundle is not None:
            patch.setenv("AWS_CA_BUNDLE", str(built.bundle))
        yield built


@pytest.fixture(autouse=True)
def needed(request: pytest.FixtureRequest) -> None:
    """Skip what this server does not do as S3 does."""
    if SERVER != "moto":
        skip_what_it_lacks(request.node, server_class(SERVER))


@pytest.fixture
def s3(moto: MotoServer) -> Any:
    """The other user's client."""
    return moto.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    """An empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def fsx(tmp_path: Path) -> Iterator[Instance]:
    """A mounted instance."""
    with instance(tmp_path) as made:
        yield made


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Instance]:
    """An instance in watch mode."""
    with instance(tmp_path, mounted=False) as made:
        yield made


@pytest.fixture(params=["mount", "watch"])
def made(request: pytest.FixtureRequest) -> Instance:
    """Each of the two."""
    found: Instance = request.getfixturevalue("fsx" if request.param == "mount" else "watched")
    return found


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[Proxy]:
    """Between a daemon and the store."""
    with Proxy(moto.url) as made:
        yield made
