"""`fsxsync top` on a terminal of 80x24, as somebody at it sees and leaves it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest
from support.instance import Instance, eventually
from support.moto_server import MotoServer


class Terminal:
    """A pseudo terminal with a program on it, and what its screen shows."""

    def __init__(self, fsx: Instance, *arguments: str, **env: str) -> None:
        self.screen = pyte.Screen(80, 24)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self.fd, inner = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(inner)
        self.program = subprocess.Popen(  # noqa: S603
            [*fsx.program, *arguments],
            env={**fsx.environment(), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **env},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        self.inner = inner
        os.set_blocking(self.fd, False)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def read(self) -> None:
        try:
            while data := os.read(self.fd, 65536):
                self.raw += data
                self._stream.feed(data)
        except BlockingIOError:
            return

    @property
    def lines(self) -> list[str]:
        self.read()
        return [line.rstrip() for line in self.screen.display]

    def shows(self, *parts: str) -> bool:
        """One line has all of these."""
        return any(all(part in line for part in parts) for line in self.lines)

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait()
        os.close(self.fd)
        os.close(self.inner)


@contextmanager
def terminal(fsx: Instance, **env: str) -> Iterator[Terminal]:
    made = Terminal(fsx, "top", "--interval", "0.2", **env)
    try:
        yield made
    finally:
        made.close()


def test_top_shows_what_the_daemon_does(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, tmp_path: Path) -> None:
    fsx.associate(moto, f"s3://{bucket}/a/", "/first", "--poll", "0")
    fsx.associate(moto, f"s3://{bucket}/b/", "/evil\x1b[2Jname", "--poll", "0")
    fsx.settle()
    with terminal(fsx) as shown:
        eventually(lambda: shown.shows("/first", "AVAILABLE"))
        assert shown.shows("ASSOCIATION", "PENDING", "OLDEST", "DOWN/s", "UP/s", "ERR", "CONFL")
        assert shown.shows("/evil\\x1b[2J", "AVAILABLE")
        assert shown.lines[-1] == "q quits"
        with (fsx.directory / "first/file").open("wb") as stream:
            stream.write(b"x")
            stream.flush()
            eventually(lambda: shown.shows("open for writing 1"))
        s3.delete_bucket(Bucket=bucket)
        (fsx.directory / "first/other").write_bytes(b"x")
        try:
            eventually(lambda: shown.shows("/first", "MISCONFIGURED"))
        except AssertionError:
            pytest.fail(f"{shown.lines}\n{fsx.ok('status', '--json').out}\n{fsx.said()}")
        eventually(lambda: shown.shows("ERRORS"))
        (row,) = [line for line in shown.lines if line.startswith("/first ")]
        assert int(row.split()[2]) > 0
        assert row.split()[3].endswith(("s", "m"))

        # drawn over in its place: the screen is never wiped, and no line runs on into the next
        assert b"\x1b[2J" not in shown.raw.partition(b"/first")[2]
        assert "\x1b[31m" in shown.raw.decode() or "\x1b[1;31m" in shown.raw.decode()

        shown.resize(50, 10)
        os.kill(shown.program.pid, signal.SIGWINCH)
        eventually(lambda: shown.lines[-1] == "q quits" and len(shown.lines) == 10)
        eventually(lambda: shown.shows("/first", "MISCONFIGURED"))

        os.write(shown.fd, b"q")
        assert shown.program.wait(30) == 0
        assert termios.tcgetattr(shown.inner) == shown.before
        shown.read()
        assert shown.raw.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor is back, and the screen as it was before

    with terminal(fsx, NO_COLOR="1") as shown:
        eventually(lambda: shown.shows("/first", "MISCONFIGURED"))
        assert b"\x1b[31m" not in shown.raw
        assert b"\x1b[1;31m" not in shown.raw
        fsx.stop()
        eventually(lambda: shown.shows("no daemon answers since"))
        shown.program.send_signal(signal.SIGINT)  # Ctrl-C
        assert shown.program.wait(30) == 0
        assert termios.tcgetattr(shown.inner) == shown.before

    fsx.start()
    plain = fsx.ok("top")  # its stdout is a pipe
    assert "\x1b" not in plain.out
    assert "MISCONFIGURED" in plain.out
    assert all(len(line) <= 80 for line in plain.out.splitlines())
    fsx.stop()
    assert fsx.run("top", "--once").code == 3
