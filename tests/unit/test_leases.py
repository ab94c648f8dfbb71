"""What the kernel tells of who has a file open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fsxsync.tree import leases


@pytest.mark.parametrize(("flags", "is_open"), [(os.O_RDONLY, False), (os.O_WRONLY, True), (os.O_RDWR, True)])
def test_who_has_a_file_open_for_writing_is_told_of(tmp_path: Path, flags: int, is_open: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    other, ours = os.open(path, flags), os.open(path, os.O_RDONLY)
    assert leases.is_open_for_writing(ours) is is_open
    os.close(other)
    assert not leases.is_open_for_writing(ours)
    os.close(ours)


def test_a_lease_that_was_taken_from_us_was_wanted_by_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does it after 45 s, in which this process was stopped."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    ours, fcntl_ = os.open(path, os.O_RDONLY), fcntl.fcntl

    def stopped(fd: int, command: int, argument: int = 0) -> int:
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
            fcntl_(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return fcntl_(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", stopped)
    assert leases.is_open_for_writing(ours)
    os.close(ours)
