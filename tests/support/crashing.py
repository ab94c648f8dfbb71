"""The test's end of `fsxsync.crashpoint`: when the daemon dies, where it could have, how wrong its clock is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsxsync.crashpoint import SIZE, VARIABLE

_HEAD = struct.Struct("<qqqq")


class CrashControl:
    """A file that daemons are pointed at by `env`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = Path(f"{path}.log")
        path.write_bytes(bytes(SIZE))
        self._file = path.open("r+b", buffering=0)

    @property
    def env(self) -> dict[str, str]:
        return {VARIABLE: str(self.path)}

    def _head(self) -> tuple[int, int, int, int]:
        self._file.seek(0)
        found: tuple[int, int, int, int] = _HEAD.unpack(self._file.read(_HEAD.size))
        return found

    def _write(self, at: int, value: int) -> None:
        self._file.seek(at)
        self._file.write(struct.pack("<q", value))

    def arm(self, countdown: int, moment: str = "") -> None:
        """Die at the so-many-th moment from now on, or at the so-many-th of that name; 0: live."""
        self._write(0, 0)
        self._file.seek(_HEAD.size)
        self._file.write(moment.encode().ljust(SIZE - _HEAD.size, b"\0"))
        if countdown:
            self._write(0, self._head()[2] + countdown)

    @contextmanager
    def another(self, moment: str) -> Iterator[None]:
        """In the block, die at the next one of that name, as often as it comes, and not at the one that is due."""
        self._file.seek(_HEAD.size)
        due = self._file.read(SIZE - _HEAD.size).rstrip(b"\0").decode()
        was_armed, before = self.is_armed, self.deaths
        self.arm(1, moment)
        try:
            yield
        finally:
            self._write(24, before)  # it is no death of that one
            self.arm(int(was_armed), due)

    @property
    def is_armed(self) -> bool:
        deadly, _, number, _ = self._head()
        return deadly > number

    @property
    def deaths(self) -> int:
        """How often a daemon died at a moment."""
        return self._head()[3]

    def set_clock(self, wrong_ns: int) -> None:
        self._write(8, wrong_ns)

    def seen(self, begin: int = 0) -> list[str]:
        """The moments from the ``begin``-th on, in order."""
        return self._log.read_text().splitlines()[begin:] if self._log.exists() else []

    def forget(self) -> None:
        """Start the list anew; no daemon is at a step."""
        if self._log.exists():
            with self._log.open("r+b") as log:
                log.truncate()

    def close(self) -> None:
        self._file.close()
