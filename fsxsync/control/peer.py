"""Who asks: the user at the other end of the unix socket (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import os
import socket
from contextvars import ContextVar

import trio

from fsxsync.control.listening import UCRED_SIZE, unpack_uid
from fsxsync.errors import FsxSyncError

PEER: ContextVar[int | None] = ContextVar("PEER", default=None)
"""The uid of whoever is connected; None over TCP, where nobody can be told, and only FSx's operations are served."""

IS_PUBLIC: ContextVar[bool] = ContextVar("IS_PUBLIC", default=False)
"""The connection came by the socket that is open to all users of this host."""


class NotYours(FsxSyncError):
    code = "AccessDenied"
    advice = "ask root, or the user who runs the daemon"


def uid_of(connection: trio.socket.SocketType) -> int | None:
    """None for what is no unix socket."""
    if connection.family != socket.AF_UNIX:
        return None
    return unpack_uid(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED_SIZE))


def limited_to() -> int | None:
    """The user to whose files whoever asks is limited; None for root and for the user who runs the daemon.

    The socket in the state directory lets only these two in by itself; where somebody opened it for others, they get no
    further than this. By the public one everybody is limited, whoever he is.
    """
    uid = PEER.get()
    if uid is None or (uid in {0, os.geteuid()} and not IS_PUBLIC.get()):
        return None
    return uid
