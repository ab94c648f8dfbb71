"""boto3's own FSx client against our endpoint: shapes, limits and errors as FSX-FACTS §1.2 and §10 have them."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import trio
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import ClientError
from fakes.administration import FakeAdministration

from fsxsync.control.authentication import Credentials
from fsxsync.control.protocol import FSX, FSXSYNC
from fsxsync.control.server import serve_control
from fsxsync.errors import AccessDenied, StillPending
from fsxsync.model.association import Event, Lifecycle
from fsxsync.telemetry.eventlog import EventLog

INSTANCE = "0123456789abcdef0123456789abcdef"
FILE_SYSTEM = "fs-0123456789abcdef0"
ANOTHER = "fs-0fffffffffffffff0"
ALL = ["NEW", "CHANGED", "DELETED"]


@dataclass
class Wire:
    admin: FakeAdministration
    client: Any
    address: tuple[str, int]
    keys: Credentials
    keys_file: Path

    async def ask(self, operation: str, **members: object) -> Any:
        return await trio.to_thread.run_sync(partial(getattr(self.client, operation), **members))

    async def refused(self, operation: str, **members: object) -> dict[str, Any]:
        """The error's code and message, and its members beside them."""
        with pytest.raises(ClientError) as caught:
            await self.ask(operation, **members)
        return caught.value.response["Error"] | caught.value.response

    async def create(self, **members: object) -> Any:
        wanted = {"FileSystemId": FILE_SYSTEM, "DataRepositoryPath": "s3://bucket/p/", "FileSystemPath": "/d"}
        return (await self.ask("create_data_repository_association", **(wanted | members)))["Association"]

    async def create_many(self, count: int) -> list[str]:
        return [
            (await self.create(FileSystemPath=f"/d{i}", DataRepositoryPath=f"s3://bucket/p{i}/"))["AssociationId"]
            for i in range(count)
        ]


@pytest.fixture(scope="module")
def make_client(environment: None) -> Callable[[tuple[str, int], Credentials], Any]:
    session = boto3.Session(region_name="us-east-1")
    config = Config(retries={"max_attempts": 1, "mode": "standard"})
    return lambda address, keys: session.client(
        "fsx",
        endpoint_url=f"http://{address[0]}:{address[1]}",
        config=config,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_key,
    )


@pytest.fixture
async def wire(
    tmp_path: Path, nursery: trio.Nursery, make_client: Callable[[tuple[str, int], Credentials], Any]
) -> AsyncIterator[Wire]:
    admin = FakeAdministration()
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)
    address = await nursery.start(
        partial(
            serve_control,
            admin,
            tmp_path / "control.sock",
            eventlog=eventlog,
            instance=INSTANCE,
            listen="127.0.0.1:0",
        )
    )
    keys = Credentials.of(tmp_path / "api-credentials")
    client = make_client(address, keys)
    yield Wire(admin, client, address, keys, tmp_path / "api-credentials")
    client.close()
    eventlog.close()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in the server
            await trio.sleep(0.005)


# ---------------------------------------------------------------- create


async def test_create_answers_at_once_in_fsx_own_shape(wire: Wire) -> None:
    made = await wire.create(
        S3={"AutoImportPolicy": {"Events": ["NEW"]}, "AutoExportPolicy": {"Events": ALL}},
        BatchImportMetaDataOnCreate=True,
        ImportedFileChunkSize=512,
        Tags=[{"Key": "team", "Value": "lab"}, {"Key": "empty", "Value": ""}],
    )

    assert made == {
        "AssociationId": made["AssociationId"],
        "ResourceARN": f"arn:aws:fsx:us-east-1:000000000000:association/{FILE_SYSTEM}/{made['AssociationId']}",
        "FileSystemId": FILE_SYSTEM,
        "Lifecycle": "CREATING",
        "FileSystemPath": "/d",
        "DataRepositoryPath": "s3://bucket/p/",
        "BatchImportMetaDataOnCreate": True,
        "ImportedFileChunkSize": 512,
        "S3": {"AutoImportPolicy": {"Events": ["NEW"]}, "AutoExportPolicy": {"Events": ALL}},
        "Tags": [{"Key": "team", "Value": "lab"}, {"Key": "empty", "Value": ""}],
        "CreationTime": dt.datetime.fromtimestamp(1_700_000_001.25, tz=made["CreationTime"].tzinfo),
    }
    assert wire.admin.asked[0][1][1] is False  # type: ignore[index] - the answer did not wait for the import


