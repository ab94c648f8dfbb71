"""Our own operations on tasks, and how far they let somebody else's user."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes.administration import FakeAdministration

from fsxsync.control import server
from fsxsync.control.client import Client
from fsxsync.control.peer import uid_of
from fsxsync.control.protocol import DaemonError
from fsxsync.control.server import serve_control
from fsxsync.control.task_operations import OPEN_MOST
from fsxsync.model.task import Order, TaskType
from fsxsync.telemetry.eventlog import EventLog

SOMEBODY = 4711
RELEASE: dict[str, object] = {"type": "RELEASE_DATA_FROM_FILESYSTEM", "paths": ["d"]}


class World:
    def __init__(self, admin: FakeAdministration, client: Client) -> None:
        self.tasks = admin.tasks
        self.client = client

    async def ask(self, function: Callable[..., Any], *args: object, **more: object) -> Any:
        return await trio.to_thread.run_sync(partial(function, *args, **more), abandon_on_cancel=True)

    async def code(self, function: Callable[..., Any], *args: object, **more: object) -> str:
        with pytest.raises(DaemonError) as caught:
            await self.ask(function, *args, **more)
        return caught.value.code


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    admin = FakeAdministration()
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)
    await nursery.start(partial(serve_control, admin, tmp_path / "control.sock", eventlog=eventlog, instance="f" * 32))
    yield World(admin, Client(tmp_path))
    eventlog.close()


async def test_the_user_at_the_other_end_is_known() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other, socket.socket(socket.AF_INET) as tcp:
        assert uid_of(trio.socket.from_stdlib_socket(one)) == os.geteuid()
        assert uid_of(trio.socket.from_stdlib_socket(tcp)) is None


async def test_all_of_an_order_is_handed_on(world: World) -> None:
    wanted = RELEASE | {"idle_s": 1.5, "report": "s3://b/r"}
    made = await world.ask(world.client.create_task, wanted)
    assert world.tasks.orders == [Order(TaskType.RELEASE, ("d",), "s3://b/r", idle_ns=1_500_000_000)]
    assert (made["type"], made["lifecycle"], made["ended"]) == (RELEASE["type"], "PENDING", False)
    assert [one["id"] for one in await world.ask(lambda: list(world.client.tasks()))] == [made["id"]]


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "AUTO_RELEASE_DATA"},
        {"paths": ["d"]},
        RELEASE | {"deletes": True},
        RELEASE | {"report": "elsewhere"},
        RELEASE | {"idle_s": -1},
        RELEASE | {"nonsense": 1},
        {"type": "RESTORE_DATA", "idle_s": 5},
    ],
)
async def test_what_makes_no_sense_is_refused(world: World, wanted: dict[str, object]) -> None:
    assert await world.code(world.client.create_task, wanted) == "BadRequest"
    assert world.tasks.orders == []


async def test_other_users_release_and_restore_what_they_own_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket lets nobody else in by itself; where an administrator opened it, it stops here."""
    roots = await world.ask(world.client.create_task, RELEASE)
    monkeypatch.setattr(server, "uid_of", lambda _: SOMEBODY)
    client = world.client

    made = await world.ask(client.create_task, {"type": "RESTORE_DATA", "paths": ["d"]})
    assert world.tasks.orders[-1].owner_uid == SOMEBODY
    assert (await world.ask(client.task, made["id"]))["id"] == made["id"]
    assert (await world.ask(client.cancel_task, made["id"]))["lifecycle"] == "CANCELING"
    assert await world.ask(client.where) == {"mount": None, "tree": None}
    for refused in (
        client.status,
        partial(lambda: list(client.states([b"d"], recursive=True))),
        partial(client.create_task, {"type": "RESTORE_DATA", "paths": ["d"], "report": "s3://bucket/r"}),
        partial(client.create_task, {"type": "EXPORT_TO_REPOSITORY", "paths": ["d"]}),
        partial(client.task, roots["id"]),
        partial(client.cancel_task, roots["id"]),
        partial(lambda: list(client.tasks())),
        partial(client.delete, "/d", delete_data=True, force=True, hydrate=False),
        partial(client.associate, {"repository": "s3://bucket/p", "path": "/d"}),
        client.stop,
    ):
        assert await world.code(refused) == "AccessDenied"
    for number in range(OPEN_MOST - 1):  # one is being cancelled
        await world.ask(client.create_task, {"type": "RESTORE_DATA", "paths": [f"d/{number}"]})
    assert (
        await world.code(client.create_task, {"type": "RESTORE_DATA", "paths": ["d/more"]})
        == "DataRepositoryTaskExecuting"
    )
