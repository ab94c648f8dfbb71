"""The relay between the kernel and libfuse, with a socket in the kernel's place."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.channel_ends import (
    COPY,
    COPY_64,
    CREATE,
    FALLOCATE,
    GETXATTR,
    INIT,
    INTERRUPT,
    LOOKUP,
    LSEEK,
    OPEN,
    READ,
    XATTR,
    Ends,
)

from fsxsync import _core

KEEP_CACHE, NOFLUSH, PASSES = 1 << 1, 1 << 5, 1 << 7
PARALLEL_DIROPS, MAX_PAGES, KILLPRIV_V2, INIT_EXT = 1 << 18, 1 << 22, 1 << 28, 1 << 30
PASSTHROUGH_2 = 1 << 5  # in flags2
WRITEBACK = 1 << 16
NO_FLUSH = 1 << 31  # in a handle


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def fh_of(fd: int, backing_id: int = 0) -> int:
    return fd | backing_id << 32


# ---------------------------------------------------------------- passing on


def test_requests_and_answers_pass_unchanged(ends: Ends) -> None:
    assert ends.exchange(LOOKUP, 2, b"entry" * 20, body=b"name\0") == b"entry" * 20
    data = os.urandom(65536)
    assert ends.exchange(READ, 4, data) == data
    assert ends.exchange(LOOKUP, 6, b"", error=errno.ENOENT) == b""
    assert ends.channel.stats() == {"requests": 3, "answered": 0, "refused": 0, "opening": 0}


def test_answers_come_in_any_order_and_long_ones_too(ends: Ends) -> None:
    for unique in range(2, 400, 2):
        ends.ask(OPEN, unique, bytes(8))
        ends.libfuse.recv(1 << 20)
    assert ends.channel.stats()["opening"] == 199
    for unique in reversed(range(2, 400, 2)):
        ends.libfuse.send(struct.pack("<IiQQII", 32, 0, unique, fh_of(5, unique), 0, 0))
        assert struct.unpack("<QIi", ends.answer(unique)) == (fh_of(5, unique), PASSES, unique)
    assert ends.channel.stats()["opening"] == 0
    long = os.urandom(100_000)
    assert ends.exchange(READ, 500, long) == long


def gone() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen(["true"]) as process:  # noqa: S607
        process.wait()
    return process.pid


def test_who_was_killed_waits_for_no_open_any_more(ends: Ends) -> None:
    ends.ask(OPEN, 2, bytes(8), pid=gone())
    ends.libfuse.recv(1 << 20)
    ends.ask(INTERRUPT, 3, struct.pack("<Q", 2))

    assert ends.answer(2, errno.EINTR) == b""
    ends.libfuse.send(struct.pack("<IiQQII", 32, 0, 2, fh_of(5), 0, 0))
    assert ends.exchange(READ, 4, b"goes on") == b"goes on"  # and nothing came in between
    assert list(ends.channel.drain()) == [(_core.FACT_RELEASED, fh_of(5))]
    assert ends.channel.stats()["opening"] == 0


def test_a_create_is_not_given_up_for_it_waits_for_no_data(ends: Ends) -> None:
    ends.ask(CREATE, 2, bytes(16) + b"f\0", pid=gone())
    ends.libfuse.recv(1 << 20)
    sent = ends.ask(INTERRUPT, 3, struct.pack("<Q", 2))

    assert ends.libfuse.recv(1 << 20) == sent
    ends.libfuse.send(struct.pack("<IiQ", 16 + 144, 0, 2) + bytes(128) + struct.pack("<QII", fh_of(5), 0, 0))
    assert struct.unpack_from("<Q", ends.answer(2), 128)[0] == fh_of(5)


def test_a_signal_that_kills_nobody_interrupts_no_open(ends: Ends) -> None:
    ends.ask(OPEN, 2, bytes(8), pid=1)
    ends.libfuse.recv(1 << 20)
    sent = ends.ask(INTERRUPT, 3, struct.pack("<Q", 2))

    assert ends.libfuse.recv(1 << 20) == sent
    ends.libfuse.send(struct.pack("<IiQQII", 32, 0, 2, fh_of(5), 0, 0))
    assert struct.unpack("<QIi", ends.answer(2))[0] == fh_of(5)


# ---------------------------------------------------------------- INIT


def init(ends: Ends, flags: int, flags2: int, answered: int = 0, *, length: int = 64) -> tuple[int, ...]:
    """(flags, max_write, max_pages, flags2, max_stack_depth) that the kernel gets."""
    asked = struct.pack("<IIIII44x", 7, 45, 131072, flags, flags2)
    answer = struct.pack("<IIIIHHIIHHII24x", 7, 38, 131072, answered, 12, 9, 1 << 20, 1, 256, 0, 0, 0)[:length]
    got = ends.exchange(INIT, 2, answer, body=asked)
    assert len(got) == 64
    fields = struct.unpack("<IIIIHHIIHHII24x", got)
    assert fields[:3] == (7, 38, 131072)
    return fields[3], fields[6], fields[8], fields[10], fields[11]


def test_what_libfuse_does_not_know_is_added_to_its_answer(ends: Ends) -> None:
    offered = PARALLEL_DIROPS | KILLPRIV_V2 | INIT_EXT | MAX_PAGES | WRITEBACK
    flags, max_write, max_pages, flags2, depth = init(ends, offered, PASSTHROUGH_2 | 1, MAX_PAGES | WRITEBACK)

    assert flags == PARALLEL_DIROPS | KILLPRIV_V2 | INIT_EXT | MAX_PAGES  # writeback excludes passthrough
    assert (flags2, depth) == (PASSTHROUGH_2, 1)
    assert max_write == max_pages * os.sysconf("SC_PAGESIZE") == 65536


@pytest.mark.parametrize("length", [64, 48, 24])
def test_nothing_is_added_that_the_kernel_does_not_offer(ends: Ends, length: int) -> None:
    flags, _, _, flags2, _ = init(ends, PARALLEL_DIROPS, PASSTHROUGH_2, length=length)  # flags2 without INIT_EXT
    assert (flags, flags2) == (PARALLEL_DIROPS, 0)


# ---------------------------------------------------------------- OPEN and CREATE


def test_a_backing_id_in_the_handle_opens_in_passthrough(ends: Ends) -> None:
    opened = struct.pack("<QII", fh_of(9, 5), KEEP_CACHE, 0)

    assert struct.unpack("<QIi", ends.exchange(OPEN, 2, opened)) == (fh_of(9, 5), PASSES, 5)
    created = ends.exchange(CREATE, 4, bytes(range(128)) + opened)
    assert created[:128] == bytes(range(128))
    assert struct.unpack("<QIi", created[128:]) == (fh_of(9, 5), PASSES, 5)


def test_without_a_backing_id_the_answer_is_as_it_was(ends: Ends) -> None:
    opened = struct.pack("<QII", fh_of(9), KEEP_CACHE, 0)
    assert ends.exchange(OPEN, 2, opened) == opened
    assert ends.exchange(OPEN, 4, b"", error=errno.EACCES) == b""
    read_only = struct.pack("<QII", fh_of(9) | NO_FLUSH, KEEP_CACHE, 0)
    assert struct.unpack("<QIi", ends.exchange(OPEN, 6, read_only)) == (fh_of(9) | NO_FLUSH, KEEP_CACHE | NOFLUSH, 0)


def test_data_that_looks_like_an_answer_to_open_is_data(ends: Ends) -> None:
    opened = struct.pack("<QII", fh_of(9, 5), KEEP_CACHE, 0)
    assert ends.exchange(READ, 2, opened) == opened
    ends.ask(OPEN, 4, bytes(8))  # while another one is awaited, too
    ends.libfuse.recv(1 << 20)
    assert ends.exchange(READ, 6, opened) == opened


# ---------------------------------------------------------------- answered by itself


def test_holes_are_found_on_the_handles_own_file(ends: Ends, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x", 1 << 20)

    ends.ask(LSEEK, 2, struct.pack("<QQII", fh_of(fd, 3), 0, os.SEEK_DATA, 0))
    assert struct.unpack("<Q", ends.answer(2)) == (1 << 20,)
    ends.ask(LSEEK, 4, struct.pack("<QQII", fh_of(fd, 3), 1 << 21, os.SEEK_DATA, 0))
    assert ends.answer(4, errno.ENXIO) == b""

    os.setxattr(fd, XATTR, b"1")  # now its holes are data that is not here
    ends.ask(LSEEK, 6, struct.pack("<QQII", fh_of(fd, 3) | NO_FLUSH, 5, os.SEEK_DATA, 0))
    assert struct.unpack("<Q", ends.answer(6)) == (5,)
    ends.ask(LSEEK, 8, struct.pack("<QQII", fh_of(fd, 3), 5, os.SEEK_HOLE, 0))
    assert struct.unpack("<Q", ends.answer(8)) == ((1 << 20) + 1,)
    os.close(fd)


def test_space_and_copies_on_the_handles_own_file(ends: Ends, tmp_path: Path) -> None:
    source, target = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b"))
    os.write(source, b"0123456789")

    ends.ask(FALLOCATE, 2, struct.pack("<QQQII", fh_of(target), 0, 8192, 0, 0))
    assert ends.answer(2) == b""
    assert os.fstat(target).st_size == 8192
    copy = struct.pack("<QQQQQQQ", fh_of(source), 2, 9, fh_of(target), 100, 5, 0)
    ends.ask(COPY, 4, copy)
    assert struct.unpack("<II", ends.answer(4)) == (5, 0)
    ends.ask(COPY_64, 6, copy)
    assert struct.unpack("<Q", ends.answer(6)) == (5,)
    assert os.pread(target, 5, 100) == b"23456"
    os.setxattr(source, XATTR, b"1")
    ends.ask(COPY, 8, copy)
    assert ends.answer(8, errno.EOPNOTSUPP) == b""  # the kernel reads then, and reading loads
    os.close(source)
    os.close(target)


def test_another_users_change_takes_the_set_id_bits_and_the_kernel_is_told(ends: Ends, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    for mode, uid, expected in ((0o6755, 0, 0o6755), (0o2644, 1, 0o2644), (0o6755, 1, 0o755)):
        os.fchmod(fd, mode)
        ends.ask(FALLOCATE, 2, struct.pack("<QQQII", fh_of(fd), 0, 10, 0, 0), uid=uid, nodeid=77)
        if expected != mode:
            notification = ends.kernel.recv(1000)
            assert struct.unpack("<IiQQqq", notification) == (len(notification), 2, 0, 77, -1, 0)
        assert ends.answer(2) == b""
        assert os.fstat(fd).st_mode & 0o7777 == expected
    os.close(fd)


def test_security_attributes_are_denied_and_others_asked_for(ends: Ends) -> None:
    ends.ask(GETXATTR, 2, struct.pack("<II", 0, 0) + b"security.capability\0")
    assert ends.answer(2, errno.ENODATA) == b""
    assert ends.exchange(GETXATTR, 4, b"value", body=struct.pack("<II", 5, 0) + b"user.security.x\0") == b"value"
    ends.ask(GETXATTR, 6, struct.pack("<II", 0, 0) + b"security.selinux\0")
    assert ends.answer(6, errno.EOPNOTSUPP) == b""  # so that ls -l asks once, and not of each file
    assert ends.exchange(GETXATTR, 6, b"value", body=struct.pack("<II", 5, 0) + b"u\0") == b"value"


def test_nothing_of_these_reaches_libfuse(ends: Ends) -> None:
    ends.ask(LSEEK, 2, struct.pack("<QQII", fh_of(0x7FFFFFF0), 0, os.SEEK_DATA, 0))
    ends.answer(2, errno.EBADF)
    assert ends.exchange(LOOKUP, 4, b"x") == b"x"


# ---------------------------------------------------------------- notifications, the end


def test_notifications_go_past_libfuse(ends: Ends) -> None:
    ends.channel.invalidate_inode(42, True)
    assert struct.unpack("<IiQQqq", ends.kernel.recv(1000)) == (40, 2, 0, 42, -1, 0)
    ends.channel.invalidate_inode(42, False)
    assert struct.unpack("<IiQQqq", ends.kernel.recv(1000)) == (40, 2, 0, 42, 0, 0)
    ends.channel.invalidate_entry(43, "ü".encode())
    assert ends.kernel.recv(1000) == struct.pack("<IiQQII", 35, 3, 0, 43, 2, 0) + "ü\0".encode()


def test_the_end_of_the_kernels_side_is_seen(ends: Ends) -> None:
    ready = select.poll()
    ready.register(ends.channel.fileno(), select.POLLIN)
    assert ready.poll(0) == []
    ends.kernel.close()
    assert ready.poll(20_000)


def test_closing_waits_for_nobody_even_with_full_sockets(ends: Ends) -> None:
    ends.kernel.setblocking(False)
    unique = 2
    with contextlib.suppress(BlockingIOError):
        while True:  # libfuse reads none of it
            ends.ask(READ, unique, bytes(60_000))
            unique += 2

    ends.channel.close()
    ends.channel.close()

    for call in (lambda: ends.channel.join(7, 0, True), lambda: ends.channel.invalidate_inode(1, True)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()


def test_it_closes_what_it_opened() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        ends = Ends()
        ends.ask(OPEN, 2, bytes(8))  # never answered
        ends.libfuse.recv(1000)
        ends.close()
    del ends  # its journal can be read until then
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.Channel(1 << 20, XATTR)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_fuse_device_registers_nothing(ends: Ends) -> None:
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        ends.channel.join(7, 0, True)
    assert ends.channel.join(7, 0, False) == 0
    ends.channel.leave(7)
    ends.channel.leave(7)  # nobody is left: nothing happens
    with pytest.raises(TypeError):
        ends.channel.join(7, "f", True)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Channel(0, "not bytes")  # type: ignore[arg-type]
