"""Releasing over a real tree and catalog, and a store in memory: each crash, each race, how objects are looked up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.hydrating import MTIME_NS, Daemon, World, is_stub

from fsxsync import _core
from fsxsync.catalog.changelog import Entry, Hint
from fsxsync.catalog.files import Files
from fsxsync.errors import AccessDenied, EndpointUnreachable, LocalChanged, RepositoryError
from fsxsync.model.identity import Base, base_of
from fsxsync.model.release import Refusal
from fsxsync.model.task import Order, Task, TaskType, report_code
from fsxsync.sync import releaser
from fsxsync.sync.acting import Next
from fsxsync.sync.look import look
from fsxsync.sync.objects_seen import see_objects
from fsxsync.sync.releasable import Candidate
from fsxsync.sync.releaser import foresee, release
from fsxsync.sync.task_data import ReleaseStage

BODY = b"what the application wrote" * 5000
TOLD = Entry("dra-1", b"f", True, False, None, 0, 0, 1, 0, None, None, "")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


async def synced(world: World, name: str, body: bytes = BODY) -> Path:
    """A resident file that is in sync with its object."""
    path = world.base / "tree" / name
    path.write_bytes(body)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    world.put(name, body)
    local, remote = world.tree.identify(name.encode()), await world.store.head(name)
    assert local is not None
    assert remote is not None
    digest = _core.xxh3_128(body)
    world.catalog.files.put(base_of("dra-1", name.encode(), local, remote, content_hash=digest))
    return path


def candidate(world: World, name: str) -> Candidate:
    local = world.tree.identify(name.encode())
    assert local is not None
    return Candidate(name.encode(), local)


async def release_one(daemon: Daemon, world: World, name: str = "f") -> Refusal | None:
    return (await release(daemon.served, [candidate(world, name)]))[name.encode()]


async def read_whole(daemon: Daemon, name: str) -> bytes:
    with daemon.reader(name) as reader:
        if is_stub(daemon.shared.tree.root / name):
            await daemon.hydrator.make_resident(reader.path, reader.fd)
        return reader and os.pread(reader.fd, 1 << 20, 0)


def has_data(path: Path) -> bool:
    """A block of it is on the disk."""
    with path.open("rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA) >= 0
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


def crashing(*_: object, **__: object) -> None:
    raise Crash


def crash_after(function: Callable[..., Any]) -> Callable[..., None]:
    def run(*arguments: Any, **named: Any) -> None:
        function(*arguments, **named)
        raise Crash

    return run


STEPS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "before the mark": (_core, "mark_released", crashing),
    "before the mark is durable": (_core, "syncfs", crashing),
    "when the mark is durable": (_core, "syncfs", crash_after(_core.syncfs)),
    "when it is punched": (_core, "punch_released", crash_after(_core.punch_released)),
    "before its row is written": (Files, "set_local_many", crashing),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("goes_on", ["the scan", "the task"])
async def test_a_crash_loses_nothing_and_what_is_left_is_finished(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, goes_on: str
) -> None:
    path = await synced(world, "f")
    before = path.stat()
    place, name, act = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, act)
        async with world.daemon() as daemon:
            with pytest.RaisesGroup(Crash, flatten_subgroups=True):
                await release_one(daemon, world)
    versions = dict(world.store.objects)
    was_marked = is_stub(path)
    assert was_marked is (step != "before the mark")

    async with world.daemon() as daemon:
        if goes_on == "the task":
            assert await release_one(daemon, world) is None
        assert (await look(daemon.served, TOLD)).next is Next.DONE
        row = world.catalog.files.get("dra-1", b"f")
        assert row is not None
        assert row.released is is_stub(path) is (was_marked or goes_on == "the task")
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_atime_ns) == (
            *(before.st_size, before.st_mtime_ns, before.st_atime_ns),
        )
        assert has_data(path) is not row.released
        assert await read_whole(daemon, "f") == BODY
    assert world.store.objects == versions  # nothing was exported


@pytest.mark.parametrize("goes_on", ["the scan", "the task", "a reader"])
@pytest.mark.parametrize("how", ["in place", "shorter", "longer"])
async def test_what_was_written_after_a_release_that_a_crash_interrupted_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str, goes_on: str
) -> None:
    """It had its mark and all its data: nobody could see that it was none of the ordinary files any more."""
    path = await synced(world, "f")
    with monkeypatch.context() as patch:
        patch.setattr(_core, "syncfs", crash_after(_core.syncfs))
        async with world.daemon() as daemon:
            with pytest.RaisesGroup(Crash, flatten_subgroups=True):
                await release_one(daemon, world)
    assert is_stub(path)
    with path.open("r+b") as file:
        if how != "in place":
            file.truncate(0)
        file.write({"in place": b"mine", "shorter": b"mine", "longer": BODY + b"mine"}[how])
    written = path.read_bytes()

    async with world.daemon() as daemon:
        if goes_on == "the task":
            assert await release_one(daemon, world) is not None
        if goes_on == "a reader" and how == "in place":
            with daemon.reader("f") as reader, pytest.raises(LocalChanged):
                await reader.read(0, 10)
        with pytest.raises(NotImplementedError):  # that is the upload
            await look(daemon.served, TOLD)
        assert (path.read_bytes(), is_stub(path)) == (written, False)


async def test_a_reader_that_comes_while_marks_are_flushed_is_let_in_and_the_file_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await synced(world, "f")
    sync = _core.syncfs

    def somebody_comes(fd: int) -> None:
        sync(fd)
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    monkeypatch.setattr(_core, "syncfs", somebody_comes)
    monkeypatch.setattr(releaser, "BUSY_S", ())
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)

    assert refused is not None
    assert refused.code == "ResourceBusy"
    assert not is_stub(path)
    assert path.read_bytes() == BODY


async def test_a_mode_set_while_marks_are_flushed_is_exported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It became a part of the row that the release wrote, as if the object had it."""
    path = await synced(world, "f")
    sync = _core.syncfs

    def somebody_comes(fd: int) -> None:
        sync(fd)
        path.chmod(0o600)

    monkeypatch.setattr(_core, "syncfs", somebody_comes)
    monkeypatch.setattr(releaser, "BUSY_S", ())
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)
        assert refused == Refusal("ResourceBusy", "it was changed meanwhile")
        assert not is_stub(path)
        await look(daemon.served, TOLD)

    row = world.catalog.files.get("dra-1", b"f")
    assert row is not None
    assert row.posix.mode == 0o600


