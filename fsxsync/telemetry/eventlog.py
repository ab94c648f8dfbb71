"""The event log: what users and scripts read, with FSx's codes. One JSON object a line, rotated by size.

    {"seq": 7, "time": "2026-11-23T17:52:29.123Z", "time_ns": …, "level": "WARN", "code": "Conflict",
     "type": "Both sides changed", "flow": "import", "association": "dra-…", "path": "/a/b", "key": "",
     "message": "…"}

``seq`` rises by one an event, over restarts and rotations: it is the cursor of a reader. Writing an event
never fails for the one who tells it: what a full disk swallows is counted, and said by an event once there
is room again. All methods are called from the trio thread.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trio

from fsxsync.telemetry.codes import CODES, LEVELS, Flow, Level, as_event, type_of
from fsxsync.telemetry.log import escape, redact

__all__ = ["CODES", "Event", "EventLog", "type_of"]

log = logging.getLogger(__name__)

MESSAGE_MAX = 8192
"""Characters of a message; a path has up to 4,096 bytes, and a message may name two."""
_TAIL = 4 * 65536
"""Bytes read from a file's end to find its last event: some lines of the longest kind."""
_NAMES = ("time_ns", "level", "code", "flow", "association", "path", "key", "message")


@dataclass(frozen=True, slots=True)
class Event:
    """``path`` is from the file system's root and ``key`` the whole object key, both as they are: whoever shows them
    on a terminal escapes them. Bytes that are no UTF-8 stand in ``path`` as os.fsdecode gives them."""

    time_ns: int
    level: str
    code: str
    flow: str
    association: str
    path: str
    key: str
    message: str
    seq: int = 0

    @property
    def type(self) -> str:
        """What the code means, for people."""
        return type_of(self.code)


