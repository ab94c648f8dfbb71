"""What a listing says of many paths: the same as of each alone, in as few requests as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from fakes import store as fake_store
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hydrating import Daemon, World

from fsxsync.model.association import ALL_EVENTS, Policy
from fsxsync.model.identity import base_of
from fsxsync.ports import Listed
from fsxsync.sync import task_imports
from fsxsync.sync.task_imports import ImportStage, lies_at

KEYS = [f"{top}{rest}" for top in ("u", "u-x", "u.", "u0", "v") for rest in ("", "/a", "/b", "/c/d")]
UNDERS = [b"u", b"u-x", b"u.", b"u/a", b"u/c", b"v", b"nothing"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def found(daemon: Daemon, unders: Sequence[bytes], after: bytes = b"") -> tuple[set[bytes], set[bytes], int]:
    """(paths to import, keys that are gone, paths that are as they were)."""
    stage = ImportStage(daemon.served, unders, Policy(imports=ALL_EVENTS), deletes=True)
    batches = [batch async for batch in stage.batches(after)]
    todo = [entry.path for batch in batches for entry in batch.todo]
    gone = [key for batch in batches for key in batch.gone]
    assert len(set(todo)) == len(todo)
    assert len(set(gone)) == len(gone)
    return set(todo), set(gone), sum(batch.quiet for batch in batches)


@given(
    there=st.sets(st.sampled_from(KEYS)),
    known=st.sets(st.sampled_from(KEYS)),
    asked=st.sets(st.sampled_from(UNDERS), min_size=1),
    page=st.integers(1, 4),
    batch=st.integers(1, 5),
)
@settings(deadline=None, max_examples=150)
def test_many_paths_are_imported_as_each_of_them(
    made: World, there: set[str], known: set[str], asked: set[bytes], page: int, batch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_store, "PAGE", page)
        patch.setattr(task_imports, "BATCH", batch)
        trio.run(_as_each, made, there, known, asked)


async def _as_each(made: World, there: set[str], known: set[str], asked: set[bytes]) -> None:
    async with made.daemon() as daemon:
        made.catalog.files.delete_all(daemon.served.id)
        made.store.objects.clear()
        made.tree.root.joinpath("file").touch()
        local = made.tree.identify(b"file")
        assert local is not None
        for key in sorted(there | known):
            made.store.outside_put(key, b"x")
            remote = await made.store.head(key)
            assert remote is not None
            if key in known:
                made.catalog.files.put(base_of(daemon.served.id, key.encode(), local, remote))
            if key not in there:
                made.store.outside_delete(key)
        unders = sorted(one for one in asked if not any(lies_at(one, other) and one != other for other in asked))
        wanted = [key.encode() for key in KEYS if any(lies_at(key.encode(), under) for under in unders)]

        todo, gone, quiet = await found(daemon, unders)

        new = there - known
        assert todo == {path for path in wanted if path.decode() in new}
        assert gone == {path for path in wanted if path.decode() in known - there}
        assert quiet == sum(path.decode() in there & known for path in wanted)
        await _resume(daemon, unders)


async def _resume(daemon: Daemon, unders: Sequence[bytes]) -> None:
    """Killed after any batch it goes on with what it had not come to."""
    stage = ImportStage(daemon.served, unders, Policy(imports=ALL_EVENTS), deletes=True)
    batches = [batch async for batch in stage.batches(b"")]
    for done, batch in enumerate(batches):
        rest = batches[done + 1 :]
        todo, gone, quiet = await found(daemon, unders, batch.after)
        assert todo == {entry.path for one in rest for entry in one.todo}
        assert gone == {key for one in rest for key in one.gone}
        assert quiet == sum(one.quiet for one in rest)


async def test_what_only_begins_as_the_path_does_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """'part' among a million of 'part-…': its listing was read to the end."""
    monkeypatch.setattr(fake_store, "PAGE", 10)
    for number in range(500):
        world.store.outside_put(f"part-{number:03}", b"x")
        world.store.outside_put(f"part0{number:03}", b"x")
    for key in ("part", "part/inside"):
        world.store.outside_put(key, b"x")
    pages: list[list[Listed]] = []
    list_pages = world.store.list_pages

    def counting(prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        for page in list_pages(prefix, start_after=start_after):
            pages.append(page)
            yield page

    monkeypatch.setattr(world.store, "list_pages", counting)
    async with world.daemon() as daemon:
        assert await found(daemon, [b"part"]) == ({b"part", b"part/inside"}, set(), 0)
    assert len(pages) <= 3


async def test_listings_of_many_paths_are_asked_for_at_the_same_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a round trip, and there may be thousands."""
    names = [f"f{number}" for number in range(8)]
    for name in names:
        world.store.outside_put(name, b"x")
    begun: list[str] = []
    all_begun = trio.Event()
    token = trio.lowlevel.current_trio_token()
    list_pages = world.store.list_pages

    def held(prefix: str, *, start_after: str = "") -> Iterator[list[Listed]]:
        begun.append(prefix)
        if len(begun) == len(names):
            token.run_sync_soon(all_begun.set)
        trio.from_thread.run(all_begun.wait, trio_token=token)
        yield from list_pages(prefix, start_after=start_after)

    monkeypatch.setattr(world.store, "list_pages", held)
    async with world.daemon() as daemon:
        with trio.fail_after(60):
            todo, _, _ = await found(daemon, [name.encode() for name in names])
    assert todo == {name.encode() for name in names}


async def test_a_key_that_is_no_path_fails_whom_it_lies_below_alone(world: World) -> None:
    for key in ("u", "u//inside", "u-x//other"):
        world.store.outside_put(key, b"x")
    async with world.daemon() as daemon:
        for unders, failed in (([b"u"], [b"u//inside"]), ([b"u", b"u-x"], [b"u//inside", b"u-x//other"])):
            stage = ImportStage(daemon.served, unders, Policy(imports=ALL_EVENTS), deletes=False)
            failures = [failure.path async for batch in stage.batches(b"") for failure in batch.failures]
            assert failures == failed
