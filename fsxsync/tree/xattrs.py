"""User extended attributes of files and directories; ours are not seen here and never touched."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping

from fsxsync.model.xattrs import travels
from fsxsync.tree.beneath import proc_path
from fsxsync.tree.moments import Moments

_NONE = frozenset({errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.ENODATA})
"""It has none, we may not see them, or one went a moment ago."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE, errno.EOPNOTSUPP})
"""The file system takes no more of them, or no such large one: ext4 has 4 KiB for all of a file."""


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """Those of any descriptor, O_PATH ones included. Raises OSError."""
    found: dict[bytes, bytes] = {}
    place = proc_path(fd)
    try:
        for name in map(os.fsencode, os.listxattr(place)):
            if travels(name):
                with _ignoring_what_went():
                    found[name] = os.getxattr(place, name)
    except OSError as error:
        if error.errno not in _NONE:
            raise
    return found


@contextlib.contextmanager
def _ignoring_what_went() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def write_xattrs(fd: int, wanted: Mapping[bytes, bytes], moments: Moments) -> bool:
    """Make them exactly ``wanted``. False if the file system had no room for all. Raises OSError."""
    place, before = proc_path(fd), read_xattrs(fd)
    complete = True
    with moments.writable(fd) if _is_ours(fd) else contextlib.nullcontext():
        for name in before.keys() - wanted.keys():
            with _ignoring_what_went():
                os.removexattr(place, name)
        for name, value in wanted.items():
            if not travels(name) or before.get(name) == value:
                continue
            try:
                os.setxattr(place, name, value)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                complete = False
    return complete


def _is_ours(fd: int) -> bool:
    """Root needs no mode, and a stranger can't change it."""
    return 0 != os.geteuid() == os.fstat(fd).st_uid
