# ruff: noqa: S603, S607, S103 - it starts interpreters and tools of the system, and sets odd modes
"""What a program may do with names, attributes and bytes of a mount, each time compared with the host behind it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.descriptors import opened
from support.mounting import Mounted, error_of

from fsxsync import _core

NOBODY = 65534
SYS_GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")


@pytest.fixture(scope="module", params=["auto", "off"])
def mounted(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A mount on each of the two data paths."""
    directory = Path(tempfile.mkdtemp(prefix="fsxsync-"))
    directory.chmod(0o755)
    try:
        with Mounted(directory, allow_other=os.geteuid() == 0, passthrough=request.param) as mounted:
            yield mounted
    finally:
        shutil.rmtree(directory)


_numbers = itertools.count()


@pytest.fixture
def here(mounted: Mounted) -> Path:
    """An empty directory of the mount, a new one for each test."""
    path = mounted.path / f"t{next(_numbers)}"
    path.mkdir()
    return path


@pytest.fixture
def behind(mounted: Mounted, here: Path) -> Path:
    """The same directory on the host."""
    return mounted.tree / here.name


def as_nobody(code: str, *arguments: object) -> str:
    """Run Python as another user, who may not be allowed to start the interpreter; what it printed."""
    become = f"""
import os, sys
os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3); os.umask(0o022)
"""
    done = subprocess.run(
        [sys.executable, "-c", become + code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---------------------------------------------------------------- names


def test_what_is_made_in_the_mount_is_in_the_tree(here: Path, behind: Path) -> None:
    (here / "d").mkdir(mode=0o750)
    (here / "d" / "f").write_bytes(b"bytes")
    os.symlink("d/f", here / "l")
    os.link(here / "d" / "f", here / "h")
    os.mkfifo(here / "p", 0o640)

    assert sorted(os.listdir(behind)) == ["d", "h", "l", "p"]
    assert stat.S_IMODE((behind / "d").stat().st_mode) == 0o750
    assert os.readlink(behind / "l") == os.readlink(here / "l") == "d/f"
    assert (here / "l").read_bytes() == (behind / "h").read_bytes() == b"bytes"
    assert (here / "h").stat().st_nlink == (behind / "h").stat().st_nlink == 2
    assert stat.S_ISFIFO((here / "p").stat().st_mode)


def test_every_attribute_is_the_hosts(here: Path, behind: Path) -> None:
    (here / "f").write_bytes(b"x" * 10_000)

    ours, host = os.stat(here / "f"), os.stat(behind / "f")
    for field in (
        "st_ino",
        "st_mode",
        "st_nlink",
        "st_uid",
        "st_gid",
        "st_size",
        "st_blocks",
        "st_mtime_ns",
        "st_ctime_ns",
    ):
        assert getattr(ours, field) == getattr(host, field), field


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda here: os.stat(here / "gone"), errno.ENOENT),
        (lambda here: os.stat(here / "f" / "x"), errno.ENOTDIR),
        (lambda here: os.mkdir(here / "f"), errno.EEXIST),
        (lambda here: os.mkdir(here / "gone" / "x"), errno.ENOENT),
        (lambda here: os.mkdir(here / ("x" * 256)), errno.ENAMETOOLONG),
        (lambda here: os.rmdir(here / "full"), errno.ENOTEMPTY),
        (lambda here: os.rmdir(here / "f"), errno.ENOTDIR),
        (lambda here: os.unlink(here / "full"), errno.EISDIR),
        (lambda here: os.rename(here / "gone", here / "x"), errno.ENOENT),
        (lambda here: os.rename(here / "full", here / "full" / "x"), errno.EINVAL),
        (lambda here: os.rename(here / "f", here / "full"), errno.EISDIR),
        (lambda here: os.rename(here / "full", here / "f"), errno.ENOTDIR),
        (lambda here: os.rename(here / "empty", here / "full"), errno.ENOTEMPTY),
        (lambda here: os.link(here / "full", here / "x"), errno.EPERM),
        (lambda here: os.link(here / "f", here / "full"), errno.EEXIST),
        (lambda here: os.readlink(here / "f"), errno.EINVAL),
        (lambda here: os.open(here / "f", os.O_CREAT | os.O_EXCL), errno.EEXIST),
        (lambda here: os.open(here / "l", os.O_NOFOLLOW), errno.ELOOP),
        (lambda here: os.open(here / "full", os.O_WRONLY), errno.EISDIR),
        (lambda here: os.open(here / "f", os.O_DIRECTORY), errno.ENOTDIR),
        (lambda here: os.truncate(here / "f", -1), errno.EINVAL),
        (lambda here: os.open(here / "s", os.O_RDONLY), errno.ENXIO),
    ],
)
def test_errors_are_those_of_a_file_system(here: Path, call: Callable[[Path], object], number: int) -> None:
    (here / "full").mkdir()
    (here / "full" / "x").touch()
    (here / "empty").mkdir()
    (here / "f").touch()
    os.symlink("f", here / "l")
    with socket.socket(socket.AF_UNIX) as unix:
        directory = os.open(here, os.O_RDONLY)
        try:
            unix.bind(f"/proc/self/fd/{directory}/s")
        finally:
            os.close(directory)

    assert error_of(call, here) == number


