"""Settings of a daemon: flags before environment (``FSXSYNC_*``) before the TOML file before defaults."""

from __future__ import annotations

import os
import pwd
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fsxsync.errors import BadInput

PREFIX = "FSXSYNC_"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PART_MIN, PART_MAX = 5 * MIB, 5 * GIB
"""S3's limits of a part of a multipart upload."""
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be set. Times are seconds, sizes bytes (in TOML and environment also ``"8 MiB"``)."""

    state_dir: Path
    """Tree, catalog, socket: one daemon (CLI.md, Instance)."""
    export_delay_s: float = 1.0
    """A path is exported once it was quiet for so long …"""
    export_cap_s: float = 30.0
    """… at the latest so long after it changed first."""
    cache_high: str = ""
    """Above so much of the disk in use, bytes or percent of the file system, files are released … (empty: never)"""
    cache_low: str = ""
    """… the least recently used first, until no more than this is in use; empty is a twentieth below."""
    chunk_size: int = 8 * MIB
    """What a read of a released file loads at once."""
    part_size: int = 8 * MIB
    """Parts of a multipart upload; grown where 10,000 would not suffice."""
    transfer_threads: int = 32
    """Native threads that carry requests: so many are under way at once, over all associations."""
    association_requests: int = 24
    """Requests of one association at a time; fewer while its store says that it is too much."""
    bandwidth_down: int = 0
    """Bytes a second from the stores; 0 is no limit."""
    bandwidth_up: int = 0
    """Bytes a second to the stores; 0 is no limit."""
    buffer_memory: int = 256 * MIB
    """For what is on its way between socket and file, in all."""
    look_workers: int = 24
    """Paths of one association that are looked at at the same time."""
    attr_timeout_s: float = 60.0
    """How long the kernel may believe an attribute without asking; what we change ourselves is
    invalidated."""
    poll_default_s: float = 60.0
    """How often a listing is read where no event queue tells of changes."""
    queue_wait_s: int = 20
    """How long a receive waits for messages at the event queue. SQS allows 20, and a wait costs one request."""
    retry_s: float = 1.0
    """How soon something that failed is tried again; every further time it takes twice as long, up to five minutes."""
    restore_check_s: float = 300.0
    """How often what waits for the repository (an archived object, one under a lock) is looked at without an event."""
    log_level: str = "INFO"
    log_style: str = "text"
    event_log_max_bytes: int = 4 * MIB
    """Size at which the event log is rotated; reading one such file takes a tenth of a second."""
    event_log_keep: int = 8
    """Rotated event logs that are kept."""
    metrics_listen: str | None = None
    """``HOST:PORT`` for Prometheus."""
    api_listen: str | None = None
    """``HOST:PORT`` for the FSx API; loopback only."""
    stay_awake: str = "auto"
    """Processors are kept awake while the mount is asked one thing after another; ``auto``: those of small machines."""
    allow_other: bool = False
    """Users other than the daemon's may use the mount."""


