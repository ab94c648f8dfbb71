"""scripts/build-server where nothing can be built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts/build-server"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty cache, and a PATH with all that a shell script needs but no Go."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env", "mkdir", "mktemp", "rm"):
        (programs / name).symlink_to(
            next(path for path in (Path("/usr/bin", name), Path("/bin", name)) if path.exists())
        )
    return {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}


def build(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_without_go_one_line_says_what_is_missing_and_nothing_stays(environment: dict[str, str]) -> None:
    done = build(environment, "versitygw")

    assert (done.returncode, done.stdout) == (1, "")
    assert "no Go" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(Path(environment["XDG_CACHE_HOME"], "fsxsync/servers")) == []


def test_what_is_cached_is_only_named(environment: dict[str, str]) -> None:
    assert build(environment, "--cached", "minio").returncode == 1
    cache = Path(environment["XDG_CACHE_HOME"], "fsxsync/servers")
    build(environment, "minio")
    wanted = next(word for word in PROGRAM.read_text().split() if word.startswith("version=v0.0.0"))
    program = cache / f"minio-{wanted.removeprefix('version=')}"
    program.touch(mode=0o755)

    for arguments in (["minio"], ["--cached", "minio"]):
        done = build(environment, *arguments)
        assert (done.returncode, done.stdout) == (0, f"{program}\n")


@pytest.mark.parametrize("arguments", [[], ["ceph"], ["--cached"]])
def test_what_it_does_not_know(environment: dict[str, str], arguments: list[str]) -> None:
    done = build(environment, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage:")
