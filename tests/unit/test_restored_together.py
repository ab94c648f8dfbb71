"""Small files that a task restores: made ordinary ones together, each of them right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.hydrating import CHUNK, MTIME_NS, Daemon, World

from fsxsync.model.stub import XATTR
from fsxsync.tree import settle_together

NAMES = [f"f{number}" for number in range(20)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def restore(daemon: Daemon, name: str) -> None:
    assert await daemon.hydrator.restore(os.fsencode(name)) > 0


async def test_many_wait_for_the_disk_a_few_times_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {name: os.urandom(CHUNK - number) for number, name in enumerate(NAMES)}
    paths = {name: world.stub(name, body) for name, body in bodies.items()}
    flushed: list[int] = []
    marked: dict[int, list[bool]] = {}
    flush = settle_together._flush

    def watched(root: int, files: list[settle_together.Arrived]) -> None:
        flushed.append(len(files))
        for file in files:
            marked.setdefault(os.fstat(file.fd).st_ino, []).append(XATTR.decode() in os.listxattr(file.fd))
        flush(root, files)

    monkeypatch.setattr(settle_together, "_flush", watched)
    async with world.daemon() as daemon:
        wrong = paths["f7"]
        compare = daemon.shared.tree.compare_together
        spoilt: list[bool] = []

        def compare_spoilt(files: list[settle_together.Arrived]) -> object:
            for file in files:
                if os.fstat(file.fd).st_ino == wrong.stat().st_ino and not spoilt:
                    os.pwrite(file.fd, b"\0\0\0\0", 100)
                    spoilt.append(True)
            return compare(files)

        monkeypatch.setattr(type(daemon.shared.tree), "compare_together", lambda _, files: compare_spoilt(files))
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(restore, daemon, name)

    assert spoilt == [True]
    assert sum(flushed) == 2 * (len(NAMES) + 1), "each twice, and the wrong one twice again"
    assert len(flushed) < 2 * len(NAMES)
    assert {path.stat().st_ino: [True, False] for path in paths.values() if path != wrong} == {
        ino: seen for ino, seen in marked.items() if ino != wrong.stat().st_ino
    }, "the mark goes between the two"
    for name, path in paths.items():
        assert path.read_bytes() == bodies[name]
        assert XATTR.decode() not in os.listxattr(path)
        assert path.stat().st_mtime_ns == MTIME_NS
