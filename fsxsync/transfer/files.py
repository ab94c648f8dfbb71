"""Whole reads and writes at offsets: the short ones of the kernel are looped over."""

from __future__ import annotations

import os

from fsxsync.errors import LocalChanged


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write everything at ``offset``. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def read_all(fd: int, offset: int, length: int) -> bytes:
    """Read exactly ``length`` bytes.

    Raises:
        LocalChanged: the file ends before: it was cut under us.
    """
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(fd, length, offset)
        if not piece:
            raise LocalChanged("reading a file for upload", "it became shorter meanwhile")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
