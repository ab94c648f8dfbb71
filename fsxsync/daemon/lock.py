"""One daemon per state directory: an advisory lock that the kernel drops with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fsxsync.errors import BadInput, DaemonRunning


def open_state_dir(state_dir: Path) -> None:
    """Make the state directory, for its owner only (DESIGN §3.4).

    Raises:
        BadInput
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        state_dir.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"state directory {state_dir}",
            error.strerror or str(error),
            advice="name a directory that you own",
        ) from error


def lock_state_dir(state_dir: Path) -> int:
    """Take the lock; the descriptor holds it.

    Raises:
        DaemonRunning: somebody else serves this state directory.
    """
    fd = os.open(state_dir / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise DaemonRunning(f"state directory {state_dir}", f"a daemon runs on it already (pid {pid})") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
