"""Nothing escapes (DESIGN §3.7): who swaps names for symlinks while we work has us touch nothing outside the tree."""

from __future__ import annotations

import ast
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from fsxsync import _core
from fsxsync.errors import FsxSyncError, LocalChanged, TreeError
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree import beneath, placing, watch_walk
from fsxsync.tree.attributes import see
from fsxsync.tree.staging import NewStub
from fsxsync.tree.tree import Releasable, Tree
from fsxsync.tree.watches import Root

MARK = StubMark(etag="e", size=6, key="d/f")
ROUNDS = 60


def open_tree(base: Path) -> Tree:
    return Tree.open(base / "tree", base / "staging", instance=None, new_instance="one")


def fill(directory: Path, text: str) -> None:
    (directory / "sub").mkdir(parents=True)
    for name in ("f", "g", "sub/f"):
        (directory / name).write_text(text)
        os.setxattr(directory / name, "user.kept", b"1")


def photograph(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that anybody could have changed below a directory, itself included, without reading what would move atime."""
    found = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = os.lstat(path)
        names = sorted(os.listxattr(path, follow_symlinks=False))
        found[str(path.relative_to(directory))] = (
            *(status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns, names),
        )
    return found


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[Callable[[], int]]:
    """Another process lets two names change places as fast as it can. Gives how often."""
    shared = mmap.mmap(-1, 16)  # how often; whether to stop
    pid = os.fork()
    if pid == 0:
        names, swaps = (os.fsencode(one), os.fsencode(other)), 0
        while not shared[8]:
            with suppress(OSError):  # what is tried removes and moves names too
                _core.renameat2(-100, names[0], -100, names[1], _core.RENAME_EXCHANGE)
                swaps += 1
                shared[0:8] = swaps.to_bytes(8, "little")
        os._exit(0)
    try:
        yield lambda: int.from_bytes(shared[0:8], "little")
    finally:
        shared[8] = 1
        os.waitpid(pid, 0)


def _read(tree: Tree, local: Local) -> None:
    fd = tree.open_read(b"d/f", local)
    try:
        assert os.read(fd, 100) == b"inside"
    finally:
        os.close(fd)


def _write(tree: Tree, local: Local) -> None:
    fd = tree.open_write(b"d/f", local.ino)
    try:
        os.write(fd, b"inside")
    finally:
        os.close(fd)


def _dress(tree: Tree, local: Local) -> None:
    mode = 0o600 if local.mode == 0o640 else 0o640
    tree.set_metadata(b"d/f", local, mode=mode, uid=0, gid=0, mtime_ns=local.mtime_ns + 1, atime_ns=1)


def _exchange(tree: Tree, local: Local) -> None:
    fd, name = tree.stage_file()
    os.write(fd, b"inside")
    staged = tree.finish_staged(fd, name, mode=0o640, uid=-1, gid=-1, mtime_ns=1, atime_ns=1)
    try:
        tree.exchange_in(staged, b"d/f", local, keep_as=b"d/sub/kept-%d" % local.ino)
    except FsxSyncError:
        tree.discard_staged(staged.name)
        raise


def _stubs(tree: Tree, local: Local) -> None:
    tree.place_stubs(b"d/sub", [NewStub(b"stub-%d" % local.ctime_ns, MARK, 0o600, -1, -1, 1, 1)])


def _place(tree: Tree, local: Local) -> None:
    staged = tree.stage_symlink(b"/etc", uid=-1, gid=-1, mtime_ns=1)
    try:
        tree.place(staged, b"d/link-%d" % local.ctime_ns)
    except FsxSyncError:
        tree.discard_staged(staged.name)
        raise


def _make(tree: Tree, local: Local) -> None:
    tree.make_directories(b"d/made-%d/x" % local.ctime_ns, mode=0o711, uid=-1, gid=-1)


def _move(tree: Tree, local: Local) -> None:
    tree.move(b"d/f", local, b"d/moved")
    tree.move(b"d/moved", tree.identify(b"d/moved") or local, b"d/f")


def _swap(tree: Tree, local: Local) -> None:
    other = tree.identify(b"d/g")
    if other is not None:
        tree.swap(b"d/f", local, b"d/g", other)


def _remove(tree: Tree, local: Local) -> None:
    tree.remove(b"d/f", local)


def _release(tree: Tree, local: Local) -> None:
    fd = tree.open_write(b"d/f", local.ino)
    os.close(fd)
    tree.release([Releasable(b"d/f", local, MARK)])


def _walk(tree: Tree, local: Local) -> None:
    for _path, found in tree.walk(b""):
        assert found.target is None or found.kind is Kind.SYMLINK


def _see(tree: Tree, local: Local) -> None:
    see(tree.root_fd, tree.dev, b"d/f")
    tree.xattrs(b"d/f")


def make_again(tree: Tree) -> None:
    """What an operation removed, if it was that."""
    fd, name = tree.stage_file()
    os.write(fd, b"inside")
    staged = tree.finish_staged(fd, name, mode=0o640, uid=-1, gid=-1, mtime_ns=1, atime_ns=1)
    try:
        tree.place(staged, b"d/f")
    except FsxSyncError:
        tree.discard_staged(staged.name)


OPERATIONS: dict[str, Callable[[Tree, Local], object]] = {
    "read": _read,
    "write": _write,
    "metadata": _dress,
    "attributes": lambda tree, local: tree.set_xattrs(b"d/f", local, {b"user.set": b"%d" % local.ctime_ns}),
    "exchange": _exchange,
    "stubs": _stubs,
    "place": _place,
    "make directories": _make,
    "move": _move,
    "swap": _swap,
    "remove": _remove,
    "release": _release,
    "walk": _walk,
    "see": _see,
    "settle": lambda tree, _local: tree.settle(b"d/f"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("where", ["the directory above", "the name itself"])
def test_a_name_swapped_for_a_symlink_meanwhile_leads_nowhere(tmp_path: Path, operation: str, where: str) -> None:
    outside = tmp_path / "outside"
    fill(tmp_path / "tree/d", "inside")
    fill(outside, "beyond")
    tree = open_tree(tmp_path)
    d = tmp_path / "tree/d"
    if where == "the name itself":
        one, other = d / "f", tmp_path / "link"
        other.symlink_to(outside / "f")
    else:
        one, other = d, tmp_path / "link"
        other.symlink_to(outside)
    before = photograph(outside)
    beyond = {os.lstat(path).st_ino for path in (outside, *outside.rglob("*"))}
    judged = 0
    with swapping(one, other) as swaps:
        while judged < ROUNDS or swaps() < ROUNDS:
            with suppress(FsxSyncError):  # any of them may find the name gone; none may go on elsewhere
                local = tree.identify(b"d/f")
                if local is not None and local.kind is Kind.FILE:
                    judged += 1
                    assert local.ino not in beyond
                    OPERATIONS[operation](tree, local)
                else:
                    make_again(tree)
    tree.close()
    assert photograph(outside) == before


@pytest.mark.parametrize("operation", OPERATIONS)
def test_below_a_symlink_there_is_no_path_of_the_tree(tmp_path: Path, operation: str) -> None:
    """Each operation by itself, with a state judged before the directory became a symlink to its like."""
    fill(tmp_path / "tree/d", "inside")
    tree = open_tree(tmp_path)
    local = tree.identify(b"d/f")
    assert local is not None
    (tmp_path / "tree/d").rename(tmp_path / "outside")  # the very same inodes: only the way there is another
    (tmp_path / "tree/d").symlink_to(tmp_path / "outside")
    before = photograph(tmp_path / "outside")

    with suppress(FsxSyncError):
        OPERATIONS[operation](tree, local)

    assert tree.identify(b"d/f") is None
    tree.close()
    assert photograph(tmp_path / "outside") == before


def test_a_directory_just_made_and_swapped_for_a_symlink_gives_nobody_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between mkdir(2) and the mode that it is to have lies a moment."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    tree = open_tree(tmp_path)
    made = os.mkdir

    def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
        made(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink(outside, name, dir_fd=dir_fd)

    monkeypatch.setattr(placing.os, "mkdir", mkdir)
    with pytest.raises(FsxSyncError):
        tree.make_directories(b"d", mode=0o777, uid=-1, gid=-1)
    tree.close()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_a_directory_just_made_and_swapped_for_another_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = open_tree(tmp_path)
    made = os.mkdir

    def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
        made(name, 0o750, dir_fd=dir_fd)

    monkeypatch.setattr(placing.os, "mkdir", mkdir)
    with pytest.raises(LocalChanged):
        tree.make_directories(b"d", mode=0o777, uid=-1, gid=-1)
    tree.close()
    assert stat.S_IMODE((tmp_path / "tree/d").stat().st_mode) == 0o750


def test_a_symlink_planted_as_the_staging_directory_is_not_followed(tmp_path: Path) -> None:
    """Who may write to the root of the tree may make that name before the first daemon starts."""
    outside, planted = tmp_path / "outside", tmp_path / "tree/.fsxsync-staging"
    outside.mkdir()
    outside.chmod(0o755)
    (outside / "old-1-1").write_text("theirs")
    planted.parent.mkdir()
    planted.symlink_to(outside)
    tree = open_tree(tmp_path)
    tree.close()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert (outside / "old-1-1").read_text() == "theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's directory is needed")
def test_somebody_elses_staging_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "tree/.fsxsync-staging"
    planted.mkdir(parents=True)
    os.chown(planted, 65534, 65534)
    (planted / "old-1-1").write_text("theirs")
    open_tree(tmp_path).close()
    assert (planted / "old-1-1").read_text() == "theirs"

    # Where staging has to lie in the tree, as the state directory's file system is another one:
    monkeypatch.setattr("fsxsync.tree.tree._can_rename", lambda staging, _fd: staging.path == planted)
    with pytest.raises(TreeError, match=r"user 65534.*remove it"):
        open_tree(tmp_path)
    assert (planted / "old-1-1").read_text() == "theirs"


def test_the_watch_goes_through_no_symlink(tmp_path: Path) -> None:
    """A directory that is a symlink by the time its watch is set is not there."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside/sub").mkdir(parents=True)
    (tmp_path / "tree/d").symlink_to(tmp_path / "outside")
    tree = open_tree(tmp_path)
    with INotify() as inotify:
        top = Root.__new__(Root)
        items: list[Any] = [(watch_walk.Item(watch_walk.Walk(top), top), path) for path in (b"d", b"d/sub")]
        seen = watch_walk.look(inotify, tree.root_fd, tree.dev, None, items)
        while len(seen) < len(items):
            seen += watch_walk.look(inotify, tree.root_fd, tree.dev, None, items[len(seen) :])
    tree.close()
    assert [one.outcome for one in seen] == [watch_walk.Outcome.ABSENT] * 2


