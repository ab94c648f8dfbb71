"""Which times each call moves, of the file and of its directory: POSIX's "mark for update"."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import subprocess
from collections.abc import Callable

from posix_suite.identities import Identity
from posix_suite.observing import moved, outcome, read_all, touch
from posix_suite.registry import UNSAID, Observed, case

PAGE = mmap.PAGESIZE


def _with(flags: int, act: Callable[[int], object], *, size: int = 2 * PAGE) -> dict[str, str]:
    """What moves when something is done to an open file, whose open itself is not counted."""
    touch("f", content=bytes(size))
    fd = os.open("f", flags)
    try:
        return moved(lambda: act(fd), "f", ".")
    finally:
        os.close(fd)


# ---------------------------------------------------------------- what is made


@case({".": "mc"})
def creating_moves_times_of_the_directory(me: Identity) -> Observed:
    return moved(lambda: os.close(os.open("f", os.O_WRONLY | os.O_CREAT)), ".")


@case({".": "", "f": ""})
def opening_what_is_there_moves_nothing(me: Identity) -> Observed:
    touch("f", content=b"1")
    return moved(lambda: os.close(os.open("f", os.O_RDWR | os.O_CREAT)), ".", "f")


@case({name: {".": "mc"} for name in ("fifo", "node", "socket")})
def making_special_files_moves_times_of_the_directory(me: Identity) -> Observed:
    def bind() -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")

    makers = {"fifo": lambda: os.mkfifo("fifo"), "node": lambda: os.mknod("node"), "socket": bind}
    return {name: moved(make, ".") for name, make in makers.items()}


@case([True, True, True])
def a_new_file_has_all_three_times_of_now(me: Identity) -> Observed:
    os.close(os.open("reference", os.O_WRONLY | os.O_CREAT))
    moved(lambda: None)  # the clock ticks
    touch("f")
    reference, status = os.stat("reference").st_mtime_ns, os.stat("f")
    return [each > reference for each in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)]


# ---------------------------------------------------------------- reading


@case({"f": "a", ".": ""})
def reading_moves_the_atime(me: Identity) -> Observed:
    return _with(os.O_RDONLY, lambda fd: os.read(fd, 10))


@case(UNSAID)
def reading_no_bytes_moves_nothing(me: Identity) -> Observed:
    return _with(os.O_RDONLY, lambda fd: os.read(fd, 0))


@case({"f": "a"})
def reading_an_empty_file_moves_the_atime(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: read_all("f"), "f")


@case([{"f": "a"}, {"f": "a"}])
def reading_twice_moves_the_atime_twice(me: Identity) -> Observed:
    touch("f", content=b"12")
    fd = os.open("f", os.O_RDONLY)
    try:
        return [moved(lambda: os.pread(fd, 2, 0), "f") for _ in range(2)]
    finally:
        os.close(fd)


@case({"f": "", ".": ""})
def reading_with_noatime_moves_nothing(me: Identity) -> Observed:
    return _with(os.O_RDONLY | os.O_NOATIME, lambda fd: os.read(fd, 10))


@case({"f": "a", ".": ""})
def reading_through_a_mapping_moves_the_atime(me: Identity) -> Observed:
    def read(fd: int) -> None:
        with mmap.mmap(fd, PAGE, prot=mmap.PROT_READ) as mapping:
            assert mapping[0] == 0

    return _with(os.O_RDONLY, read)


@case({"f": "", ".": ""})
def looking_moves_nothing(me: Identity) -> Observed:
    return _with(
        os.O_RDONLY, lambda fd: (os.fstat(fd), os.stat("f"), os.lseek(fd, 0, os.SEEK_END), os.access("f", os.R_OK))
    )


@case({"true": "a", ".": ""})
def running_a_program_moves_its_atime(me: Identity) -> Observed:
    shutil.copy("/bin/true", "true")
    return moved(lambda: subprocess.run(["./true"], check=True), "true", ".")


# ---------------------------------------------------------------- writing


@case({"f": "mc", ".": ""})
def writing_moves_times(me: Identity) -> Observed:
    return _with(os.O_WRONLY, lambda fd: os.write(fd, b"x"))


@case({"f": "mc", ".": ""})
def appending_moves_times(me: Identity) -> Observed:
    return _with(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x"))


@case({"f": "", ".": ""})
def writing_nothing_moves_nothing(me: Identity) -> Observed:
    return _with(os.O_WRONLY, lambda fd: os.write(fd, b""))


@case({"f": "mc", ".": ""})
def storing_through_a_mapping_moves_times_by_msync(me: Identity) -> Observed:
    def store(fd: int) -> None:
        with mmap.mmap(fd, PAGE) as mapping:
            mapping[0] = 1
            mapping.flush()

    seen = _with(os.O_RDWR, store)
    return seen | {"f": seen["f"].replace("a", "")}  # a page is read before it is stored to, or is not


@case(UNSAID)
def storing_through_a_mapping_moves_times_before_msync(me: Identity) -> Observed:
    """POSIX wants it by msync(2) or soon after; Linux does it when the page is stored to."""
    touch("f", content=bytes(PAGE))
    with open("f", "r+b") as file, mmap.mmap(file.fileno(), PAGE) as mapping:

        def store() -> None:
            mapping[0] = 1

        return moved(store, "f")["f"].replace("a", "")


@case({"f": "mc"})
def a_write_shows_in_the_times_while_the_file_is_open(me: Identity) -> Observed:
    touch("f")
    with open("f", "wb", buffering=0) as file:
        return moved(lambda: file.write(b"x"), "f")


@case({"f": "", ".": ""})
def closing_and_syncing_move_nothing(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    os.write(fd, b"x")

    def sync_and_close() -> None:
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)

    return moved(sync_and_close, "f", ".")


# ---------------------------------------------------------------- cutting


@case({"f": "mc", ".": ""})
def cutting_moves_times(me: Identity) -> Observed:
    return _with(os.O_RDONLY, lambda _: os.truncate("f", 1))


@case({"f": "mc", ".": ""})
def growing_moves_times(me: Identity) -> Observed:
    return _with(os.O_RDWR, lambda fd: os.ftruncate(fd, 10 * PAGE))


@case(UNSAID)
def cutting_to_the_size_it_has(me: Identity) -> Observed:
    """POSIX leaves truncate(2) of no change free, and wants ftruncate(2) to move both."""
    touch("f", content=b"12")
    with open("f", "r+b") as file:
        by_descriptor = moved(lambda: os.ftruncate(file.fileno(), 2), "f")
    return [by_descriptor, moved(lambda: os.truncate("f", 2), "f")]


@case({"f": "mc", ".": ""})
def opening_with_truncation_moves_times(me: Identity) -> Observed:
    touch("f", content=b"12")
    return moved(lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)), "f", ".")


@case(UNSAID)
def opening_an_empty_file_with_truncation_moves(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)), "f", ".")


@case({"f": ""})
def failing_moves_nothing(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")

    def fail() -> None:
        assert outcome(os.rename, "f", "d") == "EISDIR"
        assert outcome(os.link, "f", "d") == "EEXIST"
        assert outcome(os.rmdir, "f") == "ENOTDIR"
        assert outcome(os.truncate, "f", -1) == "EINVAL"

    return moved(fail, "f")


# ---------------------------------------------------------------- attributes and names


@case({"f": "c", ".": ""})
def setting_an_attribute_moves_the_ctime(me: Identity) -> Observed:
    touch("f")
    return moved(lambda: os.setxattr("f", "user.x", b"1"), "f", ".")


@case({"f": "c", ".": ""})
def removing_an_attribute_moves_the_ctime(me: Identity) -> Observed:
    touch("f")
    os.setxattr("f", "user.x", b"1")
    return moved(lambda: os.removexattr("f", "user.x"), "f", ".")


@case({"f": "", ".": ""})
def reading_attributes_moves_nothing(me: Identity) -> Observed:
    touch("f")
    os.setxattr("f", "user.x", b"1")
    return moved(lambda: (os.getxattr("f", "user.x"), os.listxattr("f")), "f", ".")


@case({"old": "gone", "new": "new", ".": "mc"})
def renaming_within_a_directory_moves_its_times(me: Identity) -> Observed:
    touch("old")
    return moved(lambda: os.rename("old", "new"), "old", "new", ".")


@case({"a": "mc", "b": "mc", ".": ""})
def renaming_a_directory_moves_times_of_both_parents(me: Identity) -> Observed:
    os.makedirs("a/d")
    os.mkdir("b")
    return moved(lambda: os.rename("a/d", "b/d"), "a", "b", ".")


@case({"fifo": "mc", ".": ""})
def writing_into_a_fifo_moves_its_times(me: Identity) -> Observed:
    os.mkfifo("fifo")
    fd = os.open("fifo", os.O_RDWR)
    try:
        seen = moved(lambda: os.write(fd, b"x"), "fifo", ".")
        os.read(fd, 1)
        return seen
    finally:
        os.close(fd)
