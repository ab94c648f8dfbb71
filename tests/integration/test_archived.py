"""Objects of archived storage classes: what reading them does, and what waits until they are restored."""

from __future__ import annotations

import errno
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, Told, refusal

BODY = b"once frozen"


class Glacier:
    """moto behind a proxy that writes restores down. They are done when the test says so."""

    def __init__(self, server: MotoServer) -> None:
        self.proxy = Proxy(server.url, rule=self._rule)
        self._server = server
        self.asked: list[tuple[str, str]] = []
        """Path and body of each RestoreObject."""

    def _rule(self, request: Request) -> Answer | None:
        if request.query.startswith("restore"):
            self.asked.append((request.path, request.body.decode()))
            if len(self.asked) > 1:
                return refusal(409, "RestoreAlreadyInProgress")
            self._begin(*request.path.strip("/").split("/", 1))
            return Answer(202)
        return None

    def associate(self, fsx: Instance, bucket: str, *options: str) -> str:
        return fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", self.proxy.url, *options).out.strip()

    def _begin(self, bucket: str, key: str) -> None:
        """Have moto say that it is under way: at the first HEAD it is, and stays so."""
        s3 = self._server.client("s3")
        self._progress({"progression": "manual", "times": 0})
        s3.restore_object(Bucket=bucket, Key=key, RestoreRequest={"Days": 1})
        assert 'ongoing-request="true"' in s3.head_object(Bucket=bucket, Key=key)["Restore"]
        self._progress({"progression": "manual", "times": 10**9})

    def thaw(self) -> None:
        """Amazon is done."""
        self._progress({"progression": "immediate"})

    def _progress(self, transition: dict[str, object]) -> None:
        body = json.dumps({"model_name": "s3::keyrestore", "transition": transition}).encode()
        url = f"{self._server.url}/moto-api/state-manager/set-transition"
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=30).close()  # noqa: S310  loopback


@pytest.fixture
def glacier(moto: MotoServer) -> Iterator[Glacier]:
    made = Glacier(moto)
    with made.proxy:
        yield made
    made.thaw()


class ArchiveTier:
    """moto behind a proxy that moves Intelligent-Tiering's objects to their archive tier, which moto knows nothing of:
    a HEAD tells of it, a GET is refused, until the test says that Amazon is done."""

    def __init__(self, server: MotoServer) -> None:
        self.proxy = Proxy(server.url, rule=self._rule)
        self.asked: list[tuple[str, str]] = []
        """Path and body of each RestoreObject."""
        self.restored = False

    def _rule(self, request: Request) -> Answer | Told | None:
        if not request.path.endswith("/f"):
            return None
        if request.query.startswith("restore"):
            self.asked.append((request.path, request.body.decode()))
            return Answer(202) if len(self.asked) == 1 else refusal(409, "RestoreAlreadyInProgress")
        told = {"x-amz-storage-class": "INTELLIGENT_TIERING"}
        if not self.restored:
            if request.method == "GET":
                return refusal(403, "InvalidObjectState", "The operation is not valid for the object's access tier")
            told["x-amz-archive-status"] = "ARCHIVE_ACCESS"
            if self.asked:
                told["x-amz-restore"] = 'ongoing-request="true"'
        return Told(told) if request.method in {"GET", "HEAD"} else None


@pytest.fixture
def tier(moto: MotoServer) -> Iterator[ArchiveTier]:
    made = ArchiveTier(moto)
    with made.proxy:
        yield made


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Instance]:
    """An instance that looks at what is held all the time."""
    with instance(tmp_path, FSXSYNC_RESTORE_CHECK_S="0.5") as made:
        yield made


def codes(fsx: Instance) -> list[str]:
    return [event["code"] for event in fsx.ok("events", "--json").json]


def test_reading_an_archived_object_is_refused_with_what_to_do(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="DEEP_ARCHIVE")
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()

    with pytest.raises(OSError, match="No data available") as failed:
        (fsx.directory / "d/f").read_bytes()

    assert failed.value.errno == errno.ENODATA
    assert (fsx.directory / "d/f").stat().st_size == len(BODY)
    [told] = [e for e in fsx.ok("events", "--json").json if e["code"] == "S3RestoreUnsupportedTierWarning"]
    assert told["path"] == "/d/f"
    assert "--restore-archived" in told["message"]
    assert "x-amz-restore" not in s3.head_object(Bucket=bucket, Key="f")["ResponseMetadata"]["HTTPHeaders"]


