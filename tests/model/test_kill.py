"""``kill -9`` in the middle of bursts: after a restart both sides are the same, byte for byte, nothing is lost.

The moments are random, but the same ones in every run; what they hit is not. FSXSYNC_MODEL_EXAMPLES (any number) makes
the bursts longer and the kills more.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forked import ForkServer
from support.instance import Instance, bucket_with_events, keys_of
from support.moto_server import MotoServer

# ruff: noqa: S311  nothing here is a secret

MIB = 1 << 20
LONG = bool(os.environ.get("FSXSYNC_MODEL_EXAMPLES"))
FILES = 300 if LONG else 120
KILLS = 5 if LONG else 3

pytestmark = pytest.mark.slow


class Linked:
    """An instance with one association, whose daemon is killed now and then."""

    def __init__(self, made: Instance, moto: MotoServer) -> None:
        self.made, self.s3 = made, moto.client("s3")
        self.bucket = f"k-{uuid.uuid4().hex[:12]}"
        self.queue = bucket_with_events(moto, self.bucket, self.bucket)
        # A killed daemon's long poll may take a message with it: it comes back soon.
        moto.client("sqs").set_queue_attributes(QueueUrl=self.queue, Attributes={"VisibilityTimeout": "1"})
        made.associate(moto, f"s3://{self.bucket}/p/", "/d", "--events", f"sqs:{self.queue}")

    @property
    def directory(self) -> Path:
        return self.made.directory / "d"

    @property
    def behind(self) -> Path:
        return self.made.tree / "d"

    def kill_often(self, rng: random.Random, times: int = KILLS) -> None:
        """Let it work for a moment, kill it, start it again."""
        for _ in range(times):
            threading.Event().wait(rng.uniform(0.02, 0.6))
            self.made.kill()
            self.made.start()

    def contents(self) -> dict[str, str]:
        """Digests of all files as an application reads them."""
        return {
            str(path.relative_to(self.directory)): digest(path.read_bytes())
            for path in self.directory.rglob("*")
            if path.is_file()
        }

    def objects(self) -> dict[str, str]:
        return {
            key.removeprefix("p/"): digest(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
            for key in keys_of(self.s3, self.bucket, "p/")
            if not key.endswith("/")
        }

    def all_keys(self) -> list[str]:
        return [key.removeprefix("p/") for key in keys_of(self.s3, self.bucket, "p/")]

    def uploads(self) -> list[Any]:
        found: list[Any] = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return found

    def settle(self) -> None:
        self.made.settle()
        (row,) = self.made.status()["associations"]
        assert (row["errors"], row["conflicts"]) == (0, 0), row
        assert self.uploads() == []


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def random_tree(directory: Path, rng: random.Random, files: int = FILES) -> dict[str, str]:
    """Make a tree of that many files; their digests."""
    found = {}
    for number in range(files):
        path = directory / f"{number % 7}/{number % 3}/file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = rng.randbytes(rng.choice([1, 500, 20_000]))
        path.write_bytes(data)
        found[str(path.relative_to(directory))] = digest(data)
    return found


@pytest.fixture(params=["mount", "watch"])
def linked(
    request: pytest.FixtureRequest, moto: MotoServer, fork_server: ForkServer, tmp_path: Path
) -> Iterator[Linked]:
    made = Instance(tmp_path, mounted=request.param == "mount", server=fork_server)
    try:
        made.start()
        yield Linked(made, moto)
    finally:
        made.clean_up()


def test_a_tree_that_is_copied_in(linked: Linked, tmp_path: Path) -> None:
    rng = random.Random(1)
    wanted = random_tree(tmp_path / "source", rng)
    # Behind the mount: the copy goes on while nobody serves.
    copying = subprocess.Popen(["cp", "-a", f"{tmp_path}/source/.", linked.behind])  # noqa: S603, S607
    linked.kill_often(rng)
    assert copying.wait(60) == 0
    linked.settle()
    assert linked.objects() == wanted
    assert linked.contents() == wanted


def test_many_objects_that_come_in(linked: Linked) -> None:
    rng = random.Random(3)
    wanted = {}

    def put() -> None:
        for number in range(FILES):
            path, data = f"{number % 7}/{number % 3}/object {number}", rng.randbytes(rng.choice([1, 500, 20_000]))
            linked.s3.put_object(Bucket=linked.bucket, Key=f"p/{path}", Body=data)
            wanted[path] = digest(data)

    putting = threading.Thread(target=put)
    putting.start()
    linked.kill_often(random.Random(4))
    putting.join()
    linked.settle()
    assert linked.contents() == wanted
    linked.settle()
    assert linked.objects() == wanted


def test_directories_that_are_renamed(linked: Linked, tmp_path: Path) -> None:
    """Half of the files are there, half of them are released: those bytes are nowhere but in the bucket."""
    rng = random.Random(5)
    wanted = random_tree(linked.behind / "here", rng, FILES // 2)
    for number in range(FILES // 2):
        data = rng.randbytes(500)
        linked.s3.put_object(Bucket=linked.bucket, Key=f"p/released/{number % 5}/{number}", Body=data)
        wanted[f"{number % 5}/{number}"] = digest(data)
    linked.settle()
    names = {"here": "here", "released": "released"}
    for round_ in range(KILLS):
        for name, now in names.items():
            (linked.behind / now).rename(linked.behind / f"{name}-{round_}")
            names[name] = f"{name}-{round_}"
        linked.kill_often(rng, 1)
    linked.settle()
    expected = {
        f"{names['released' if path.count('/') == 1 else 'here']}/{path}": found for path, found in wanted.items()
    }
    assert linked.objects() == expected
    assert linked.contents() == expected
    directories = {str(parent) for path in expected for parent in Path(path).parents} - {"."}
    assert {key for key in linked.all_keys() if key.endswith("/")} <= {f"{path}/" for path in directories}
