"""What a service manager and mount(8) need: signs of life, a unit that stands, settings, a helper."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from support.instance import PROGRAM, Instance, eventually, instance

from fsxsync.config import Settings, load

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Instance]:
    with instance(tmp_path, start=False, program=PROGRAM) as made:
        made.directory.mkdir()
        yield made


def has_ended(pid: int) -> bool:
    """It is gone, or a zombie that nobody has buried yet: not every container's first process does."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("mounted", [True, False])
def test_a_service_manager_is_told(tmp_path: Path, *, mounted: bool) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        with instance(
            tmp_path, mounted=mounted, program=PROGRAM, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="400000"
        ) as made:
            told = [manager.recv(100) for _ in range(4)]
            assert sorted(told) == [b"READY=1", *[b"WATCHDOG=1"] * 3]
            assert made.stop() == 0
            while (word := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert word == b"STOPPING=1"


def test_the_unit_stands(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "fsxsync@.service"
    shutil.copy(DEPLOY / "fsxsync@.service", unit)
    done = subprocess.run(  # noqa: S603
        ["systemd-analyze", "verify", "--man=no", tmp_path / "fsxsync@demo.service"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "fsxsync" in line] == []
    assert done.returncode == 0, done.stderr


def test_the_units_commands_are_ours(stopped: Instance) -> None:
    text = (DEPLOY / "fsxsync@.service").read_text()
    words = re.findall(r"^Exec\w+=-?/usr/bin/env fsxsync --state-dir \S+ (\w+) (.*)$", text, re.MULTILINE)
    assert [command for command, _ in words] == ["mount", "unmount"]
    for command, arguments in words:
        known = stopped.ok(command, "--help").out
        assert all(option in known for option in re.findall(r"--[a-z-]+", arguments))


def test_the_example_settings_are_the_defaults(tmp_path: Path) -> None:
    text = (DEPLOY / "fsxsync.toml").read_text()
    uncommented = re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)
    file = tmp_path / "fsxsync.toml"
    file.write_text(uncommented)

    settings = load(file, {}, {"state_dir": "/s"})

    assert settings == Settings(state_dir=Path("/s"))
    named = set(re.findall(r"^(\w+) = ", uncommented, re.MULTILINE))
    apart = {"state_dir", "metrics_listen", "api_listen"}  # no default worth showing, or given by the unit
    assert named | apart == {field.name for field in fields(Settings)} | apart


def test_in_the_background_once_all_is_ready(stopped: Instance) -> None:
    done = stopped.ok("mount", stopped.directory, "--daemon")
    try:
        assert (done.out, done.err) == ("", "")
        assert os.path.ismount(stopped.directory)
        assert stopped.status()["mount"] == str(stopped.directory)
        (stopped.directory / "f").write_text("served")
        pid = stopped.status()["pid"]
        assert os.getsid(pid) != pid  # no session leader, so no terminal can become its own
        assert os.getsid(pid) != os.getsid(0)
    finally:
        stopped.ok("unmount")
    assert not os.path.ismount(stopped.directory)
    assert has_ended(pid)
    assert (stopped.tree / "f").read_text() == "served"


def test_a_watch_in_the_background(tmp_path: Path) -> None:
    with instance(tmp_path, mounted=False, start=False, program=PROGRAM) as made:
        made.directory.mkdir()
        made.ok("watch", made.directory, "--daemon")
        pid = made.status()["pid"]
        made.ok("unmount")
        assert has_ended(pid)


def as_mount_would(made: Instance, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """mount(8) calls /usr/sbin/mount.fuse.fsxsync SOURCE TARGET [-sfnv] [-o OPTIONS]."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "fsxsync"
    program.write_text(f"#!{sys.executable}\nfrom fsxsync.cli.main import main\nmain()\n")
    program.chmod(0o755)
    environment = {**made.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
    del environment["FSXSYNC_STATE_DIR"]
    return subprocess.run(  # noqa: S603
        [DEPLOY / "mount.fuse.fsxsync", made.state_dir, made.directory, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "options", [[], ["-o", "rw,nosuid,_netdev,attr_timeout=5"], ["-n", "-v", "-o", "ro", "-o", "x-a=b"]]
)
def test_mount8s_helper(stopped: Instance, tmp_path: Path, options: list[str]) -> None:
    done = as_mount_would(stopped, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    try:
        (line,) = [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(stopped.directory) in line
        ]
        assert " - fuse.fsxsync fsxsync:" in line
        assert str(stopped.state_dir) in line
        assert ("nosuid" in line) or options != ["-o", "rw,nosuid,_netdev,attr_timeout=5"]
        assert os.access(stopped.directory, os.W_OK) == ("ro" not in options)
    finally:
        stopped.ok("unmount", stopped.directory)


def test_mount8s_helper_says_what_is_wrong(stopped: Instance, tmp_path: Path) -> None:
    done = as_mount_would(stopped, tmp_path, "-o", "bogus")
    assert done.returncode != 0
    assert done.stderr.startswith("fsxsync: mount option 'bogus'")
    assert as_mount_would(stopped, tmp_path, "-f").returncode == 0  # a rehearsal
    assert not os.path.ismount(stopped.directory)


def test_unmounted_from_outside_ends_the_daemon(fsx: Instance) -> None:
    subprocess.run(["umount", fsx.directory], check=True)  # noqa: S603, S607
    daemon = fsx.daemon
    assert daemon is not None
    eventually(lambda: daemon.poll() is not None)
    assert daemon.returncode == 0


_ENDS = """
import signal, trio
from fsxsync.daemon.main import _end_on_signal
async def main():
    ending = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, ending)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
        await ending.wait()
        nursery.cancel_scope.cancel()
    signal.raise_signal(signal.SIGTERM)
    print("unmounts")
import trio.testing
trio.run(main)
"""


def test_told_to_end_again_while_it_ends_it_still_unmounts() -> None:
    """systemd after ``ExecStop=``, or an impatient Ctrl-C: the signal that came second had its own effect."""
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "unmounts\n"), done.stderr
