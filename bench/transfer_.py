"""The transfer engine, side by side with boto3, s5cmd, rclone, and libcurl with nothing around it.

Each is a process of its own; files and the server's data are in memory (tmpfs). Of Python programs the moving alone is
timed, not their start; of s5cmd and rclone all. Medians of several rounds, in each of which everybody has their turn.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import xxhash
from support.built_servers import VersityServer, built_program
from support.moto_server import MotoServer, clean_environment

from bench import ROOT
from bench.file_server import FileServer, etag_of
from bench.harness import MEMORY, Report, stopwatch
from bench.transfer_child import MIB, Measured, Task

THREADS = 8
CHUNK = 8 * MIB
BUCKET = "bench"
WARM = "warm"
LARGE = 1024 * MIB
SMALL = (2000, 64 * 1024)
PARALLEL_CHUNKS = 16
LIMIT = 256 * MIB
"""A speed at which the machine has processor time left: a late timer is then the loop's own fault."""

Run = Callable[[Task], Measured]


@dataclass(frozen=True, slots=True)
class Shape:
    """Objects of one size."""

    name: str
    count: int
    size: int

    @property
    def keys(self) -> list[str]:
        return [f"{self.prefix}{number:05d}" for number in range(self.count)]

    @property
    def prefix(self) -> str:
        return f"{self.name.replace(' ', '-')}/"

    @property
    def mib(self) -> float:
        return self.count * self.size / MIB


def run(report: Report) -> None:
    """Large and small objects, down and up; then what it costs in memory and of the event loop."""
    large = Shape("1 large object", 1, int(LARGE * report.share) // CHUNK * CHUNK)
    small = Shape("small objects", max(1, int(SMALL[0] * report.share)), SMALL[1])
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsxsync-bench-", dir=MEMORY)))
        built_program("versitygw", build=True)
        versity = stack.enter_context(VersityServer(base / "versitygw"))
        static = stack.enter_context(FileServer(base / "static"))
        programs = _programs(base)
        client = versity.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=WARM, Body=b"warm")
        source = base / "source"
        for shape in (large, small):
            _make_files(source, shape)
        for shape in (large, small):
            _upload(report, base, client, versity.url, shape, programs)
        for shape in (large, small):
            _download(report, base, f"versitygw: {shape.name}", versity.url, _uploaded(client, base, shape), programs)
        _download(report, base, f"file server: {large.name}", static.url, _served(base, large), programs)
        _cost(report, base, static.url, _served(base, large), programs)


# ---------------------------------------------------------------- who is measured


def _programs(base: Path) -> dict[str, Run]:
    """Everybody by name, ourselves first; who can't be had here is left out, and that is said."""
    found: dict[str, Run] = {"ours": child("bench.transfer_ours"), "boto3": child("bench.transfer_boto3")}
    for name, make in (("s5cmd", _s5cmd), ("rclone", _rclone)):
        try:
            program = built_program(name, build=True)
        except subprocess.CalledProcessError:
            print(f"# without {name}: scripts/build-server {name}", flush=True)
        else:
            assert program is not None
            found[name] = make(program)
    found["bare libcurl"] = _bare_curl(base)
    return found


