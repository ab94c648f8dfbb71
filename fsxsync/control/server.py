"""Serves the API: always on the unix socket of the state directory, on a loopback TCP port if one is named."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fsxsync.control.app import create_app
from fsxsync.control.authentication import FILE, Credentials
from fsxsync.control.listening import listen_public, listen_tcp, listen_unix
from fsxsync.control.peer import IS_PUBLIC, PEER, uid_of
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.ports import Administration
from fsxsync.telemetry.eventlog import EventLog
from fsxsync.telemetry.metrics import CONTENT_TYPE, render

log = logging.getLogger(__name__)

PUBLIC_MOST = 64
"""Connections of other users at a time: they shall not use up the daemon's descriptors."""


async def serve_control(
    administration: Administration,
    socket_path: Path,
    *,
    eventlog: EventLog,
    instance: str,
    listen: str | None = None,
    metrics_listen: str | None = None,
    for_all_users: bool = False,
    task_status: trio.TaskStatus[tuple[str, int] | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Started, with the TCP address if there is one, once requests are answered.

    ``for_all_users`` of this host there is a socket, too, by which they may do `FOR_EVERYBODY` with what they own.

    Raises:
        BadInput: a socket can't be had.
    """
    tcp = listen_tcp(listen) if listen is not None else None
    credentials = _credentials(socket_path.with_name(FILE)) if tcp is not None else ()
    metrics = listen_tcp(metrics_listen, anywhere=True) if metrics_listen is not None else None
    unix = listen_unix(socket_path)
    public = _listen_public(socket_path.parent) if for_all_users else None
    try:
        async with trio.open_nursery() as nursery:
            undisturbed = Undisturbed(nursery)
            make = partial(create_app, administration, instance=instance, undisturbed=undisturbed, eventlog=eventlog)
            await nursery.start(_serve, make(), unix)
            if public is not None:
                await nursery.start(partial(_serve, make(), public, is_public=True))
            address = None
            if tcp is not None:
                await nursery.start(_serve, make(own_operations=False, credentials=credentials), tcp)
                address = tcp.getsockname()[:2]
                log.info("API listens", extra={"address": f"{address[0]}:{address[1]}"})
            if metrics is not None:
                await nursery.start(_serve, metrics_app(administration), metrics)
            task_status.started(address)
            await trio.sleep_forever()
    finally:
        for listener in (unix, public, tcp, metrics):
            if listener is not None:
                listener.close()
        with suppress(FileNotFoundError):  # the state directory was removed under us
            os.unlink(socket_path)


def _listen_public(state_dir: Path) -> socket.socket | None:
    try:
        return listen_public(state_dir)
    except OSError as error:
        log.warning("users can't release and restore what they own", extra={"why": error.strerror or str(error)})
        return None


def _credentials(file: Path) -> tuple[Credentials, ...]:
    """Those that may sign. Blocking."""
    environment = Credentials.of_environment(os.environ)
    return (Credentials.of(file), *([environment] if environment is not None else []))


def metrics_app(administration: Administration) -> Starlette:
    """``/metrics``, and nothing else: it may be reached from elsewhere."""

    async def metrics(_request: Request) -> Response:
        return Response(render(administration.status()), media_type=CONTENT_TYPE)

    return Starlette(routes=[Route("/metrics", metrics)])


async def _serve(
    app: Starlette,
    listener: socket.socket,
    *,
    is_public: bool = False,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """What Hypercorn's trio worker does, but for one thing: there, an error of one connection ends the server, and
    some bytes that a client may send are such errors (an h2c upgrade with settings that are no base64)."""
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # as it is: no handler of its own on stderr
    config.include_server_header = False
    context = WorkerContext(None)
    open_now = trio.CapacityLimiter(PUBLIC_MOST)
    wrapped = ASGIWrapper(app)  # type: ignore[arg-type]

    async def converse(stream: trio.SocketStream) -> None:
        PEER.set(uid_of(stream.socket))  # a task for each connection, and so a context
        IS_PUBLIC.set(is_public)
        try:
            if is_public and open_now.borrowed_tokens == PUBLIC_MOST:
                await trio.aclose_forcefully(stream)
                return
            async with open_now if is_public else nullcontext():
                await TCPServer(wrapped, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except Exception:  # a broken invariant passes, also in a group
            log.warning("connection failed", exc_info=True)
            await trio.aclose_forcefully(stream)

    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    await trio.serve_listeners(converse, listeners, task_status=task_status)
