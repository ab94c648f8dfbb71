"""The program without the second that its imports cost: forked from a process that has done them.

What runs in the child is `fsxsync.cli.main.main`, as from a shell. What a process is from its beginning is not as from
a shell: its command line, its first environment, its memory. Whoever looks at these starts the program itself.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from support.moto_server import clean_environment

TESTS = Path(__file__).parent.parent

_SERVE = """
import atexit, ctypes, functools, gc, importlib, json, os, signal, socket, sys, threading, time
import fsxsync.cli.main, fsxsync.control.server, fsxsync.daemon.main, fsxsync.daemon.wiring, fsxsync.demo
import botocore.auth, botocore.credentials, botocore.endpoint, botocore.httpsession, botocore.signers
import inotify_simple, pyfuse3, trio, hypercorn.trio, sqlite_utils, awscrt.auth, prometheus_client, rich.table
import support.mounting
from botocore.hooks import EventAliaser
from fsxsync.model.association import Access
from fsxsync.repository.session import s3_client, sqs_client
for name in fsxsync.cli.main.cli.list_commands(None):
    fsxsync.cli.main.cli.get_command(None, name)  # imports it
# What each of botocore's sessions asks of names and of functions, some hundred of each, and what each inotify asks the
# linker, has the same answer in every process.
aliases = functools.cache(functools.partial(EventAliaser._alias_event_name, EventAliaser(None)))
EventAliaser._alias_event_name = lambda self, name: aliases(name)
botocore.hooks.accepts_kwargs = functools.lru_cache(1000)(botocore.hooks.accepts_kwargs)
inotify_simple.INotify().close()
access = Access(endpoint_url="http://127.0.0.1:9", region="us-east-1")
for client in (s3_client(access), sqs_client(None, None, access)):  # botocore's descriptions are read once
    client.close()
gc.freeze()
libc = ctypes.CDLL(None)
asker = socket.socket(fileno=0)
asker.send(b"ready")

def become(asked, files):
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives this
    if asked["session"]:
        os.setsid()
    for number, fd in enumerate(files):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    sys.argv = ["fsxsync", *asked["arguments"]]
    code = 1
    try:
        if asked["module"]:
            importlib.import_module(asked["module"]).main(asked["arguments"])
        else:
            fsxsync.cli.main.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback
        traceback.print_exc()
    # As an interpreter ends: it waits for its threads, runs what shall run at the end, and says what it still holds.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit(code)

while True:
    _, files, _, _ = socket.recv_fds(asker, 1, 4)
    if not files:
        os._exit(0)
    request, *files = files
    with open(request, "rb") as stream:
        asked = json.load(stream)
    if "reap" in asked:
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["reap"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            become(asked, files)
    for fd in files:
        os.close(fd)
    asker.send(str(answer).encode())
"""


class ForkServer:
    """A context manager; threads may share it."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", _SERVE],
                stdin=asked,
                env=clean_environment() | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
                start_new_session=True,
            )
        assert self._asking.recv(16) == b"ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asking.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, files: Sequence[int | IO[Any]] = (), **words: Any) -> int:
        request = os.memfd_create("request")
        try:
            os.write(request, json.dumps(words).encode())
            os.lseek(request, 0, os.SEEK_SET)
            descriptors = [request, *(one if isinstance(one, int) else one.fileno() for one in files)]
            with self._lock:
                socket.send_fds(self._asking, [b"."], descriptors)
                answer = self._asking.recv(32)
        finally:
            os.close(request)
        assert answer, "the fork server died"
        return int(answer)

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any],
        stderr: int | IO[Any],
        session: bool = False,
        module: str = "",
    ) -> Forked:
        """Start ``fsxsync ARGUMENTS``, or a module's ``main``; in a session of its own if told so."""
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            pid = self._ask(
                (null if stdin is None else stdin, stdout, stderr),
                arguments=arguments,
                env=dict(env),
                directory=os.getcwd(),
                session=session,
                module=module,
            )
        finally:
            os.close(null)
        return Forked(self, pid, os.pidfd_open(pid))

    def reap(self, pid: int) -> int:
        """The exit code of one that has ended, as `subprocess` gives it."""
        return self._ask(reap=pid)


@cache
def fork_server() -> ForkServer:
    """This process's own; it ends with it."""
    server = ForkServer().__enter__()
    atexit.register(server.__exit__, None, None, None)
    return server


@dataclass
class Forked:
    """As far as a `subprocess.Popen` is needed."""

    server: ForkServer
    pid: int
    _pidfd: int
    returncode: int | None = None

    def poll(self) -> int | None:
        return self._until(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._until(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fsxsync", timeout or 0)
        return code

    def _until(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            ends = select.poll()
            ends.register(self._pidfd, select.POLLIN)
            if ends.poll(None if timeout_s is None else timeout_s * 1000):
                self.returncode = self.server.reap(self.pid)
                os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def run_out(self, timeout_s: float) -> int:
        """Wait for the end, as `subprocess.run` does: one that takes longer is killed, and the test fails."""
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
            raise


def wait_for_line(log: IO[bytes], line: bytes, begin: int, process: Forked | subprocess.Popen[bytes]) -> bytes | None:
    """Wait until it stands in a log after ``begin``; what stands there instead if the process ended before."""
    while True:
        ended = process.poll() is not None
        said = os.pread(log.fileno(), 1 << 20, begin)
        if line in said.splitlines():
            return None
        if ended:
            return said
        time.sleep(0.005)