def test_a_mark_that_is_too_long_or_no_mark_at_all_harms_nobody(tmp_path: Path) -> None:
    """Who may write behind the mount may forge a stub's mark: the file is never exported then, and nothing else."""
    tree = open_tree(tmp_path)
    (tmp_path / "tree/f").write_text("mine")
    for forged in (b"", b"\xff\xfe", b"{" * 2000, b'{"etag": 1}', b"null"):
        os.setxattr(tmp_path / "tree/f", XATTR, forged)
        with suppress(FsxSyncError):
            local = tree.identify(b"f")
            assert local is not None
            assert local.stub is not None
    tree.close()


ASKS_BY_PATH = frozenset(
    {
        "open",
        "stat",
        "lstat",
        "listdir",
        "scandir",
        "walk",
        "rename",
        "replace",
        "unlink",
        "remove",
        "rmdir",
        "mkdir",
        "makedirs",
        "link",
        "symlink",
        "readlink",
        "chmod",
        "chown",
        "lchown",
        "utime",
        "truncate",
        "setxattr",
        "getxattr",
        "listxattr",
        "removexattr",
        "mknod",
        "mkfifo",
        "access",
        "statvfs",
    }
)
NAMED = {
    "sync/statusing.py": {"statvfs(shared.tree.root)"},
    "sync/task_report.py": {"open(file)", "open(path)"},  # reports are in the state directory
    "mount/connection.py": {"open('/dev/fuse')"},
    "mount/metadata.py": {"chmod(name)", "chown(name)"},  # of /proc/self/fd
    "mount/mountpoint.py": {"open('/dev/fuse')", "listdir(here)", "statvfs(mountpoint)"},
    "mount/passthrough.py": {"open(tree_root)"},
    "mount/session.py": {"open(tree_root)"},
}
"""Calls that name something by its path, and why not below the root."""


def test_nobody_else_names_paths_of_the_tree() -> None:
    """What lies below the root is reached by descriptors that `tree.beneath` opened (openat2), by names in a directory
    that is open, or through /proc/self/fd: who adds another way in these two rooms has to say here why it is safe."""
    rooms = Path(beneath.__file__).parents[1]
    found: dict[str, set[str]] = {}
    for file in (*rooms.glob("sync/*.py"), *rooms.glob("mount/*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("os."):
                continue
            call = ast.unparse(node.func).removeprefix("os.")
            first = ast.unparse(node.args[0]) if node.args else ""
            is_descriptor = first.endswith("fd") or "proc_path(" in first or "/proc/self/fd" in first
            is_at = any((keyword.arg or "").endswith("dir_fd") for keyword in node.keywords)
            if call in ASKS_BY_PATH and not is_descriptor and not is_at:
                found.setdefault(str(file.relative_to(rooms)), set()).add(f"{call}({first})")
    assert found == NAMED
