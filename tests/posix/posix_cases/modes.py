# ruff: noqa: S103 - odd modes are what it is about
"""chmod(2), chown(2), and who clears set-id bits."""

from __future__ import annotations

import os
from collections.abc import Callable

from posix_suite.identities import FOREIGN_GROUP, ROOT, STRANGER, TEAM, USER, Identity
from posix_suite.observing import directory, in_c, mode_of, moved, outcome, owner_of, touch
from posix_suite.registry import UNSAID, Observed, case

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100

# ---------------------------------------------------------------- chmod


@case([f"{mode:04o}" for mode in range(0, 0o10000, 0o111)])
def chmod_to_each_mode(me: Identity) -> Observed:
    touch("f")
    seen = []
    for mode in range(0, 0o10000, 0o111):
        os.chmod("f", mode)
        seen.append(mode_of("f"))
    return seen


@case(["0000", "7777", "1777", "2755", "0755"])
def chmod_of_directories(me: Identity) -> Observed:
    os.mkdir("d")
    seen = []
    for mode in (0, 0o7777, 0o1777, 0o2755, 0o755):
        os.chmod("d", mode)
        seen.append(mode_of("d"))
    return seen


@case(["ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT"])
def chmod_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    os.symlink("missing", "dangling")
    return [outcome(os.chmod, name, 0o600) for name in ("missing", "", "f/x", "loop", "n" * 256, "dangling")]


