"""fsxsync._core: the system calls that the os module lacks, on real files."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsxsync import _core

STUB_XATTR = b"user.fsxsync.stub"
AT_FDCWD = -100
BENEATH = _core.RESOLVE_BENEATH | _core.RESOLVE_NO_SYMLINKS
MOST_IDS = 2**32 - 2


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class TestRenameat2:
    def test_an_exchange_swaps_two_files(self, tmp_path: Path, directory: int) -> None:
        (tmp_path / "a").write_text("was a")
        (tmp_path / "b").write_text("was b")

        _core.renameat2(directory, b"a", directory, b"b", _core.RENAME_EXCHANGE)

        assert (tmp_path / "a").read_text() == "was b"
        assert (tmp_path / "b").read_text() == "was a"

    def test_noreplace_replaces_nothing_and_names_both(self, tmp_path: Path, directory: int) -> None:
        (tmp_path / "a").write_text("was a")
        (tmp_path / "b").write_text("was b")

        with pytest.raises(FileExistsError) as caught:
            _core.renameat2(directory, b"a", directory, b"b", _core.RENAME_NOREPLACE)

        assert (caught.value.filename, caught.value.filename2) == (b"a", b"b")
        assert (tmp_path / "b").read_text() == "was b"

    def test_no_flags_rename_as_ever(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("was a")

        _core.renameat2(AT_FDCWD, bytes(tmp_path / "a"), AT_FDCWD, bytes(tmp_path / "b"), 0)

        assert os.listdir(tmp_path) == ["b"]

    def test_an_exchange_with_nothing_fails(self, tmp_path: Path, directory: int) -> None:
        (tmp_path / "a").touch()

        with pytest.raises(FileNotFoundError):
            _core.renameat2(directory, b"a", directory, b"b", _core.RENAME_EXCHANGE)

    @pytest.mark.parametrize("flags", [-1, 1 << 30, _core.RENAME_NOREPLACE | _core.RENAME_EXCHANGE])
    def test_flags_the_kernel_does_not_know_are_its_error(self, tmp_path: Path, directory: int, flags: int) -> None:
        (tmp_path / "a").touch()

        with pytest.raises(OSError) as caught:  # noqa: PT011
            _core.renameat2(directory, b"a", directory, b"b", flags)

        assert caught.value.errno == errno.EINVAL

    def test_names_are_bytes_without_nul(self, directory: int) -> None:
        with pytest.raises(TypeError, match="expected bytes, not str"):
            _core.renameat2(directory, "a", directory, b"b", 0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="null byte"):
            _core.renameat2(directory, b"a", directory, b"b\0c", 0)


class TestOpenat2:
    def test_it_opens_beneath_with_cloexec(self, tmp_path: Path, directory: int) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_text("data")

        fd = _core.openat2(directory, b"d/f", os.O_RDONLY, 0, BENEATH)

        try:
            assert os.read(fd, 10) == b"data"
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)

    def test_it_creates_with_the_mode(self, tmp_path: Path, directory: int) -> None:
        fd = _core.openat2(directory, b"f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, BENEATH)
        os.close(fd)

        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("path", "number"),
        [
            (b"../x", errno.EXDEV),
            (b"d/../../x", errno.EXDEV),
            (b"/etc/passwd", errno.EXDEV),
            (b"out/passwd", errno.ELOOP),
            (b"in/f", errno.ELOOP),
            (b"", errno.ENOENT),
            (b"d/none", errno.ENOENT),
            (b"f/f", errno.ENOTDIR),
            (b"n" * 256, errno.ENAMETOOLONG),
        ],
    )
    def test_what_leads_out_is_refused(self, tmp_path: Path, directory: int, path: bytes, number: int) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "f").touch()
        (tmp_path / "out").symlink_to("/etc")
        (tmp_path / "in").symlink_to("d")
        before = open_fds()

        with pytest.raises(OSError) as caught:  # noqa: PT011
            _core.openat2(directory, path, os.O_RDONLY, 0, BENEATH)

        assert (caught.value.errno, caught.value.filename) == (number, path)
        assert open_fds() == before

    @pytest.mark.parametrize(("flags", "mode", "resolve"), [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
    def test_negative_numbers_are_refused(self, directory: int, flags: int, mode: int, resolve: int) -> None:
        with pytest.raises(ValueError, match="must not be negative"):
            _core.openat2(directory, b".", flags, mode, resolve)

    def test_unknown_limits_are_the_kernels_error(self, directory: int) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            _core.openat2(directory, b".", os.O_RDONLY, 0, 1 << 40)

        assert caught.value.errno == errno.EINVAL


class TestGetdents:
    def test_every_entry_once_with_inode_and_type(self, tmp_path: Path, directory: int) -> None:
        for number in range(500):
            (tmp_path / f"file-{number}").touch()
        (tmp_path / "directory").mkdir()
        (tmp_path / "link").symlink_to("x")
        expected = {
            os.fsencode(e.name): (
                e.inode(),
                4 if e.is_dir(follow_symlinks=False) else 10 if e.is_symlink() else 8,
            )
            for e in os.scandir(tmp_path)
        }

        seen = []
        offset = 0
        while entries := _core.getdents(directory, offset, 4096):
            seen += entries
            offset = entries[-1][3]

        assert len(seen) == 502
        assert {name: (inode, kind) for name, inode, kind, _ in seen} == expected

    def test_it_goes_on_after_any_entry(self, tmp_path: Path, directory: int) -> None:
        for number in range(50):
            (tmp_path / f"file-{number}").touch()
        whole = _core.getdents(directory, 0, 1 << 16)

        for index, (_, _, _, next_offset) in enumerate(whole):
            assert _core.getdents(directory, next_offset, 1 << 16) == whole[index + 1 :]

    def test_a_small_buffer_is_never_an_early_end(self, tmp_path: Path, directory: int) -> None:
        # 24 bytes are one record of '.': reads that hold nothing else must not end the listing
        (tmp_path / "f").touch()

        entries = _core.getdents(directory, 0, 24)

        assert [entry[0] for entry in entries] == [b"f"]

    def test_an_empty_directory_is_empty(self, directory: int) -> None:
        assert _core.getdents(directory, 0, 4096) == []

    def test_names_need_not_be_utf8(self, tmp_path: Path, directory: int) -> None:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff\xfe")).touch()

        assert [entry[0] for entry in _core.getdents(directory, 0, 4096)] == [b"\xff\xfe"]

    def test_hostile_arguments(self, tmp_path: Path, directory: int) -> None:
        (tmp_path / ("n" * 255)).touch()

        for offset, max_bytes in ((-1, 4096), (0, 0), (0, -1), (0, (1 << 24) + 1)):
            with pytest.raises(ValueError, match=r"negative|max_bytes"):
                _core.getdents(directory, offset, max_bytes)
        with pytest.raises(OverflowError):
            _core.getdents(directory, 0, 2**31)
        with pytest.raises(OSError, match="Invalid argument"):
            _core.getdents(directory, 0, 64)
        with pytest.raises(OSError, match="Bad file descriptor"):
            _core.getdents(-1, 0, 4096)

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "f").touch()
        fd = os.open(tmp_path / "f", os.O_RDONLY)

        try:
            with pytest.raises(NotADirectoryError):
                _core.getdents(fd, 0, 4096)
        finally:
            os.close(fd)


class TestFallocate:
    def test_a_hole_frees_the_blocks_and_keeps_the_size(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"x" * 65536)
        fd = os.open(path, os.O_RDWR)

        try:
            os.fsync(fd)
            _core.fallocate(fd, _core.FALLOC_FL_PUNCH_HOLE | _core.FALLOC_FL_KEEP_SIZE, 0, 65536)
            status = os.fstat(fd)
        finally:
            os.close(fd)

        assert (status.st_size, status.st_blocks) == (65536, 0)
        assert path.read_bytes() == bytes(65536)

    def test_hostile_arguments(self, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600)

        try:
            for offset, length in ((-1, 1), (0, -1)):
                with pytest.raises(ValueError, match="no such range"):
                    _core.fallocate(fd, 0, offset, length)
            with pytest.raises(OSError, match="Invalid argument"):
                _core.fallocate(fd, 0, 0, 0)
            with pytest.raises(OSError, match="Operation not supported"):
                _core.fallocate(fd, _core.FALLOC_FL_PUNCH_HOLE, 0, 1)  # KEEP_SIZE is missing
            with pytest.raises(OSError, match="File too large"):
                _core.fallocate(fd, 0, 2**63 - 1, 2**63 - 1)
            assert os.fstat(fd).st_size == 0
        finally:
            os.close(fd)


class TestSmallOnes:
    def test_syncfs_takes_any_fd_of_the_file_system(self, directory: int) -> None:
        _core.syncfs(directory)

        with pytest.raises(OSError, match="Bad file descriptor"):
            _core.syncfs(-1)

    def test_the_generation_is_stable_for_a_file(self, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600)

        try:
            first = _core.inode_generation(fd)
            os.write(fd, b"x")
            assert _core.inode_generation(fd) == first
        except OSError as error:
            assert error.errno == errno.ENOTTY  # noqa: PT017 - such as tmpfs: the caller lives without
        finally:
            os.close(fd)

    def test_a_pipe_has_no_generation(self) -> None:
        read_end, write_end = os.pipe()

        try:
            with pytest.raises(OSError, match="Inappropriate ioctl"):
                _core.inode_generation(read_end)
        finally:
            os.close(read_end)
            os.close(write_end)

    def test_umount2_names_what_is_no_mount_point(self, tmp_path: Path) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            _core.umount2(bytes(tmp_path), _core.MNT_DETACH)

        # a user without rights is told so first
        assert caught.value.errno in {errno.EINVAL, errno.EPERM}
        assert caught.value.filename == bytes(tmp_path)


Create = Callable[..., tuple[int, int, int]]


@pytest.fixture
def create(directory: int) -> Create:
    """create_stub with a word for each argument and something plain for those not given."""

    def create_stub(**changes: object) -> tuple[int, int, int]:
        arguments: dict[str, object] = {
            "dirfd": directory,
            "name": b"stub",
            "size": 1 << 40,
            "mode": 0o640,
            "uid": -1,
            "gid": -1,
            "atime_ns": 1_700_000_000_123_456_789,
            "mtime_ns": 1_600_000_000_987_654_321,
            "xattr_name": STUB_XATTR,
            "xattr_value": b"value",
        }
        assert arguments.keys() >= changes.keys()
        return _core.create_stub(*(arguments | changes).values())  # type: ignore[arg-type]

    return create_stub


class TestCreateStub:
    def test_a_stub_has_size_mode_times_and_xattr_and_no_data(self, tmp_path: Path, create: Create) -> None:
        inode, ctime_ns, device = create()

        status = (tmp_path / "stub").stat()
        assert (inode, ctime_ns, device) == (status.st_ino, status.st_ctime_ns, status.st_dev)
        assert (status.st_size, stat.S_IMODE(status.st_mode)) == (1 << 40, 0o640)
        assert (status.st_atime_ns, status.st_mtime_ns) == (
            1_700_000_000_123_456_789,
            1_600_000_000_987_654_321,
        )
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        assert os.getxattr(tmp_path / "stub", STUB_XATTR) == b"value"
        assert status.st_blocks <= 8  # the xattr's own block, at most

    @pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
    @pytest.mark.parametrize(("uid", "gid"), [(1234, 5678), (-1, 5678), (1234, -1), (MOST_IDS, MOST_IDS)])
    def test_owner_and_set_id_bits(self, tmp_path: Path, create: Create, uid: int, gid: int) -> None:
        create(uid=uid, gid=gid, mode=0o6755)

        status = (tmp_path / "stub").stat()
        assert stat.S_IMODE(status.st_mode) == 0o6755
        assert (status.st_uid, status.st_gid) == (0 if uid == -1 else uid, 0 if gid == -1 else gid)

    @pytest.mark.parametrize("mtime_ns", [0, -1, -1_500_000_000, 999_999_999, 4_000_000_000_000_000_001])
    def test_times_before_1970_and_after_2038(self, tmp_path: Path, create: Create, mtime_ns: int) -> None:
        create(mtime_ns=mtime_ns)

        assert (tmp_path / "stub").stat().st_mtime_ns == mtime_ns

    def test_the_umask_has_no_say(self, tmp_path: Path, create: Create) -> None:
        before = os.umask(0o777)
        try:
            create(mode=0o777)
        finally:
            os.umask(before)

        assert stat.S_IMODE((tmp_path / "stub").stat().st_mode) == 0o777

    def test_what_is_there_is_not_touched(self, tmp_path: Path, create: Create) -> None:
        (tmp_path / "stub").write_text("data")

        with pytest.raises(FileExistsError) as caught:
            create()

        assert caught.value.filename == b"stub"
        assert (tmp_path / "stub").read_text() == "data"

    def test_a_symlink_is_not_followed(self, tmp_path: Path, create: Create) -> None:
        (tmp_path / "stub").symlink_to("elsewhere")

        with pytest.raises(FileExistsError):
            create()

        assert os.listdir(tmp_path) == ["stub"]

    @pytest.mark.parametrize(
        ("change", "number"),
        [
            ({"xattr_name": b"nonsense"}, errno.EOPNOTSUPP),
            ({"xattr_name": b"user." + b"n" * 300}, errno.ERANGE),
            ({"xattr_value": b"v" * 70_000}, errno.E2BIG),
            ({"size": 2**63 - 1}, errno.EFBIG),
        ],
    )
    def test_after_an_error_nothing_is_left(
        self, tmp_path: Path, create: Create, change: dict[str, object], number: int
    ) -> None:
        before = open_fds()

        with pytest.raises(OSError) as caught:  # noqa: PT011
            create(**change)

        assert caught.value.errno == number
        assert os.listdir(tmp_path) == []
        assert open_fds() == before

    @pytest.mark.parametrize(
        "change",
        [
            {"size": -1},
            {"mode": -1},
            {"mode": 0o100644},
            {"uid": -2},
            {"gid": -2},
            {"uid": MOST_IDS + 1},
            {"gid": 2**32},
            {"name": b"a\0b"},
            {"xattr_name": b"user.a\0b"},
        ],
    )
    def test_what_no_file_can_have_is_refused(self, tmp_path: Path, create: Create, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"no such file|null byte"):
            create(**change)

        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("argument", ["size", "mode", "uid", "gid", "atime_ns", "mtime_ns"])
    def test_numbers_over_64_bits_are_refused_not_cut(self, create: Create, argument: str) -> None:
        with pytest.raises(OverflowError):
            create(**{argument: 2**64 + 1})

    def test_names_are_bytes(self, create: Create) -> None:
        with pytest.raises(TypeError, match="expected bytes, not str"):
            create(name="stub")

    def test_the_value_is_given_back(self, create: Create) -> None:
        value = bytearray(b"value")

        create(xattr_value=value)
        with pytest.raises(FileExistsError):
            create(xattr_value=value)
        with pytest.raises(ValueError, match="no such file"):
            create(xattr_value=value, size=-1)

        value.append(0)  # BufferError if somebody still held a view

    def test_a_missing_directory_and_a_bad_fd(self, create: Create) -> None:
        with pytest.raises(FileNotFoundError):
            create(name=b"missing/stub")
        with pytest.raises(OSError, match="Bad file descriptor"):
            create(dirfd=-1)