async def test_create_has_the_defaults_of_the_api(wire: Wire) -> None:
    made = await wire.create(DataRepositoryPath="s3://bucket")
    row = wire.admin.rows[made["AssociationId"]]

    assert made["S3"] == {}
    assert (made["ImportedFileChunkSize"], made["BatchImportMetaDataOnCreate"], made["Tags"]) == (1024, False, [])
    assert made["DataRepositoryPath"] == "s3://bucket"  # as it was given: Terraform compares
    assert (row.policy.imports, row.policy.exports) == (frozenset(), frozenset())


async def test_the_same_token_makes_one_association(wire: Wire) -> None:
    first = await wire.create(ClientRequestToken="token-1", S3={"AutoImportPolicy": {"Events": ALL}})
    wire.admin.rows[first["AssociationId"]] = replace(
        wire.admin.rows[first["AssociationId"]], lifecycle=Lifecycle.AVAILABLE
    )

    second = await wire.create(ClientRequestToken="token-1", S3={"AutoImportPolicy": {"Events": ALL}})

    assert second == first | {"Lifecycle": "AVAILABLE"}
    assert len(wire.admin.rows) == 1


async def test_two_requests_at_once_with_one_token_make_one_association(wire: Wire) -> None:
    wire.admin.gate = trio.Event()
    found: list[str] = []

    async def create() -> None:
        found.append((await wire.create(ClientRequestToken="token-1"))["AssociationId"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(create)
        await wire.admin.begun.wait()
        wire.admin.gate.set()

    assert found[0] == found[1]
    assert len(wire.admin.rows) == 1


@pytest.mark.parametrize(
    "other",
    [{"FileSystemPath": "/e"}, {"DataRepositoryPath": "s3://other/"}, {"ImportedFileChunkSize": 5}],
)
async def test_the_same_token_with_other_parameters_is_incompatible(wire: Wire, other: dict[str, object]) -> None:
    await wire.create(ClientRequestToken="token-1")

    with pytest.raises(ClientError) as caught:
        await wire.create(ClientRequestToken="token-1", **other)

    assert caught.value.response["Error"]["Code"] == "IncompatibleParameterError"
    assert caught.value.response["Parameter"] == "ClientRequestToken"


async def test_a_token_still_fits_after_an_update(wire: Wire) -> None:
    first = await wire.create(ClientRequestToken="token-1")
    await wire.ask(
        "update_data_repository_association",
        AssociationId=first["AssociationId"],
        S3={"AutoExportPolicy": {"Events": ALL}},
    )

    again = await wire.create(ClientRequestToken="token-1")

    assert again["AssociationId"] == first["AssociationId"]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"FileSystemId": ANOTHER}, "FileSystemNotFound"),
        ({"FileSystemId": "fs-0123456789ABCDEF0"}, "BadRequest"),
        ({"DataRepositoryPath": "http://bucket"}, "BadRequest"),
        ({"DataRepositoryPath": "s3://b/" + "x" * 4400}, "BadRequest"),
        ({"FileSystemPath": "relative"}, "BadRequest"),
        ({"FileSystemPath": "/a\nb"}, "BadRequest"),
        ({"FileSystemPath": "/" + "x" * 4096}, "BadRequest"),
        ({"ImportedFileChunkSize": 512001}, "BadRequest"),
        ({"S3": {"AutoImportPolicy": {"Events": ["RENAMED"]}}}, "BadRequest"),
        ({"S3": {"AutoImportPolicy": {"Events": ["NEW"] * 4}}}, "BadRequest"),
        ({"ClientRequestToken": "x" * 64}, "BadRequest"),
        ({"ClientRequestToken": "a b"}, "BadRequest"),
        ({"Tags": [{"Key": f"k{i}", "Value": ""} for i in range(51)]}, "BadRequest"),
        ({"Tags": [{"Key": "k", "Value": ""}] * 2}, "BadRequest"),
        ({"Tags": [{"Key": "k", "Value": "v" * 257}]}, "BadRequest"),
    ],
)
async def test_create_holds_the_limits(wire: Wire, members: dict[str, object], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        await wire.create(**members)

    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert 1 <= len(caught.value.response["Error"]["Message"]) <= 256
    assert wire.admin.rows == {}


@pytest.mark.parametrize("path", ["/d", "/d/below", "/"])
async def test_overlapping_paths_are_refused(wire: Wire, path: str) -> None:
    await wire.create()

    with pytest.raises(ClientError) as caught:
        await wire.create(FileSystemPath=path, DataRepositoryPath="s3://other/")

    assert caught.value.response["Error"]["Code"] == "BadRequest"
    assert "overlaps" in caught.value.response["Error"]["Message"]


async def test_a_bucket_that_is_denied_is_a_bad_request(wire: Wire) -> None:
    wire.admin.failures.append(AccessDenied("bucket bucket", "403 Forbidden"))

    with pytest.raises(ClientError) as caught:
        await wire.create()

    assert caught.value.response["Error"]["Code"] == "BadRequest"
    assert "403" in caught.value.response["Error"]["Message"]


# ---------------------------------------------------------------- describe


async def test_describe_walks_pages_and_misses_none(wire: Wire) -> None:
    ids = await wire.create_many(5)

    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = await wire.ask("describe_data_repository_associations", MaxResults=2, **more)
        seen += [row["AssociationId"] for row in page["Associations"]]
        assert len(page["Associations"]) <= 2
        if seen == ids[:2]:
            del wire.admin.rows[ids[1]]  # what the token was made of is gone now
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}

    assert seen == ids