def child(module: str) -> Run:
    """A program of ours or boto3's, as a process of its own."""

    def measure(task: Task) -> Measured:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=clean_environment() | {"PYTHONPATH": str(ROOT / "tests")},
            input=json.dumps(dataclasses.asdict(task)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return Measured(**json.loads(done.stdout))

    return measure


def _bare_curl(base: Path) -> Run:
    program = base / "bare_curl"
    source = ROOT / "bench/bare_curl.c"
    subprocess.run(  # noqa: S603
        ["cc", "-O2", "-pthread", "-o", program, source, "-lcurl"],  # noqa: S607
        check=True,
    )

    def measure(task: Task) -> Measured:
        client = _client(task.url)
        lines: list[str] = []
        for key, size in zip(task.keys, task.sizes, strict=True):
            url = client.generate_presigned_url("get_object", Params={"Bucket": task.bucket, "Key": key})
            lines += [
                f"{url}\t{offset}\t{min(CHUNK, size - offset)}\t{_file(task, key)}\n"
                for offset in range(0, size, CHUNK)
            ]
        done = subprocess.run(  # noqa: S603
            [program, str(task.threads)], input="".join(lines), stdout=subprocess.PIPE, text=True, check=True
        )
        return Measured(**json.loads(done.stdout))

    return measure


def _s5cmd(program: Path) -> Run:
    def measure(task: Task) -> Measured:
        files, there = f"{task.directory}/", f"s3://{task.bucket}/{os.path.dirname(task.keys[0])}/"
        many = len(task.keys) > 1
        if task.action == "download":
            ends = [f"{there}*" if many else f"s3://{task.bucket}/{task.keys[0]}", files]
        else:
            ends = [files if many else _file(task, task.keys[0]), there]
        workers = ["--numworkers", str(task.threads)]
        return _command([program, "--endpoint-url", task.url, *workers, "cp", "-c", str(task.threads), *ends], {})

    return measure


def _rclone(program: Path) -> Run:
    def measure(task: Task) -> Measured:
        there = f"bench:{task.bucket}/{os.path.dirname(task.keys[0])}"
        ends = [there, task.directory] if task.action == "download" else [task.directory, there]
        threads = str(task.threads)
        settings = {
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
            "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
            "RCLONE_CONFIG_BENCH_ENDPOINT": task.url,
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
            "RCLONE_S3_UPLOAD_CONCURRENCY": threads,
            "RCLONE_MULTI_THREAD_STREAMS": threads,
            "RCLONE_TRANSFERS": threads,
            "RCLONE_CHECKERS": threads,
        }
        return _command([program, "copy", *ends], settings)

    return measure


def _command(words: Sequence[str | Path], settings: dict[str, str]) -> Measured:
    """Run a program; its own processor time is all that its process used."""
    elapsed = stopwatch()
    process = subprocess.Popen(  # noqa: S603
        [str(word) for word in words],
        env=clean_environment() | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = elapsed()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words[0]} failed: {said[-2000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime)


# ---------------------------------------------------------------- what is moved


def _make_files(source: Path, shape: Shape) -> None:
    """Files that nobody can compress or guess, below ``source``."""
    (source / shape.prefix).mkdir(parents=True)
    for key in shape.keys:
        with (source / key).open("wb") as file:
            for offset in range(0, shape.size, MIB):
                file.write(os.urandom(min(MIB, shape.size - offset)))


def _uploaded(client: Any, base: Path, shape: Shape) -> Task:
    """Put the files to the server; the task to download them."""
    etags = []
    for key in shape.keys:
        client.upload_file(str(base / "source" / key), BUCKET, key)
        etags.append(client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"'))
    return _task("download", shape, etags)


def _served(base: Path, shape: Shape) -> Task:
    """Let the file server have the files; the task to download them."""
    bucket = base / "static" / BUCKET
    if not bucket.exists():
        bucket.mkdir(parents=True)
        (bucket / WARM).write_bytes(b"warm")
        (bucket / shape.prefix.rstrip("/")).symlink_to(base / "source" / shape.prefix)
    return _task("download", shape, [etag_of(os.stat(bucket / key)) for key in shape.keys])


def _task(action: str, shape: Shape, etags: list[str]) -> Task:
    return Task(action, "", BUCKET, shape.keys, [shape.size] * shape.count, etags, "", THREADS, WARM)


def _file(task: Task, key: str) -> str:
    return os.path.join(task.directory, os.path.basename(key))


def _client(url: str) -> Any:
    """boto3's client of any server."""
    moto = MotoServer()
    moto.url = url
    return moto.client("s3", signature_version="s3v4")


def _check(task: Task, source: Path) -> None:
    """Who was quick has to be right, too."""
    for key in task.keys:
        assert _digest(_file(task, key)) == _digest(source / key), f"{key} is not what was sent"


def _digest(path: str | Path) -> bytes:
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(MIB):
            digest.update(data)
    return digest.digest()


@contextmanager
def _empty_directory(base: Path) -> Iterator[str]:
    target = base / "target"
    target.mkdir()
    try:
        yield str(target)
    finally:
        shutil.rmtree(target)


# ---------------------------------------------------------------- rows


def _download(report: Report, base: Path, case: str, url: str, task: Task, programs: dict[str, Run]) -> None:
    taken: dict[str, list[Measured]] = {name: [] for name in programs}
    for _ in range(report.rounds):
        for name, measure in programs.items():
            with _empty_directory(base) as target:
                mine = dataclasses.replace(task, url=url, directory=target)
                taken[name].append(measure(mine))
                _check(mine, base / "source")
    _rows(report, f"download, {case}", sum(task.sizes) / MIB, taken)


def _upload(report: Report, base: Path, client: Any, url: str, shape: Shape, programs: dict[str, Run]) -> None:
    taken: dict[str, list[Measured]] = {name: [] for name in programs if name != "bare libcurl"}
    task = dataclasses.replace(_task("upload", shape, []), url=url, directory=str(base / "source" / shape.prefix))
    for _ in range(report.rounds):
        for name, measures in taken.items():
            measures.append(programs[name](task))
            found = _delete_all(client, shape.prefix)
            assert found == dict(zip(task.keys, task.sizes, strict=True)), f"{name} did not upload all"
    _rows(report, f"upload, versitygw: {shape.name}", shape.mib, taken)


def _delete_all(client: Any, prefix: str) -> dict[str, int]:
    """Empty the prefix; what was there."""
    found: dict[str, int] = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        entries = page.get("Contents", [])
        found |= {entry["Key"]: entry["Size"] for entry in entries}
        if entries:
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry["Key"]} for entry in entries]})
    return found


