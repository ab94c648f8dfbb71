"""Data repository tasks: releasing, restoring, telling the state and the differences of many files, against a server
that is no bottleneck.

The small files are half as many as ``--objects`` says. What is restored is a tenth of these, 64 KiB each, and compared
with the transfer engine's own download of the same, in turns: from versitygw, as in the engine's own benchmark
(`bench transfer`), and from a server that does nothing else than send. ``--only`` takes one of them: release, diff,
restore.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from support.built_servers import VersityServer, built_program
from support.instance import Instance
from support.moto_server import ENVIRONMENT

from bench.harness import MEMORY, Report, cpu_s, daemon_pid, have_memory_at_hand, memory_mib, running, timed
from bench.objects import BUCKET, PREFIX, etag_of, key_of
from bench.server import StaticServer
from bench.transfer_ import THREADS, child
from bench.transfer_child import Task
from fsxsync.repository.listing import fetch_page, read_fast

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RELEASES_PER_S = 10_000
STATE_S_PER_100_000 = 3.0
RESTORE_SHARE = 0.9
DIFF_SHARE = 1.2
SMALL, LARGE = 1024, 64 * 1024
MARK_TAKES = 8 * 1024
"""Bytes of memory that the file system takes for the mark of a file: a block of its own, and what it reads for that."""
LISTED = 4_000
LIST_SHARE = 5
"""A command that names thousands takes a while to be told."""
ROUNDS = 3
"""Of the restore."""


def run(report: Report) -> None:
    """Restore and release; the daemon has the settings that users get."""
    if report.only in {"", "release"}:
        _release(report, max(report.objects // 2, 1))
    if report.only in {"", "lists"}:
        _lists(report, LISTED)
    if report.only in {"", "diff"}:
        _diff_of_a_store(report, max(report.objects // 2, 1))
    if report.only in {"", "restore"}:
        _restore(report, max(report.objects // 20, 1))
        _restore_of_a_store(report, max(report.objects // 20, 1))


def _release(report: Report, count: int) -> None:
    case = f"{count} files of {SMALL} B"
    with StaticServer(count, SMALL) as server, running() as fsx:
        fsx.ok("associate", server.uri, "/d", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
        fsx.settle(timeout=3600)
        place, pid = fsx.directory / "d", daemon_pid(fsx)
        before = cpu_s(pid)
        report.add(case, "restored", "files/s", count / timed(lambda: fsx.ok("restore", place, timeout=3600)))
        fsx.settle(timeout=3600)
        report.add(case, "daemon's processor, restoring", "us/file", (cpu_s(pid) - before) / count * 1e6)
        have_memory_at_hand(count * MARK_TAKES)
        before = cpu_s(pid)
        released_s = timed(lambda: fsx.ok("release", place, timeout=3600))
        report.add(case, "released", "files/s", count / released_s, goal=RELEASES_PER_S)
        report.add(case, "daemon's processor", "us/file", (cpu_s(pid) - before) / count * 1e6)
        told_s = timed(lambda: fsx.ok("state", "-r", "--json", place, timeout=3600))
        report.add(case, "state -r", "s", told_s, goal=STATE_S_PER_100_000 * count / 100_000)
        report.add(case, "check", "s", timed(lambda: fsx.ok("check", place, timeout=3600)))
        unsigned = Config(signature_version=UNSIGNED)
        client = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", config=unsigned)
        _diff(report, case, fsx, client, server.uri)
        report.add(case, "highest Rss", "MiB", memory_mib(pid)["Peak"])


def _lists(report: Report, count: int) -> None:
    """Files that are named one by one, as their directory is."""
    with StaticServer(2 * count, SMALL) as server, running() as fsx:
        fsx.ok("associate", server.uri, "/d", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
        fsx.settle(timeout=3600)
        files = sorted(path for path in (fsx.directory / "d").rglob("*") if path.is_file())[:count]
        directories = sorted({path.parent for path in files})
        fsx.ok("restore", *directories, timeout=3600)
        for command, undone_by in (("release", "restore"), ("restore", "release"), ("export", "export")):
            alone = timed(partial(fsx.ok, command, *directories))
            fsx.ok(undone_by, *directories)
            listed = timed(partial(fsx.ok, command, *files))
            case = f"{count} files of {SMALL} B, each named"
            report.add(case, command, "s", listed, directories=alone, goal=LIST_SHARE * alone)


def _diff(report: Report, case: str, fsx: Instance, client: S3Client, uri: str) -> None:
    """Both sides are equal: what `diff` does beside the listing has to hide behind it."""
    bucket, prefix = uri.removeprefix("s3://").split("/", 1)
    read_fast(client)
    alone, whole = [], []
    for _ in range(3):  # in turns: other programs slow both down
        alone.append(timed(lambda: _list(client, bucket, prefix)))
        whole.append(timed(lambda: fsx.ok("diff", fsx.directory / "d", timeout=3600)))
    report.add(case, "diff", "s", min(whole), listing=min(alone), goal=DIFF_SHARE * min(alone))


def _list(client: S3Client, bucket: str, prefix: str) -> None:
    """As fast as we can."""
    more = dict[str, str]()
    while (page := fetch_page(client, Bucket=bucket, Prefix=prefix, **more)).is_truncated:
        more = {"ContinuationToken": page.token or ""}


def _diff_of_a_store(report: Report, count: int) -> None:
    """The same against a server that has to find what it lists."""
    if built_program("versitygw") is None:
        return
    with tempfile.TemporaryDirectory(prefix="fsxsync-bench-") as base, VersityServer(Path(base)) as server:
        client = server.client("s3")
        client.create_bucket(Bucket=BUCKET)
        with ThreadPoolExecutor(THREADS) as pool:
            keys = map(key_of, range(count))
            list(pool.map(lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=b"x" * SMALL), keys))
        with running(**ENVIRONMENT) as fsx:
            uri = f"s3://{BUCKET}/{PREFIX}"
            fsx.ok("associate", uri, "/d", "--endpoint-url", server.url, "--poll", "0", timeout=3600)
            fsx.settle(timeout=3600)
            _diff(report, f"{count} files of {SMALL} B, versitygw", fsx, client, uri)


def _restore(report: Report, count: int) -> None:
    with StaticServer(count, LARGE) as server:
        etags = [etag_of(number) for number in range(count)]
        _restored(report, f"{count} files of {LARGE >> 10} KiB", server.url, etags)


def _restore_of_a_store(report: Report, count: int) -> None:
    """The same from a server that has to read what it sends."""
    if built_program("versitygw") is None:
        return
    with (
        tempfile.TemporaryDirectory(prefix="fsxsync-bench-", dir=MEMORY) as base,
        VersityServer(Path(base)) as server,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        client = server.client("s3")
        client.create_bucket(Bucket=BUCKET)

        def put(number: int) -> str:
            body = number.to_bytes(8) * (LARGE // 8)
            told = client.put_object(
                Bucket=BUCKET,
                Key=key_of(number),
                Body=body,
                ChecksumAlgorithm="CRC64NVME",  # as the engine uploads
            )
            return told["ETag"].strip('"')

        etags = list(pool.map(put, range(count)))
        _restored(report, f"{count} files of {LARGE >> 10} KiB, versitygw", server.url, etags)


def _restored(report: Report, case: str, url: str, etags: list[str]) -> None:
    count = len(etags)
    with (
        running(**ENVIRONMENT) as fsx,
        tempfile.TemporaryDirectory(prefix="fsxsync-bench-", dir=MEMORY) as scratch,
    ):
        fsx.ok("associate", f"s3://{BUCKET}/{PREFIX}", "/d", "--endpoint-url", url, "--poll", "0", timeout=3600)
        fsx.settle(timeout=3600)
        place, pid = fsx.directory / "d", daemon_pid(fsx)
        pairs: list[tuple[float, float]] = []
        whole, used = [], []
        for turn in range(report.rounds):  # in turns: other programs slow both down
            if turn:
                fsx.ok("release", place, timeout=3600)
            engine_s = _engine_s(url, etags, Path(scratch))
            have_memory_at_hand(count * LARGE)
            before = cpu_s(pid)
            start = perf_counter()
            task = fsx.ok("restore", place, timeout=3600).out.strip()
            whole.append(perf_counter() - start)
            fsx.settle(timeout=3600)
            used.append(cpu_s(pid) - before)
            told = fsx.ok("task", "show", task, "--json").json
            # A command takes its time to start and to look.
            pairs.append((engine_s, told["end_s"] - told["start_s"]))
        # What is measured right after each other is compared: the machine's speed changes by a quarter within a minute.
        engine_s, restored_s = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
        alone = count / engine_s
        report.add(case, "restored", "files/s", count / restored_s, engine=alone, goal=RESTORE_SHARE * alone)
        report.add(case, "restored, the whole command", "files/s", count / min(whole))
        report.add(case, "daemon's processor, restoring", "us/file", min(used) / count * 1e6)


def _engine_s(url: str, etags: list[str], scratch: Path) -> float:
    """What the transfer engine alone takes for the same objects."""
    count = len(etags)
    shutil.rmtree(scratch / "to", ignore_errors=True)
    (scratch / "to").mkdir()
    have_memory_at_hand(count * LARGE)
    task = Task(
        action="download",
        url=url,
        bucket=BUCKET,
        keys=[key_of(number) for number in range(count)],
        sizes=[LARGE] * count,
        etags=etags,
        directory=str(scratch / "to"),
        warm_key=key_of(0),
        threads=THREADS,
    )
    return child("bench.transfer_ours")(task).seconds