class EventLog:
    """``path`` is the file being written; ``path.1`` … ``path.<keep>`` are older, the higher the older."""

    def __init__(self, path: Path, *, max_bytes: int, keep: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self.dropped = 0
        """Events that could not be written since the start."""
        self._max_bytes = max_bytes
        self._keep = keep
        self._now_ns = now_ns
        self._fd: int | None = None
        self._size = 0
        self._unsaid = 0
        self._newer = trio.Event()
        self._last = next((seq for seq in map(_last_seq, self._files()) if seq), 0)

    @property
    def last(self) -> int:
        """The cursor after the newest event: 0 if there never was one."""
        return self._last

    def emit(
        self,
        *,
        code: str,
        flow: Flow | str,
        message: str,
        level: Level | str | None = None,
        association: str = "",
        path: str | bytes = "",
        key: str = "",
    ) -> None:
        """Tell one event; a completion report's code becomes the event log's. ``level`` None takes that of the
        code; a ``path`` of bytes is below the file system's root."""
        code = as_event(code, flow)
        if level is None:
            level = CODES[code].level if code in CODES else "ERROR"
        if isinstance(path, bytes):
            path = "/" + path.decode("utf-8", "surrogateescape")
        told = (level, code, flow, association, path, key, _cut(escape(redact(message))))
        try:
            if self._unsaid:
                self._write("WARN", "EventsDropped", "daemon", "", "", "", f"{self._unsaid} events were dropped")
                self._unsaid = 0
            self._write(*told)
        except OSError as error:
            self.close()  # opening it again mends a torn line
            self.dropped += 1
            self._unsaid += 1
            if self._unsaid == 1:
                log.warning("event log can't be written", extra={"file": self.path, "reason": str(error)})
        self._newer.set()
        self._newer = trio.Event()

    def _write(self, *told: str) -> None:
        time_ns = self._now_ns()
        document: dict[str, object] = {"seq": self._last + 1, "time": _iso(time_ns)}
        document |= dict(zip(_NAMES, (time_ns, *told), strict=True))
        document["type"] = type_of(told[1])
        line = json.dumps(document).encode() + b"\n"
        fd = self._open(len(line))
        written = os.write(fd, line)
        if written < len(line):  # the disk is full now: half a line is no event
            os.ftruncate(fd, self._size)
            raise OSError(f"only {written} of {len(line)} bytes could be written")
        self._size += written
        self._last += 1

    def _open(self, length: int) -> int:
        """The file to append to: a new one if the old would grow too large."""
        fd = self._open_last()
        if self._size and self._size + length > self._max_bytes:
            self.close()
            self._rotate()
            fd = self._open_last()
        return fd

    def _open_last(self) -> int:
        if self._fd is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self.path, flags, 0o600)
            self._size = os.fstat(fd).st_size
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
                self._size += os.write(fd, b"\n")  # a power cut tore the last line
            self._fd = fd
        return self._fd

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self._file(number - 1)
            if older.exists():
                os.replace(older, self._file(number))
        if self._keep == 0:
            self.path.unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _files(self) -> list[Path]:
        """What there is, the newest first."""
        return [file for file in map(self._file, range(self._keep + 1)) if file.exists()]

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # ------------------------------------------------------------- reading

    def read(
        self,
        since: int | None = None,
        *,
        level: str | None = None,
        association: str | None = None,
        limit: int = 1000,
    ) -> tuple[list[Event], int]:
        """Up to ``limit`` events after the cursor ``since`` (None: from the oldest kept), the oldest
        first, and the cursor to go on from. ``level`` WARN means WARN and ERROR.

        Raises:
            OSError: the files can't be read.
        """
        # A cursor from another life of the state directory would wait for ever.
        cursor = since if since is not None and since <= self._last else 0
        events: list[Event] = []
        for file in reversed(self._files()):
            for event in _events_after(file, cursor):
                if len(events) == limit:
                    return events, cursor
                cursor = event.seq
                if _fits(event, level, association):
                    events.append(event)
        return events, cursor

    def latest(
        self, count: int, *, level: str | None = None, association: str | None = None
    ) -> tuple[list[Event], int]:
        """The newest ``count`` events, the oldest of them first, and the cursor to follow from.

        Raises:
            OSError: the files can't be read.
        """
        events: list[Event] = []
        for file in self._files():
            if len(events) < count:
                events = [event for event in _events_after(file, 0) if _fits(event, level, association)] + events
        return events[max(0, len(events) - count) :], self._last

    async def wait_newer(self, since: int) -> None:
        """Return when there is an event after the cursor."""
        while self._last <= since:
            await self._newer.wait()


def _fits(event: Event, level: str | None, association: str | None) -> bool:
    if association is not None and event.association != association:
        return False
    return level not in LEVELS or event.level in LEVELS[LEVELS.index(level) :]


def _events_after(file: Path, cursor: int) -> Iterator[Event]:
    with file.open("rb") as stream:
        stream.seek(_offset_after(stream, cursor))
        for line in stream:
            event = _parse(line)
            if event is not None and event.seq > cursor:
                yield event


def _offset_after(stream: BinaryIO, cursor: int) -> int:
    """Where to start reading for events after the cursor: the lines are sorted, so by halves."""
    low, high = 0, stream.seek(0, os.SEEK_END)
    while low < high:
        middle = (low + high) // 2
        stream.seek(middle)
        if middle:
            stream.readline()  # the rest of the line that the middle fell into
        event = next((event for line in stream if (event := _parse(line)) is not None), None)
        if event is None or event.seq > cursor:
            high = middle
        else:
            low = middle + 1
    stream.seek(low)
    if low:
        stream.readline()
    return stream.tell()


def _last_seq(file: Path) -> int:
    """The number of a file's last event; 0 if it has none."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL))
        events = [event.seq for line in stream if (event := _parse(line)) is not None]
    return events[-1] if events else 0


def _parse(line: bytes) -> Event | None:
    """None for what is no event: a line torn by a power cut, or written by somebody else."""
    try:
        document = json.loads(line)
        return Event(
            time_ns=int(document["time_ns"]),
            seq=int(document["seq"]),
            **{name: str(document[name]) for name in _NAMES[1:]},
        )
    except (ValueError, KeyError, TypeError):
        return None


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 1] + "…"


def _iso(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 10**6:03d}Z"
