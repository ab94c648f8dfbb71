"""FSx's operations on data repository tasks, as boto3 sees them (FSX-FACTS §4.1, §10)."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import trio
from botocore.config import Config
from botocore.exceptions import ClientError
from fakes.administration import FakeAdministration

from fsxsync.control.authentication import Credentials
from fsxsync.control.server import serve_control
from fsxsync.errors import BadInput
from fsxsync.model.task import DAY_NS, Counts, Order, TaskType
from fsxsync.telemetry.eventlog import EventLog

INSTANCE = "0123456789abcdef0123456789abcdef"
FILE_SYSTEM = "fs-0123456789abcdef0"
OFF = {"Enabled": False}
ON = {"Enabled": True, "Path": "s3://b/r", "Format": "REPORT_CSV_20191124", "Scope": "FAILED_FILES_ONLY"}
EXPORT = "EXPORT_TO_REPOSITORY"


class Wire:
    def __init__(self, admin: FakeAdministration, client: Any) -> None:
        self.tasks = admin.tasks
        self.client = client

    async def ask(self, operation: str, **members: object) -> Any:
        return await trio.to_thread.run_sync(partial(getattr(self.client, operation), **members))

    async def create(self, **members: object) -> Any:
        wanted = {"FileSystemId": FILE_SYSTEM, "Type": EXPORT, "Report": OFF, "Paths": ["d"]} | members
        return (await self.ask("create_data_repository_task", **wanted))["DataRepositoryTask"]

    async def describe(self, **members: object) -> Any:
        return await self.ask("describe_data_repository_tasks", **members)

    async def code(self, function: Callable[..., Any], **members: object) -> str:
        with pytest.raises(ClientError) as caught:
            await function(**members)
        return str(caught.value.response["Error"]["Code"])


@pytest.fixture
async def wire(tmp_path: Path, nursery: trio.Nursery, environment: None) -> AsyncIterator[Wire]:
    admin = FakeAdministration()
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)
    serve = partial(serve_control, admin, tmp_path / "s.sock", eventlog=eventlog, instance=INSTANCE)
    address = await nursery.start(partial(serve, listen="127.0.0.1:0"))
    config = Config(retries={"max_attempts": 1, "mode": "standard"})
    session = boto3.Session(region_name="us-east-1")
    keys = Credentials.of(tmp_path / "api-credentials")
    client = session.client(
        "fsx",
        endpoint_url=f"http://{address[0]}:{address[1]}",
        config=config,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_key,
    )
    yield Wire(admin, client)
    client.close()
    eventlog.close()


async def test_a_task_is_made_and_shown_in_fsx_own_shape(wire: Wire) -> None:
    made = await wire.create(
        Type="RELEASE_DATA_FROM_FILESYSTEM",
        Report=ON,
        ReleaseConfiguration={"DurationSinceLastAccess": {"Unit": "DAYS", "Value": 7}},
        Tags=[{"Key": "k", "Value": "v"}],
    )

    when = dt.datetime.fromtimestamp(1_700_000_000.25, tz=made["CreationTime"].tzinfo)
    assert made == {
        "TaskId": made["TaskId"],
        "Lifecycle": "PENDING",
        "Type": "RELEASE_DATA_FROM_FILESYSTEM",
        "CreationTime": when,
        "ResourceARN": f"arn:aws:fsx:us-east-1:000000000000:task/{made['TaskId']}",
        "Tags": [{"Key": "k", "Value": "v"}],
        "FileSystemId": FILE_SYSTEM,
        "Paths": ["d"],
        "Report": ON,
        "Status": {"TotalCount": 0, "SucceededCount": 0, "FailedCount": 0, "LastUpdatedTime": when},
        "ReleaseConfiguration": {"DurationSinceLastAccess": {"Unit": "DAYS", "Value": 7}},
    }
    assert wire.tasks.orders == [Order(TaskType.RELEASE, ("d",), "s3://b/r", idle_ns=7 * DAY_NS, tags=(("k", "v"),))]
    wire.tasks.end(made["TaskId"], Counts(5, 3, 2))
    [ended] = (await wire.describe(TaskIds=[made["TaskId"]]))["DataRepositoryTasks"]
    assert (ended["Lifecycle"], ended["FailureDetails"]) == ("FAILED", {"Message": "2 files failed"})
    assert (ended["Status"]["TotalCount"], ended["Status"]["FailedCount"]) == (5, 2)
    assert ended["EndTime"] > ended["StartTime"] > ended["CreationTime"]


async def test_the_same_token_makes_one_task(wire: Wire) -> None:
    first = await wire.create(ClientRequestToken="t")
    assert await wire.create(ClientRequestToken="t") == first
    assert await wire.code(wire.create, ClientRequestToken="t", Paths=["e"]) == "IncompatibleParameterError"
    assert await wire.code(wire.create) == "DataRepositoryTaskExecuting"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"FileSystemId": "fs-0fffffffffffffff0"}, "FileSystemNotFound"),
        ({"Type": "AUTO_RELEASE_DATA"}, "UnsupportedOperation"),
        ({"Type": "RESTORE_DATA"}, "BadRequest"),
        ({"Paths": [f"p{number}" for number in range(101)]}, "BadRequest"),
        ({"Paths": ["a\nb"]}, "BadRequest"),
        ({"Paths": ["a" * 4097]}, "BadRequest"),
        ({"Report": {"Enabled": True}}, "BadRequest"),
        ({"Report": ON | {"Format": "OTHER"}}, "BadRequest"),
        ({"Report": ON | {"Scope": "ALL"}}, "BadRequest"),
        ({"Report": ON | {"Path": "b/r/longer"}}, "BadRequest"),
        ({"CapacityToRelease": 5}, "BadRequest"),
        ({"ReleaseConfiguration": {"DurationSinceLastAccess": {"Unit": "DAYS", "Value": 1}}}, "BadRequest"),
        ({"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}, "BadRequest"),
        ({"ClientRequestToken": "not ok"}, "BadRequest"),
    ],
)
async def test_what_is_off_is_refused_with_fsx_code(wire: Wire, members: dict[str, object], code: str) -> None:
    assert await wire.code(wire.create, **members) == code
    assert wire.tasks.rows == {}


async def test_what_the_tasks_refuse_is_a_bad_request(wire: Wire) -> None:
    wire.tasks.refusal = BadInput("'s3://x' can't be used", "it lies in no linked repository")
    assert await wire.code(wire.create, Report=ON) == "BadRequest"


async def test_lists_are_filtered_and_cut_into_pages(wire: Wire) -> None:
    ids = [(await wire.create(Paths=[str(number)]))["TaskId"] for number in range(60)]
    for task_id in ids[:55]:
        wire.tasks.end(task_id)

    found: list[str] = []
    token: dict[str, object] = {}
    while True:
        answer = await wire.describe(MaxResults=1000, **token)
        assert len(answer["DataRepositoryTasks"]) <= 50  # FSx gives no more at a time
        found += [task["TaskId"] for task in answer["DataRepositoryTasks"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert found == ids

    async def listed(name: str, *values: str) -> list[str]:
        answer = await wire.describe(Filters=[{"Name": name, "Values": list(values)}], MaxResults=50)
        return [task["TaskId"] for task in answer["DataRepositoryTasks"]]

    assert await listed("task-lifecycle", "PENDING", "EXECUTING") == ids[55:]
    assert await listed("data-repository-association-id", "dra-00000000000000001") == ids[:50]
    assert await listed("data-repository-association-id", "dra-00000000000000002") == []
    assert await listed("file-system-id", FILE_SYSTEM) == ids[:50]
    assert await listed("file-cache-id", "fc-00000000") == []
    one = await wire.describe(TaskIds=[ids[3], ids[1]], MaxResults=1)
    assert [task["TaskId"] for task in one["DataRepositoryTasks"]] == [ids[1]]
    two = await wire.describe(TaskIds=[ids[3], ids[1]], NextToken=one["NextToken"])
    assert [task["TaskId"] for task in two["DataRepositoryTasks"]] == [ids[3]]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"TaskIds": ["task-0000000000000dead"]}, "DataRepositoryTaskNotFound"),
        ({"TaskIds": ["task-00000000000000001"] * 51}, "BadRequest"),
        ({"TaskIds": ["nothing-at-all"]}, "BadRequest"),
        ({"Filters": [{"Name": "volume-id", "Values": ["v"]}]}, "BadRequest"),
        ({"Filters": [{"Name": "task-lifecycle", "Values": ["v"]}] * 4}, "BadRequest"),
        ({"Filters": [{"Name": "task-lifecycle", "Values": ["v"] * 21}]}, "BadRequest"),
        ({"Filters": [{"Name": "file-system-id", "Values": ["fs-0fffffffffffffff0"]}]}, "FileSystemNotFound"),
        ({"NextToken": "bm90aGluZw=="}, "BadRequest"),
    ],
)
async def test_a_list_that_can_not_be_given(wire: Wire, members: dict[str, object], code: str) -> None:
    assert await wire.code(wire.describe, **members) == code


async def test_a_task_is_cancelled_once(wire: Wire) -> None:
    cancel = partial(wire.ask, "cancel_data_repository_task")
    made = await wire.create()

    told = await cancel(TaskId=made["TaskId"])
    assert (told["TaskId"], told["Lifecycle"]) == (made["TaskId"], "CANCELING")
    wire.tasks.end((await wire.create(Paths=["e"]))["TaskId"])
    assert await wire.code(cancel, TaskId="task-00000000000000002") == "DataRepositoryTaskEnded"
    assert await wire.code(cancel, TaskId="task-0000000000000dead") == "DataRepositoryTaskNotFound"
