"""Which boot of the machine this is: what was not brought to the disk in another one may be lost."""

from __future__ import annotations

import uuid
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another one after each start of the machine (random(4))."""


def this_boot() -> str:
    """The kernel's name for this boot. Where it tells none, one that nobody had before: then nothing that is not on
    the disk is believed."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return uuid.uuid4().hex
