"""What must be true of a mount point before something is mounted there, and how a dead mount is cleared away."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from fsxsync import _core
from fsxsync.config import for_children
from fsxsync.errors import FuseUnavailable, MountPointUnusable

_DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
"""What the kernel says of a FUSE mount whose daemon was killed."""

_STACKED = 16
"""Dead mounts on top of each other that are cleared at most: a supervisor may have restarted blindly."""


def check_fuse() -> None:
    """Raises FuseUnavailable."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise FuseUnavailable("/dev/fuse can't be opened", error.strerror or str(error)) from error
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise FuseUnavailable("mounting without root", "there is no fusermount3", advice="install fuse3")


def check_mountpoint(mountpoint: Path, *, apart_from: tuple[Path, ...]) -> None:
    """Make sure that ``mountpoint`` is an empty directory on which nothing is mounted, and that neither it nor one
    of ``apart_from`` lies in the other. A dead FUSE mount there is cleared away first.

    Raises:
        MountPointUnusable
    """
    clear_dead_mount(mountpoint)
    what = f"mount point {mountpoint}"
    try:
        here = mountpoint.resolve(strict=True)
        is_mounted = os.path.ismount(here)
        names = os.listdir(here)
    except FileNotFoundError as error:
        raise MountPointUnusable(what, "there is no such directory", advice=f"mkdir -p {mountpoint}") from error
    except OSError as error:
        raise MountPointUnusable(what, error.strerror or str(error), advice="name an empty directory") from error
    for other in apart_from:
        there = other.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise MountPointUnusable(
                what, f"it and {other} lie in each other", advice="name a directory outside the state directory"
            )
    if is_mounted:
        raise MountPointUnusable(
            what, "something is mounted there already", advice=f"'fsxsync unmount {mountpoint}' or umount it first"
        )
    if names:
        raise MountPointUnusable(what, "it is not empty", advice="name an empty directory")


def clear_dead_mount(mountpoint: Path) -> None:
    """Unmount what a killed daemon left behind.

    Raises:
        MountPointUnusable: it can't be unmounted.
    """
    for _ in range(_STACKED):
        if not _is_dead(mountpoint):
            return
        detach(mountpoint)
    raise MountPointUnusable(
        f"mount point {mountpoint}",
        "a daemon that was killed left a mount there that can't be removed",
        advice=f"umount -l {mountpoint}",
    )


def _is_dead(mountpoint: Path) -> bool:
    try:
        os.statvfs(mountpoint)  # not stat(2): the kernel may answer that from its cache
    except OSError as error:
        return error.errno in _DEAD
    return False


def detach(mountpoint: Path) -> None:
    """Unmount lazily: whoever still has something open there keeps an end of it. Failing is for the caller to see."""
    try:
        _core.umount2(os.fsencode(mountpoint), _core.MNT_DETACH)
    except OSError:
        fusermount = shutil.which("fusermount3")
        if fusermount is not None:
            subprocess.run(  # noqa: S603
                [fusermount, "-u", "-z", "--", mountpoint],
                env=for_children(os.environ),
                check=False,
                capture_output=True,
            )
