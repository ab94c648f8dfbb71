"""Random calls of three users in one place, always the same ones: each outcome counts, and what is there in the end.

What nobody thought of: which combinations of modes, owners, sticky and set-gid bits decide a call.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from posix_suite.identities import ROOT, STRANGER, TEAM, USER, Identity
from posix_suite.observing import let_the_clock_tick, outcome
from posix_suite.registry import UNSAID, Observed, case

STEPS = 150
ROUNDS = range(12), range(12, 24)
"""By their seeds, some with each actor, who is not more in it than the others."""
WATCHED_STEPS = 60
NAMES = ("a", "b", "c")
MODES = (0o777, 0o1777, 0o2775, 0o3777, 0o755, 0o700, 0o070, 0o007, 0o111, 0o222, 0o444, 0o666, 0o4755, 0o6777)
OWNERS = (USER.uid, STRANGER.uid, 0, -1)
GROUPS = (USER.gid, STRANGER.gid, TEAM, 0, -1)


def _write(path: str, flags: int, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | flags, mode)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


def _read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.read(fd, 10)
    finally:
        os.close(fd)


CALLS: dict[str, Callable[[str, str, random.Random], object]] = {
    "create": lambda path, _, chance: _write(path, os.O_CREAT, chance.choice(MODES)),
    "create anew": lambda path, _, chance: _write(path, os.O_CREAT | os.O_EXCL, chance.choice(MODES)),
    "append": lambda path, _, __: _write(path, os.O_APPEND, 0),
    "read": lambda path, _, __: _read(path),
    "mkdir": lambda path, _, chance: os.mkdir(path, chance.choice(MODES)),
    "symlink": lambda path, other, _: os.symlink(os.path.relpath(other, os.path.dirname(path) or "."), path),
    "link": lambda path, other, _: os.link(path, other, follow_symlinks=False),
    "rename": lambda path, other, _: os.rename(path, other),
    "unlink": lambda path, _, __: os.unlink(path),
    "rmdir": lambda path, _, __: os.rmdir(path),
    "chmod": lambda path, _, chance: os.chmod(path, chance.choice(MODES)),
    "chown": lambda path, _, chance: os.lchown(path, chance.choice(OWNERS), chance.choice(GROUPS)),
    "truncate": lambda path, _, chance: os.truncate(path, chance.randrange(9)),
    "utime": lambda path, _, chance: os.utime(path, chance.choice([None, (1, 2)])),
    "setxattr": lambda path, _, chance: os.setxattr(path, "user.x", b"%d" % chance.randrange(9)),
    "list": lambda path, _, __: os.listdir(path),
    "stat": lambda path, _, __: os.stat(path),
}
WHO = {"root": ROOT, "user": USER, "stranger": STRANGER}


def _everything() -> list[object]:
    """Each path with what there is to see of it, times apart."""
    seen: list[object] = []
    for directory, directories, files in os.walk("."):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            size = 0 if os.path.isdir(path) else status.st_size
            seen.append([path, oct(status.st_mode), status.st_uid, status.st_gid, status.st_nlink, size])
    return seen


def _play(chance: random.Random) -> list[object]:
    """One round in the working directory, which is made sticky: everybody may make things in it."""
    with ROOT.acting():
        os.chown(".", 0, 0)
        os.chmod(".", 0o1777)  # noqa: S103
        for name in NAMES[:2]:
            os.mkdir(name)
            os.chown(name, chance.choice(OWNERS), chance.choice(GROUPS))
            os.chmod(name, chance.choice(MODES))
    outcomes: list[object] = []
    for _ in range(STEPS):
        # Root seldom: it would always succeed.
        who, call = chance.choice(["user", "user", "stranger", "stranger", "root"]), chance.choice(list(CALLS))
        path, other = ("/".join(chance.choices(NAMES, k=chance.choice([1, 1, 2, 2, 3]))) for _ in range(2))
        with WHO[who].acting():
            outcomes.append(f"{who} {call} {path} {other}: {outcome(CALLS[call], path, other, chance)}")
    with ROOT.acting():
        return [outcomes, _everything()]


def _times_of_everything() -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for directory, directories, files in os.walk("."):
        for name in (".", *directories, *files):
            status = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = status.st_mtime_ns, status.st_ctime_ns
    return found


def _moved(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """What is on both sides and whose mtime or ctime moved."""
    return [
        path
        + " "
        + "".join(letter for letter, old, new in zip("mc", before[path], after[path], strict=True) if old != new)
        for path in sorted(before.keys() & after.keys())
        if before[path] != after[path]
    ]


def _watch_times(seed: int) -> list[str]:
    """The times that each of some random calls moves, anywhere."""
    chance = random.Random(seed)  # noqa: S311 - a test's
    seen = []
    for _ in range(WATCHED_STEPS):
        call = chance.choice(list(CALLS))
        path, other = ("/".join(chance.choices(NAMES, k=chance.choice([1, 1, 2]))) for _ in range(2))
        before = _times_of_everything()
        let_the_clock_tick()
        done = outcome(CALLS[call], path, other, chance)
        seen.append(f"{call} {path} {other}: {done}, moves {_moved(before, _times_of_everything())}")
    return seen


def _rounds(seeds: range) -> Observed:
    played = []
    up = os.open(".", os.O_RDONLY)
    os.umask(0)
    for seed in seeds:
        os.mkdir(f"{seed}")
        os.chdir(f"{seed}")
        played.append(_play(random.Random(seed)))  # noqa: S311 - a test's
        os.fchdir(up)
    os.close(up)
    said = str(played)
    for errno in ("ok", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "EEXIST"):
        assert said.count(f": {errno}'") > 10, f"too few {errno}: the rounds are no test"
    return played


@case(UNSAID)
def three_users_at_random(me: Identity) -> Observed:
    return _rounds(ROUNDS[me is ROOT])


@case(UNSAID)
def times_that_random_calls_move(me: Identity) -> Observed:
    with ROOT.acting():  # who may do what is not the question
        return [_watch_times(seed) for seed in (1, 2)]
