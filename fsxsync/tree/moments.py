"""The moment in which a read-only file is writable, because the daemon of an ordinary user has to change it.

The mode binds applications, not the one who keeps the file: its owner makes it writable, opens it or changes an
attribute, and takes that back. A note in the staging directory is there before, so that the start after a crash takes
it back too; else the file would stay writable, and say so in its object. Root has no such moments.

An application may change the mode in that moment. What it set stays, but for three cases that no call of the kernel's
tells apart, each some microseconds wide: it is set between our last look at the mode and our raising it; or between the
look before taking back and taking back; or it is set to exactly the mode that we had raised it to.

After a crash a file keeps the raised mode where the note does not lead to it: it was renamed before the next start, or
a power cut emptied the note, which is not brought to the disk first.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fsxsync.tree.beneath import ABSENT, proc_path

PREFIX = b"mode-"
"""Begins the names of the notes."""


class Moments:
    """``staging_fd`` is where the notes lie, ``dev`` the tree's device as it is now. For all threads."""

    def __init__(self, staging_fd: int, dev: int) -> None:
        self._staging_fd = staging_fd
        self._dev = dev
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        """One moment at a time: who came to a file in another's would take the raised mode for the application's."""

    @contextmanager
    def writable(self, fd: int) -> Iterator[None]:
        """In the block, the owner may read and write the file or directory behind a descriptor of any kind.

        Raises:
            OSError: it is somebody else's, or there is no room for the note.
        """
        with self._lock:
            mode = _mode(fd)
            while _raised(mode) != mode:
                note = self._write_note(fd, mode)
                try:
                    if (now := _mode(fd)) == mode:
                        os.chmod(proc_path(fd), _raised(mode))
                        try:
                            yield
                        finally:
                            if _is_raised(_mode(fd), mode):
                                os.chmod(proc_path(fd), mode)
                        return
                finally:
                    os.unlink(note, dir_fd=self._staging_fd)
                mode = now
            yield

    def _write_note(self, fd: int, mode: int) -> bytes:
        name = PREFIX + f"{os.getpid()}-{next(self._numbers)}".encode()
        place = os.fsencode(os.readlink(proc_path(fd)))
        document = {"path": place.hex(), "ino": os.fstat(fd).st_ino, "mode": mode}
        note = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._staging_fd)
        try:
            write_whole(note, json.dumps(document).encode())
        except OSError:
            os.unlink(name, dir_fd=self._staging_fd)
            raise
        finally:
            os.close(note)
        return name

    def take_back(self) -> None:
        """What an earlier daemon left: files of its notes that still have the mode of the moment get their own."""
        for name in map(os.fsencode, os.listdir(self._staging_fd)):
            if name.startswith(PREFIX):
                with suppress(PermissionError):  # it is somebody else's now, or lies where we may not go any more
                    self._take_back(name)
                os.unlink(name, dir_fd=self._staging_fd)

    def _take_back(self, name: bytes) -> None:
        note = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._staging_fd)
        try:
            document = json.loads(os.read(note, 1 << 16))
            path, ino, mode = bytes.fromhex(document["path"]), int(document["ino"]), int(document["mode"])
        except (ValueError, LookupError, TypeError):
            return  # half-written before the moment began, or emptied by a power cut
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
            # Not the device that it had then: some file systems have another number after each boot (btrfs).
            if (status.st_ino, status.st_dev) == (ino, self._dev) and _is_raised(stat.S_IMODE(status.st_mode), mode):
                os.chmod(proc_path(fd), mode)
        finally:
            os.close(fd)


def write_whole(fd: int, data: bytes) -> None:
    """Write a note, all of it: a disk that becomes full takes a part without a word. Raises OSError."""
    if os.write(fd, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _mode(fd: int) -> int:
    return stat.S_IMODE(os.fstat(fd).st_mode)


def _raised(mode: int) -> int:
    return mode | stat.S_IRUSR | stat.S_IWUSR


def _is_raised(now: int, mode: int) -> bool:
    """The kernel takes the set-group-id bit off where the owner is not of the group."""
    return now in {_raised(mode), _raised(mode) & ~stat.S_ISGID}
