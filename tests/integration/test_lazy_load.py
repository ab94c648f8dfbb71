"""Data comes when it is read: only what is needed, once, and never a mix, a hole or a half."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Cut, Garbled, Proxy, Request, refusal

CHUNK = 256 * 1024
CHUNKS = 32
NEAR = 4
"""A read may bring so many chunks ahead of it besides its own."""


@pytest.fixture
def fsx(tmp_path: Path) -> Iterator[Instance]:
    """With small chunks: a large file need not be large."""
    with instance(tmp_path, FSXSYNC_CHUNK_SIZE=str(CHUNK)) as made:
        yield made


@pytest.fixture
def data() -> bytes:
    return os.urandom(CHUNK * CHUNKS - 777)


@pytest.fixture
def large(fsx: Instance, proxy: Proxy, s3: Any, bucket: str, data: bytes) -> Path:
    """A released file of many chunks."""
    s3.put_object(Bucket=bucket, Key="large", Body=data)
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
    fsx.settle()
    assert "released" in fsx.state(fsx.directory / "d/large")["flags"]
    return fsx.directory / "d/large"


def chunks_asked(proxy: Proxy) -> list[int]:
    """Numbers of the chunks that were downloaded, as often as they were."""
    found = []
    for request in list(proxy.requests):
        if request.method == "GET" and request.path.endswith("/large") and request.range is not None:
            found += range(request.range[0] // CHUNK, request.range[1] // CHUNK + 1)
    return found


class Gate:
    """A rule: only some chunks pass until it is opened."""

    def __init__(self, *passing: int) -> None:
        self._passing = passing
        self.opened = threading.Event()
        self.asked = threading.Event()

    def __call__(self, request: Request) -> Answer | Cut | None:
        if request.method == "GET" and request.range is not None and request.range[0] // CHUNK not in self._passing:
            self.asked.set()
            self.opened.wait(60)
        return None


def exported(fsx: Instance, s3: Any, bucket: str, key: str = "large") -> bytes:
    fsx.settle()
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


# ---------------------------------------------------------------- reading


def test_a_read_brings_what_it_needs_and_does_not_wait_for_the_rest(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes
) -> None:
    gate = Gate(20)
    proxy.rule = gate
    with large.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 1000, 20 * CHUNK + 5) == data[20 * CHUNK + 5 : 20 * CHUNK + 1005]
        shown = fsx.state(large)
        assert shown["flags"] == ["released", "exists", "archived"]
        assert CHUNK <= shown["resident_bytes"] < len(data) // 2
    gate.opened.set()
    fsx.settle()
    asked = chunks_asked(proxy)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 1 + 2 * NEAR
    assert 20 in asked


def test_a_reader_from_front_to_end_gets_each_chunk_once(fsx: Instance, proxy: Proxy, large: Path, data: bytes) -> None:
    assert large.read_bytes() == data
    assert sorted(chunks_asked(proxy)) == list(range(CHUNKS))
    eventually(lambda: fsx.state(large)["flags"] == ["exists", "archived"])
    assert large.read_bytes() == data
    assert len(chunks_asked(proxy)) == CHUNKS
    assert (fsx.tree / "d/large").read_bytes() == data


def test_two_readers_of_a_chunk_cause_one_download(proxy: Proxy, large: Path, data: bytes) -> None:
    gate = Gate()
    proxy.rule = gate

    def read(offset: int) -> bytes:
        fd = os.open(large, os.O_RDONLY)
        try:
            return os.pread(fd, 4096, offset)
        finally:
            os.close(fd)

    offsets = [9 * CHUNK + number * 8192 for number in range(8)]
    with ThreadPoolExecutor(8) as readers:
        results = [readers.submit(read, offset) for offset in offsets]
        assert gate.asked.wait(30)
        gate.opened.set()
        assert [result.result(60) for result in results] == [data[offset : offset + 4096] for offset in offsets]
    assert chunks_asked(proxy).count(9) == 1


def test_a_small_file_comes_whole_and_lookups_bring_nothing(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"s/{number}", Body=b"data %d" % number)
    fsx.ok("associate", f"s3://{bucket}/s/", "/s", "--endpoint-url", proxy.url, "--poll", "0")
    subprocess.run(["ls", "-lR", fsx.directory], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    subprocess.run(["du", "-s", fsx.directory], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    subprocess.run(["find", fsx.directory, "-size", "+0"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    assert [
        request for request in proxy.requests if request.path.startswith(f"/{bucket}/s/") and request.method == "GET"
    ] == []
    assert (fsx.directory / "s/3").read_bytes() == b"data 3"
    assert len(proxy.gets(f"/{bucket}/s/3")) == 1


def test_programs_see_bytes_not_holes(fsx: Instance, large: Path, data: bytes, tmp_path: Path) -> None:
    # tar compares ctime before and after, and complains of a file that changed as it was read.
    subprocess.run(["tar", "-cSf", tmp_path / "t.tar", "-C", large.parent, "large"], check=True)  # noqa: S603, S607
    with tarfile.open(tmp_path / "t.tar") as archive:
        member = archive.extractfile("large")
        assert member is not None
        assert member.read() == data


def test_cp_of_a_released_file(fsx: Instance, large: Path, data: bytes, tmp_path: Path) -> None:
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", large, tmp_path / "copy"], check=True)  # noqa: S603, S607
    assert (tmp_path / "copy").read_bytes() == data


def test_a_copy_inside_the_mount_is_a_file_of_its_own(
    fsx: Instance, large: Path, data: bytes, s3: Any, bucket: str
) -> None:
    subprocess.run(["cp", "-a", large, large.with_name("copy")], check=True)  # noqa: S603, S607
    assert exported(fsx, s3, bucket, "copy") == data


def test_mmap_of_a_released_file(large: Path, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "expected").write_bytes(data)
    program = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:\n"
        "    expected = open(sys.argv[2], 'rb').read()\n"
        "    assert m[1_900_000:1_900_099] == expected[1_900_000:1_900_099]\n"
        "    assert bytes(m) == expected\n"
    )
    # In a process of its own: a page fault holds the interpreter's lock, and the proxy runs in this one.
    subprocess.run([sys.executable, "-c", program, large, tmp_path / "expected"], check=True, timeout=60)  # noqa: S603


# ---------------------------------------------------------------- writing


def test_open_with_truncation_downloads_nothing(fsx: Instance, proxy: Proxy, large: Path, s3: Any, bucket: str) -> None:
    large.write_bytes(b"all new")
    assert exported(fsx, s3, bucket) == b"all new"
    assert chunks_asked(proxy) == []


def test_appending_loads_first(fsx: Instance, large: Path, data: bytes, s3: Any, bucket: str) -> None:
    with large.open("ab") as stream:
        stream.write(b"more")
    assert exported(fsx, s3, bucket) == data + b"more"
    assert large.read_bytes() == data + b"more"


def test_writing_in_the_middle(fsx: Instance, large: Path, data: bytes, s3: Any, bucket: str) -> None:
    with large.open("r+b") as stream:
        stream.seek(3_000_000)
        stream.write(b"changed")
    expected = data[:3_000_000] + b"changed" + data[3_000_007:]
    assert exported(fsx, s3, bucket) == expected
    assert large.read_bytes() == expected


@pytest.mark.parametrize("size", [0, 1_000_001, CHUNK * CHUNKS + 5])
def test_truncating_a_released_file(fsx: Instance, large: Path, data: bytes, s3: Any, bucket: str, size: int) -> None:
    os.truncate(large, size)
    expected = data[:size].ljust(size, b"\0")
    assert large.read_bytes() == expected
    assert exported(fsx, s3, bucket) == expected


def test_renamed_while_it_is_read(fsx: Instance, proxy: Proxy, large: Path, data: bytes, s3: Any, bucket: str) -> None:
    gate = Gate(0)
    proxy.rule = gate
    with large.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 10, 0) == data[:10]
        large.rename(large.with_name("moved"))
        gate.opened.set()
        assert os.pread(stream.fileno(), 100, 25 * CHUNK) == data[25 * CHUNK : 25 * CHUNK + 100]
    assert large.with_name("moved").read_bytes() == data
    assert exported(fsx, s3, bucket, "moved") == data


@pytest.mark.parametrize("edited", [False, True], ids=["read", "edited"])
def test_moved_to_another_association_while_it_is_loaded(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes, s3: Any, bucket: str, edited: bool
) -> None:
    """Behind the mount, where nothing refuses it: what was loaded of it, and what was not, reaches the other bucket."""
    s3.create_bucket(Bucket=f"{bucket}-other")
    fsx.ok("associate", f"s3://{bucket}-other/", "/e", "--endpoint-url", proxy.url, "--poll", "0")
    gate = Gate(0)
    proxy.rule = gate
    with large.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 10, 0) == data[:10]
        assert gate.asked.wait(30)
        (fsx.tree / "d/large").rename(fsx.tree / "e/moved")
        eventually(lambda: not large.exists() and (fsx.directory / "e/moved").exists())
        gate.opened.set()
        assert os.pread(stream.fileno(), 100, 25 * CHUNK) == data[25 * CHUNK : 25 * CHUNK + 100]
    expected = data
    if edited:
        with (fsx.directory / "e/moved").open("r+b") as writer:
            writer.write(b"edited")
        expected = b"edited" + data[6:]
    fsx.settle()
    assert s3.get_object(Bucket=f"{bucket}-other", Key="moved")["Body"].read() == expected
    assert keys_of(s3, bucket) == []
    assert (fsx.directory / "e/moved").read_bytes() == expected
    assert [row["errors"] for row in fsx.ok("associations", "--json").json] == [0, 0]


def test_chmod_while_it_is_read(fsx: Instance, proxy: Proxy, large: Path, data: bytes, s3: Any, bucket: str) -> None:
    gate = Gate(0)
    proxy.rule = gate
    with large.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 10, 0) == data[:10]
        large.chmod(0o640)
        gate.opened.set()
        assert large.read_bytes() == data
    assert exported(fsx, s3, bucket) == data
    assert large.stat().st_mode == 0o100640
    assert s3.head_object(Bucket=bucket, Key="large")["Metadata"]["file-permissions"] == "0100640"


# ---------------------------------------------------------------- what goes wrong


def test_an_object_that_was_replaced_is_never_mixed(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes, s3: Any, bucket: str
) -> None:
    gate = Gate(0)
    proxy.rule = gate
    other = os.urandom(len(data))
    fd = os.open(large, os.O_RDONLY)
    try:
        assert os.pread(fd, 4096, 0) == data[:4096]
        s3.put_object(Bucket=bucket, Key="large", Body=other)
        gate.opened.set()
        with pytest.raises(OSError, match="Stale") as failed:
            os.pread(fd, 4096, 28 * CHUNK)
        assert failed.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    eventually(lambda: large.read_bytes() == other)  # a failed read is a hint to look


def test_a_deleted_object_is_said_and_flagged(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    for key in ("kept/f", "follows/f"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x" * (CHUNK * 3))
    fsx.ok("associate", f"s3://{bucket}/kept/", "/kept", "--endpoint-url", proxy.url, "--import", "new", "--poll", "0")
    fsx.ok("associate", f"s3://{bucket}/follows/", "/follows", "--endpoint-url", proxy.url, "--poll", "0")
    for key in ("kept/f", "follows/f"):
        s3.delete_object(Bucket=bucket, Key=key)
    for key in ("kept/f", "follows/f"):
        with pytest.raises(FileNotFoundError):
            (fsx.directory / key).read_bytes()
    fsx.settle()
    eventually(lambda: not (fsx.directory / "follows/f").exists())
    eventually(lambda: "lost_from_hsm" in fsx.state(fsx.directory / "kept/f")["flags"])
    assert (fsx.directory / "kept/f").stat().st_size == CHUNK * 3


def test_a_failed_download_is_an_error_and_heals(proxy: Proxy, large: Path, data: bytes) -> None:
    proxy.rule = lambda request: refusal(403, "AccessDenied") if request.method == "GET" else None
    with pytest.raises(OSError, match=r"Input/output|Permission denied"):
        large.read_bytes()
    proxy.rule = None
    assert large.read_bytes() == data


def test_a_connection_that_is_cut_is_tried_again(proxy: Proxy, large: Path, data: bytes) -> None:
    cut: set[int] = set()

    def rule(request: Request) -> Answer | Cut | None:
        if request.method != "GET" or request.range is None or request.range[0] in cut:
            return None
        cut.add(request.range[0])
        return Cut(1000)

    proxy.rule = rule
    assert large.read_bytes() == data
    assert len(cut) == CHUNKS


def _read_or_full(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return None


def test_a_full_disk_is_the_readers_and_nobody_elses(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    (tmp_path / "state").mkdir()
    image = tmp_path / "disk"
    with image.open("wb") as stream:
        stream.truncate(40 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)  # noqa: S603, S607
    subprocess.run(["mount", "-o", "loop", image, tmp_path / "state"], check=True)  # noqa: S603, S607
    try:
        with instance(tmp_path, FSXSYNC_CHUNK_SIZE=str(4 * CHUNK)) as made:
            s3.put_object(Bucket=bucket, Key="huge", Body=b"\x5a" * (64 * 1024 * 1024))
            s3.put_object(Bucket=bucket, Key="small", Body=b"small")
            made.associate(moto, f"s3://{bucket}/", "/d")
            (made.directory / "d/mine").write_text("mine")
            made.settle()
            assert (made.directory / "d/huge").stat().st_size == 64 * 1024 * 1024

            with pytest.raises(OSError, match="No space left"):
                (made.directory / "d/huge").read_bytes()

            eventually(lambda: "NoDiskSpace" in made.ok("events", "--json").out)
            assert (made.directory / "d/mine").read_text() == "mine"
            assert "released" in made.state(made.directory / "d/huge")["flags"]
            assert s3.head_object(Bucket=bucket, Key="huge")["ContentLength"] == 64 * 1024 * 1024
            (made.directory / "d/huge").unlink()
            # What a removed file took comes back once its last descriptor is closed; for two seconds after a search
            # that found no room nobody searches again.
            eventually(lambda: _read_or_full(made.directory / "d/small") == b"small")
            made.settle()
            assert sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]) == ["mine", "small"]
            assert made.stop() == 0
    finally:
        subprocess.run(["umount", "-l", tmp_path / "state"], check=True)  # noqa: S603, S607


# ---------------------------------------------------------------- what is here already


def again(fsx: Instance, *, killed: bool) -> None:
    """End the daemon and start another."""
    if killed:
        fsx.kill()
        subprocess.run(["umount", "-l", fsx.directory], check=True)  # noqa: S603, S607
    else:
        assert fsx.stop() == 0
    fsx.start()
    fsx.settle()


@pytest.mark.parametrize("killed", [True, False])
def test_what_was_loaded_is_not_loaded_again_by_the_next_daemon(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes, killed: bool
) -> None:
    mtime_ns = large.stat().st_mtime_ns
    gate = Gate(*range(CHUNKS // 2))
    proxy.rule = gate
    with large.open("rb", buffering=0) as stream:
        for chunk in range(CHUNKS // 2):
            at = chunk * CHUNK
            assert os.pread(stream.fileno(), CHUNK, at) == data[at : at + CHUNK]
    before = fsx.state(large)["resident_bytes"]
    # What arrived is written down once a second.
    eventually(lambda: remembered_bytes(fsx) == before >= CHUNKS // 2 * CHUNK)
    if not killed:
        gate.opened.set()
        proxy.rule = None
    known = set(chunks_asked(proxy))
    again(fsx, killed=killed)
    gate.opened.set()
    proxy.rule = None
    proxy.requests.clear()
    assert fsx.state(large)["resident_bytes"] >= before
    assert large.stat().st_mtime_ns == mtime_ns

    assert large.read_bytes() == data

    asked = chunks_asked(proxy)
    assert len(asked) == len(set(asked)) <= CHUNKS - CHUNKS // 2
    assert set(asked) | known == set(range(CHUNKS))
    eventually(lambda: fsx.state(large)["flags"] == ["exists", "archived"])
    assert large.stat().st_mtime_ns == mtime_ns
    assert (fsx.tree / "d/large").read_bytes() == data


def remembered_bytes(fsx: Instance) -> int:
    with closing(sqlite3.connect(f"file:{fsx.state_dir / 'catalog.db'}?mode=ro", uri=True)) as catalog:
        (found,) = catalog.execute("SELECT coalesce(sum(resident_bytes), 0) FROM partials").fetchone()
    return int(found)


def test_a_daemon_that_is_killed_while_bytes_come_in_shows_no_wrong_one(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes
) -> None:
    served = threading.Event()

    def rule(request: Request) -> Answer | Cut | None:
        if request.method == "GET" and request.range is not None and request.range[0] // CHUNK == 11:
            served.set()
            threading.Event().wait(0.2)  # others are in the middle of theirs by now
        return None

    proxy.rule = rule
    with subprocess.Popen(["cat", large], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):  # noqa: S603, S607
        assert served.wait(30)
        again(fsx, killed=True)
    proxy.rule = None

    assert large.read_bytes() == data


def test_an_object_that_was_replaced_while_no_daemon_ran_is_never_mixed(
    fsx: Instance, proxy: Proxy, large: Path, data: bytes, s3: Any, bucket: str
) -> None:
    gate = Gate(0)
    proxy.rule = gate
    fd = os.open(large, os.O_RDONLY)
    assert os.pread(fd, 4096, 0) == data[:4096]
    os.close(fd)
    gate.opened.set()
    proxy.rule = None
    assert fsx.stop() == 0
    other = os.urandom(len(data))
    s3.put_object(Bucket=bucket, Key="large", Body=other)
    fsx.start()

    def reads_new() -> bool:
        got = large.read_bytes()
        assert got in {data, other}
        return got == other

    eventually(reads_new)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("size", [CHUNK // 4, CHUNK * CHUNKS])
def test_a_download_that_does_not_fit_its_checksum_is_not_believed(
    fsx: Instance, proxy: Proxy, s3: Any, bucket: str, size: int
) -> None:
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="wrong", Body=body, ChecksumAlgorithm="CRC32")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
    fsx.settle()
    proxy.rule = lambda request: Garbled() if request.method == "GET" and request.path.endswith("/wrong") else None

    with pytest.raises(OSError, match="Input/output"), (fsx.directory / "d/wrong").open("r+b"):
        pass

    assert "released" in fsx.state(fsx.directory / "d/wrong")["flags"]
    assert "S3ObjectChecksumMismatch" in fsx.ok("events", "--json").out


def test_a_look_that_waits_while_a_file_is_loaded_undoes_nothing_of_that(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, bucket: str
) -> None:
    """What it judged is no longer so: it must neither report the file as damaged, nor forget that its data is here."""
    sqs = moto.client("sqs")
    queue = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    s3.put_object(Bucket=bucket, Key="f", Body=b"small")
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--events", f"sqs:{queue}")
    fsx.settle()
    asked, opened = threading.Event(), threading.Event()

    def hold_heads(request: Request) -> None:
        if request.method == "HEAD" and request.path.endswith("/f"):
            asked.set()
            opened.wait(60)

    proxy.rule = hold_heads
    try:
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(put_record(bucket, "f")))
        assert asked.wait(60)
        assert (fsx.directory / "d/f").read_bytes() == b"small"
        eventually(lambda: "released" not in fsx.state(fsx.directory / "d/f")["flags"])
    finally:
        opened.set()
    fsx.settle()

    assert fsx.ok("check").code == 0
    s3.put_object(Bucket=bucket, Key="f", Body=b"changed there")
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(put_record(bucket, "f")))
    fsx.settle()
    assert (fsx.directory / "d/f").read_bytes() == b"changed there"
    assert fsx.ok("events", "--level", "WARN").out == ""


def put_record(bucket: str, key: str) -> dict[str, Any]:
    """An event of S3 that names no version: only a HEAD can tell."""
    entity = {"bucket": {"name": bucket}, "object": {"key": key}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": entity}]}


@pytest.mark.parametrize("size", [1000, 3 * CHUNK], ids=["one request", "several"])
@pytest.mark.parametrize("way", ["restore", "read"])
def test_times_that_are_set_while_the_data_comes_are_kept(
    fsx: Instance, proxy: Proxy, s3: Any, bucket: str, way: str, size: int
) -> None:
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="f", Body=body)
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "0")
    fsx.settle()
    asked, opened = threading.Event(), threading.Event()

    def rule(request: Request) -> None:
        if request.method == "GET" and request.path.endswith("/f"):
            asked.set()
            opened.wait(60)

    proxy.rule = rule
    file = fsx.directory / "d/f"
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(lambda: fsx.ok("restore", file) if way == "restore" else file.read_bytes())
        assert asked.wait(60)
        os.utime(file, ns=(file.stat().st_atime_ns, 1_234_567_890_123_456_789))
        opened.set()
        loading.result(60)
    fsx.settle()

    eventually(lambda: "released" not in fsx.state(file)["flags"])
    assert file.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert file.read_bytes() == body
    os.utime(file, ns=(1_111_111_111_000_000_001, file.stat().st_mtime_ns))
    fsx.settle()
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (1_111_111_111_000_000_001, 1_234_567_890_123_456_789)
