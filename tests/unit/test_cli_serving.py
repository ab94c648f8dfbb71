"""``mount``, ``watch``, ``demo`` and ``unmount``: what they read from options, fstab and the kernel's table."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsxsync.cli import mounts, serving
from fsxsync.cli.main import run
from fsxsync.cli.mounts import Mounted, mounted, parse_options, state_dir_of
from fsxsync.errors import BadInput, FuseUnavailable

Call = dict[str, Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the daemon and the demo were started with; their exit code is 7."""
    seen: list[Call] = []

    def record(name: str, *arguments: object, **options: object) -> int:
        seen.append({"name": name, "arguments": arguments, **options})
        return 7

    for target, name in (("daemon.main", "run_mount"), ("daemon.main", "run_watch"), ("demo.story", "run")):
        monkeypatch.setattr(
            f"fsxsync.{target}.{name}",
            lambda *arguments, _name=name, **options: record(_name, *arguments, **options),
        )
    return seen


# ---------------------------------------------------------------- mount, watch, demo


def test_mount_hands_its_options_to_the_daemon(calls: list[Call], tmp_path: Path) -> None:
    code = run(
        [
            *("--state-dir", str(tmp_path), "mount", "/mnt", "--allow-other", "--daemon", "--config", "c.toml"),
            *("--metrics-listen", "127.0.0.1:1", "--api-listen", "127.0.0.1:2", "-o", "ro,attr_timeout=5"),
        ]
    )

    assert code == 7
    assert calls == [
        {
            "name": "run_mount",
            "arguments": (tmp_path, Path("/mnt")),
            "options": {"ro": True, "attr_timeout_s": "5"},
            "daemonize": True,
            "config_file": Path("c.toml"),
            "flags": {"allow_other": True, "metrics_listen": "127.0.0.1:1", "api_listen": "127.0.0.1:2"},
        }
    ]


def test_what_was_not_given_does_not_hide_other_settings(calls: list[Call], tmp_path: Path) -> None:
    run(["--state-dir", str(tmp_path), "mount", "/mnt"])

    assert calls[0]["flags"] == {"allow_other": None, "metrics_listen": None, "api_listen": None}
    assert (calls[0]["daemonize"], calls[0]["config_file"], calls[0]["options"]) == (False, None, {})


def test_mount_8_and_fstab_start_a_daemon(calls: list[Call]) -> None:
    code = run(["/var/lib/fsxsync/x", "/mnt", "-o", "rw,nosuid,nodev,allow_other,config=/etc/x.toml", "-s", "-n"])

    assert code == 7
    assert calls[0]["arguments"] == (Path("/var/lib/fsxsync/x"), Path("/mnt"))
    assert calls[0]["daemonize"] is True
    assert calls[0]["config_file"] == Path("/etc/x.toml")
    assert calls[0]["options"] == {"ro": False, "nosuid": True, "nodev": True, "allow_other": True}


def test_a_relative_state_directory_is_meant_from_here(
    calls: list[Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    run(["--state-dir", "s", "watch", "d", "--daemon", "--api-listen", "127.0.0.1:2"])

    assert calls == [
        {
            "name": "run_watch",
            "arguments": (tmp_path / "s", Path("d")),
            "daemonize": True,
            "config_file": None,
            "flags": {"metrics_listen": None, "api_listen": "127.0.0.1:2"},
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [(["demo"], (Path("fsxsync-demo"), False)), (["demo", "/d", "--check"], (Path("/d"), True))],
)
def test_demo(calls: list[Call], arguments: list[str], wanted: tuple[Path, bool]) -> None:
    assert run(arguments) == 7
    assert calls[0]["arguments"] == wanted


def test_a_daemon_that_fails_in_several_tasks_complains_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [FuseUnavailable("no /dev/fuse")])])

    monkeypatch.setattr("fsxsync.daemon.main.run_mount", fail)

    assert run(["mount", "/mnt"]) == 1
    assert capsys.readouterr().err == f"fsxsync: no /dev/fuse; {FuseUnavailable.advice}\n"


def test_a_bug_in_the_daemon_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise ExceptionGroup("nursery", [FuseUnavailable("no /dev/fuse"), ZeroDivisionError()])

    monkeypatch.setattr("fsxsync.daemon.main.run_mount", fail)

    with pytest.raises(ExceptionGroup):
        run(["mount", "/mnt"])


