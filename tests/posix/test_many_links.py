"""EMLINK: how many names a file may have is the host file system's limit."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.mounting import Mounted, error_of

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
