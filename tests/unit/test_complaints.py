"""What needs a person, and what does not (`sync.complaints`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hydrating import World

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.problems import Problem
from fsxsync.model.open_conflict import Conflict, ConflictKind
from fsxsync.ports import AssociationStatus, PendingItem
from fsxsync.sync.complaints import complaints


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def told(world: World, **more: Any) -> list[str]:
    async with world.daemon() as daemon:
        conflicts = world.catalog.conflicts.count("dra-1")
        counts = dict.fromkeys(("pending", "pending_imports", "pending_exports", "errors", "imported", "exported"), 0)
        row = AssociationStatus(
            association=daemon.served.association,
            oldest_pending_s=0.0,
            conflicts=conflicts,
            not_exportable=1,
            **{**counts, **more},
        )
        return list(complaints(daemon.served, row))


def problem(world: World, path: bytes, kind: str) -> None:
    world.catalog.problems.put(Problem("dra-1", path, kind, "S3Error", "why", 1))


async def test_what_is_normal_needs_nobody(world: World) -> None:
    for kind in ("held", "restoring", "not-exportable"):
        problem(world, b"f", kind)
    world.catalog.changelog.add(
        [Hint("dra-1", b"b", local=True, remote=False)], now_ns=1, delay_ns=10**18, cap_ns=10**18
    )
    failed_once = PendingItem("/b", "dra-1", 5, 1, "503")

    assert await told(world, pending=1, recent_errors=(failed_once,)) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lost", "put the objects back"),
        ("refused", "rename one of the two sides"),
        ("damaged", "fsxsync why"),
        ("damaged-object", "upload them again"),
    ],
)
async def test_what_no_retry_mends_needs_a_person(world: World, kind: str, words: str) -> None:
    for number in range(5):
        problem(world, b"f%d" % number, kind)

    (line,) = await told(world)

    assert ": 5 " in line
    assert "(/f0, /f1, /f2, …); " in line
    assert words in line


async def test_open_conflicts_need_a_person(world: World) -> None:
    for copy in (b"f.1", b"f.2"):
        world.catalog.conflicts.put(Conflict("dra-1", b"f", ConflictKind.KEPT, 1, copy))

    (line,) = await told(world)

    assert line.startswith("/: 2 open conflicts (/f")
    assert "'fsxsync conflicts resolve PATH" in line


async def test_what_fails_again_and_again_needs_a_person(world: World) -> None:
    failing = PendingItem("/b", "dra-1", 5, 3, "403; grant it")
    assert await told(world, recent_errors=(failing,)) == ["/b: 403; grant it"]
