"""The cases on a mount whose daemon is an ordinary user's, as that user: those that need nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from posix_suite.deviations import ORDINARY, expected_instead
from posix_suite.registry import CASES, Observed
from posix_suite.stage import CaseFailed, Stage, load_cases
from support.mounting import Mounted
from support.ordinary_user import UID, OrdinaryUser

pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user"),
]

load_cases()

NEED_ANOTHER = 50
"""At most so many cases need root, a stranger or another group. Each more would be one that is not tried here."""


@dataclass(frozen=True, slots=True)
class Theirs:
    stage: Stage
    bare: Path
    mount: Path

    def on_the_host(self, name: str) -> tuple[Observed] | None:
        """None: the case needs somebody else."""
        try:
            return (self.stage.observe(name, "user", self.bare),)
        except CaseFailed:
            return None


@pytest.fixture(scope="module")
def theirs() -> Iterator[Theirs]:
    with OrdinaryUser() as user:
        for name in ("bare", "tree", "mount", "state"):
            made = user.home / name
            made.mkdir()
            os.chown(made, UID, UID)
        with Stage(user.prefix) as stage, Mounted(user.home, passthrough="off", prefix=user.prefix) as mounted:
            yield Theirs(stage, user.home / "bare", mounted.path)


@pytest.mark.parametrize("name", sorted(CASES))
def test_ordinary_daemon(name: str, theirs: Theirs) -> None:
    on_the_host = theirs.on_the_host(name)
    if on_the_host is None:
        return

    on_the_mount = theirs.stage.observe(name, "user", theirs.mount)

    instead = expected_instead(name, "user", ORDINARY)
    assert instead is None or on_the_host != instead, "this is no deviation: take it out of both lists"
    assert on_the_mount == (instead or on_the_host)[0]


def test_most_cases_need_nobody_else(theirs: Theirs) -> None:
    assert sum(theirs.on_the_host(name) is None for name in CASES) <= NEED_ANOTHER
