"""How requests come from the kernel: from pyfuse3's own mount, or by the channel from a mount of ours (DESIGN §11)."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pyfuse3
import trio

from fsxsync import _core
from fsxsync.model.stub import XATTR
from fsxsync.mount.invalidate import Notifier
from fsxsync.mount.mountpoint import clear_dead_mount

_FSTYPE = b"fuse.fsxsync"
_DEVICE = os.makedev(10, 229)
"""/dev/fuse (Documentation/admin-guide/devices.txt)."""
_FLAGS = {
    "ro": _core.MS_RDONLY,
    "nosuid": _core.MS_NOSUID,
    "nodev": _core.MS_NODEV,
    "noexec": _core.MS_NOEXEC,
    "noatime": _core.MS_NOATIME,
    "sync": _core.MS_SYNCHRONOUS,
    "dirsync": _core.MS_DIRSYNC,
}
_CLEARED = {"suid": _core.MS_NOSUID, "dev": _core.MS_NODEV}
_FOR_FUSE = ("default_permissions", "allow_other")


class Connection(Protocol):
    """One that is up; made by mounting."""

    notifier: Notifier

    async def watch_end(self) -> None:
        """Return when the kernel's side has ended: unmounted, or aborted. pyfuse3's loop goes on until all that it
        is answering is answered, though nobody waits for that any more."""

    def close(self) -> None:
        """The mount ends, lazily; what is left of it where that fails is dead."""


class PlainConnection:
    """pyfuse3 mounts and is asked by the kernel."""

    notifier: Notifier = pyfuse3

    def __init__(self, operations: pyfuse3.Operations, mountpoint: Path, options: set[str]) -> None:
        before = _fuse_devices()
        _init(operations, str(mountpoint), options)
        self._devices = _fuse_devices() - before  # libfuse keeps its one to itself

    async def watch_end(self) -> None:
        # The descriptor itself is readable with each request, and pyfuse3 waits for that. Asked for nothing, this
        # one tells of an error only, which is what a device without a connection has (fuse_dev_poll).
        with select.epoll() as ended:
            for device in self._devices:
                ended.register(device, 0)
            await trio.lowlevel.wait_readable(ended.fileno())

    def close(self) -> None:
        pyfuse3.close(unmount=True)  # lazily, and nothing happens if it is unmounted already


class ChannelConnection:
    """We mount, and pyfuse3 is asked by the channel. Needs root.

    Raises:
        OSError: the kernel refused. RuntimeError: libfuse did.
    """

    def __init__(self, operations: pyfuse3.Operations, mountpoint: Path, options: set[str]) -> None:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._mount(device, mountpoint, options)
            self.channel = _core.Channel(device, XATTR)
        except BaseException:
            os.close(device)
            clear_dead_mount(mountpoint)
            raise
        try:
            _init(operations, f"/dev/fd/{self.channel.session}", options)
        except BaseException:
            self.channel.close()
            clear_dead_mount(mountpoint)
            raise
        self.notifier: Notifier = self.channel

    @staticmethod
    def _mount(device: int, mountpoint: Path, options: Iterable[str]) -> None:
        """What libfuse would do (lib/mount.c)."""
        words = set(options)
        source = next(word.removeprefix("fsname=") for word in words if word.startswith("fsname="))
        flags = _core.MS_NOSUID | _core.MS_NODEV
        for word in words:
            flags |= _FLAGS.get(word, 0)
        for word in words:
            flags &= ~_CLEARED.get(word, 0)
        told = [f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"]
        told += [word for word in _FOR_FUSE if word in words]
        _core.mount(source.encode(), os.fsencode(mountpoint), _FSTYPE, flags, ",".join(told).encode())

    async def watch_end(self) -> None:
        await trio.lowlevel.wait_readable(self.channel.fileno())

    def close(self) -> None:
        pyfuse3.close(unmount=False)  # it mounted nothing, but the pair's end is its own
        self.channel.close()


def _fuse_devices() -> set[int]:
    """Our descriptors of /dev/fuse, whatever its name is."""
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the one that listed them is closed
            status = os.fstat(number)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == _DEVICE:
                found.add(number)
    return found


def _init(operations: pyfuse3.Operations, mountpoint: str, options: set[str]) -> None:
    try:
        pyfuse3.init(operations, mountpoint, options)
    except RuntimeError as error:
        if "fuse_session_mount" in str(error):
            pyfuse3.close(unmount=False)  # so that another try in this process starts anew
        raise
