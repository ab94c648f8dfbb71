"""unlink(2), rmdir(2), and what is left of what was removed."""

from __future__ import annotations

import os
import socket

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import directory, kind_of, links_of, mode_of, moved, names, opening, outcome, touch
from posix_suite.registry import UNSAID, Observed, case

# ---------------------------------------------------------------- unlink


@case(["ENOENT", "ENOENT", "ENOENT", "ENOTDIR", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG"])
def unlink_what_can_not_be(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("loop", "loop")
    wrong = ("missing", "", "missing/f", "f/x", "f/", "d", "loop/x", "n" * 256)
    return [outcome(os.unlink, name) for name in wrong]


@case(UNSAID)
def unlink_of_dots(me: Identity) -> Observed:
    os.makedirs("d/e")
    os.symlink("d", "link")
    return [outcome(os.unlink, name) for name in (".", "..", "d/..", "d/.", "d/", "link/")]


@case(["ok", "ok", "ok", "ok", ["d", "f"]])
def unlink_each_kind(me: Identity) -> Observed:
    touch("f")
    touch("readonly", 0o000)
    os.mkdir("d")
    os.mkfifo("fifo")
    os.symlink("d", "link")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    return [*(outcome(os.unlink, name) for name in ("readonly", "fifo", "link", "socket")), names()]


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def unlink_without_permission_in_the_directory(me: Identity) -> Observed:
    for name, mode in (("read", 0o500), ("write", 0o600)):
        os.mkdir(name)
        touch(f"{name}/f", 0o777)
        os.chmod(name, mode)
    return [outcome(os.unlink, f"{name}/f") for name in ("read", "write")]


@case("ok")
def unlink_a_strangers_file_in_ones_own_directory(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f", 0o600)
        os.chown("f", STRANGER.uid, STRANGER.gid)
    return outcome(os.unlink, "f")


@case([1, 0, "ok", "ok", "ok", "ok", "ok", "ok", 4, "0640", "new"])
def an_open_file_outlives_its_name(me: Identity) -> Observed:
    touch("f", content=b"0123456")
    os.link("f", "other")
    fd = os.open("f", os.O_RDWR)
    try:
        os.unlink("f")
        seen: list[object] = [os.fstat(fd).st_nlink]
        os.unlink("other")
        touch("f", content=b"new")
        seen += [
            os.fstat(fd).st_nlink,
            outcome(os.pwrite, fd, b"x", 3),
            outcome(os.ftruncate, fd, 4),
            outcome(os.fchmod, fd, 0o640),
            outcome(os.fchown, fd, -1, me.gid),
            outcome(os.utime, fd, (1, 1)),
            outcome(os.fsync, fd),
            len(os.pread(fd, 99, 0)),
            mode_of(fd),
        ]
        with open("f") as other:
            return [*seen, other.read()]
    finally:
        os.close(fd)


@case(["ok", 0])
def seven_hundred_nameless_fifos_stay_themselves(me: Identity) -> Observed:
    """More than the mount keeps descriptors of directories."""
    held = []
    for number in range(700):
        os.mkfifo(f"{number}")
        held.append(os.open(f"{number}", os.O_PATH))
        os.unlink(f"{number}")
    answers = {outcome(os.fstat, fd) for fd in held}
    links = [os.fstat(fd).st_nlink for fd in held if outcome(os.fstat, fd) == "ok"]
    for fd in held:
        os.close(fd)
    return [" ".join(sorted(answers)), sum(links)]


@case(["0123", "ok", "012345"])
def an_open_file_without_a_name_may_be_opened_again(me: Identity) -> Observed:
    touch("f", content=b"0123")
    fd = os.open("f", os.O_RDWR)
    try:
        os.unlink("f")
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_APPEND)
        seen = [os.pread(again, 9, 0).decode(), outcome(os.write, again, b"45")]
        os.close(again)
        return [*seen, os.pread(fd, 9, 0).decode()]
    finally:
        os.close(fd)


@case(["ok", 0, ["ENOENT", "ENOENT", "ENOENT"], [], "ok"])
def a_removed_working_directory_is_empty_and_stays_so(me: Identity) -> Observed:
    os.mkdir("d")
    touch("f")
    up = os.open(".", os.O_RDONLY)
    try:
        os.chdir("d")
        removed = outcome(os.rmdir, "d", dir_fd=up)
        makes = [
            opening("f", os.O_WRONLY | os.O_CREAT),
            outcome(os.mkdir, "sub"),
            outcome(os.link, "f", "g", src_dir_fd=up),
        ]
        return [removed, links_of("."), makes, os.listdir(), outcome(os.stat, ".")]
    finally:
        os.close(up)


# ---------------------------------------------------------------- rmdir


@case(["ENOENT", "ENOENT", "ENOTDIR", "ENOTDIR", "ENOTDIR", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def rmdir_what_can_not_be(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.mkfifo("fifo")
    os.symlink("d", "link")
    os.symlink("loop", "loop")
    wrong = ("missing", "", "f", "f/x", "fifo", "link", "loop/x", "n" * 256)
    return [outcome(os.rmdir, name) for name in wrong]


@case(["ENOTEMPTY", "ENOTEMPTY", "EINVAL", "ENOTEMPTY", "ENOTDIR", "ok"])
def rmdir_full_ones_and_dots(me: Identity) -> Observed:
    os.makedirs("d/e")
    os.mkdir("g")
    touch("g/f")
    os.symlink("d", "link")
    return [outcome(os.rmdir, name) for name in ("d", "g", "d/.", "d/..", "link/", "d/e/")]


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def rmdir_without_permission_in_the_parent(me: Identity) -> Observed:
    for name, mode in (("read", 0o500), ("write", 0o600)):
        os.makedirs(f"{name}/d")
        os.chmod(name, mode)
    return [outcome(os.rmdir, f"{name}/d") for name in ("read", "write")]


@case(["ok", "ok"])
def rmdir_needs_nothing_of_the_directory(me: Identity) -> Observed:
    directory("mine", 0o000)
    with ROOT.acting():
        directory("theirs", 0o000)
        os.chown("theirs", STRANGER.uid, STRANGER.gid)
    return [outcome(os.rmdir, "mine"), outcome(os.rmdir, "theirs")]


@case([2, 4, "ok", 3])
def rmdir_takes_a_link_from_the_parent(me: Identity) -> Observed:
    os.mkdir("p")
    before = links_of("p")
    os.mkdir("p/a")
    os.mkdir("p/b")
    return [before, links_of("p"), outcome(os.rmdir, "p/a"), links_of("p")]


# ---------------------------------------------------------------- times


@case({".": "mc", "f": "c", "g": "gone"})
def unlink_moves_times(me: Identity) -> Observed:
    touch("f")
    os.link("f", "g")
    return moved(lambda: os.unlink("g"), ".", "f", "g")


@case(True)
def unlink_moves_the_ctime_of_an_open_file_that_loses_its_last_name(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDONLY)
    try:
        before: list[int] = []

        def unlink() -> None:
            before.append(os.fstat(fd).st_ctime_ns)
            os.unlink("f")

        moved(unlink, "f")
        return os.fstat(fd).st_ctime_ns != before[0]
    finally:
        os.close(fd)


@case({".": "mc", "d": "gone"})
def rmdir_moves_times(me: Identity) -> Observed:
    os.mkdir("d")
    return moved(lambda: os.rmdir("d"), ".", "d")


@case([{".": ""}, ["f"]])
def a_failed_unlink_moves_nothing(me: Identity) -> Observed:
    touch("f")
    return [moved(lambda: outcome(os.unlink, "f/x"), "."), [name for name in names() if kind_of(name)]]