def test_a_reader_waits_until_the_object_is_restored(quick: Instance, s3: Any, bucket: str, glacier: Glacier) -> None:
    """The restore is asked for once, however many read; one that is under way is no error, and a HEAD ends the wait."""
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="GLACIER")
    association = glacier.associate(quick, bucket, "--restore-archived", "expedited", "--restore-days", "3")
    quick.settle()
    read: list[bytes] = []
    readers = [
        threading.Thread(target=lambda: read.append((quick.directory / "d/f").read_bytes()), daemon=True)
        for _ in range(3)
    ]

    for reader in readers:
        reader.start()
    eventually(lambda: quick.status()["associations"][0]["restoring"] == 1)
    assert "restore is under way" in quick.state(quick.directory / "d/f")["error"]
    assert (quick.directory / "d/f").stat().st_size == len(BODY)
    quick.ok("association", "update", association, "--restore-archived", "bulk")  # ends no wait
    assert not read
    glacier.thaw()
    for reader in readers:
        reader.join(30)

    assert read == [BODY] * 3
    assert {path for path, _ in glacier.asked} == {f"/{bucket}/f"}
    assert "<Days>3</Days>" in glacier.asked[0][1]
    assert "<Tier>Expedited</Tier>" in glacier.asked[0][1]
    eventually(lambda: quick.status()["associations"][0]["restoring"] == 0)
    assert {"S3ObjectRestoreRequested", "S3ObjectRestored"} <= set(codes(quick))


@pytest.mark.needs("storage classes")
def test_intelligent_tierings_archive_tier_is_refused_with_what_to_do(
    fsx: Instance, s3: Any, bucket: str, tier: ArchiveTier
) -> None:
    """The storage class says nothing of it: an object of the same class may be read at once."""
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="INTELLIGENT_TIERING")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", tier.proxy.url)
    fsx.settle()

    with pytest.raises(OSError, match="No data available") as failed:
        (fsx.directory / "d/f").read_bytes()

    assert failed.value.errno == errno.ENODATA
    assert (fsx.directory / "d/f").stat().st_size == len(BODY)
    [told] = [e for e in fsx.ok("events", "--json").json if e["code"] == "S3RestoreUnsupportedTierWarning"]
    assert told["path"] == "/d/f"
    assert "--restore-archived" in told["message"]
    assert tier.asked == []
    tier.restored = True
    assert (fsx.directory / "d/f").read_bytes() == BODY


@pytest.mark.needs("storage classes")
def test_a_reader_waits_until_intelligent_tiering_has_brought_the_object_back(
    quick: Instance, s3: Any, bucket: str, tier: ArchiveTier
) -> None:
    """It comes back for good: S3 refuses to be told a number of days."""
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="INTELLIGENT_TIERING")
    options = ("--restore-archived", "standard", "--restore-days", "3")
    quick.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", tier.proxy.url, *options)
    quick.settle()
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((quick.directory / "d/f").read_bytes()), daemon=True)

    reader.start()
    eventually(lambda: quick.status()["associations"][0]["restoring"] == 1)
    assert "restore is under way" in quick.state(quick.directory / "d/f")["error"]
    assert not read
    tier.restored = True
    reader.join(30)

    assert read == [BODY]
    assert [path for path, _ in tier.asked] == [f"/{bucket}/f"]
    assert "<Tier>Standard</Tier>" in tier.asked[0][1]
    assert "Days" not in tier.asked[0][1]
    eventually(lambda: quick.status()["associations"][0]["restoring"] == 0)
    assert {"S3ObjectRestoreRequested", "S3ObjectRestored"} <= set(codes(quick))


