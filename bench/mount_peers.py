"""Other programs that mount a bucket, with a cache on the disk; who isn't installed is left out.

mountpoint-s3 and geesefs can't be had from the registries: crates.io has of mount-s3 and mountpoint-s3 an empty 0.0.1
(the library mountpoint-s3-fs is there, its one program that mounts is an example, read-only, from a list in CSV);
the Go proxy refuses geesefs and goofys (403), or can't vouch for their checksum (404).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.built_servers import built_program
from support.moto_server import REGION, clean_environment

from bench.harness import until
from bench.mount_places import BUCKET, DRAIN_CAP_S, Place, Stock, make_file, read_whole

_RCLONE_FILES = 1000
_S3FS_FILES = 300
"""A file that s3fs creates costs some requests, one after the other: these give the rate in seconds."""


def peer_mounts(stack: ExitStack, base: Path, url: str, stock: Stock) -> list[Place]:
    """All that can be had here, mounted until the stack ends, their files in their caches."""
    found: list[Place] = []
    for name, enter in (("rclone", _rclone), ("s3fs", _s3fs)):
        try:
            place = stack.enter_context(enter(base / name, url, stock))
        except _Missing as error:
            print(f"# without {name}: {error}", flush=True)
        else:
            _make_resident(place, stock)
            found.append(place)
    return found


class _Missing(Exception):
    """Says how to get it."""


@contextmanager
def _rclone(base: Path, url: str, stock: Stock) -> Iterator[Place]:
    try:
        program = built_program("rclone", build=True)
    except subprocess.CalledProcessError:
        raise _Missing("scripts/build-server rclone") from None
    socket = base / "rc.sock"
    settings = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
        "RCLONE_CONFIG_BENCH_ENDPOINT": url,
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
    }
    command = [
        *(str(program), "mount", f"bench:{BUCKET}", str(base / "mnt"), "--vfs-cache-mode", "full"),
        *("--cache-dir", str(base / "cache"), "--rc", "--rc-no-auth", "--rc-addr", f"unix://{socket}"),
        *("--vfs-write-back", "1s"),  # as long as we wait before an export; by default it is 5 s
        *("--dir-cache-time", "24h"),  # by default it lists all again every 5 minutes, in the midst of it
    ]

    def drained() -> bool:
        done = subprocess.run(  # noqa: S603
            [str(program), "rc", "--unix-socket", str(socket), "vfs/stats"],
            stdout=subprocess.PIPE,
            env=clean_environment() | settings,
            check=True,
        )
        cache = json.loads(done.stdout)["diskCache"]
        return not cache["uploadsInProgress"] and not cache["uploadsQueued"]

    with _mounted(base, command, settings) as process:
        yield _place("rclone", base, _RCLONE_FILES, process, stock, lambda: _in_time(drained))


@contextmanager
def _s3fs(base: Path, url: str, stock: Stock) -> Iterator[Place]:
    program = shutil.which("s3fs")
    if program is None:
        raise _Missing("apt-get install s3fs")
    options = f"url={url},use_path_request_style,endpoint={REGION},use_cache={base / 'cache'}"
    # By default it forgets attributes after 15 minutes, in the midst of it.
    command = [program, BUCKET, str(base / "mnt"), "-f", "-o", f"{options},stat_cache_expire=86400"]
    with _mounted(base, command, {}) as process:
        yield _place("s3fs", base, _S3FS_FILES, process, stock, lambda: True)  # it uploads before a close returns


def _place(
    name: str, base: Path, files: int, process: subprocess.Popen[bytes], stock: Stock, drain: Callable[[], bool]
) -> Place:
    root = base / "mnt"
    return Place(name, root, root / f"{name}-own", min(files, stock.entries), process.pid, drain)


@contextmanager
def _mounted(base: Path, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that mounts ``base / "mnt"`` and stays in the foreground; its log is beside it."""
    mountpoint = base / "mnt"
    mountpoint.mkdir(parents=True)
    (base / "cache").mkdir()
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            ["setpriv", "--pdeathsig", "KILL", *command],  # noqa: S607
            env=clean_environment() | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: mountpoint.is_mount() or process.poll() is not None, timeout_s=60, step_s=0.1)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} did not mount: {(base / 'log').read_text()[-2000:]}")
            yield process
        finally:
            subprocess.run(["umount", "-l", str(mountpoint)], check=False, stderr=subprocess.DEVNULL)  # noqa: S603, S607
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _make_resident(place: Place, stock: Stock) -> None:
    """Write what it will overwrite, and read what it will read: from then on both lie in its cache on the disk."""
    place.write.mkdir(parents=True)
    for name, size in stock.write.items():
        make_file(place.write / name, size)
    place.settle()
    for name in stock.read:
        read_whole(place.read / name)
    # Attributes too: both ask the server for those of every object once, and remember them.
    assert len([entry.stat() for entry in os.scandir(place.entries)]) == stock.entries
    for name in stock.names[: place.handled]:
        read_whole(place.entries / name)


def _in_time(check: Callable[[], bool]) -> bool:
    try:
        until(check, timeout_s=DRAIN_CAP_S, step_s=0.3)
    except TimeoutError:
        return False
    return True
