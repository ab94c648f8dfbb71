"""The sockets of the control server: a unix socket for its owner, and TCP on the loopback interface only."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsxsync.errors import BadInput

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
UCRED_SIZE = _CREDENTIALS.size
BACKLOG = 64
UNIX_PATH_MAX = 107
"""Bytes of a path in sockaddr_un (unix(7))."""


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for the socket that is short enough for the kernel while the block lasts.

    Raises:
        OSError: the directory is not there.
    """
    if len(os.fsencode(path)) <= UNIX_PATH_MAX:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def listen_unix(path: Path) -> socket.socket:
    """A listening socket at ``path`` that only its owner may use. One that is there already is stale: the
    daemon's lock says that nobody else serves this state directory.

    Raises:
        BadInput
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        # Linux takes the mode of the socket's own inode for the name, so that there is no moment in between.
        os.fchmod(listener.fileno(), 0o600)
        with reachable(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(
            f"socket {path} can't be made", error.strerror or str(error), advice="name another --state-dir"
        ) from error
    return listener


def unpack_uid(credentials: bytes) -> int:
    """The user of what SO_PEERCRED gives."""
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


def uid_behind(connection: socket.socket) -> int:
    """The user who listens, as the connected side sees it."""
    return unpack_uid(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED_SIZE))


def public_name(state_dir: Path) -> str:
    """Where users ask who may not enter the state directory: a name in no file system (unix(7), abstract). Anybody may
    take it, so a client has to look who answers."""
    whole = os.fsencode(os.path.realpath(state_dir))
    return "\0fsxsync-" + hashlib.sha256(whole).hexdigest()[:32]


def listen_public(state_dir: Path) -> socket.socket:
    """A listening socket at `public_name`.

    Raises:
        OSError: somebody else has taken the name.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(public_name(state_dir))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen_tcp(address: str, *, anywhere: bool = False) -> socket.socket:
    """``HOST:PORT``, where HOST is a loopback address unless ``anywhere``; port 0 takes a free one.

    Raises:
        BadInput: another address, or one that is taken.
    """
    host, separator, port = address.rpartition(":")
    advice = "name a loopback address, like 127.0.0.1:9100"
    if not separator or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f"nothing can listen on '{address}'", "it is no HOST:PORT", advice=advice)
    if not anywhere and not is_loopback(host):
        raise BadInput(
            f"nothing can listen on '{address}'",
            "what it answers is not encrypted, so only this host may reach it",
            advice=advice,
        )
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1" if host == "localhost" else host, int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(
            f"nothing can listen on '{address}'", error.strerror or str(error), advice="name a free port"
        ) from error
    return listener


def is_loopback(address: str) -> bool:
    """``HOST`` or ``HOST:PORT`` means this host and nobody else. Names are not asked of any resolver."""
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
