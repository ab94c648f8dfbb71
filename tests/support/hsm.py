"""A daemon that many tests of tiering share: each has a directory of its own, and asks over the socket, which takes
less time than a command.

    made.settle(place); made.release(place); made.stubs(place)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.instance import Instance, eventually, instance
from support.moto_server import MotoServer
from support.proxy import Proxy

from fsxsync.control.client import Client, Document

CHUNK = 64 * 1024
MANUAL = ("--import", "none", "--export", "none", "--poll", "0")


@dataclass
class Tiering:
    """``auto`` exports by itself; ``held`` too, and its requests pass ``proxy``, as those of ``manual``, which does
    nothing by itself."""

    fsx: Instance
    s3: Any
    bucket: str
    proxy: Proxy

    @property
    def client(self) -> Client:
        return Client(self.fsx.state_dir)

    def place(self, association: str, name: str) -> Path:
        """A new directory."""
        made = self.fsx.directory / association / name
        made.mkdir()
        return made

    def inside(self, path: Path) -> str:
        return str(path.relative_to(self.fsx.directory))

    def key(self, path: Path) -> str:
        return self.inside(path)

    # ------------------------------------------------------------- what is done

    def settle(self, path: Path) -> None:
        """Return when nothing is pending below it."""
        left = self.client.wait(self.inside(path).encode(), 60)
        assert left == [], f"{left}\n{self.fsx.said()}"

    def task(self, kind: str, *paths: Path, failures: int = 100) -> Document:
        """Do it to the end."""
        made = self.client.create_task({"type": kind, "paths": [self.inside(path) for path in paths]})
        return self.ended(made["id"], failures)

    def ended(self, task: str, failures: int = 100) -> Document:
        shown: list[Document] = []

        def has_ended() -> bool:
            shown.append(self.client.task(task, failures=failures))
            return shown[-1]["lifecycle"] in {"SUCCEEDED", "FAILED", "CANCELED"}

        eventually(has_ended, 60)
        return shown[-1]

    def release(self, *paths: Path) -> None:
        """Release what has to be releasable."""
        done = self.task("RELEASE_DATA_FROM_FILESYSTEM", *paths)
        assert done["lifecycle"] == "SUCCEEDED", done["failures"]

    def try_to_release(self, *paths: Path) -> dict[str, str]:
        """Why what was not: a code for each path."""
        return codes(self.task("RELEASE_DATA_FROM_FILESYSTEM", *paths))

    def restore(self, *paths: Path) -> dict[str, str]:
        return codes(self.task("RESTORE_DATA", *paths))

    # ------------------------------------------------------------- what is there

    def flags(self, path: Path) -> list[str]:
        return self.state(path)["flags"]  # type: ignore[no-any-return]

    def state(self, path: Path) -> Document:
        found: Document = next(self.client.states([self.inside(path).encode()], recursive=False))["state"]
        return found

    def body(self, path: Path) -> bytes:
        """Of its object."""
        found: bytes = self.s3.get_object(Bucket=self.bucket, Key=self.key(path))["Body"].read()
        return found

    def keys(self, place: Path) -> list[str]:
        """Names of the objects below a directory."""
        prefix = self.key(place) + "/"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        found = [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])]
        return sorted(filter(None, found))

    def agree(self, place: Path, expected: dict[str, bytes]) -> None:
        """Both sides hold this and nothing else, to the last byte."""
        self.settle(place)
        assert sorted(path.name for path in place.iterdir()) == sorted(expected)
        for name, body in expected.items():
            assert (place / name).read_bytes() == body, name
        self.settle(place)
        assert self.keys(place) == sorted(expected)
        for name, body in expected.items():
            assert self.body(place / name) == body, name


def codes(task: Document) -> dict[str, str]:
    return {Path(row["path"]).name: row["code"] for row in task["failures"]}


@contextmanager
def tiering(base: Path, moto: MotoServer, bucket: str, *options: str) -> Iterator[Tiering]:
    """A mounted daemon with the three associations."""
    s3 = moto.client("s3")
    s3.create_bucket(Bucket=bucket)
    with Proxy(moto.url) as proxy, instance(base, options=options, FSXSYNC_CHUNK_SIZE=str(CHUNK)) as fsx:
        for name, url, how in (
            ("auto", moto.url, ("--poll", "0")),
            ("held", proxy.url, ("--poll", "0")),
            ("manual", proxy.url, MANUAL),
        ):
            fsx.ok("associate", f"s3://{bucket}/{name}/", f"/{name}", "--endpoint-url", url, *how)
        yield Tiering(fsx, s3, bucket, proxy)
        fsx.ok("check", "--verify")


class Over(threading.Event):
    """Set when the other side of a race is done."""


def race(main: Callable[[], object], others: Iterable[Callable[[Over], object]]) -> None:
    """Run all at once; the others go on until ``main`` is done. Raises what any of them raised."""
    over = Over()

    def run(act: Callable[[Over], object]) -> None:
        try:
            act(over)
        except BaseException:
            over.set()
            raise

    acts = list(others)
    with ThreadPoolExecutor(len(acts)) as pool:
        running = [pool.submit(run, act) for act in acts]
        try:
            main()
        finally:
            over.set()
        for one in running:
            one.result(60)
