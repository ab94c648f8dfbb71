"""What an object store of ours promises: in memory, and over HTTP on one that ignores some conditions."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.blocking import Blocking, file_range

from fsxsync import _core
from fsxsync.errors import KeyRefused, LocalChanged, ObjectArchived, ObjectChanged, ObjectMissing, Throttled
from fsxsync.model.checksum import Algorithm, Checksum
from fsxsync.model.identity import Kind, Posix, Remote
from fsxsync.model.stub import StubMark
from fsxsync.ports import End, Fetched, Listed, ObjectHeaders, Priority, Sink

if TYPE_CHECKING:
    from contract.conftest import World

POSIX = Posix(0o640, 1000, 100, 1595002920123456789, 1595002920000000000)
FILE = ObjectHeaders(POSIX, Kind.FILE, "text/plain")
MIB = 1 << 20


def crc(data: bytes) -> int:
    return _core.crc64nvme(data)


def now(store: Blocking[Any], key: str) -> Remote:
    found: Remote | None = store.head(key)
    assert found is not None
    return found


def listing(store: Blocking[Any], prefix: str = "", start_after: str = "") -> list[Listed]:
    return [listed for page in store.list_pages(prefix, start_after=start_after) for listed in page]


# ---------------------------------------------------------------- looking


def test_what_is_put_is_seen(world: World) -> None:
    answer = world.store.put("f", b"hello", FILE, replaces=None)

    found = now(world.store, "f")
    assert (found.etag, found.version_id, found.size) == (answer.etag, answer.version_id, 5)
    assert (found.kind, found.posix, found.content_type) == (Kind.FILE, POSIX, "text/plain")
    assert abs(found.last_modified_ns - answer.date_ns) <= 2 * 10**9
    assert found.posix_known
    assert not found.archived


def test_nothing_is_none(world: World) -> None:
    assert world.store.head("nothing") is None


def test_directories_and_symlinks_are_told_by_their_metadata(world: World) -> None:
    posix = POSIX._replace(mode=0o755)
    world.store.put("d/", b"", ObjectHeaders(posix, Kind.DIRECTORY), replaces=None)
    world.store.put("l", b"../target", ObjectHeaders(posix, Kind.SYMLINK), replaces=None)

    assert now(world.store, "d/").kind is Kind.DIRECTORY
    assert now(world.store, "l").kind is Kind.SYMLINK
    assert world.store.get("l", limit=4096) == b"../target"


ODD_KEYS = [
    "p/ leading and  double spaces ",
    "p/a+b",
    "p/a%2Bb",
    pytest.param("p/control\x01\x1f\x7f", marks=pytest.mark.needs("control characters")),
    "p/tab\treturn\r",
    "p/ü€😀",
    "p/&<>\"'",
    "p/#?;=:@",
    "p/~-._",
    "p/back\\slash",
    "p/u\u0308",
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_stay_as_they_are(world: World, key: str) -> None:
    world.store.put(key, b"x", FILE, replaces=None)

    assert [listed.key for listed in listing(world.store, "p/")] == [key]
    assert now(world.store, key).size == 1
    copied = world.store.copy(key, key + "2", POSIX, Kind.FILE, expect=now(world.store, key), replaces=None)
    assert now(world.store, key + "2").etag == copied.etag
    world.store.delete(key, expect=now(world.store, key))
    assert world.store.head(key) is None


def test_a_listing_has_what_a_head_has(world: World) -> None:
    world.store.put("p/f", b"hello", FILE, replaces=None)

    (listed,) = listing(world.store, "p/")

    found = now(world.store, "p/f")
    assert (listed.etag, listed.size, listed.storage_class) == (found.etag, found.size, found.storage_class)
    assert abs(listed.last_modified_ns - found.last_modified_ns) < 10**9


@pytest.mark.needs("flat keys")
def test_a_listing_is_in_byte_order_below_the_prefix_and_after_a_key(world: World) -> None:
    keys = ["p/B", "p/a", "p/a b", "p/a/", "p/a/x", "p/a0", "p/é", "p/\uffee", "p/😀"]
    for key in reversed(keys):
        world.put(key)
    world.put("q")

    assert [listed.key for listed in listing(world.store, "p/")] == keys == sorted(keys, key=str.encode)
    assert [listed.key for listed in listing(world.store, "p/", "p/a/")] == keys[4:]
    assert listing(world.store, "nothing/") == []


@pytest.mark.needs("storage classes")
def test_an_archived_object_is_seen_and_not_read(world: World) -> None:
    world.put("f", b"cold", archived=True, storage_class="GLACIER")

    found = now(world.store, "f")
    assert (found.archived, found.storage_class) == (True, "GLACIER")
    with pytest.raises(ObjectArchived) as refused:
        world.store.read("f", 0, 4, etag=found.etag, version_id=found.version_id)
    assert refused.value.key == "f"
    with pytest.raises(ObjectArchived):
        world.store.copy("f", "g", POSIX, Kind.FILE, expect=found, replaces=None)


@pytest.mark.needs("storage classes")
def test_a_restore_is_asked_for_and_seen(world: World) -> None:
    """Twice is no error, nor of what is no archive's."""
    world.put("f", b"cold", archived=True, storage_class="GLACIER")
    world.put("warm", b"1")
    found = now(world.store, "f")
    assert not found.restoring

    for _ in range(2):
        world.store.restore("f", version_id=found.version_id, tier="bulk", days=2)
    world.store.restore("warm", version_id=None, tier="bulk", days=2)

    after = world.store.head("f", version_id=found.version_id)
    assert after is not None
    assert after.restoring or not after.archived  # moto restores at once
    assert after.etag == found.etag