async def test_describe_by_id(wire: Wire) -> None:
    ids = await wire.create_many(3)

    page = await wire.ask("describe_data_repository_associations", AssociationIds=[ids[1]])
    error = await wire.refused(
        "describe_data_repository_associations", AssociationIds=[ids[0], "dra-0badf00d0badf00d0"]
    )

    assert [row["AssociationId"] for row in page["Associations"]] == [ids[1]]
    assert error["Code"] == "DataRepositoryAssociationNotFound"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([{"Name": "file-system-id", "Values": [FILE_SYSTEM]}], 2),
        ([{"Name": "file-system-id", "Values": ["fs-0123*"]}], 2),
        ([{"Name": "file-system-id", "Values": ["fs-9*"]}], 0),
        ([{"Name": "data-repository-type", "Values": ["S3"]}], 2),
        ([{"Name": "data-repository-type", "Values": ["NFS"]}], 0),
        ([{"Name": "file-cache-id", "Values": ["fc-01234567"]}], 0),
        (
            [
                {"Name": "file-system-id", "Values": [FILE_SYSTEM]},
                {"Name": "data-repository-type", "Values": ["NFS"]},
            ],
            0,
        ),
    ],
)
async def test_describe_filters(wire: Wire, filters: list[dict[str, object]], found: int) -> None:
    await wire.create_many(2)

    page = await wire.ask("describe_data_repository_associations", Filters=filters)

    assert len(page["Associations"]) == found


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"MaxResults": 26}, "BadRequest"),
        ({"NextToken": "bm9uc2Vuc2U="}, "BadRequest"),
        ({"NextToken": "%%%"}, "BadRequest"),
        ({"AssociationIds": ["dra-XYZ4567890"]}, "BadRequest"),
        ({"AssociationIds": [f"dra-{i:017x}" for i in range(51)]}, "BadRequest"),
        ({"Filters": [{"Name": "volume-id", "Values": ["x"]}]}, "BadRequest"),
        ({"Filters": [{"Name": "file-system-id", "Values": ["a b"]}]}, "BadRequest"),
        ({"Filters": [{"Name": "file-system-id", "Values": [ANOTHER]}]}, "FileSystemNotFound"),
        ({"Filters": [{"Name": "data-repository-type", "Values": ["FTP"]}]}, "InvalidDataRepositoryType"),
        ({"Filters": [{"Name": "file-cache-id", "Values": ["x"]}] * 11}, "BadRequest"),
    ],
)
async def test_describe_holds_the_limits(wire: Wire, members: dict[str, object], code: str) -> None:
    error = await wire.refused("describe_data_repository_associations", **members)

    assert error["Code"] == code


