"""Export of many small files, and what the same server takes from boto3 alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.moto_server import MotoServer

from bench.harness import Report, running, stopwatch, timed
from bench.server import StaticServer

FILES = 1500
SIZE = 10 * 1024
THREADS = (1, 4, 16)
GOAL = 200
_BODY = b"x" * SIZE


def run(report: Report) -> None:
    """Against moto, and against a server that takes what comes."""
    with MotoServer() as moto:
        moto.client("s3").create_bucket(Bucket="bench")
        _against(report, "moto", moto, moto.url)
        with StaticServer(0) as server:
            moto.url = server.url  # the same clients, another server
            _against(report, "fast server", moto, server.url)


def _against(report: Report, name: str, moto: MotoServer, url: str) -> None:
    case = f"export of {FILES} files of 10 KiB, {name}"
    plain = max(_boto3(moto, threads) for threads in THREADS)
    ours = _export(url)
    plain = max(
        plain, *(_boto3(moto, threads) for threads in THREADS)
    )  # before and after: the machine is no quieter for one
    report.add(case, "from first write to the end", "files/s", ours, **{"boto3 put_object": plain, "goal": GOAL})


def _boto3(moto: MotoServer, threads: int) -> float:
    """What the server takes: the same objects, one client, so many threads."""
    s3 = moto.client("s3", max_pool_connections=threads)

    def put(number: int) -> Any:
        return s3.put_object(
            Bucket="bench",
            Key=f"plain/{threads}/{number}",
            Body=_BODY,
            Metadata={"file-permissions": "0100644", "file-owner": "0", "file-group": "0", "file-mtime": "1ns"},
        )

    with ThreadPoolExecutor(threads) as pool:
        return FILES / 3 / timed(lambda: list(pool.map(put, range(FILES // 3))))


def _export(url: str) -> float:
    with running() as fsx:
        fsx.ok("associate", "s3://bench/ours/", "/d", "--endpoint-url", url, "--poll", "0")
        elapsed = stopwatch()
        for number in range(FILES):
            (fsx.directory / f"d/{number}").write_bytes(_BODY)
        fsx.settle()
        return FILES / elapsed()