def test_a_version_that_was_overwritten_has_a_head(world: World) -> None:
    world.put("f", b"old")
    found = now(world.store, "f")
    world.put("f", b"newer")

    seen = world.store.head("f", version_id=found.version_id)

    assert seen is not None
    assert seen.size == (5 if found.version_id is None else 3)
    assert now(world.store, "f").size == 5


# ---------------------------------------------------------------- reading


def test_a_range_is_exactly_those_bytes_of_that_version(world: World) -> None:
    world.put("f", b"0123456789")
    found = now(world.store, "f")

    assert world.store.read("f", 3, 4, etag=found.etag, version_id=None) == b"3456"
    assert world.store.read("f", 0, 10, etag=found.etag, version_id=found.version_id) == b"0123456789"
    assert world.store.read("f", 10, 0, etag=found.etag, version_id=None) == b""


def test_a_range_of_another_version_is_refused(world: World) -> None:
    world.put("f", b"old")
    old = now(world.store, "f")
    world.put("f", b"new")

    with pytest.raises(ObjectChanged):
        world.store.read("f", 0, 3, etag=old.etag, version_id=None)
    if old.version_id is not None:
        assert world.store.read("f", 0, 3, etag=old.etag, version_id=old.version_id) == b"old"


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (5, 6), (10, 1)])
def test_a_range_beyond_the_end_is_refused(world: World, offset: int, length: int) -> None:
    world.put("f", b"0123456789")

    with pytest.raises(ObjectChanged):
        world.store.read("f", offset, length, etag=now(world.store, "f").etag, version_id=None)


def test_what_is_gone_is_missing(world: World) -> None:
    with pytest.raises(ObjectMissing):
        world.store.read("f", 0, 1, etag="0" * 32, version_id=None)
    with pytest.raises(ObjectMissing):
        world.store.get("f", limit=1)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (0, 1), (9, 1)])
def test_what_is_fetched_comes_with_the_checksum_of_its_bytes(world: World, offset: int, length: int) -> None:
    world.put("f", b"0123456789")
    found = now(world.store, "f")

    data, told = world.store.fetched("f", offset, length, etag=found.etag, size=10)

    assert data == b"0123456789"[offset : offset + length]
    assert told.crc64nvme == crc(data)


def test_a_whole_object_comes_with_all_the_checksums_that_a_head_tells(world: World) -> None:
    world.store.put("f", b"hello", replace(FILE, crc64nvme=crc(b"hello")), replaces=None)
    found = now(world.store, "f")

    _, whole = world.store.fetched("f", 0, 5, etag=found.etag, size=5)
    _, part = world.store.fetched("f", 0, 4, etag=found.etag, size=5)

    assert Checksum(Algorithm.CRC64NVME, crc(b"hello").to_bytes(8, "big")) in whole.checksums
    assert whole.checksums == found.checksums
    assert part.checksums == ()


def test_an_etag_is_an_md5_where_the_store_was_seen_to_make_them_so(world: World) -> None:
    world.put("f", b"hello")
    md5 = Checksum(Algorithm.MD5, hashlib.md5(b"hello", usedforsecurity=False).digest())
    is_known = world.store.conditions.etag_is_md5

    found = now(world.store, "f")
    _, fetched = world.store.fetched("f", 0, 5, etag=found.etag, size=5)

    assert (md5 in found.checksums) is (md5 in fetched.checksums) is is_known


