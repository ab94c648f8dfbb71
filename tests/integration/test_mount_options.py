"""mount(8)'s options reach the kernel, and a mount is found again by its mount point alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.instance import Instance

from fsxsync.mount.passthrough import why_not


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


@pytest.mark.parametrize(("word", "told"), [("off", "fuse (no passthrough: it is switched off)"), ("auto", "")])
def test_the_data_path_can_be_chosen_and_is_told(odd: Instance, word: str, told: str) -> None:
    wanted = told or ("passthrough" if not why_not(odd.base) else "fuse (no passthrough: ")
    try:
        odd.ok("mount", odd.directory, "--daemon", "-o", f"passthrough={word}")
        (odd.directory / "f").write_bytes(b"written")

        assert f"data path {wanted}" in " ".join(odd.ok("status").out.split())
        assert (odd.directory / "f").read_bytes() == b"written"
    finally:
        odd.clean_up()


def test_an_unknown_data_path_is_refused(odd: Instance) -> None:
    done = odd.run("mount", odd.directory, "-o", "passthrough=perhaps")
    assert done.code == 2
    assert done.err.startswith("fsxsync: mount option 'passthrough=perhaps'")
    assert len(done.err.splitlines()) == 1


def test_an_unknown_option_is_refused(odd: Instance) -> None:
    done = odd.run("mount", odd.directory, "-o", "ro,frobnicate")
    assert done.code == 2
    assert done.err.startswith("fsxsync: mount option 'frobnicate'")
    assert len(done.err.splitlines()) == 1