# ---------------------------------------------------------------- mount options


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ([], {}),
        (["defaults,noauto,nofail,_netdev,user,x-systemd.automount,comment=a b,relatime"], {}),
        (["ro", "rw"], {"ro": False}),
        (["rw,ro"], {"ro": True}),
        (["suid,dev,exec"], {"nosuid": False, "nodev": False, "noexec": False}),
        (["nosuid,nodev,noexec,noatime"], {"nosuid": True, "nodev": True, "noexec": True, "noatime": True}),
        (["allow_other, ro", ""], {"allow_other": True, "ro": True}),
        (["attr_timeout=1.5"], {"attr_timeout_s": "1.5"}),
        (["subtype=fsxsync,fsname=x"], {}),
    ],
)
def test_mount_options(given: list[str], flags: dict[str, object]) -> None:
    assert parse_options(given).flags == flags


def test_mount_options_that_are_settings() -> None:
    parsed = parse_options(["config=/c.toml,metrics_listen=127.0.0.1:1", "api_listen=127.0.0.1:2"])

    assert (parsed.config, parsed.metrics_listen, parsed.api_listen) == (
        Path("/c.toml"),
        "127.0.0.1:1",
        "127.0.0.1:2",
    )


@pytest.mark.parametrize("option", ["colour", "colour=red", "ro=1", "attr_timeout", "noallow_other", "xdefaults"])
def test_an_unknown_mount_option_is_refused(option: str) -> None:
    with pytest.raises(BadInput, match="known are") as caught:
        parse_options([f"rw,{option}"])

    assert caught.value.exit_code == 2


# ---------------------------------------------------------------- what is mounted

MOUNTINFO = rb"""23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
43 23 0:40 / /mnt/a\040b rw,nosuid shared:7 - fuse.fsxsync fsxsync:/var/lib/x\040y rw,user_id=0
44 23 0:41 / /other rw - fuse.sshfs host:/dir rw
45 23 0:42 / /odd rw master:1 propagate_from:2 - fuse.fsxsync someone rw
46 23 0:43 / /twice rw - fuse.fsxsync fsxsync:/first rw
47 46 0:44 / /twice rw - fuse.fsxsync fsxsync:/second:part rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    monkeypatch.setattr(mounts, "mounted", lambda: mounted(str(file)))
    monkeypatch.setattr(serving, "mounted", lambda: mounted(str(file)))
    return file


def test_our_mounts_are_found_in_the_kernels_table(mountinfo: Path) -> None:
    assert mounted(str(mountinfo)) == [
        Mounted("/mnt/a b", "/var/lib/x y"),
        Mounted("/twice", "/first"),
        Mounted("/twice", "/second:part"),
    ]


def test_a_mount_point_names_its_state_directory(mountinfo: Path) -> None:
    assert state_dir_of("/mnt/../mnt/a b") == Path("/var/lib/x y")
    assert state_dir_of("/twice") == Path("/second:part")  # the one on top
    with pytest.raises(BadInput, match="nothing there"):
        state_dir_of("/other")


def test_a_symlink_on_the_way_to_a_mount_point_is_followed(mountinfo: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("/")

    assert state_dir_of(f"{tmp_path}/way/twice") == Path("/second:part")


def test_unmount_refuses_another_instances_mount(mountinfo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--state-dir", "/elsewhere", "unmount", "/twice"])

    assert code == 2
    assert "the daemon of /second:part serves it" in capsys.readouterr().err


def test_unmount_clears_a_dead_daemons_mount_away(
    mountinfo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = MOUNTINFO.replace(b"/second:part", os.fsencode(tmp_path))
    mountinfo.write_bytes(lines)

    def detach(place: Path) -> None:
        assert place == Path("/twice")
        left = mountinfo.read_bytes().splitlines(keepends=True)
        mountinfo.write_bytes(b"".join(left[:-1]))

    monkeypatch.setattr("fsxsync.mount.mountpoint.detach", detach)

    code = run(["unmount", "/twice"])

    assert code == 0
    assert [one.mountpoint for one in mounted(str(mountinfo))] == ["/mnt/a b"]
    assert "was gone already" in capsys.readouterr().err


def test_unmount_leaves_a_mount_alone_whose_daemon_lives(
    mountinfo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mountinfo.write_bytes(MOUNTINFO.replace(b"/second:part", os.fsencode(tmp_path)))
    with (tmp_path / "daemon.lock").open("wb") as lock:  # it is starting: there is no socket yet
        fcntl.flock(lock, fcntl.LOCK_EX)

        code = run(["unmount", "/twice"])

    assert code == 3
    assert "no daemon answers" in capsys.readouterr().err
