"""Extended attributes."""

from __future__ import annotations

import os

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import directory, in_c, outcome, touch
from posix_suite.registry import UNSAID, Observed, case


@case(["ok", "one", ["user.a", "user.b"], "", "ok", ["user.b"], "two"])
def attributes_come_change_and_go(me: Identity) -> Observed:
    touch("f")
    seen: list[object] = [outcome(os.setxattr, "f", "user.a", b"one"), os.getxattr("f", "user.a").decode()]
    os.setxattr("f", "user.b", b"")
    seen += [sorted(os.listxattr("f")), os.getxattr("f", "user.b").decode(), outcome(os.removexattr, "f", "user.a")]
    os.setxattr("f", "user.b", b"two")
    return [*seen, os.listxattr("f"), os.getxattr("f", "user.b").decode()]


@case(["EEXIST", "one", "ENODATA", "ENODATA", "ENODATA", "ok", "ok", "two"])
def attributes_made_or_replaced_only(me: Identity) -> Observed:
    touch("f")
    os.setxattr("f", "user.a", b"one")
    seen = [outcome(os.setxattr, "f", "user.a", b"x", os.XATTR_CREATE), os.getxattr("f", "user.a").decode()]
    seen += [outcome(os.setxattr, "f", "user.b", b"x", os.XATTR_REPLACE), outcome(os.getxattr, "f", "user.b")]
    seen += [outcome(os.removexattr, "f", "user.b"), outcome(os.setxattr, "f", "user.b", b"x", os.XATTR_CREATE)]
    return [*seen, outcome(os.setxattr, "f", "user.a", b"two", os.XATTR_REPLACE), os.getxattr("f", "user.a").decode()]


@case(["ok", "ERANGE", "ERANGE", "E2BIG", "EINVAL", "ERANGE"])
def attributes_of_impossible_names_and_sizes(me: Identity) -> Observed:
    touch("f")
    os.setxattr("f", "user.a", b"12345")
    return [
        outcome(os.setxattr, "f", "user." + "n" * 250, b"x"),
        outcome(os.setxattr, "f", "user." + "n" * 251, b"x"),
        outcome(in_c, "getxattr", b"f", b"user.a", bytes(3), 3),
        outcome(os.setxattr, "f", "user.b", bytes(65_537)),
        outcome(os.setxattr, "f", "user.", b"x"),
        outcome(os.setxattr, "f", "", b"x"),
    ]


@case(UNSAID)
def attributes_larger_than_the_file_system_keeps(me: Identity) -> Observed:
    touch("f")
    return [outcome(os.setxattr, "f", "user.a", bytes(size)) for size in (1000, 3000, 65_536)]


@case(["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def attributes_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    return [outcome(os.setxattr, name, "user.a", b"x") for name in ("missing", "f/x", "loop", "n" * 256)]


@case({"dir": "ok", "fifo": "EPERM", "link": "EPERM"})
def attributes_of_each_kind(me: Identity) -> Observed:
    os.mkdir("dir")
    os.mkfifo("fifo")
    os.symlink("missing", "link")
    return {name: outcome(os.setxattr, name, "user.a", b"x", follow_symlinks=False) for name in ("dir", "fifo", "link")}


@case(UNSAID)
def attributes_looked_for_where_there_are_none(me: Identity) -> Observed:
    os.mkfifo("fifo")
    os.symlink("missing", "link")
    return [
        [outcome(os.getxattr, name, "user.a", follow_symlinks=False), os.listxattr(name, follow_symlinks=False)]
        for name in ("fifo", "link")
    ]


@case(
    root={"write only": ["ok"] * 3, "read only": ["ok"] * 3},
    user={"write only": ["ok", "EACCES", "ok"], "read only": ["EACCES", "ok", "EACCES"]},
)
def attributes_need_what_the_bytes_need(me: Identity) -> Observed:
    seen = {}
    for name, mode in (("write only", 0o200), ("read only", 0o400)):
        with ROOT.acting():
            touch(name)
            os.setxattr(name, "user.a", b"x")
            os.chown(name, me.uid, me.gid)
            os.chmod(name, mode)
        seen[name] = [
            outcome(os.setxattr, name, "user.b", b"x"),
            outcome(os.getxattr, name, "user.a"),
            outcome(os.removexattr, name, "user.a"),
        ]
    return seen


@case(root="ok", user="EPERM")
def attributes_of_a_strangers_sticky_directory(me: Identity) -> Observed:
    with ROOT.acting():
        directory("d", 0o1777)
        os.chown("d", STRANGER.uid, STRANGER.gid)
    return outcome(os.setxattr, "d", "user.a", b"x")


@case(["x", "x"])
def attributes_are_the_inodes(me: Identity) -> Observed:
    touch("f")
    os.setxattr("f", "user.a", b"x")
    os.link("f", "link")
    os.rename("f", "moved")
    return [os.getxattr(name, "user.a").decode() for name in ("link", "moved")]


@case(["x", "ENODATA"])
def attributes_of_an_open_file(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDONLY)
    try:
        os.unlink("f")
        os.setxattr(fd, "user.a", b"x")
        seen = [os.getxattr(fd, "user.a").decode()]
        os.removexattr(fd, "user.a")
        return [*seen, outcome(os.getxattr, fd, "user.a")]
    finally:
        os.close(fd)


@case(root={"trusted.a": "ok", "security.a": "ok"}, user={"trusted.a": "EPERM", "security.a": "EPERM"})
def attributes_of_privileged_namespaces(me: Identity) -> Observed:
    touch("f")
    return {name: outcome(os.setxattr, "f", name, b"x") for name in ("trusted.a", "security.a")}


@case(["EOPNOTSUPP", "EOPNOTSUPP"])
def attributes_of_namespaces_that_there_are_not(me: Identity) -> Observed:
    touch("f")
    seen = [outcome(os.setxattr, "f", "strange.a", b"x"), outcome(os.getxattr, "f", "strange.a")]
    return ["EOPNOTSUPP" if name == "ENOTSUP" else name for name in seen]  # one number, two names


ACL = bytes.fromhex(
    "02000000" + "01000600ffffffff" + "0200040062ea0000" + "04000400ffffffff" + "10000400ffffffff" + "20000400ffffffff"
)
"""u::rw-, u:60002:r--, g::r--, m::r--, o::r-- (acl(5) as the kernel takes it)."""


@case("ok")
def access_control_lists_are_set(me: Identity) -> Observed:
    touch("f", 0o600)
    return outcome(os.setxattr, "f", "system.posix_acl_access", ACL)
