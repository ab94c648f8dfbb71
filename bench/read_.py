"""Reading released files for the first time, and plain boto3; then the same files again, and the bare directory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.moto_server import MotoServer

from bench.harness import Report, running, timed
from bench.objects import BUCKET, key_of
from bench.server import StaticServer

MIB = 1 << 20
THREADS = 8
SHAPES = (("small", 400, 10 * 1024), ("medium", 64, 4 * MIB), ("large", 2, 256 * MIB))
_BEHIND = "directory behind it"


def run(report: Report) -> None:
    """Objects of one size at a time, read by several threads as an application would."""
    for name, count, size in SHAPES:
        with StaticServer(count, size) as server, running() as fsx:
            fsx.ok("associate", server.uri, "/data", "--endpoint-url", server.url, "--poll", "0", timeout=600)
            fsx.settle(timeout=600)
            case, total = f"{count} {name} files of {size / 1024:g} KiB", count * size / MIB
            names = [key_of(number).partition("/")[2] for number in range(count)]
            plain = total / _boto3(server, names)
            ours = total / _read(fsx.directory / "data", names)
            report.add(case, "first read, released", "MiB/s", ours, **{"boto3 get_object": plain})
            warm = total / _read(fsx.directory / "data", names)
            bare = total / _read(fsx.tree / "data", names)
            report.add(case, "read again", "MiB/s", warm, **{_BEHIND: bare})


def _boto3(server: StaticServer, names: list[str]) -> float:
    moto = MotoServer()
    moto.url = server.url  # its client, our server
    s3 = moto.client("s3", max_pool_connections=THREADS)

    def get(name: str) -> None:
        body = s3.get_object(Bucket=BUCKET, Key=f"data/{name}")["Body"]
        while body.read(MIB):
            pass

    return timed(lambda: _in_threads(get, names))


def _read(directory: Path, names: list[str]) -> float:
    def read(name: str) -> None:
        with (directory / name).open("rb", buffering=0) as file:
            while file.read(MIB):
                pass

    return timed(lambda: _in_threads(read, names))


def _in_threads(act: object, names: list[str]) -> None:
    assert callable(act)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(act, names))
