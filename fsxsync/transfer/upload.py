"""Uploads: one PUT up to the part size, else a multipart upload with parallel parts.

Nothing becomes visible before ``still()`` agreed that the file is the one that was read (DESIGN §3.3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import trio

from fsxsync import _core
from fsxsync.errors import LocalChanged, RepositoryError
from fsxsync.model.identity import Remote
from fsxsync.model.parts import Part, plan_parts
from fsxsync.ports import ObjectHeaders, ObjectStore, UploadedPart, Written
from fsxsync.transfer.files import read_all


class UploadJournal(Protocol):
    """Remembers multipart uploads that are under way, so that a restart can abort what a crash left behind."""

    def intended(self, store: ObjectStore, key: str) -> str:
        """One is about to be started: its id may be lost with the answer. Returns a name for `finished`."""

    def started(self, store: ObjectStore, key: str, upload_id: str) -> None: ...

    def finished(self, upload_id: str) -> None: ...


async def upload_file(
    store: ObjectStore,
    key: str,
    fd: int,
    size: int,
    headers: ObjectHeaders,
    *,
    replaces: Remote | None,
    still: Callable[[], None],
    part_size: int,
    limiter: trio.CapacityLimiter,
    journal: UploadJournal | None,
) -> tuple[Written, bytes]:
    """Upload ``size`` bytes of ``fd``; the answer and the XXH3-128 of what was sent.

    Raises:
        LocalChanged: from ``still`` or because the file became shorter; nothing is visible then.
        RepositoryError: from the store; ObjectChanged if the object is not ``replaces`` any more.
    """
    if size <= part_size:
        return await trio.to_thread.run_sync(
            lambda: _put(store, key, fd, size, headers, replaces=replaces, still=still), limiter=limiter
        )
    return await _multipart(
        store,
        key,
        fd,
        plan_parts(size, part_size),
        headers,
        replaces=replaces,
        still=still,
        limiter=limiter,
        journal=journal,
    )


def _put(
    store: ObjectStore,
    key: str,
    fd: int,
    size: int,
    headers: ObjectHeaders,
    *,
    replaces: Remote | None,
    still: Callable[[], None],
) -> tuple[Written, bytes]:
    body = read_all(fd, 0, size)
    still()
    headers = replace(headers, crc64nvme=_core.crc64nvme(body))
    return store.put(key, body, headers, replaces=replaces), _core.xxh3_128(body)


async def _multipart(
    store: ObjectStore,
    key: str,
    fd: int,
    parts: list[Part],
    headers: ObjectHeaders,
    *,
    replaces: Remote | None,
    still: Callable[[], None],
    limiter: trio.CapacityLimiter,
    journal: UploadJournal | None,
) -> tuple[Written, bytes]:
    intent = journal.intended(store, key) if journal is not None else ""
    upload_id = await trio.to_thread.run_sync(store.start_upload, key, headers, limiter=limiter)
    if journal is not None:
        journal.started(store, key, upload_id)
        journal.finished(intent)
    done: dict[int, UploadedPart] = {}

    def send(part: Part) -> UploadedPart:
        return store.upload_part(key, upload_id, part.number, read_all(fd, part.offset, part.length))

    async def worker(part: Part) -> None:
        done[part.number] = await trio.to_thread.run_sync(send, part, limiter=limiter)

    def complete() -> Written:
        still()
        return store.complete_upload(key, upload_id, [done[part.number] for part in parts], replaces=replaces)

    try:
        # The digest is taken before the parts are read for sending: `still` vouches for both readings at once.
        size = sum(part.length for part in parts)
        digest = await trio.to_thread.run_sync(_digest, fd, size, limiter=limiter)
        try:
            async with trio.open_nursery() as nursery:
                for part in parts:
                    nursery.start_soon(worker, part)
        except* Exception as failures:
            raise _first(failures) from failures
        written = await trio.to_thread.run_sync(complete, limiter=limiter)
    except BaseException:
        with trio.CancelScope(shield=True), contextlib.suppress(RepositoryError):
            # Failing to abort costs storage, not data; the journal keeps the id for the next start.
            await trio.to_thread.run_sync(store.abort_upload, key, upload_id)
            if journal is not None:
                journal.finished(upload_id)
        raise
    if journal is not None:
        journal.finished(upload_id)
    return written, digest


def _digest(fd: int, size: int) -> bytes:
    try:
        return _core.xxh3_128_range(fd, 0, size)
    except EOFError as error:
        raise LocalChanged("reading a file for upload", "it became shorter meanwhile") from error


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first leaf: the parts fail for one reason, and the caller acts on its class."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
