"""rename(2), renameat2(2)."""

from __future__ import annotations

import os

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import directory, kind_of, links_of, moved, names, outcome, read_all, touch
from posix_suite.registry import UNSAID, Observed, case

from fsxsync import _core

WHITEOUT = 4


def flagged(old: str, new: str, flags: int) -> str:
    """The outcome of renameat2(2) in the working directory."""
    here = os.open(".", os.O_PATH)
    try:
        return outcome(_core.renameat2, here, old.encode(), here, new.encode(), flags)
    finally:
        os.close(here)


@case(["ok", ["new"], "old"])
def rename_over_a_file(me: Identity) -> Observed:
    touch("old", content=b"old")
    touch("new", content=b"new")
    return [outcome(os.rename, "old", "new"), names(), read_all("new")]


@case(["ok", ["a", "b"], 2, "ok", ["a", "b"]])
def rename_between_two_names_of_one_file(me: Identity) -> Observed:
    touch("a")
    os.link("a", "b")
    return [outcome(os.rename, "a", "b"), names(), links_of("a"), outcome(os.rename, "a", "a"), names()]


@case(["EISDIR", "ENOTDIR", "ENOTDIR", "EISDIR"])
def rename_across_kinds(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("d", "link")
    return [outcome(os.rename, *pair) for pair in (("f", "d"), ("d", "f"), ("d", "link"), ("link", "d"))]


@case(["ok", ["new"], ["inside"], "ENOTEMPTY", "ENOTEMPTY"])
def rename_a_directory_over_a_directory(me: Identity) -> Observed:
    for name in ("old", "new", "third", "third/sub"):
        os.mkdir(name)
    touch("old/inside")
    seen: list[object] = [outcome(os.rename, "old", "new")]
    seen += [[name for name in names() if name != "third"], names("new")]
    return [*seen, outcome(os.rename, "third", "new"), outcome(os.rename, "third/sub", "third")]


@case(["EINVAL", "EINVAL", "ENOTEMPTY"])
def rename_a_directory_into_itself(me: Identity) -> Observed:
    os.makedirs("d/sub/deep")
    return [
        outcome(os.rename, "d", "d/new"),
        outcome(os.rename, "d", "d/sub/deep"),
        outcome(os.rename, "d/sub/deep", "d"),
    ]


@case(["ENOENT"] * 6)
def rename_of_and_to_what_is_missing(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    return [
        outcome(os.rename, *pair)
        for pair in (
            ("missing", "new"),
            ("missing", "d"),
            ("missing/f", "new"),
            ("f", "missing/new"),
            ("", "n"),
            ("f", ""),
        )
    ]


@case(["ENOTDIR"] * 5)
def rename_through_a_file(me: Identity) -> Observed:
    touch("f")
    touch("g")
    return [
        outcome(os.rename, *pair) for pair in (("f/x", "new"), ("g", "f/x"), ("f/", "new"), ("g", "new/"), ("g", "f/"))
    ]


@case(["ENAMETOOLONG", "ENAMETOOLONG", "ENAMETOOLONG", "ok"])
def rename_long_names(me: Identity) -> Observed:
    touch("f")
    return [
        outcome(os.rename, "f", "n" * 256),
        outcome(os.rename, "n" * 256, "f"),
        outcome(os.rename, "f", "./" * 2048 + "x"),
        outcome(os.rename, "f", "n" * 255),
    ]


@case(["ELOOP", "ELOOP"])
def rename_through_a_loop(me: Identity) -> Observed:
    os.symlink("loop", "loop")
    touch("f")
    return [outcome(os.rename, "loop/x", "new"), outcome(os.rename, "f", "loop/x")]


@case(["ok", "l", "f", "ok", "-", "content"])
def rename_moves_symlinks_themselves(me: Identity) -> Observed:
    touch("f", content=b"content")
    os.symlink("f", "link")
    seen = [outcome(os.rename, "link", "moved"), kind_of("moved"), os.readlink("moved")]
    return [*seen, outcome(os.rename, "f", "moved"), kind_of("moved"), read_all("moved")]


@case(["EBUSY", "EBUSY", "EBUSY", "EBUSY", "ok", "ok"])
def rename_of_dots_and_with_slashes(me: Identity) -> Observed:
    os.makedirs("d/e")
    return [
        outcome(os.rename, "d/.", "new"),
        outcome(os.rename, "d/..", "new"),
        outcome(os.rename, "d", "d/."),
        outcome(os.rename, "d/e", "d/.."),
        outcome(os.rename, "d/e/", "new/"),
        outcome(os.rename, "new/", "d/e"),
    ]


@case(["EXDEV", "EXDEV"])
def rename_to_another_file_system(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    return [outcome(os.rename, "f", "/dev/shm/posix-f"), outcome(os.rename, "d", "/dev/shm/posix-d")]  # noqa: S108


# ---------------------------------------------------------------- permission


@case(root=["ok"] * 4, user=["EACCES"] * 4)
def rename_without_permission_in_a_parent(me: Identity) -> Observed:
    for name, mode in (("read", 0o500), ("search", 0o600), ("full", 0o700)):
        os.mkdir(name)
        touch(f"{name}/f")
        os.chmod(name, mode)
    return [
        outcome(os.rename, "read/f", "moved"),
        outcome(os.rename, "full/f", "read/new"),
        outcome(os.rename, "search/f", "moved"),
        outcome(os.rename, "moved" if me is ROOT else "full/f", "search/new"),
    ]


@case(root=["ok", "ok"], user=["ok", "EACCES"])
def rename_a_directory_that_may_not_be_written(me: Identity) -> Observed:
    directory("d", 0o500)
    os.mkdir("other")
    return [outcome(os.rename, "d", "e"), outcome(os.rename, "e", "other/e")]  # its ".." would change


@case(["ok", "ok"])
def rename_needs_nothing_of_the_file(me: Identity) -> Observed:
    touch("f", 0o000)
    touch("g", 0o000)
    with ROOT.acting():
        os.chown("f", STRANGER.uid, STRANGER.gid)
    return [outcome(os.rename, "f", "moved"), outcome(os.rename, "g", "moved")]


# ---------------------------------------------------------------- renameat2


@case(["EEXIST", "EEXIST", "ok", ["d", "f", "new"]])
def rename_noreplace(me: Identity) -> Observed:
    touch("f")
    touch("g")
    os.mkdir("d")
    seen = [flagged("g", name, _core.RENAME_NOREPLACE) for name in ("f", "d", "new")]
    return [*seen, names()]


@case(["ok", "d", "-", "ENOENT", "ENOENT", "EINVAL", "EINVAL"])
def rename_exchange(me: Identity) -> Observed:
    touch("f")
    os.makedirs("d/sub")
    seen = [flagged("f", "d", _core.RENAME_EXCHANGE), kind_of("f"), kind_of("d")]
    return [
        *seen,
        flagged("f", "missing", _core.RENAME_EXCHANGE),
        flagged("missing", "f", _core.RENAME_EXCHANGE),
        flagged("f", "f/sub", _core.RENAME_EXCHANGE),
        flagged("f/sub", "f", _core.RENAME_EXCHANGE),
    ]


@case(["EINVAL", "EINVAL", "EINVAL"])
def rename_with_flags_that_there_are_not(me: Identity) -> Observed:
    touch("f")
    touch("g")
    return [
        flagged("f", "g", _core.RENAME_NOREPLACE | _core.RENAME_EXCHANGE),
        flagged("f", "g", 8),
        flagged("f", "n", 9),
    ]


@case(["ok", "c"])
def rename_leaving_a_whiteout(me: Identity) -> Observed:
    touch("f")
    return [flagged("f", "new", WHITEOUT), kind_of("f")]


# ---------------------------------------------------------------- what else changes


@case([[3, 2], "ok", [2, 3]])
def rename_moves_a_directorys_link_between_parents(me: Identity) -> Observed:
    os.makedirs("a/d")
    os.mkdir("b")
    before = [links_of("a"), links_of("b")]
    return [before, outcome(os.rename, "a/d", "b/d"), [links_of("a"), links_of("b")]]


@case([4, "ok", 3])
def rename_over_a_directory_takes_a_link_from_the_parent(me: Identity) -> Observed:
    os.makedirs("p/a")
    os.mkdir("p/b")
    return [links_of("p"), outcome(os.rename, "p/a", "p/b"), links_of("p")]


@case(["new", 0, "old"])
def rename_over_an_open_file(me: Identity) -> Observed:
    touch("old", content=b"old")
    touch("new", content=b"new")
    fd = os.open("new", os.O_RDONLY)
    try:
        os.rename("old", "new")
        return [os.pread(fd, 9, 0).decode(), os.fstat(fd).st_nlink, read_all("new")]
    finally:
        os.close(fd)


@case(["2 3", "ok", True, "EEXIST"])
def rename_of_the_working_directory(me: Identity) -> Observed:
    os.makedirs("d/sub")
    touch("d/f")
    os.mkdir("e")
    inside = os.open("d", os.O_RDONLY)
    up = os.open(".", os.O_RDONLY)
    try:
        os.chdir("d/sub")
        os.rename("d", "e/d", src_dir_fd=up, dst_dir_fd=up)
        where = f"{links_of('.')} {links_of('..')}"
        parent = os.stat("../..").st_ino == os.stat("e", dir_fd=up).st_ino
        return [where, outcome(os.stat, "f", dir_fd=inside), parent, outcome(os.mkdir, "../f")]
    finally:
        os.close(inside)
        os.close(up)


@case({"from": "mc", "to": "mc", "from/f": "gone", "to/f": "new"})
def rename_moves_times_of_both_parents(me: Identity) -> Observed:
    os.mkdir("from")
    os.mkdir("to")
    touch("from/f")
    return moved(lambda: os.rename("from/f", "to/f"), "from", "to", "from/f", "to/f")


@case(UNSAID)
def rename_and_the_times_of_what_it_moves(me: Identity) -> Observed:
    touch("f")
    touch("g")
    os.link("g", "kept")
    before = os.lstat("f").st_ctime_ns
    seen = moved(lambda: os.rename("f", "g"), ".", "kept")
    return [seen, os.lstat("g").st_ctime_ns != before]
