"""A real mount of a directory, served by a process of its own over the fake hydrator.

    with Mounted(tmp_path) as mounted:
        (mounted.path / "f").write_text("through the mount")
        assert (mounted.tree / "f").read_text()  # behind it

What the hydrator shall do, and what it was asked, goes through the process's standard streams: one JSON line a
question, one an answer. The process ends with its standard input, so also if the test run is killed; and whatever
happens, nothing stays mounted.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

import trio
from fakes.hydrator import FakeHydrator
from support.forked import Forked, fork_server

from fsxsync import _core, errors
from fsxsync.mount import session as mount_session
from fsxsync.mount.operations import TreeOperations
from fsxsync.mount.session import Session, serve_mount

TESTS = Path(__file__).parent.parent


class Mounted:
    """``tree`` is the host's directory, ``path`` the mount. A context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        attr_timeout_s: float = 60.0,
        allow_other: bool = False,
        passthrough: str | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """``passthrough`` as ``-o passthrough=``; what a test's `data_path` fixture says where it is not given.
        ``prefix``: what comes before the command that serves it."""
        self._prefix = prefix
        passthrough = passthrough or os.environ.get("FSXSYNC_TEST_PASSTHROUGH", "auto")
        self.tree = directory / "tree"
        self.path = directory / "mount"
        self.state_dir = directory / "state"
        for made in (self.tree, self.path, self.state_dir):
            made.mkdir(exist_ok=True)
        self._arguments = [self.tree, self.path, self.state_dir, attr_timeout_s, int(allow_other), passthrough]
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._questions: IO[str] | None = None
        self._answers: IO[str] | None = None
        self._log: IO[bytes] | None = None
        self.expected_log = ""
        """What the server's log must hold; with nothing expected it must be empty."""
        self._expected_code = 0

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None
        return self._process

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        (asked, questions), (answers, answered) = os.pipe(), os.pipe()
        self._questions, self._answers = open(questions, "w"), open(answers)
        words = list(map(str, self._arguments))
        try:
            if not self._prefix:
                self._process = fork_server().start(
                    words, os.environ, stdin=asked, stdout=answered, stderr=self._log, module="support.mounting"
                )
            else:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [*self._prefix, sys.executable, "-m", "support.mounting", *words],
                    stdin=asked,
                    stdout=answered,
                    stderr=self._log,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
                )
        finally:
            os.close(asked)
            os.close(answered)
        try:
            self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said = self._end()
        if error is None:
            assert self.process.returncode == self._expected_code, said
            assert (self.expected_log in said) if self.expected_log else not said, said
        else:
            sys.stderr.write(said)

    def _end(self) -> str:
        process, log = self.process, self._log
        assert log is not None
        assert self._questions is not None
        assert self._answers is not None
        with suppress(BrokenPipeError):  # what it could not be asked any more
            self._questions.close()  # its standard input, which ends it
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._answers.close()
        try:
            _core.umount2(os.fsencode(self.path), _core.MNT_DETACH)
            left = "it stayed mounted\n"
        except OSError:
            left = ""  # as it should be: it is not mounted
        log.seek(0)
        said = left + log.read().decode("utf-8", "replace")
        log.close()
        return said

    def kill(self) -> None:
        """As `kill -9`: the mount is dead afterwards, and still there."""
        self.process.kill()
        self._expected_code = self.process.wait()

    # ------------------------------------------------------------- the hydrator

    def ask(self, what: str, **arguments: Any) -> Any:
        assert self._questions is not None
        self._questions.write(json.dumps({"what": what, **arguments}) + "\n")
        self._questions.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._answers is not None
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the server of the mount ended")
        return json.loads(line)

    def put_object(self, key: str, body: bytes) -> None:
        self.ask("put_object", key=key, body=base64.b64encode(body).decode())

    def calls(self, name: str | None = None) -> list[list[Any]]:
        """[name, arguments] of what the hydrator was asked up to now."""
        return [call for call in self.ask("calls") if name is None or call[0] == name]