def test_many_are_fetched_and_what_is_another_version_or_gone_does_not_come(world: World) -> None:
    bodies = {f"f{number}": os.urandom(1 + 1000 * number) for number in range(6)}
    for key, body in bodies.items():
        world.put(key, body)
    found = {key: now(world.store, key) for key in bodies}
    marks = [StubMark(one.etag, one.size, key, one.version_id) for key, one in found.items()]
    marks[2] = replace(marks[2], etag="0" * 32)
    world.delete("f4")
    fds = [os.memfd_create(key) for key in bodies]
    came: dict[int, Fetched | None] = {}

    def begin(number: int, end: End) -> Sink | None:
        return None if number == 3 else Sink(fds[number], marks[number].size, 1, 2)

    try:
        world.store.fetch_many(marks, priority=Priority.BACKGROUND, begin=begin, came=came.__setitem__)
        read = [os.pread(fd, 10_000, 0) for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)

    assert sorted(came) == [0, 1, 2, 4, 5]
    lacking = sorted(number for number in came if came[number] is None)
    assert lacking in ([2, 4], [2]), "an older version may still be had by its id"
    for number in (0, 1, 5):
        key, fetched = f"f{number}", came[number]
        assert fetched is not None
        assert (read[number], fetched.crc64nvme) == (bodies[key], crc(bodies[key]))
        assert fetched.checksums == found[key].checksums


def test_a_small_object_is_read_whole_or_not_at_all(world: World) -> None:
    world.put("f", b"12345")
    found = now(world.store, "f")

    assert world.store.get("f", etag=found.etag, limit=5) == b"12345"
    with pytest.raises(KeyRefused, match="larger than 4"):
        world.store.get("f", limit=4)
    with pytest.raises(ObjectChanged):
        world.store.get("f", etag="0" * 32, limit=5)


# ---------------------------------------------------------------- writing