async def test_a_misconfigured_association_says_why(wire: Wire) -> None:
    made = await wire.create()
    row = wire.admin.rows[made["AssociationId"]]
    wire.admin.rows[row.id] = replace(row, lifecycle=Lifecycle.MISCONFIGURED, failure="bucket: gone " * 40)

    page = await wire.ask("describe_data_repository_associations")

    assert page["Associations"][0]["Lifecycle"] == "MISCONFIGURED"
    assert page["Associations"][0]["FailureDetails"]["Message"].startswith("bucket: gone")
    assert len(page["Associations"][0]["FailureDetails"]["Message"]) == 256


# ---------------------------------------------------------------- update, delete


async def test_update_replaces_the_policy_it_names(wire: Wire) -> None:
    made = await wire.create(
        S3={"AutoImportPolicy": {"Events": ALL}, "AutoExportPolicy": {"Events": ALL}}, ImportedFileChunkSize=9
    )

    after = await wire.ask(
        "update_data_repository_association",
        AssociationId=made["AssociationId"],
        S3={"AutoImportPolicy": {"Events": []}},
        ImportedFileChunkSize=10,
    )

    assert after["Association"]["S3"] == {"AutoExportPolicy": {"Events": ALL}}
    assert after["Association"]["ImportedFileChunkSize"] == 10
    row = wire.admin.rows[made["AssociationId"]]
    assert (row.policy.imports, row.policy.exports) == (frozenset(), frozenset(Event))


async def test_update_by_id_alone_tries_a_misconfigured_one_again(wire: Wire) -> None:
    made = await wire.create()
    row = wire.admin.rows[made["AssociationId"]]
    wire.admin.rows[row.id] = replace(row, lifecycle=Lifecycle.MISCONFIGURED, failure="403")

    after = await wire.ask("update_data_repository_association", AssociationId=row.id)

    assert after["Association"]["Lifecycle"] == "AVAILABLE"
    assert "FailureDetails" not in after["Association"]


@pytest.mark.parametrize("operation", ["update", "delete"])
async def test_what_is_not_there_is_not_found(wire: Wire, operation: str) -> None:
    error = await wire.refused(f"{operation}_data_repository_association", AssociationId="dra-0badf00d0badf00d0")

    assert error["Code"] == "DataRepositoryAssociationNotFound"


@pytest.mark.parametrize("with_data", [True, False])
async def test_delete_answers_deleting_and_then_it_is_gone(wire: Wire, with_data: bool) -> None:
    made = await wire.create()

    answer = await wire.ask(
        "delete_data_repository_association",
        AssociationId=made["AssociationId"],
        DeleteDataInFileSystem=with_data,
    )
    error = await wire.refused("describe_data_repository_associations", AssociationIds=[made["AssociationId"]])

    del answer["ResponseMetadata"]
    assert answer == {
        "AssociationId": made["AssociationId"],
        "Lifecycle": "DELETING",
        "DeleteDataInFileSystem": with_data,
    }
    assert error["Code"] == "DataRepositoryAssociationNotFound"
    assert wire.admin.asked[-1] == ("delete", (made["AssociationId"], with_data, False, False))


