# ruff: noqa: S103 - odd modes are what it is about
"""Sticky directories: who may remove and rename in them. Set-gid directories: whose group what is made in them has."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable

from posix_suite.identities import FOREIGN_GROUP, ROOT, STRANGER, TEAM, Identity
from posix_suite.observing import directory, mode_of, outcome, owner_of, touch
from posix_suite.registry import Observed, case

from fsxsync import _core

# ---------------------------------------------------------------- sticky


def _exchange() -> None:
    here = os.open(".", os.O_PATH)
    try:
        _core.renameat2(here, b"sticky/x", here, b"sticky/mine", _core.RENAME_EXCHANGE)
    finally:
        os.close(here)


FILE_CALLS: dict[str, Callable[[], object]] = {
    "unlink": lambda: os.unlink("sticky/x"),
    "rename within": lambda: os.rename("sticky/x", "sticky/new"),
    "rename out": lambda: os.rename("sticky/x", "outside"),
    "rename over": lambda: os.rename("sticky/mine", "sticky/x"),
    "rename over from outside": lambda: os.rename("mine", "sticky/x"),
    "exchange": _exchange,
    "link": lambda: os.link("sticky/x", "sticky/link"),
    "make": lambda: touch("sticky/made"),
}
DIRECTORY_CALLS: dict[str, Callable[[], object]] = {
    "rmdir": lambda: os.rmdir("sticky/x"),
    "rename within": lambda: os.rename("sticky/x", "sticky/new"),
}
FREE = {"link", "make"}
"""What the sticky bit does not forbid."""

OWNERS = [
    " ".join(pair) for pair in itertools.product(("my directory,", "a stranger's directory,"), ("mine", "a stranger's"))
]


def _in_sticky(me: Identity, whose: str, call: Callable[[], object], *, on_directory: bool) -> str:
    """One call by ``me`` on ``sticky/x``, with everything made anew."""
    with ROOT.acting():
        directory("sticky", 0o1777)
        make = directory if on_directory else touch
        make("sticky/x", 0o777)
        touch("sticky/mine")
        touch("mine")
        for name in ("sticky/mine", "mine"):
            os.chown(name, me.uid, me.gid)
        os.chown("sticky/x", *((me.uid, me.gid) if whose.endswith(" mine") else (STRANGER.uid, STRANGER.gid)))
        os.chown("sticky", *((me.uid, me.gid) if whose.startswith("my") else (STRANGER.uid, STRANGER.gid)))
    try:
        return outcome(call)
    finally:
        with ROOT.acting():
            for name in ("sticky/x", "sticky/new", "sticky/mine", "sticky/link", "sticky/made", "outside", "mine"):
                outcome(os.rmdir if os.path.isdir(name) else os.unlink, name)
            os.rmdir("sticky")


def _may(calls: dict[str, Callable[[], object]]) -> dict[str, dict[str, str]]:
    stranger = "a stranger's directory, a stranger's"
    return {
        whose: {name: "EPERM" if whose == stranger and name not in FREE else "ok" for name in calls} for whose in OWNERS
    }


def _all_ok(calls: dict[str, Callable[[], object]]) -> dict[str, dict[str, str]]:
    return {whose: dict.fromkeys(calls, "ok") for whose in OWNERS}


@case(root=_all_ok(FILE_CALLS), user=_may(FILE_CALLS))
def sticky_directories_guard_files(me: Identity) -> Observed:
    return {
        whose: {name: _in_sticky(me, whose, call, on_directory=False) for name, call in FILE_CALLS.items()}
        for whose in OWNERS
    }


@case(root=_all_ok(DIRECTORY_CALLS), user=_may(DIRECTORY_CALLS))
def sticky_directories_guard_directories(me: Identity) -> Observed:
    return {
        whose: {name: _in_sticky(me, whose, call, on_directory=True) for name, call in DIRECTORY_CALLS.items()}
        for whose in OWNERS
    }


@case(["EPERM", "EPERM", "ok"])
def sticky_directories_bind_a_third_who_owns_neither(me: Identity) -> Observed:
    directory("sticky", 0o1777)
    touch("sticky/f", 0o666)
    with STRANGER.acting():
        seen = [outcome(os.unlink, "sticky/f"), outcome(os.rename, "sticky/f", "sticky/g")]
    os.chmod("sticky", 0o777)
    with STRANGER.acting():
        return [*seen, outcome(os.unlink, "sticky/f")]


# ---------------------------------------------------------------- set-gid directories


def _make_each_kind(where: str) -> dict[str, int]:
    """The group of one of each kind made there."""
    touch(f"{where}/f")
    os.mkdir(f"{where}/d")
    os.symlink("target", f"{where}/link")
    os.mkfifo(f"{where}/fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{where}/socket")
    return {name: owner_of(f"{where}/{name}")[1] for name in ("f", "d", "link", "fifo", "socket")}


KINDS = ("f", "d", "link", "fifo", "socket")


@case(dict.fromkeys(KINDS, FOREIGN_GROUP))
def in_a_set_gid_directory_the_group_is_the_directorys(me: Identity) -> Observed:
    with ROOT.acting():
        os.mkdir("p")
        os.chown("p", me.uid, FOREIGN_GROUP)
        os.chmod("p", 0o2777)
    return _make_each_kind("p")


@case(root=dict.fromkeys(KINDS, 0), user=dict.fromkeys(KINDS, 60_001))
def in_a_plain_directory_the_group_is_the_makers(me: Identity) -> Observed:
    with ROOT.acting():
        directory("p", 0o777)
        os.chown("p", me.uid, FOREIGN_GROUP)
    return _make_each_kind("p")


@case(["2755", "2755", FOREIGN_GROUP, "2700"])
def set_gid_is_handed_on_to_directories_only(me: Identity) -> Observed:
    with ROOT.acting():
        os.mkdir("p")
        os.chown("p", me.uid, FOREIGN_GROUP)
        os.chmod("p", 0o2777)
    os.makedirs("p/d/e")
    os.mkdir("p/narrow", 0o700)
    assert mode_of("p/d") == "2755"
    touch("p/f")
    assert mode_of("p/f") == "0644"
    return [mode_of("p/d"), mode_of("p/d/e"), owner_of("p/d/e")[1], mode_of("p/narrow")]


@case(root=["2755", "6755"], user=["0755", "4755"])
def who_is_not_of_the_group_makes_no_set_gid_file_in_a_set_gid_directory(me: Identity) -> Observed:
    with ROOT.acting():
        os.mkdir("p")
        os.chown("p", me.uid, FOREIGN_GROUP)
        os.chmod("p", 0o2777)
    for name, mode in (("f", 0o2755), ("g", 0o6755)):
        os.close(os.open(f"p/{name}", os.O_WRONLY | os.O_CREAT, mode))
    return [mode_of("p/f"), mode_of("p/g")]


@case(["2755", TEAM])
def who_is_of_the_group_does(me: Identity) -> Observed:
    with ROOT.acting():
        os.mkdir("p")
        os.chown("p", me.uid, TEAM)
        os.chmod("p", 0o2777)
    os.close(os.open("p/f", os.O_WRONLY | os.O_CREAT, 0o2755))
    return [mode_of("p/f"), owner_of("p/f")[1]]


@case(["same", "same"])
def moving_and_linking_into_a_set_gid_directory_changes_no_group(me: Identity) -> Observed:
    with ROOT.acting():
        os.mkdir("p")
        os.chown("p", me.uid, FOREIGN_GROUP)
        os.chmod("p", 0o2777)
    touch("f")
    os.link("f", "p/link")
    os.rename("f", "p/f")
    return ["same" if owner_of(f"p/{name}")[1] == me.gid else "changed" for name in ("link", "f")]


@case(["2777", "2777"])
def a_set_gid_directory_stays_one_when_it_changes_hands(me: Identity) -> Observed:
    os.mkdir("d")
    os.chmod("d", 0o2777)
    seen = [mode_of("d")]
    with ROOT.acting():
        os.chown("d", STRANGER.uid, FOREIGN_GROUP)
    return [*seen, mode_of("d")]
