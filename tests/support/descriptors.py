"""What a process has open, while it goes on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def opened(pid: int) -> list[str]:
    """What each descriptor leads to; those that are closed meanwhile are left out."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(descriptor))
    return found


def listening_ports(pid: int) -> list[int]:
    """TCP ports that a process listens on."""
    sockets = set(opened(pid))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
