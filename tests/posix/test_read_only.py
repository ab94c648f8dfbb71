"""EROFS: a read-only association of the mount, beside a bare directory that is mounted read-only onto itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from posix_suite.deviations import expected_instead
from posix_suite.identities import ACTORS
from posix_suite.observing import in_a_child, opening, outcome
from support.mounting import Mounted

from fsxsync import _core

pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount and to act as other users"),
]


def _rename_flagged(flags: int) -> str:
    here = os.open(".", os.O_PATH)
    return outcome(_core.renameat2, here, b"f", here, b"g", flags)


CALLS: dict[str, Callable[[], str]] = {
    "ro_create": lambda: opening("new", os.O_WRONLY | os.O_CREAT),
    "ro_open_to_write": lambda: opening("f", os.O_WRONLY),
    "ro_open_to_cut": lambda: opening("f", os.O_RDONLY | os.O_TRUNC),
    "ro_open_with_creation_of_what_is_there": lambda: opening("f", os.O_RDONLY | os.O_CREAT),
    "ro_open_exclusively_what_is_there": lambda: opening("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "ro_open_to_read": lambda: opening("f", os.O_RDONLY),
    "ro_open_a_fifo_to_write": lambda: opening("fifo", os.O_RDWR | os.O_NONBLOCK),
    "ro_truncate": lambda: outcome(os.truncate, "f", 0),
    "ro_mkdir": lambda: outcome(os.mkdir, "new"),
    "ro_mkdir_over_what_is_there": lambda: outcome(os.mkdir, "d"),
    "ro_mkfifo": lambda: outcome(os.mkfifo, "new"),
    "ro_symlink": lambda: outcome(os.symlink, "target", "new"),
    "ro_link": lambda: outcome(os.link, "f", "new"),
    "ro_unlink": lambda: outcome(os.unlink, "f"),
    "ro_unlink_what_is_missing": lambda: outcome(os.unlink, "missing"),
    "ro_rmdir": lambda: outcome(os.rmdir, "d"),
    "ro_rename": lambda: outcome(os.rename, "f", "new"),
    "ro_rename_over": lambda: outcome(os.rename, "f", "g"),
    "ro_exchange": lambda: _rename_flagged(_core.RENAME_EXCHANGE),
    "ro_chmod": lambda: outcome(os.chmod, "f", 0o600),
    "ro_chown": lambda: outcome(os.chown, "f", -1, -1),
    "ro_utime": lambda: outcome(os.utime, "f"),
    "ro_setxattr": lambda: outcome(os.setxattr, "f", "user.a", b"x"),
    "ro_removexattr": lambda: outcome(os.removexattr, "f", "user.there"),
    "ro_getxattr": lambda: outcome(os.getxattr, "f", "user.there"),
    "ro_access_to_write": lambda: "ok" if os.access("f", os.W_OK) else "refused",
    "ro_access_to_read": lambda: "ok" if os.access("f", os.R_OK) else "refused",
}
ALLOWED = {
    "ro_open_to_read": "ok",
    "ro_open_with_creation_of_what_is_there": "ok",
    "ro_open_exclusively_what_is_there": "EEXIST",
    "ro_open_a_fifo_to_write": "ok",  # what goes through it changes no file system
    "ro_mkdir_over_what_is_there": "EEXIST",
    "ro_unlink_what_is_missing": "EROFS",
    "ro_getxattr": "ok",
    "ro_access_to_write": "refused",
    "ro_access_to_read": "ok",
}
"""All others give EROFS."""


@dataclass(frozen=True, slots=True)
class Sides:
    bare: Path
    mount: Path
    data_path: str


def _fill(directory: Path) -> None:
    (directory / "d").mkdir(parents=True)
    for name in ("f", "g"):
        (directory / name).write_bytes(b"data")
        os.setxattr(directory / name, "user.there", b"x")
    os.mkfifo(directory / "fifo")
    for path in (directory, *directory.iterdir()):
        path.chmod(0o777)
        os.chown(path, ACTORS["user"].uid, ACTORS["user"].gid)


@pytest.fixture(scope="module", params=["auto", "off"])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    room = Path(tempfile.mkdtemp(prefix="fsxsync-posix-"))
    room.chmod(0o755)
    bare = room / "bare"
    _fill(bare)
    _fill(room / "tree" / "ro")
    try:
        subprocess.run(["mount", "--bind", bare, bare], check=True)  # noqa: S603, S607 - mount(8)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", bare], check=True)  # noqa: S603, S607
            with Mounted(room, allow_other=True, passthrough=request.param) as mounted:
                mounted.ask("forbid", read_only=["ro"], roots=[], bugs=[])
                data_path = "auto" if mounted.ask("data_path") == "passthrough" else "off"
                yield Sides(bare, mounted.path / "ro", data_path)
        finally:
            _core.umount2(bytes(bare), _core.MNT_DETACH)
    finally:
        shutil.rmtree(room)


def _observe(name: str, actor: str, directory: Path) -> str:
    def act() -> str:
        os.chdir(directory)
        with ACTORS[actor].acting():
            return CALLS[name]()

    seen: str = in_a_child(act)
    return seen


@pytest.mark.parametrize("actor", sorted(ACTORS))
@pytest.mark.parametrize("name", CALLS)
def test_read_only(name: str, actor: str, sides: Sides) -> None:
    on_the_host = _observe(name, actor, sides.bare)
    assert on_the_host == ALLOWED.get(name, "EROFS"), "the bare directory does not do what is demanded"

    on_the_mount = _observe(name, actor, sides.mount)

    instead = expected_instead(name, actor, sides.data_path)
    assert instead is None or on_the_host != instead[0], "this is no deviation: take it out of both lists"
    assert on_the_mount == (instead or [on_the_host])[0]
