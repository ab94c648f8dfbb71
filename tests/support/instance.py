"""A whole fsxsync as users have it: its commands in processes of their own, a mount, other users of the buckets."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import ClientError
from support.built_servers import BuiltServer
from support.forked import Forked, ForkServer, fork_server, wait_for_line
from support.moto_server import OBEYED, MotoServer, clean_environment

from fsxsync.control.client import Client

PROGRAM = [sys.executable, "-c", "from fsxsync.cli.main import main; main()"]
QUICK = {
    "FSXSYNC_EXPORT_DELAY_S": "0.1",
    "FSXSYNC_EXPORT_CAP_S": "2",
    "FSXSYNC_QUEUE_WAIT_S": "2",
    "FSXSYNC_RETRY_S": "0.25",
}
"""Tests do not wait a second after every write; what they check does not depend on it."""


@dataclass
class Done:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class DiedAtOnceError(AssertionError):
    """The daemon ended before it served."""


@dataclass
class Instance:
    """One state directory and its daemon. ``directory`` is the mount point, or the watched directory."""

    base: Path
    mounted: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | Forked | None = None
    log: IO[bytes] | None = None
    program: Sequence[str] = tuple(PROGRAM)
    options: Sequence[str | Path] = ()
    """Of the command that starts the daemon."""
    server: ForkServer | None = None
    """Daemon and commands are forked from there, not started as ``program``."""

    @property
    def directory(self) -> Path:
        return self.base / "mnt"

    @property
    def state_dir(self) -> Path:
        return self.base / "state"

    @property
    def tree(self) -> Path:
        """Where host tools find the files, behind the mount."""
        return self.state_dir / "tree" if self.mounted else self.directory

    def environment(self) -> dict[str, str]:
        return {**clean_environment(), **QUICK, "FSXSYNC_STATE_DIR": str(self.state_dir), **self.env}

    def run(self, *arguments: str | Path, timeout: float = 300) -> Done:
        """Run a command, whatever comes of it."""
        if self.server is not None:
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                words = list(map(str, arguments))
                code = self.server.start(words, self.environment(), stdout=out, stderr=err).run_out(timeout)
                return Done(code, *(whole(one).decode() for one in (out, err)))
        done = subprocess.run(  # noqa: S603
            [*self.program, *map(str, arguments)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path, timeout: float = 300) -> Done:
        """Run a command that has to succeed."""
        done = self.run(*arguments, timeout=timeout)
        assert done.code == 0, f"{arguments}: exit {done.code}: {done.err}{done.out}{self.said()}"
        return done

    def start(self) -> None:
        """Start the daemon; returns when it serves."""
        with suppress(FileExistsError):  # also where a killed daemon's mount is, which can't be looked at
            self.directory.mkdir(parents=True)
        if self.log is None:  # one for all starts
            self.log = tempfile.TemporaryFile()  # noqa: SIM115
            # Several write to it, and a test that reads it moves the place where all of them are.
            fcntl.fcntl(self.log, fcntl.F_SETFL, fcntl.fcntl(self.log, fcntl.F_GETFL) | os.O_APPEND)
        begin = os.fstat(self.log.fileno()).st_size
        words = ["mount" if self.mounted else "watch", str(self.directory), *map(str, self.options)]
        if self.server is not None:
            self.daemon = self.server.start(words, self.environment(), stdout=self.log, stderr=self.log, session=True)
        else:
            self.daemon = subprocess.Popen(  # noqa: S603
                [*self.program, *words],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
            )
        instead = wait_for_line(self.log, b"ready", begin, self.daemon)
        if instead is not None:
            code, self.daemon = self.daemon.returncode, None
            raise DiedAtOnceError(f"the daemon ended with {code}: {instead.decode('utf-8', 'replace')}")

    def is_alive(self) -> bool:
        """The daemon runs; one that died meanwhile is forgotten."""
        if self.daemon is not None and self.daemon.poll() is not None:
            self.daemon = None
        return self.daemon is not None

    def said(self) -> str:
        """What the daemon wrote to its log so far."""
        if self.log is None:
            return ""
        return whole(self.log).decode("utf-8", "replace")[-4000:]

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as systemd would; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.until_ended()

    def until_ended(self) -> int:
        """Wait for the end of a daemon that was told to end; the exit code."""
        assert self.daemon is not None
        code = self.daemon.wait(60)
        self.daemon = None
        return code

    def clean_up(self) -> None:
        """Leave no process and no mount, whatever the test did."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        subprocess.run(  # noqa: S603
            ["umount", "-l", "-q", str(self.directory)],  # noqa: S607
            check=False,
            stderr=subprocess.DEVNULL,
        )
        if self.log is not None:
            self.log.close()

    # ------------------------------------------------------------- shorthand

    def associate(self, moto: MotoServer, uri: str, path: str, *options: str) -> str:
        """Link a prefix of moto's server; the id.

        As on a bucket that was associated before: what its store obeys is known, and not found out by thirty requests.
        With events it is found out, for then they tell of all that is tried; who exports nothing has no need of it.
        """
        unlike = {"--events", "--export", "--read-only"}
        if self.daemon is not None and isinstance(moto, MotoServer) and unlike.isdisjoint(options):
            self._know(moto, uri.removeprefix("s3://").partition("/")[0])
        return self.ok("associate", uri, path, "--endpoint-url", moto.url, *options).out.strip()

    def _know(self, moto: MotoServer, bucket: str) -> None:
        """Note in the catalog what a probe of this bucket finds out (test_moto.py)."""
        try:
            versioning = moto.client("s3").get_bucket_versioning(Bucket=bucket).get("Status")
        except ClientError:  # no such bucket, as the test wants it
            return
        found = replace(OBEYED, versioned=versioning == "Enabled")
        fact = (f"conditions {moto.url} {bucket}", json.dumps(asdict(found)))
        with closing(sqlite3.connect(self.state_dir / "catalog.db", timeout=60)) as catalog, catalog:
            catalog.execute("INSERT OR IGNORE INTO facts (name, value) VALUES (?, ?)", fact)

    def settle(self, path: Path | None = None, timeout: int = 120) -> None:
        """Return when nothing is pending any more: `fsxsync wait`, which tests do more often than all else."""
        if path is not None or self.server is None or self.daemon is None:
            self.ok("wait", *([path] if path else []), "--timeout", str(timeout), timeout=timeout + 30)
            return
        never = threading.Timer(timeout + 30, self.daemon.kill)
        never.start()
        try:
            left = Client(self.state_dir).wait(b"", timeout)
        finally:
            never.cancel()
        assert left == [], f"still pending: {left}{self.said()}"

    def state(self, path: Path) -> dict[str, Any]:
        """One file's state."""
        found: dict[str, Any] = self.ok("state", "--json", path).json[0]
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").out)
        return found