def test_rename_replaces_and_keeps_the_inode(here: Path, behind: Path) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    ino = (here / "a").stat().st_ino

    os.rename(here / "a", here / "b")

    assert os.listdir(here) == os.listdir(behind) == ["b"]
    assert ((here / "b").stat().st_ino, (here / "b").read_bytes()) == (ino, b"a")


def test_rename_noreplace(here: Path) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")

    assert error_of(renameat2, here / "a", here / "b", _core.RENAME_NOREPLACE) == errno.EEXIST
    renameat2(here / "a", here / "c", _core.RENAME_NOREPLACE)

    assert (here / "c").read_bytes() == b"a"


def test_rename_exchange_of_a_file_and_a_directory(here: Path, behind: Path, mounted: Mounted) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").mkdir()
    (here / "b" / "x").write_bytes(b"x")

    renameat2(here / "a", here / "b", _core.RENAME_EXCHANGE)

    assert (here / "b").read_bytes() == (behind / "b").read_bytes() == b"a"
    assert (here / "a" / "x").read_bytes() == b"x"
    name = here.name
    assert mounted.calls("renamed")[-1] == ["renamed", [f"{name}/a", f"{name}/b", True]]
    (here / "a" / "new").mkdir()
    os.chmod(here / "b", 0o600)
    assert mounted.calls("changed")[-2:] == [["changed", [f"{name}/a/new"]], ["changed", [f"{name}/b"]]]
    assert error_of(renameat2, here / "a", here / "gone", _core.RENAME_EXCHANGE) == errno.ENOENT


def renameat2(old: Path, new: Path, flags: int) -> None:
    _core.renameat2(-1, bytes(old), -1, bytes(new), flags)  # absolute paths: the descriptors do not matter


def test_a_directory_moves_with_what_is_open_below_it(here: Path, behind: Path, mounted: Mounted) -> None:
    (here / "a" / "b").mkdir(parents=True)
    (here / "to").mkdir()
    with open(here / "a" / "b" / "f", "wb", buffering=0) as file:
        file.write(b"before ")
        os.rename(here / "a", here / "to" / "c")
        file.write(b"after")
        os.mkdir(here / "to" / "c" / "b" / "new")
        assert os.fstat(file.fileno()).st_size == 12

    assert (behind / "to" / "c" / "b" / "f").read_bytes() == b"before after"
    assert wait_for_call(mounted, "writer_closed")[1][0] == f"{here.name}/to/c/b/f"


def wait_for_call(mounted: Mounted, name: str) -> list[object]:
    """The last call of that name, once every writer that was opened is closed: release comes after close(2)."""
    while len(mounted.calls("writer_opened")) != len(mounted.calls("writer_closed")):
        os.sched_yield()
    return list(mounted.calls(name)[-1])


def test_a_working_directory_outlives_its_rename(here: Path) -> None:
    (here / "a").mkdir()
    fd = os.open(here / "a", os.O_RDONLY)
    try:
        os.rename(here / "a", here / "b")
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    finally:
        os.close(fd)

    assert os.listdir(here / "b") == ["f"]


def test_a_hard_link_is_one_file_under_two_names(here: Path) -> None:
    (here / "a").write_bytes(b"1")
    os.link(here / "a", here / "b")
    os.unlink(here / "a")
    (here / "b").write_bytes(b"22")
    os.link(here / "b", here / "a")

    assert (here / "a").read_bytes() == b"22"
    assert (here / "a").stat().st_ino == (here / "b").stat().st_ino
    os.rename(here / "a", here / "b")  # two names of one inode: nothing happens (rename(2))
    assert sorted(os.listdir(here)) == ["a", "b"]