def error_of(call: Callable[..., object], *arguments: Any) -> int:
    """The errno that a call fails with."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or 0
    raise AssertionError(f"{call} did not fail")


def wait_until(check: Callable[[], bool], within_s: float = 30) -> None:
    """For what comes by itself, but later."""
    give_up = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.001)


# ---------------------------------------------------------------- the process


class CountedOperations(TreeOperations):
    count = 0

    async def read(self, *arguments: Any) -> Any:
        CountedOperations.count += 1
        return await super().read(*arguments)

    async def write(self, *arguments: Any) -> Any:
        CountedOperations.count += 1
        return await super().write(*arguments)


class _Server:
    def __init__(self, session: Session, hydrator: FakeHydrator) -> None:
        self._session = session
        self._hydrator = hydrator

    async def do(self, request: dict[str, Any]) -> Any:
        what = request.pop("what")
        self._session.front.catch_up()  # as sync does before it judges anything
        done = getattr(self, what)(**request)
        return await done if inspect.isawaitable(done) else done

    def put_object(self, key: str, body: str) -> None:
        self._hydrator.objects[key] = base64.b64decode(body)

    def calls(self) -> list[tuple[str, list[object]]]:
        return self._hydrator.calls

    def forget_calls(self) -> None:
        self._hydrator.calls.clear()

    def loads(self) -> int:
        return self._hydrator.loads

    def stall(self, seconds: float) -> None:
        """Answer nobody for a while."""
        time.sleep(seconds)

    def close_gate(self) -> None:
        self._hydrator.gate = trio.Event()

    def open_gate(self) -> None:
        self._hydrator.gate.set()

    def fail(self, error: str | None) -> None:
        self._hydrator.failure = getattr(errors, error)("loading", "the test wants it") if error else None

    def forbid(self, read_only: list[str], roots: list[str], bugs: list[str]) -> None:
        self._hydrator.read_only = set(map(os.fsencode, read_only))
        self._hydrator.roots = set(map(os.fsencode, roots))
        self._hydrator.bugs = set(map(os.fsencode, bugs))
        self._session.front.policies_changed()

    def invalidate_entry(self, parent_ino: int, name: str) -> None:
        self._session.front.invalidate_entry(parent_ino, os.fsencode(name))

    def invalidate_inode(self, ino: int, data: bool) -> None:
        self._session.front.invalidate_inode(ino, data=data)

    def requests(self) -> int:
        return 0

    def open_handles(self, ino: int) -> int:
        return self._session.front.open_handles(ino)

    def bytes_served(self) -> int:
        """Reads and writes that came through the process."""
        return CountedOperations.count

    def backings(self) -> int:
        """Files that the kernel reads and writes by itself."""
        return sum(bool(inode.backing_id) for inode in self._session.cache._handles._inodes.values())

    def data_path(self) -> str:
        return self._session.data_path[0]

    def channel(self) -> dict[str, int]:
        """What the channel passed on, answered by itself, refused."""
        channel = self._session.cache._direct._channel
        return channel.stats() if channel is not None else {}

    async def touch_own_mount(self, name: str) -> int:
        """The errno of a stat of something in the mount, by the process that serves it."""
        path = Path(self._session.mountpoint or "", name)
        try:
            await trio.to_thread.run_sync(path.stat)
        except OSError as error:
            return error.errno or 0
        return 0

    def table_size(self) -> int:
        return len(self._session.cache._nodes or ())


async def _serve(
    tree: Path, mountpoint: Path, state_dir: Path, attr_timeout_s: float, allow_other: bool, passthrough: str
) -> None:
    session, hydrator = Session(), FakeHydrator()
    server = _Server(session, hydrator)
    mount_session.TreeOperations = CountedOperations  # type: ignore[misc]
    session.prepare(
        tree,
        mountpoint,
        state_dir=state_dir,
        attr_timeout_s=attr_timeout_s,
        allow_other=allow_other,
        passthrough=passthrough,
    )

    def answer(value: Any) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    async with trio.open_nursery() as nursery:

        async def mount(*, task_status: trio.TaskStatus[None]) -> None:
            await serve_mount(session, hydrator, task_status=task_status)
            nursery.cancel_scope.cancel()  # unmounted from outside

        await nursery.start(mount)
        answer(None)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            answer(await server.do(json.loads(line)))
        nursery.cancel_scope.cancel()


def main(arguments: Sequence[str]) -> NoReturn:
    os.umask(0)
    sys.setswitchinterval(0.001)
    tree, mountpoint, state_dir, timeout, others, passthrough = arguments
    trio.run(
        partial(_serve, Path(tree), Path(mountpoint), Path(state_dir), float(timeout), bool(int(others)), passthrough)
    )
    os._exit(0)  # a thread may still wait for standard input


if __name__ == "__main__":
    main(sys.argv[1:])
