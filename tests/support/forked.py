"""Daemons without the half second that their libraries cost: forked from a process that has imported them.

What runs in the child is `fsxsync.cli.main.main`, as from a shell; only the imports were done before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.instance import Instance
from support.moto_server import clean_environment

_SERVE = """
import ctypes, gc, json, os, signal, sys, warnings
import fsxsync.cli.main, fsxsync.control.server, fsxsync.daemon.main, fsxsync.daemon.wiring, fsxsync.demo
import botocore.auth, botocore.credentials, botocore.endpoint, botocore.httpsession, botocore.signers
import pyfuse3, trio, hypercorn.trio, sqlite_utils, awscrt.auth, prometheus_client
warnings.simplefilter("ignore")
gc.freeze()
print("ready", flush=True)
while line := os.read(0, 1 << 20):
    for part in line.splitlines():
        asked = json.loads(part)
        if "wait" in asked:
            pid, status = os.waitpid(asked["wait"], asked["flags"])
            os.write(1, b"%s\\n" % (str(os.waitstatus_to_exitcode(status)).encode() if pid else b"running"))
            continue
        pid = os.fork()
        if pid:
            os.write(1, b"%d\\n" % pid)
            continue
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no daemon outlives this
        os.setsid()
        log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0), os.dup2(log, 1), os.dup2(log, 2)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv = ["fsxsync", *asked["arguments"]]
        code = 1
        try:
            fsxsync.cli.main.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
"""


class ForkServer:
    """A context manager. One caller at a time."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._lock = threading.Lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, **words: Any) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the fork server died"
        return answer.strip()

    def start(self, arguments: Sequence[str], env: dict[str, str], log: Path) -> Forked:
        return Forked(self, int(self._ask(arguments=arguments, env=env, log=str(log))))

    def status(self, pid: int, *, block: bool) -> int | None:
        answer = self._ask(wait=pid, flags=0 if block else os.WNOHANG)
        return None if answer == b"running" else int(answer)


@dataclass
class Forked:
    """As far as a `subprocess.Popen` is needed."""

    server: ForkServer
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.status(self.pid, block=False)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or 60)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fsxsync", timeout or 60)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class DiedAtOnceError(AssertionError):
    """The daemon ended before it served."""


@dataclass
class ForkedInstance(Instance):
    """An instance whose daemon comes from a fork server. Its log is a file of its own."""

    server: ForkServer = field(default=None)  # type: ignore[assignment]

    @property
    def log_path(self) -> Path:
        return self.base / "daemon.log"

    def start(self) -> None:
        with suppress(FileExistsError):
            self.directory.mkdir(parents=True)
        command = "mount" if self.mounted else "watch"
        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        arguments = [command, str(self.directory), *map(str, self.options)]
        daemon = self.server.start(arguments, self.environment(), self.log_path)
        self.daemon = daemon  # type: ignore[assignment]
        deadline = time.monotonic() + 60
        with self._opened() as log:
            while True:
                log.seek(begin)
                if b"ready\n" in log.read():
                    return
                if daemon.poll() is not None:
                    self.daemon = None
                    raise DiedAtOnceError(f"the daemon ended with {daemon.returncode}: {self.said()}")
                assert time.monotonic() < deadline, f"the daemon does not start: {self.said()}"
                time.sleep(0.005)

    def _opened(self) -> Any:
        for _ in range(1000):
            with suppress(FileNotFoundError):
                return self.log_path.open("rb")
            time.sleep(0.005)
        raise AssertionError("no log")

    def said(self) -> str:
        if not self.log_path.exists():
            return ""
        return self.log_path.read_bytes()[-4000:].decode("utf-8", "replace")

    def is_alive(self) -> bool:
        """The daemon runs; one that died meanwhile is forgotten."""
        if self.daemon is not None and self.daemon.poll() is not None:
            self.daemon = None
        return self.daemon is not None
