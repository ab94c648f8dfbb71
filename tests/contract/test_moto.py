"""What only a store over HTTP has: probing, paging, checksums, and errors that a person can act on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.moto_server import OBEYED, MotoServer

from fsxsync import _core
from fsxsync.errors import (
    AccessDenied,
    BadCredentials,
    BadInput,
    BucketMissing,
    EndpointUnreachable,
    FsxSyncError,
    ObjectChanged,
    RepositoryError,
    Throttled,
)
from fsxsync.model.association import Access
from fsxsync.model.identity import Kind, Posix
from fsxsync.model.parts import Part
from fsxsync.ports import Begun, Conditions, Listed, ObjectHeaders, ObjectStore, Unrecorded, UploadedPart
from fsxsync.repository import answers
from fsxsync.repository.bookkeeping import Bookkeeping
from fsxsync.repository.copying import Source
from fsxsync.repository.listing import Page

if TYPE_CHECKING:
    from contract.conftest import MotoWorld, OpenStore

MIB = 1 << 20
FILE = ObjectHeaders(Posix(0o644), Kind.FILE)
MakeWorld = Callable[..., "MotoWorld"]


def deny(world: MotoWorld, *actions: str) -> None:
    listed = ", ".join(f'"s3:{action}"' for action in actions)
    arn = f"arn:aws:s3:::{world.bucket}"
    world.client.put_bucket_policy(
        Bucket=world.bucket,
        Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", '
        f'"Action": [{listed}], "Resource": ["{arn}", "{arn}/*"]}}]}}',
    )


# ---------------------------------------------------------------- filling a bucket at once


def test_what_a_bucket_is_filled_with_is_as_if_it_was_put(make_world: MakeWorld, moto: MotoServer) -> None:
    world = make_world()
    at = {"Bucket": world.bucket}
    world.client.put_object(**at, Key="ü &/1", Body=b"data")

    moto.fill(world.bucket, {"ü &/2": b"data", "ü &/3": b""})

    assert [found["Key"] for found in world.client.list_objects_v2(**at)["Contents"]] == ["ü &/1", "ü &/2", "ü &/3"]
    put, filled = (world.client.head_object(**at, Key=f"ü &/{number}") for number in (1, 2))
    for told in (put, filled):
        del told["ResponseMetadata"], told["LastModified"]
    assert filled == put
    assert [world.client.get_object(**at, Key=f"ü &/{number}")["Body"].read() for number in (2, 3)] == [b"data", b""]


# ---------------------------------------------------------------- probing


@pytest.mark.parametrize("versioned", [False, True])
def test_the_probe_finds_what_moto_obeys_and_leaves_nothing(make_world: MakeWorld, versioned: bool) -> None:
    world = make_world(versioned=versioned, probed=False)
    world.put("p/f", b"mine")

    found = world.store.probe("p/")

    assert found == world.store.behind.conditions == replace(OBEYED, versioned=versioned)
    assert world.versions() == ["p/f"]
    assert world.uploads() == 0


def test_the_probe_cleans_up_where_versions_were_suspended(make_world: MakeWorld) -> None:
    world = make_world(versioned=True, probed=False)
    suspended = {"Status": "Suspended"}
    world.client.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration=suspended)

    assert not world.store.probe("p/").versioned

    assert world.versions() == []


def test_where_nothing_may_be_written_the_probe_finds_nothing(make_world: MakeWorld) -> None:
    world = make_world(probed=False)
    deny(world, "PutObject", "GetBucketVersioning")

    assert world.store.probe("p/") == Conditions()
    assert world.versions() == []


@pytest.mark.parametrize("operation", ["CompleteMultipartUpload", "CopyObject", "DeleteObject"])
def test_the_probe_leaves_nothing_when_it_fails_midway(
    make_world: MakeWorld, open_s3: OpenStore, moto: MotoServer, operation: str
) -> None:
    world = make_world(versioned=True, probed=False)
    store = open_s3(world.bucket, moto.access)
    with store.behind._books.connection.ask("setup") as client:
        pass
    failures = iter([EndpointUnreachable("the test", "pulls the plug")])

    def fail(**_unused: object) -> None:
        for failure in failures:
            raise failure

    client.meta.events.register(f"before-call.s3.{operation}", fail)

    with pytest.raises(EndpointUnreachable):
        store.probe("p/")

    assert world.versions() == []
    assert world.uploads() == 0


def test_the_probe_of_a_missing_bucket_says_so(open_s3: OpenStore, moto: MotoServer) -> None:
    store = open_s3("nobody-made-it", moto.access)

    with pytest.raises(BucketMissing):
        store.probe("")


# ---------------------------------------------------------------- looking


def test_a_listing_of_many_pages_has_every_key_once(make_world: MakeWorld) -> None:
    world = make_world()
    for number in range(12):
        world.put(f"p/{number:02}")
    store = world.store
    store.behind._books._payer = {"MaxKeys": 5}  # goes with every request, so that twelve keys make three pages

    pages = list(store.list_pages("p/"))

    assert [len(page) for page in pages] == [5, 5, 2]
    assert [listed.key for page in pages for listed in page] == [f"p/{number:02}" for number in range(12)]


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"], ["é", "z"]])
def test_a_listing_out_of_order_is_refused_before_anything_looks_deleted(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    store = make_world().store
    entries = [Listed(key, "e", 1, 0) for key in keys]
    monkeypatch.setattr(Bookkeeping, "_page", lambda *_unused: Page(entries, None, is_truncated=False))

    with pytest.raises(RepositoryError, match="byte order"):
        list(store.list_pages(""))


def test_a_listing_that_never_ends_is_refused(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_world().store
    monkeypatch.setattr(Bookkeeping, "_page", lambda *_unused: Page([], "again", is_truncated=True))

    with pytest.raises(RepositoryError, match="more"):
        list(store.list_pages(""))


def test_the_checksum_comes_back_from_a_head(make_world: MakeWorld) -> None:
    store = make_world().store
    crc = _core.crc64nvme(b"hello")

    store.put("f", b"hello", replace(FILE, crc64nvme=crc), replaces=None)

    found = store.head("f")
    assert found is not None
    assert found.crc64nvme == crc


def test_a_missing_bucket_is_not_a_missing_object(open_s3: OpenStore, moto: MotoServer) -> None:
    store = open_s3("nobody-made-it", moto.access)

    for ask in (
        lambda: store.check(""),
        lambda: store.head("f"),
        lambda: store.read("f", 0, 1, etag="0"),
        lambda: list(store.list_pages("")),
        lambda: store.get("f", limit=1),
        lambda: store.put("f", b"", FILE, replaces=None),
        lambda: store.start_upload("f", FILE),
        lambda: store.parts_of("f", "upload"),
    ):
        with pytest.raises(BucketMissing) as missing:
            ask()
        assert "nobody-made-it" in str(missing.value)


def test_access_denied_names_the_object_and_what_to_grant(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("f", b"1")
    deny(world, "GetObject", "PutObject", "DeleteObject")
    store = world.store

    for ask in (
        lambda: store.get("f", limit=1),
        lambda: store.put("g", b"", FILE, replaces=None),
    ):
        with pytest.raises(AccessDenied, match=r"s3://.*/[fg]: .*grant s3:") as denied:
            ask()
        assert "\n" not in str(denied.value)


# ---------------------------------------------------------------- writing


def test_association_wide_properties_go_with_every_write(
    make_world: MakeWorld, open_s3: OpenStore, moto: MotoServer
) -> None:
    world = make_world()
    access = replace(moto.access, storage_class="STANDARD_IA", sse="aws:kms:key-1", acl="bucket-owner-full-control")
    store = open_s3(world.bucket, access)

    store.put("f", b"1", FILE, replaces=None)
    store.put("l", b"t", ObjectHeaders(Posix(), Kind.SYMLINK), replaces=None)

    head = world.client.head_object(Bucket=world.bucket, Key="f")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "aws:kms")
    assert head["SSEKMSKeyId"].endswith("key-1")
    assert world.raw("l").storage_class == "STANDARD"


EVENT = "provide-client-params.s3.CompleteMultipartUpload"


def test_an_upload_with_checksums_tells_those_of_the_parts_twice(make_world: MakeWorld) -> None:
    """MinIO and versitygw want them; moto looks at none."""
    store = make_world().store
    store.behind.conditions = replace(OBEYED, checksum=True)
    crc = _core.crc64nvme(b"hello")
    asked: list[dict[str, Any]] = []

    def see(params: dict[str, Any], **_unused: object) -> None:
        asked.append(dict(params))

    with store.behind._books.connection.ask("") as client:
        client.meta.events.register_first(EVENT, see)

    upload_id = store.start_upload("f", FILE)
    part = store.send_part("f", upload_id, 1, b"hello")
    store.complete_upload("f", upload_id, [part], replaces=None, crc64nvme=crc)

    client.meta.events.unregister(EVENT, see)
    told = answers.checksum_param(crc)
    [params] = asked
    assert [part["ChecksumCRC64NVME"] for part in params["MultipartUpload"]["Parts"]] == [told]
    assert (params["ChecksumCRC64NVME"], params["ChecksumType"]) == (told, "FULL_OBJECT")


@pytest.fixture
def in_parts(make_world: MakeWorld) -> MotoWorld:
    """A store that copies anything over 5 MiB in parts."""
    world = make_world()
    store = world.store.behind
    store._copy_limit = store._copy_part = 5 * MIB
    return world


def test_a_large_copy_in_parts_keeps_all_but_the_posix_metadata(in_parts: MotoWorld) -> None:
    body = bytes(5 * MIB) + b"end"
    in_parts.put("f", body, metadata={"project": "x"}, content_type="text/html", cache_control="no", tags={"a": "b"})
    seen = in_parts.store.head("f")
    assert seen is not None

    answer = in_parts.store.copy("f", "g", Posix(0o600), Kind.FILE, expect=seen, replaces=None)

    after = in_parts.raw("g")
    assert answer.etag.endswith("-2")
    assert after.body == body
    assert (after.content_type, after.cache_control, after.tags) == ("text/html", "no", {"a": "b"})
    assert after.metadata["project"] == "x"
    assert after.metadata["file-permissions"] == "0100600"


class Remembering(Unrecorded):
    """One upload."""

    def __init__(self) -> None:
        self.begun: list[Begun] = []

    def remembered(self, store: ObjectStore, key: str) -> list[Begun]:
        return self.begun

    def started(self, number: int, upload_id: str, *, part_size: int, described: bytes) -> None:
        self.begun = [Begun(number, upload_id, part_size, described)]


def test_a_large_copy_of_which_nobody_may_see_the_parts_begins_anew(
    in_parts: MotoWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts.put("f", bytes(5 * MIB + 1))
    seen, store, journal = in_parts.store.head("f"), in_parts.store.behind, Remembering()
    assert seen is not None
    monkeypatch.setattr(store, "_journal", journal)
    copy = partial(in_parts.store.copy, "f", "g", Posix(0o600), Kind.FILE, expect=seen, replaces=None)

    def refuse(name: str, error: type[RepositoryError]) -> None:
        def refused(*_args: object, **_more: object) -> None:
            raise error("asking", "no")

        monkeypatch.setattr(store._books, name, refused)

    complete = store._books.complete_upload
    refuse("complete_upload", Throttled)
    with pytest.raises(Throttled):
        copy()
    monkeypatch.setattr(store._books, "complete_upload", complete)
    [before] = journal.begun
    refuse("parts_of", Throttled)
    with pytest.raises(Throttled):  # it may be told another time
        copy()
    assert journal.begun == [before]
    refuse("parts_of", AccessDenied)

    copy()

    assert journal.begun[0].upload_id != before.upload_id
    assert in_parts.raw("g").body == bytes(5 * MIB + 1)


@pytest.mark.parametrize("target", ["f", "g"])
@pytest.mark.parametrize("size", [1, 5 * MIB + 1])
def test_a_copy_survives_an_end_that_is_no_time(in_parts: MotoWorld, target: str, size: int) -> None:
    in_parts.put("f", bytes(size))
    seen, head = in_parts.store.head("f"), in_parts.store.behind._head
    assert seen is not None

    async def raw_head(key: str, version_id: str | None = None) -> dict[str, Any] | None:
        found = await head(key, version_id)
        return None if found is None else found | {"Expires": "never"}

    in_parts.store.behind._head = raw_head  # type: ignore[method-assign]

    replaces = seen if target == "f" else None
    in_parts.store.copy("f", target, Posix(0o600), Kind.FILE, expect=seen, replaces=replaces)

    assert in_parts.raw(target).metadata["file-permissions"] == "0100600"


def before_part_2(world: MotoWorld, act: Callable[[], object]) -> None:
    """Have something happen while a copy in parts is under way."""
    books = world.store.behind._books
    copy_part = books.copy_part

    def act_and_copy(source: Source, target: str, upload_id: str, part: Part) -> UploadedPart:
        if part.number == 2:
            act()
        return copy_part(source, target, upload_id, part)

    books.copy_part = act_and_copy  # type: ignore[method-assign]


@pytest.mark.parametrize("there", [None, b"there"])
@pytest.mark.parametrize("obeyed", [True, False])
def test_a_large_copy_overwrites_nothing_unseen_and_leaves_no_upload(
    in_parts: MotoWorld, there: bytes | None, *, obeyed: bool
) -> None:
    """Neither what was there before nor what somebody puts there while parts are copied."""
    store = in_parts.store
    if not obeyed:
        store.behind.conditions = replace(store.behind.conditions, complete_if_none_match=False)
    in_parts.put("f", bytes(5 * MIB + 1))
    if there is not None:
        in_parts.put("g", there)
    seen, replaces = store.head("f"), store.head("g")
    assert seen is not None
    before_part_2(in_parts, lambda: in_parts.put("g", b"came meanwhile"))

    with pytest.raises(ObjectChanged):
        store.copy("f", "g", Posix(0o600), Kind.FILE, expect=seen, replaces=replaces)

    assert in_parts.raw("g").body == b"came meanwhile"
    assert in_parts.uploads() == 0


def test_a_large_copy_onto_itself_takes_back_no_metadata_that_were_set_meanwhile(in_parts: MotoWorld) -> None:
    store, theirs = in_parts.store, {"file-permissions": "0100640"}
    in_parts.put("f", bytes(5 * MIB + 1))
    seen = store.head("f")
    assert seen is not None
    before_part_2(in_parts, lambda: in_parts.put("f", bytes(5 * MIB + 1), metadata=theirs))

    with pytest.raises(ObjectChanged):
        store.copy("f", "f", Posix(0o600), Kind.FILE, expect=seen, replaces=seen)

    assert in_parts.raw("f").metadata == theirs
    assert in_parts.uploads() == 0


def test_a_large_copy_over_what_was_never_seen(in_parts: MotoWorld) -> None:
    in_parts.put("f", bytes(5 * MIB + 1))
    in_parts.put("g", b"there")
    seen = in_parts.store.head("f")
    assert seen is not None

    with pytest.raises(ObjectChanged):
        in_parts.store.copy("f", "g", Posix(0o600), Kind.FILE, expect=seen, replaces=None)

    assert in_parts.raw("g").body == b"there"


@pytest.mark.parametrize("again", [False, True], ids=["another version", "the same bytes later"])
@pytest.mark.parametrize("target", ["f", "g"])
def test_a_large_copy_mixes_no_two_versions(in_parts: MotoWorld, target: str, *, again: bool) -> None:
    """Where the store does not look at x-amz-copy-source-if-match: at whose bytes each part is of, then. What is there
    again may have been away in between."""
    store, head, came = in_parts.store, in_parts.store.behind._head, threading.Event()
    in_parts.put("f", bytes(5 * MIB + 1))
    seen = store.head("f")
    assert seen is not None
    body = bytes(5 * MIB + 1) if again else b"1" * (5 * MIB + 1)

    def put() -> None:
        in_parts.put("f", body)
        came.set()

    async def later_head(key: str, version_id: str | None = None) -> dict[str, Any] | None:
        found = await head(key, version_id)
        assert found is not None or key == "g"
        return found and found | {"LastModified": found["LastModified"] + timedelta(seconds=came.is_set())}

    before_part_2(in_parts, put)
    store.behind._head = later_head  # type: ignore[method-assign]

    replaces = seen if target == "f" else None
    with pytest.raises(ObjectChanged):
        store.copy("f", target, Posix(0o600), Kind.FILE, expect=seen, replaces=replaces)

    assert in_parts.raw("f").body == body
    assert store.head("g") is None
    assert in_parts.uploads() == 0


def test_foreign_metadata_beyond_ascii_survives_a_copy(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("f", b"1", metadata={"owner": "=?UTF-8?B?w7w=?="})
    store = world.store
    seen, head = store.head("f"), store.behind._head
    assert seen is not None

    async def raw_head(key: str, version_id: str | None = None) -> dict[str, Any] | None:
        found = await head(key, version_id)
        return None if found is None else found | {"Metadata": {"owner": "\xc3\xbc"}}

    store.behind._head = raw_head  # type: ignore[method-assign]

    store.copy("f", "f", Posix(0o600), Kind.FILE, expect=seen, replaces=seen)

    assert world.raw("f").metadata["owner"] in {"ü", "=?utf-8?b?w7w=?=", "=?utf-8?q?=C3=BC?="}


# ---------------------------------------------------------------- what a person has to mend


def one_line(error: FsxSyncError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 400 and bool(error.advice)


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_dead_endpoint_is_said_to_be_one(open_s3: OpenStore) -> None:
    store = open_s3("b", Access(endpoint_url=f"http://127.0.0.1:{unused_port()}"))

    for ask in (lambda: store.check(""), lambda: store.head("f")):
        with pytest.raises(EndpointUnreachable, match="--endpoint-url") as refused:
            ask()
        assert one_line(refused.value)


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something that answers, and is no S3."""
    import threading  # noqa: PLC0415
    from http.server import BaseHTTPRequestHandler, HTTPServer  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html><p>Welcome!</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_unused: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_that_is_no_s3_is_refused(open_s3: OpenStore, web_server: str) -> None:
    store = open_s3("b", Access(endpoint_url=web_server))

    for ask in (lambda: store.check(""), lambda: store.head("f"), lambda: store.put("f", b"", FILE, replaces=None)):
        with pytest.raises(RepositoryError):
            ask()


