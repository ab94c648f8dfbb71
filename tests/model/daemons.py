"""A daemon for each way of working in a directory, kept from world to world as long as all goes well."""

from __future__ import annotations

import errno
import os
import subprocess
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from model.faulty_store import FaultyStore
from support.crashing import CrashControl
from support.forked import ForkServer
from support.instance import Instance, bucket_with_events
from support.moto_server import MotoServer

SMALL_PARTS = {"S3_UPLOAD_PART_MIN_SIZE": "1", "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(5 << 20)}
"""Settings of moto's: the other user may upload in parts of any size. Ours are as large as S3 wants them."""
DISK_BYTES = 192 << 20
SETTINGS = {
    "FSXSYNC_EXPORT_DELAY_S": "0.02",
    "FSXSYNC_EXPORT_CAP_S": "1",
    "FSXSYNC_QUEUE_WAIT_S": "1",
    "FSXSYNC_RETRY_S": "0.05",
    "FSXSYNC_PART_SIZE": str(5 << 20),
    "FSXSYNC_CHUNK_SIZE": str(64 << 10),
}


@dataclass
class Daemon:
    """One daemon and all that may go wrong around it."""

    made: Instance
    store: FaultyStore
    crash: CrashControl
    moto: MotoServer
    is_frozen: bool = False
    """Somebody has stopped it for a moment."""
    _buckets: dict[bool, tuple[str, str]] = field(default_factory=dict)

    def bucket(self, *, versioned: bool) -> tuple[str, str]:
        """Worlds share one, so that what its store obeys is found out once. Also the queue of its events."""
        if versioned not in self._buckets:
            name = f"m-{uuid.uuid4().hex[:12]}"
            self._buckets[versioned] = name, bucket_with_events(self.moto, name, name)
            if versioned:
                on = {"Status": "Enabled"}
                self.moto.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration=on)
        return self._buckets[versioned]

    def renew_queue(self) -> None:
        """Whatever was in it is lost."""
        sqs = self.moto.client("sqs")
        if self.store.queue:
            sqs.delete_queue(QueueUrl=self.store.queue)
        self.store.queue = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:12]}")["QueueUrl"]

    @property
    def _ballast(self) -> Path:
        return self.made.base / "ballast"

    @property
    def is_full(self) -> bool:
        return self._ballast.exists()

    def fill(self) -> None:
        """Take all space of the disk that state and tree are on, if it is one of our own."""
        if not os.path.ismount(self.made.base):
            return
        with self._ballast.open("wb") as stream:
            for size in (8 << 20, 1 << 20, 64 << 10, 4 << 10):
                try:
                    while True:
                        os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def end(self) -> None:
        self.made.clean_up()
        self.store.__exit__(None, None, None)
        self.crash.close()
        if os.path.ismount(self.made.base):
            subprocess.run(["umount", "-l", str(self.made.base)], check=True)  # noqa: S603, S607


class Daemons:
    """``get`` starts one where there is none; ``drop`` ends one that something went wrong with."""

    def __init__(self, moto: MotoServer, server: ForkServer, base: Path, *, own_disk: bool = False) -> None:
        self.moto = moto
        self._server = server
        self._base = base
        self._own_disk = own_disk
        self._kept: dict[str, Daemon] = {}

    def get(self, way: str) -> Daemon:
        if way not in self._kept:
            base = self._base / f"{way}-{uuid.uuid4().hex[:6]}"
            base.mkdir()
            if self._own_disk:
                small_disk(base)
            crash = CrashControl(self._base / f"{base.name}.crash")
            made = Instance(base, mounted=way != "watch", env=SETTINGS | crash.env, server=self._server)
            store = FaultyStore(self.moto.url, self.moto.client("s3")).__enter__()
            daemon = self._kept[way] = Daemon(made, store, crash, self.moto)
            daemon.renew_queue()
            if made.mounted and os.path.ismount(base):  # who comes right after an unmount must not write below it
                made.directory.mkdir()
                subprocess.run(["chattr", "+i", str(made.directory)], check=True)  # noqa: S603, S607
            made.start()
        return self._kept[way]

    def drop(self, way: str) -> None:
        self._kept.pop(way).end()

    def close(self) -> None:
        for way in list(self._kept):
            self.drop(way)


def small_disk(base: Path) -> None:
    """Give a directory a small disk of its own, where we may: the disk-full steps need one that others don't miss."""
    image = base.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    with suppress(OSError, subprocess.CalledProcessError):
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True)  # noqa: S603, S607
        subprocess.run(["mount", "-o", "loop", str(image), str(base)], check=True, capture_output=True)  # noqa: S603, S607