def load(config_file: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Settings from all sources; a flag of value None was not given.

    Variables that name no setting are left alone: an orchestrator makes some up after the service's name.

    Raises:
        BadInput: an unknown key or a bad value, with where it stands.
    """
    given: dict[str, tuple[object, str]] = {}
    for name, value in (_read(config_file) if config_file is not None else {}).items():
        given[_known(name, f"in {config_file}")] = (value, f"{name} in {config_file}")
    for name in _CHECKS:
        variable = PREFIX + name.upper()
        if env.get(variable):
            given[name] = (env[variable], f"{variable} in the environment")
    for name, value in flags.items():
        if value is not None:
            option = "--" + _known(name, "among the options").replace("_", "-")
            given[name] = (value, f"option {option}")
    given.setdefault("state_dir", (default_state_dir(env, os.geteuid()), "the default state directory"))
    settings = Settings(**{name: _checked(name, value, where) for name, (value, where) in given.items()})
    if settings.export_cap_s < settings.export_delay_s:
        where = next(given[name][1] for name in ("export_cap_s", "export_delay_s") if name in given)
        raise BadInput(where, f"export_cap_s is {settings.export_cap_s:g}, less than export_delay_s", advice=_HELP)
    high, low = settings.cache_high, settings.cache_low
    if low and (not high or (low.endswith("%") == high.endswith("%") and _amount(low) > _amount(high))):
        raise BadInput(given["cache_low"][1], f"it is not below cache_high, which is {high or 'not set'}", advice=_HELP)
    return settings


def _amount(mark: str) -> float:
    return float(mark.removesuffix("%"))


def for_children(env: Mapping[str, str]) -> dict[str, str]:
    """What the small programs that a daemon runs need of its environment. Credentials are not among it: each process
    that has them in /proc/PID/environ is one more to be read."""
    return {name: env[name] for name in ("PATH", "LANG", "LC_ALL") if name in env}


def default_state_dir(env: Mapping[str, str], uid: int) -> Path:
    """Where a daemon's state is if no option says: ``FSXSYNC_STATE_DIR``, or the place for that user.

    Raises:
        BadInput: the user has no home.
    """
    named = env.get(PREFIX + "STATE_DIR")
    if named:
        return Path(named)
    if uid == 0:
        return Path("/var/lib/fsxsync/default")
    base = env.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # a relative one is to be ignored (XDG Base Directory Specification)
        return Path(base) / "fsxsync" / "default"
    home = env.get("HOME", "")
    if not home:
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError as error:
            raise BadInput("no state directory", f"user {uid} has no home", advice="name a --state-dir") from error
    return Path(home) / ".local" / "state" / "fsxsync" / "default"


_HELP = "correct it and start again"


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise BadInput(f"{file} can't be read", error.strerror or str(error), advice=_HELP) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no TOML", str(error), advice=_HELP) from error


def _known(name: str, where: str) -> str:
    if name in _CHECKS:
        return name
    raise BadInput(f"'{name}' {where}", "there is no such setting", advice=f"known are {', '.join(sorted(_CHECKS))}")


def _checked(name: str, value: object, where: str) -> Any:
    try:
        return _CHECKS[name](value)
    except ValueError as error:
        raise BadInput(where, f"{value!r} {error}", advice=_HELP) from error


# Each check takes what TOML, environment or command line gave, and says in a ValueError why that won't do.
Check = Callable[[object], object]


def _number(low: float, high: float) -> Check:
    def check(value: object) -> float:
        message = f"is no number from {low:g} to {high:g}"
        try:
            number = float(str(value))  # TOML's true is a bool, which float() would take for 1
        except ValueError as error:
            raise ValueError(message) from error
        if not low <= number <= high:  # NaN too
            raise ValueError(message)
        return number

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: object) -> int:
        number = _number(low, high)(value)
        assert isinstance(number, float)
        if not number.is_integer():
            raise ValueError("is no whole number")
        return int(number)

    return check


def _size(low: int, high: int, multiple: int = 1) -> Check:
    def check(value: object) -> int:
        found = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?", str(value).strip(), re.IGNORECASE)
        if isinstance(value, bool) or found is None:
            raise ValueError("is no size like 8388608 or '8 MiB'")
        size = int(found[1]) * _UNITS[found[2].lower()]
        if not low <= size <= high or size % multiple:
            raise ValueError(
                f"is not from {low} to {high} bytes" + (f" in steps of {multiple}" if multiple > 1 else "")
            )
        return size

    return check


def _watermark(value: object) -> str:
    text = str(value).strip()
    if not text:
        return ""
    if text.endswith("%"):
        return f"{_number(1, 99)(text[:-1]):g}%"
    try:
        return str(_size(MIB, 1 << 50)(value))
    except ValueError as error:
        raise ValueError("is neither a size like '100 GiB' nor percent from 1% to 99%") from error


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("is neither true nor false")


def _one_of(words: Iterable[str]) -> Check:
    known = {word.lower(): word for word in words}

    def check(value: object) -> str:
        word = known.get(str(value).lower())
        if word is None:
            raise ValueError(f"is none of {', '.join(known.values())}")
        return word

    return check


def _directory(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("is no directory's name")
    return Path(value)


def _listen(value: object) -> str:
    text = str(value)
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is no HOST:PORT")
    return text


_CHECKS: Mapping[str, Check] = {
    "state_dir": _directory,
    "export_delay_s": _number(0, 3600),
    "export_cap_s": _number(0, 86400),
    "cache_high": _watermark,
    "cache_low": _watermark,
    "chunk_size": _size(64 * KIB, GIB, multiple=4 * KIB),  # holes are punched by blocks
    "part_size": _size(PART_MIN, PART_MAX),
    "transfer_threads": _whole(1, 256),
    "association_requests": _whole(1, 1024),
    "bandwidth_down": _size(0, 1 << 40),
    "bandwidth_up": _size(0, 1 << 40),
    "buffer_memory": _size(8 * MIB, 64 * GIB),
    "look_workers": _whole(1, 256),
    "attr_timeout_s": _number(0, 86400),
    "poll_default_s": _number(0, 86400),
    "queue_wait_s": _whole(0, 20),
    "retry_s": _number(0.01, 300),
    "restore_check_s": _number(0.1, 86400),
    "log_level": _one_of(("DEBUG", "INFO", "WARNING", "ERROR")),
    "log_style": _one_of(("text", "json")),
    "event_log_max_bytes": _size(64 * KIB, GIB),
    "event_log_keep": _whole(0, 100),
    "metrics_listen": _listen,
    "api_listen": _listen,
    "stay_awake": _one_of(("auto", "on", "off")),
    "allow_other": _switch,
}
assert set(_CHECKS) == {field.name for field in fields(Settings)}
