"""What a test process has in use: to see that nothing is left behind.

The fixture has to be imported by name into a module whose tests count threads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

_others = 0


@pytest.fixture(autouse=True)
def count_others() -> None:
    """A pool that other tests of this process share has threads, too."""
    global _others  # noqa: PLW0603
    _others = 0
    _others = native_threads()


def native_threads() -> int:
    """Threads of transfer pools that the test made."""
    count = -_others
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended in this moment
            count += (task / "comm").read_text() == "fsx-transfer\n"
    return count


def descriptors() -> int:
    """Open descriptors, the one for looking among them."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
