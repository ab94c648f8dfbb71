"""Requests as they go over the wire. Implementation: transfer/wire.py."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Priority(enum.IntEnum):
    """Order in which requests are taken; a foreground read outranks all else."""

    FOREGROUND = 0
    """Somebody waits in a read."""
    REQUEST = 1
    """Small requests: HEAD, DELETE, copies, small objects."""
    PRELOAD = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True)
class FileRange:
    """``length`` bytes of an open file from ``offset`` on. Whoever passes one keeps ``fd`` open until the call is over,
    however it ends."""

    fd: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Sink:
    """A file that takes an object whole, ``size`` bytes, and has these times when they are in it: bringing data is no
    modification. ``fd`` may be closed as soon as the request has gone."""

    fd: int
    size: int
    mtime_ns: int
    atime_ns: int


@dataclass(frozen=True, slots=True, repr=False)
class SignedRequest:
    """What goes over the wire, once: the store refuses a signature that is 15 minutes old.

    ``url`` is to be sent byte for byte, and ``headers`` are all there have to be but Content-Length. Whoever has them
    can send this request: they are never printed.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"SignedRequest({self.method} {self.url!r})"


@dataclass(frozen=True, slots=True)
class Answer:
    """Any HTTP answer, also of a refusal. ``headers`` have names in lower case; ``body`` is empty where the bytes went
    to a file. ``crc64nvme``: of the file range that was moved."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    crc64nvme: int | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)


class End(Protocol):
    """Ends a request that is under way, at once; what becomes of it comes all the same. ``only_held``: only if it waits
    for others of its kind, and is not sent yet."""

    def __call__(self, *, only_held: bool = False) -> None: ...


class Wire(Protocol):
    """transfer/: one road to the servers, with its own limit of requests at a time. Signs nothing, repeats nothing."""

    async def send(
        self,
        request: SignedRequest,
        *,
        what: str,
        priority: Priority,
        body: bytes | FileRange = b"",
        body_crc64nvme: int | None = None,
        into: FileRange | None = None,
        object_offset: int | None = None,
    ) -> Answer:
        """Send one request and take its answer. ``what`` names it in errors.

        ``body_crc64nvme``: of a `FileRange` body; if other bytes are read, the last of them are never sent, so that no
        store can publish them. ``into``: where the body of a 2xx goes, exactly ``length`` bytes; with
        ``object_offset`` a 206 that begins there is asked for, without it the whole object (200).

        Cancelling ends the request at once; on return nobody uses the descriptors any more.

        Raises:
            EndpointUnreachable: no answer, or not a whole one: try again. LocalChanged: the body was not what was
            announced, or the file ended before it. NoSpace. TreeError: the file can't be read or written.
            RepositoryError: an answer that is none to this request (another range, too much).
        """

    async def get_many(
        self,
        count: int,
        priority: Priority,
        prepare: Callable[[int, End], tuple[SignedRequest, Sink] | None],
        came: Callable[[int, Answer | None], None],
    ) -> None:
        """GETs of whole objects, ``count`` of them, some at a time as the limit allows; returns when all have come.

        ``prepare(number, end)`` is called when its turn has come or will soon, in order, and says what to ask for;
        None: nothing any more. ``came(number, answer)`` follows each that was asked for, whatever the answer is; None:
        there is none that is whole. Both in the trio thread; they do not block and raise nothing.

        Cancelling ends all that is under way, of which the answers come, and prepares no more.
        """
