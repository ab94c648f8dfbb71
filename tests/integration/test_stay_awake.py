"""Processors are kept awake while somebody asks the mount one thing after another, and no longer."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.instance import Instance, instance

DEVICE = "/dev/cpu_dma_latency"
FILES = 500

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(DEVICE, os.R_OK | os.W_OK), reason=f"needs root and {DEVICE}"
)


def allowed_us() -> int:
    """What waking up may take, as all programs of the machine together have it."""
    fd = os.open(DEVICE, os.O_RDONLY)
    try:
        return int(struct.unpack("i", os.read(fd, 4))[0])
    finally:
        os.close(fd)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def has_the_device(fsx: Instance) -> bool:
    fds = Path(f"/proc/{fsx.ok('status', '--json').json['pid']}/fd")
    return DEVICE in {os.readlink(fd) for fd in fds.iterdir() if fd.is_symlink()}


@pytest.mark.parametrize("word", ["auto", "on"])
def test_processors_stay_awake_while_one_thing_after_another_is_asked_for(tmp_path: Path, word: str) -> None:
    with instance(tmp_path, FSXSYNC_STAY_AWAKE=word) as fsx:
        if word == "auto" and (os.cpu_count() or 1) > 8:
            assert not has_the_device(fsx)
            return
        assert has_the_device(fsx)
        directory = fsx.directory / "d"
        directory.mkdir()
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                for number in range(FILES):  # names that are not there are asked for each time
                    (directory / f"f{number}").exists()
                for number in range(FILES):
                    os.close(os.open(directory / f"f{number}", os.O_CREAT | os.O_WRONLY))
                for number in range(FILES):
                    (directory / f"f{number}").unlink()

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            until(lambda: allowed_us() == 0)
        finally:
            is_over.set()
            asking.join()
        until(lambda: allowed_us() > 0)


def test_switched_off_it_does_not_touch_the_device(tmp_path: Path) -> None:
    with instance(tmp_path, FSXSYNC_STAY_AWAKE="off") as fsx:
        assert not has_the_device(fsx)
