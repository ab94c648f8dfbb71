"""utimensat(2): who may set which times to what."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import LONG_AGO_NS, in_c, moved, outcome, touch
from posix_suite.registry import UNSAID, Observed, case

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
SOME = (1_234_567_890, 123_456_789)
"""(seconds, nanoseconds)"""


class _Timespecs(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("atime_s", "atime_ns", "mtime_s", "mtime_ns"))


def utimens(path: str, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0, dir_fd: int = AT_FDCWD) -> int:
    times = _Timespecs(*atime, *mtime)
    return in_c("utimensat", dir_fd, path.encode(), ctypes.byref(times), flags)


def utimens_null(path: str) -> int:
    return in_c("utimensat", AT_FDCWD, path.encode(), None, 0)


def times_of(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns


SETTINGS: dict[str, Callable[[], object]] = {
    "null": lambda: utimens_null("f"),
    "both now": lambda: utimens("f", (0, NOW), (0, NOW)),
    "both given": lambda: utimens("f", SOME, SOME),
    "atime now": lambda: utimens("f", (0, NOW), (0, OMIT)),
    "mtime now": lambda: utimens("f", (0, OMIT), (0, NOW)),
    "atime given": lambda: utimens("f", SOME, (0, OMIT)),
    "mtime given": lambda: utimens("f", (0, OMIT), SOME),
    "now and given": lambda: utimens("f", (0, NOW), SOME),
    "neither": lambda: utimens("f", (0, OMIT), (0, OMIT)),
}
OK = dict.fromkeys(SETTINGS, "ok")
REFUSED = dict.fromkeys(SETTINGS, "EPERM") | {"neither": "ok"}
TO_NOW = {"null", "both now"}
"""Who may write may do this."""


def _try_settings(me: Identity, uid: int, mode: int) -> dict[str, str]:
    with ROOT.acting():
        touch("f", mode)
        os.chown("f", uid, STRANGER.gid)
    return {name: outcome(setting) for name, setting in SETTINGS.items()}


@case(OK)
def the_owner_sets_all_times_even_of_a_file_he_may_not_write(me: Identity) -> Observed:
    return _try_settings(me, me.uid, 0o000)


@case(root=OK, user=REFUSED | dict.fromkeys(TO_NOW, "ok"))
def who_may_write_sets_both_times_to_now(me: Identity) -> Observed:
    return _try_settings(me, STRANGER.uid, 0o002)


@case(root=OK, user=REFUSED | dict.fromkeys(TO_NOW, "EACCES"))
def who_may_not_write_sets_no_time(me: Identity) -> Observed:
    return _try_settings(me, STRANGER.uid, 0o755)


EFFECTS = {
    "null": "amc",
    "both now": "amc",
    "both given": "amc",
    "atime now": "ac",
    "mtime now": "mc",
    "atime given": "ac",
    "mtime given": "mc",
    "now and given": "amc",
    "neither": "",
}


@case(EFFECTS)
def utimensat_moves_what_it_says(me: Identity) -> Observed:
    touch("f")
    return {name: moved(setting, "f")["f"] for name, setting in SETTINGS.items()}


@case({".": ""})
def utimensat_moves_nothing_of_the_parent(me: Identity) -> Observed:
    touch("f")
    return moved(SETTINGS["both given"], ".")


@case([[1_234_567_890_123_456_789, -1_500_000_000], [1 << 60, 0], [0, 2**33 * 10**9 + 1]])
def times_are_kept_to_the_nanosecond_far_from_now(me: Identity) -> Observed:
    """Before 1970, after 2038, after 2106."""
    touch("f")
    seen = []
    for times in ((1_234_567_890_123_456_789, -1_500_000_000), (1 << 60, 0), (0, 2**33 * 10**9 + 1)):
        os.utime("f", ns=times)
        seen.append(times_of("f"))
    return seen


@case(UNSAID)
def times_that_the_file_system_can_not_keep(me: Identity) -> Observed:
    touch("f")
    seen: list[object] = []
    for seconds in (-(2**40), 2**40):
        seen += [outcome(utimens, "f", (seconds, 0), (seconds, 1)), times_of("f")]
    return seen


@case(["EINVAL", "EINVAL", "EINVAL", "ok"])
def utimensat_with_impossible_nanoseconds(me: Identity) -> Observed:
    touch("f")
    impossible = [outcome(utimens, "f", (0, nanoseconds), (0, 0)) for nanoseconds in (-1, 10**9, NOW - 2)]
    return [*impossible, outcome(utimens, "f", (0, 10**9 - 1), (0, 0))]


@case(["ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT"])
def utimensat_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    os.symlink("missing", "dangling")
    return [outcome(utimens, name, SOME, SOME) for name in ("missing", "", "f/x", "loop", "n" * 256, "dangling")]


@case(root="ok", user="EACCES")
def utimensat_needs_search(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/f")
    os.chmod("d", 0o600)
    return outcome(utimens, "d/f", SOME, SOME)


@case([False, True, True])
def utimensat_of_a_symlink_and_through_it(me: Identity) -> Observed:
    some_ns = SOME[0] * 10**9 + SOME[1]
    touch("f")
    os.symlink("f", "link")
    utimens("link", SOME, SOME, AT_SYMLINK_NOFOLLOW)
    seen = [times_of("f") == (some_ns, some_ns), times_of("link")[1] == some_ns]
    utimens("link", SOME, SOME)
    return [*seen, times_of("f") == (some_ns, some_ns)]


@case(["ok", True, "ok", "EBADF"])
def futimens_of_descriptors(me: Identity) -> Observed:
    touch("f", 0o444)
    fd, path_only = os.open("f", os.O_RDONLY), os.open("f", os.O_PATH)
    try:
        set_ns = outcome(os.utime, fd, ns=(LONG_AGO_NS, LONG_AGO_NS))
        seen = [set_ns, times_of("f") == (LONG_AGO_NS, LONG_AGO_NS)]
        here = os.open(".", os.O_RDONLY)
        seen += [outcome(os.utime, here), outcome(os.utime, path_only)]
        os.close(here)
        return seen
    finally:
        os.close(fd)
        os.close(path_only)


@case([True, True])
def now_is_the_time_of_the_call(me: Identity) -> Observed:
    touch("f")
    before = time.time_ns() - 20_000_000  # the resolution of a kernel's coarse clock
    utimens_null("f")
    after = time.time_ns()
    return [before <= now <= after for now in times_of("f")]


@case(["f", "d", "fifo"])
def times_of_each_kind_are_set(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.mkfifo("fifo")
    for name in ("f", "d", "fifo"):
        os.utime(name, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))
    return [name for name in ("f", "d", "fifo") if times_of(name) == (LONG_AGO_NS, LONG_AGO_NS + 1)]
