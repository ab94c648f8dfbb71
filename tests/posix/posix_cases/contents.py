"""read(2), write(2), truncate(2), lseek(2), mmap(2) and their relatives."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import in_a_child, opening, outcome, read_all, touch
from posix_suite.registry import UNSAID, Observed, case

from fsxsync import _core

# ---------------------------------------------------------------- truncate


@case(["ENOENT", "ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG", "EINVAL", "EINVAL"])
def truncate_what_can_not_be(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    wrong = ("missing", "", "f/x", "d", "loop", "n" * 256, "fifo")
    return [*(outcome(os.truncate, name, 0) for name in wrong), outcome(os.truncate, "f", -1)]


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def truncate_needs_permission_to_write(me: Identity) -> Observed:
    touch("mine", 0o444)
    with ROOT.acting():
        touch("theirs", 0o644)
        os.chown("theirs", STRANGER.uid, STRANGER.gid)
    return [outcome(os.truncate, "mine", 0), outcome(os.truncate, "theirs", 0)]


@case(["EINVAL", "EINVAL", "ok"])
def ftruncate_needs_a_descriptor_for_writing(me: Identity) -> Observed:
    touch("f")
    reading, writing = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY)
    os.chmod("f", 0o000)
    try:
        return [
            outcome(os.ftruncate, reading, 0),
            outcome(os.ftruncate, writing, -1),
            outcome(os.ftruncate, writing, 0),
        ]
    finally:
        os.close(reading)
        os.close(writing)


@case(["01", "01\0\0", "01\0\0x"])
def cut_and_grown_it_has_zeros_where_data_was(me: Identity) -> Observed:
    touch("f", content=b"0123456")
    seen = []
    os.truncate("f", 2)
    seen.append(read_all("f"))
    os.truncate("f", 4)
    seen.append(read_all("f"))
    with open("f", "ab") as file:
        file.write(b"x")
    return [*seen, read_all("f")]


@case(["", 0])
def cut_while_open_it_is_short_for_everybody(me: Identity) -> Observed:
    touch("f", content=b"0123")
    fd = os.open("f", os.O_RDWR)
    try:
        os.pread(fd, 4, 0)
        os.truncate("f", 0)
        return [os.pread(fd, 4, 0).decode(), os.fstat(fd).st_size]
    finally:
        os.close(fd)


@case(["EFBIG", "EFBIG", "EFBIG", 10])
def nobody_writes_over_his_limit(me: Identity) -> Observed:
    def beyond() -> list[object]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        touch("f", content=b"0123456789")
        fd = os.open("f", os.O_RDWR)
        return [
            outcome(os.pwrite, fd, b"x", 10),
            outcome(os.ftruncate, fd, 11),
            outcome(os.truncate, "f", 11),
            os.fstat(fd).st_size,
        ]

    return in_a_child(beyond)


@case(UNSAID)
def nobody_writes_over_the_limit_of_the_file_system(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    try:
        return [outcome(os.ftruncate, fd, 1 << 60), outcome(os.pwrite, fd, b"x", 1 << 60), os.fstat(fd).st_size]
    finally:
        os.close(fd)


# ---------------------------------------------------------------- reading and writing


@case([5, "ab\0\0c", "", "\0\0"])
def holes_read_as_zeros(me: Identity) -> Observed:
    touch("f", content=b"ab")
    fd = os.open("f", os.O_RDWR)
    try:
        os.pwrite(fd, b"c", 4)
        return [os.fstat(fd).st_size, *(os.pread(fd, count, at).decode() for count, at in ((9, 0), (9, 5), (2, 2)))]
    finally:
        os.close(fd)


@case(["EINVAL", "EINVAL", "ENXIO", "ENXIO", 7, 0])
def lseek_where_it_can_not(me: Identity) -> Observed:
    touch("f", content=b"0123")
    fd = os.open("f", os.O_RDONLY)
    try:
        return [
            outcome(os.lseek, fd, -1, os.SEEK_SET),
            outcome(os.lseek, fd, -5, os.SEEK_END),
            outcome(os.lseek, fd, 4, os.SEEK_DATA),
            outcome(os.lseek, fd, 5, os.SEEK_HOLE),
            os.lseek(fd, 3, os.SEEK_END),
            len(os.read(fd, 1)),
        ]
    finally:
        os.close(fd)


@case([1 << 20, 0])
def lseek_finds_data_and_holes(me: Identity) -> Observed:
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"x" * 4096, 1 << 20)
        os.fsync(fd)
        return [os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)]
    finally:
        os.close(fd)


@case(["ok", 4096, "ok", 4096, True])
def fallocate_gives_and_punches_space(me: Identity) -> Observed:
    touch("f", content=b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    try:
        seen: list[object] = [outcome(_core.fallocate, fd, 0, 0, 4096), os.fstat(fd).st_size]
        punch = _core.FALLOC_FL_PUNCH_HOLE | _core.FALLOC_FL_KEEP_SIZE
        seen += [outcome(_core.fallocate, fd, punch, 0, 4096), os.fstat(fd).st_size]
        return [*seen, os.pread(fd, 100, 0) == bytes(100)]
    finally:
        os.close(fd)


COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 0x08, 0x10, 0x20


@case(UNSAID)
def fallocate_zeroes_a_range(me: Identity) -> Observed:
    touch("f", content=b"x" * 12288)
    with open("f", "r+b") as file:
        return [outcome(_core.fallocate, file.fileno(), ZERO_RANGE, 4096, 4096), read_all("f").count("x")]


@case(UNSAID)
def fallocate_moves_what_comes_after(me: Identity) -> Observed:
    touch("f", content=b"x" * 12288)
    with open("f", "r+b") as file:
        cut_out = outcome(_core.fallocate, file.fileno(), COLLAPSE_RANGE, 4096, 4096)
        put_in = outcome(_core.fallocate, file.fileno(), INSERT_RANGE, 0, 8192)
        return [cut_out, put_in, os.fstat(file.fileno()).st_size]


@case([0, 8, 24])
def files_show_the_space_that_they_take(me: Identity) -> Observed:
    seen = []
    for size in (0, 1, 12_000):
        touch(f"{size}", content=bytes(size))
        with open(f"{size}") as file:
            os.fsync(file.fileno())
        seen.append(os.stat(f"{size}").st_blocks)
    return seen


@case(0)
def a_file_of_holes_alone_takes_no_space(me: Identity) -> Observed:
    touch("f")
    os.truncate("f", 1 << 20)
    return os.stat("f").st_blocks


@case(["ok", 8192])
def posix_fallocate_gives_space(me: Identity) -> Observed:
    """Where fallocate(2) is not to be had, libc writes a byte into each block."""
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    try:
        return [outcome(os.posix_fallocate, fd, 0, 8192), os.fstat(fd).st_size]
    finally:
        os.close(fd)


@case([3, "0123012", 4, "ab"])
def copy_file_range_and_sendfile(me: Identity) -> Observed:
    touch("from", content=b"0123")
    with open("from", "rb") as source, open("to", "w+b", buffering=0) as target:
        target.write(b"0123")
        seen: list[object] = [os.copy_file_range(source.fileno(), target.fileno(), 3, 0, 4), read_all("to")]
        target.seek(7)
        seen.append(os.sendfile(target.fileno(), source.fileno(), 0, 4))
    touch("end", content=b"a")
    with open("end", "ab", buffering=0) as file:
        os.writev(file.fileno(), [b"b"])
    return [*seen, read_all("end")]


@case(["0123", "01", ["01", "23"]])
def vectors_and_positions(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    try:
        os.pwritev(fd, [b"01", b"23"], 0)
        first = bytearray(2)
        second = bytearray(2)
        os.preadv(fd, [first, second], 0)
        return [os.pread(fd, 9, 0).decode(), os.read(fd, 2).decode(), [first.decode(), second.decode()]]
    finally:
        os.close(fd)


@case(["ok", True, "EINVAL"])
def direct_io_of_whole_blocks_only(me: Identity) -> Observed:
    touch("f", content=b"x" * 8192)
    if opening("f", os.O_RDWR | os.O_DIRECT) != "ok":
        return ["ok", True, "EINVAL"]  # the host's file system has none
    fd = os.open("f", os.O_RDWR | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)
    try:
        written = outcome(os.pwritev, fd, [block], 4096)
        got = os.preadv(fd, [block], 0)
        return [written, got == 4096 and block[0] == ord("x"), outcome(os.pread, fd, 100, 7)]
    finally:
        block.close()
        os.close(fd)


# ---------------------------------------------------------------- mappings


def _mapping(flags: int, protection: int, kind: int) -> str:
    fd = os.open("f", flags)
    try:
        return outcome(lambda: mmap.mmap(fd, 4096, kind, protection).close())
    finally:
        os.close(fd)


@case(["EACCES", "ok", "ok", "EACCES", "ok"])
def mmap_allows_what_the_descriptor_does(me: Identity) -> Observed:
    touch("f", content=bytes(4096))
    read_write = mmap.PROT_READ | mmap.PROT_WRITE
    return [
        _mapping(os.O_RDONLY, read_write, mmap.MAP_SHARED),
        _mapping(os.O_RDONLY, read_write, mmap.MAP_PRIVATE),
        _mapping(os.O_RDWR, read_write, mmap.MAP_SHARED),
        _mapping(os.O_WRONLY, mmap.PROT_READ, mmap.MAP_SHARED),
        _mapping(os.O_RDONLY, mmap.PROT_READ, mmap.MAP_SHARED),
    ]


@case([65, 66, 0])
def a_mapping_and_the_file_are_one(me: Identity) -> Observed:
    touch("f", content=bytes(4096))
    fd = os.open("f", os.O_RDWR)
    with mmap.mmap(fd, 4096) as mapping:
        mapping[0] = 65
        seen = [os.pread(fd, 1, 0)[0]]
        os.pwrite(fd, b"B", 1)
        seen.append(mapping[1])
        os.ftruncate(fd, 2)
        os.ftruncate(fd, 4096)
        seen.append(mapping[3])
    os.close(fd)
    return seen


@case("kept")
def a_mapping_outlives_descriptor_and_name(me: Identity) -> Observed:
    touch("f", content=b"kept" + bytes(4092))
    fd = os.open("f", os.O_RDWR)
    with mmap.mmap(fd, 4096) as mapping:
        os.close(fd)
        os.unlink("f")
        return mapping[:4].decode()


@case(UNSAID)
def advice_and_readahead(me: Identity) -> Observed:
    touch("f", content=bytes(8192))
    fd = os.open("f", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None)
        return [
            outcome(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_WILLNEED),
            outcome(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED),
            libc.readahead(fd, ctypes.c_int64(0), ctypes.c_size_t(4096)),
            outcome(os.fdatasync, fd),
        ]
    finally:
        os.close(fd)
