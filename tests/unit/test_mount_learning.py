"""Facts that come late, or about what has changed since."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.hydrator import FakeHydrator

from fsxsync import _core
from fsxsync.mount.base import Served
from fsxsync.mount.descriptors import Descriptors
from fsxsync.mount.handles import Handles
from fsxsync.mount.invalidate import KernelCache
from fsxsync.mount.learning import Learning
from fsxsync.mount.nodes import Nodes


class Told(Learning):
    """Learns what a test says that the channel did."""

    def learns(self, *facts: tuple[Any, ...]) -> None:
        self._direct.drain = lambda: facts  # type: ignore[method-assign]
        self.catch_up()

    def path_of(self, ino: int) -> bytes | None:
        node = self._nodes.find(ino)
        return self._nodes.path(node) if node is not None else None

    def lookups_of(self, ino: int) -> int:
        node = self._nodes.find(ino)
        return node.lookups if node is not None else 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return tmp_path


@pytest.fixture
def told(root: Path) -> Iterator[Told]:
    root_fd = os.open(root, os.O_RDONLY)
    nodes = Nodes(os.fstat(root_fd).st_ino, stat.S_IFDIR)
    descriptors = Descriptors(nodes, root_fd)
    made = Told(Served(nodes, descriptors, Handles(), FakeHydrator(), KernelCache(), attr_timeout_s=60, is_root=True))
    made.learns(*(met(root, root / name) for name in ("a", "b")))
    yield made
    descriptors.close()


def met(parent: Path, path: Path, *, ino: int | None = None, mode: int | None = None) -> tuple[Any, ...]:
    status = path.lstat() if ino is None else None
    ino = status.st_ino if status is not None else ino
    mode = status.st_mode if status is not None else mode
    return (_core.FACT_MET, parent.stat().st_ino, os.fsencode(path.name), ino, 1, mode, 1)


def test_a_look_that_a_rename_has_overtaken_changes_no_path(told: Told, root: Path) -> None:
    (root / "a" / "x").touch()
    late = met(root / "a", root / "a" / "x")
    ino = late[3]
    told.learns(late)
    (root / "a" / "x").rename(root / "b" / "x")
    told.learns(met(root / "b", root / "b" / "x"))

    told.learns(late)

    assert told.path_of(ino) == b"b/x"
    assert told.lookups_of(ino) == 3  # the kernel will give all of them back


def test_a_look_that_a_removal_has_overtaken_brings_no_name_back(told: Told, root: Path) -> None:
    file = root / "a" / "x"
    file.touch()
    late = met(root / "a", file)
    held = os.open(file, os.O_PATH)
    told.learns(late)
    file.unlink()
    told.learns((_core.FACT_UNLINKED, (root / "a").stat().st_ino, b"x", late[3], 1, held))

    told.learns(late)

    assert told.path_of(late[3]) is None
    assert told.lookups_of(late[3]) == 2


def test_a_bug_in_one_fact_costs_that_one(told: Told, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "a" / "x").touch()
    told.learns((_core.FACT_RELEASED, 12345), met(root / "a", root / "a" / "x"))

    assert told.path_of((root / "a" / "x").stat().st_ino) == b"a/x"
    assert "bug in learning" in caplog.text
