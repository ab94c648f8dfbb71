"""A store and the world outside of it: in memory, on moto, on a real server. Every test of the contract runs on all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from fakes.store import FakeStore
from support.blocking import Blocking, Loop
from support.built_servers import BuiltServer, built_program, chosen_server, server_class, skip_what_it_lacks
from support.moto_server import ENVIRONMENT, MotoServer, moto_of_the_run

from fsxsync.model.association import Access
from fsxsync.model.measures import Requests
from fsxsync.ports import Conditions
from fsxsync.repository.bookkeeping import _client
from fsxsync.repository.session import Connection
from fsxsync.repository.store import S3Store, open_store

BUILT = os.environ.get("FSXSYNC_TEST_SERVER", "versitygw")
"""The real server beside moto (`make test-s3 SERVER=…`)."""
FORGOTTEN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """boto3's chain finds the test's credentials, never the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FORGOTTEN:
            patch.delenv(name, raising=False)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def moto(environment: None) -> MotoServer:
    return moto_of_the_run()


@pytest.fixture(scope="session")
def loop(environment: None) -> Iterator[Loop]:
    with Loop() as running:
        yield running


OpenStore = Callable[..., Blocking[S3Store]]


@pytest.fixture
def open_s3(loop: Loop) -> Iterator[OpenStore]:
    """Opens a store with a client of its own."""
    opened: list[S3Store] = []

    def open_it(bucket: str, access: Access, conditions: Conditions | None = None) -> Blocking[S3Store]:
        opened.append(open_store(bucket, access, conditions, loop.wire()))
        return loop.blocking(opened[-1])

    yield open_it
    for store in opened:
        store.close()


@dataclass(frozen=True, slots=True)
class Raw:
    """An object as others see it."""

    body: bytes
    metadata: Mapping[str, str]
    content_type: str
    cache_control: str | None
    tags: Mapping[str, str]
    storage_class: str


class World(Protocol):
    """A store, and another user of its bucket."""

    store: Blocking[Any]
    colder: str
    """A storage class other than the default, where the store has any."""

    def put(self, key: str, body: bytes = b"", **properties: Any) -> None: ...

    def delete(self, key: str) -> None: ...

    def raw(self, key: str) -> Raw: ...

    def uploads(self) -> int: ...


class FakeWorld:
    colder = "STANDARD_IA"

    def __init__(self, loop: Loop, *, versioned: bool) -> None:
        self._fake = FakeStore(versioned=versioned)
        self.store = loop.blocking(self._fake)
        self.put = self._fake.outside_put
        self.delete = self._fake.outside_delete

    def raw(self, key: str) -> Raw:
        found = self._fake.objects[key]
        return Raw(
            found.body,
            found.metadata,
            found.content_type,
            found.cache_control,
            found.tags,
            found.storage_class,
        )

    def uploads(self) -> int:
        return len(self._fake.uploads)


class MotoWorld:
    def __init__(
        self,
        server: MotoServer | BuiltServer,
        loop: Loop,
        connection: Connection[Any],
        client: Any,
        *,
        versioned: bool,
        conditions: Conditions | None,
    ) -> None:
        self.client = client
        self.colder = "STANDARD" if "storage classes" in server.lacks else "STANDARD_IA"
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=self.bucket)
        if versioned:
            client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        store = open_store(self.bucket, server.access, conditions, loop.wire())
        store._books.connection = store._asker._signer._connection = connection  # a new client costs 60 ms and more
        self.store = loop.blocking(store)

    def put(
        self,
        key: str,
        body: bytes = b"",
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "binary/octet-stream",
        cache_control: str | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        archived: bool = False,
    ) -> None:
        more = {} if cache_control is None else {"CacheControl": cache_control}
        if tags:
            more["Tagging"] = "&".join(f"{name}={value}" for name, value in tags.items())
        self.client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            Metadata=dict(metadata or {}),
            ContentType=content_type,
            StorageClass="GLACIER" if archived else storage_class,
            **more,
        )

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def raw(self, key: str) -> Raw:
        head = self.client.head_object(Bucket=self.bucket, Key=key)
        tags = self.client.get_object_tagging(Bucket=self.bucket, Key=key)["TagSet"]
        return Raw(
            self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read(),
            head["Metadata"],
            head["ContentType"],
            head.get("CacheControl"),
            {tag["Key"]: tag["Value"] for tag in tags},
            head.get("StorageClass", "STANDARD"),
        )

    def uploads(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def versions(self) -> list[str]:
        """Keys of all versions and delete markers."""
        listed = self.client.list_object_versions(Bucket=self.bucket)
        return [entry["Key"] for entry in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]]


@pytest.fixture(scope="session")
def s3(moto: MotoServer) -> Iterator[Any]:
    client = moto.client("s3")
    yield client
    client.close()


@pytest.fixture(scope="session")
def connection(moto: MotoServer) -> Iterator[Connection[Any]]:
    made = Connection(lambda: _client(moto.access, Requests()))
    yield made
    made.close()


MakeWorld = Callable[..., MotoWorld]


def worlds_on(server: MotoServer | BuiltServer, loop: Loop, connection: Connection[Any], client: Any) -> MakeWorld:
    found: dict[bool, Conditions] = {}

    def make(*, versioned: bool = False, probed: bool = True) -> MotoWorld:
        conditions = found.get(versioned) if probed else None
        world = MotoWorld(server, loop, connection, client, versioned=versioned, conditions=conditions)
        if probed and versioned not in found:
            found[versioned] = world.store.probe("")
        return world

    return make


@pytest.fixture(scope="session")
def make_world(moto: MotoServer, loop: Loop, connection: Connection[Any], s3: Any) -> MakeWorld:
    """Makes a bucket on moto and its store, with what a probe finds out there unless ``probed`` is False."""
    return worlds_on(moto, loop, connection, s3)


@pytest.fixture(scope="session")
def make_built_world(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeWorld]:
    """The same on a server that was built, if it was."""
    if built_program(BUILT.partition("-")[0]) is None:
        pytest.skip(f"no {BUILT} on this machine; to have it: make test-s3 SERVER={BUILT}")
    with ExitStack() as stack:
        server = stack.enter_context(chosen_server(BUILT, tmp_path_factory.mktemp(BUILT)))
        if server.bundle is not None:
            stack.enter_context(pytest.MonkeyPatch.context()).setenv("AWS_CA_BUNDLE", str(server.bundle))
        loop = stack.enter_context(Loop(ca_bundle=None if server.bundle is None else str(server.bundle)))
        client = stack.enter_context(closing(server.client("s3")))
        connection = stack.enter_context(closing(Connection(lambda: _client(server.access, Requests()))))
        yield worlds_on(server, loop, connection, client)


@pytest.fixture(
    params=["fake", "fake-versioned", "moto", "moto-versioned", "moto-unprobed", "built", "built-versioned"]
)
def world(request: pytest.FixtureRequest) -> World:
    kind, _, variant = request.param.partition("-")
    versioned = variant == "versioned"
    if kind == "fake":
        return FakeWorld(request.getfixturevalue("loop"), versioned=versioned)
    if kind == "built":
        skip_what_it_lacks(request.node, server_class(BUILT))
    make: MakeWorld = request.getfixturevalue("make_world" if kind == "moto" else "make_built_world")
    return make(versioned=versioned, probed=variant != "unprobed")
