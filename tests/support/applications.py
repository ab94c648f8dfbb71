# ruff: noqa: S603 - our own interpreter
"""Programs that use a mount while something happens to it, each a process of its own.

    with Applications() as programs:
        programs.start("write", path)
        ...
        assert programs.end() == {"write": "ENOTCONN"}

What a program does goes on until an error or until it is told to end; what it waits for, it waits for.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PROGRAM = r"""
import errno, fcntl, mmap, os, select, sys

what, path = sys.argv[1:]

def up():
    print("up", flush=True)

def goes_on():
    return not select.select([sys.stdin], [], [], 0)[0]

def read():
    fd = os.open(path, os.O_RDONLY)
    up()
    while goes_on():
        os.pread(fd, 65536, 0)

def write():
    fd = os.open(path, os.O_RDWR)
    up()
    while goes_on():
        os.pwrite(fd, b"written", 0)
        os.fstat(fd)

def map():
    fd = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(fd, 0)
    os.close(fd)
    up()
    while goes_on():
        mapped[8:14] = b"mapped"

def reopen():
    up()
    while goes_on():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT))

def make():
    number = 0
    up()
    while goes_on():
        number += 1
        with open(f"{path}-{number % 50}", "wb") as file:
            file.write(b"made" * 1000)
        os.rename(f"{path}-{number % 50}", f"{path}-renamed")

def look():
    up()
    while goes_on():
        os.listdir(os.path.dirname(path))
        os.stat(path)

def wait_for_bytes():
    fd = os.open(path, os.O_RDONLY)
    up()
    os.pread(fd, 4096, os.fstat(fd).st_size - 4096)

def wait_for_open():
    up()
    os.open(path, os.O_RDONLY)

def wait_for_writing():
    up()
    os.open(path, os.O_RDWR)

try:
    globals()[what]()
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("done")
os._exit(0)
"""


class Applications:
    """A context manager: what still runs at its end is killed."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self, what: str, path: Path) -> None:
        """Returns when it uses the mount, or is about to wait."""
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, what, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._running.append((what, process))
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", what

    @property
    def pids(self) -> list[int]:
        return [process.pid for _, process in self._running]

    def running(self) -> list[str]:
        return [what for what, process in self._running if process.poll() is None]

    def wait(self, which: str, within_s: float = 20) -> None:
        """Until all whose names begin so have ended by themselves.

        Raises:
            AssertionError: they hang.
        """
        deadline = time.monotonic() + within_s
        while hung := [what for what in self.running() if what.startswith(which)]:
            assert time.monotonic() < deadline, f"hung: {hung}: {[stack(pid) for pid in self.pids]}"
            time.sleep(0.01)

    def end(self, within_s: float = 20) -> dict[str, str]:
        """Tell all to end: what each ended with. Raises AssertionError: they hang."""
        for _, process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        self.wait("", within_s)
        said = {}
        for what, process in self._running:
            assert process.stdout is not None
            said[what] = process.stdout.read().strip()
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._running:
            process.kill()
        for _, process in self._running:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            process.wait(20)


GONE = frozenset(errno.errorcode[number] for number in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO))
"""What is said of a mount without a daemon."""


def stack(pid: int) -> str:
    """Where in the kernel a process waits."""
    try:
        return Path(f"/proc/{pid}/stack").read_text()
    except OSError:
        return "?"
