"""The tree: what was judged is what is changed, nothing else; scans in listing order; the way back after a crash."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import DIED, die_before

from fsxsync import _core
from fsxsync.errors import LocalChanged, NoSpace, NoUserXattrs, PathEscapes, TreeMoved
from fsxsync.model.identity import Kind, Local
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree import placing, stubs
from fsxsync.tree.settle_together import Arrived
from fsxsync.tree.staging import Note
from fsxsync.tree.tree import Releasable, Staged, Tree

MARK = StubMark(etag="e1", size=5000, key="p/a")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    opened = open_tree(tmp_path)
    yield opened
    opened.close()


def open_tree(base: Path, instance: str | None = None) -> Tree:
    return Tree.open(base / "tree", base / "staging", instance=instance, new_instance="one")


def stub(tree: Tree, mark: StubMark = MARK, **metadata: int) -> Staged:
    wanted = {"mode": 0o640, "uid": -1, "gid": -1, "mtime_ns": 10**18 + 1, "atime_ns": 10**18 + 2} | metadata
    return tree.stage_stub(mark, **wanted)  # type: ignore[arg-type]


def seen(tree: Tree, path: bytes) -> Local:
    local = tree.identify(path)
    assert local is not None
    return local


def place_file(tree: Tree, path: bytes) -> Local:
    (tree.root / os.fsdecode(path)).write_text("old")
    return seen(tree, path)


def staged_names(base: Path) -> list[str]:
    return sorted(os.listdir(base / "staging"))


# ---------------------------------------------------------------- stubs and places


def test_a_stub_appears_whole(tree: Tree, tmp_path: Path) -> None:
    placed = tree.place(stub(tree), b"a")
    status = (tmp_path / "tree/a").stat()
    assert (status.st_size, status.st_blocks, status.st_mtime_ns, status.st_mode & 0o7777) == (
        5000,
        placed.blocks,
        10**18 + 1,
        0o640,
    )
    assert placed.stub == MARK
    assert placed == seen(tree, b"a")
    assert staged_names(tmp_path) == []


def test_a_taken_name_is_left_alone(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_text("mine")
    staged = stub(tree)
    with pytest.raises(LocalChanged):
        tree.place(staged, b"a")
    assert (tmp_path / "tree/a").read_text() == "mine"
    tree.discard_staged(staged.name)
    assert staged_names(tmp_path) == []


def test_placing_does_not_touch_the_directorys_times(tree: Tree, tmp_path: Path) -> None:
    tree.make_directories(b"d", mode=0o755, uid=-1, gid=-1)
    os.utime(tmp_path / "tree/d", ns=(5, 7))
    tree.place(stub(tree), b"d/a")
    assert (tmp_path / "tree/d").stat().st_mtime_ns == 7
    tree.remove(b"d/a", seen(tree, b"d/a"))
    assert (tmp_path / "tree/d").stat().st_mtime_ns == 7


def test_an_exchange_replaces_what_was_judged(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_text("old")
    placed = tree.exchange_in(stub(tree), b"a", seen(tree, b"a"))
    assert placed == seen(tree, b"a")
    assert placed.stub == MARK
    assert staged_names(tmp_path) == []


@pytest.mark.parametrize("what", ["write", "chmod", "replace", "remove", "directory"])
def test_an_exchange_refuses_what_was_not_judged(tree: Tree, tmp_path: Path, what: str) -> None:
    file = tmp_path / "tree/a"
    file.write_text("old")
    judged = seen(tree, b"a")
    if what == "write":
        file.write_text("newer")
    elif what == "chmod":
        file.chmod(0o600)
    elif what == "replace":
        (tmp_path / "tree/b").write_text("newer")
        (tmp_path / "tree/b").rename(file)
    else:
        file.unlink()
        if what == "directory":
            file.mkdir()
    before = seen(tree, b"a") if what != "remove" else None
    staged = stub(tree)
    with pytest.raises(LocalChanged):
        tree.exchange_in(staged, b"a", judged)
    assert tree.identify(b"a") == before
    tree.discard_staged(staged.name)
    assert staged_names(tmp_path) == []


@pytest.mark.parametrize("operation", ["exchange", "remove", "keep"])
def test_a_writer_with_an_open_descriptor_keeps_its_file(tree: Tree, tmp_path: Path, operation: str) -> None:
    file = tmp_path / "tree/a"
    file.write_text("old")
    judged = seen(tree, b"a")
    operations: dict[str, Callable[[], object]] = {
        "remove": lambda: tree.remove(b"a", judged),
        "exchange": lambda: tree.exchange_in(stub(tree), b"a", judged),
        "keep": lambda: tree.exchange_in(stub(tree), b"a", judged, keep_as=b"kept"),
    }
    with file.open("a") as writer:
        with pytest.raises(LocalChanged, match="open for writing"):
            operations[operation]()
        writer.write(" and new")
    assert file.read_text() == "old and new"
    assert not (tmp_path / "tree/kept").exists()


def test_keeping_both(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_text("mine")
    tree.exchange_in(stub(tree), b"a", seen(tree, b"a"), keep_as=b"a.conflict")
    assert (tmp_path / "tree/a.conflict").read_text() == "mine"
    assert seen(tree, b"a").stub == MARK
    assert staged_names(tmp_path) == []


def test_keeping_both_under_a_taken_name_changes_nothing(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_text("mine")
    (tmp_path / "tree/kept").write_text("other")
    staged = stub(tree)
    with pytest.raises(LocalChanged):
        tree.exchange_in(staged, b"a", seen(tree, b"a"), keep_as=b"kept")
    assert (tmp_path / "tree/a").read_text() == "mine"
    assert (tmp_path / "tree/kept").read_text() == "other"
    tree.discard_staged(staged.name)
    assert staged_names(tmp_path) == []


def test_a_write_between_look_and_exchange_is_put_back(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window that a check beforehand leaves open."""
    file = tmp_path / "tree/a"
    file.write_text("old")
    judged = seen(tree, b"a")
    rename = _core.renameat2

    def late(olddir: int, old: bytes, newdir: int, new: bytes, flags: int) -> None:
        if flags == _core.RENAME_EXCHANGE and new == b"a" and file.read_text() == "old":
            file.write_text("a late write")
        rename(olddir, old, newdir, new, flags)

    monkeypatch.setattr(_core, "renameat2", late)
    staged = stub(tree)
    with pytest.raises(LocalChanged):
        tree.exchange_in(staged, b"a", judged)
    assert file.read_text() == "a late write"
    tree.discard_staged(staged.name)
    assert staged_names(tmp_path) == []


