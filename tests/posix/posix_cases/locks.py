"""flock(2), fcntl(2)'s locks of processes and of open files."""

from __future__ import annotations

import fcntl
import os
import struct

from posix_suite.identities import STRANGER, Identity
from posix_suite.observing import in_a_child, outcome, touch
from posix_suite.registry import Observed, case

F_OFD_SETLK = 37
NOW = fcntl.LOCK_NB


def _flock_elsewhere(kind: int) -> str:
    answer: str = in_a_child(lambda: outcome(fcntl.flock, os.open("f", os.O_RDWR), kind | NOW))
    return answer


def _lockf_elsewhere(kind: int, length: int, start: int) -> str:
    answer: str = in_a_child(lambda: outcome(fcntl.lockf, os.open("f", os.O_RDWR), kind | NOW, length, start))
    return answer


def _struct(kind: int, start: int, length: int) -> bytes:
    """struct flock of 64 bits."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


@case(["EAGAIN", "EAGAIN", "ok", "EAGAIN", "ok"])
def flock_between_processes(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    seen = [_flock_elsewhere(fcntl.LOCK_SH), _flock_elsewhere(fcntl.LOCK_EX)]
    fcntl.flock(fd, fcntl.LOCK_SH)
    seen += [_flock_elsewhere(fcntl.LOCK_SH), _flock_elsewhere(fcntl.LOCK_EX)]
    os.close(fd)
    return [*seen, _flock_elsewhere(fcntl.LOCK_EX)]


@case(["EAGAIN", "ok", "EAGAIN", "ok"])
def flock_belongs_to_the_open_file(me: Identity) -> Observed:
    touch("f")
    first, second = os.open("f", os.O_RDONLY), os.open("f", os.O_RDONLY)
    twin = os.dup(first)
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        seen = [outcome(fcntl.flock, second, fcntl.LOCK_EX | NOW), outcome(fcntl.flock, twin, fcntl.LOCK_EX | NOW)]
        os.close(first)
        seen.append(outcome(fcntl.flock, second, fcntl.LOCK_EX | NOW))
        fcntl.flock(twin, fcntl.LOCK_UN)
        return [*seen, outcome(fcntl.flock, second, fcntl.LOCK_EX | NOW)]
    finally:
        os.close(second)
        os.close(twin)


@case(["EAGAIN", "ok", "EAGAIN", "ok", "ok"])
def record_locks_between_processes(me: Identity) -> Observed:
    touch("f", content=bytes(100))
    fd, other = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
    seen = [_lockf_elsewhere(fcntl.LOCK_EX, 1, 29), _lockf_elsewhere(fcntl.LOCK_EX, 1, 30)]
    os.rename("f", "moved")
    os.link("moved", "f")
    seen += [_lockf_elsewhere(fcntl.LOCK_SH, 1, 20), outcome(fcntl.lockf, other, fcntl.LOCK_EX | NOW, 10, 20)]
    os.close(other)  # any close drops all locks of the process
    seen.append(_lockf_elsewhere(fcntl.LOCK_EX, 0, 0))
    os.close(fd)
    return seen


@case(["ok", "EAGAIN", True, 5, 10])
def record_locks_tell_who_holds_them(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_SH, 10, 5)
    asked = in_a_child(
        lambda: list(
            struct.unpack("hhqqi4x", fcntl.fcntl(os.open("f", os.O_RDWR), fcntl.F_GETLK, _struct(fcntl.F_WRLCK, 0, 0)))
        )
    )
    seen = [_lockf_elsewhere(fcntl.LOCK_SH, 1, 5), _lockf_elsewhere(fcntl.LOCK_EX, 1, 5)]
    os.close(fd)
    return [*seen, asked[4] == os.getpid(), asked[2], asked[3]]


@case(["EBADF", "EBADF", "ok", "EINVAL"])
def record_locks_need_a_descriptor_of_their_kind(me: Identity) -> Observed:
    touch("f")
    reading, writing = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY)
    try:
        return [
            outcome(fcntl.lockf, reading, fcntl.LOCK_EX | NOW),
            outcome(fcntl.lockf, writing, fcntl.LOCK_SH | NOW),
            outcome(fcntl.flock, reading, fcntl.LOCK_EX | NOW),  # flock needs none
            outcome(fcntl.fcntl, reading, fcntl.F_SETLK, _struct(fcntl.F_RDLCK, -1, 1)),
        ]
    finally:
        os.close(reading)
        os.close(writing)


@case(["EAGAIN", "EAGAIN", "ok"])
def locks_of_open_files(me: Identity) -> Observed:
    touch("f")
    first, second = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    lock = _struct(fcntl.F_WRLCK, 0, 10)
    try:
        fcntl.fcntl(first, F_OFD_SETLK, lock)
        seen = [outcome(fcntl.fcntl, second, F_OFD_SETLK, lock), _lockf_elsewhere(fcntl.LOCK_EX, 1, 0)]
        os.close(first)
        return [*seen, outcome(fcntl.fcntl, second, F_OFD_SETLK, lock)]
    finally:
        os.close(second)


@case(["EAGAIN", "ok"])
def locks_exclude_other_users(me: Identity) -> Observed:
    touch("f", 0o666)
    fd = os.open("f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
    with STRANGER.acting():
        seen = [_lockf_elsewhere(fcntl.LOCK_EX, 1, 0)]
    os.close(fd)
    with STRANGER.acting():
        return [*seen, _lockf_elsewhere(fcntl.LOCK_EX, 1, 0)]


@case(["EAGAIN", "ok"])
def locks_of_a_file_without_a_name(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDWR)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.unlink("f")
        fcntl.flock(fd, fcntl.LOCK_EX)
        seen = [outcome(fcntl.flock, again, fcntl.LOCK_EX | NOW)]
        fcntl.flock(fd, fcntl.LOCK_UN)
        return [*seen, outcome(fcntl.flock, again, fcntl.LOCK_EX | NOW)]
    finally:
        os.close(fd)
        os.close(again)
