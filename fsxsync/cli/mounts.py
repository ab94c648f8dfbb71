"""What the kernel knows about mounts, and the options that mount(8) hands over."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fsxsync.errors import BadInput

FSTYPE = "fuse.fsxsync"
_SWITCHES = {
    "allow_other": ("allow_other", True),
    "ro": ("ro", True),
    "rw": ("ro", False),
    "suid": ("nosuid", False),
    "nosuid": ("nosuid", True),
    "dev": ("nodev", False),
    "nodev": ("nodev", True),
    "exec": ("noexec", False),
    "noexec": ("noexec", True),
    "atime": ("noatime", False),
    "noatime": ("noatime", True),
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
}
_MEANT_FOR_OTHERS = re.compile(
    r"""defaults|(no)?auto|(no)?user|users|owner|group|(no)?fail|_netdev|(no)?relatime|(no)?strictatime
      | (no)?diratime|default_permissions|loud|silent|(no)?iversion|(no)?mand|(no)?lazytime
      | (x-|X-|comment=|fsname=|subtype=).*""",
    re.VERBOSE,
)
"""Words of fstab(5) for mount(8), systemd or the kernel's VFS, and what we do anyhow."""
_VALUES = ("attr_timeout", "config", "metrics_listen", "api_listen", "passthrough")
_PASSTHROUGH = ("auto", "on", "off")


@dataclass(frozen=True, slots=True)
class Mounted:
    mountpoint: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class MountOptions:
    """``flags`` for the kernel and the front, by name; the rest are settings."""

    flags: dict[str, str | bool]
    config: Path | None = None
    metrics_listen: str | None = None
    api_listen: str | None = None


def parse_options(given: Sequence[str]) -> MountOptions:
    """``-o`` as mount(8) passes it on: words and name=value, separated by commas; the last one counts.

    Raises:
        BadInput: one that is not known.
    """
    flags: dict[str, str | bool] = {}
    values: dict[str, str] = {}
    for option in (word.strip() for words in given for word in words.split(",")):
        name, separator, value = option.partition("=")
        if option in _SWITCHES:
            flag, is_set = _SWITCHES[option]
            flags[flag] = is_set
        elif separator and name in _VALUES:
            values[name] = value
        elif option and not _MEANT_FOR_OTHERS.fullmatch(option):
            known = ", ".join([*_SWITCHES, *(f"{name}=" for name in _VALUES)])
            raise BadInput(f"mount option '{option}'", "there is no such option", advice=f"known are {known}")
    passthrough = values.get("passthrough")
    if passthrough is not None:
        if passthrough not in _PASSTHROUGH:
            raise BadInput(
                f"mount option 'passthrough={passthrough}'", "there is no such value", advice="auto, on or off"
            )
        flags["passthrough"] = passthrough
    if "attr_timeout" in values:
        flags["attr_timeout_s"] = values["attr_timeout"]
    return MountOptions(
        flags=flags,
        config=Path(values["config"]) if "config" in values else None,
        metrics_listen=values.get("metrics_listen"),
        api_listen=values.get("api_listen"),
    )


def mounted(mountinfo: str = "/proc/self/mountinfo") -> list[Mounted]:
    """The mounts of `fsxsync` that this process sees, the newest last (proc_pid_mountinfo(5))."""
    found: list[Mounted] = []
    with open(mountinfo, "rb") as lines:
        for line in lines:
            left, _, right = line.rstrip(b"\n").partition(b" - ")
            fstype, source = right.split(b" ")[:2]
            name, _, quoted = _unescaped(source).partition(":")
            if os.fsdecode(fstype) == FSTYPE and name == "fsxsync":
                state_dir = os.fsdecode(unquote_to_bytes(quoted))
                found.append(Mounted(_unescaped(left.split(b" ")[4]), state_dir))
    return found


def _unescaped(field: bytes) -> str:
    """The kernel writes space, tab, newline and backslash as octal codes."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))


def resolved(mountpoint: str) -> str:
    """The name that mountinfo has for it, found without a look at the mount, which may hang or be dead."""
    parent, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(parent), name)


def state_dir_of(mountpoint: str) -> Path:
    """The state directory of the daemon that serves a mount point.

    Raises:
        BadInput: it is no mount of ours.
    """
    wanted = resolved(mountpoint)
    for mount in reversed(mounted()):
        if mount.mountpoint == wanted:
            return Path(mount.state_dir)
    raise BadInput(
        f"{mountpoint} can't be unmounted",
        "fsxsync has mounted nothing there",
        advice="'fsxsync status' names the mount point",
    )
