"""Limits too large for a case: how many names a file may have, and how deep a tree may be."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounting import Mounted, error_of

from fsxsync.mount.nodes import LONGEST_WALK

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")

ENOUGH = 66_000
"""ext4 allows 65,000 names, btrfs 65,535 and fewer in one directory; xfs two thousand millions."""


def test_a_file_has_as_many_names_as_the_host_allows(tmp_path: Path) -> None:
    names = tmp_path / "tree" / "names"
    names.mkdir(parents=True)
    (names / "0").touch()
    limit = _link_until_refused(names)
    if limit == 0:
        pytest.skip("the host file system allows more names than a test can make")

    with Mounted(tmp_path, passthrough="off") as mounted:
        here = mounted.path / "names"
        assert error_of(os.link, here / "0", here / "new") == errno.EMLINK
        assert (here / "0").stat().st_nlink == limit

        (here / "1").unlink()
        os.link(here / "0", here / "new")

        assert error_of(os.link, here / "0", here / "another") == errno.EMLINK


def _link_until_refused(names: Path) -> int:
    """How many names the file has then; 0: it was never refused."""
    for number in range(1, ENOUGH):
        try:
            os.link(names / "0", names / str(number))
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return (names / "0").stat().st_nlink
    return 0


@pytest.mark.slow
def test_a_tree_may_have_more_levels_than_a_key_could_name(tmp_path: Path) -> None:
    """And not as many as the host allows: below `LONGEST_WALK` levels nothing is made, and what is there is seen."""
    (tmp_path / "tree").mkdir()
    bottom = _go_down(tmp_path / "tree", LONGEST_WALK + 10, os.mkdir)
    os.close(bottom)
    try:
        with Mounted(tmp_path, passthrough="off") as mounted:
            last = _go_down(mounted.path, LONGEST_WALK - 1, _nothing)
            os.mkdir("made", dir_fd=last)
            os.close(last)

            beyond = _go_down(mounted.path, LONGEST_WALK + 10, _nothing)
            assert os.listdir(beyond) == []
            assert error_of(lambda: os.mkdir("made", dir_fd=beyond)) == errno.ESTALE
            os.close(beyond)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)  # noqa: S603, S607 - shutil's calls itself too deep


def _nothing(_name: str, *, dir_fd: int) -> None:
    """What is there needs no making."""


def _go_down(directory: Path, levels: int, make: Callable[..., None]) -> int:
    """A descriptor of the last of so many directories in each other."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        make("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd
