"""Serves the API: always on the unix socket of the state directory, on a loopback TCP port if one is named."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from starlette.applications import Starlette

from fsxsync.control.app import create_app
from fsxsync.control.listening import listen_tcp, listen_unix
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.ports import Administration
from fsxsync.telemetry.eventlog import EventLog

log = logging.getLogger(__name__)


async def serve_control(
    administration: Administration,
    socket_path: Path,
    *,
    eventlog: EventLog,
    instance: str,
    listen: str | None = None,
    task_status: trio.TaskStatus[tuple[str, int] | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Started, with the TCP address if there is one, once requests are answered.

    Raises:
        BadInput: a socket can't be had.
    """
    tcp = listen_tcp(listen) if listen is not None else None
    unix = listen_unix(socket_path)
    try:
        async with trio.open_nursery() as nursery:
            undisturbed = Undisturbed(nursery)
            make = partial(create_app, administration, instance=instance, undisturbed=undisturbed, eventlog=eventlog)
            await nursery.start(_serve, make(), unix)
            address = None
            if tcp is not None:
                await nursery.start(_serve, make(own_operations=False), tcp)
                address = tcp.getsockname()[:2]
                log.info("API listens", extra={"address": f"{address[0]}:{address[1]}"})
            task_status.started(address)
            await trio.sleep_forever()
    finally:
        for listener in (unix, tcp):
            if listener is not None:
                listener.close()
        with suppress(FileNotFoundError):  # the state directory was removed under us
            os.unlink(socket_path)


async def _serve(
    app: Starlette, listener: socket.socket, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # as it is: no handler of its own on stderr
    config.include_server_header = False
    await worker_serve(
        ASGIWrapper(app),  # type: ignore[arg-type]
        config,
        sockets=Sockets([], [listener], []),
        task_status=task_status,
    )
