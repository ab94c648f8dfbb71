# ruff: noqa: S603 - it runs programs
"""Programs that people run on a file system, run on the mount."""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounting import Mounted

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")


@pytest.fixture(scope="module", params=["auto", "off"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("programs"), passthrough=request.param) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree of a few hundred files of all sizes, with a symlink, a hard link and an executable."""
    root = tmp_path_factory.mktemp("sources")
    for number in range(300):
        path = root / f"package{number % 17}" / f"part{number % 5}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"value = {number}\n" * (number * 7 % 997))
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "latest").symlink_to("package1/part0")
    os.link(root / "run", root / "run-too")
    return root


def run(*command: object, cwd: Path | None = None) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@localhost",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@localhost",
    }
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_git(mounted: Mounted, sources: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    run("cp", "-a", sources, origin)
    run("git", "init", "-q", "-b", "main", origin)
    run("git", "add", ".", cwd=origin)
    run("git", "commit", "-q", "-m", "one", cwd=origin)
    clone = mounted.path / "clone"

    run("git", "clone", "-q", origin, clone)
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    run("git", "fsck", "--strict", cwd=clone)
    (clone / "run").write_text("#!/bin/sh\nexit 0\n")
    run("git", "mv", "package1", "renamed", cwd=clone)
    run("git", "commit", "-q", "-a", "-m", "two", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    run("git", "checkout", "-q", "HEAD~1", cwd=clone)

    run("diff", "-r", "--no-dereference", "-x", ".git", sources, clone)


def test_tar(mounted: Mounted, sources: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "sources.tar", "w") as archive:
        archive.add(sources, "sources")

    run("tar", "-x", "-p", "-f", tmp_path / "sources.tar", "-C", mounted.path)

    run("diff", "-r", "--no-dereference", sources, mounted.path / "sources")
    run("tar", "-d", "-f", tmp_path / "sources.tar", "-C", mounted.path)  # contents, modes, owners, times
    run("tar", "-c", "-f", tmp_path / "again.tar", "-C", mounted.path, "sources")
    assert (mounted.path / "sources" / "run").stat().st_ino == (mounted.path / "sources" / "run-too").stat().st_ino


def test_rm_and_cp(mounted: Mounted, sources: Path) -> None:
    run("cp", "-a", sources, mounted.path / "copy")
    run("cp", "-a", mounted.path / "copy", mounted.path / "copy2")
    run("diff", "-r", "--no-dereference", sources, mounted.path / "copy2")

    run("rm", "-r", mounted.path / "copy", mounted.path / "copy2")

    assert not (mounted.tree / "copy").exists()


def test_sqlite_with_wal(mounted: Mounted) -> None:
    database = mounted.path / "data.db"
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        connection.execute("CREATE TABLE t (who TEXT, number INTEGER)")
    code = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
for number in range(50):
    with connection:
        connection.execute("INSERT INTO t VALUES (?, ?)", (sys.argv[2], number))
connection.close()
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, database, who]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    connection.close()

    for path in (database, mounted.tree / "data.db"):
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT who, count(*) FROM t GROUP BY who").fetchall() == [("a", 50), ("b", 50)]
        connection.close()


def test_pip_install_target(mounted: Mounted, tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    target = mounted.path / "site"

    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--disable-pip-version-check",
        "--root-user-action=ignore", "--target", target, wheel,
    )  # fmt: skip

    said = run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); import tiny; print(tiny.WORD)")
    assert said == "works\n"


def build_wheel(directory: Path) -> Path:
    files = {
        "tiny/__init__.py": "WORD = 'works'\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for name, text in files.items()
    )
    wheel = directory / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr("tiny-1.0.dist-info/RECORD", record + "tiny-1.0.dist-info/RECORD,,\n")
    return wheel