def test_an_endpoint_that_is_no_url_is_the_callers_mistake(open_s3: OpenStore) -> None:
    store = open_s3("b", Access(endpoint_url="localhost:9000"))

    for ask in (lambda: store.check(""), lambda: store.head("f")):
        with pytest.raises(BadInput, match="http://host:port"):
            ask()


def test_no_credentials_and_no_such_profile(
    open_s3: OpenStore, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for access in (moto.access, replace(moto.access, profile="nobody")):
        store = open_s3("b", access)
        for ask in (partial(store.check, ""), partial(store.head, "f")):
            with pytest.raises(BadCredentials, match="--profile") as refused:
                ask()
            assert one_line(refused.value)


def test_credentials_that_were_mended_are_taken_without_a_restart(
    make_world: MakeWorld, open_s3: OpenStore, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_s3(make_world().bucket, moto.access)
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        for ask in (lambda: store.check(""), lambda: store.head("f")):
            with pytest.raises(BadCredentials):
                ask()

    store.check("")
    assert store.head("f") is None


def test_anonymous_needs_no_credentials(
    make_world: MakeWorld, open_s3: OpenStore, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    world.client.put_object(Bucket=world.bucket, Key="f", Body=b"1", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_s3(world.bucket, replace(moto.access, anonymous=True))

    store.check("")
    assert store.get("f", limit=1) == b"1"


def test_a_key_that_the_store_does_not_know_is_bad_credentials_on_every_request(
    open_s3: OpenStore,
) -> None:
    with MotoServer(env={"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as strict:
        store = open_s3("b", strict.access)
        for ask in (
            lambda: store.check(""),
            lambda: store.head("f"),
            lambda: store.put("f", b"", FILE, replaces=None),
            lambda: store.read("f", 0, 1, etag="0"),
        ):
            with pytest.raises(BadCredentials, match="InvalidAccessKeyId") as refused:
                ask()
            assert one_line(refused.value)
            assert "testing-secret" not in str(refused.value)