async def test_a_write_between_the_decision_and_the_mark_keeps_the_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await synced(world, "f")
    mark = _core.mark_released

    def first_a_write(*arguments: Any) -> list[tuple[int, int, int, int]]:
        path.write_bytes(BODY[::-1])
        os.utime(path, ns=(MTIME_NS, MTIME_NS))  # as cp -p leaves it: only the ctime tells
        return mark(*arguments)

    monkeypatch.setattr(_core, "mark_released", first_a_write)
    monkeypatch.setattr(releaser, "BUSY_S", ())
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)

    assert refused == Refusal("ResourceBusy", "it was changed meanwhile")
    assert path.read_bytes() == BODY[::-1]


async def test_an_open_file_is_tried_again_and_goes_once_it_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await synced(world, "f")
    monkeypatch.setattr(releaser, "BUSY_S", (0.001,))
    async with world.daemon() as daemon:
        with daemon.reader("f"):
            refused = await release_one(daemon, world)
            assert refused == Refusal("ResourceBusy", "it is open")
        assert await release_one(daemon, world) is None
    assert is_stub(path)


async def test_what_is_pending_or_being_looked_at_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await synced(world, "f")
    monkeypatch.setattr(releaser, "BUSY_S", ())
    changelog = world.catalog.changelog
    async with world.daemon() as daemon:
        assert changelog.reserve("dra-1", [b"f"])
        assert await release_one(daemon, world) == Refusal("ResourceBusy", "it is being looked at")
        changelog.free("dra-1", [b"f"])
        changelog.add([Hint("dra-1", b"f", local=False, remote=True)], now_ns=1, delay_ns=0, cap_ns=0)
        assert await release_one(daemon, world) == Refusal("ResourceBusy", "a change of it is pending")


