"""The control server over a real unix socket: what it answers, what it survives, whom it lets in."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing
from fakes.administration import FakeAdministration, file_state

from fsxsync.control.client import Client
from fsxsync.control.documents import state_lines
from fsxsync.control.listening import is_loopback, listen_tcp, listen_unix
from fsxsync.control.protocol import BODY_MAX, FSX, FSXSYNC, DaemonError
from fsxsync.control.server import serve_control
from fsxsync.errors import AccessDenied, BadInput, InvariantBroken, NoDaemon
from fsxsync.model.association import Event, Lifecycle, OnConflict
from fsxsync.model.identity import Kind
from fsxsync.ports import PendingItem
from fsxsync.telemetry.eventlog import EventLog

T = TypeVar("T")
INSTANCE = "0123456789abcdef0123456789abcdef"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
WANTED = {"repository": "s3://bucket/p", "path": "/d"}


@dataclass
class World:
    admin: FakeAdministration
    client: Client
    eventlog: EventLog
    nursery: trio.Nursery

    async def ask(self, function: Callable[..., T], *args: object, **more: object) -> T:
        return await trio.to_thread.run_sync(partial(function, *args, **more), abandon_on_cancel=True)

    async def refused(self, function: Callable[..., object], *args: object, **more: object) -> DaemonError:
        with pytest.raises(DaemonError) as caught:
            await self.ask(function, *args, **more)
        return caught.value


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    admin = FakeAdministration()
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)
    serve = partial(serve_control, admin, tmp_path / "control.sock", eventlog=eventlog, instance=INSTANCE)
    await nursery.start(serve)
    yield World(admin, Client(tmp_path), eventlog, nursery)
    eventlog.close()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in the server
            await trio.sleep(0.005)


def post(state_dir: Path, target: str, body: bytes, method: str = "POST") -> tuple[int, Any]:
    """A request as somebody would send it who doesn't use our client."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(state_dir / "control.sock"))
    try:
        connection.request(method, "/", body, {"X-Amz-Target": target})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text
    finally:
        connection.close()


# ---------------------------------------------------------------- the socket


async def test_only_its_owner_may_use_the_socket(world: World) -> None:
    mode = os.stat(world.client.state_dir / "control.sock").st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_stale_socket_is_replaced_and_ours_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    listen_unix(path).close()
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_control, FakeAdministration(), path, eventlog=eventlog, instance=INSTANCE))
        status = await trio.to_thread.run_sync(Client(tmp_path).status)
        nursery.cancel_scope.cancel()

    assert status["version"] == "0.1.0"
    assert not path.exists()


async def test_a_state_directory_with_a_long_name_is_served_too(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 30)
    state_dir.mkdir()
    eventlog = EventLog(state_dir / "events.jsonl", max_bytes=1 << 20, keep=1)

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve_control,
                FakeAdministration(),
                state_dir / "control.sock",
                eventlog=eventlog,
                instance=INSTANCE,
            )
        )
        status = await trio.to_thread.run_sync(Client(state_dir).status)
        nursery.cancel_scope.cancel()

    assert status["version"] == "0.1.0"


def test_nobody_answers_where_there_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon) as missing:
        Client(tmp_path / "none").status()
    listen_unix(tmp_path / "control.sock").close()
    with pytest.raises(NoDaemon) as refused:
        Client(tmp_path).status()

    assert missing.value.exit_code == refused.value.exit_code == 3
    assert "fsxsync mount" in str(missing.value)


def test_a_daemon_that_dies_amid_an_answer_is_missed(tmp_path: Path) -> None:
    with listen_unix(tmp_path / "control.sock") as listener:
        listener.setblocking(True)
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        line = b'{"index": 0, "state": {}}\n'

        def die_after(answer: bytes) -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        for answer in (b"", head, head + b"%x\r\n%b\r\n" % (len(line), line), head + b"ff\r\n" + line):
            thread = threading.Thread(target=die_after, args=(answer,))
            thread.start()
            with pytest.raises(NoDaemon, match="ended before it answered"):
                list(Client(tmp_path).states([b"a"], recursive=False))
            thread.join()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "10.0.0.1:80", "[::]:0", "example.org:80", "::1", "7", "h:x"])
def test_only_this_host_may_reach_the_tcp_port(address: str) -> None:
    with pytest.raises(BadInput, match=r"127\.0\.0\.1"):
        listen_tcp(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "127.9.9.9:0", "[::1]:0"])
