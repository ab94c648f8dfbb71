"""For all tests."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Hundreds of daemons start: where the environment forbids to keep what was compiled (images for containers do), each of
# them would compile the whole program, 0.6 s of its second.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("fsxsync", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("fsxsync")

_LONGEST_FIRST = ("model", "integration", "posix", "contract", "unit")
"""A worker takes a file at a time: one that takes minutes must not be what the others wait for at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(_LONGEST_FIRST)}

    def place(item: pytest.Item) -> int:
        return next((order[part] for part in item.path.parts[-4:] if part in order), len(order))

    items.sort(key=place)
