"""``--daemon``: go to the background, and let the caller return only when the daemon is ready or has failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from fsxsync.errors import FsxSyncError
from fsxsync.telemetry.log import escape, redact

_READY = b"ready\n"


def run_in_background(serve: Callable[[Callable[[], None]], int], log_file: Path) -> int:
    """Run ``serve(ready)`` in a process of its own session; the exit code for the caller.

    Errors before ``ready`` reach the caller's stderr; everything later goes to ``log_file``.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _wait_until_ready(reading, pid)
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)  # the middle process: the daemon must not be a session leader that could get a terminal
    code = 1
    try:
        code = _serve(serve, log_file, writing)
    finally:
        os._exit(code)


def _wait_until_ready(reading: int, pid: int) -> int:
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return 0
    code, _, message = told.partition(b"\n")
    sys.stderr.write(message.decode("utf-8", "replace") or "fsxsync: the daemon ended before it was ready\n")
    return int(code) if code.isdigit() else 1


def _serve(serve: Callable[[Callable[[], None]], int], log_file: Path, writing: int) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir("/")
    told = False

    def ready() -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writing, _READY)
            os.close(writing)

    try:
        return serve(ready)
    except FsxSyncError as error:
        if told:
            sys.stderr.write(f"fsxsync: {escape(redact(str(error)))}\n")
        else:
            os.write(writing, f"{error.exit_code}\nfsxsync: {escape(redact(str(error)))}\n".encode())
        return error.exit_code