def test_loopback_addresses_are_taken(address: str) -> None:
    assert is_loopback(address)
    if address != "[::1]:0":  # not every machine has IPv6
        listen_tcp(address).close()


# ---------------------------------------------------------------- associations


async def test_associate_makes_what_was_asked_for(world: World) -> None:
    made = await world.ask(
        world.client.associate,
        WANTED
        | {
            "import": ["new", "changed"],
            "export": [],
            "events": "sqs:https://sqs.example/1/q",
            "on_conflict": "newest",
            "include": ["*.csv"],
            "exclude": ["tmp/*"],
            "endpoint_url": "http://127.0.0.1:9",
            "region": "eu-west-1",
            "profile": "p",
            "requester_pays": True,
            "acl": "private",
            "sse": "aws:kms:k1",
            "storage_class": "STANDARD_IA",
            "restore_archived": "bulk",
            "uid": 0,
            "gid": 7,
            "file_mode": "0600",
            "dir_mode": "700",
            "import_metadata": False,
        },
    )
    row = world.admin.rows[made["id"]]

    assert (row.bucket, row.prefix, row.directory) == ("bucket", "p/", b"d")
    assert row.policy.imports == {Event.NEW, Event.CHANGED}
    assert row.policy.exports == frozenset()
    assert row.policy.on_conflict is OnConflict.NEWEST
    assert (row.events, row.poll_s) == ("https://sqs.example/1/q", 0.0)
    assert (row.include, row.exclude) == (("*.csv",), ("tmp/*",))
    assert (row.access.endpoint_url, row.access.region, row.access.profile) == (
        "http://127.0.0.1:9",
        "eu-west-1",
        "p",
    )
    assert (row.access.requester_pays, row.access.acl, row.access.sse, row.access.storage_class) == (
        True,
        "private",
        "aws:kms:k1",
        "STANDARD_IA",
    )
    assert row.restore_archived == "bulk"
    assert (row.defaults.uid, row.defaults.gid, row.defaults.file_mode, row.defaults.dir_mode) == (
        0,
        7,
        0o600,
        0o700,
    )
    assert not row.import_metadata
    assert row.lifecycle is Lifecycle.AVAILABLE


async def test_associate_syncs_all_in_both_directions_by_default(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED)

    assert made["import"] == made["export"] == ["new", "changed", "deleted"]
    assert (made["poll_s"], made["on_conflict"], made["import_metadata"]) == (60.0, "keep-both", True)


async def test_a_read_only_association_exports_nothing(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED | {"read_only": True})

    assert (made["read_only"], made["export"]) == (True, [])


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("repository", None, "is missing"),
        ("repository", "http://x", "no S3 URI"),
        ("path", "d", "does not start with /"),
        ("path", "/a/../b", "not allowed"),
        ("path", "/\udfff", "no string|neither text"),
        ("import", ["new", "old"], "none of new, changed, deleted"),
        ("import", "new", "is no list"),
        ("export", [1], "is no string"),
        ("events", "sns:x", "sqs:QUEUE_URL"),
        ("poll_s", -1, "is not from 0"),
        ("poll_s", "60", "is no number"),
        ("poll_s", True, "is no number"),
        ("on_conflict", "mine", "none of keep-both"),
        ("uid", 2**32 - 1, "whole number"),
        ("file_mode", "0999", "octal"),
        ("sse", "rot13", "does not match"),
        ("acl", "everybody", "none of private"),
        ("endpoint_url", "ftp://x", "does not match"),
        ("restore_archived", "now", "none of off"),
        ("include", ["/"], "matches no path"),
        ("wait", 1, "neither true nor false"),
        ("colour", "red", "there is no such member"),
    ],
)
async def test_associate_says_what_is_wrong(world: World, member: str, value: object, sentence: str) -> None:
    error = await world.refused(world.client.associate, WANTED | {member: value})

    assert error.exit_code == 2
    assert re.search(sentence, str(error)), str(error)
    assert world.admin.rows == {}


async def test_a_profile_and_no_credentials_contradict_each_other(world: World) -> None:
    error = await world.refused(world.client.associate, WANTED | {"anonymous": True, "profile": "p"})

    assert "together with a profile" in str(error)


async def test_an_error_arrives_as_it_was_raised(world: World) -> None:
    world.admin.failures.append(AccessDenied("bucket bucket", "403 Forbidden"))

    error = await world.refused(world.client.associate, WANTED)

    assert str(error) == str(AccessDenied("bucket bucket", "403 Forbidden"))
    assert (error.code, error.exit_code, error.errno) == ("S3AccessDenied", 1, AccessDenied.errno)