def test_an_event_wakes_the_reader(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, glacier: Glacier) -> None:
    """Long before the next check of what is held, also on a versioned bucket, where the event names what is known."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    sqs = moto.client("sqs")
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    version = s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="GLACIER")["VersionId"]
    etag = s3.head_object(Bucket=bucket, Key="f")["ETag"].strip('"')
    glacier.associate(fsx, bucket, "--restore-archived", "standard", "--events", f"sqs:{url}")
    fsx.settle()
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((fsx.directory / "d/f").read_bytes()), daemon=True)

    reader.start()
    eventually(lambda: fsx.status()["associations"][0]["restoring"] == 1)
    glacier.thaw()
    thing = {"key": "f", "eTag": etag, "versionId": version}
    record = {"eventName": "ObjectRestore:Completed", "s3": {"bucket": {"name": bucket}, "object": thing}}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [record]}))
    reader.join(30)

    assert read == [BODY]


def test_whoever_reads_ends_with_the_daemon_and_asks_anew(
    quick: Instance, s3: Any, bucket: str, glacier: Glacier
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="GLACIER")
    glacier.associate(quick, bucket, "--restore-archived", "bulk")
    quick.settle()
    failed: list[OSError] = []

    def read() -> None:
        try:
            (quick.directory / "d/f").read_bytes()
        except OSError as error:
            failed.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    eventually(lambda: glacier.asked)
    assert quick.stop() == 0
    reader.join(30)
    glacier.thaw()
    quick.start()

    assert [error.errno in {errno.ECONNABORTED, errno.ENOTCONN} for error in failed] == [True]
    assert (quick.directory / "d/f").read_bytes() == BODY


def test_a_symlink_that_is_archived_comes_when_it_is_restored(
    quick: Instance, s3: Any, bucket: str, glacier: Glacier
) -> None:
    meta = {"file-permissions": "0120777"}
    s3.put_object(Bucket=bucket, Key="link", Body=b"target", Metadata=meta, StorageClass="GLACIER")
    glacier.associate(quick, bucket, "--restore-archived", "standard")
    quick.settle()
    assert "S3ImportSymlinkInUnsupportedTierWarning" in codes(quick)
    assert quick.status()["associations"][0]["held"] == 1
    assert not (quick.directory / "d/link").is_symlink()

    glacier.thaw()

    eventually(lambda: (quick.directory / "d/link").readlink() == Path("target"))
    assert len(glacier.asked) == 1


def test_what_can_not_be_copied_is_held_and_goes_on_when_it_is_restored(
    quick: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """A new mode and a new name of archived objects: nothing is asked for, and nothing is lost."""
    for key in ("mode", "name", "undone"):
        s3.put_object(Bucket=bucket, Key=key, Body=BODY, StorageClass="GLACIER")
    quick.associate(moto, f"s3://{bucket}/", "/d", "--restore-archived", "standard")
    quick.settle()
    (quick.directory / "d/mode").chmod(0o600)
    before = (quick.directory / "d/undone").stat().st_mode
    (quick.directory / "d/undone").chmod(0o600)
    (quick.directory / "d/name").rename(quick.directory / "d/other")
    eventually(lambda: quick.status()["associations"][0]["held"] >= 3)
    quick.settle()
    assert quick.status()["associations"][0]["errors"] == 0
    assert keys_of(s3, bucket) == ["mode", "name", "undone"]
    assert "archive" in quick.state(quick.directory / "d/mode")["error"]

    (quick.directory / "d/undone").chmod(before)
    for key in ("mode", "name"):
        s3.restore_object(Bucket=bucket, Key=key, RestoreRequest={"Days": 1})

    eventually(lambda: keys_of(s3, bucket) == ["mode", "other", "undone"])
    eventually(
        lambda: s3.head_object(Bucket=bucket, Key="mode")["Metadata"].get("file-permissions", "").endswith("600")
    )
    eventually(lambda: quick.status()["associations"][0]["held"] == 0)
    assert quick.state(quick.directory / "d/undone")["error"] is None


def test_a_class_of_the_associations_own_that_is_an_archive(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """What is here is uploaded again where its object can't be copied: nothing waits for Amazon."""
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--storage-class", "GLACIER")
    for name in ("mode", "name"):
        (fsx.directory / "d" / name).write_bytes(BODY)
    fsx.settle()
    assert s3.head_object(Bucket=bucket, Key="mode")["StorageClass"] == "GLACIER"

    (fsx.directory / "d/mode").chmod(0o600)
    (fsx.directory / "d/name").rename(fsx.directory / "d/other")
    fsx.settle()

    assert keys_of(s3, bucket) == ["mode", "other"]
    head = s3.head_object(Bucket=bucket, Key="mode")
    assert head["StorageClass"] == "GLACIER"
    assert head["Metadata"]["file-permissions"].endswith("600")


def test_watch_mode_brings_an_archived_object_once_it_is_restored(
    tmp_path: Path, s3: Any, bucket: str, glacier: Glacier
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=BODY, StorageClass="GLACIER")
    with instance(tmp_path, mounted=False, FSXSYNC_RESTORE_CHECK_S="0.5") as watched:
        glacier.associate(watched, bucket, "--restore-archived", "standard")
        watched.settle()
        assert not (watched.directory / "d/f").exists()

        glacier.thaw()

        eventually(lambda: (watched.directory / "d/f").read_bytes() == BODY)
        assert glacier.asked
