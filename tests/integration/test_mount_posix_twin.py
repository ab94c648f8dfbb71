"""The same random calls on the mount and on a plain directory: every result and every errno must be equal."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import Mounted

from fsxsync import _core

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")

STEPS = 1_500
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module", params=["auto", "off"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("twin"), passthrough=request.param) as mounted:
        yield mounted


class Twin:
    """One side. ``open_files`` are held open over other calls, unlinks and renames included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open_files: dict[int, int] = {}

    def close(self) -> None:
        for fd in self.open_files.values():
            os.close(fd)

    def attempt(self, call: str, *arguments: object) -> object:
        """What a call returned, or its errno."""
        method: Callable[..., object] = getattr(self, call)
        try:
            return method(*arguments)
        except OSError as error:
            return f"errno {error.errno}"

    def at(self, path: str) -> bytes:
        return bytes(self.root / path)

    # ------------------------------------------------------------- calls

    def mkdir(self, path: str, other: str, number: int) -> None:
        os.mkdir(self.at(path), 0o700 + number % 8)

    def rmdir(self, path: str, other: str, number: int) -> None:
        os.rmdir(self.at(path))

    def unlink(self, path: str, other: str, number: int) -> None:
        os.unlink(self.at(path))

    def rename(self, path: str, other: str, number: int) -> None:
        os.rename(self.at(path), self.at(other))

    def exchange(self, path: str, other: str, number: int) -> None:
        _core.renameat2(-1, self.at(path), -1, self.at(other), _core.RENAME_EXCHANGE)

    def rename_noreplace(self, path: str, other: str, number: int) -> None:
        _core.renameat2(-1, self.at(path), -1, self.at(other), _core.RENAME_NOREPLACE)

    def link(self, path: str, other: str, number: int) -> None:
        os.link(self.at(path), self.at(other), follow_symlinks=False)

    def symlink(self, path: str, other: str, number: int) -> None:
        os.symlink(os.path.relpath(other, os.path.dirname(path) or "."), self.at(path))

    def mkfifo(self, path: str, other: str, number: int) -> None:
        os.mkfifo(self.at(path))

    def write(self, path: str, other: str, number: int) -> int:
        flags = (os.O_TRUNC, os.O_APPEND, os.O_EXCL, 0, os.O_NOFOLLOW)[number % 5]
        fd = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | flags, 0o600 + number % 64)
        try:
            return os.write(fd, b"%d" % number * (number % 50))
        finally:
            os.close(fd)

    def read(self, path: str, other: str, number: int) -> bytes:
        fd = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, 1000)
        finally:
            os.close(fd)

    def truncate(self, path: str, other: str, number: int) -> None:
        os.truncate(self.at(path), number)

    def chmod(self, path: str, other: str, number: int) -> None:
        os.chmod(self.at(path), number % 0o1000 | 0o700)

    def utime(self, path: str, other: str, number: int) -> None:
        os.utime(self.at(path), ns=(number, number * 10**9 + 7), follow_symlinks=False)

    def setxattr(self, path: str, other: str, number: int) -> None:
        os.setxattr(
            self.at(path), f"user.{number % 3}", b"%d" % number, (0, os.XATTR_CREATE, os.XATTR_REPLACE)[number % 3]
        )

    def removexattr(self, path: str, other: str, number: int) -> None:
        os.removexattr(self.at(path), f"user.{number % 3}")

    def hold(self, path: str, other: str, number: int) -> None:
        slot = number % 4
        fd = os.open(self.at(path), os.O_RDWR | os.O_NONBLOCK)
        if slot in self.open_files:
            os.close(self.open_files.pop(slot))
        self.open_files[slot] = fd

    def use_held(self, path: str, other: str, number: int) -> object:
        fd = self.open_files.get(number % 4)
        if fd is None:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.pwrite(fd, b"held", number)
            os.ftruncate(fd, number + 3)
            os.fchmod(fd, 0o640)
        status = os.fstat(fd)
        return status.st_nlink, status.st_size if stat.S_ISREG(status.st_mode) else 0, oct(status.st_mode)

    # ------------------------------------------------------------- everything

    def everything(self) -> dict[str, object]:
        """Each path with all that a caller can see of it."""
        seen: dict[str, object] = {}
        inodes: dict[int, int] = {}
        for directory, names, files in os.walk(self.root):
            names.sort()
            for name in sorted([*names, *files]):
                path = os.path.join(directory, name)
                status = os.lstat(path)
                first = inodes.setdefault(status.st_ino, len(inodes))  # which names are one inode
                kind = stat.S_IFMT(status.st_mode)
                content: object = None
                if kind == stat.S_IFLNK:
                    content = os.readlink(path)
                elif kind == stat.S_IFREG:
                    content = Path(path).read_bytes(), sorted((n, os.getxattr(path, n)) for n in os.listxattr(path))
                size = 0 if kind == stat.S_IFDIR else status.st_size
                seen[os.path.relpath(path, self.root)] = (first, oct(status.st_mode), status.st_nlink, size, content)
        return seen


CALLS = (
    *("mkdir", "mkdir", "rmdir", "unlink", "rename", "rename", "exchange", "rename_noreplace"),
    *("link", "symlink", "mkfifo", "write", "write", "write", "read", "truncate", "chmod", "utime"),
    *("setxattr", "removexattr", "hold", "use_held"),
)


def test_the_mount_does_what_a_plain_directory_does(mounted: Mounted, tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(4):
        chance = random.Random(seed)  # noqa: S311 - a test's
        for call, outcome in compare(mounted.path / f"{seed}", tmp_path / f"{seed}", chance):
            outcomes.add((call, str(outcome).startswith("errno")))
        behind = Twin(mounted.tree / f"{seed}")
        assert behind.everything() == Twin(tmp_path / f"{seed}").everything()
    assert {(call, False) for call in CALLS} <= outcomes  # each of them worked at least once


def compare(ours_root: Path, plain_root: Path, chance: random.Random) -> Iterator[tuple[str, object]]:
    """Do the same on both sides; each call with its outcome."""
    ours, plain = Twin(ours_root), Twin(plain_root)
    ours.root.mkdir()
    plain.root.mkdir()
    try:
        for step in range(STEPS):
            call, number = chance.choice(CALLS), chance.randrange(1000)
            path, other = ("/".join(chance.choices(NAMES, k=chance.choice([1, 2, 2, 3]))) for _ in range(2))
            expected = plain.attempt(call, path, other, number)
            assert ours.attempt(call, path, other, number) == expected, (step, call, path, other, number)
            if step % 250 == 0:
                assert ours.everything() == plain.everything()
            yield call, expected
        assert ours.everything() == plain.everything()
    finally:
        ours.close()
        plain.close()