def test_an_unlinked_file_lives_as_long_as_it_is_open(here: Path, mounted: Mounted) -> None:
    with open(here / "f", "w+b", buffering=0) as file:
        file.write(b"12345")
        os.unlink(here / "f")
        file.write(b"678")
        os.ftruncate(file.fileno(), 7)
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(1, 2))
        status = os.fstat(file.fileno())
        assert (status.st_nlink, status.st_size, status.st_mtime_ns) == (0, 7, 2)
        assert os.pread(file.fileno(), 10, 0) == b"1234567"
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
            assert again.read() == b"1234567"

    assert not (here / "f").exists()
    assert wait_for_call(mounted, "writer_closed")[1][0] == f"{here.name}/f"


def test_the_space_of_an_unlinked_file_is_given_back(here: Path, mounted: Mounted) -> None:
    for number in range(50):
        (here / f"{number}").write_bytes(b"x" * 100_000)
        (here / f"{number}").unlink()

    wait_until_equal(lambda: deleted_but_held(mounted), [])


def deleted_but_held(mounted: Mounted) -> list[str]:
    """Files of the tree that the server still has a descriptor of, though they have no name any more."""
    held = opened(mounted.process.pid)
    return [path for path in held if path.startswith(f"{mounted.tree}/") and path.endswith(" (deleted)")]


@pytest.mark.parametrize("kind", ["fifo", "directory", "O_PATH"])
def test_what_is_held_without_a_handle_of_the_mount_stays_itself(here: Path, kind: str) -> None:
    path = here / "held"
    if kind == "directory":
        path.mkdir()
        fd = os.open(path, os.O_RDONLY)
    elif kind == "fifo":
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR)
    else:
        path.write_bytes(b"123")
        fd = os.open(path, os.O_PATH)
    before = os.fstat(fd)
    try:
        path.rmdir() if kind == "directory" else path.unlink()
        for number in range(20):
            (here / f"{number}").touch()  # the host would like to give the number away

        after = os.fstat(fd)
    finally:
        os.close(fd)
    assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, 0)
    assert before.st_ino not in {(here / f"{number}").stat().st_ino for number in range(20)}


def test_a_file_replaced_while_open_is_still_the_old_one_to_its_reader(here: Path) -> None:
    (here / "f").write_bytes(b"old")
    with open(here / "f", "rb") as reader:
        (here / "new").write_bytes(b"new!")
        os.rename(here / "new", here / "f")

        assert reader.read() == b"old"
        assert (here / "f").read_bytes() == b"new!"


def test_names_are_bytes(here: Path, behind: Path) -> None:
    names = [b"\xff\xfe", "größe".encode(), b"new\nline", b"x" * 255, b"-", b" "]
    for name in names:
        (Path(os.fsdecode(bytes(here) + b"/" + name))).touch()

    assert sorted(os.listdir(bytes(here))) == sorted(os.listdir(bytes(behind))) == sorted(names)


# ---------------------------------------------------------------- directories


def test_a_listing_is_complete_while_it_is_deleted_from(here: Path) -> None:
    names = {f"file-{number:05}" for number in range(10_000)}
    for name in names:
        os.mknod(here / name)

    seen = []
    with os.scandir(here) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)

    assert len(seen) == len(set(seen))
    assert set(seen) == names
    assert os.listdir(here) == []


