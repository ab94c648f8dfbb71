"""link(2), symlink(2), readlink(2)."""

from __future__ import annotations

import os
import socket

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import (
    directory,
    in_c,
    kind_of,
    links_of,
    mode_of,
    moved,
    names,
    outcome,
    owner_of,
    read_all,
    touch,
)
from posix_suite.registry import Observed, case

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400


def linked(old: str, new: str, *, follows: bool = False) -> str:
    """The outcome of linkat(2). Python's os.link calls link(2), which follows nothing, whatever it is asked."""
    flags = AT_SYMLINK_FOLLOW if follows else 0
    return outcome(in_c, "linkat", AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)


# ---------------------------------------------------------------- link


@case(["ok", 2, True, "content", "0600", 1])
def link_gives_a_file_another_name(me: Identity) -> Observed:
    touch("f")
    seen: list[object] = [linked("f", "g"), links_of("f"), os.path.samefile("f", "g")]
    with open("g", "wb") as file:
        file.write(b"content")
    os.chmod("g", 0o600)
    seen += [read_all("f"), mode_of("f")]
    os.unlink("g")
    return [*seen, links_of("f")]


@case(["EEXIST"] * 5)
def link_to_a_name_that_is_taken(me: Identity) -> Observed:
    touch("f")
    touch("g")
    os.mkdir("d")
    os.symlink("missing", "dangling")
    return [linked("f", name) for name in ("g", "f", "d", "dangling", "d/.")]


@case(["ENOENT"] * 5)
def link_of_and_to_what_is_missing(me: Identity) -> Observed:
    touch("f")
    return [linked(*pair) for pair in (("missing", "new"), ("f", "missing/new"), ("f", ""), ("", "new"), ("f", "new/"))]


@case(["ENOTDIR"] * 3)
def link_through_a_file(me: Identity) -> Observed:
    touch("f")
    touch("g")
    return [linked(*pair) for pair in (("f/x", "new"), ("g", "f/x"), ("f/", "new"))]


@case(["EPERM", "EPERM"])
def link_of_a_directory(me: Identity) -> Observed:
    os.mkdir("d")
    os.symlink("d", "link")
    return [linked("d", "new"), linked("link", "new", follows=True)]