def test_a_put_replaces_only_what_it_saw(world: World) -> None:
    world.store.put("f", b"1", FILE, replaces=None)
    first = now(world.store, "f")
    world.store.put("f", b"22", FILE, replaces=first)

    for stale in (first, None):
        with pytest.raises(ObjectChanged):
            world.store.put("f", b"333", FILE, replaces=stale)
    assert world.raw("f").body == b"22"


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_files_range_is_put_as_it_is(world: World, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with file_range(data) as body:
        answer = world.store.put("f", body, replace(FILE, crc64nvme=crc(data)), replaces=None)

    assert world.raw("f").body == data
    assert answer.crc64nvme == crc(data) == now(world.store, "f").crc64nvme


@pytest.mark.parametrize("size", [1, 300_000, 3 * MIB])
def test_a_file_that_is_not_what_was_announced_is_not_put(world: World, size: int) -> None:
    world.store.put("old", b"old", FILE, replaces=None)
    headers = replace(FILE, crc64nvme=crc(b"x" * size))

    with file_range(b"x" * (size - 1) + b"y") as body:
        for key, replaces in [("new", None), ("old", now(world.store, "old"))]:
            with pytest.raises(LocalChanged):
                world.store.put(key, body, headers, replaces=replaces)

    assert [listed.key for listed in listing(world.store)] == ["old"]
    assert world.raw("old").body == b"old"


def test_a_file_that_is_shorter_than_announced_is_not_put(world: World) -> None:
    headers = replace(FILE, crc64nvme=crc(b"12345after" + bytes(90)))

    with file_range(b"12345") as body, pytest.raises(LocalChanged):
        world.store.put("f", replace(body, length=100), headers, replaces=None)

    assert world.store.head("f") is None


def test_a_put_does_not_bring_back_what_was_deleted(world: World) -> None:
    world.store.put("f", b"1", FILE, replaces=None)
    seen = now(world.store, "f")
    world.delete("f")

    with pytest.raises(ObjectChanged):
        world.store.put("f", b"2", FILE, replaces=seen)
    assert world.store.head("f") is None


def test_a_deleted_key_is_free_for_every_kind_of_write(world: World) -> None:
    store = world.store
    world.put("source", b"1")

    def upload() -> None:
        upload_id = store.start_upload("f", FILE)
        part = store.send_part("f", upload_id, 1, b"1")
        store.complete_upload("f", upload_id, [part], replaces=None, crc64nvme=crc(b"1"))

    def copy() -> None:
        store.copy("source", "f", POSIX, Kind.FILE, expect=now(store, "source"), replaces=None)

    for write in (lambda: store.put("f", b"1", FILE, replaces=None), upload, copy):
        world.put("f", b"there")
        world.delete("f")
        write()
        assert world.raw("f").body == b"1"


def test_an_upload_does_not_bring_back_what_was_deleted(world: World) -> None:
    store = world.store
    world.put("f", b"1")
    seen = now(store, "f")
    upload_id = store.start_upload("f", FILE)
    part = store.send_part("f", upload_id, 1, b"2")
    world.delete("f")

    with pytest.raises(ObjectChanged):
        store.complete_upload("f", upload_id, [part], replaces=seen, crc64nvme=crc(b"2"))
    store.abort_upload("f", upload_id)
    assert store.head("f") is None


def test_uploads_that_nobody_ended_are_found_by_their_key(world: World) -> None:
    store = world.store
    upload_id, other = store.start_upload("f", FILE), store.start_upload("f2", FILE)
    assert store.uploads_of("f") == [upload_id]
    store.abort_upload("f", upload_id)
    assert store.uploads_of("f") == []
    assert store.uploads_of("f2") == [other]
    store.abort_upload("f2", other)


def test_the_parts_that_are_there_are_told_until_the_upload_ends(world: World) -> None:
    store = world.store
    upload_id = store.start_upload("f", FILE)
    assert store.parts_of("f", upload_id) == []

    second = store.send_part("f", upload_id, 2, b"end")
    first = store.send_part("f", upload_id, 1, b"x" * 5 * MIB)
    again = store.send_part("f", upload_id, 1, b"y" * 5 * MIB)

    assert first != again
    assert store.parts_of("f", upload_id) == [again, second]
    store.abort_upload("f", upload_id)
    assert store.parts_of("f", upload_id) is None


def test_a_completed_upload_has_no_parts(world: World) -> None:
    store = world.store
    upload_id = store.start_upload("f", FILE)
    part = store.send_part("f", upload_id, 1, b"1")
    store.complete_upload("f", upload_id, [part], replaces=None, crc64nvme=crc(b"1"))

    assert store.parts_of("f", upload_id) is None


@pytest.mark.parametrize("size", [1, 6 * MIB])
def test_a_part_that_is_not_what_was_announced_is_no_part(world: World, size: int) -> None:
    store = world.store
    upload_id = store.start_upload("f", FILE)

    with file_range(b"x" * size) as body, pytest.raises(LocalChanged):
        store.upload_part("f", upload_id, 1, body, crc64nvme=crc(b"y" * size))

    assert store.parts_of("f", upload_id) == []
    store.abort_upload("f", upload_id)


def test_an_upload_replaces_only_what_it_saw(world: World) -> None:
    store = world.store

    def upload(body: bytes, replaces: Remote | None) -> None:
        upload_id = store.start_upload("f", FILE)
        part = store.send_part("f", upload_id, 1, body)
        try:
            store.complete_upload("f", upload_id, [part], replaces=replaces, crc64nvme=crc(body))
        except ObjectChanged:
            store.abort_upload("f", upload_id)
            raise

    upload(b"1", None)
    first = now(store, "f")
    assert (first.posix, first.content_type) == (POSIX, "text/plain")
    upload(b"22", first)
    for stale in (first, None):
        with pytest.raises(ObjectChanged):
            upload(b"333", stale)

    assert world.raw("f").body == b"22"
    assert world.uploads() == 0


def test_an_upload_joins_its_parts(world: World) -> None:
    store = world.store
    upload_id = store.start_upload("f", FILE)
    second = store.send_part("f", upload_id, 2, b"end")
    first = store.send_part("f", upload_id, 1, b"x" * 5 * MIB)

    answer = store.complete_upload(
        "f", upload_id, [first, second], replaces=None, crc64nvme=crc(b"x" * 5 * MIB + b"end")
    )

    found = now(store, "f")
    assert found.etag == answer.etag
    assert found.etag.endswith("-2")
    assert found.size == 5 * MIB + 3
    assert store.read("f", 5 * MIB - 1, 4, etag=found.etag, version_id=None) == b"xend"


def test_an_upload_that_is_gone_is_looked_at_again_and_aborting_it_is_fine(world: World) -> None:
    store = world.store
    upload_id = store.start_upload("f", FILE)
    part = store.send_part("f", upload_id, 1, b"1")
    store.abort_upload("f", upload_id)

    store.abort_upload("f", upload_id)
    with pytest.raises((ObjectChanged, Throttled)):  # moto has a 500 for it; both mean another look
        store.complete_upload("f", upload_id, [part], replaces=None, crc64nvme=crc(b"1"))
    assert store.head("f") is None


def test_a_delete_removes_only_what_it_saw(world: World) -> None:
    world.put("f", b"old")
    old = now(world.store, "f")
    world.put("f", b"newer")

    with pytest.raises(ObjectChanged):
        world.store.delete("f", expect=old)
    assert world.raw("f").body == b"newer"

    newer = now(world.store, "f")
    world.store.delete("f", expect=newer)
    assert world.store.head("f") is None
    world.store.delete("f", expect=newer)


# ---------------------------------------------------------------- copying

FOREIGN = {"project": "x", "mtime": "1.5"}


def foreign_object(world: World) -> Remote:
    world.put(
        "f",
        b"hello",
        metadata=FOREIGN | {"file-permissions": "0100600", "file-owner": "1", "user-agent": "aws-datasync"},
        content_type="text/html",
        cache_control="max-age=60",
        tags={"team": "ab", "cost": "1"},
        storage_class=world.colder,
    )
    return now(world.store, "f")


@pytest.mark.parametrize("target", ["f", "g"])
def test_a_copy_keeps_all_but_the_posix_metadata(world: World, target: str) -> None:
    seen = foreign_object(world)
    before = world.raw("f")

    answer = world.store.copy("f", target, POSIX, Kind.FILE, expect=seen, replaces=seen if target == "f" else None)

    after = world.raw(target)
    assert (after.body, after.content_type, after.cache_control) == (b"hello", "text/html", "max-age=60")
    assert (after.tags, after.storage_class) == (before.tags, world.colder)
    assert {name: after.metadata[name] for name in FOREIGN} == FOREIGN
    assert after.metadata["user-agent"] == "aws-fsx-lustre"
    found = now(world.store, target)
    assert found.posix == POSIX
    assert (found.etag, found.version_id) == (answer.etag, answer.version_id)


def test_a_copy_replaces_extended_attributes_only_if_it_says_something_of_them(world: World) -> None:
    world.put("f", b"hello", metadata={"project": "x", "fsxsync-xattrs": "a=MQ=="})
    for said, wanted in ((None, "a=MQ=="), ("b=Mg==", "b=Mg=="), ("", None)):
        seen = now(world.store, "f")

        world.store.copy("f", "f", POSIX._replace(xattrs=said), Kind.FILE, expect=seen, replaces=seen)

        after = world.raw("f").metadata
        assert (after.get("fsxsync-xattrs"), after["project"]) == (wanted, "x")
        assert now(world.store, "f").posix == POSIX._replace(xattrs=wanted)


def test_a_copy_takes_only_the_version_it_saw(world: World) -> None:
    world.put("f", b"old")
    old = now(world.store, "f")
    world.put("f", b"newer")

    for target, replaces in [("f", old), ("g", None)]:
        with pytest.raises(ObjectChanged):
            world.store.copy("f", target, POSIX, Kind.FILE, expect=old, replaces=replaces)
    assert world.raw("f").metadata == {}
    assert world.store.head("g") is None


def test_a_copy_takes_back_no_metadata_that_it_did_not_see(world: World) -> None:
    """The same bytes, and so the same ETag."""
    world.put("f", b"1", metadata={"file-permissions": "0100600"})
    seen = now(world.store, "f")
    world.put("f", b"1", metadata={"file-permissions": "0100640"})

    for target, replaces in [("f", seen), ("g", None)]:
        with pytest.raises(ObjectChanged):
            world.store.copy("f", target, POSIX, Kind.FILE, expect=seen, replaces=replaces)
    assert world.raw("f").metadata == {"file-permissions": "0100640"}
    assert world.store.head("g") is None

    unread = seen._replace(posix_known=False, version_id=None)
    world.store.copy("f", "g", POSIX, Kind.FILE, expect=unread, replaces=None)
    assert now(world.store, "g").posix == POSIX


def test_a_copy_overwrites_nothing_unseen(world: World) -> None:
    world.put("f", b"source")
    world.put("g", b"target")
    seen, target = now(world.store, "f"), now(world.store, "g")
    world.put("g", b"target, newer")

    for stale in (None, target):
        with pytest.raises(ObjectChanged):
            world.store.copy("f", "g", POSIX, Kind.FILE, expect=seen, replaces=stale)
    assert world.raw("g").body == b"target, newer"

    world.store.copy("f", "g", POSIX, Kind.FILE, expect=seen, replaces=now(world.store, "g"))
    assert world.raw("g").body == b"source"


def test_a_copy_of_what_is_gone(world: World) -> None:
    world.put("f", b"1")
    seen = now(world.store, "f")
    world.delete("f")

    with pytest.raises(ObjectMissing):
        world.store.copy("f", "g", POSIX, Kind.FILE, expect=seen, replaces=None)
    with pytest.raises(ObjectChanged):
        world.store.copy("f", "f", POSIX, Kind.FILE, expect=seen, replaces=seen)
