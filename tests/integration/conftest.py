"""moto's server for the whole run, buckets of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, instance
from support.moto_server import MotoServer


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


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
