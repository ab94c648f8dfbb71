"""Room on a full disk: who is told that there is some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from fsxsync.config import load
from fsxsync.sync.served import Shared
from fsxsync.sync.watermark import Watermark


class Releasing(Watermark):
    """One whose disk has something to release only once it is told so, and takes its time to release it."""

    found = False

    async def _release_some_room(self) -> bool:
        return await self._release_until(lambda: 1)

    async def _oldest_of_all(self) -> list:  # type: ignore[type-arg]
        return [SimpleNamespace(candidate=SimpleNamespace(local=SimpleNamespace(blocks=8)))] if self.found else []

    async def _release_some(self, some: list) -> bool:  # type: ignore[type-arg]
        await trio.sleep(0.5)
        return True


@pytest.fixture
def watermark(tmp_path: Path) -> Iterator[Releasing]:
    settings = load(None, {}, {"state_dir": tmp_path})
    with (tmp_path / "root").open("wb") as root:
        tree = SimpleNamespace(root_fd=root.fileno())
        shared = Shared(settings, SimpleNamespace(changelog=None), tree, mover=None, eventlog=None, eager=False)  # type: ignore[arg-type]
        yield Releasing(shared, {}, lambda: False)


async def test_who_met_a_full_disk_hears_of_room_that_was_made_for_somebody_else(
    watermark: Releasing, autojump_clock: trio.testing.MockClock
) -> None:
    """Within two seconds after a search that found nothing nobody searches again; room that came meanwhile counts."""
    assert not await watermark.make_room(trio.current_time())
    watermark.found = True
    answers = []

    async def ask() -> None:
        answers.append(await watermark.make_room(trio.current_time()))

    async with trio.open_nursery() as nursery:
        async with watermark._turn:
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            assert await watermark._release_some_room()  # as `make_room_ahead` does
        await trio.sleep(1)
        assert answers == [True]
        assert not await watermark.make_room(trio.current_time())