def _rows(report: Report, case: str, mib: float, taken: dict[str, list[Measured]]) -> None:
    """boto3 is the first of the others, so the ratio is ours to boto3's."""
    speed = {name: mib / median(run.seconds for run in runs) for name, runs in taken.items()}
    cpu = {name: median(run.cpu_s for run in runs) * 1024 / mib for name, runs in taken.items()}
    report.add(case, "speed", "MiB/s", speed.pop("ours"), **speed)
    report.add(case, "processor", "s/GiB", cpu.pop("ours"), **cpu)
    busy = 100 * median(run.loop_busy for run in taken["ours"])
    report.add(case, "the loop's thread runs", "% of time", busy)


def _cost(report: Report, base: Path, url: str, task: Task, programs: dict[str, Run]) -> None:
    """What a download leaves of the event loop, and what it takes of memory."""
    for speed, limit in ((f"at {LIMIT // MIB} MiB/s", LIMIT), ("at full speed", 0)):
        taken: dict[str, list[Measured]] = {"ours": [], "boto3": []}
        for _ in range(report.rounds):
            for name, runs in taken.items():
                with _empty_directory(base) as target:
                    mine = dataclasses.replace(task, url=url, directory=target, limit=limit, timer=True)
                    runs.append(programs[name](mine))
        late = {name: 100 * median(run.loop_late for run in runs) for name, runs in taken.items()}
        bystander = 100 * median(run.bystander_late for run in taken["ours"])
        case = f"download {speed}: the event loop"
        others = {"boto3": late["boto3"], "another process": bystander}
        report.add(case, "a timer of 1 ms is late", "% of time", late["ours"], goal=5.0, **others)
    ours = programs["ours"]
    with _empty_directory(base) as target:
        wide = ours(dataclasses.replace(task, url=url, directory=target, threads=PARALLEL_CHUNKS))
    report.add(
        f"download, {PARALLEL_CHUNKS} chunks of 8 MiB at once", "memory above idle", "MiB", wide.peak_mib, goal=150
    )
