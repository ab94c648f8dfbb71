"""Multipart uploads that nobody will go on with: which they are, and that no other is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from fakes.store import FakeStore

from fsxsync.catalog.changelog import Hint
from fsxsync.catalog.database import Catalog
from fsxsync.catalog.uploads import Upload
from fsxsync.config import Settings
from fsxsync.errors import AccessDenied, EndpointUnreachable
from fsxsync.model.association import Association
from fsxsync.model.identity import Kind, Posix
from fsxsync.ports import ObjectHeaders
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.uploads import KEPT_NS, SWEEP_S, abort_all, end_settled, is_stale, run_sweeps, sweep

A = "dra-00000000000000001"
START = 10**18
HEADERS = ObjectHeaders(Posix(), Kind.FILE)


@dataclass
class World:
    catalog: Catalog
    store: FakeStore
    served: Served
    now_ns: int = START

    async def begun(self, path: str, *, association: str = A) -> str:
        """An upload that was begun now."""
        number = self.catalog.uploads.intended(association, f"p/{path}", self.now_ns)
        upload_id = await self.store.start_upload(f"p/{path}", HEADERS)
        self.catalog.uploads.started(number, upload_id, part_size=8, headers=b"h")
        return upload_id

    async def lost(self, path: str) -> str:
        """An upload whose id did not come."""
        self.catalog.uploads.intended(A, f"p/{path}", self.now_ns)
        return await self.store.start_upload(f"p/{path}", HEADERS)

    def hint(self, path: bytes) -> None:
        self.catalog.changelog.add([Hint(A, path, local=True, remote=False)], now_ns=1, delay_ns=0, cap_ns=0)

    def keys(self) -> list[str]:
        return [upload.key for upload in self.catalog.uploads.all()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    association = Association(id=A, directory=b"d", bucket="bucket", prefix="p/")
    catalog.associations.put(association)
    untouched = cast(Any, None)
    shared = Shared(
        settings=Settings(state_dir=tmp_path),
        catalog=catalog,
        tree=untouched,
        mover=untouched,
        eventlog=untouched,
        eager=False,
        started_ns=START,
    )
    store = FakeStore()
    world = World(catalog, store, Served(shared, association, store))
    monkeypatch.setattr(Shared, "now_ns", lambda _: world.now_ns)
    yield world
    catalog.close()


BEGUN = Upload(1, A, "p/f", "id", START, 8, b"h")
OLDER = Upload(1, A, "p/f", "id", START)
INTENT = Upload(1, A, "p/f", None, START)


@pytest.mark.parametrize("upload", [BEGUN, OLDER, INTENT])
@pytest.mark.parametrize("age", [0, KEPT_NS - 1, KEPT_NS, 9 * KEPT_NS])
@pytest.mark.parametrize("started", ["before", "after"])
@pytest.mark.parametrize("pending", [True, False])
def test_what_is_stale(upload: Upload, age: int, started: str, pending: bool) -> None:
    """``started``: this daemon, before or after the upload."""
    started_ns = START if started == "before" else START + 1

    stale = is_stale(upload, now_ns=START + age, started_ns=started_ns, pending=pending)

    if started == "after":  # who waited for an answer, or would have ended it, is dead
        assert stale == (upload is not BEGUN or not pending)
    else:
        assert stale == (age >= KEPT_NS and not pending)


async def test_only_what_is_old_and_not_pending_is_aborted(world: World) -> None:
    for path in ("gone", "dir/pending", "dir/file"):
        await world.begun(path)
    world.hint(b"dir/pending")
    world.now_ns += KEPT_NS
    young = await world.begun("young")
    foreign = await world.store.start_upload("p/gone", HEADERS)

    await sweep(world.served)

    assert world.keys() == ["p/dir/pending", "p/young"]
    assert {young, foreign} < world.store.uploads.keys()
    assert len(world.store.uploads) == 3


async def test_a_restart_keeps_what_can_be_gone_on_with(world: World) -> None:
    world.now_ns = START - 1
    kept = await world.begun("f")
    await world.begun("settled otherwise")
    world.hint(b"f")
    world.now_ns = START + 9 * KEPT_NS

    await sweep(world.served)

    assert world.keys() == ["p/f"]
    assert list(world.store.uploads) == [kept]


@pytest.mark.parametrize("pending", [b"f", b"f/below", b"g", None])
async def test_a_path_that_is_settled_needs_no_upload(world: World, pending: bytes | None) -> None:
    for path in ("f", "f2"):
        await world.begun(path)
    if pending is not None:
        world.hint(pending)

    await end_settled(world.served, b"f")

    kept = pending in {b"f", b"f/below"}
    assert world.keys() == (["p/f", "p/f2"] if kept else ["p/f2"])
    assert len(world.store.uploads) == len(world.keys())


async def test_settling_asks_the_store_nothing_where_nothing_is_remembered(world: World) -> None:
    for path in (b"f", b"", b"\xff", b"n" * 2000):
        await end_settled(world.served, path)

    assert world.store.requests == []


async def test_what_a_settled_path_left_waits_for_a_sweep_if_the_store_is_away(world: World) -> None:
    await world.begun("f")
    world.store.failures.append(EndpointUnreachable("abort", "away"))

    await end_settled(world.served, b"f")

    assert world.keys() == ["p/f"]


async def test_an_intent_of_a_dead_daemon_is_found_out_whatever_is_pending(world: World) -> None:
    world.now_ns = START - 1
    known = await world.begun("f")
    await world.lost("f")
    await world.lost("f")
    other = await world.store.start_upload("p/f2", HEADERS)
    world.hint(b"f")
    world.now_ns = START + 1

    for _ in range(2):  # the older intent waits for what becomes of the newer one
        await sweep(world.served)

    assert list(world.store.uploads) == [known, other]
    assert [upload.upload_id for upload in world.catalog.uploads.all()] == [known]


@pytest.mark.parametrize("told", [True, False])
async def test_what_is_started_while_an_intent_is_found_out_is_left_alone(
    world: World, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing shows a new upload of the same key, whether or not its id has come here by then."""
    world.now_ns = START - 1
    await world.lost("f")
    world.now_ns = START + 1
    listing, begun = world.store.uploads_of, []

    async def uploads_of(key: str) -> list[str]:
        begun.append(await (world.begun("f") if told else world.lost("f")))
        return await listing(key)

    monkeypatch.setattr(world.store, "uploads_of", uploads_of)

    await sweep(world.served)

    assert begun[0] in world.store.uploads
    assert (len(world.catalog.uploads.all()) == 1) == told


