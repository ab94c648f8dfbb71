# ruff: noqa: S603, S607 - mount(8)
"""The life of a mount: where it may be, how it ends, and what a killed daemon leaves."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from support.mounting import Mounted, error_of

from fsxsync import _core
from fsxsync.errors import MountPointUnusable
from fsxsync.mount.session import Session

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")


@pytest.fixture(autouse=True, params=["auto", "off"])
def data_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test on each of the two data paths."""
    monkeypatch.setenv("FSXSYNC_TEST_PASSTHROUGH", request.param)


def prepare(tree: Path, mountpoint: Path, state_dir: Path) -> None:
    Session().prepare(tree, mountpoint, state_dir=state_dir, attr_timeout_s=1.0, allow_other=False)


def test_it_is_a_mount_of_our_kind_and_ends_with_the_server(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        assert os.path.ismount(mounted.path)
        line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {mounted.path} " in line)
        assert line.startswith(f"fsxsync:{mounted.state_dir} ")
        assert line.split()[2] == "fuse.fsxsync"
        (mounted.path / "f").write_text("kept")

    assert not os.path.ismount(mounted.path)
    assert (mounted.tree / "f").read_text() == "kept"


def test_unmounting_from_outside_ends_the_server(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "f").touch()
        _core.umount2(bytes(mounted.path), 0)
        assert mounted.process.wait() == 0

    assert os.listdir(mounted.path) == []


def test_a_connection_aborted_from_outside_leaves_no_dead_mount(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        control = Path("/sys/fs/fuse/connections") / str(os.minor(os.stat(mounted.path).st_dev)) / "abort"
        if not os.access(control, os.W_OK):
            pytest.skip("needs fusectl")
        control.write_text("1")
        assert mounted.process.wait() == 0
        assert os.listdir(mounted.path) == []


def test_a_busy_mount_is_unmounted_all_the_same(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        file = open(mounted.path / "f", "w")  # noqa: SIM115 - it outlives the mount
        file.write("never flushed")

    assert not os.path.ismount(mounted.path)
    with pytest.raises(OSError, match="not connected"):
        file.close()


def test_a_killed_servers_mount_is_cleared_away_and_may_be_mounted_anew(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "f").write_text("kept")
        mounted.kill()
        assert error_of(os.stat, mounted.path) == errno.ENOTCONN

        prepare(mounted.tree, mounted.path, mounted.state_dir)

        assert not os.path.ismount(mounted.path)
        with Mounted(tmp_path) as again:
            assert (again.path / "f").read_text() == "kept"


def test_a_mount_point_that_is_missing_full_taken_or_no_directory_is_refused(tmp_path: Path) -> None:
    tree, state, full = tmp_path / "tree", tmp_path / "state", tmp_path / "full"
    for made in (tree, state, full):
        made.mkdir()
    (full / "f").touch()

    for mountpoint, why in (
        (tmp_path / "missing", "mkdir"),
        (full, "not empty"),
        (full / "f", "Not a directory"),
        (Path("/proc"), "mounted there already"),
        (tree, "in each other"),
        (state, "in each other"),
    ):
        with pytest.raises(MountPointUnusable, match=why):
            prepare(tree, mountpoint, state)


def test_a_mount_point_in_the_tree_or_around_the_state_directory_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "around" / "state"
    tree = state / "tree"
    (tree / "inside").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tree / "inside")

    for mountpoint in (tree / "inside", link, tmp_path / "around"):
        with pytest.raises(MountPointUnusable, match="in each other"):
            prepare(tree, mountpoint, state)


def test_a_served_mount_is_busy_to_the_next_daemon(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted, pytest.raises(MountPointUnusable, match="mounted there already"):
        prepare(mounted.tree, mounted.path, mounted.state_dir)


def test_a_bug_in_a_handler_costs_one_request(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        mounted.expected_log = "RuntimeError: a bug in a handler"
        mounted.ask("forbid", read_only=[], roots=[], bugs=["bad"])

        assert error_of(os.mkdir, mounted.path / "bad") == errno.EIO
        (mounted.path / "good").mkdir()

        assert os.listdir(mounted.path) == ["good"]


def test_other_file_systems_mounted_in_the_tree_are_not_served(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    with Mounted(tmp_path) as mounted:
        (mounted.tree / "other").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", mounted.tree / "other"], check=True)
        try:
            assert os.listdir(mounted.path) == []
            assert error_of(os.stat, mounted.path / "other") == errno.EXDEV
        finally:
            _core.umount2(bytes(mounted.tree / "other"), 0)


def test_the_table_shrinks_when_the_kernel_forgets(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        for number in range(500):
            (mounted.path / f"{number}").touch()
        assert mounted.ask("table_size") > 500

        for number in range(500):
            (mounted.path / f"{number}").unlink()
        while mounted.ask("table_size") > 10:  # forgets come in their own time
            os.listdir(mounted.path)
