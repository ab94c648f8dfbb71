"""A read-only file of an ordinary user's that its daemon has to change, and who dies in the middle of that."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.dying import DIED, die_before
from support.ordinary_user import UID

from fsxsync.model.identity import Kind
from fsxsync.model.stub import XATTR, StubMark
from fsxsync.tree.moments import Moments
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
            os.setgroups([])
            os.setgid(UID)
            os.setuid(UID)
            act()
            os._exit(0)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def change(base: Path, what: str, step: int) -> None:
    """Die before the so-many-th call."""
    tree = open_tree(base)
    die_before(step, [(os, name) for name in ("chmod", "open", "write", "unlink", "setxattr")])
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
        assert code in {0, DIED}
        writable += file.stat().st_mode & 0o7777 != mode

        assert as_user(lambda base=base: open_tree(base).close()) == 0  # type: ignore[misc]

        assert file.stat().st_mode & 0o7777 == mode
        assert os.listdir(base / "staging") == []
        assert file.read_bytes() == b"data"
        if code == 0:
            assert writable > 0, "it never had to be made so"
            return
    raise AssertionError("it never came to its end")


# ---------------------------------------------------------------- who else changes the mode meanwhile

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user")


@pytest.fixture
def moments(tmp_path: Path) -> Iterator[Moments]:
    (tmp_path / "staging").mkdir()
    fd = os.open(tmp_path / "staging", os.O_RDONLY | os.O_DIRECTORY)
    yield Moments(fd, tmp_path.stat().st_dev)
    os.close(fd)
    assert os.listdir(tmp_path / "staging") == []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "f"
    path.touch(0o444)
    path.chmod(0o444)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def mode_of(fd: int) -> int:
    return os.fstat(fd).st_mode & 0o7777


def test_a_mode_that_an_application_sets_in_the_moment_stays(moments: Moments, file: int) -> None:
    with moments.writable(file):
        assert mode_of(file) == 0o644
        os.fchmod(file, 0o440)
    assert mode_of(file) == 0o440


@pytest.mark.parametrize("mode", [0o440, 0o664])
def test_a_mode_that_an_application_sets_before_the_moment_stays(
    moments: Moments, file: int, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Right after our first look at it."""
    write = os.write

    def late(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        os.fchmod(file, mode)
        return write(fd, data)

    monkeypatch.setattr(os, "write", late)
    with moments.writable(file):
        assert mode_of(file) == mode | 0o600
    assert mode_of(file) == mode


def test_a_failure_in_the_moment_is_one_after_it(moments: Moments, file: int) -> None:
    with pytest.raises(KeyError), moments.writable(file):
        raise KeyError
    assert mode_of(file) == 0o444


def test_a_moment_that_finds_no_room_leaves_nothing(
    moments: Moments, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
    with pytest.raises(OSError, match="No space"), moments.writable(file):
        raise AssertionError("it is written down first")
    assert mode_of(file) == 0o444


def test_two_moments_of_one_file_leave_it_read_only(moments: Moments, file: int) -> None:
    """Threads load and mark files side by side: the second took the raised mode for the file's own."""
    inside, over = threading.Event(), threading.Event()
    seen: list[int] = []

    def first() -> None:
        with moments.writable(file):
            inside.set()
            over.wait(0.2)

    def second() -> None:
        inside.wait()
        with moments.writable(file):
            over.set()
            one.join(5)
            seen.append(mode_of(file))

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    other.start()
    other.join()
    one.join()

    assert seen == [0o644]
    assert mode_of(file) == 0o444


@needs_root
def test_a_bit_that_the_kernel_takes_with_the_mode_keeps_nothing_writable(tmp_path: Path) -> None:
    """Who changes the mode of a file of a group that is not the own one loses its set-group-id bit."""
    path = tmp_path / "f"
    path.touch()
    os.chown(path, UID, 0)
    path.chmod(0o2454)
    staging = tmp_path / "staging"
    staging.mkdir()
    os.chown(staging, UID, UID)
    directory, file = os.open(staging, os.O_RDONLY | os.O_DIRECTORY), os.open(path, os.O_RDONLY)

    def act() -> None:
        with Moments(directory, 0).writable(file):
            pass

    code = as_user(act)

    os.close(directory)
    os.close(file)
    assert code == 0
    assert path.stat().st_mode & 0o777 == 0o454


# ---------------------------------------------------------------- what a later start takes back


def left_behind(base: Path, **noted: Any) -> Path:
    """A file that was writable when the daemon died."""
    open_tree(base).close()
    file = base / "tree/f"
    file.touch()
    file.chmod(0o644)
    document = {"path": bytes(file).hex(), "ino": file.stat().st_ino, "mode": 0o444, **noted}
    (base / "staging/mode-1-1").write_text(json.dumps(document))
    return file


def test_a_device_of_another_number_after_a_reboot_is_the_same(tmp_path: Path) -> None:
    file = left_behind(tmp_path, dev=tmp_path.stat().st_dev + 1)
    open_tree(tmp_path).close()
    assert file.stat().st_mode & 0o7777 == 0o444
    assert os.listdir(tmp_path / "staging") == []


@pytest.mark.parametrize("what", ["another file", "another mode", "an empty note"])
def test_what_no_note_leads_to_keeps_its_mode(tmp_path: Path, what: str) -> None:
    file = left_behind(tmp_path)
    match what:
        case "another file":
            file.rename(tmp_path / "tree/g")
            file.touch()
            file.chmod(0o644)
        case "another mode":
            file.chmod(0o664)
        case _:
            (tmp_path / "staging/mode-1-1").write_bytes(b"")
    before = file.stat().st_mode
    open_tree(tmp_path).close()
    assert file.stat().st_mode == before
    assert os.listdir(tmp_path / "staging") == []


@needs_root
def test_what_is_somebody_elses_by_now_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    for above in (tmp_path, *list(tmp_path.parents)[:-2]):
        above.chmod(above.stat().st_mode | 0o111)
    file = left_behind(tmp_path)
    for path in (tmp_path, tmp_path / "tree", tmp_path / "staging"):
        os.chown(path, UID, UID)

    assert as_user(lambda: open_tree(tmp_path).close()) == 0

    assert file.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(tmp_path / "staging") == []
