"""Names and paths: how long, how deep, of which bytes."""

from __future__ import annotations

import os
import unicodedata

from posix_suite.identities import Identity
from posix_suite.observing import directory, kind_of, links_of, names, opening, outcome, read_all, touch
from posix_suite.registry import Observed, case

LONGEST = "n" * 255


def _with(name: str) -> list[str]:
    """The outcomes of each call that makes or looks for a name."""
    touch("f")
    os.mkdir("d")
    outcomes = []
    for call, arguments in (
        (os.mkdir, (name,)),
        (os.rmdir, (name,)),
        (os.symlink, ("target", name)),
        (os.readlink, (name,)),
        (os.rename, (name, f"d/{name}")),
        (os.unlink, (f"d/{name}",)),
        (os.link, ("f", name)),
        (os.chmod, (name, 0o600)),
        (os.chown, (name, -1, -1)),
        (os.utime, (name,)),
        (os.truncate, (name, 0)),
        (os.setxattr, (name, "user.x", b"y")),
        (os.unlink, (name,)),
        (os.mkfifo, (name,)),
        (os.lstat, (name,)),
        (os.unlink, (name,)),
    ):
        outcomes.append(outcome(call, *arguments))
    return [*outcomes, opening(name, os.O_RDWR | os.O_CREAT)]


@case(["ok"] * 17)
def names_of_255_bytes(me: Identity) -> Observed:
    return _with(LONGEST)


@case(["ENAMETOOLONG"] * 17)
def names_of_256_bytes(me: Identity) -> Observed:
    return _with(LONGEST + "n")


@case(["ok", "ENAMETOOLONG", "ok", "ENAMETOOLONG"])
def names_are_counted_in_bytes(me: Identity) -> Observed:
    made = ("€" * 85, "€" * 85 + "x", "ä" * 127 + "x", "ä" * 128)
    return [opening(name, os.O_WRONLY | os.O_CREAT) for name in made]


@case([253, True])
def names_of_every_byte(me: Identity) -> Observed:
    made = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    for name in made:
        touch(name)
    return [len(made), sorted(os.listdir(b".")) == made]


@case([4, ["-rf", "...", " ", "\n", "\\", "~"]])
def names_are_not_interpreted(me: Identity) -> Observed:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for name in ("A", "a", composed, decomposed):
        touch(name)
    count = len(os.listdir("."))
    odd = ["-rf", "...", " ", "\n", "\\", "~"]
    for name in odd:
        touch(name)
    return [count, [name for name in odd if kind_of(name) == "-"]]


@case(["ok", "ok", "ok", "EINVAL"])
def slashes_are_one(me: Identity) -> Observed:
    os.makedirs("a/b")
    touch("a/b/f")
    return [
        outcome(os.stat, "a//b///f"),
        outcome(os.stat, "./a/./b/./f"),
        outcome(os.listdir, "a//b/"),
        outcome(os.rmdir, "a/b/."),
    ]


@case(["ok", "ENAMETOOLONG", "ENAMETOOLONG"])
def paths_of_4095_and_4096_bytes(me: Identity) -> Observed:
    touch("f")
    return [
        outcome(os.stat, "./" * 2047 + "f"),
        outcome(os.stat, "./" * 2047 + "/f"),
        outcome(os.mkdir, "./" * 2048 + "d"),
    ]


@case(["ok", "written", ["moved"], "ok", "ok", 2])
def trees_deeper_than_a_path_is_long(me: Identity) -> Observed:
    """20 x 256 bytes: reached step by step."""
    fd = os.open(".", os.O_RDONLY)
    for _ in range(20):
        os.mkdir(LONGEST, dir_fd=fd)
        below = os.open(LONGEST, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        os.fchdir(fd)
        touch("f", content=b"written")
        seen: list[object] = [outcome(os.stat, "f"), read_all("f")]
        os.rename("f", "moved")
        seen += [names(), outcome(os.link, "moved", "link"), outcome(os.mkdir, "d")]
        return [*seen, links_of("link")]
    finally:
        os.close(fd)


@case([300, "ok", "ENAMETOOLONG"])
def trees_of_many_levels(me: Identity) -> Observed:
    depth = 0
    while depth < 300:
        os.mkdir("level")
        os.chdir("level")
        depth += 1
    touch("f")
    for _ in range(depth):
        os.chdir("..")
    return [depth, outcome(os.stat, "level/" * 300 + "f"), outcome(os.stat, "level/" * 700 + "f")]


@case(["ok", "ENOENT", "ok"])
def a_name_is_there_and_gone_at_once(me: Identity) -> Observed:
    directory("d")
    touch("d/f")
    seen = [outcome(os.stat, "d/f")]
    os.unlink("d/f")
    seen.append(outcome(os.stat, "d/f"))
    touch("d/f")
    return [*seen, outcome(os.stat, "d/f")]