async def test_a_key_that_is_no_path_is_not_pending(world: World) -> None:
    await world.begun("a//b")
    world.now_ns += KEPT_NS

    await sweep(world.served)

    assert world.keys() == []


async def test_another_associations_are_not_touched(world: World) -> None:
    await world.begun("f", association="dra-2")
    world.now_ns += KEPT_NS

    await sweep(world.served)
    await abort_all(world.served)

    assert (len(world.keys()), len(world.store.uploads)) == (1, 1)


async def test_a_deleted_association_leaves_no_uploads(world: World) -> None:
    await world.begun("f")
    await world.lost("g")
    world.hint(b"f")

    await abort_all(world.served)

    assert (world.keys(), world.store.uploads) == ([], {})


async def test_an_association_can_be_deleted_while_its_store_is_away(world: World) -> None:
    await world.begun("f")
    world.store.failures.append(EndpointUnreachable("abort", "away"))

    await abort_all(world.served)

    assert world.keys() == ["p/f"]


@pytest.mark.parametrize("error", [EndpointUnreachable, AccessDenied])
async def test_what_could_not_be_aborted_is_aborted_an_hour_later(
    world: World, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    await world.begun("f")
    world.now_ns += KEPT_NS
    world.store.failures.append(error("abort", "no"))

    with trio.move_on_after(SWEEP_S - 1):
        await run_sweeps(world.served)
    assert world.keys() == ["p/f"]
    assert [record.message for record in caplog.records] == ["stale uploads can't be aborted"]

    with trio.move_on_after(SWEEP_S + 1):
        await run_sweeps(world.served)
    assert (world.keys(), world.store.uploads) == ([], {})


async def test_sweeps_go_on(world: World, autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(SWEEP_S * 1.5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_sweeps, world.served)
            await trio.testing.wait_all_tasks_blocked()
            await world.begun("f")
            world.now_ns += KEPT_NS
    assert world.keys() == []