@case(root=["ok"] * 4, user=["EPERM", "EPERM", "EPERM", "EACCES"])
def chmod_of_what_is_not_ones_own(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f", 0o666)
        os.chown("f", STRANGER.uid, me.gid)
        directory("d", 0o777)
        os.chown("d", STRANGER.uid, me.gid)
        touch("open", 0o666)
        os.chown("open", STRANGER.uid, me.gid)
        directory("closed", 0o600)
        touch("closed/f")
    fd = os.open("open", os.O_RDWR)
    try:
        seen = [outcome(os.chmod, name, 0o600) for name in ("f", "d")]
        return [*seen, outcome(os.fchmod, fd, 0o600), outcome(os.chmod, "closed/f", 0o600)]
    finally:
        os.close(fd)


@case(["0600", "0777", "ok"])
def chmod_follows_symlinks(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    os.chmod("link", 0o600)
    seen = [mode_of("f"), mode_of("link")]
    os.chmod("f", 0)
    return [*seen, outcome(os.chmod, "link", 0o600)]


@case(UNSAID)
def chmod_of_a_symlink_itself(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    changed = outcome(in_c, "fchmodat", AT_FDCWD, b"link", 0o600, AT_SYMLINK_NOFOLLOW)
    return [changed, mode_of("link"), mode_of("f")]


@case(root=["6777", "2777"], user=["4777", "0777"])
def chmod_gives_no_set_gid_of_a_foreign_group(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f")
        os.chown("f", me.uid, FOREIGN_GROUP)
        directory("d")
        os.chown("d", me.uid, FOREIGN_GROUP)
    os.chmod("f", 0o6777)
    os.chmod("d", 0o2777)
    return [mode_of("f"), mode_of("d")]


@case("2755")
def chmod_gives_set_gid_of_a_supplementary_group(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f")
        os.chown("f", me.uid, TEAM)
    os.chmod("f", 0o2755)
    return mode_of("f")


@case(["ok", "ok", "0000", "ok"])
def chmod_does_not_bind_who_has_it_open(me: Identity) -> Observed:
    touch("f", content=b"data")
    fd = os.open("f", os.O_RDWR)
    try:
        os.fchmod(fd, 0)
        return [
            outcome(os.pread, fd, 4, 0),
            outcome(os.pwrite, fd, b"x", 0),
            mode_of(fd),
            outcome(os.fchmod, fd, 0o600),
        ]
    finally:
        os.close(fd)


@case({"f": "c", ".": "", "d": "c"})
def chmod_moves_times(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")

    def change() -> None:
        os.chmod("f", 0o600)
        os.chmod("d", 0o700)

    return moved(change, "f", ".", "d")


@case(root={"f": "c"}, user={"f": ""})
def a_refused_chmod_moves_nothing(me: Identity) -> Observed:
    touch("f")

    def refused() -> None:
        with me.acting():
            outcome(os.chmod, "f", 0o600)

    with ROOT.acting():  # who alone may set the times before
        os.chown("f", STRANGER.uid, STRANGER.gid)
        return moved(refused, "f")


# ---------------------------------------------------------------- chown

CHANGES = {
    "to oneself": (USER.uid, USER.gid),
    "to a stranger": (STRANGER.uid, -1),
    "to one's other group": (-1, TEAM),
    "to a foreign group": (-1, FOREIGN_GROUP),
    "to nobody": (-1, -1),
}


@case(root=["ok"] * 5, user=["ok", "EPERM", "ok", "EPERM", "ok"])
def chown_of_ones_own(me: Identity) -> Observed:
    touch("f")
    with ROOT.acting():
        os.chown("f", USER.uid, USER.gid)
    seen = []
    for change in CHANGES.values():
        seen.append(outcome(os.chown, "f", *change))
        with ROOT.acting():
            os.chown("f", USER.uid, USER.gid)
    return seen


@case(root=["ok"] * 4, user=["EPERM", "EPERM", "EPERM", "EPERM"])
def chown_of_a_strangers(me: Identity) -> Observed:
    touch("f", 0o777)
    with ROOT.acting():
        os.chown("f", STRANGER.uid, me.gid)
    return [outcome(os.chown, "f", *change) for name, change in CHANGES.items() if name != "to nobody"]


@case(root=["ok", [STRANGER.uid, FOREIGN_GROUP], "ok", [0, FOREIGN_GROUP]], user=UNSAID)
def chown_changes_one_without_the_other(me: Identity) -> Observed:
    touch("f")
    seen: list[object] = []
    for change in ((STRANGER.uid, FOREIGN_GROUP), (0, -1)):
        seen += [outcome(os.chown, "f", *change), owner_of("f")]
    return seen


@case(["ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ok"])
def chown_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    os.symlink("missing", "dangling")
    wrong = ("missing", "", "f/x", "loop", "n" * 256, "dangling")
    return [*(outcome(os.chown, name, -1, me.gid) for name in wrong), outcome(os.lchown, "dangling", -1, me.gid)]


@case(root=["ok"], user=["EACCES"])
def chown_needs_search(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/f")
    os.chmod("d", 0o600)
    return [outcome(os.chown, "d/f", me.uid, me.gid)]


@case(["link"])
def lchown_of_a_symlink(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    os.lchown("link", -1, TEAM)
    return [name for name in ("f", "link") if owner_of(name)[1] == TEAM]


@case(["f"])
def chown_follows_symlinks(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    os.chown("link", -1, TEAM)
    return [name for name in ("f", "link") if owner_of(name)[1] == TEAM]


@case({"0755": "0755", "4755": "0755", "2755": "0755", "6755": "0755", "2745": "2745", "7777": "1777", "4644": "0644"})
def chown_clears_set_id(me: Identity) -> Observed:
    seen = {}
    for mode in (0o755, 0o4755, 0o2755, 0o6755, 0o2745, 0o7777, 0o4644):
        name = f"{mode:04o}"
        touch(name)
        os.chmod(name, mode)
        os.chown(name, me.uid, me.gid)
        seen[name] = mode_of(name)
    return seen


@case("0755")
def chown_to_nobody_clears_set_id(me: Identity) -> Observed:
    touch("f")
    os.chmod("f", 0o6755)
    os.chown("f", -1, -1)
    return mode_of("f")


@case(["6755", "6755"])
def chown_of_a_directory_keeps_set_id(me: Identity) -> Observed:
    seen = []
    for change in ((me.uid, me.gid), (-1, -1)):
        directory(f"{change}", 0o6755)
        os.chown(f"{change}", *change)
        seen.append(mode_of(f"{change}"))
    return seen


@case({"f": "c", ".": ""})
def chown_moves_times(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: os.chown("f", me.uid, me.gid), "f", ".")


@case(root=["ok", "1777"], user=["EPERM", "7777"])
def chown_of_a_strangers_file_to_nobody(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f")
        os.chown("f", STRANGER.uid, STRANGER.gid)
        os.chmod("f", 0o7777)
    return [outcome(os.chown, "f", -1, -1), mode_of("f")]


@case(UNSAID)
def chown_to_nobody_moves_times(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: os.chown("f", -1, -1), "f")


@case(root=["ok", "ok"], user=["EPERM", "ok"])
def fchown_of_an_open_file(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDONLY)
    try:
        return [outcome(os.fchown, fd, STRANGER.uid, -1), outcome(os.fchown, fd, -1, me.gid if me is USER else TEAM)]
    finally:
        os.close(fd)


# ---------------------------------------------------------------- set-id bits and changes of the bytes


def _write() -> None:
    with open("f", "r+b", buffering=0) as file:
        file.write(b"x")


def _append() -> None:
    with open("f", "ab", buffering=0) as file:
        file.write(b"x")


def _cut_open() -> None:
    with open("f", "r+b") as file:
        os.ftruncate(file.fileno(), 1)


def _copy() -> None:
    with open("/bin/true", "rb") as source, open("f", "r+b") as file:
        os.sendfile(file.fileno(), source.fileno(), 0, 4)


def _allocate() -> None:
    with open("f", "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 8192)


CHANGERS: dict[str, Callable[[], object]] = {
    "write": _write,
    "append": _append,
    "sendfile": _copy,
    "posix_fallocate": _allocate,
    "truncate": lambda: os.truncate("f", 1),
    "ftruncate": _cut_open,
    "O_TRUNC": lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)),
}


def _mode_after(change: Callable[[], object], mode: int, uid: int, gid: int) -> str:
    with ROOT.acting():
        touch("f", content=b"0123")
        os.chown("f", uid, gid)
        os.chmod("f", mode)
    try:
        change()
        return mode_of("f")
    finally:
        with ROOT.acting():
            os.unlink("f")


@case(root=dict.fromkeys(CHANGERS, "6777"), user=dict.fromkeys(CHANGERS, "0777"))
def who_changes_a_strangers_file_clears_its_set_id_bits(me: Identity) -> Observed:
    return {name: _mode_after(change, 0o6777, STRANGER.uid, FOREIGN_GROUP) for name, change in CHANGERS.items()}


@case(root=dict.fromkeys(CHANGERS, "6755"), user=dict.fromkeys(CHANGERS, "0755"))
def who_changes_ones_own_file_clears_its_set_id_bits(me: Identity) -> Observed:
    return {name: _mode_after(change, 0o6755, me.uid, me.gid) for name, change in CHANGERS.items()}


@case(dict.fromkeys(CHANGERS, "2767"))
def set_gid_without_execution_is_no_set_id_bit(me: Identity) -> Observed:
    """Mandatory locks, once."""
    return {name: _mode_after(change, 0o2767, me.uid, me.gid) for name, change in CHANGERS.items()}


@case(root=["2767"], user=UNSAID)
def set_gid_of_a_foreign_group_without_execution(me: Identity) -> Observed:
    """Since Linux 6.2 it goes, if who changes the bytes is not of the group."""
    return sorted({_mode_after(change, 0o2767, me.uid, FOREIGN_GROUP) for change in CHANGERS.values()})


@case("6755")
def reading_keeps_set_id_bits(me: Identity) -> Observed:
    return _mode_after(lambda: open("f", "rb").read(), 0o6755, me.uid, me.gid)
