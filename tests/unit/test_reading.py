"""Reading a queue: nothing is deleted before it is written down, and nobody is deaf in silence."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from fsxsync.config import Settings
from fsxsync.errors import AccessDenied, EndpointUnreachable, QueueMissing, RepositoryError
from fsxsync.model.association import Association, Lifecycle
from fsxsync.ports import ObjectHint, QueueMessage
from fsxsync.sync import reading
from fsxsync.sync.intake import Intake
from fsxsync.sync.reading import DEAF_MAX_S, GAP_NS, QueueReader, Readers
from fsxsync.sync.served import Served

URL = "http://127.0.0.1:1/1/q"


SETTINGS = Settings(state_dir=Path("/nowhere"))


class FakeQueue:
    """An SQS queue in memory, which counts what it is asked."""

    def __init__(self, messages: int = 0) -> None:
        self.url = URL
        self.messages = [
            QueueMessage(str(number), (ObjectHint("bucket", f"key{number}"),)) for number in range(messages)
        ]
        self.asked: list[tuple[str, Any]] = []
        self.deleted: list[str] = []
        self.failure: RepositoryError | None = None
        self.receiving = self.most = 0
        self._lock = threading.Lock()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def check(self) -> None:
        self._fail()

    def receive(self, wait_s: int) -> list[QueueMessage]:
        del wait_s
        self._fail()
        with self._lock:
            self.receiving += 1
            self.most = max(self.most, self.receiving)
            given, self.messages = self.messages[:10], self.messages[10:]
        threading.Event().wait(0.02)
        with self._lock:
            self.receiving -= 1
        return given

    def hold(self, receipts: Sequence[str], seconds: int) -> None:
        self.asked.append(("hold", (list(receipts), seconds)))

    def keeps_dead_letters(self) -> bool:
        return False

    def left(self) -> int | None:
        return len(self.messages)

    def delete(self, receipts: Sequence[str]) -> None:
        self._fail()
        self.deleted.extend(receipts)


class World:
    """One association, and what was written down for it."""

    def __init__(self) -> None:
        self.now_ns = 10**18
        self.listings = 0
        self.hints: list[str] = []
        self.events: list[dict[str, Any]] = []
        association = Association("dra-1", b"d", "bucket", "", events=URL, lifecycle=Lifecycle.AVAILABLE)
        shared = SimpleNamespace(
            now_ns=lambda: self.now_ns, eventlog=SimpleNamespace(emit=lambda **event: self.events.append(event))
        )
        self.served = cast(
            Served,
            SimpleNamespace(
                id="dra-1", association=association, shared=shared, source_read_ns=0, want_listing=self._want
            ),
        )
        self.intake = cast(Intake, SimpleNamespace(object_hints=self._written_down))

    def _want(self) -> None:
        self.listings += 1

    def _written_down(self, _served: Served, hints: Sequence[ObjectHint]) -> None:
        self.hints.extend(hint.key for hint in hints)

    def reader(self, queue: FakeQueue) -> QueueReader:
        return QueueReader(queue, self.intake, lambda _url: [self.served], SETTINGS)


@pytest.fixture
def world() -> World:
    return World()


async def until(holds: Any) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110  what threads do sets no event
            await trio.sleep(0.01)


async def test_a_full_queue_is_read_by_several_at_a_time(world: World) -> None:
    queue = FakeQueue(95)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reader(queue).run)
        await until(lambda: len(queue.deleted) == 95)
        nursery.cancel_scope.cancel()
    assert sorted(world.hints) == sorted(f"key{number}" for number in range(95))
    assert 1 < queue.most <= 5


async def test_what_could_not_be_written_down_is_not_deleted(world: World) -> None:
    queue = FakeQueue(3)

    def full_disk(_served: Served, _hints: Sequence[ObjectHint]) -> None:
        raise RepositoryError("it could not be written down")

    world.intake = cast(Intake, SimpleNamespace(object_hints=full_disk))
    with pytest.raises(RepositoryError, match="written down"):
        await world.reader(queue).read_up_to_now()
    assert queue.deleted == []


async def test_messages_stay_ours_while_the_work_is_slow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "HELD_S", 0.3)
    queue = FakeQueue(2)
    reader = world.reader(queue)
    plainly = reader._write_down

    async def slowly(messages: Sequence[QueueMessage]) -> None:
        await trio.sleep(0.9)
        await plainly(messages)

    monkeypatch.setattr(reader, "_write_down", slowly)
    await reader.read_up_to_now()
    held = [what for name, what in queue.asked if name == "hold"]
    assert len(held) >= 3
    assert set(map(str, held)) == {str((["0", "1"], 0.3))}
    assert sorted(queue.deleted) == ["0", "1"]


@pytest.mark.parametrize("error", [AccessDenied("reading", "403"), QueueMissing("reading", "gone")])
async def test_what_a_person_has_to_mend_is_told_at_once(world: World, error: RepositoryError) -> None:
    queue = FakeQueue()
    queue.failure = error
    reader = world.reader(queue)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        with pytest.raises(type(error)):
            await reader.until_broken()
        queue.failure = None
        await reader.check()  # mended: whoever serves the association may go on
        assert reader.failure == ""
        with trio.move_on_after(0.1) as still_well:
            await reader.until_broken()
        assert still_well.cancelled_caught
        nursery.cancel_scope.cancel()
    assert [event["code"] for event in world.events] == [error.code]


async def test_what_passes_by_itself_is_told_after_a_while(world: World, autojump_clock: MockClock) -> None:
    queue = FakeQueue()
    queue.failure = EndpointUnreachable("reading", "refused")
    reader = world.reader(queue)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        with pytest.raises(EndpointUnreachable):
            await reader.until_broken()
        nursery.cancel_scope.cancel()
    assert DEAF_MAX_S < trio.current_time() - began < DEAF_MAX_S + 10
    assert len(world.events) == 1


async def test_who_slept_for_long_reads_the_listing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = world.reader(FakeQueue())
    await reader.read_up_to_now()
    await reader.read_up_to_now()
    assert world.listings == 0

    world.now_ns += GAP_NS * 2
    await reader.read_up_to_now()

    assert world.listings == 1


async def test_a_reader_lasts_as_long_as_somebody_uses_it(world: World) -> None:
    queue = FakeQueue()
    readers = Readers(world.intake, lambda _url, _association: queue, lambda _url: [world.served], SETTINGS)
    async with trio.open_nursery() as nursery:
        one = readers.take(world.served.association, nursery)
        two = readers.take(world.served.association, nursery)
        assert one is two
        await trio.testing.wait_all_tasks_blocked()
        readers.give_back(one)
        assert len(nursery.child_tasks) == 1
        readers.give_back(two)
        await until(lambda: not nursery.child_tasks)
        assert readers.take(world.served.association, nursery) is not one
        nursery.cancel_scope.cancel()
