"""What root is without some of its capabilities, for a process that has to go on as it is (execve gives them back)."""

from __future__ import annotations

import ctypes
import os
import struct

CAP_SYS_ADMIN = 21
_VERSION_3 = 0x20080522


def drop(capability: int) -> None:
    """The process loses it; a program that it runs as root has it again."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = struct.pack("=Ii", _VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(head, sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for at in range(3):  # effective, permitted, inheritable; the upper 32 follow
        sets[3 * (capability // 32) + at] &= ~(1 << capability % 32)
    if libc.capset(head, sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