async def test_a_slow_delete_is_answered_meanwhile(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsxsync.control.fsx.DELETE_ANSWER_S", 0.05)
    made = await wire.create()
    wire.admin.gate = trio.Event()

    members = {"AssociationId": made["AssociationId"]}
    answers = [await wire.ask("delete_data_repository_association", **members) for _ in range(2)]
    page = await wire.ask("describe_data_repository_associations")

    assert [answer["Lifecycle"] for answer in answers] == ["DELETING"] * 2
    assert page["Associations"][0]["Lifecycle"] == "DELETING"
    assert [name for name, _ in wire.admin.asked].count("delete") == 1
    wire.admin.gate.set()
    await until(lambda: not wire.admin.rows)


async def test_a_delete_that_would_lose_data_is_refused(wire: Wire) -> None:
    made = await wire.create()
    wire.admin.failures.append(StillPending("it can't be deleted", "3 released files", advice="load them"))

    error = await wire.refused("delete_data_repository_association", AssociationId=made["AssociationId"])

    assert error["Code"] == "BadRequest"
    assert "3 released files" in error["Message"]


# ---------------------------------------------------------------- the rest


async def test_the_file_system_can_be_found(wire: Wire) -> None:
    page = await wire.ask("describe_file_systems")
    error = await wire.refused("describe_file_systems", FileSystemIds=[ANOTHER])

    (system,) = page["FileSystems"]
    assert (system["FileSystemId"], system["FileSystemType"], system["Lifecycle"]) == (
        FILE_SYSTEM,
        "LUSTRE",
        "AVAILABLE",
    )
    assert system["StorageCapacity"] == 5
    assert error["Code"] == "FileSystemNotFound"


async def test_what_is_not_built_is_said_so(wire: Wire) -> None:
    error = await wire.refused("describe_backups")

    assert error["Code"] == "UnknownOperationException"


async def test_a_bug_is_an_internal_error(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.admin.failures += [ZeroDivisionError("x")] * 9

    error = await wire.refused("describe_file_systems")

    assert error["Code"] == "InternalServerError"
    assert "ZeroDivisionError" in caplog.text


def _post(
    wire: Wire,
    target: str,
    host: str,
    keys: Credentials | None,
    *,
    body: bytes = b"{}",
    signed: bytes = b"{}",
    **later: str,
) -> tuple[int, Any, Any]:
    """A request by hand: ``signed`` is the body that is signed, ``later`` headers that are changed afterwards."""
    headers = {"X-Amz-Target": target, "Host": host}
    if keys is not None:
        request = AWSRequest("POST", f"http://{host}/", headers, signed)
        SigV4Auth(BotoCredentials(keys.access_key_id, keys.secret_key), "fsx", "us-east-1").add_auth(request)
        headers = dict(request.headers.items())
    headers |= {name.replace("_", "-"): value for name, value in later.items()}
    connection = http.client.HTTPConnection(*wire.address)
    connection.request("POST", "/", body, headers)
    answer = connection.getresponse()
    told = answer.status, json.loads(answer.read()), answer.headers
    connection.close()
    return told


async def test_our_own_operations_are_not_for_everybody_on_this_host(wire: Wire) -> None:
    status, document, _ = await trio.to_thread.run_sync(_post, wire, f"{FSXSYNC}.Stop", "127.0.0.1", wire.keys)

    assert (status, document["__type"]) == (400, "UnknownOperationException")
    assert not wire.admin.stopping.is_set()


async def test_a_name_that_was_bound_to_this_host_by_somebody_else_is_refused(wire: Wire) -> None:
    target = f"{FSX}.DescribeFileSystems"

    refused = await trio.to_thread.run_sync(_post, wire, target, "evil.example:80", wire.keys)
    status, _, headers = await trio.to_thread.run_sync(_post, wire, target, "localhost:80", wire.keys)

    assert (refused[0], refused[1]["__type"]) == (400, "BadRequest")
    assert status == 200
    assert headers["x-amzn-requestid"]
    assert headers["content-type"] == "application/x-amz-json-1.1"


STRANGER = Credentials("FSXSYNC0000000000000000", "nobody's")


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("not signed", {"keys": None}),
        ("not one of this daemon's", {"keys": STRANGER}),
        ("not one of this daemon's", {"body": b'{"FileSystemIds": []}'}),
        ("not one of this daemon's", {"X_Amz_Target": f"{FSX}.DeleteDataRepositoryAssociation"}),
        ("too old", {"X_Amz_Date": None}),
        ("not signed", {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}),
    ],
)
async def test_only_who_has_the_credentials_may_ask(wire: Wire, why: str, change: dict[str, Any]) -> None:
    if "X_Amz_Date" in change:
        change = {"X_Amz_Date": f"{dt.datetime.now(dt.UTC):%Y%m%d}T000000Z"}
        if dt.datetime.now(dt.UTC).hour == 0:
            change = {"X_Amz_Date": f"{dt.datetime.now(dt.UTC):%Y%m%d}T235959Z"}
    wanted = {"keys": wire.keys} | change
    ask = partial(_post, wire, f"{FSX}.DescribeFileSystems", "127.0.0.1", **wanted)

    status, document, _ = await trio.to_thread.run_sync(ask)

    assert (status, document["__type"]) == (400, "BadRequest")
    assert why in document["Message"]
    assert wire.admin.asked == []
    mode = (await trio.to_thread.run_sync(os.stat, wire.keys_file)).st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_the_keys_of_the_daemons_own_environment_will_do(wire: Wire) -> None:
    own = Credentials.of_environment(os.environ)
    assert own is not None
    assert own != wire.keys

    ask = partial(_post, wire, f"{FSX}.DescribeFileSystems", "127.0.0.1", own)
    status, _, _ = await trio.to_thread.run_sync(ask)

    assert status == 200
