"""Real trees of real files, two buckets: in from the bucket, out to the bucket, and back and forth."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, instance, keys_of, news_of
from support.moto_server import MotoServer

pytestmark = pytest.mark.slow

STDLIB = Path(sysconfig.get_paths()["stdlib"])
TREES = {"stdlib": STDLIB, "doc": Path("/usr/share/doc")}
THREADS = 8
LIMIT = int(os.environ.get("FSXSYNC_REAL_INPUT_FILES", "250"))
"""Files of each tree that `make test` takes; 0 takes all of them (a long run, see docs/PERFORMANCE.md)."""


def entries(root: Path) -> Iterator[Path]:
    """What is below a tree, in a fixed order, up to the limit: files, symlinks, directories."""
    count = 0
    for directory, directories, files in os.walk(root):
        directories.sort()
        links = [name for name in directories if (Path(directory) / name).is_symlink()]
        for name in [*links, *sorted(files)]:
            yield Path(directory) / name
            count += 1
            if count == LIMIT:
                return


def copy_of(name: str, target: Path) -> Path:
    """A copy that keeps everything, for the other client to upload and for `cp -a` to copy in."""
    source = TREES[name]
    if not LIMIT:
        subprocess.run(["cp", "-a", source, target], check=True)  # noqa: S603, S607
        return target
    for path in entries(source):
        where = target / path.relative_to(source)
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, where, follow_symlinks=False)
        status = path.lstat()
        os.chown(where, status.st_uid, status.st_gid, follow_symlinks=False)
    for directory, names, _ in os.walk(target, topdown=False):
        for name_ in names:
            here = Path(directory, name_)
            if not here.is_symlink():
                shutil.copystat(source / here.relative_to(target), here)
    return target


def upload(s3: Any, bucket: str, prefix: str, root: Path) -> None:
    """As a client that knows FSx's metadata would; directories only through the keys below them."""

    def put(path: Path) -> None:
        status = path.lstat()
        body = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        metadata = {
            "file-permissions": f"0{status.st_mode:o}",
            "file-owner": str(status.st_uid),
            "file-group": str(status.st_gid),
            "file-mtime": f"{status.st_mtime_ns}ns",
        }
        s3.put_object(Bucket=bucket, Key=f"{prefix}{path.relative_to(root)}", Body=body, Metadata=metadata)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]))


def facts(path: Path) -> tuple[object, ...]:
    """Kind, mode, owner, time and content of one path."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path), status.st_uid, status.st_gid)
    if stat.S_ISDIR(status.st_mode):
        return ("directory",)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ("file", status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_size, digest)


def tree_facts(root: Path) -> dict[str, tuple[object, ...]]:
    found = {str(path.relative_to(root)): path for path in root.rglob("*")}
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(found, pool.map(facts, found.values()), strict=True))


def bucket_facts(s3: Any, bucket: str, prefix: str) -> dict[str, tuple[object, ...]]:
    """The same of a prefix, as another client downloads it."""

    def look(key: str) -> tuple[object, ...]:
        answer = s3.get_object(Bucket=bucket, Key=key)
        data, metadata = answer["Body"].read(), answer["Metadata"]
        if key.endswith("/"):
            return ("directory",)
        mode = int(metadata["file-permissions"], 8)
        owner, group = int(metadata["file-owner"]), int(metadata["file-group"])
        if stat.S_ISLNK(mode):
            return ("link", os.fsdecode(data), owner, group)
        mtime_ns = int(metadata["file-mtime"].removesuffix("ns"))
        return ("file", mode, owner, group, mtime_ns, len(data), hashlib.sha256(data).hexdigest())

    keys = keys_of(s3, bucket, prefix)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(look, keys))
    return {key.removeprefix(prefix).rstrip("/"): answer for key, answer in zip(keys, answers, strict=True)}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, moto: MotoServer) -> Iterator[tuple[Instance, dict[str, Path]]]:
    """Two buckets with the two trees in them, linked; and copies of the trees to compare with."""
    base = tmp_path_factory.mktemp("real")
    copies = {name: copy_of(name, base / f"copy-{name}") for name in TREES}
    s3 = moto.client("s3", max_pool_connections=THREADS)
    with instance(base / "fsx") as made:
        for name, root in copies.items():
            s3.create_bucket(Bucket=f"real-{name}")
            upload(s3, f"real-{name}", "in/", root)
            source = news_of(moto, f"real-{name}")  # now: a long queue makes moto slow
            for direction in ("in", "out"):
                made.associate(moto, f"s3://real-{name}/{direction}/", f"/{name}/{direction}", *source)
        yield made, copies


@pytest.mark.parametrize("name", TREES)
def test_every_file_is_read_back_byte_for_byte(real: tuple[Instance, dict[str, Path]], name: str) -> None:
    made, copies = real
    made.settle(timeout=1800)
    expected = tree_facts(copies[name])
    assert len(expected) >= (LIMIT or 500)
    found = tree_facts(made.directory / name / "in")
    assert {
        path for path in expected if expected[path] != ("directory",) or any((copies[name] / path).iterdir())
    } <= set(found)
    assert {path: facts_ for path, facts_ in found.items() if expected.get(path) != facts_} == {}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_copied_in_is_downloaded_the_same(
    real: tuple[Instance, dict[str, Path]], name: str, moto: MotoServer
) -> None:
    made, copies = real
    s3 = moto.client("s3", max_pool_connections=THREADS)
    subprocess.run(["cp", "-a", f"{copies[name]}/.", made.directory / name / "out"], check=True)  # noqa: S603, S607
    made.settle(timeout=1800)
    expected = tree_facts(copies[name])
    found = bucket_facts(s3, f"real-{name}", "out/")
    found.pop("", None)
    assert found.keys() == expected.keys()
    assert {path: (facts_, expected[path]) for path, facts_ in found.items() if expected[path] != facts_} == {}


@pytest.mark.parametrize("name", TREES)
def test_deletes_and_renames_from_either_side_until_both_agree(
    real: tuple[Instance, dict[str, Path]], name: str, moto: MotoServer
) -> None:
    made, _ = real
    s3 = moto.client("s3", max_pool_connections=THREADS)
    bucket, directory = f"real-{name}", made.directory / name / "out"
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    directories = sorted(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())
    for path in files[::10]:
        path.unlink()
    for number, path in enumerate(directories[::4]):
        path.rename(directory / f"renamed {number}")
    made.settle(timeout=1800)
    keys = [key for key in keys_of(s3, bucket, "out/") if not key.endswith("/")]
    for key in keys[5::10]:
        s3.delete_object(Bucket=bucket, Key=key)
    for key in keys[7::50]:
        s3.copy_object(Bucket=bucket, Key=f"{key}.moved", CopySource={"Bucket": bucket, "Key": key})
        s3.delete_object(Bucket=bucket, Key=key)
    made.settle(timeout=1800)
    here, there = tree_facts(directory), bucket_facts(s3, bucket, "out/")
    there.pop("", None)
    assert {path: seen for path, seen in here.items() if seen[0] != "directory"} == {
        path: seen for path, seen in there.items() if seen[0] != "directory"
    }
    assert {path for path in there if there[path][0] == "directory"} <= set(here)
    assert made.status()["needs_person"] == []