async def test_update_changes_what_it_names_and_nothing_else(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED | {"uid": 5, "exclude": ["a"], "profile": "p"})

    after = await world.ask(world.client.update, "/d", {"export": ["new"], "poll_s": 5, "gid": 0}, accept_deletes=False)

    assert after == made | {"export": ["new"], "poll_s": 5.0, "gid": 0}


async def test_update_turns_a_queue_off(world: World) -> None:
    await world.ask(world.client.associate, WANTED | {"events": "sqs:http://q/1"})

    after = await world.ask(world.client.update, "/d", {"events": "none"}, accept_deletes=False)

    assert after["events"] is None


async def test_path_and_repository_cannot_be_changed(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED)

    error = await world.refused(world.client.update, made["id"], {"path": "/e"}, accept_deletes=False)

    assert error.exit_code == 2


async def test_a_read_only_association_must_be_opened_before_it_exports(world: World) -> None:
    await world.ask(world.client.associate, WANTED | {"read_only": True})

    error = await world.refused(world.client.update, "/d", {"export": ["new"]}, accept_deletes=False)
    after = await world.ask(world.client.update, "/d", {"export": ["new"], "read_only": False}, accept_deletes=False)

    assert "read-only" in str(error)
    assert after["export"] == ["new"]


async def test_accepting_deletes_alone_does_not_restart_the_association(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED)

    await world.ask(world.client.update, "/d", {}, accept_deletes=True)
    await world.ask(world.client.call, "AcceptDeletes", association=made["id"])

    assert world.admin.asked[1:] == [("accept_deletes", made["id"])] * 2


async def test_update_without_changes_tries_again(world: World) -> None:
    await world.ask(world.client.associate, WANTED)

    await world.ask(world.client.update, "/d", {}, accept_deletes=False)

    assert world.admin.asked[-1][0] == "update"


async def test_delete_hands_on_what_shall_become_of_the_data(world: World) -> None:
    made = await world.ask(world.client.associate, WANTED)

    gone = await world.ask(world.client.delete, "/d", delete_data=True, force=False, hydrate=False)

    assert gone["id"] == made["id"]
    assert world.admin.asked[-1] == ("delete", (made["id"], True, False, False))
    assert world.admin.rows == {}


@pytest.mark.parametrize("word", ["/elsewhere", "dra-0badf00d0badf00d0"])
async def test_an_unknown_association_is_not_found(world: World, word: str) -> None:
    error = await world.refused(world.client.association, word)

    assert (error.code, error.exit_code) == ("DataRepositoryAssociationNotFound", 1)


async def test_what_is_no_association_is_wrong_usage(world: World) -> None:
    error = await world.refused(world.client.association, "datasets")

    assert error.exit_code == 2


async def test_an_association_is_told_with_its_counters(world: World) -> None:
    world.admin.pending = (PendingItem("/d/a", "dra-1", 12.3456, 2, "403", "retry"),)
    await world.ask(world.client.associate, WANTED)

    row = await world.ask(world.client.association, "/d")

    assert (row["pending"], row["oldest_pending_s"], row["conflicts"], row["errors"]) == (1, 12.346, 2, 1)
    assert row["features"]["put_if_match"] is True
    assert row["recent_errors"][0]["error"] == "403"


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["d/a", "", 'q"\\', "ü\U0001f600\n", os.fsdecode(b"n\xff")])
@pytest.mark.parametrize("more", [{}, {"etag": None, "key": None, "association": None, "bits": 0, "flags": ()}])
def test_a_line_of_a_state_is_json(name: str, more: dict[str, object]) -> None:
    states = [file_state(name, pending=True, error='no "x"', **more), file_state(name, kind=Kind.SYMLINK, **more)]

    lines = [json.loads(line) for line in state_lines(7, states).splitlines()]

    assert [(line["index"], set(line)) for line in lines] == [(7, {"index", "state"})] * 2
    for line, state in zip(lines, states, strict=True):
        fields = {name: value for name, value in state._asdict().items() if name != "bits"}
        assert line["state"] == fields | {
            "state": state.bits,
            "flags": list(state.flags),
            "kind": state.kind.value,
        }
        assert next(iter(line["state"])) == "path"  # the client counts on it


