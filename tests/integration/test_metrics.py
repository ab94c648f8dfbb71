"""`/metrics`: each number moves when what it counts happens, on a real mount."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.descriptors import listening_ports
from support.instance import Instance, eventually, instance
from support.moto_server import MotoServer

CHUNK = 64 << 10


class Metrics:
    """What the daemon tells, as samples by name."""

    def __init__(self, made: Instance) -> None:
        assert made.daemon is not None
        self.url = f"http://127.0.0.1:{listening_ports(made.daemon.pid)[0]}/metrics"

    def read(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        with urllib.request.urlopen(self.url) as answer:  # noqa: S310
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def of(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        rows = self.read().get(name, [])
        return sum(value for has, value in rows if labels.items() <= has.items())


@pytest.fixture
def fsx(tmp_path: Path) -> Iterator[Instance]:
    with instance(tmp_path, FSXSYNC_METRICS_LISTEN="127.0.0.1:0", FSXSYNC_CHUNK_SIZE=str(CHUNK)) as made:
        yield made


def test_the_numbers_move_with_what_happens(  # noqa: PLR0915  one daemon for all of them
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="in/a", Body=b"a" * 3 * CHUNK)
    s3.put_object(Bucket=bucket, Key="in/b", Body=b"b" * 100)
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    directory = fsx.directory / "d"
    fsx.settle()
    metrics = Metrics(fsx)
    told = metrics.of

    # imports, and reading what is not here
    assert (told("fsxsync_imported_total", path="/d"), told("fsxsync_imported_bytes_total")) == (2, 3 * CHUNK + 100)
    assert told("fsxsync_available") == 1
    resident = told("fsxsync_resident_bytes")  # the directory's own
    assert told("fsxsync_s3_requests_total", operation="ListObjectsV2", status="200") >= 1
    assert told("fsxsync_hydration_seconds_count") == 0
    with (directory / "in/a").open("rb") as stream:
        assert stream.read() == b"a" * 3 * CHUNK
    assert (directory / "in/b").read_bytes() == b"b" * 100
    eventually(lambda: told("fsxsync_restored_total") == 2)
    assert told("fsxsync_restored_bytes_total") == 3 * CHUNK + 100
    assert told("fsxsync_downloaded_bytes_total") >= 3 * CHUNK + 100
    assert told("fsxsync_bytes_down_total") == 3 * CHUNK + 100
    assert told("fsxsync_s3_requests_total", operation="GetObject") == 4
    misses = told("fsxsync_cache_misses_total")
    assert misses >= 2
    assert told("fsxsync_cache_miss_bytes_total") >= 100 + CHUNK
    assert told("fsxsync_hydration_seconds_count") == misses
    assert told("fsxsync_hydration_seconds_sum") > 0
    assert told("fsxsync_opens_total", data="released") == 2
    assert told("fsxsync_resident_bytes") == told("fsxsync_cache_bytes") == resident + 3 * CHUNK + 100

    # what is here
    before = told("fsxsync_opens_total", data="resident")
    for _ in range(3):
        (directory / "in/b").read_bytes()
    assert told("fsxsync_opens_total", data="resident") == before + 3

    # exports: a file, its rename, its removal
    puts, copies = (told("fsxsync_s3_requests_total", operation=name) for name in ("PutObject", "CopyObject"))
    (directory / "new").write_bytes(b"n" * 1000)
    fsx.settle()
    assert (told("fsxsync_exported_total"), told("fsxsync_exported_bytes_total")) == (1, 1000)
    assert told("fsxsync_uploaded_bytes_total") >= 1000
    assert told("fsxsync_s3_requests_total", operation="PutObject") == puts + 1
    (directory / "new").rename(directory / "newer")
    fsx.settle()
    assert told("RepositoryRenameOperations_total", Publisher="AutoExport") == 1
    assert told("fsxsync_s3_requests_total", operation="CopyObject") == copies + 1
    (directory / "newer").unlink()
    fsx.settle()
    assert told("fsxsync_deleted_objects_total") == 2  # at the old key and at the new one
    assert told("AgeOfOldestQueuedMessage") == 0
    assert told("fsxsync_pending") == 0

    # release, and the counters outlive an update
    fsx.ok("release", directory / "in/b")
    assert (told("fsxsync_released_total"), told("fsxsync_released_bytes_total")) == (1, 100)
    fsx.ok("association", "update", "/d", "--poll", "3600")
    fsx.settle()
    assert told("fsxsync_released_total") == 1

    # requests of applications, whoever answered
    rows = metrics.read()["fsxsync_fuse_seconds_count"]
    kinds = {(labels["operation"], labels["by"]) for labels, _ in rows}
    assert {("open", "python"), ("rename", "python")} <= kinds
    fsx.settle()  # nothing is told to the kernel any more, so that it does not ask for the directory once more
    assert not (directory / "absent").exists()
    looked = told("fsxsync_fuse_seconds_count", operation="lookup")
    for number in range(20):
        assert not (directory / f"absent {number}").exists()
    assert told("fsxsync_fuse_seconds_count", operation="lookup") == looked + 20
    if fsx.status()["data_path"] == "passthrough":
        assert ("lookup", "channel") in kinds
        assert told("fsxsync_fuse_seconds_sum", by="channel") > 0


def test_what_goes_wrong_is_counted(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="lost", Body=b"x")
    s3.put_object(Bucket=bucket, Key="both", Body=b"x")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0", "--import", "new,changed")
    told = Metrics(fsx).of

    (fsx.directory / "d/both").write_bytes(b"here")
    fsx.settle()
    assert told("fsxsync_conflicts_seen_total") == 0
    fsx.ok("association", "update", "/d", "--export", "none")
    (fsx.directory / "d/both").write_bytes(b"here once more")
    fsx.settle()
    s3.put_object(Bucket=bucket, Key="both", Body=b"and there")
    s3.delete_object(Bucket=bucket, Key="lost")
    fsx.ok("association", "update", "/d", "--export", "new,changed,deleted")
    fsx.ok("import", fsx.directory / "d")
    fsx.settle()
    assert told("fsxsync_conflicts_seen_total") == 1
    assert told("fsxsync_conflicts") == 1
    with pytest.raises(OSError, match="lost"):
        (fsx.directory / "d/lost").read_bytes()
    fsx.settle()
    assert told("fsxsync_lost") == 1
    assert told("fsxsync_failures_total", flow="restore", code="S3RestoreObjectDeleted") >= 1
    assert told("fsxsync_s3_requests_total", status="404") >= 1
    os.mkfifo(fsx.directory / "d/pipe")
    fsx.settle()
    assert told("fsxsync_not_exportable") == 1
    assert told("fsxsync_failures_total", flow="export", code="OperationNotPermitted") == 1
