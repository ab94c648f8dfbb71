"""A process in which cases run: they change identity, working directory, umask and limits, and may be killed.

    with Stage() as stage:
        stage.observe("mkdir_over_a_file", "user", directory)

It is started as root, or by ``prefix`` as an ordinary user, who then acts alone. One JSON line a case goes in, one
comes out.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import posix_cases

from posix_suite.identities import actor, is_root
from posix_suite.registry import CASES, Observed

TESTS = Path(__file__).parent.parent.parent
SECONDS = 30
"""No case takes one. A call that never returns shall not stop the run."""


def load_cases() -> None:
    """Fill `registry.CASES`."""
    for module in pkgutil.iter_modules(posix_cases.__path__):
        importlib.import_module(f"posix_cases.{module.name}")


class CaseFailed(AssertionError):
    """A case raised something, instead of observing it."""


class Stage:
    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._prefix = prefix

    def __enter__(self) -> Self:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS / "posix", TESTS, TESTS.parent)))}
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*self._prefix, sys.executable, "-m", "posix_suite.stage"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def observe(self, name: str, actor: str, directory: Path) -> Observed:
        """Run a case below a directory."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps([name, actor, str(directory)]) + "\n")
        requests.flush()
        answer = json.loads(answers.readline())
        if "failed" in answer:
            raise CaseFailed(f"{name} as {actor} in {directory}:\n{answer['failed']}")
        return answer["observed"]


# ---------------------------------------------------------------- the process


_numbers = itertools.count()


def run(name: str, who: str, directory: str) -> dict[str, Any]:
    here = os.path.join(directory, f"{next(_numbers)}-{name}"[:200])
    me = actor(who)
    try:
        os.mkdir(here)
        os.chown(here, me.uid, me.gid)
        os.chdir(here)  # by root: a user may have no way to it from the root directory
        signal.alarm(SECONDS)
        with me.acting():
            return {"observed": CASES[name].act(me)}
    except Exception:  # noqa: BLE001 - told to whoever asked
        return {"failed": traceback.format_exc()}
    finally:
        signal.alarm(0)
        os.umask(0o022)
        os.chdir("/")
        shutil.rmtree(here, ignore_errors=not is_root())  # an ordinary user may have shut himself out


def main(requests: IO[str], answers: IO[str]) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    os.umask(0o022)
    for line in requests:
        answers.write(json.dumps(run(*json.loads(line))) + "\n")
        answers.flush()


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"a case took over {SECONDS} seconds")


if __name__ == "__main__":
    load_cases()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a case's programs print
    main(sys.stdin, answers)
