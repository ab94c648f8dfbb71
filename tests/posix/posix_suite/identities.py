"""Who acts in a case: root, an ordinary user, and a stranger who shares no group of his own with that user.

The process stays root underneath (its saved user id), so that several of them may act in one case. What the kernel
looks at is the real thing: real, effective and file-system ids, supplementary groups, and no effective capability.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)


class NeedsAnother(Exception):
    """A case wants to act as somebody else than who runs it."""


def is_root() -> bool:
    """Also while another identity acts."""
    return 0 in os.getresuid()


@dataclass(frozen=True, slots=True)
class Identity:
    """A process of an ordinary user may act as nobody else; then `NeedsAnother` says so."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary ones."""

    @contextmanager
    def acting(self) -> Iterator[None]:
        """What is done inside is done by this identity."""
        if not is_root():
            if self.uid != os.getuid():
                raise NeedsAnother
            yield
            return
        before = os.getresuid(), os.getresgid(), os.getgroups()
        self._become((self.uid, self.uid, 0), (self.gid, self.gid, self.gid), self.groups)
        try:
            yield
        finally:
            self._become(*before)

    @staticmethod
    def _become(uids: tuple[int, int, int], gids: tuple[int, int, int], groups: tuple[int, ...] | list[int]) -> None:
        os.setresuid(0, 0, 0)  # only root may change the others
        os.setgroups(groups)
        os.setresgid(*gids)
        os.setresuid(*uids)
        _libc.prctl(_PR_SET_DUMPABLE, 1)  # a change of ids takes /proc/self away from its owner


TEAM = 60_010
"""The user's supplementary group; the stranger is not in it."""
FOREIGN_GROUP = 60_020
"""Nobody of ours is in it."""

ROOT = Identity(0, 0, (0,))
USER = Identity(60_001, 60_001, (60_001, TEAM))
STRANGER = Identity(60_002, 60_002, (60_002,))

ACTORS = {"root": ROOT, "user": USER}


def actor(name: str) -> Identity:
    """By name; a process of an ordinary user has only itself."""
    return ACTORS[name] if is_root() else Identity(os.getuid(), os.getgid(), tuple(os.getgroups()))
