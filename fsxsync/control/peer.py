"""Who asks: the user at the other end of the unix socket (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from contextvars import ContextVar

import trio

from fsxsync.errors import FsxSyncError

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""

PEER: ContextVar[int | None] = ContextVar("PEER", default=None)
"""The uid of whoever is connected; None over TCP, where nobody can be told, and only FSx's operations are served."""


class NotYours(FsxSyncError):
    code = "AccessDenied"
    advice = "ask root, or the user who runs the daemon"


def uid_of(connection: trio.socket.SocketType) -> int | None:
    """None for what is no unix socket."""
    if connection.family != socket.AF_UNIX:
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(packed)[1]
    return uid


def limited_to() -> int | None:
    """The user to whose files whoever asks is limited; None for root and for the user who runs the daemon.

    The socket lets only these two in by itself. Where somebody opened it for others, they get no further than this.
    """
    uid = PEER.get()
    return None if uid is None or uid in {0, os.geteuid()} else uid
