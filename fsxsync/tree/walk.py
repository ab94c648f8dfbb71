"""The tree, entry by entry, in the order of an S3 listing: a scan is a streaming merge with the catalog's rows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from fsxsync import _core
from fsxsync.model.identity import Kind, Local
from fsxsync.tree.beneath import ABSENT, DIRECTORY, open_beneath, shown, tree_error
from fsxsync.tree.identify import local_of

_ENTRIES = 256 * 1024  # bytes of directory entries that one system call may bring
_VANISHED = ABSENT | {0}


def walk(root_fd: int, dev: int, directory: bytes, *, hidden: frozenset[bytes]) -> Iterator[tuple[bytes, Local]]:
    """Everything below ``directory`` as (path below the root, state), parents before their children.

    The order is the byte order of keys, where a directory's name ends in ``/``. ``hidden`` are names directly below
    the root that are ours. What vanishes meanwhile is left out. The states are shallow: stub marks and symlink targets
    are not read, because a scan only looks for what is worth a closer look. Blocking.

    Raises:
        TreeError: a directory can't be read. Nobody may conclude then that what lies in it is gone.
    """
    pending = [_children(root_fd, dev, directory, hidden if not directory else frozenset())]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        yield found
        path, local = found
        if local.kind is Kind.DIRECTORY:
            pending.append(_children(root_fd, dev, path, frozenset()))


def _children(root_fd: int, dev: int, directory: bytes, hidden: frozenset[bytes]) -> Iterator[tuple[bytes, Local]]:
    """One directory, read whole before its first entry is given: no descriptor stays open below it."""
    try:
        fd = open_beneath(root_fd, directory, DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in ABSENT:
            return iter(())
        raise tree_error(error, f"scanning {shown(directory)}") from error
    try:
        return iter(_read(fd, dev, directory, hidden))
    except OSError as error:
        if os.fstat(fd).st_nlink == 0:
            # Removed while it was read. ENOENT, or EINVAL from ext4: a directory without blocks has no such offset.
            return iter(())
        raise tree_error(error, f"scanning {shown(directory)}") from error
    finally:
        os.close(fd)


def _read(fd: int, dev: int, directory: bytes, hidden: frozenset[bytes]) -> list[tuple[bytes, Local]]:
    prefix = directory + b"/" if directory else b""
    found: list[tuple[bytes, bytes, Local]] = []
    offset = 0
    while entries := _core.getdents(fd, offset, _ENTRIES):
        offset = entries[-1][3]
        for name, _, _, _ in entries:
            if name in {b".", b".."} or name in hidden:
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno in _VANISHED:
                    continue
                raise
            key = name + b"/" if stat.S_ISDIR(status.st_mode) else name
            found.append((key, name, local_of(status, dev)))
    found.sort(key=lambda entry: entry[0])
    return [(prefix + name, local) for _, name, local in found]
