"""Uploads against a store that fails, loses answers, and is asked again by a process that knows only the catalog."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from fakes.store import FakeStore
from hypothesis import given, settings
from hypothesis import strategies as st

from fsxsync import _core
from fsxsync.catalog.database import Catalog
from fsxsync.daemon.upload_journal import UploadJournal
from fsxsync.errors import (
    AccessDenied,
    BadCredentials,
    BucketMissing,
    EndpointUnreachable,
    KeyRefused,
    LocalChanged,
    NoSpace,
    ObjectChanged,
    ObjectDamaged,
    ObjectMissing,
    Throttled,
    TreeError,
)
from fsxsync.model import parts
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.ports import Begun, FileRange, ObjectHeaders, SentPart, UploadedPart, Written
from fsxsync.transfer.parts import reusable
from fsxsync.transfer.upload import TINY, upload_file

PART = 1000
SIZE = 5 * PART + 500
NUMBERS = [1, 2, 3, 4, 5, 6]
POSIX = Posix(mode=0o644, uid=1, gid=2, mtime_ns=10**18, atime_ns=10**18)
HEADERS = ObjectHeaders(POSIX, Kind.FILE, "text/plain")
REQUESTS_MAX = 1 + len(NUMBERS) + 1
"""start_upload, the parts, complete_upload"""


def nothing() -> None:
    pass


class Store(FakeStore):
    """The fake with hooks around its ``n``-th request, from 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[int, Exception] = {}
        """Raised in place of doing anything."""
        self.losses: dict[int, Exception] = {}
        """Raised after the request took effect."""
        self.on_part: Callable[[int], Awaitable[None]] | None = None
        """Called before a part is read."""
        self.taken: list[tuple[str, int]] = []
        """(upload id, number) of parts whose answer came."""
        self.bodies: list[bytes | FileRange] = []
        self.tells = True
        self.lie: int | None = None
        """What it tells in place of an object's CRC64NVME, if it tells any."""
        self.at_once = self.most_at_once = 0

    def asked(self) -> list[str]:
        return [operation for operation, _ in self.requests]

    def _asked(self, operation: str, key: str) -> None:
        super()._asked(operation, key)
        if (error := self.refusals.pop(len(self.requests), None)) is not None:
            raise error

    async def _answering(self, request: Awaitable[Any]) -> Any:
        number = len(self.requests) + 1  # nothing is awaited before the fake counts it
        answer = await request
        if (error := self.losses.pop(number, None)) is not None:
            raise error
        return answer

    def _told(self, written: Written) -> Written:
        told = written.crc64nvme if self.lie is None else self.lie
        return replace(written, crc64nvme=told if self.tells else None)

    async def put(
        self, key: str, body: bytes | FileRange, headers: ObjectHeaders, *, replaces: Remote | None
    ) -> Written:
        self.bodies.append(body)
        written: Written = await self._answering(super().put(key, body, headers, replaces=replaces))
        return self._told(written)

    async def start_upload(self, key: str, headers: ObjectHeaders) -> str:
        upload_id: str = await self._answering(super().start_upload(key, headers))
        return upload_id

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64nvme: int
    ) -> UploadedPart:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.on_part is not None:
                await self.on_part(number)
            sending = super().upload_part(key, upload_id, number, body, crc64nvme=crc64nvme)
            part: UploadedPart = await self._answering(sending)
        finally:
            self.at_once -= 1
        self.taken.append((upload_id, number))
        return part

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, replaces: Remote | None, crc64nvme: int
    ) -> Written:
        joining = super().complete_upload(key, upload_id, parts, replaces=replaces, crc64nvme=crc64nvme)
        written: Written = await self._answering(joining)
        return self._told(written)