def whole(file: IO[bytes]) -> bytes:
    """All that it holds, wherever its writers are."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


@contextmanager
def instance(
    base: Path,
    *,
    mounted: bool = True,
    start: bool = True,
    program: Sequence[str] | None = None,
    options: Sequence[str | Path] = (),
    **env: str,
) -> Iterator[Instance]:
    """An instance below ``base``, running; ended and unmounted with the block.

    ``program`` is what is started, for tests of what a process is from its beginning; without one it is forked.
    """
    made = Instance(base, mounted=mounted, env=env, options=options)
    if program is None:
        made.server = fork_server()
    else:
        made.program = program
    try:
        if start:
            made.start()
        yield made
    finally:
        made.clean_up()


def bucket_with_events(moto: MotoServer, bucket: str, queue: str) -> str:
    """Make a bucket whose events go to a queue; the queue's URL."""
    moto.client("s3").create_bucket(Bucket=bucket)
    return send_events(moto, bucket, queue)


def send_events(moto: MotoServer, bucket: str, queue: str) -> str:
    """From now on a bucket's events go to a queue of that name; its URL."""
    s3, sqs = moto.client("s3"), moto.client("sqs")
    url: str = sqs.create_queue(QueueName=queue)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
        },
    )
    return url


def news_of(server: MotoServer, bucket: str) -> tuple[str, str]:
    """How an association shall hear of the bucket's changes, for `associate`: by events if the store sends them."""
    if "queues" in server.lacks:
        return ("--poll", "2")
    return ("--events", f"sqs:{send_events(server, bucket, bucket)}")


def fill(server: MotoServer | BuiltServer, bucket: str, objects: Mapping[str, bytes]) -> None:
    """Put many objects."""
    if isinstance(server, MotoServer):
        server.fill(bucket, objects)
        return
    s3 = server.client("s3")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=objects[key]), objects))


def keys_of(s3: Any, bucket: str, prefix: str = "") -> list[str]:
    """Every key below a prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def eventually(check: Callable[[], object], timeout_s: float = 30) -> None:
    """Try until it holds: for what no command can wait for. What takes longer is asked for less often: each command
    that asks takes from what it waits for."""
    begin = time.monotonic()
    while True:
        try:
            assert check()
        except (AssertionError, OSError):
            waited_s = time.monotonic() - begin
            if waited_s > timeout_s:
                raise
            time.sleep(min(max(0.05, waited_s / 10), 0.25))
        else:
            return
