"""The mount's connection ends with the daemon, also where the kernel alone would not end it.

A thread that tells the kernel to forget a name waits for that directory's lock. Its holder is an application that
waits for an answer of ours. If the daemon is killed then, that thread can't die: the connection stays open, nobody
answers, and both wait for ever, with all who touch the mount; not even the daemon's lock is let go. So a process of
its own aborts the connection as soon as the daemon's main thread has died.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

from fsxsync.config import for_children

log = logging.getLogger(__name__)

ENDS_WITHIN_S = 10.0

# SIGUSR1 comes when the thread dies that started it (PR_SET_PDEATHSIG), the end of the input when we close it.
_WATCH = "trap 'echo 1 >\"$0\"; exit' USR1; read -r _"


class Deathwatch:
    """Watches over one connection from its making on. Made and closed by the daemon's main thread."""

    def __init__(self, connection: Path) -> None:
        """``connection`` is its directory in fusectl; without it, or without setpriv(1), there is no watch."""
        self._watcher: subprocess.Popen[bytes] | None = None
        abort = connection / "abort"
        setpriv = shutil.which("setpriv")
        if setpriv is None or not abort.exists():
            lacks = "setpriv" if setpriv is None else str(abort)
            log.info("who uses the mount may hang if the daemon is killed", extra={"why": f"there is no {lacks}"})
            return
        self._watcher = subprocess.Popen(  # noqa: S603 - constants
            [setpriv, "--pdeathsig", "USR1", "--", "/bin/sh", "-c", _WATCH, abort],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the daemon
            cwd="/",
            env=for_children(os.environ),
        )

    def close(self) -> None:
        """The connection has an end that we see to. Before it is over: its number may be given to another one."""
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        try:
            self._watcher.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:  # stopped, perhaps
            self._watcher.kill()
            self._watcher.wait()
