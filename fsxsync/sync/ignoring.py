"""The ignore list of an association: a file in its directory, in gitignore's words, that is obeyed at once."""

from __future__ import annotations

import os

from fsxsync.errors import IgnoreListUnreadable, LocalChanged, TreeError
from fsxsync.model.identity import Kind, Local
from fsxsync.sync.filters import IGNORE_FILE, Filters
from fsxsync.sync.served import Served

SIZE_MAX = 64 << 10
"""Bytes: thousands of patterns; every path is compared with each of them."""


def read_filters(served: Served) -> Filters:
    """The association's filters with what its ignore list says now.

    Raises:
        IgnoreListUnreadable: half a list would let out what the other half holds back. TreeError.
    """
    tree_path = served.tree_path(IGNORE_FILE)
    what = f"the ignore list {served.association.file_system_path.rstrip('/')}/{IGNORE_FILE.decode()}"
    local = served.shared.tree.identify(tree_path)
    if local is None:
        return Filters(served.association)
    if local.kind is not Kind.FILE:
        raise IgnoreListUnreadable(what, "it is no file")
    if local.stub is not None:
        raise IgnoreListUnreadable(what, "its data is only in the repository", advice="read it once")
    if local.size > SIZE_MAX:
        raise IgnoreListUnreadable(what, f"it is larger than {SIZE_MAX} bytes")
    try:
        lines = _read(served, tree_path, local).decode().splitlines()
    except UnicodeDecodeError as error:
        raise IgnoreListUnreadable(what, "it is no UTF-8") from error
    try:
        return Filters(served.association, lines)
    except ValueError as error:
        raise IgnoreListUnreadable(what, str(error)) from error


def _read(served: Served, tree_path: bytes, local: Local) -> bytes:
    fd = served.shared.tree.open_read(tree_path, local)
    try:
        return os.pread(fd, SIZE_MAX, 0)
    finally:
        os.close(fd)


def refresh(served: Served) -> None:
    """The list was touched. What comes from now on is judged by what it says; if it can't be read, the association is
    started again, and says why it does not go on."""
    try:
        after = read_filters(served)
    except LocalChanged:  # it is being written: its end tells of it again
        return
    except TreeError:
        served.filters_stale.set()
        return
    if after.ignored != served.filters.ignored or served.association.failure:
        served.filters = after
        served.filters_stale.set()