async def test_all_names_of_a_file_go_together_or_none(world: World) -> None:
    path = await synced(world, "f")
    os.link(path, world.base / "tree" / "g")
    world.put("g", BODY)
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)
        assert refused is not None
        assert refused.code == "OperationNotPermitted"

        linked = candidate(world, "g").local
        for name in ("f", "g"):
            remote = await world.store.head(name)
            assert remote is not None
            world.catalog.files.put(base_of("dra-1", name.encode(), linked, remote))
        objects = dict(world.store.objects)
        del world.store.objects["g"]
        refused = await release_one(daemon, world)
        assert refused is not None
        assert refused.code == "SourceObjectDeletedBeforeReleasing"
        world.store.objects.update(objects)
        outcomes = await release(daemon.served, [candidate(world, "f"), candidate(world, "g")])
        assert outcomes == {b"f": None, b"g": None}

        rows = [world.catalog.files.get("dra-1", name) for name in (b"f", b"g")]
        assert all(row is not None and row.released for row in rows)
        assert await read_whole(daemon, "g") == BODY
        assert (world.base / "tree" / "f").read_bytes() == BODY


@pytest.mark.parametrize("others", [0, 3000])
@pytest.mark.parametrize("count", [3, 40])
async def test_objects_are_looked_up_one_by_one_or_in_a_listing(world: World, count: int, others: int) -> None:
    """In a listing where many are asked for that lie close together; the answers are the same."""
    rows: list[Base] = []
    for number in range(count):
        await synced(world, f"f{number:03d}", b"x" * (number + 1))
        row = world.catalog.files.get("dra-1", f"f{number:03d}".encode())
        assert row is not None
        rows.append(row)
    for number in range(others):
        world.store.outside_put(f"f001-{number:04d}", b"between")
    del world.store.objects["f000"]
    world.store.outside_put("f002", b"replaced")
    async with world.daemon() as daemon:
        seen = await see_objects(daemon.served, rows)

    assert set(seen) == {row.path for row in rows}
    assert seen[b"f000"] is None
    for row in rows[1:]:
        found = seen[row.path]
        assert found is not None
        assert (found.etag == row.etag) is (row.path != b"f002")


