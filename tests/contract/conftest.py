"""A store and the world outside of it, in memory and on moto: every test of the contract runs on both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from fakes.store import FakeStore
from support.moto_server import ENVIRONMENT, MotoServer

from fsxsync.ports import Conditions, ObjectStore
from fsxsync.repository.session import Connection
from fsxsync.repository.store import S3Store, _client, open_store

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
def moto(environment: None) -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


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

    store: ObjectStore

    def put(self, key: str, body: bytes = b"", **properties: Any) -> None: ...

    def delete(self, key: str) -> None: ...

    def raw(self, key: str) -> Raw: ...

    def uploads(self) -> int: ...


class FakeWorld:
    def __init__(self, *, versioned: bool) -> None:
        self.store = FakeStore(versioned=versioned)
        self.put = self.store.outside_put
        self.delete = self.store.outside_delete

    def raw(self, key: str) -> Raw:
        found = self.store.objects[key]
        return Raw(
            found.body,
            found.metadata,
            found.content_type,
            found.cache_control,
            found.tags,
            found.storage_class,
        )

    def uploads(self) -> int:
        return len(self.store.uploads)


class MotoWorld:
    def __init__(
        self,
        moto: MotoServer,
        connection: Connection[Any],
        client: Any,
        *,
        versioned: bool,
        conditions: Conditions | None,
    ) -> None:
        self.client = client
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=self.bucket)
        if versioned:
            client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.store: S3Store = open_store(self.bucket, moto.access, conditions)
        self.store._connection = connection  # a new client costs 60 ms and more

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
    made = Connection(lambda: _client(moto.access))
    yield made
    made.close()


MakeWorld = Callable[..., MotoWorld]


@pytest.fixture(scope="session")
def make_world(moto: MotoServer, connection: Connection[Any], s3: Any) -> MakeWorld:
    """Makes a bucket on moto and its store, with what a probe finds out there unless ``probed`` is False."""
    found: dict[bool, Conditions] = {}

    def make(*, versioned: bool = False, probed: bool = True) -> MotoWorld:
        world = MotoWorld(
            moto, connection, s3, versioned=versioned, conditions=found.get(versioned) if probed else None
        )
        if probed and versioned not in found:
            found[versioned] = world.store.probe("")
        return world

    return make


@pytest.fixture(params=["fake", "fake-versioned", "moto", "moto-versioned", "moto-unprobed"])
def world(request: pytest.FixtureRequest) -> World:
    kind, _, variant = request.param.partition("-")
    versioned = variant == "versioned"
    if kind == "fake":
        return FakeWorld(versioned=versioned)
    make: MakeWorld = request.getfixturevalue("make_world")
    return make(versioned=versioned, probed=variant != "unprobed")