@dataclass
class World:
    """A file, a store and a catalog. ``restart`` is what `kill -9` leaves: the three, and nothing in memory."""

    directory: Path
    data: bytes
    store: Store = field(default_factory=Store)
    headers: ObjectHeaders = HEADERS

    def __post_init__(self) -> None:
        self.path = self.directory / "file"
        self.path.write_bytes(self.data)
        self.catalog = Catalog.open(self.directory / "catalog.db")

    def restart(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.directory / "catalog.db")

    def write(self, offset: int, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY)
        os.pwrite(fd, data, offset)
        os.close(fd)
        self.data = self.path.read_bytes()

    async def upload(
        self,
        *,
        key: str = "k",
        replaces: Remote | None = None,
        still: Callable[[], None] = nothing,
        part_size: int = PART,
        at_once: int = 2,
        recorded: bool = True,
    ) -> tuple[Written, bytes]:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return await upload_file(
                self.store,
                key,
                fd,
                len(self.data),
                self.headers,
                replaces=replaces,
                still=still,
                part_size=part_size,
                journal=UploadJournal(self.catalog, lambda _: "dra-1") if recorded else None,
                at_once=at_once,
            )
        finally:
            os.close(fd)

    def is_clean(self) -> bool:
        return not self.store.uploads and not self.catalog.uploads.all()

    def assert_there(self, answer: tuple[Written, bytes], key: str = "k") -> None:
        written, digest = answer
        made = self.store.objects[key]
        assert made.body == self.data
        assert (made.content_type, made.crc64nvme) == ("text/plain", _core.crc64nvme(self.data))
        assert (written.etag, written.crc64nvme) == (made.etag, made.crc64nvme)
        assert digest == _core.xxh3_128(self.data)
        assert self.is_clean()


WorldOf = Callable[[bytes], World]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_MIN", 1)


@pytest.fixture
def world_of(tmp_path: Path) -> Iterator[WorldOf]:
    made: list[World] = []

    def make(data: bytes) -> World:
        made.append(World(tmp_path, data))
        return made[-1]

    yield make
    for world in made:
        world.catalog.close()


@pytest.fixture
def world(world_of: WorldOf) -> World:
    return world_of(os.urandom(SIZE))


def failing_parts(*numbers: int, error: type[Exception] = EndpointUnreachable) -> Callable[[int], Awaitable[None]]:
    async def on_part(number: int) -> None:
        if number in numbers:
            raise error("upload", "cut")

    return on_part


async def interrupted(world: World, at: int, *, error: type[Exception] = EndpointUnreachable, **how: Any) -> None:
    """An upload of which the parts before number ``at`` came through."""
    world.store.on_part = failing_parts(at, error=error)
    with pytest.raises(error):
        await world.upload(at_once=1, **how)
    world.store.on_part = None
    world.store.requests.clear()


def numbers_taken(world: World) -> list[int]:
    return sorted(number for _, number in world.store.taken)


# ---------------------------------------------------------------- in one piece


@pytest.mark.parametrize("size", [0, 1, PART, TINY, TINY + 1, 3 * TINY])
async def test_up_to_the_part_size_one_request_is_made(world_of: WorldOf, size: int) -> None:
    world = world_of(os.urandom(size))

    answer = await world.upload(part_size=3 * TINY)

    world.assert_there(answer)
    assert world.store.asked() == ["put"]
    assert [isinstance(body, bytes) for body in world.store.bodies] == [size <= TINY]


