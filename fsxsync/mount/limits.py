"""Limits that would let a few slow reads hold up everybody: raised when the mount starts."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
from pathlib import Path

from fsxsync.config import for_children

log = logging.getLogger(__name__)

BACKGROUND = 1000
"""Reads ahead that the kernel keeps under way at once for the whole mount. Its own default is 12: as many readers
of released files, and nobody reads ahead in a resident one any more, so that its reads wait for the network too."""
CONGESTED = BACKGROUND * 3 // 4
"""The kernel's own proportion: from here on it reads ahead less."""

_CONTROL = Path("/sys/fs/fuse/connections")


def allow_many_open_files() -> None:
    """Every file that applications have open is one of ours too, and 1,024, the usual soft limit, is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _device(mountpoint: Path) -> int:
    """Asked by a process of its own: the mount refuses ours (c_ext/channel_relay.c)."""
    asked = subprocess.run(  # noqa: S603
        ["stat", "-c", "%d", "--", mountpoint],  # noqa: S607
        env=for_children(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(asked.stdout)


def allow_many_reads_ahead(mountpoint: Path) -> Path:
    """The connection's directory in fusectl. Without that the kernel's limit stays.

    Blocks: for a worker thread, and only while the mount answers.
    """
    connection = _CONTROL / str(os.minor(_device(mountpoint)))
    if not connection.exists() and os.geteuid() == 0:
        # Where systemd does not run nobody has mounted it yet; this is its place.
        mount = ["mount", "-t", "fusectl", "fusectl", str(_CONTROL)]
        subprocess.run(mount, env=for_children(os.environ), check=False, capture_output=True)  # noqa: S603 - constants
    try:
        (connection / "max_background").write_text(f"{BACKGROUND}\n")
        (connection / "congestion_threshold").write_text(f"{CONGESTED}\n")
    except OSError as error:
        log.info("readers of many released files may hold up others", extra={"why": str(error)})
    return connection
