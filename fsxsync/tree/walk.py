"""The tree, entry by entry, in the order of an S3 listing: a scan is a streaming merge with the catalog's rows."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

from fsxsync import _core
from fsxsync.model.identity import Local
from fsxsync.model.shallow import DIRECTORY as IS_DIRECTORY
from fsxsync.model.shallow import Shallow
from fsxsync.tree.beneath import ABSENT, DIRECTORY, open_beneath, shown, tree_error

_ENTRY = struct.Struct(_core.DIRECTORY_ENTRY)


Entry = tuple[bytes, Shallow]
"""(key below the root: the path, with a slash behind a directory's; what stands there)"""


def walk(root_fd: int, dev: int, directory: bytes, *, hidden: frozenset[bytes]) -> Iterator[tuple[bytes, Local]]:
    """The same as `entries`, by path: (path below the root, state). What lies on another device is OTHER."""
    return ((key.removesuffix(b"/"), found.local()) for key, found in entries(root_fd, dev, directory, hidden=hidden))


def entries(
    root_fd: int,
    dev: int,
    directory: bytes,
    *,
    hidden: frozenset[bytes],
    marks: Sequence[bytes] = (),
    apart: frozenset[bytes] = frozenset(),
) -> Iterator[Entry]:
    """Everything below ``directory``, parents before their children.

    The order is the byte order of keys. ``hidden`` are names directly below the root that are ours. What vanishes
    meanwhile is left out. The states are shallow: stub marks and symlink targets are not read, because a scan only
    looks for what is worth a closer look. ``marks`` are xattrs that it looks for. What is below the directories
    ``apart`` is passed over. Blocking.

    Raises:
        TreeError: a directory can't be read. Nobody may conclude then that what lies in it is gone.
    """
    wanted = tuple(marks)
    pending = [_children(root_fd, dev, directory, wanted)]
    if not directory:
        pending = [(one for one in pending[0] if one[0].removesuffix(b"/") not in hidden)]
    while pending:
        for entry in pending[-1]:
            yield entry
            if entry[1].kind == IS_DIRECTORY and entry[0][:-1] not in apart:
                pending.append(_children(root_fd, dev, entry[0][:-1], wanted))
                break
        else:
            pending.pop()


def _children(root_fd: int, dev: int, directory: bytes, marks: tuple[bytes, ...]) -> Iterator[Entry]:
    """One directory, read whole before its first entry is given: no descriptor stays open below it."""
    try:
        fd = open_beneath(root_fd, directory, DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in ABSENT:
            return iter(())
        raise tree_error(error, f"scanning {shown(directory)}") from error
    try:
        keys, packed = _core.read_directory(fd, dev, directory + b"/" if directory else b"", marks)
    except OSError as error:
        if os.fstat(fd).st_nlink == 0:
            # Removed while it was read. ENOENT, or EINVAL from ext4: a directory without blocks has no such offset.
            return iter(())
        raise tree_error(error, f"scanning {shown(directory)}") from error
    finally:
        os.close(fd)
    return zip(keys, map(Shallow._make, _ENTRY.iter_unpack(packed)), strict=True)