async def test_states_come_as_lines_and_keep_names_that_are_no_text(world: World) -> None:
    name = "n\udcffm"
    world.admin.states[os.fsencode(name)] = [file_state(name), *(file_state(f"{name}/{i}") for i in range(999))]

    rows = await world.ask(lambda: list(world.client.states([os.fsencode(name)], recursive=True)))

    assert len(rows) == 1000
    assert rows[0]["state"]["path"] == name
    assert rows[0]["state"]["state"] == 13
    assert world.admin.asked == [("state", ((b"n\xffm",), True))]


async def test_a_missing_path_does_not_hide_the_others(world: World) -> None:
    world.admin.states = {b"a": [file_state("a")], b"c": [file_state("c")]}

    rows = await world.ask(lambda: list(world.client.states([b"a", b"b", b"c"], recursive=False)))

    assert [row["index"] for row in rows] == [0, 1, 2]
    assert "no such file" in rows[1]["error"]["Message"]


async def test_a_bug_amid_lines_is_told_in_the_last_of_them(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.admin.states = {b"a": [file_state("a")], b"b": [None]}  # type: ignore[list-item]

    rows = await world.ask(lambda: list(world.client.states([b"a", b"b"], recursive=False)))

    assert rows[0]["index"] == 0
    assert rows[-1]["error"]["__type"] == "InternalError"
    assert "Traceback" in caplog.text


async def test_wait_hands_back_what_is_pending(world: World) -> None:
    world.admin.pending = (PendingItem("/d/a", "dra-1", 1.0, 0, None, "quiet time"),)

    left = await world.ask(world.client.wait, b"d\xff", 2.5)

    assert left[0]["waiting_for"] == "quiet time"
    assert world.admin.asked == [("wait", (b"d\xff", 2.5))]


async def test_drain_and_stop(world: World) -> None:
    world.admin.undrained = 3

    left = await world.ask(world.client.drain, 9.0)
    await world.ask(world.client.stop)
    await world.admin.stopping.wait()

    assert left == 3
    assert world.admin.asked == [("drain", 9.0), ("stop", None)]


# ---------------------------------------------------------------- clients that leave, and bugs


async def hang_up_amid(world: World, operation: str, members: dict[str, object]) -> None:
    """Send a request, wait until it is being served, and close the connection."""
    world.admin.gate = trio.Event()
    stream = await trio.open_unix_socket(world.client.state_dir / "control.sock")
    body = json.dumps(members).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: {FSXSYNC}.{operation}\r\nContent-Length: {len(body)}"
    await stream.send_all(head.encode() + b"\r\n\r\n" + body)
    await world.admin.begun.wait()
    await stream.aclose()


@pytest.mark.parametrize(
    ("operation", "members", "name"),
    [
        ("Wait", {}, "wait"),
        ("Drain", {"timeout_s": 60}, "drain"),
        ("State", {"paths": ["a"]}, "state"),
        ("Check", {}, "check"),
    ],
)
async def test_a_client_that_hangs_up_ends_its_waiting(
    world: World, operation: str, members: dict[str, object], name: str
) -> None:
    world.admin.states = {b"a": [file_state("a")]}

    await hang_up_amid(world, operation, members)
    await until(lambda: world.admin.abandoned == [name])

    assert (await world.ask(world.client.status))["version"] == "0.1.0"


async def test_an_association_is_made_though_its_client_hangs_up(world: World) -> None:
    await hang_up_amid(world, "Associate", dict(WANTED))
    assert world.admin.gate is not None
    await trio.testing.wait_all_tasks_blocked(0.05)  # the server has seen the connection close

    world.admin.gate.set()
    await until(lambda: bool(world.admin.rows))

    assert world.admin.abandoned == []


@pytest.mark.parametrize("failure", [AccessDenied("bucket b", "403"), ZeroDivisionError("403")])
async def test_what_fails_after_its_client_left_is_logged(
    world: World, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    await hang_up_amid(world, "Associate", dict(WANTED))
    assert world.admin.gate is not None
    await trio.testing.wait_all_tasks_blocked(0.05)  # the server has seen the connection close

    world.admin.late_failure = failure
    world.admin.gate.set()
    await until(lambda: "client left" in caplog.text)

    told = caplog.records[-1]
    assert "403" in str(vars(told).get("reason", "")) + caplog.text
    assert (await world.ask(world.client.status))["version"] == "0.1.0"


async def test_a_bug_costs_one_request(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.admin.failures.append(ZeroDivisionError("division"))

    error = await world.refused(world.client.status)
    status = await world.ask(world.client.status)

    assert (error.code, error.exit_code) == ("InternalError", 1)
    assert "division" not in str(error)
    assert "ZeroDivisionError" in caplog.text
    assert world.eventlog.read()[0][0].code == "InternalError"
    assert status["version"] == "0.1.0"


@pytest.mark.parametrize("operation", ["status", "associate"])
async def test_a_broken_invariant_ends_the_server(tmp_path: Path, operation: str) -> None:
    admin = FakeAdministration()
    admin.failures.append(InvariantBroken("two truths"))
    eventlog = EventLog(tmp_path / "events.jsonl", max_bytes=1 << 20, keep=1)
    client = Client(tmp_path)

    def ask() -> None:
        with pytest.raises(NoDaemon):
            client.status() if operation == "status" else client.associate(WANTED)

    async def serve_and_ask() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(serve_control, admin, tmp_path / "control.sock", eventlog=eventlog, instance=INSTANCE)
            )
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(ask)

    with pytest.raises(BaseExceptionGroup) as caught:
        await serve_and_ask()

    assert caught.value.subgroup(InvariantBroken) is not None
    assert caught.value.split(InvariantBroken)[1] is None


# ---------------------------------------------------------------- the wire


async def test_an_unknown_operation_is_named(world: World) -> None:
    status, document = await world.ask(post, world.client.state_dir, f"{FSXSYNC}.Fly", b"{}")

    assert status == 400
    assert document["__type"] == "UnknownOperationException"
    assert "FsxSync_v1.Fly" in document["Message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
@pytest.mark.parametrize("service", [FSX, FSXSYNC])
async def test_what_is_no_json_object_is_refused(world: World, service: str, body: bytes) -> None:
    operation = "DescribeFileSystems" if service == FSX else "Status"

    status, document = await world.ask(post, world.client.state_dir, f"{service}.{operation}", body)

    assert (status, document["__type"]) == (400, "SerializationException")


async def test_a_body_has_a_limit_and_the_server_lives(world: World) -> None:
    body = b'{"a":"' + b"x" * BODY_MAX + b'"}'

    status, document = await world.ask(post, world.client.state_dir, f"{FSXSYNC}.Status", body)

    assert (status, document["__type"]) == (413, "RequestEntityTooLargeException")
    assert (await world.ask(world.client.status))["version"] == "0.1.0"


async def test_a_body_that_never_ends_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsxsync.control.app.BODY_TIMEOUT_S", 0.05)
    stream = await trio.open_unix_socket(world.client.state_dir / "control.sock")

    async with stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        with trio.fail_after(5):
            answer = b"".join([part async for part in stream])

    assert answer.startswith(b"HTTP/1.1 413")


async def test_half_a_request_is_none(world: World) -> None:
    stream = await trio.open_unix_socket(world.client.state_dir / "control.sock")

    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: {FSXSYNC}.Stop\r\nContent-Length: 9\r\n\r\n"
    await stream.send_all(head.encode())
    await trio.testing.wait_all_tasks_blocked(0.01)
    await stream.aclose()
    await trio.testing.wait_all_tasks_blocked(0.05)

    assert world.admin.asked == []


@pytest.mark.parametrize(
    "words",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000,
        b"POST /" + b"\xff" * 10 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        UPGRADE + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n\r\n",
        UPGRADE + b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    ],
    ids=["tls", "version", "length", "long header", "path", "h2", "chunk", "websocket", "h2c"],
)
async def test_nonsense_on_the_socket_harms_nobody_else(world: World, words: bytes) -> None:
    async with await trio.open_unix_socket(world.client.state_dir / "control.sock") as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(words)
            await trio.testing.wait_all_tasks_blocked(0.02)

    assert (await world.ask(world.client.status))["version"] == "0.1.0"


async def test_one_connection_serves_many_requests(world: World) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(world.client.state_dir / "control.sock"))

    def ask() -> list[int]:
        statuses = []
        for body in (b"{}", b"nonsense", b'{"a": 1}', b"{}"):
            connection.request("POST", "/", body, {"X-Amz-Target": f"{FSXSYNC}.Status"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    assert await world.ask(ask) == [200, 400, 400, 200]


async def test_many_clients_may_wait_and_others_are_answered(world: World) -> None:
    world.admin.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(world.ask, world.client.wait, b"", 60.0)
        await until(lambda: len(world.admin.asked) == 20)

        status = await world.ask(world.client.status)
        world.admin.gate.set()

    assert status["version"] == "0.1.0"
    assert world.admin.abandoned == []


async def test_only_posts_are_answered(world: World) -> None:
    status, _ = await world.ask(post, world.client.state_dir, "", b"", "GET")

    assert status == 405
