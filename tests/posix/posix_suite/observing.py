"""What cases do and look at, in few words."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import time
import traceback
from collections.abc import Callable
from typing import Any

PathLike = str | bytes

_libc = ctypes.CDLL(None, use_errno=True)

_CLOCK_REALTIME_COARSE = 5
"""Python does not name it."""

LONG_AGO_NS = 1_000_000_000_000_000_000
"""2001: a read moves an atime that is older than a day, also with relatime."""


# ---------------------------------------------------------------- outcomes


def outcome(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """ "ok", or the name of the errno."""
    try:
        call(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def opening(path: PathLike, flags: int, mode: int = 0o644, *, dir_fd: int | None = None) -> str:
    """The outcome of open(2)."""
    try:
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    os.close(fd)
    return "ok"


def in_c(function: str, *arguments: Any) -> int:
    """A function of libc that Python does not have, or does not hand on as it is. Raises OSError."""
    result: int = getattr(_libc, function)(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def in_a_child(act: Callable[[], Any]) -> Any:
    """What another process observes, with the identity that acts here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(act()).encode())
        except BaseException:  # noqa: BLE001 - it must not go on as the parent
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        said = answers.read()
    os.waitpid(pid, 0)
    return json.loads(said)


# ---------------------------------------------------------------- making


def touch(path: PathLike, mode: int = 0o644, content: bytes = b"") -> None:
    """A new file of exactly that mode."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, content)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def directory(path: PathLike, mode: int = 0o755) -> None:
    """A new directory of exactly that mode."""
    os.mkdir(path)
    os.chmod(path, mode)


def read_all(path: PathLike) -> str:
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


# ---------------------------------------------------------------- looking


def mode_of(path: PathLike | int) -> str:
    """The permission bits, set-id and sticky among them, in octal; of a symlink its own."""
    status = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return f"{stat.S_IMODE(status.st_mode):04o}"


def owner_of(path: PathLike) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def kind_of(path: PathLike) -> str:
    """One letter, as ls(1) writes it; "" if there is nothing."""
    try:
        return stat.filemode(os.lstat(path).st_mode)[0]
    except FileNotFoundError:
        return ""


def names(path: PathLike = ".") -> list[str]:
    return sorted(os.listdir(os.fsdecode(path)))


def links_of(path: PathLike) -> int:
    return os.lstat(path).st_nlink


# ---------------------------------------------------------------- times


def moved(act: Callable[[], object], *paths: PathLike) -> dict[str, str]:
    """Which times a call moves, of each path that there was before and is after: letters of a, m and c.

    Of a path that is missing before or after, "gone" or "new".
    """
    for path in paths:
        if kind_of(path):
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    before = {path: _times(path) for path in paths}
    let_the_clock_tick()
    act()
    return {os.fsdecode(path): _moved(before[path], _times(path)) for path in paths}


def _times(path: PathLike) -> tuple[int, int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


def _moved(before: tuple[int, int, int] | None, after: tuple[int, int, int] | None) -> str:
    if before is None or after is None:
        return "new" if after else "gone"
    return "".join(letter for letter, old, new in zip("amc", before, after, strict=True) if new != old)


def let_the_clock_tick() -> None:
    """Past all times that files have. File systems write the coarse clock's, which may be ticks behind, or a finer one
    where the last was seen already (Linux 6.13): so until the coarse one has come to what now is."""
    now_ns = time.time_ns()
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= now_ns:
        time.sleep(0.0005)
