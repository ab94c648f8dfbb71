"""Host paths, as a shell completes them, and the paths of the tree that they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fsxsync.control.client import Document
from fsxsync.control.protocol import DaemonError
from fsxsync.errors import BadInput

NOWHERE = "check the name; what only the repository has comes with 'fsxsync import'"


def tree_paths(paths: Sequence[str], status: Document) -> list[bytes]:
    """The paths below the tree's root. A symlink at the end of a path is what is asked about; those before it
    are followed.

    Raises:
        BadInput: a path lies outside of the mount.
    """
    roots = [os.path.realpath(os.fsencode(root)) for root in (status["mount"], status["tree"]) if root]
    return [_tree_path(path, roots, status) for path in paths]


def _tree_path(path: str, roots: Sequence[bytes], status: Document) -> bytes:
    resolved = _resolved(os.fsencode(path))
    for root in roots:
        if resolved == root:
            return b""
        below = root.rstrip(b"/") + b"/"
        if resolved.startswith(below):
            return resolved[len(below) :]
    where = status["mount"] or status["tree"]
    raise BadInput(f"{path} can't be asked about", f"it does not lie in {where}", advice=f"name a path below {where}")


def _resolved(path: bytes) -> bytes:
    head, tail = os.path.split(path)
    if tail in {b"", b".", b".."}:  # "dir/", "." and "..": no name to leave unresolved
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(head), tail)


def named(error: DaemonError, paths: Sequence[str], asked: Sequence[bytes]) -> DaemonError:
    """What the daemon says of one of the paths, told of the name that the user wrote; ``asked``: see `tree_paths`."""
    for path, tree_path in zip(paths, asked, strict=True):
        if error.what == f"/{tree_path.decode('utf-8', 'backslashreplace')}":
            error.what = path
            if error.why == "no such file or directory":
                error.advice = NOWHERE
            break
    return error


@contextmanager
def as_typed(paths: Sequence[str], asked: Sequence[bytes]) -> Iterator[None]:
    """The same for whatever is said in between."""
    try:
        yield
    except DaemonError as error:
        named(error, paths, asked)
        raise
