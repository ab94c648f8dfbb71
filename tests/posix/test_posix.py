"""Each case on a bare directory and on the mount, as root and as an ordinary user, on both data paths.

What a case does, and what is demanded of it, is in `posix_cases`, one file a family of calls. Where the mount may
differ is in `posix_suite.deviations` and in docs/SEMANTICS.md. The host's file system has to be one that counts the
links of directories, as ext4 and xfs do and btrfs does not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from posix_suite.deviations import expected_instead
from posix_suite.registry import CASES, UNSAID, Observed
from posix_suite.stage import Stage, load_cases
from support.mounting import Mounted

pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as other users"),
]

load_cases()


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory that every user may look into: pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="fsxsync-posix-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


class Bare:
    """A directory beside the tree, on the same file system; each case runs there once."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self._stage = stage
        self._directory = directory
        self._observed: dict[tuple[str, str], Observed] = {}

    def observed(self, name: str, actor: str) -> Observed:
        if (name, actor) not in self._observed:
            self._observed[name, actor] = self._stage.observe(name, actor, self._directory)
        return self._observed[name, actor]


@pytest.fixture(scope="module")
def bare(stage: Stage, room: Path) -> Bare:
    directory = room / "bare"
    directory.mkdir()
    return Bare(stage, directory)


@pytest.fixture(scope="module", params=["auto", "off"])
def mounted(request: pytest.FixtureRequest, room: Path) -> Iterator[Mounted]:
    directory = room / request.param
    directory.mkdir()
    with Mounted(directory, allow_other=True, passthrough=request.param) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def data_path(mounted: Mounted) -> str:
    """Which deviations to expect: "auto" is as "off" where the kernel has no passthrough."""
    return "auto" if mounted.ask("data_path") == "passthrough" else "off"


@pytest.mark.parametrize("actor", ["root", "user"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str, actor: str, stage: Stage, bare: Bare, mounted: Mounted, data_path: str) -> None:
    on_the_host = bare.observed(name, actor)
    demanded = CASES[name].demands(actor)
    if demanded is not UNSAID:
        assert on_the_host == demanded, "the bare directory does not do what is demanded"

    on_the_mount = stage.observe(name, actor, mounted.path)

    instead = expected_instead(name, actor, data_path)
    if instead is None:
        assert on_the_mount == on_the_host, "the mount differs"
    else:
        assert on_the_host != instead[0], "this is no deviation: take it out of the table and of docs/SEMANTICS.md"
        assert on_the_mount == instead[0], "the deviation is gone, or became another one"
