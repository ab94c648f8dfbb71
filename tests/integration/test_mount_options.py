"""mount(8)'s options reach the kernel, and a mount is found again by its mount point alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.instance import Instance


@pytest.fixture
def odd(tmp_path: Path) -> Instance:
    made = Instance(tmp_path / "ü, %41 name")
    made.directory.mkdir(parents=True)
    return made


def test_options_and_odd_names(odd: Instance) -> None:
    try:
        odd.ok("mount", odd.directory, "--daemon", "-o", "ro,noexec,defaults,x-systemd.automount")
        assert os.statvfs(odd.directory).f_flag & (os.ST_RDONLY | os.ST_NOEXEC | os.ST_NOSUID) == (
            os.ST_RDONLY | os.ST_NOEXEC | os.ST_NOSUID
        )
        with pytest.raises(OSError) as refused:  # noqa: PT011  the errno is looked at
            (odd.directory / "file").touch()
        assert refused.value.errno == errno.EROFS
        odd.env = {"FSXSYNC_STATE_DIR": ""}
        done = odd.run("unmount", odd.directory)
        assert (done.code, done.err) == (0, "")
        assert not odd.directory.is_mount()
    finally:
        odd.clean_up()


def test_an_unknown_option_is_refused(odd: Instance) -> None:
    done = odd.run("mount", odd.directory, "-o", "ro,frobnicate")
    assert done.code == 2
    assert done.err.startswith("fsxsync: mount option 'frobnicate'")
    assert len(done.err.splitlines()) == 1
