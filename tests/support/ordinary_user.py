"""An ordinary user of a machine as it usually is: /dev/fuse is open to all, and so are the interpreter and the program.

    with OrdinaryUser() as user:
        with instance(user.home, program=user.program, HOME=str(user.home)) as made:
            user.python("open(sys.argv[1] + '/f', 'w').write('x')", made.directory)

A build machine's device may be root's alone, its interpreter may lie in root's home, and nobody may be in
/etc/passwd. So what differs is bound over in a mount namespace of its own, and nothing outside changes.
What the user mounts is seen in there only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.instance import PROGRAM, Done

UID = 61_234
NAME = "fsxsync-test"
_REPOSITORY = Path(__file__).parents[2]
_LET_GO = r"""
awk '$3 ~ /^fuse[.]/ {print $2}' /proc/mounts | while read -r at; do umount -l "$(printf %b "$at")" || true; done
"""
"""Of the copies that the namespace has: they would keep the mounts of other tests alive when these unmount them."""


def _closed_above(directory: Path) -> Path | None:
    """The first directory on the way that others can't pass."""
    for above in [*reversed(directory.parents), directory]:
        if not above.stat().st_mode & 0o001:
            return above
    return None


class OrdinaryUser:
    """``home`` is theirs. A context manager."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fsxsync-user-"))
        self._side = Path(tempfile.mkdtemp(prefix="fsxsync-side-"))
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        os.chown(self.home, UID, UID)
        self.home.chmod(0o755)
        self._holder = subprocess.Popen(  # noqa: S603
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", self._set_up()],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__(None, None, None)
            raise RuntimeError("the namespace could not be made")
        return self

    def _set_up(self) -> str:
        side = shlex.quote(str(self._side))
        lines = [
            _LET_GO,
            f"mount -t tmpfs -o mode=755 none {side}",
            f"mknod {side}/fuse c 10 229",
            f"chmod 666 {side}/fuse",
            f"mount --bind {side}/fuse /dev/fuse",
            f"cp /etc/passwd {side}/passwd",
            f"echo {NAME}:x:{UID}:{UID}::{self.home}:/bin/sh >>{side}/passwd",
            f"mount --bind {side}/passwd /etc/passwd",
        ]
        needed = {Path(sys.base_prefix), Path(sys.prefix), _REPOSITORY}
        closed = {place: above for place in needed if (above := _closed_above(place)) is not None}
        for number, place in enumerate(closed):
            lines += [f"mkdir {side}/{number}", f"mount --bind {shlex.quote(str(place))} {side}/{number}"]
        lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(above))}" for above in set(closed.values())]
        for number, place in enumerate(closed):
            quoted = shlex.quote(str(place))
            lines += [f"mkdir -p {quoted}", f"mount --bind {side}/{number} {quoted}"]
        return "\n".join([*lines, "echo ready", "read _"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            self._holder.communicate()  # the namespace ends with its last process, and its mounts with it
        shutil.rmtree(self.home)
        self._side.rmdir()

    # ------------------------------------------------------------- what they do

    @property
    def inside(self) -> list[str]:
        """What comes before a command to run it in the namespace."""
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    @property
    def prefix(self) -> list[str]:
        """What comes before a command to run it as this user."""
        return [*self.inside, "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]

    @property
    def program(self) -> list[str]:
        return [*self.prefix, *PROGRAM]

    def run(self, *command: str | Path, prefix: Sequence[str] | None = None) -> Done:
        done = subprocess.run(  # noqa: S603
            [*(prefix or self.prefix), *map(str, command)], check=False, capture_output=True, text=True, cwd="/"
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def python(self, code: str, *arguments: str | Path, prefix: Sequence[str] | None = None) -> str:
        """Run it as this user, with os and sys imported; what it printed."""
        done = self.run(sys.executable, "-c", "import os, sys\n" + code, *arguments, prefix=prefix)
        assert done.code == 0, done.err
        return done.out

    def mounts(self) -> int:
        """How many of ours there are in there."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/mounts").read_text().count(" fuse.fsxsync ")