@pytest.mark.parametrize("count", [0, 2_000])
def test_a_listing_may_be_resumed_at_any_of_its_offsets(here: Path, count: int) -> None:
    for number in range(count):
        os.mknod(here / f"{number}")
    whole = [entry for batch in listing(here, 4096) for entry in batch]
    names = [name for name, _ in whole]
    assert sorted(names) == sorted([".", "..", *(f"{number}" for number in range(count))])

    fd = os.open(here, os.O_RDONLY)
    try:
        for position in sorted({0, count // 2, count}):
            os.lseek(fd, whole[position][1], os.SEEK_SET)
            assert getdents64(fd, 4096)[0] == whole[position + 1]
        os.lseek(fd, whole[-1][1], os.SEEK_SET)
        assert getdents64(fd, 4096) == []
        if count:
            os.unlink(here / names[count // 2])
            os.mknod(here / "another")
            os.lseek(fd, whole[count // 2][1], os.SEEK_SET)
            assert getdents64(fd, 4096)[0] == whole[count // 2 + 1]
    finally:
        os.close(fd)


def test_a_listing_is_the_same_in_small_and_large_pieces(here: Path) -> None:
    for number in range(700):
        os.mknod(here / f"{number}")

    assert [entry for batch in listing(here, 300) for entry in batch] == [
        entry for batch in listing(here, 1 << 20) for entry in batch
    ]


def listing(directory: Path, size: int) -> Iterator[list[tuple[str, int]]]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        while batch := getdents64(fd, size):
            yield batch
    finally:
        os.close(fd)


def getdents64(fd: int, size: int) -> list[tuple[str, int]]:
    """[(name, offset of the next entry), ...], '.' and '..' included, as the system call gives them."""
    buffer = ctypes.create_string_buffer(size)
    got = ctypes.CDLL(None, use_errno=True).syscall(SYS_GETDENTS64, fd, buffer, size)
    if got < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    entries, position = [], 0
    while position < got:
        _, after, length, _ = struct.unpack_from("=QqHB", buffer, position)
        name = ctypes.string_at(ctypes.addressof(buffer) + position + 19)
        entries.append((os.fsdecode(name), after))
        position += length
    return entries


def test_a_listing_tells_types_and_inodes(here: Path, behind: Path) -> None:
    (here / "d").mkdir()
    (here / "f").touch()
    os.symlink("x", here / "l")

    with os.scandir(here) as ours, os.scandir(behind) as host:
        assert {(e.name, e.inode(), e.is_dir(), e.is_symlink()) for e in ours} == {
            (e.name, e.inode(), e.is_dir(), e.is_symlink()) for e in host
        }


# ---------------------------------------------------------------- attributes


def test_setattr_of_every_field(here: Path, behind: Path) -> None:
    (here / "f").write_bytes(b"12345")

    os.chmod(here / "f", 0o4751)
    os.truncate(here / "f", 3)
    os.utime(here / "f", ns=(1_111_111_111_222_222_222, 1_333_333_333_444_444_444))

    for path in (here / "f", behind / "f"):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o4751
        assert (status.st_size, status.st_atime_ns, status.st_mtime_ns) == (
            3,
            1_111_111_111_222_222_222,
            1_333_333_333_444_444_444,
        )


def test_times_before_the_epoch_and_of_a_symlink(here: Path, behind: Path) -> None:
    os.symlink("nowhere", here / "l")

    os.utime(here / "l", ns=(-1_500_000_000, 1_000_000_007), follow_symlinks=False)

    for path in (here / "l", behind / "l"):
        assert (path.lstat().st_atime_ns, path.lstat().st_mtime_ns) == (-1_500_000_000, 1_000_000_007)


def test_one_time_is_set_without_the_other(here: Path) -> None:
    (here / "f").touch()
    os.utime(here / "f", ns=(1_000_000_001, 2_000_000_002))

    subprocess.run(["touch", "-a", "-d", "@5", here / "f"], check=True)

    assert (here / "f").stat().st_mtime_ns == 2_000_000_002
    assert (here / "f").stat().st_atime_ns == 5_000_000_000


def test_xattrs(here: Path, behind: Path) -> None:
    (here / "f").touch()
    (here / "d").mkdir()
    for path, host in ((here / "f", behind / "f"), (here / "d", behind / "d")):
        os.setxattr(path, "user.one", b"1\x002")
        os.setxattr(path, "user.two", b"")
        assert error_of(os.setxattr, path, "user.one", b"", os.XATTR_CREATE) == errno.EEXIST
        assert error_of(os.setxattr, path, "user.three", b"", os.XATTR_REPLACE) == errno.ENODATA
        assert os.getxattr(path, "user.one") == os.getxattr(host, "user.one") == b"1\x002"
        assert sorted(os.listxattr(path)) == ["user.one", "user.two"]
        os.removexattr(path, "user.one")
        assert error_of(os.getxattr, path, "user.one") == errno.ENODATA


def test_reserved_and_foreign_xattrs(here: Path, behind: Path) -> None:
    (here / "f").touch()
    os.setxattr(behind / "f", "user.fsxsync.note", b"ours")

    assert os.listxattr(here / "f") == []
    assert error_of(os.getxattr, here / "f", "user.fsxsync.note") == errno.ENODATA
    assert error_of(os.setxattr, here / "f", "user.fsxsync.stub", b"forged") == errno.EPERM
    assert error_of(os.removexattr, here / "f", "user.fsxsync.note") == errno.EPERM
    assert error_of(os.getxattr, here / "f", "security.capability") == errno.ENODATA
    assert error_of(os.setxattr, here / "f", "trusted.x", b"") == errno.EOPNOTSUPP
    assert os.getxattr(behind / "f", "user.fsxsync.note") == b"ours"


def test_statfs_is_the_hosts(here: Path, behind: Path) -> None:
    ours, host = os.statvfs(here), os.statvfs(behind)

    assert (ours.f_blocks, ours.f_bsize, ours.f_files, ours.f_namemax) == (
        host.f_blocks,
        host.f_bsize,
        host.f_files,
        host.f_namemax,
    )


# ---------------------------------------------------------------- other users


@as_root
def test_modes_bind_other_users_and_new_files_are_theirs(here: Path) -> None:
    here.chmod(0o777)
    (here / "secret").write_bytes(b"")
    (here / "secret").chmod(0o600)

    told = as_nobody(
        """
os.chdir(sys.argv[1])
for what in (lambda: open("secret"), lambda: os.chown("mine", 0, 0), lambda: os.chmod("secret", 0o777)):
    os.close(os.open("mine", os.O_CREAT | os.O_WRONLY, 0o666))
    try: what()
    except OSError as error: print(error.errno)
os.mkdir("dir"); os.symlink("x", "link"); os.mkfifo("fifo"); os.open("set-id", os.O_CREAT, 0o4755)
print(os.access("secret", os.R_OK), os.access("mine", os.W_OK))
""",
        here,
    )

    assert told.split() == [str(errno.EACCES), str(errno.EPERM), str(errno.EPERM), "False", "True"]
    for name, mode in (("mine", 0o644), ("dir", 0o755), ("fifo", 0o644), ("set-id", 0o4755)):
        status = (here / name).lstat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, mode)
    assert (here / "link").lstat().st_uid == NOBODY


@as_root
def test_in_a_set_gid_directory_the_group_is_the_directorys(here: Path) -> None:
    os.chown(here, 0, 1234)
    here.chmod(0o2777)

    as_nobody("os.chdir(sys.argv[1]); os.mkdir('d'); open('f', 'w')", here)

    assert [(here / name).stat().st_gid for name in ("d", "f")] == [1234, 1234]
    assert (here / "d").stat().st_mode & stat.S_ISGID


@as_root
@pytest.mark.parametrize(
    "act",
    ["open(sys.argv[1], 'ab').write(b'x')", "os.truncate(sys.argv[1], 1)", "open(sys.argv[1], 'wb').write(b'x')"],
)
def test_who_is_not_root_clears_the_set_id_bits_by_writing(here: Path, act: str) -> None:
    (here / "f").write_bytes(b"12")
    (here / "f").chmod(0o6777)

    as_nobody(act, here / "f")

    assert stat.S_IMODE((here / "f").stat().st_mode) == 0o777


@as_root
def test_chown_gives_files_away_and_clears_set_id(here: Path, behind: Path) -> None:
    (here / "f").touch(mode=0o755)
    (here / "f").chmod(0o4755)
    os.symlink("f", here / "l")

    os.chown(here / "f", 12, 34)
    os.lchown(here / "l", 56, 78)

    assert ((behind / "f").stat().st_uid, (here / "f").stat().st_gid) == (12, 34)
    assert stat.S_IMODE((here / "f").stat().st_mode) == 0o755
    assert ((here / "l").lstat().st_uid, (here / "l").lstat().st_gid) == (56, 78)


@as_root
def test_a_file_made_read_only_is_writable_through_the_handle_that_made_it(here: Path) -> None:
    here.chmod(0o777)

    as_nobody(
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o400)\nos.write(fd, b'12'); os.ftruncate(fd, 1)",
        here / "f",
    )

    assert (here / "f").read_bytes() == b"1"


@as_root
def test_devices_keep_their_numbers(here: Path, behind: Path) -> None:
    os.mknod(here / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    assert (here / "null").stat().st_rdev == (behind / "null").stat().st_rdev == os.makedev(1, 3)


# ---------------------------------------------------------------- bytes


def test_random_writes_and_reads(here: Path, behind: Path) -> None:
    fd = os.open(here / "f", os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(fd, b"end", 3_000_000)
        os.pwrite(fd, b"start", 0)
        big = os.urandom(1_500_000)
        os.pwrite(fd, big, 1_000_001)
        os.fsync(fd)
        os.fdatasync(fd)
        assert os.pread(fd, len(big), 1_000_001) == big
        assert os.pread(fd, 5, 0) == b"start"
        assert os.pread(fd, 10, 3_000_000) == b"end"
        assert os.pread(fd, 10, 9_000_000) == b""
    finally:
        os.close(fd)
    assert (here / "f").read_bytes() == (behind / "f").read_bytes()


def test_bytes_that_the_host_has_to_read_from_disk(here: Path, behind: Path) -> None:
    body = os.urandom(1 << 20)
    (behind / "cold").write_bytes(body)
    with open(behind / "cold", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 4096, 128 * 1024)  # of that piece, the first page alone is in the host's cache

    assert (here / "cold").read_bytes() == body


def test_a_sparse_file_stays_sparse(here: Path, behind: Path) -> None:
    with open(here / "f", "wb") as file:
        file.truncate(1 << 33)
        file.seek(1 << 32)
        file.write(b"x")

    assert (here / "f").stat().st_size == 1 << 33
    assert (behind / "f").stat().st_blocks < 100
    with open(here / "f", "rb") as file:
        assert file.read(4096) == bytes(4096)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) in range((1 << 33) + 1)
        assert os.lseek(file.fileno(), 1 << 32, os.SEEK_DATA) == 1 << 32


def test_a_file_of_holes_alone_shows_a_block(here: Path, behind: Path) -> None:
    with open(here / "f", "wb") as file:
        file.truncate(1 << 20)

    assert (behind / "f").stat().st_blocks == 0
    assert (here / "f").stat().st_blocks == 1


def test_truncate_on_open(here: Path, behind: Path) -> None:
    (here / "f").write_bytes(b"long content")

    os.close(os.open(here / "f", os.O_WRONLY | os.O_TRUNC))

    assert (behind / "f").stat().st_size == (here / "f").stat().st_size == 0


def test_two_processes_append_without_losing_a_line(here: Path) -> None:
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(500):
    os.write(fd, f"{sys.argv[2]} {number}\\n".encode())
"""
    running = [subprocess.Popen([sys.executable, "-c", code, here / "f", who]) for who in "ab"]
    assert [process.wait() for process in running] == [0, 0]

    lines = (here / "f").read_text().splitlines()
    assert sorted(lines) == sorted(f"{who} {number}" for who in "ab" for number in range(500))
    assert [line for line in lines if line[0] == "a"] == [f"a {number}" for number in range(500)]


def test_exactly_one_process_makes_a_file_exclusively(here: Path) -> None:
    code = """
import os, sys
won = 0
for number in range(200):
    try: os.close(os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)); won += 1
    except FileExistsError: pass
print(won)
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, here], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    won = [int(process.communicate()[0]) for process in running]

    assert sum(won) == 200


def test_mmap_reads_and_writes(here: Path, behind: Path) -> None:
    (here / "f").write_bytes(bytes(100_000))

    with open(here / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[50_000:50_005] = b"hello"
        mapped.flush()
        assert (here / "f").read_bytes()[50_000:50_005] == b"hello"

    assert (behind / "f").read_bytes()[50_000:50_005] == b"hello"


def test_a_program_runs_from_the_mount(here: Path) -> None:
    shutil.copy("/bin/true", here / "true")

    subprocess.run([here / "true"], check=True)


def test_locks_are_the_kernels(here: Path) -> None:
    (here / "f").touch()
    code = """
import fcntl, sys
file = open(sys.argv[1], "r+")
for lock in (fcntl.flock, fcntl.lockf):
    try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print("free")
    except BlockingIOError: print("held")
"""
    with open(here / "f", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        held = subprocess.run([sys.executable, "-c", code, here / "f"], capture_output=True, text=True, check=True)
    free = subprocess.run([sys.executable, "-c", code, here / "f"], capture_output=True, text=True, check=True)

    assert (held.stdout.split(), free.stdout.split()) == (["held"] * 2, ["free"] * 2)


def test_copy_file_range_and_fallocate_fall_back(here: Path) -> None:
    (here / "a").write_bytes(b"copied")
    with open(here / "a", "rb") as source, open(here / "b", "wb") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 6) == 6
        os.posix_fallocate(target.fileno(), 0, 10_000)  # by writing, as glibc does without fallocate(2)

    assert (here / "b").read_bytes() == b"copied" + bytes(9_994)


# ---------------------------------------------------------------- hints


def test_every_change_is_told_and_writers_balance(here: Path, mounted: Mounted) -> None:
    before = len(mounted.calls())

    (here / "f").write_bytes(b"1")
    os.chmod(here / "f", 0o600)
    os.truncate(here / "f", 0)
    os.rename(here / "f", here / "g")
    os.unlink(here / "g")
    (here / "d").mkdir()
    (here / "d").rmdir()

    wait_for_call(mounted, "writer_closed")
    new = mounted.calls()[before:]
    name = here.name
    told = {(call, arguments[0]) for call, arguments in new}
    assert {("changed", f"{name}/{path}") for path in "fgd"} < told
    assert ("renamed", f"{name}/f") in told
    opened = [arguments for call, arguments in new if call == "writer_opened"]
    assert opened == [arguments for call, arguments in new if call == "writer_closed"]
    assert len(opened) == 2  # the write and the truncate


def test_a_close_after_a_write_is_told_before_it_returns(here: Path, mounted: Mounted) -> None:
    fd = os.open(here / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    before = len(mounted.calls("changed"))

    os.close(fd)

    assert mounted.calls("changed")[before:] == [["changed", [f"{here.name}/f"]]]


def test_a_read_only_association_answers_erofs(here: Path, behind: Path, mounted: Mounted) -> None:
    (here / "f").write_bytes(b"content")
    (here / "d").mkdir()
    outside = mounted.path / "outside"
    outside.touch()
    mounted.ask("forbid", read_only=[here.name], roots=[], bugs=[])
    try:
        refused = [
            error_of(os.open, here / "f", os.O_WRONLY),
            error_of(os.open, here / "new", os.O_CREAT | os.O_WRONLY),
            error_of(os.truncate, here / "f", 0),
            error_of(os.chmod, here / "f", 0o777),
            error_of(os.utime, here / "f"),
            error_of(os.unlink, here / "f"),
            error_of(os.rmdir, here / "d"),
            error_of(os.mkdir, here / "e"),
            error_of(os.symlink, "x", here / "e"),
            error_of(os.mkfifo, here / "e"),
            error_of(os.link, outside, here / "e"),
            error_of(os.rename, here / "f", outside),
            error_of(os.rename, outside, here / "f"),
            error_of(os.setxattr, here / "f", "user.x", b""),
        ]
        assert (here / "f").read_bytes() == b"content"
    finally:
        mounted.ask("forbid", read_only=[], roots=[], bugs=[])
        outside.unlink()

    assert set(refused) == {errno.EROFS}
    assert sorted(os.listdir(behind)) == ["d", "f"]


def test_association_borders(here: Path, mounted: Mounted) -> None:
    (here / "a").mkdir()
    (here / "b").mkdir()
    (here / "a" / "f").touch()
    name = here.name
    mounted.ask("forbid", read_only=[], roots=[f"{name}/a", f"{name}/b"], bugs=[])
    try:
        assert error_of(os.rename, here / "a" / "f", here / "f") == errno.EXDEV
        assert error_of(os.link, here / "a" / "f", here / "b" / "f") == errno.EXDEV
        assert error_of(os.rename, here / "a", here / "c") == errno.EBUSY
        assert error_of(os.rmdir, here / "b") == errno.EBUSY
        os.rename(here / "a" / "f", here / "a" / "g")
        subprocess.run(["mv", here / "a" / "g", here / "b" / "g"], check=True)  # mv copies instead
    finally:
        mounted.ask("forbid", read_only=[], roots=[], bugs=[])

    assert (os.listdir(here / "a"), os.listdir(here / "b")) == ([], ["g"])


# ---------------------------------------------------------------- changes behind the mount


def test_a_change_behind_the_mount_shows_once_it_is_told(here: Path, behind: Path, mounted: Mounted) -> None:
    (here / "f").write_bytes(b"old")
    ino, parent = (here / "f").stat().st_ino, here.stat().st_ino
    with open(here / "f", "rb") as reader:
        assert reader.read() == b"old"
        (behind / "new").write_bytes(b"imported")
        os.rename(behind / "new", behind / "f")
        mounted.ask("invalidate_entry", parent_ino=parent, name="f")
        mounted.ask("invalidate_inode", ino=ino, data=True)

        wait_until_equal((here / "f").read_bytes, b"imported")
        assert os.pread(reader.fileno(), 10, 0) == b"old"  # to its end, what was opened


def test_bytes_and_attributes_changed_in_place_show_once_they_are_told(
    here: Path, behind: Path, mounted: Mounted
) -> None:
    (here / "f").write_bytes(b"12345")
    with open(here / "f", "rb", buffering=0) as reader:
        status = os.fstat(reader.fileno())
        assert reader.read() == b"12345"
        with open(behind / "f", "r+b") as host:
            host.write(b"67890")
        os.utime(behind / "f", ns=(status.st_atime_ns, status.st_mtime_ns))  # nothing but the pages tells
        os.chmod(behind / "f", 0o611)
        mounted.ask("invalidate_inode", ino=status.st_ino, data=True)

        wait_until_equal(lambda: os.pread(reader.fileno(), 5, 0), b"67890")
        wait_until_equal(lambda: stat.S_IMODE(os.fstat(reader.fileno()).st_mode), 0o611)


def test_without_being_told_an_open_sees_what_changed_behind(here: Path, behind: Path) -> None:
    (here / "f").write_bytes(b"12345")
    assert (here / "f").read_bytes() == b"12345"
    (here / "f").stat()  # the kernel believes these attributes for a minute

    (behind / "f").write_bytes(b"54321")

    assert (here / "f").read_bytes() == b"54321"


def test_what_was_removed_behind_the_mount_is_gone_on_use(here: Path, behind: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "f").touch()
    shutil.rmtree(behind / "d")

    assert error_of(os.open, here / "d" / "f", os.O_RDONLY) == errno.ENOENT
    assert error_of(os.listdir, here / "d") == errno.ENOENT
    (here / "d").mkdir()
    assert os.listdir(here / "d") == []


def test_a_directory_replaced_behind_the_mount_is_found_anew(here: Path, behind: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "old").touch()
    shutil.rmtree(behind / "d")
    (behind / "d").mkdir()
    (behind / "d" / "new").write_bytes(b"1")

    assert (here / "d" / "new").read_bytes() == b"1"
    (here / "d" / "made").mkdir()
    assert sorted(os.listdir(here / "d")) == ["made", "new"]


@pytest.mark.parametrize(
    "act",
    [
        lambda d: Path(d, "f").read_bytes(),
        lambda d: Path(d, "f").stat(),
        lambda d: Path(d, "f").chmod(0o600),
        lambda d: Path(d, "f").unlink(),
        lambda d: Path(d, "f").write_bytes(b"x"),
        lambda d: os.truncate(d / "f", 0),
        lambda d: os.setxattr(d / "f", "user.x", b""),
        lambda d: os.rename(d / "f", d / "g"),
        lambda d: Path(d, "new").write_bytes(b"x"),
        lambda d: os.listdir(d)[0],
        os.rmdir,
    ],
)
def test_no_call_is_stale_when_a_directory_was_replaced_behind_the_mount(
    here: Path, behind: Path, act: Callable[[Path], object]
) -> None:
    directory = replace_behind(here, behind)

    if act is os.rmdir:
        (behind / "d" / "f").unlink()
    act(directory)


@pytest.mark.parametrize(
    "act",
    [
        lambda d: os.mkdir(d / "new"),
        lambda d: os.symlink("x", d / "new"),
        lambda d: os.link(d / "f", d / "new"),
    ],
)
def test_what_the_kernel_does_not_try_again_is_stale_once(
    here: Path, behind: Path, act: Callable[[Path], object]
) -> None:
    directory = replace_behind(here, behind)

    def attempt() -> bool:
        try:
            act(directory)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return (behind / "d" / "new").is_symlink() or (behind / "d" / "new").exists()

    wait_until_equal(attempt, expected=True)


def replace_behind(here: Path, behind: Path) -> Path:
    """A directory with a file ``f`` that the kernel knows, and that the host has meanwhile replaced by another."""
    (behind / "d").mkdir()
    (behind / "d" / "f").touch()
    (here / "d" / "f").stat()
    shutil.rmtree(behind / "d")
    (behind / "d").mkdir()
    (behind / "d" / "f").touch()
    return here / "d"


def open_in(directory: int, name: str) -> int:
    return os.open(name, os.O_RDONLY, dir_fd=directory)


def test_a_directory_that_became_a_symlink_behind_the_mount_is_not_followed(
    here: Path, behind: Path, tmp_path: Path
) -> None:
    (here / "d").mkdir()
    (here / "d" / "f").write_bytes(b"inside")
    (tmp_path / "f").write_bytes(b"outside")
    inode = os.open(here / "d", os.O_PATH)
    shutil.rmtree(behind / "d")
    os.symlink(tmp_path, behind / "d")
    try:
        assert error_of(open_in, inode, "f") == errno.ESTALE
    finally:
        os.close(inode)


def test_open_handles_are_counted(here: Path, mounted: Mounted) -> None:
    (here / "f").touch()
    ino = (here / "f").stat().st_ino
    with open(here / "f", "rb"), open(here / "f", "rb"):
        assert mounted.ask("open_handles", ino=ino) == 2

    while mounted.ask("open_handles", ino=ino):
        os.sched_yield()


def wait_until_equal(look: Callable[[], object], expected: object) -> None:
    """Invalidation is queued: it comes, but later, and on a busy machine much later."""
    deadline = time.monotonic() + 30
    while (seen := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert seen == expected
