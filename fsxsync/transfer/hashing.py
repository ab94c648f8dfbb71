"""Hashes of files that are about to be sent, and what the store says of them afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import trio

from fsxsync.errors import LocalChanged, ObjectDamaged, TreeError
from fsxsync.ports import Written

_Hashes = TypeVar("_Hashes")


async def in_thread(hashes: Callable[[], _Hashes], key: str) -> _Hashes:
    """Run one of the C core's functions over a range of a file beside the trio thread.

    Raises:
        LocalChanged: the file is shorter. TreeError: it can't be read.
    """
    try:
        return await trio.to_thread.run_sync(hashes)
    except EOFError as error:
        raise shorter(key) from error
    except OSError as error:
        raise unreadable(key, error) from error


def read_all(fd: int, size: int, key: str) -> bytes:
    """The first ``size`` bytes of a small file. Raises as `in_thread`."""
    try:
        body = os.pread(fd, size, 0)
    except OSError as error:
        raise unreadable(key, error) from error
    if len(body) != size:
        raise shorter(key)
    return body


def shorter(key: str) -> LocalChanged:
    return LocalChanged(f"upload to {key}", "the file became shorter meanwhile")


def unreadable(key: str, error: OSError) -> TreeError:
    return TreeError(f"upload to {key}", f"the file can't be read: {error.strerror or error}")


def compare(written: Written, crc64nvme: int, key: str) -> Written:
    """The same answer, if the store has the bytes that we have; it may not tell.

    Raises:
        ObjectDamaged: it has others.
    """
    if written.crc64nvme not in {None, crc64nvme}:
        raise ObjectDamaged(
            f"upload to {key}", f"the object's CRC64NVME is {written.crc64nvme:016x}, the file's {crc64nvme:016x}"
        )
    return written
