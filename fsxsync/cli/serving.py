"""``mount``, ``watch``, ``unmount`` and ``demo``: a daemon's beginning and end.

What serves is imported where it is needed: a daemon's libraries cost half a second, which no other command pays.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from fsxsync.cli.context import Instance
from fsxsync.cli.mounts import mounted, parse_options, resolved, state_dir_of
from fsxsync.errors import BadInput, FsxSyncError, NoDaemon, StillPending
from fsxsync.telemetry.log import escape

GONE_WITHIN_S = 60.0
"""How long a daemon that was told to end may take; requests in flight are finished first."""
LOOK_EVERY_S = 0.05

DAEMON = click.option("--daemon", is_flag=True, help="Go to the background once everything is ready.")
CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file with settings.",
)
METRICS = click.option("--metrics-listen", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
API = click.option("--api-listen", metavar="HOST:PORT", help="Serve the FSx API there too; a loopback address.")


@click.command(short_help="Serve the tree at a mount point.")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option(
    "--allow-other", is_flag=True, help="Let other users use the mount, and release and restore what they own."
)
@DAEMON
@CONFIG
@METRICS
@API
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPT,...",
    help="Options as in fstab(5), also attr_timeout=S, config=FILE, metrics_listen=ADDR, api_listen=ADDR, "
    "passthrough=auto|on|off (whether the kernel reads and writes resident files by itself; auto: where it can).",
)
@click.option("-f", "_foreground", is_flag=True, hidden=True)  # what mount(8) passes on
@click.option("-n", "_no_mtab", is_flag=True, hidden=True)
@click.option("-s", "_sloppy", is_flag=True, hidden=True)
@click.option("-v", "_verbose", is_flag=True, hidden=True)
@click.pass_context
def mount(
    context: click.Context,
    /,
    mountpoint: Path,
    *,
    allow_other: bool,
    daemon: bool,
    config_file: Path | None,
    metrics_listen: str | None,
    api_listen: str | None,
    options: Sequence[str],
    **_ignored: bool,
) -> None:
    """Serve the tree at MOUNTPOINT; in the foreground unless --daemon. Says "ready" on stderr.

    `mount -t fuse.fsxsync STATE_DIR MOUNTPOINT` and /etc/fstab work too.

    \b
    Example:
      fsxsync mount /fsx --daemon
      fsxsync --state-dir /var/lib/fsxsync/b mount /b -o allow_other,attr_timeout=5
    """
    instance: Instance = context.obj
    parsed = parse_options(options)
    from fsxsync.daemon.main import run_mount  # noqa: PLC0415

    context.exit(
        run_mount(
            instance.state_dir,
            mountpoint,
            options=parsed.flags,
            daemonize=daemon,
            config_file=config_file or parsed.config,
            flags={
                "allow_other": True if allow_other else None,
                "metrics_listen": metrics_listen or parsed.metrics_listen,
                "api_listen": api_listen or parsed.api_listen,
            },
        )
    )


@click.command(short_help="Serve a directory without FUSE.")
@click.argument("directory", type=click.Path(path_type=Path))
@DAEMON
@CONFIG
@METRICS
@API
@click.pass_context
def watch(
    context: click.Context,
    /,
    directory: Path,
    *,
    daemon: bool,
    config_file: Path | None,
    metrics_listen: str | None,
    api_listen: str | None,
) -> None:
    """Serve without FUSE: DIRECTORY itself is the tree, and imports load data at once.

    \b
    Example:
      fsxsync watch /srv/data --daemon
    """
    instance: Instance = context.obj
    from fsxsync.daemon.main import run_watch  # noqa: PLC0415

    context.exit(
        run_watch(
            instance.state_dir,
            directory,
            daemonize=daemon,
            config_file=config_file,
            flags={"metrics_listen": metrics_listen, "api_listen": api_listen},
        )
    )


@click.command(short_help="Export what is pending, unmount, end.")
@click.argument("mountpoint", required=False)
@click.option(
    "--drain-timeout",
    "timeout_s",
    type=click.FloatRange(0, 30 * 86400),
    default=60,
    show_default=True,
    metavar="S",
    help="Seconds to wait for pending exports.",
)
@click.pass_obj
def unmount(instance: Instance, /, mountpoint: str | None, *, timeout_s: float) -> None:
    """Wait for pending exports, unmount and end the daemon.

    Exit code 1 if changes are left pending; they are kept for the next start.

    \b
    Example:
      fsxsync unmount /fsx --drain-timeout 600
    """
    if mountpoint is not None:
        instance = _instance_at(mountpoint, instance)
    client = instance.client
    try:
        served_at = client.where()["mount"]
    except NoDaemon:
        if mountpoint is None or _is_locked(instance.state_dir):
            raise
        _clear_away(mountpoint)
        return
    left = client.drain(timeout_s)
    client.stop()
    _until_gone(instance.state_dir, served_at)
    if left:
        raise StillPending(
            "unmounted before all was exported",
            f"{left} changes are pending",
            advice="they are kept for the next start",
        )


def _instance_at(mountpoint: str, instance: Instance) -> Instance:
    state_dir = state_dir_of(mountpoint)
    if instance.is_named and not _same(state_dir, instance.state_dir):
        raise BadInput(
            f"{mountpoint} can't be unmounted",
            f"the daemon of {state_dir} serves it, not that of {instance.state_dir}",
            advice="leave out --state-dir",
        )
    return Instance(state_dir=state_dir, is_named=True)


def _clear_away(mountpoint: str) -> None:
    """What a killed daemon left behind: every access to it fails."""
    from fsxsync.mount.mountpoint import detach  # noqa: PLC0415

    place = resolved(mountpoint)
    for _ in [one for one in mounted() if one.mountpoint == place]:
        detach(Path(place))
    if any(one.mountpoint == place for one in mounted()):
        raise FsxSyncError(f"{mountpoint} can't be unmounted", "its daemon is gone", advice=f"umount -l {mountpoint}")
    click.echo(
        f"fsxsync: the daemon of {escape(str(mountpoint))} was gone already; its mount is cleared away", err=True
    )


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _until_gone(state_dir: Path, mountpoint: str | None) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    place = resolved(mountpoint) if mountpoint is not None else None
    while _is_locked(state_dir) or any(one.mountpoint == place for one in mounted()):
        if time.monotonic() > deadline:
            raise FsxSyncError(
                f"the daemon of {state_dir} does not end",
                f"it was told to {GONE_WITHIN_S:g} s ago",
                advice="see who uses the mount with 'fuser -m'",
            )
        time.sleep(LOOK_EVERY_S)


def _is_locked(state_dir: Path) -> bool:
    """A daemon holds the lock of its state directory for as long as its process lives."""
    try:
        fd = os.open(state_dir / "daemon.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:  # somebody else's: that it is gone can't be told from here
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@click.command(short_help="Try it all, without account or network.")
@click.argument("directory", type=click.Path(path_type=Path), required=False, metavar="[DIR]")
@click.option("--check", is_flag=True, help="Run the story, print each step, clean up; exit 0 if all held.")
@click.pass_context
def demo(context: click.Context, directory: Path | None, *, check: bool) -> None:
    """Start an S3 and SQS server of its own, fill a bucket, mount DIR (default ./fsxsync-demo).

    Needs no account and no network.

    \b
    Example:
      fsxsync demo --check
    """
    from fsxsync.demo.story import run  # noqa: PLC0415

    context.exit(run(directory or Path("fsxsync-demo"), check))
