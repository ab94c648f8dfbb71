"""A read-only file of an ordinary user's that its daemon has to change, and who dies in the middle of that."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.ordinary_user import UID

from fsxsync.model.identity import Kind
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.tree import Tree

MARK = StubMark("0123", 4, "k")
OTHER = StubMark("4567", 4, "k")
CHANGES: dict[str, Callable[[Tree], Any]] = {
    "open": lambda tree: os.close(tree.open_write(b"f", seen(tree).ino)),
    "remark": lambda tree: tree.remark(b"f", seen(tree), OTHER),
    "xattrs": lambda tree: tree.set_xattrs(b"f", seen(tree), {b"user.colour": b"red"}),
}


def seen(tree: Tree) -> Any:
    local = tree.identify(b"f")
    assert local is not None
    assert local.kind is Kind.FILE
    return local


def open_tree(base: Path) -> Tree:
    return Tree.open(base / "tree", base / "staging", instance=None, new_instance="one")


def as_user(act: Callable[[], None]) -> int:
    """What becomes of an ordinary user's process that does that: 0, 9 if it died where it was told to."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(UID)
            os.setuid(UID)
            act()
            os._exit(0)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def change(base: Path, what: str, step: int) -> None:
    """Die before the so-many-th call."""
    left = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return call(*args, **kwargs)

        return run

    tree = open_tree(base)
    for name in ("chmod", "open", "write", "unlink", "setxattr"):
        setattr(os, name, counted(getattr(os, name)))
    CHANGES[what](tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user")
@pytest.mark.parametrize(
    ("what", "mode"), [("open", 0o444), ("open", 0o040), ("remark", 0o444), ("xattrs", 0o444), ("xattrs", 0o040)]
)
def test_a_crash_leaves_no_file_writable(tmp_path: Path, what: str, mode: int) -> None:
    for above in (tmp_path, *list(tmp_path.parents)[:-2]):
        above.chmod(above.stat().st_mode | 0o111)
    writable = 0
    for step in range(1, 50):
        base = tmp_path / str(step)
        file = base / "tree/f"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"data")
        os.setxattr(file, XATTR, MARK.encode())
        file.chmod(mode)
        for path in (base, file.parent, file):
            os.chown(path, UID, UID)
        code = as_user(partial(change, base, what, step))
        assert code in {0, 9}
        writable += file.stat().st_mode & 0o7777 != mode

        assert as_user(lambda base=base: open_tree(base).close()) == 0  # type: ignore[misc]

        assert file.stat().st_mode & 0o7777 == mode
        assert os.listdir(base / "staging") == []
        assert file.read_bytes() == b"data"
        if code == 0:
            assert writable > 0, "it never had to be made so"
            return
    raise AssertionError("it never came to its end")
