"""Owners and times that applications give, and what both sides say of mode, owner and time when they are at rest."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from model.application import Application
from model.steps import step
from model.things import Thing, inode_of

FIRST_NS = {"past": 1_600_000_000_000_000_000, "future": 1_900_000_000_000_000_000}


Identity = tuple[int, bytes]
_GENERATION = 0x80087601
"""FS_IOC_GETVERSION of linux/fs.h: numbers of inodes are used again, with another generation."""


class Given(NamedTuple):
    """What an application gave a file or directory last. None: nothing."""

    identity: Identity
    mode: int | None = None
    owner: tuple[int, int] | None = None


@dataclass
class Giver(Application):
    """`chmod`, `chown`, `utime`, and what has to come of them."""

    given: dict[str, Given] = field(default_factory=dict)
    """By path, since both sides agreed last."""

    @step
    def chmod(self, path: str, mode: int) -> None:
        def act(root: Path) -> None:
            if not (root / path).is_symlink():
                was = stat.S_IMODE((root / path).stat().st_mode)
                (root / path).chmod(mode)
                if mode != was:  # what it has already nobody can see that somebody wished
                    self._note(path, mode=mode)

        self._work(act)

    @step
    def chown(self, path: str, uid: int, gid: int) -> None:
        """Also of a symlink. Who is not root may not."""

        def act(root: Path) -> None:
            was = (root / path).lstat()
            os.chown(root / path, uid, gid, follow_symlinks=False)
            if (was.st_uid, was.st_gid) != (uid, gid):
                self._note(path, owner=(uid, gid))

        self._work(act)

    @step
    def utime(self, path: str, when: str) -> None:
        at_ns = FIRST_NS[when] + next(self.numbers) * 1_000_000_007
        self.set_times.add(at_ns)
        self.given_times.add(at_ns)

        def act(root: Path) -> None:
            os.utime(root / path, ns=(at_ns, at_ns), follow_symlinks=False)
            inode = inode_of(root / path)
            for name in self.brought_s:  # `newest` goes by it
                if inode_of(self.behind / name) == inode:
                    self.brought_s[name] = max(self.brought_s[name], at_ns / 1e9)

        self._work(act)

    def _note(self, path: str, *, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
        identity = _identity(self.behind / path)
        if identity is None:
            return
        last = self.given.get(path)
        if last is None or last.identity != identity:
            last = Given(identity)
        self.given[path] = Given(identity, mode or last.mode, owner or last.owner)

    def _check_given(self) -> None:
        """What was given stays as long as nobody else has said or done anything about the path."""
        for path, given in self.given.items():
            here = self.local(path)
            if here is None or _identity(self.behind / path) != given.identity or path in self.theirs:
                continue
            if here.kind == "directory" and path + "/" in self.theirs:
                continue
            for what, wanted, found in (("mode", given.mode, here.mode), ("owner", given.owner, here.owner)):
                assert wanted in {None, found}, f"{path} was given the {what} {wanted}, and has {found}"
        self.given.clear()

    def _check_metadata(self, path: str, here: Thing, there: Thing) -> None:
        """As far as the object says anything."""
        if here.mode is not None and there.mode is not None:
            assert here.mode == there.mode, f"{path} has mode {here.mode:o} here, {there.mode:o} there"
        if there.owner is not None:
            assert here.owner == there.owner, f"{path} is of {here.owner} here, of {there.owner} there"
        if there.mtime_ns is None:
            return
        if here.kind == "directory":
            is_due = here.mtime_ns in self.given_times  # all others come of what is put into it
        else:
            is_due = here.mtime_ns not in self.set_times and bool(here.content)  # an empty file may be emptied again
        assert not is_due or here.mtime_ns == there.mtime_ns, (
            f"{path} is of {here.mtime_ns} here, {there.mtime_ns} there"
        )


def _identity(path: Path) -> Identity | None:
    """None of what has several names: what comes in for another one counts for this one, too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            return None
        return status.st_ino, fcntl.ioctl(fd, _GENERATION, bytes(8))
    except OSError:
        return None  # a file system that tells of none
    finally:
        os.close(fd)
