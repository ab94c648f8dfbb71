# ruff: noqa: S103 - odd modes are what it is about
"""open(2): every errno that can be had without breaking the disk, and the flags."""

from __future__ import annotations

import fcntl
import os
import socket
import stat

from posix_suite.identities import FOREIGN_GROUP, ROOT, STRANGER, TEAM, Identity
from posix_suite.observing import in_a_child, kind_of, mode_of, opening, outcome, read_all, touch
from posix_suite.registry import UNSAID, Observed, case

NEW = os.O_WRONLY | os.O_CREAT

# ---------------------------------------------------------------- names that lead nowhere


@case(["ENOENT"] * 5)
def open_what_is_missing(me: Identity) -> Observed:
    os.symlink("missing", "dangling")
    return [
        opening("missing", os.O_RDONLY),
        opening("", os.O_RDONLY),
        opening("missing/f", NEW),
        opening("dangling", os.O_RDWR),
        opening("dangling/f", NEW),
    ]


@case(["ok", "-", "ENOENT"])
def open_creates_what_a_symlink_points_at(me: Identity) -> Observed:
    os.symlink("target", "link")
    os.symlink("nowhere/target", "astray")
    return [opening("link", NEW), kind_of("target"), opening("astray", NEW)]


@case(["ENOTDIR"] * 5)
def open_through_a_file(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    return [
        opening("f/x", os.O_RDONLY),
        opening("f/x", NEW),
        opening("link/x", os.O_RDONLY),
        opening("f/", os.O_RDONLY),
        opening("f", os.O_RDONLY | os.O_DIRECTORY),
    ]


@case(["EISDIR"] * 6)
def open_a_directory_as_a_file(me: Identity) -> Observed:
    os.mkdir("d")
    os.symlink("d", "link")
    return [
        opening("d", os.O_WRONLY),
        opening("d", os.O_RDWR),
        opening("d", os.O_RDONLY | os.O_TRUNC),
        opening("d", os.O_RDONLY | os.O_CREAT),
        opening("link", os.O_WRONLY),
        opening("new/", NEW),
    ]


@case(["EEXIST"] * 5)
def open_exclusively_what_is_there(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("missing", "dangling")
    os.symlink("f", "link")
    os.mkfifo("fifo")
    return [opening(name, NEW | os.O_EXCL) for name in ("f", "d", "dangling", "link", "fifo")]


@case(["ELOOP", "ELOOP", "ELOOP", "ELOOP", "ok", "ok", "ENOTDIR"])
def open_symlinks_that_must_not_be_followed(me: Identity) -> Observed:
    os.symlink("b", "a")
    os.symlink("a", "b")
    touch("f")
    os.mkdir("d")
    os.symlink("f", "link")
    os.symlink("d", "way")
    touch("d/f")
    return [
        opening("a", os.O_RDONLY),
        opening("a/f", os.O_RDONLY),
        opening("link", os.O_RDONLY | os.O_NOFOLLOW),
        opening("link", NEW | os.O_NOFOLLOW),
        opening("way/f", os.O_RDONLY | os.O_NOFOLLOW),
        opening("link", os.O_PATH | os.O_NOFOLLOW),
        opening("way", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY),
    ]


@case(["ok", "ELOOP"])
def open_through_40_and_41_symlinks(me: Identity) -> Observed:
    touch("0")
    for number in range(1, 42):
        os.symlink(str(number - 1), str(number))
    return [opening("40", os.O_RDONLY), opening("41", os.O_RDONLY)]


# ---------------------------------------------------------------- permission


def _granted(mode: int, shift: int, wanted: int) -> str:
    return "ok" if mode >> shift & wanted == wanted else "EACCES"


WANTED = {os.O_RDONLY: 4, os.O_WRONLY: 2, os.O_RDWR: 6, os.O_RDONLY | os.O_TRUNC: 6}
CLASSES = {"owner": 6, "group": 3, "team": 3, "other": 0}
MATRIX = {
    who: [[_granted(bits << at, at, want) for want in WANTED.values()] for bits in range(8)]
    for who, at in CLASSES.items()
}


@case(user=MATRIX, root={who: [["ok"] * len(WANTED)] * 8 for who in CLASSES})
def open_by_each_class_of_user_with_each_mode(me: Identity) -> Observed:
    owners = {
        "owner": (me.uid, FOREIGN_GROUP),
        "group": (STRANGER.uid, me.gid),
        "team": (STRANGER.uid, TEAM),
        "other": (STRANGER.uid, FOREIGN_GROUP),
    }
    seen = {}
    for who, owner in owners.items():
        rows = []
        for bits in range(8):
            # The other classes may do all that this one may not: each user is of one class only.
            mode = 0o777 & ~(7 << CLASSES[who]) | bits << CLASSES[who]
            with ROOT.acting():
                touch("f", mode)
                os.chown("f", *owner)
            rows.append([opening("f", flags) for flags in WANTED])
            with ROOT.acting():
                os.unlink("f")
        seen[who] = rows
    return seen


NEEDED = {"look": 1, "make": 3, "remove": 3, "make below": 1}
"""Search (x) to reach a name, and write to change it."""


@case(
    user=[{what: _granted(bits, 0, needed) for what, needed in NEEDED.items()} for bits in range(8)],
    root=[dict.fromkeys(NEEDED, "ok")] * 8,
)
def open_in_a_directory_of_each_mode(me: Identity) -> Observed:
    seen = []
    for bits in range(8):
        name = f"d{bits}"
        os.mkdir(name)
        touch(f"{name}/f")
        touch(f"{name}/old")
        os.mkdir(f"{name}/sub")
        os.chmod(name, bits << 6)
        seen.append(
            {
                "look": opening(f"{name}/f", os.O_RDONLY),
                "make": opening(f"{name}/new", NEW),
                "remove": outcome(os.unlink, f"{name}/old"),
                "make below": opening(f"{name}/sub/new", NEW),
            }
        )
        os.chmod(name, 0o700)
    return seen


@case(["ok", "ok", "0000"])
def open_for_writing_what_is_made_without_permission(me: Identity) -> Observed:
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0)
    try:
        return [outcome(os.write, fd, b"1"), outcome(os.pread, fd, 1, 0), mode_of("f")]
    finally:
        os.close(fd)


@case(root=["ok", "ok", "ok"], user=["ok", "EPERM", "ok"])
def open_with_noatime(me: Identity) -> Observed:
    touch("mine")
    touch("theirs", 0o666)
    with ROOT.acting():
        os.chown("theirs", STRANGER.uid, STRANGER.gid)
    return [
        opening("mine", os.O_RDONLY | os.O_NOATIME),
        opening("theirs", os.O_RDONLY | os.O_NOATIME),
        opening("theirs", os.O_RDONLY),
    ]


@case(["0644", "0600", "0000", "0666", "4755", "1644"])
def open_makes_a_file_of_the_mode_less_the_umask(me: Identity) -> Observed:
    modes = []
    for umask, mode in ((0o22, 0o666), (0o77, 0o666), (0o777, 0o777), (0, 0o666), (0o22, 0o4777), (0o22, 0o1666)):
        os.umask(umask)
        os.close(os.open(f"{umask}-{mode}", NEW, mode))
        modes.append(mode_of(f"{umask}-{mode}"))
    return modes


@case("0600")
def open_of_what_is_there_leaves_its_mode(me: Identity) -> Observed:
    touch("f", 0o600)
    os.close(os.open("f", NEW | os.O_TRUNC, 0o777))
    return mode_of("f")


# ---------------------------------------------------------------- what is no file


@case(["ENXIO", "ok", "ok", "ENXIO"])
def open_fifos_and_sockets(me: Identity) -> Observed:
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        return [
            opening("fifo", os.O_WRONLY | os.O_NONBLOCK),
            opening("fifo", os.O_RDONLY | os.O_NONBLOCK),
            opening("fifo", os.O_RDWR),
            opening("socket", os.O_RDWR),
        ]


@case(["ok", "ok"])
def open_a_device(me: Identity) -> Observed:
    with ROOT.acting():
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chmod("null", 0o666)
    return [opening("null", os.O_RDWR), opening("null", os.O_PATH)]


# ---------------------------------------------------------------- flags


@case(["EINVAL", "EINVAL"])
def open_with_flags_that_contradict(me: Identity) -> Observed:
    os.mkdir("d")
    return [
        opening(".", os.O_TMPFILE | os.O_RDONLY),
        opening("new", os.O_RDONLY | os.O_CREAT | os.O_DIRECTORY),
    ]


@case(["ok", []])
def open_a_file_without_a_name(me: Identity) -> Observed:
    return [opening(".", os.O_TMPFILE | os.O_RDWR), os.listdir()]


@case(["ok", "EBADF", "EBADF", "EBADF", "EBADF", "ok", "target"])
def open_for_the_path_alone(me: Identity) -> Observed:
    touch("f", 0o000)
    os.symlink("target", "link")
    fd, way = os.open("f", os.O_PATH), os.open(".", os.O_PATH)
    link = os.open("link", os.O_PATH | os.O_NOFOLLOW)
    try:
        return [
            outcome(os.fstat, fd),
            outcome(os.read, fd, 1),
            outcome(os.fchmod, fd, 0o600),
            outcome(os.ftruncate, fd, 0),
            outcome(fcntl.flock, fd, fcntl.LOCK_SH),
            outcome(os.stat, "f", dir_fd=way),
            os.readlink("", dir_fd=link),
        ]
    finally:
        for opened in (fd, way, link):
            os.close(opened)


@case(["ab", "abcd", 4, "abcdef"])
def open_for_appending(me: Identity) -> Observed:
    first, second = (os.open("f", NEW | os.O_APPEND) for _ in range(2))
    try:
        os.write(first, b"ab")
        seen: list[object] = [read_all("f")]
        os.lseek(second, 0, os.SEEK_SET)
        os.write(second, b"cd")
        seen += [read_all("f"), os.lseek(second, 0, os.SEEK_CUR)]
        os.pwrite(first, b"ef", 0)  # Linux appends nevertheless
        return [*seen, read_all("f")]
    finally:
        os.close(first)
        os.close(second)


@case(UNSAID)
def open_shows_its_flags(me: Identity) -> Observed:
    touch("f")
    seen = []
    for flags in (
        os.O_RDONLY,
        os.O_WRONLY | os.O_APPEND,
        os.O_RDWR | os.O_SYNC,
        os.O_RDWR | os.O_DSYNC | os.O_NONBLOCK,
    ):
        fd = os.open("f", flags)
        seen.append(fcntl.fcntl(fd, fcntl.F_GETFL))
        os.close(fd)
    return seen


@case(["", "0123"])
def open_with_truncation(me: Identity) -> Observed:
    touch("f", content=b"0123")
    touch("kept", content=b"0123")
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    opening("kept", NEW | os.O_TRUNC | os.O_EXCL)
    return [read_all("f"), read_all("kept")]


@case(["EBADF", "EBADF", "EISDIR"])
def use_a_descriptor_for_what_it_was_not_opened(me: Identity) -> Observed:
    touch("f")
    reading, writing, listing = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY), os.open(".", os.O_RDONLY)
    try:
        return [outcome(os.write, reading, b"x"), outcome(os.read, writing, 1), outcome(os.read, listing, 1)]
    finally:
        for fd in (reading, writing, listing):
            os.close(fd)


@case(["ok", "EACCES"])
def descriptors_keep_what_they_were_opened_for(me: Identity) -> Observed:
    with ROOT.acting():
        touch("f", 0o644, b"data")
    with STRANGER.acting():
        fd = os.open("f", os.O_RDONLY)
    with ROOT.acting():
        os.chmod("f", 0o600)
    with STRANGER.acting():
        seen = in_a_child(lambda: [outcome(os.pread, fd, 4, 0), opening("f", os.O_RDONLY)])
    os.close(fd)
    return seen
