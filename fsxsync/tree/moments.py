"""The moment in which a read-only file is writable, because the daemon of an ordinary user has to change it.

The mode binds applications, not the one who keeps the file: its owner makes it writable, opens it or changes an
attribute, and takes that back. A note in the staging directory is there before, so that the start after a crash takes
it back too; else the file would stay writable, and say so in its object. Root has no such moments.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from fsxsync.tree.beneath import ABSENT, proc_path

PREFIX = b"mode-"
"""Begins the names of the notes."""


class Moments:
    """``staging_fd`` is where the notes lie. For all threads."""

    def __init__(self, staging_fd: int) -> None:
        self._staging_fd = staging_fd
        self._numbers = itertools.count(1)

    @contextmanager
    def writable(self, fd: int) -> Iterator[None]:
        """In the block, the owner may read and write the file or directory behind a descriptor of any kind.

        Raises:
            OSError: it is somebody else's, or there is no room for the note.
        """
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        note = self._write_note(fd, mode)
        try:
            os.chmod(proc_path(fd), _raised(mode))
            try:
                yield
            finally:
                os.chmod(proc_path(fd), mode)
        finally:
            os.unlink(note, dir_fd=self._staging_fd)

    def _write_note(self, fd: int, mode: int) -> bytes:
        status = os.fstat(fd)
        name = PREFIX + f"{os.getpid()}-{next(self._numbers)}".encode()
        place = os.fsencode(os.readlink(proc_path(fd)))
        document = {"path": place.hex(), "ino": status.st_ino, "dev": status.st_dev, "mode": mode}
        note = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._staging_fd)
        try:
            os.write(note, json.dumps(document).encode())
        finally:
            os.close(note)
        return name

    def take_back(self) -> None:
        """What an earlier daemon left: files of its notes that still have the mode of the moment get their own."""
        for name in map(os.fsencode, os.listdir(self._staging_fd)):
            if name.startswith(PREFIX):
                self._take_back(name)
                os.unlink(name, dir_fd=self._staging_fd)

    def _take_back(self, name: bytes) -> None:
        note = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._staging_fd)
        try:
            document = json.loads(os.read(note, 1 << 16))
            path, mode = bytes.fromhex(document["path"]), int(document["mode"])
            judged = (int(document["ino"]), int(document["dev"]), _raised(mode))
        except (ValueError, LookupError, TypeError):
            return  # half-written: the moment had not begun
        finally:
            os.close(note)
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return
        try:
            status = os.fstat(fd)
            if (status.st_ino, status.st_dev, stat.S_IMODE(status.st_mode)) == judged:
                os.chmod(proc_path(fd), mode)
        finally:
            os.close(fd)


def _raised(mode: int) -> int:
    return mode | stat.S_IRUSR | stat.S_IWUSR