def test_two_files_change_places(tree: Tree, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "tree" / name).write_text(name)

    tree.swap(b"a", seen(tree, b"a"), b"b", seen(tree, b"b"))

    assert [(tmp_path / "tree" / name).read_text() for name in "ab"] == ["b", "a"]


def test_a_file_is_moved_to_a_free_name_only(tree: Tree, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "tree" / name).write_text(name)

    with pytest.raises(LocalChanged):
        tree.move(b"a", seen(tree, b"a"), b"b")
    tree.move(b"a", seen(tree, b"a"), b"c")

    assert {path.name: path.read_text() for path in (tmp_path / "tree").iterdir()} == {"b": "b", "c": "a"}


@pytest.mark.parametrize("late", ["a write", "a writer", "another file"])
@pytest.mark.parametrize("call", ["move", "swap a", "swap b"])
def test_what_moved_is_looked_at_and_put_back(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str, call: str
) -> None:
    for name in "ab":
        (tmp_path / "tree" / name).write_text(name)
    a, b = seen(tree, b"a"), seen(tree, b"b")
    victim = tmp_path / "tree" / call[-1].replace("e", "a")
    rename, writers, count = _core.renameat2, [], iter(range(9))

    def in_between(*arguments: Any) -> None:
        if next(count) == 0:
            if late == "another file":
                victim.unlink()
            if late == "a writer":
                writers.append(victim.open("r+"))
            else:
                victim.write_text("late")
        rename(*arguments)

    monkeypatch.setattr(_core, "renameat2", in_between)
    act = partial(tree.move, b"a", a, b"c") if call == "move" else partial(tree.swap, b"a", a, b"b", b)
    with pytest.raises(LocalChanged):
        act()

    for writer in writers:
        writer.close()
    found = {path.name: path.read_text() for path in (tmp_path / "tree").iterdir()}
    assert found == {"a": "a", "b": "b"} | ({} if late == "a writer" else {victim.name: "late"})


