"""What the story plays in: two buckets with a queue, a mounted directory, and somebody else who uses the buckets."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsxsync.demo.server import CREDENTIALS, REGION, serving
from fsxsync.errors import BadInput, FsxSyncError, MountError
from fsxsync.model.association import Access
from fsxsync.repository.session import s3_client, sqs_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DATASETS, RESULTS = "demo-datasets", "demo-results"


class World:
    """``directory`` is the mount point; ``other`` is the other user's S3 client."""

    def __init__(self, directory: Path, state_dir: Path, url: str) -> None:
        self.directory = directory
        self.state_dir = state_dir
        self.url = url
        access = Access(endpoint_url=url, region=REGION)
        self.other: S3Client = s3_client(access)
        queues = sqs_client(url, REGION, access)
        self.queue = queues.create_queue(QueueName="demo-events")["QueueUrl"]
        arn = queues.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        for bucket in (DATASETS, RESULTS):
            self.other.create_bucket(Bucket=bucket)
            self.other.put_bucket_notification_configuration(
                Bucket=bucket,
                NotificationConfiguration={
                    "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
                },
            )
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a shell needs to talk to this demo."""
        return {**CREDENTIALS, "FSXSYNC_STATE_DIR": str(self.state_dir)}

    # ------------------------------------------------------------- the daemon

    def mount(self) -> None:
        """Start the daemon and wait until it serves. Raises MountError."""
        self._daemon = subprocess.Popen(  # noqa: S603  our own program
            [*_program(), "mount", str(self.directory)],
            env={**os.environ, **self.environment},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._daemon.stderr is not None
        said = b""
        for line in self._daemon.stderr:
            if line.strip() == b"ready":
                return
            said += line
        why = said.decode("utf-8", "replace").strip().removeprefix("fsxsync: ")
        raise MountError("the demo's mount", why or "the daemon ended", advice="")

    def kill(self) -> None:
        """End the daemon as a power cut would."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.communicate()

    def end(self) -> None:
        """Unmount and end the daemon, whatever state it is in."""
        daemon = self._daemon
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.communicate()
        if os.path.ismount(self.directory):
            unmounter = shutil.which("fusermount3") or "umount"
            subprocess.run([unmounter, "-u", "-z", str(self.directory)], check=False)  # noqa: S603

    def run(self, *arguments: str) -> str:
        """Run an fsxsync command; what it printed.

        Raises:
            FsxSyncError: it failed.
        """
        done = subprocess.run(  # noqa: S603  our own program
            [*_program(), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = done.stderr.strip().removeprefix("fsxsync: ") or done.stdout.strip()
            raise FsxSyncError(f"fsxsync {' '.join(arguments)}", message)
        return done.stdout.strip()

    def state(self, path: Path) -> dict[str, Any]:
        """The state of one file, as ``fsxsync state --json`` tells it."""
        found: dict[str, Any] = json.loads(self.run("state", "--json", str(path)))[0]
        return found

    # ------------------------------------------------------------- the other user

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.other.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, bucket: str, key: str) -> bytes:
        return self.other.get_object(Bucket=bucket, Key=key)["Body"].read()

    def delete(self, bucket: str, key: str) -> None:
        self.other.delete_object(Bucket=bucket, Key=key)

    def keys(self, bucket: str) -> list[str]:
        """All keys of a bucket (the demo has less than a page)."""
        return [entry["Key"] for entry in self.other.list_objects_v2(Bucket=bucket).get("Contents", [])]


def _program() -> list[str]:
    return [sys.executable, "-c", "from fsxsync.cli.main import main; main()"]


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """Servers, buckets and a mount point for the time of the block; nothing of it is left afterwards.

    Raises:
        BadInput: the directory is in use.
    """
    directory = directory.absolute()
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise BadInput(f"the demo's directory {directory}", "it is not empty", advice="name another one")
        state_dir = Path(tempfile.mkdtemp(prefix=".fsxsync-demo-", dir=directory.parent))
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(f"the demo's directory {directory}", why, advice="name another one") from error
    try:
        os.environ.update(CREDENTIALS)  # for the other user's client, in this process
        with serving() as url:
            here = World(directory, state_dir, url)
            try:
                yield here
            finally:
                here.end()
    finally:
        shutil.rmtree(state_dir)
        if made:
            with contextlib.suppress(OSError):  # somebody put something there meanwhile: that stays
                directory.rmdir()