async def test_objects_are_asked_for_one_by_one_where_the_listing_makes_no_sense(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{number:03d}" for number in range(20)]
    for name in names:
        await synced(world, name, b"x")

    def in_no_order(*_: object, **__: object) -> Iterator[object]:
        raise RepositoryError("listing", "the store does not list in byte order, each key once")

    monkeypatch.setattr(world.store, "list_pages", in_no_order)
    async with world.daemon() as daemon:
        outcomes = await release(daemon.served, [candidate(world, name) for name in names])

    assert set(outcomes.values()) == {None}


async def test_a_store_that_can_not_be_asked_is_told_as_such(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several requests at once: one error, and not a group of them, which nobody would take for expected."""

    async def refuse(_: str) -> None:
        raise EndpointUnreachable("HEAD", "nobody answers")

    for name in ("f", "g"):
        await synced(world, name)
    monkeypatch.setattr(world.store, "head", refuse)
    async with world.daemon() as daemon:
        with pytest.raises(EndpointUnreachable):
            await release(daemon.served, [candidate(world, "f"), candidate(world, "g")])


@pytest.mark.parametrize("error", [AccessDenied("HEAD", "403"), RepositoryError("HEAD", "500")])
async def test_an_object_that_can_not_be_looked_at_keeps_its_own_file_only(
    world: World, monkeypatch: pytest.MonkeyPatch, error: RepositoryError
) -> None:
    for name in ("f", "g", "changed"):
        await synced(world, name)
    (world.base / "tree/changed").write_bytes(b"by somebody")
    ask = world.store.head

    async def refuse_one(key: str) -> Any:
        if key == "f":
            raise error
        return await ask(key)

    monkeypatch.setattr(world.store, "head", refuse_one)
    async with world.daemon() as daemon:
        outcomes = await release(daemon.served, [candidate(world, name) for name in ("changed", "f", "g")])
    told = {path: outcome and outcome.code for path, outcome in outcomes.items()}
    expected = "S3AccessDenied" if isinstance(error, AccessDenied) else report_code(error.code)
    assert told == {b"changed": "OperationNotPermitted", b"f": expected, b"g": None}
    assert (outcomes[b"f"] or Refusal("", "")).why == str(error)


async def test_a_file_that_another_user_replaced_in_the_bucket_stays(world: World) -> None:
    path = await synced(world, "f")
    world.store.outside_put("f", b"another version")
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)
        assert refused is not None
        assert refused.code == "SourceObjectDeletedBeforeReleasing"
    assert path.read_bytes() == BODY
    assert candidate(world, "f").local._replace(ctime_ns=0).stub is None


async def test_a_row_that_was_written_since_the_walk_read_it_counts(world: World) -> None:
    """What the walk has seen may be older than the end of a load: the file was called changed since its export."""
    await synced(world, "f")
    now = candidate(world, "f")
    row = world.catalog.files.get("dra-1", b"f")
    assert row is not None
    before = row._replace(released=True, ctime_ns=row.ctime_ns - 1)
    async with world.daemon() as daemon:
        assert await release(daemon.served, [now._replace(base=before)]) == {b"f": None}


MEANWHILE: dict[str, tuple[Callable[[World, Daemon, Base], object], str]] = {
    "the row is written": (
        lambda world, _, row: world.catalog.files.put(row._replace(etag="of a copy with other metadata")),
        "its object is another version now",
    ),
    "its row is of another state of it": (
        lambda world, _, row: world.catalog.files.put(row._replace(mtime_ns=row.mtime_ns + 1)),
        "it was changed since its export",
    ),
    "it is told of": (
        lambda world, _, row: world.catalog.changelog.add(
            [Hint(row.association, row.path, local=False, remote=True)], now_ns=1, delay_ns=0, cap_ns=0
        ),
        "a change of it is pending",
    ),
    "it is being loaded": (
        lambda _, daemon, row: daemon.shared.hydrating.add(row.ino),
        "its data is being loaded",
    ),
    "it is opened for writing": (
        lambda _, daemon, row: daemon.shared.writers.update({row.ino: 1}),
        "it is open",
    ),
    "it is kept from above": (
        lambda world, *_: os.setxattr(world.base / "tree", "user.fsxsync.norelease", b""),
        "it is kept here: norelease is set on it or above it",
    ),
    "nothing": (lambda *_: None, ""),
}


@pytest.mark.parametrize("what", MEANWHILE)
async def test_what_happens_while_objects_are_asked_for_counts(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A task's file, whose row the walk read: judged once more, right before anything is done."""
    path = await synced(world, "f")
    [row] = world.catalog.files.after("dra-1", b"", 10, remember=True)
    ask = world.store.head
    act, why = MEANWHILE[what]

    monkeypatch.setattr(releaser, "BUSY_S", ())
    async with world.daemon() as daemon:

        async def and_somebody_acts(key: str) -> Any:
            found = await ask(key)
            act(world, daemon, row)
            return found

        monkeypatch.setattr(world.store, "head", and_somebody_acts)
        outcome = (await release(daemon.served, [candidate(world, "f")._replace(base=row)]))[b"f"]
        daemon.shared.hydrating.discard(row.ino)
    assert (outcome.why if outcome else "") == why
    assert has_data(path) is bool(why)


@pytest.mark.parametrize("acts", [release, foresee])
async def test_a_release_that_a_crash_interrupted_is_finished_by_the_row_that_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch, acts: Callable[..., Any]
) -> None:
    """Not by the one that the walk has read, which an import wrote anew since."""
    await synced(world, "f")
    with monkeypatch.context() as patch:
        patch.setattr(_core, "syncfs", crashing)
        async with world.daemon() as daemon:
            with pytest.RaisesGroup(Crash, flatten_subgroups=True):
                await release_one(daemon, world)
    [row] = world.catalog.files.after("dra-1", b"", 10, remember=True)
    walked = candidate(world, "f")
    world.catalog.files.put(row._replace(version_id="another"))

    async with world.daemon() as daemon:
        await acts(daemon.served, [Candidate(b"f", walked.local._replace(stub=None), row)])

    now = world.catalog.files.get("dra-1", b"f")
    assert now is not None
    assert (now.version_id, now.released) == ("another", True)


@pytest.mark.parametrize("acts", ["plan", "perform"])
async def test_a_task_leaves_no_row_behind_in_memory(world: World, acts: str) -> None:
    for number in range(40):
        await synced(world, f"f{number}")
    async with world.daemon() as daemon:
        stage = ReleaseStage(daemon.served, [b""], Task("", Order(TaskType.RELEASE), daemon.shared.now_ns()))
        async with aclosing(stage.batches(b"")) as batches:
            async for batch in batches:
                read = [entry.base for entry in batch.todo if entry.base is not None]
                assert len(world.catalog.files.unwritten("dra-1", read)) == 40
                if acts == "plan":
                    assert len([one async for one in stage.plan(batch)]) == 40
                else:
                    assert (await stage.perform(batch, lambda: False)).succeeded == 0  # cancelled
                assert world.catalog.files.unwritten("dra-1", read) == {}


async def test_norelease_of_the_file_itself_keeps_it(world: World) -> None:
    path = await synced(world, "f")
    os.setxattr(path, "user.fsxsync.norelease", b"")
    row = world.catalog.files.get("dra-1", b"f")
    assert row is not None
    local = candidate(world, "f").local
    world.catalog.files.put(row.with_local(local))  # the flag is older than the row
    now = candidate(world, "f")._replace(base=world.catalog.files.get("dra-1", b"f"))
    async with world.daemon() as daemon:
        refused = (await release(daemon.served, [now]))[b"f"]
        assert refused is not None
        assert (refused.code, refused.why) == ("OperationNotPermitted", "norelease is set on it")
    assert has_data(path)


async def test_a_mode_that_is_set_while_a_file_is_punched_is_not_taken_for_our_own_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row keeps the mode that was judged: what inotify tells is the only word of it."""
    path = await synced(world, "f")
    punch = _core.punch_released

    def and_somebody_changes_it(*arguments: Any) -> Any:
        punched = punch(*arguments)
        path.chmod(0o600)
        now = path.stat()
        [(what, number, status)] = punched
        assert status is not None
        return [(what, number, (now.st_mode, *status[1:5], now.st_ctime_ns, *status[6:]))]

    monkeypatch.setattr(_core, "punch_released", and_somebody_changes_it)
    async with world.daemon() as daemon:
        assert await release_one(daemon, world) is None
        assert list(daemon.shared.own_work.unchanged([b"f"])) == []


async def test_what_is_kept_is_not_opened_by_who_tries_it_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watermark does, and inotify would tell of each time."""
    path = await synced(world, "f")
    os.setxattr(path, "user.fsxsync.norelease", b"")
    row = world.catalog.files.get("dra-1", b"f")
    assert row is not None
    world.catalog.files.put(row.with_local(candidate(world, "f").local))
    monkeypatch.setattr(_core, "mark_released", crashing)
    async with world.daemon() as daemon:
        refused = await release_one(daemon, world)
        assert refused is not None
        assert refused.code == "OperationNotPermitted"


async def test_the_store_is_not_asked_for_what_is_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await synced(world, "f")
    now = candidate(world, "f")
    row = world.catalog.files.get("dra-1", b"f")
    monkeypatch.setattr(releaser, "BUSY_S", ())
    monkeypatch.setattr(world.store, "head", crashing)
    async with world.daemon() as daemon:
        daemon.shared.writers[now.local.ino] = 1
        refused = (await release(daemon.served, [now._replace(base=row)]))[b"f"]
        assert refused is not None
        assert refused.why == "it is open"
