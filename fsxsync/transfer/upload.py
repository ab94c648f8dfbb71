"""Uploads: one PUT up to the part size, else a multipart upload (multipart.py).

A file is read twice: for its hashes, and when it is sent. ``still()`` vouches that the first reading was of the file
that was judged (DESIGN §3.3); the checksum, that the second one met the same bytes: if not, the last of them are never
sent, and nothing becomes visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fsxsync import _core
from fsxsync.model.identity import Remote
from fsxsync.ports import FileRange, ObjectHeaders, ObjectStore, Unrecorded, UploadJournal, Written
from fsxsync.transfer.hashing import compare, in_thread, read_all
from fsxsync.transfer.multipart import Multipart

AT_ONCE = 8
"""Parts of one file under way: with 8 MiB each, enough for 10 Gbit/s at 50 ms; a lane's limit holds for all files."""
TINY = 256 * 1024
"""Read and hashed in the trio thread: within 0.1 ms from the page cache, less than going to a worker thread and back;
and a body in memory is signed with its SHA-256."""


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
    journal: UploadJournal | None,
    at_once: int = AT_ONCE,
) -> tuple[Written, bytes]:
    """Upload ``size`` bytes of ``fd``; the answer and the XXH3-128 of what was sent.

    A multipart upload that ends because the store is out of reach, the file moved on or the caller is cancelled stays
    for the next call with the same key, if there is a ``journal``. All others are aborted.

    Raises:
        LocalChanged: from ``still``, or because the file is not what was hashed; nothing is visible then.
        TreeError: it can't be read. ObjectDamaged: the store has other bytes than were sent.
        RepositoryError: from the store; ObjectChanged if the object is not ``replaces`` any more, or may already be
        what was sent: an answer was lost.
    """
    if size > part_size:
        return await Multipart(
            store, key, fd, headers, still, journal or Unrecorded(), keeps=journal is not None, at_once=at_once
        ).upload(size, part_size, replaces=replaces)
    body: bytes | FileRange
    if size <= TINY:
        body = read_all(fd, size, key)
        digest, crc = _core.xxh3_128(body), _core.crc64nvme(body)
    else:
        body = FileRange(fd, 0, size)
        digest, crc = await in_thread(partial(_core.hash_range, fd, 0, size), key)
    still()
    written = await store.put(key, body, replace(headers, crc64nvme=crc), replaces=replaces)
    return compare(written, crc, key), digest
