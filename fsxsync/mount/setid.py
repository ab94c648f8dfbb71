"""Set-id bits: whoever changes a file's bytes takes it these bits, unless it is root.

On the host the kernel looks at who writes, and that is us, as root. So it is our duty: the mount's kernel leaves it
to us altogether (FUSE_HANDLE_KILLPRIV_V2), or forgets it where O_TRUNC comes with open(2). chown(2) clears them on
the host whoever calls. What the kernel writes by passthrough is seen by nobody: see `may_pass`.
"""

from __future__ import annotations

import os
import stat


def without_set_id(mode: int) -> int:
    """The mode after a write. Without execution for the group the set-gid bit has another meaning, and stays."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


def may_pass(mode: int) -> bool:
    """Whether passthrough keeps the rule: it does where there is nothing to take away."""
    return stat.S_ISREG(mode) and mode == without_set_id(mode)


def drop_set_id(fd: int) -> bool:
    """Take them away if there are any. Whether there were."""
    mode = os.fstat(fd).st_mode
    kept = without_set_id(mode)
    if kept == mode:
        return False
    os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(kept))
    return True
