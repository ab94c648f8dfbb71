"""How long a change takes to be seen on the other side, one at a time, with the default settings."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.instance import bucket_with_events
from support.moto_server import MotoServer

from bench.harness import Report, running, stopwatch, until

SAMPLES = 15
GOAL_S = 2.0
_BUCKET, _PREFIX = "bench-visibility", "p/"


def run(report: Report) -> None:
    """Through a mount, moto, and moto's events in SQS."""
    with MotoServer() as moto, running() as fsx:
        url = bucket_with_events(moto, _BUCKET, "bench-visibility")
        fsx.associate(moto, f"s3://{_BUCKET}/{_PREFIX}", "/d", "--events", f"sqs:{url}")
        s3, directory = moto.client("s3"), fsx.directory / "d"
        for case, act, seen in (*_exports(s3, directory), *_imports(s3, directory)):
            times = [_once(act, seen, number) for number in range(SAMPLES)]
            report.add(case, "median", "s", statistics.median(times), goal=GOAL_S)
            report.add(case, "worst", "s", max(times))
            fsx.settle()


def _once(act: Callable[[int], object], seen: Callable[[int], bool], number: int) -> float:
    act(number)  # it returns when the file is closed, or when moto has put the event into the queue
    elapsed = stopwatch()
    until(lambda: seen(number))
    return elapsed()


Case = tuple[str, Callable[[int], object], Callable[[int], bool]]


def _exports(s3: Any, directory: Path) -> list[Case]:
    def body(number: int) -> bytes | None:
        try:
            found: bytes = s3.get_object(Bucket=_BUCKET, Key=f"{_PREFIX}out{number}")["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return found

    def name(number: int) -> Path:
        return directory / f"out{number}"

    return [
        ("export of a new file", lambda n: name(n).write_bytes(b"one"), lambda n: body(n) == b"one"),
        ("export of a change", lambda n: name(n).write_bytes(b"three"), lambda n: body(n) == b"three"),
        ("export of a delete", lambda n: name(n).unlink(), lambda n: body(n) is None),
    ]


def _imports(s3: Any, directory: Path) -> list[Case]:
    def put(number: int, data: bytes) -> None:
        s3.put_object(Bucket=_BUCKET, Key=f"{_PREFIX}in{number}", Body=data)

    def size(number: int) -> int:
        try:
            return (directory / f"in{number}").stat().st_size
        except FileNotFoundError:
            return -1

    def delete(number: int) -> None:
        s3.delete_object(Bucket=_BUCKET, Key=f"{_PREFIX}in{number}")

    return [
        ("import of a new object", lambda n: put(n, b"one"), lambda n: size(n) == 3),
        ("import of a change", lambda n: put(n, b"three"), lambda n: size(n) == 5),
        ("import of a delete", delete, lambda n: size(n) == -1),
    ]