@pytest.mark.parametrize("size", [0, PART, TINY + 1, 3 * TINY])
async def test_it_is_asked_whether_the_file_is_still_the_same_after_it_was_read(world_of: WorldOf, size: int) -> None:
    world = world_of(bytes(size))

    def changed() -> None:
        raise LocalChanged("export", "changed")

    for part_size in (3 * TINY, max(1, size // 3)):
        with pytest.raises(LocalChanged):
            await world.upload(still=changed, part_size=part_size)
    assert world.store.requests == []


@pytest.mark.parametrize("size", [PART, TINY + 1])
@pytest.mark.parametrize("part_size", [PART // 3, 2 * TINY])
async def test_a_file_that_became_shorter_is_not_sent(world_of: WorldOf, size: int, part_size: int) -> None:
    world = world_of(bytes(size))
    os.truncate(world.path, size - 1)

    with pytest.raises(LocalChanged, match="shorter"):
        await world.upload(part_size=part_size)
    assert world.store.requests == []


@pytest.mark.parametrize("part_size", [PART // 3, PART, 2 * TINY])
@pytest.mark.parametrize("size", [PART, TINY + 1])
async def test_a_file_that_cannot_be_read_says_so(world_of: WorldOf, size: int, part_size: int) -> None:
    world = world_of(bytes(size))
    world.path.unlink()
    world.path.mkdir()  # opens, and can't be read

    with pytest.raises(TreeError, match=os.strerror(errno.EISDIR)):
        await world.upload(part_size=part_size)


@pytest.mark.parametrize("part_size", [PART, 3 * TINY])
@pytest.mark.parametrize("size", [2 * PART, 2 * TINY])
async def test_a_store_that_has_other_bytes_is_found_out(world_of: WorldOf, size: int, part_size: int) -> None:
    world = world_of(bytes(size))
    world.store.lie = 1

    with pytest.raises(ObjectDamaged, match="upload to k"):
        await world.upload(part_size=part_size)
    assert world.is_clean()


@pytest.mark.parametrize("size", [2 * TINY, PART])
async def test_a_store_that_does_not_tell_its_checksum_is_believed(world: World, size: int) -> None:
    world.store.tells = False

    written, _ = await world.upload(part_size=size)

    assert written.crc64nvme is None
    assert world.store.objects["k"].body == world.data


# ---------------------------------------------------------------- in parts


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 3000), part_size=st.integers(1, 3000), at_once=st.integers(1, 9))
async def test_any_file_in_any_parts(size: int, part_size: int, at_once: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), hashlib.shake_128(b"%d" % size).digest(size))
        answer = await world.upload(part_size=part_size, at_once=at_once)
        world.assert_there(answer)
        assert len(world.store.taken) == (0 if size <= part_size else -(-size // part_size))
        world.catalog.close()


async def test_only_so_many_parts_are_under_way_and_they_begin_in_order(world: World) -> None:
    begun: list[int] = []

    async def on_part(number: int) -> None:
        begun.append(number)
        await trio.testing.wait_all_tasks_blocked()

    world.store.on_part = on_part

    world.assert_there(await world.upload(at_once=4))

    assert world.store.most_at_once == 4
    assert begun == NUMBERS


async def test_ten_thousand_parts(world_of: WorldOf) -> None:
    world = world_of(os.urandom(16 * 10_000))
    await interrupted(world, 9_000, part_size=16)
    world.restart()

    answer = await world.upload(part_size=16, at_once=8)

    world.assert_there(answer)
    assert numbers_taken(world) == list(range(1, 10_001))


class Discarding(Store):
    """Keeps of the parts their places only."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[FileRange] = []
        self.whole = 0

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64nvme: int
    ) -> UploadedPart:
        self.ranges.append(body)
        return UploadedPart(number, f"{crc64nvme:016x}")

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, replaces: Remote | None, crc64nvme: int
    ) -> Written:
        self.whole = crc64nvme
        del self.uploads[upload_id]
        return Written("etag", None, 0, crc64nvme)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (5 * parts.GIB + 1, 641),
        (10_000 * 8 * parts.MIB, 10_000),
        (10_000 * 8 * parts.MIB + 1, 8_889),  # of 9 MiB
        (parts.OBJECT_MAX, 10_000),
    ],
)
async def test_files_too_large_to_try(world: World, monkeypatch: pytest.MonkeyPatch, size: int, count: int) -> None:
    """Only the bookkeeping: neither are the bytes hashed, nor are they sent."""

    def hash_parts(_fd: int, offset: int, length: int, part_size: int) -> tuple[bytes, list[int]]:
        return b"digest", list(range(-(-length // part_size)))

    monkeypatch.setattr("fsxsync.transfer.multipart._core", SimpleNamespace(hash_parts=hash_parts))
    monkeypatch.setattr(parts, "PART_MIN", 5 * parts.MIB)
    world.store = store = Discarding()
    journal = UploadJournal(world.catalog, lambda _: "dra-1")

    written, digest = await upload_file(
        store, "k", -1, size, HEADERS, replaces=None, still=nothing, part_size=8 * parts.MIB, journal=journal
    )

    assert digest == b"digest"
    assert written.crc64nvme == store.whole
    assert len(store.ranges) == count
    end = 0
    for part in sorted(store.ranges, key=lambda part: part.offset):
        assert part.offset == end
        assert 0 < part.length <= parts.PART_MAX
        end += part.length
    assert end == size
    assert world.is_clean()


# ---------------------------------------------------------------- failures at every request


@pytest.mark.parametrize("error", [EndpointUnreachable, Throttled, BadCredentials])
@pytest.mark.parametrize("at", range(1, REQUESTS_MAX + 1))
async def test_what_passes_is_gone_on_with(world: World, at: int, error: type[Exception]) -> None:
    world.store.refusals[at] = error("upload", "not now")
    with pytest.raises(error):
        await world.upload()
    assert world.store.objects == {}
    assert len(world.catalog.uploads.all()) == 1

    world.restart()
    answer = await world.upload()

    world.assert_there(answer)
    assert numbers_taken(world) == NUMBERS  # each once


@pytest.mark.parametrize("at", range(1, REQUESTS_MAX))
async def test_an_answer_that_is_lost_costs_that_request(world: World, at: int) -> None:
    world.store.losses[at] = EndpointUnreachable("upload", "the connection broke")
    with pytest.raises(EndpointUnreachable):
        await world.upload()
    assert len(world.store.uploads) == 1

    world.restart()
    answer = await world.upload()

    world.assert_there(answer)
    assert numbers_taken(world) == NUMBERS


async def test_a_lost_answer_of_the_last_request(world: World) -> None:
    """The object is there: whoever uploads it again is told to look, and finds what it wanted to upload."""
    world.store.losses[REQUESTS_MAX] = EndpointUnreachable("upload", "the connection broke")
    with pytest.raises(EndpointUnreachable):
        await world.upload()
    assert world.store.objects["k"].body == world.data

    world.restart()
    with pytest.raises(ObjectChanged):
        await world.upload()

    seen = await world.store.head("k")
    assert seen is not None
    assert seen.crc64nvme == _core.crc64nvme(world.data)
    assert world.is_clean()


async def test_metadata_that_are_set_while_parts_are_sent_are_not_replaced_unseen(world: World) -> None:
    """The object's ETag stays as it was: whoever uploads looks again, and merges."""
    world.store.outside_put("k", b"old", metadata={"file-permissions": "0100644"})
    seen = await world.store.head("k")

    async def on_part(number: int) -> None:
        if number == NUMBERS[-1]:
            world.store.outside_put("k", b"old", metadata={"file-permissions": "0100600"})

    world.store.on_part = on_part
    with pytest.raises(ObjectChanged):
        await world.upload(at_once=1, replaces=seen)
    assert world.store.objects["k"].metadata == {"file-permissions": "0100600"}
    assert world.is_clean()
    world.store.on_part = None

    world.assert_there(await world.upload(replaces=await world.store.head("k")))


async def test_the_upload_is_gone_when_it_shall_be_completed(world: World) -> None:
    async def on_part(number: int) -> None:
        if number == NUMBERS[-1]:
            world.store.uploads.clear()

    world.store.on_part = on_part
    with pytest.raises(ObjectChanged):
        await world.upload(at_once=1)
    assert world.is_clean()
    world.store.on_part = None

    world.assert_there(await world.upload())


@pytest.mark.parametrize("error", [AccessDenied, BucketMissing, KeyRefused, ObjectChanged, ObjectMissing])
@pytest.mark.parametrize("at", range(1, REQUESTS_MAX + 1))
async def test_a_refusal_ends_the_upload(world: World, at: int, error: type[Exception]) -> None:
    world.store.refusals[at] = error("upload", "no")

    with pytest.raises((error, ObjectChanged)) as raised:
        await world.upload()

    assert (raised.type is ObjectChanged) == (error is ObjectChanged or (error is ObjectMissing and 1 < at < 8))
    assert world.is_clean()
    assert world.store.objects == {}
    world.assert_there(await world.upload())


@pytest.mark.parametrize("failure", [AccessDenied("abort", "no"), EndpointUnreachable("abort", "away")])
async def test_a_failure_to_abort_hides_nothing_and_is_made_up_for(world: World, failure: Exception) -> None:
    async def refuse(key: str, upload_id: str) -> None:
        raise failure

    world.store.refusals[REQUESTS_MAX] = ObjectChanged("upload", "another version")
    world.store.abort_upload = refuse  # type: ignore[method-assign]
    with pytest.raises(ObjectChanged, match="another version"):
        await world.upload()
    assert [upload.upload_id for upload in world.catalog.uploads.all()] == list(world.store.uploads)

    del world.store.abort_upload  # the class has it
    world.restart()
    world.assert_there(await world.upload())
    assert numbers_taken(world) == NUMBERS


@pytest.mark.parametrize("error", [EndpointUnreachable, LocalChanged, KeyRefused])
async def test_what_nobody_will_remember_is_aborted(world: World, error: type[Exception]) -> None:
    world.store.on_part = failing_parts(3, error=error)

    with pytest.raises(error):
        await world.upload(recorded=False)

    assert world.store.uploads == {}


async def test_a_cancelled_upload_that_nobody_will_remember_is_aborted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort = world.store.abort_upload

    async def slow_abort(key: str, upload_id: str) -> None:
        await trio.lowlevel.checkpoint()
        await abort(key, upload_id)

    async def on_part(number: int) -> None:
        scope.cancel()

    monkeypatch.setattr(world.store, "abort_upload", slow_abort)
    world.store.on_part = on_part
    with trio.CancelScope() as scope:
        await world.upload(recorded=False)

    assert scope.cancelled_caught
    assert world.store.uploads == {}


async def test_a_journal_that_cannot_be_written_is_the_uploads_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NoSpace("catalog", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.catalog.uploads, "sent", full)
        with pytest.raises(NoSpace):
            await world.upload()

    world.assert_there(await world.upload())


async def test_a_whole_that_is_refused_twice_is_sent_anew(world: World) -> None:
    """A part that was damaged in the store fits no whole: going on with it would never end."""
    world.store.refusals[REQUESTS_MAX] = Throttled("upload", "BadDigest")
    with pytest.raises(Throttled):
        await world.upload()
    (upload,) = world.store.uploads.values()
    upload.parts[2] = b"damaged" + upload.parts[2][7:]
    etag = hashlib.md5(upload.parts[2], usedforsecurity=False).hexdigest()
    with world.catalog.transaction():  # the store tells the same etag for it as before
        world.catalog._connection.run("UPDATE upload_parts SET etag = ? WHERE number = 2", (etag,))

    with pytest.raises(Throttled):
        await world.upload()
    assert world.is_clean()

    world.assert_there(await world.upload())


# ---------------------------------------------------------------- going on


async def test_the_same_part_of_a_changed_file_is_sent_again_and_no_other(world: World) -> None:
    await interrupted(world, 5)
    world.write(PART + 7, b"other")  # within part 2; its times are set back
    world.restart()
    world.store.taken.clear()

    world.assert_there(await world.upload())

    assert numbers_taken(world) == [2, 5, 6]
    assert world.store.asked() == ["parts_of", *["upload_part"] * 3, "complete_upload"]


@pytest.mark.parametrize("size", [2 * PART + 1, 3 * PART, SIZE - 1, SIZE + 1, 9 * PART])
async def test_a_file_of_another_length_keeps_the_parts_that_are_the_same(world: World, size: int) -> None:
    await interrupted(world, 6)
    world.data = (world.data + os.urandom(9 * PART))[:size]
    world.path.write_bytes(world.data)
    world.store.taken.clear()

    world.assert_there(await world.upload())

    whole_before = range(1, min(5, size // PART) + 1)
    assert numbers_taken(world) == [number for number in range(1, -(-size // PART) + 1) if number not in whole_before]


@settings(deadline=None, max_examples=60)
@given(
    at=st.integers(1, 6),
    writes=st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=1500)), max_size=3),
    again=st.integers(1, 7),
)
async def test_whatever_changed_between_the_tries(at: int, writes: list[tuple[int, bytes]], again: int) -> None:
    """A second try may fail, too. What comes of it are the bytes of the last, and no part is sent twice for nothing."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), hashlib.shake_128(b"upload").digest(SIZE))
        await interrupted(world, at)
        before = world.data
        for offset, data in writes:
            world.write(offset, data[: SIZE - offset])
        if again <= 6:
            world.store.on_part = failing_parts(again)
            try:
                await world.upload(at_once=1)
            except EndpointUnreachable:
                world.store.on_part = None
                world.restart()
                await world.upload()
        else:
            await world.upload()

        assert world.store.objects["k"].body == world.data
        same = [n for n in NUMBERS if before[(n - 1) * PART : n * PART] == world.data[(n - 1) * PART : n * PART]]
        assert all(numbers_taken(world).count(number) == 1 for number in same)
        assert world.is_clean()
        world.catalog.close()


@pytest.mark.parametrize(
    "headers",
    [
        replace(HEADERS, content_type="text/html"),
        replace(HEADERS, posix=POSIX._replace(mode=0o600)),
        replace(HEADERS, posix=POSIX._replace(mtime_ns=5)),
        replace(HEADERS, posix=POSIX._replace(uid=None)),
    ],
)
async def test_other_metadata_begins_anew_and_aborts_the_old(world: World, headers: ObjectHeaders) -> None:
    await interrupted(world, 5)
    world.headers = headers

    written, _ = await world.upload()

    assert world.store.objects["k"].etag == written.etag
    assert world.store.asked()[:2] == ["abort_upload", "start_upload"]
    seen = await world.store.head("k")
    assert seen is not None
    assert (seen.posix, seen.content_type) == (headers.posix, headers.content_type)
    assert world.is_clean()


async def test_a_read_of_the_file_in_between_changes_nothing(world: World) -> None:
    await interrupted(world, 5)
    world.headers = replace(HEADERS, posix=POSIX._replace(atime_ns=2 * 10**18))

    world.assert_there(await world.upload())

    assert numbers_taken(world) == NUMBERS


async def test_a_store_that_was_found_to_check_sums_begins_anew(world: World) -> None:
    world.store.conditions = replace(world.store.conditions, checksum=False)
    await interrupted(world, 5)
    world.store.conditions = replace(world.store.conditions, checksum=True)

    world.assert_there(await world.upload())

    assert world.store.asked()[:2] == ["abort_upload", "start_upload"]


async def test_other_part_sizes_begin_anew(world: World) -> None:
    await interrupted(world, 5)

    world.assert_there(await world.upload(part_size=PART // 2))

    assert world.store.asked()[:2] == ["abort_upload", "start_upload"]


async def test_a_part_that_the_store_lost_or_replaced_is_sent_again(world: World) -> None:
    await interrupted(world, 5)
    (upload,) = world.store.uploads.values()
    del upload.parts[1]
    upload.parts[3] = b"somebody else's"
    world.store.taken.clear()

    world.assert_there(await world.upload())

    assert numbers_taken(world) == [1, 3, 5, 6]


@pytest.mark.parametrize("error", [None, AccessDenied, KeyRefused])
async def test_an_upload_that_is_gone_or_hidden_begins_anew(world: World, error: type[Exception] | None) -> None:
    await interrupted(world, 5)
    if error is None:
        world.store.uploads.clear()
    else:
        world.store.refusals[1] = error("listing of an upload", "no")
    world.store.taken.clear()

    world.assert_there(await world.upload())

    assert numbers_taken(world) == NUMBERS


@pytest.mark.parametrize("error", [EndpointUnreachable, Throttled, BadCredentials])
async def test_while_the_store_does_not_answer_nothing_is_given_up(world: World, error: type[Exception]) -> None:
    await interrupted(world, 5)
    for _ in range(3):
        world.store.refusals[len(world.store.requests) + 1] = error("listing of an upload", "not now")
        with pytest.raises(error):
            await world.upload()

    world.assert_there(await world.upload())

    assert numbers_taken(world) == NUMBERS


def test_a_part_of_another_length_is_never_the_same() -> None:
    """A checksum says little about the length."""
    begun = Begun(1, "id", PART, b"", (SentPart(1, 999, "a", 7), SentPart(2, PART, "b", 8)))
    listed = [UploadedPart(1, "a"), UploadedPart(2, "b")]

    assert reusable(begun, parts.plan_parts(2 * PART, PART), [7, 8], listed) == [SentPart(2, PART, "b", 8)]


async def test_of_two_that_fit_the_newer_goes_on(world: World) -> None:
    """The older one could not be aborted when the newer began."""
    await interrupted(world, 3)
    (older,) = world.catalog.uploads.all()
    world.catalog.uploads.finished(older.number)
    await interrupted(world, 5)
    (newer,) = world.catalog.uploads.all()
    assert older.upload_id is not None
    with world.catalog.transaction():
        world.catalog._connection.run(
            "INSERT INTO uploads (number, association, key, upload_id, started_ns, part_size, headers)"
            " SELECT number - 1, association, key, ?, started_ns, part_size, headers FROM uploads",
            (older.upload_id,),
        )
    assert [upload.upload_id for upload in world.catalog.uploads.all()] == [older.upload_id, newer.upload_id]
    world.store.taken.clear()

    world.assert_there(await world.upload())

    assert sorted(world.store.taken) == [(newer.upload_id, 5), (newer.upload_id, 6)]


async def test_who_looks_for_lost_uploads_keeps_the_one_that_is_known(world: World) -> None:
    await interrupted(world, 5)
    world.catalog.uploads.intended("dra-1", "k", 0)
    lost = await world.store.start_upload("k", HEADERS)

    world.assert_there(await world.upload())

    assert ("abort_upload", "k") in world.store.requests
    assert lost not in world.store.uploads
    assert numbers_taken(world) == NUMBERS


async def test_each_key_has_its_own(world: World) -> None:
    await interrupted(world, 3)
    await interrupted(world, 4, key="k/2")

    await world.upload(key="k/2")

    assert [upload.key for upload in world.catalog.uploads.all()] == ["k"]
    assert [upload.key for upload in world.store.uploads.values()] == ["k"]
    world.assert_there(await world.upload())


async def test_intents_that_pile_up_are_all_made_good(world: World) -> None:
    """Every start took effect, and no answer came; nor could the uploads be listed."""
    for _ in range(3):
        number = len(world.store.requests)
        world.store.refusals[number + 1] = EndpointUnreachable("listing of uploads", "away")
        world.store.losses |= dict.fromkeys((number + 1, number + 2), EndpointUnreachable("upload", "away"))
        with pytest.raises(EndpointUnreachable):
            await world.upload()
        world.store.refusals.clear()
        world.store.losses.clear()
    assert world.store.uploads
    other = await world.store.start_upload("k2", HEADERS)

    await world.upload()

    assert list(world.store.uploads) == [other]  # another key's
    assert world.catalog.uploads.all() == []


# ---------------------------------------------------------------- files that change, callers that go


@pytest.mark.parametrize("at", NUMBERS)
async def test_a_file_that_changes_while_its_parts_are_sent(world: World, at: int) -> None:
    async def on_part(number: int) -> None:
        if number == at:
            world.write((at - 1) * PART, b"other bytes")

    world.store.on_part = on_part
    with pytest.raises(LocalChanged):
        await world.upload(at_once=1)
    assert world.store.objects == {}

    world.store.on_part = None
    world.assert_there(await world.upload())
    assert numbers_taken(world) == NUMBERS


async def test_a_part_that_changed_after_it_was_sent_is_seen_by_the_caller(world: World) -> None:
    """What `still` is for: the bytes that were sent are no longer the file's."""
    judged = world.data

    async def on_part(number: int) -> None:
        if number == NUMBERS[-1]:
            world.write(0, b"other bytes")

    def still() -> None:
        if world.path.read_bytes() != judged:
            raise LocalChanged("export", "changed")

    world.store.on_part = on_part
    with pytest.raises(LocalChanged):
        await world.upload(at_once=1, still=still)
    assert world.store.objects == {}

    world.store.on_part = None
    world.store.taken.clear()
    world.assert_there(await world.upload())
    assert numbers_taken(world) == [1]


@pytest.mark.parametrize("at", NUMBERS)
@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_cancelled_upload_is_gone_on_with(world: World, at: int, at_once: int) -> None:
    async def on_part(number: int) -> None:
        if number == at:
            scope.cancel()
            await trio.sleep_forever()

    world.store.on_part = on_part
    with trio.CancelScope() as scope:
        try:
            await world.upload(at_once=at_once)
        except trio.Cancelled:  # not a group of them: the looker puts its entry back then
            left = list(world.store.uploads)
            raise
    assert scope.cancelled_caught
    assert left == list(world.store.uploads)

    world.restart()
    world.store.on_part = None
    world.assert_there(await world.upload())
    assert numbers_taken(world) == NUMBERS


async def test_a_failure_ends_the_parts_that_are_under_way(world: World) -> None:
    ended: list[int] = []

    async def on_part(number: int) -> None:
        if number == 3:
            await trio.testing.wait_all_tasks_blocked()
            raise EndpointUnreachable("upload", "cut")
        try:
            await trio.sleep_forever()
        finally:
            ended.append(number)

    world.store.on_part = on_part

    with pytest.raises(EndpointUnreachable):
        await world.upload(at_once=3)

    assert sorted(ended) == [1, 2]