def test_a_file_with_two_names_is_not_released(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").write_bytes(b"x" * MARK.size)
    os.link(tmp_path / "tree/a", tmp_path / "tree/b")

    [refused] = tree.release([Releasable(b"a", seen(tree, b"a"), MARK)])

    assert isinstance(refused, LocalChanged)
    assert "other names" in str(refused)

    assert (tmp_path / "tree/b").read_bytes() == b"x" * MARK.size
    assert seen(tree, b"b").stub is None


@pytest.mark.parametrize("together", [False, True])
def test_a_read_only_stub_of_an_ordinary_user_becomes_an_ordinary_file(together: bool) -> None:
    """User attributes obey a file's mode, and the mark is one. The mode is what it was."""
    user, size = 61_234, MARK.size
    with tempfile.TemporaryDirectory() as base:
        os.chown(base, user, user)

        def act() -> tuple[object, ...]:
            tree = open_tree(Path(base))
            tree.place(stub(tree, mode=0o444), b"a")
            [opened] = tree.open_stubs([b"a"])
            assert isinstance(opened, tuple)
            fd = opened[0]
            os.pwrite(fd, b"x" * size, 0)
            local: object
            if together:
                [local] = tree.unmark_together([Arrived(fd, size, MARK.key, 1, 2, 0)], [MARK])
            else:
                local = tree.unmark(fd, MARK, mtime_ns=1, atime_ns=2)
            return local == tree.identify(b"a"), oct(seen(tree, b"a").mode), seen(tree, b"a").stub

        assert as_user(user, act) == "(True, '0o444', None)"


def as_user(uid: int, act: Callable[[], object]) -> str:
    """What it gives in a process of that user, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(write, repr(act()).encode())
        except BaseException as error:  # noqa: BLE001  the parent compares it
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def test_flags_of_many_are_those_of_each_the_root_among_them(tree: Tree, tmp_path: Path) -> None:
    for name in ("d/e", "f"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    paths = [b"", b"d", b"d/e", b"f", b"absent", b"f/absent"]
    for at, flag in (("", "norelease"), ("d", "noarchive")):
        os.setxattr(tmp_path / "tree" / at, f"user.fsxsync.{flag}", b"")
        each = [tree.flags().of(path) for path in paths]
        together = tree.flags()
        together.read(paths)
        assert [together.of(path) for path in paths] == each
        assert all(one.norelease for one in each)


@pytest.mark.parametrize("name", [b"../x", b"/etc/x", b"d/../../x", b"", b"a/.", b"a\0b"])
def test_paths_that_lead_out_are_refused(tree: Tree, name: bytes) -> None:
    with pytest.raises(PathEscapes):
        tree.place(stub(tree), name)


def test_a_symlink_on_the_way_is_not_followed(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "tree/d").symlink_to(outside)
    with pytest.raises((PathEscapes, LocalChanged)):
        tree.place(stub(tree), b"d/a")
    with pytest.raises((PathEscapes, LocalChanged)):
        tree.make_directories(b"d/e", mode=0o755, uid=-1, gid=-1)
    assert tree.identify(b"d/a") is None
    assert list(outside.iterdir()) == []


def test_directories_are_made_with_their_modes_and_named(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/a").mkdir(mode=0o700)
    assert tree.make_directories(b"a/b/c", mode=0o751, uid=-1, gid=-1) == [b"a/b", b"a/b/c"]
    assert (tmp_path / "tree/a/b/c").stat().st_mode & 0o7777 == 0o751
    assert (tmp_path / "tree/a").stat().st_mode & 0o7777 == 0o700
    (tmp_path / "tree/f").touch()
    with pytest.raises(LocalChanged):
        tree.make_directories(b"f/x", mode=0o755, uid=-1, gid=-1)


def test_only_an_empty_directory_goes(tree: Tree, tmp_path: Path) -> None:
    tree.make_directories(b"d", mode=0o755, uid=-1, gid=-1)
    (tmp_path / "tree/d/f").touch()
    with pytest.raises(LocalChanged):
        tree.remove(b"d", seen(tree, b"d"))
    (tmp_path / "tree/d/f").unlink()
    tree.remove(b"d", seen(tree, b"d"))
    assert tree.identify(b"d") is None


def test_symlinks_are_files_of_their_own(tree: Tree, tmp_path: Path) -> None:
    staged = tree.stage_symlink(b"/etc/passwd", uid=-1, gid=-1, mtime_ns=10**18)
    placed = tree.place(staged, b"link")
    assert (placed.kind, placed.target, placed.mtime_ns) == (Kind.SYMLINK, b"/etc/passwd", 10**18)
    tree.exchange_in(tree.stage_symlink(b"b", uid=-1, gid=-1, mtime_ns=1), b"link", placed)
    assert os.readlink(tmp_path / "tree/link") == "b"
    tree.remove(b"link", seen(tree, b"link"))
    assert not (tmp_path / "tree/link").is_symlink()


class LastWriter:
    """Has the file open, and writes and closes it at the moment when somebody asks whether it is open for writing."""

    def __init__(self, file: Path) -> None:
        self.fd = os.open(file, os.O_WRONLY | os.O_APPEND)

    def __call__(self, _fd: int) -> bool:
        if self.fd >= 0:
            os.write(self.fd, b"acknowledged")
            os.close(self.fd)
            self.fd = -1
        return False


def test_who_writes_and_closes_while_a_file_is_replaced_is_seen(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tree/a"
    file.write_bytes(b"")
    local = tree.identify(b"a")
    assert local is not None
    monkeypatch.setattr(placing, "is_open_for_writing", LastWriter(file))

    with pytest.raises(LocalChanged):
        tree.exchange_in(stub(tree, StubMark("e", 0, "k")), b"a", local)

    assert file.read_bytes() == b"acknowledged"


def test_who_writes_and_closes_while_a_file_is_removed_is_seen(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tree/a"
    file.write_bytes(b"")
    local = tree.identify(b"a")
    assert local is not None
    monkeypatch.setattr(placing, "is_open_for_writing", LastWriter(file))

    with pytest.raises(LocalChanged):
        tree.remove(b"a", local)

    assert file.read_bytes() == b"acknowledged"


def test_who_writes_and_closes_what_stood_there_for_a_moment_is_seen(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange is undone, and somebody has opened what was exchanged in."""
    file = tmp_path / "tree/a"
    file.write_bytes(b"before")
    local = tree.identify(b"a")
    assert local is not None
    staged = stub(tree, StubMark("e", 0, "k"))
    answers: list[LastWriter] = []

    def ask(fd: int) -> bool:
        if not answers:
            answers.append(LastWriter(file))  # what stands there now
            return True
        return answers[0](fd)

    monkeypatch.setattr(placing, "is_open_for_writing", ask)

    with pytest.raises(LocalChanged):
        tree.exchange_in(staged, b"a", local)

    found = sorted(path.read_bytes() for path in (tmp_path / "tree").iterdir() if path.is_file())
    assert found == [b"acknowledged", b"before"]


def test_no_write_is_lost_to_exchanges_under_load(tree: Tree, tmp_path: Path) -> None:
    """A writer that appends by open-write-close, and an importer that replaces whenever it thinks it may."""
    file = tmp_path / "tree/a"
    file.write_text("")
    stop = threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            try:
                with file.open("r+") as handle:
                    handle.seek(0, 2)
                    handle.write(f"{number}\n")
                acknowledged.append(number)
            except FileNotFoundError:
                continue
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    kept = 0
    try:
        for _ in range(300):
            local = tree.identify(b"a")
            assert local is not None
            staged = stub(tree, StubMark("e", 0, "k"))
            try:
                tree.exchange_in(staged, b"a", local, keep_as=f"kept-{kept}".encode())
                kept += 1
            except LocalChanged:
                tree.discard_staged(staged.name)
    finally:
        stop.set()
        thread.join()
    found = [int(line) for path in (tmp_path / "tree").iterdir() for line in path.read_text().split()]
    assert sorted(found) == acknowledged


# ---------------------------------------------------------------- after a crash


def _until_done(tmp_path: Path, operation: Callable[[Tree], None], prepare: Callable[[Path], None]) -> Iterator[Path]:
    """Run the operation in a child that dies before its 1st, 2nd, … system call that changes something."""
    for step in range(1, 40):
        base = tmp_path / f"crash-{step}"
        (base / "tree").mkdir(parents=True)
        prepare(base / "tree")
        pid = os.fork()
        if pid == 0:
            _die_before_step(base, operation, step)
        _, status = os.waitpid(pid, 0)
        assert status in {0, DIED << 8}, status
        yield base
        if status == 0:
            assert step > 3, "the operation has steps"
            return
    raise AssertionError("it never came to its end")


def _die_before_step(base: Path, operation: Callable[[Tree], None], step: int) -> None:
    try:
        tree = open_tree(base)
        die_before(step, [(_core, "renameat2"), *((os, name) for name in ("unlink", "write", "utime", "open"))])
        operation(tree)
        os._exit(0)
    finally:
        os._exit(3)


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_crash_in_a_removal_leaves_all_or_nothing(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        (root / "a").write_text("old")

    for base in _until_done(tmp_path, lambda tree: tree.remove(b"a", seen(tree, b"a")), prepare):
        tree = open_tree(base)
        assert contents(base / "tree") in ({"a": "old"}, {})
        assert staged_names(base) == []
        tree.close()


def test_a_crash_while_keeping_both_loses_neither(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        (root / "a").write_text("mine")

    def operation(tree: Tree) -> None:
        fd, name = tree.stage_file()
        os.pwrite(fd, b"theirs", 0)
        staged = tree.finish_staged(fd, name, mode=0o644, uid=-1, gid=-1, mtime_ns=1, atime_ns=1)
        tree.exchange_in(staged, b"a", seen(tree, b"a"), keep_as=b"kept")

    for base in _until_done(tmp_path, operation, prepare):
        tree = open_tree(base)
        assert contents(base / "tree") in ({"a": "mine"}, {"a": "theirs", "kept": "mine"})
        assert staged_names(base) == []
        tree.close()


def test_a_crash_while_keeping_a_renamed_stub_loses_neither(tmp_path: Path) -> None:
    """Its object is the old name's, which goes unless the stub is found."""

    def prepare(root: Path) -> None:
        (root / "a").touch()
        os.truncate(root / "a", 5)
        os.setxattr(root / "a", XATTR, StubMark("renamed", 5, "p/b").encode())

    def operation(tree: Tree) -> None:
        tree.exchange_in(stub(tree), b"a", seen(tree, b"a"), keep_as=b"kept")

    for base in _until_done(tmp_path, operation, prepare):
        tree = open_tree(base)
        found = {name: seen(tree, os.fsencode(name)).stub for name in os.listdir(base / "tree")}
        etags = {name: mark.etag if mark else None for name, mark in found.items()}
        assert etags in ({"a": "renamed"}, {"a": MARK.etag, "kept": "renamed"})
        assert staged_names(base) == []
        tree.close()


@pytest.mark.parametrize("keep_as", [None, b"kept"])
@pytest.mark.parametrize("moves_in", [False, True], ids=["stays", "is replaced"])
def test_a_crash_while_an_exchange_is_undone_loses_nothing(
    tmp_path: Path, keep_as: bytes | None, *, moves_in: bool
) -> None:
    """Somebody writes to the file at the last moment, and somebody may replace what was put in its place."""

    def prepare(root: Path) -> None:
        (root / "a").write_text("old")
        if moves_in:
            (root / "b").write_text("newest")

    def operation(tree: Tree) -> None:
        staged, judged = stub(tree), seen(tree, b"a")
        rename, writer = _core.renameat2, (tree.root / "a").open("a")

        def raced(*arguments: Any) -> None:
            rename(*arguments)
            if arguments[-1] == _core.RENAME_EXCHANGE and not writer.closed:
                writer.write(", and late")
                writer.close()
                if moves_in:
                    (tree.root / "b").rename(tree.root / "a")

        _core.renameat2 = raced
        with pytest.raises(LocalChanged):
            tree.exchange_in(staged, b"a", judged, keep_as=keep_as)

    for base in _until_done(tmp_path, operation, prepare):
        tree = open_tree(base)
        found = list(contents(base / "tree").values())
        old = "old, and late" if "old, and late" in found else "old"
        there = [text for text in found if text.strip("\0")]
        assert sorted(there) == sorted([old, *(["newest"] if moves_in else [])])
        assert staged_names(base) == []
        tree.close()


def test_what_was_written_while_it_was_taken_out_comes_back(tmp_path: Path) -> None:
    """The daemon died between exchange and check, and a writer still had the old file open."""
    tree = open_tree(tmp_path)
    (tmp_path / "tree/a").write_text("old")
    judged = seen(tree, b"a")
    note = Note(b"a", judged.ino, judged.size, judged.mtime_ns, None)
    (tmp_path / "staging/old-1.note").write_bytes(note.encode())
    (tmp_path / "tree/a").rename(tmp_path / "staging/old-1")
    (tmp_path / "staging/old-1").write_text("newer")
    tree.close()
    again = open_tree(tmp_path)
    (rescued,) = again.rescued
    assert (rescued.name, rescued.was) == (b"old-1", b"a")
    assert rescued.now is not None
    assert (tmp_path / "tree" / os.fsdecode(rescued.now)).read_text() == "newer"
    assert staged_names(tmp_path) == []
    again.close()


@pytest.mark.parametrize("keep_as", [None, b"kept"])
@pytest.mark.parametrize("operation", ["exchange", "remove"])
def test_a_power_cut_that_empties_the_notes_loses_nothing(
    tmp_path: Path, operation: str, keep_as: bytes | None
) -> None:
    """A note's bytes come to the disk when the kernel likes, and the renames after it may be there before."""

    def operate(tree: Tree) -> None:
        if operation == "remove":
            tree.remove(b"a", seen(tree, b"a"))
        else:
            tree.exchange_in(stub(tree), b"a", seen(tree, b"a"), keep_as=keep_as)

    def prepare(root: Path) -> None:
        (root / "a").write_text("only copy")

    stayed = 0
    for base in _until_done(tmp_path, operate, prepare):
        for note in (base / "staging").glob("old-*.note"):
            note.write_bytes(b"")
        before = "only copy" in contents(base).values()
        for _ in range(2):  # each start tells of it, and none clears it away
            tree = open_tree(base)
            tree.close()
            assert ("only copy" in contents(base).values()) is before
            there = {name for name in staged_names(base) if not name.endswith(".note")}
            assert {(os.fsdecode(one.name), one.was, one.now) for one in tree.rescued} == {
                (name, None, None) for name in there
            }
            stayed += len(there)
    assert stayed > 0, "it was out of its place at one of the steps"


def test_what_has_to_stay_in_the_staging_directory_is_in_nobodys_way(tmp_path: Path) -> None:
    """In a container, each daemon has the same process id."""
    tree = open_tree(tmp_path)
    (tmp_path / "staging" / f"old-{os.getpid()}-2").write_text("only copy")
    tree.close()
    again = open_tree(tmp_path)
    (tmp_path / "tree/a").write_text("a")
    again.remove(b"a", seen(again, b"a"))
    again.exchange_in(stub(again), b"b", place_file(again, b"b"))
    (rescued,) = again.rescued
    assert staged_names(tmp_path) == [os.fsdecode(rescued.name)]
    again.close()


@pytest.mark.parametrize(
    ("name", "size", "stays"), [("old-1-1", 5000, False), ("old-1-1", 7, True), ("new-1-1", 7, False)]
)
def test_a_stub_without_a_note_goes_unless_somebody_cut_it(tmp_path: Path, name: str, size: int, stays: bool) -> None:
    """Its bytes are in the repository."""
    open_tree(tmp_path).close()
    left = tmp_path / "staging" / name
    left.write_bytes(b"\0" * size)
    os.setxattr(left, XATTR, MARK.encode())
    again = open_tree(tmp_path)
    assert left.exists() is stays
    assert len(again.rescued) == stays
    again.close()


def out_of_its_place(tmp_path: Path, way: str) -> None:
    """A daemon died while ``d/e/a`` was out, and the directory went or became something else before the next began."""
    tree = open_tree(tmp_path)
    (tmp_path / "tree/d/e").mkdir(parents=True)
    (tmp_path / "tree/d/e/a").write_text("old")
    judged = seen(tree, b"d/e/a")
    (tmp_path / "staging/old-1.note").write_bytes(Note(b"d/e/a", judged.ino, 1, 1, None).encode())
    (tmp_path / "tree/d/e/a").rename(tmp_path / "staging/old-1")
    (tmp_path / "tree/d/e").rmdir()
    if way == "is a link":
        (tmp_path / "tree/d/e").symlink_to("/")
    if way == "is a file":
        (tmp_path / "tree/d/e").write_text("")
    if way == "went with all above":
        (tmp_path / "tree/d").rmdir()
    tree.close()


@pytest.mark.parametrize("way", ["went", "is a link", "is a file", "went with all above"])
def test_what_has_no_directory_any_more_is_put_into_the_nearest_above(tmp_path: Path, way: str) -> None:
    out_of_its_place(tmp_path, way)
    again = open_tree(tmp_path)
    (rescued,) = again.rescued
    again.close()
    assert rescued.was == b"d/e/a"
    assert rescued.now is not None
    assert rescued.now.startswith(b"a.conflict-" if way == "went with all above" else b"d/a.conflict-")
    assert (tmp_path / "tree" / os.fsdecode(rescued.now)).read_text() == "old"
    assert staged_names(tmp_path) == []


def test_what_can_not_be_put_back_keeps_no_daemon_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_its_place(tmp_path, "went")
    monkeypatch.setattr(placing.Places, "keep", no_room)
    for _ in range(2):
        again = open_tree(tmp_path)
        (rescued,) = again.rescued
        assert (rescued.was, rescued.now) == (b"d/e/a", None)
        assert (tmp_path / "staging/old-1").read_text() == "old"
        again.close()


def no_room(*_args: object, **_more: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("how", ["refuses", "takes a part"])
def test_a_note_that_finds_no_room_changes_nothing_and_leaves_nothing(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "tree/a").write_text("old")
    staged, judged, write = stub(tree), seen(tree, b"a"), os.write
    monkeypatch.setattr(os, "write", no_room if how == "refuses" else lambda fd, data: write(fd, data[:5]))
    with pytest.raises(NoSpace):
        tree.remove(b"a", judged)
    with pytest.raises(NoSpace):
        tree.exchange_in(staged, b"a", judged)
    assert contents(tmp_path / "tree") == {"a": "old"}
    assert staged_names(tmp_path) == [os.fsdecode(staged.name)]


def test_a_symlink_that_can_not_be_dressed_is_not_left(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "utime", no_room)
    with pytest.raises(NoSpace):
        tree.stage_symlink(b"target", uid=-1, gid=-1, mtime_ns=1)
    assert staged_names(tmp_path) == []


# ---------------------------------------------------------------- whose tree


def test_another_directory_is_not_ours(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    (tmp_path / "tree").rename(tmp_path / "moved")
    (tmp_path / "tree").mkdir()
    with pytest.raises(TreeMoved):
        tree.verify()
    tree.close()
    with pytest.raises(TreeMoved):
        open_tree(tmp_path, "one")
    (tmp_path / "tree").rmdir()
    with pytest.raises(TreeMoved):
        open_tree(tmp_path, "one")
    assert not (tmp_path / "tree").exists()
    (tmp_path / "moved").rename(tmp_path / "tree")
    again = open_tree(tmp_path, "one")
    again.verify()
    again.close()


def test_a_new_catalog_takes_the_tree_as_it_is(tmp_path: Path) -> None:
    open_tree(tmp_path).close()
    again = Tree.open(tmp_path / "tree", tmp_path / "staging", instance=None, new_instance="two")
    assert again.instance == "one"
    again.close()


@pytest.mark.parametrize(
    ("number", "error", "advice"), [(errno.ENOTSUP, NoUserXattrs, "ext4"), (errno.ENOSPC, NoSpace, "free some space")]
)
def test_a_tree_that_takes_no_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], advice: str
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(error, match=advice):
        open_tree(tmp_path)


# ---------------------------------------------------------------- scans

NAMES = st.sampled_from([b"a", b"a-", b"a0", b"b", b"\xff", "é".encode(), b"a b", b"."])


@given(st.lists(st.lists(NAMES.filter(lambda name: name != b"."), min_size=1, max_size=4), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_scan_is_in_the_order_of_a_listing(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[bytes]]
) -> None:
    base = tmp_path_factory.mktemp("scan")
    tree = open_tree(base)
    for parts in paths:
        *parents, name = parts
        here = bytes(base / "tree")
        try:
            os.makedirs(os.path.join(here, *parents), exist_ok=True)
            with open(os.path.join(here, *parents, name), "x"):
                pass
        except OSError:
            continue
    keys = [path + b"/" if local.kind is Kind.DIRECTORY else path for path, local in tree.walk(b"")]
    expected: list[bytes] = []
    for directory, directories, files in os.walk(bytes(base / "tree")):
        below = os.path.relpath(directory, bytes(base / "tree"))
        prefix = b"" if below == b"." else below + b"/"
        expected += [prefix + name + b"/" for name in directories] + [prefix + name for name in files]
    assert keys == sorted(expected)
    tree.close()


def test_a_scan_leaves_out_its_own_names_and_goes_in_batches(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "tree/.fsxsync-staging").mkdir()
    for number in range(0, 1000, 40):
        (tmp_path / f"tree/{number:03}").touch()
    batches = list(tree.walk_batches(b"", 10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    names = [path for batch in batches for path, _ in batch]
    assert names == sorted(names)
    assert b".fsxsync-staging" not in names


def test_settling_takes_the_mark_last(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the data is on the disk."""
    tree.place(stub(tree), b"a")
    fd = tree.open_write(b"a", seen(tree, b"a").ino)
    os.pwrite(fd, b"x" * 5000, 0)
    marked: list[bool] = []
    flush = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (marked.append(XATTR.decode() in os.listxattr(fd)), flush(fd))[1])
    local = tree.unmark(fd, MARK, mtime_ns=10**18, atime_ns=10**18)
    assert marked[0] is True
    assert (local.stub, local.mtime_ns, local.size) == (None, 10**18, 5000)
    os.setxattr(fd, XATTR, StubMark("other", 5000, "k").encode())
    with pytest.raises(LocalChanged):
        tree.unmark(fd, MARK, mtime_ns=1, atime_ns=1)
    os.close(fd)


def test_a_mark_is_replaced_and_never_made(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data comes while its object is copied: the mark goes before it is asked for, or right after. On a file with
    data it would say that whatever is written from then on is the object's."""
    other = StubMark(etag=MARK.etag, size=MARK.size, key="other")
    tree.place(stub(tree), b"f")
    local, file = seen(tree, b"f"), tmp_path / "tree/f"
    assert tree.remark(b"f", local, other).stub == other
    local = seen(tree, b"f")

    @contextmanager
    def taken_off_meanwhile(_point: str) -> Iterator[None]:
        os.removexattr(file, XATTR)
        yield

    monkeypatch.setattr(stubs, "durable", taken_off_meanwhile)
    for _ in ("right after it was seen", "before"):
        with pytest.raises(LocalChanged):
            tree.remark(b"f", local, MARK)
        assert os.listxattr(file) == []


def test_a_name_is_durable_when_its_directory_was_synced(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.root / "a").mkdir()
    (tree.root / "a/f").touch()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    tree.settle(b"a/f")
    tree.settle(b"top")

    assert synced == [str(tree.root / "a"), str(tree.root)]
    with pytest.raises(LocalChanged):
        tree.settle(b"gone/f")