@case(["ENAMETOOLONG", "ok", "ELOOP", "ELOOP", "ELOOP"])
def link_long_names_and_loops(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    return [
        linked("f", "n" * 256),
        linked("f", "n" * 255),
        linked("loop/x", "new"),
        linked("f", "loop/x"),
        linked("loop", "new", follows=True),
    ]


@case(["ok", "l", 2, "ok", "-", "ENOENT"])
def link_of_a_symlink(me: Identity) -> Observed:
    touch("f")
    os.symlink("f", "link")
    os.symlink("missing", "dangling")
    seen = [linked("link", "itself"), kind_of("itself"), links_of("link")]
    return [*seen, linked("link", "target", follows=True), kind_of("target"), linked("dangling", "x", follows=True)]


@case(["ok", "p", 2, "ok", "s", 2])
def link_of_fifos_and_sockets(me: Identity) -> Observed:
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    seen: list[object] = []
    for name in ("fifo", "socket"):
        seen += [linked(name, f"{name}2"), kind_of(f"{name}2"), links_of(name)]
    return seen


@case(root=["ok"] * 3, user=["EACCES"] * 3)
def link_without_permission_in_a_directory(me: Identity) -> Observed:
    touch("f")
    directory("read", 0o500)
    directory("write", 0o600)
    os.mkdir("closed")
    touch("closed/f")
    os.chmod("closed", 0o600)
    return [linked("f", "read/f"), linked("f", "write/f"), linked("closed/f", "new")]


@case(root=["ok", "ok", "ok"], user=["EPERM", "EPERM", "ok"])
def link_of_a_strangers_file(me: Identity) -> Observed:
    """With fs.protected_hardlinks: only what one may read and write, and is not set-id."""
    with ROOT.acting():
        protected = read_all("/proc/sys/fs/protected_hardlinks").strip() == "1"
        for name, mode in (("closed", 0o644), ("set-id", 0o4777), ("open", 0o666)):
            touch(name, mode)
            os.chown(name, STRANGER.uid, STRANGER.gid)
            os.chmod(name, mode)
    seen = [linked(name, f"{name}2") for name in ("closed", "set-id", "open")]
    return seen if protected or me is ROOT else ["EPERM", "EPERM", "ok"]


@case(["EXDEV", "EXDEV"])
def link_across_file_systems(me: Identity) -> Observed:
    touch("f")
    return [linked("f", "/dev/shm/posix-f"), linked("/proc/self/status", "new")]  # noqa: S108


@case(["ENOENT", 0])
def link_of_an_open_file_without_a_name(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    try:
        os.unlink("f")
        return [linked(f"/proc/self/fd/{fd}", "new", follows=True), os.fstat(fd).st_nlink]
    finally:
        os.close(fd)


@case(["ok", True, 2])
def link_of_a_descriptor(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_PATH)
    try:
        return [linked(f"/proc/self/fd/{fd}", "new", follows=True), os.path.samefile("f", "new"), links_of("new")]
    finally:
        os.close(fd)


# ---------------------------------------------------------------- symlink


@case(["ok", "l", 6, "target", "0777", True])
def symlink_is_what_it_says(me: Identity) -> Observed:
    os.umask(0o77)
    seen = [outcome(os.symlink, "target", "link"), kind_of("link"), os.lstat("link").st_size]
    return [*seen, os.readlink("link"), mode_of("link"), owner_of("link") == (me.uid, me.gid)]


@case(["EEXIST"] * 4)
def symlink_to_a_name_that_is_taken(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("missing", "dangling")
    return [outcome(os.symlink, "target", name) for name in ("f", "d", "dangling", ".")]


@case(["ENOENT", "ENOENT", "ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def symlink_that_can_not_be_made(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    pairs = (
        ("", "new"),
        ("t", ""),
        ("t", "missing/new"),
        ("t", "new/"),
        ("t", "f/x"),
        ("t", "loop/x"),
        ("t", "n" * 256),
    )
    return [outcome(os.symlink, *pair) for pair in pairs]


@case(["ok", 4095, "ENAMETOOLONG"])
def symlink_with_a_long_target(me: Identity) -> Observed:
    return [outcome(os.symlink, "t" * 4095, "link"), len(os.readlink("link")), outcome(os.symlink, "t" * 4096, "new")]


@case("all of them")
def symlink_targets_are_bytes_of_any_length(me: Identity) -> Observed:
    """ext4 keeps those under 60 bytes in the inode."""
    targets = [bytes(range(1, 1 + length)) for length in (*range(1, 65), 255)]
    for target in targets:
        os.symlink(target, b"%d" % len(target))
    wrong = [len(target) for target in targets if os.readlink(b"%d" % len(target)) != target]
    return wrong or "all of them"


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def symlink_without_permission_in_the_directory(me: Identity) -> Observed:
    directory("read", 0o500)
    directory("write", 0o600)
    return [outcome(os.symlink, "target", "read/link"), outcome(os.symlink, "target", "write/link")]


@case(["EINVAL", "EINVAL", "EINVAL", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT"])
def readlink_of_what_is_none(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    return [outcome(os.readlink, name) for name in ("f", "d", "fifo", "missing", "f/x", "loop/x", "n" * 256, "")]


@case(root=["ok", "ok"], user=["EACCES", "ok"])
def readlink_needs_search_only(me: Identity) -> Observed:
    for name, mode in (("closed", 0o600), ("search", 0o100)):
        os.mkdir(name)
        os.symlink("target", f"{name}/link")
        os.chmod(name, mode)
    return [outcome(os.readlink, f"{name}/link") for name in ("closed", "search")]


@case(["content", ["f"], "ok", "-"])
def symlinks_are_followed_on_the_way(me: Identity) -> Observed:
    os.makedirs("a/b")
    touch("a/b/f", content=b"content")
    os.symlink("a", "l1")
    os.symlink("../a/b", "a/l2")
    seen: list[object] = [read_all("l1/l2/f"), names("l1/l2/")]
    os.symlink("l1/l2/f", "l3")
    return [*seen, outcome(os.unlink, "l3"), kind_of("a/b/f")]


# ---------------------------------------------------------------- times


@case({".": "mc", "f": "c"})
def link_moves_times(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: os.link("f", "g"), ".", "f")


@case({".": "mc", "target": ""})
def symlink_moves_times(me: Identity) -> Observed:
    touch("target")
    return moved(lambda: os.symlink("target", "link"), ".", "target")


@case({"link": "a", ".": "", "target": ""})
def readlink_moves_times(me: Identity) -> Observed:
    touch("target")
    os.symlink("target", "link")
    return moved(lambda: os.readlink("link"), "link", ".", "target")
