# ruff: noqa: S603 - our own programs
"""The whole daemon with files that the kernel reads and writes by itself: who has one open is never overtaken."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import MotoServer

from fsxsync.mount.passthrough import why_not

SIZE = 1 << 20
BLOCK = 4096


def why_not_here() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    return why_not(Path(tempfile.gettempdir()))


pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "-")


@pytest.fixture
def fsx(tmp_path: Path) -> Iterator[Instance]:
    """It exports quickly, so that what must not be exported yet is asked for soon."""
    with instance(tmp_path, options=["-o", "passthrough=on"], FSXSYNC_EXPORT_CAP_S="0.3") as made:
        yield made


@pytest.fixture
def d(fsx: Instance, moto: MotoServer, bucket: str) -> Path:
    """A directory that is a bucket."""
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    return fsx.directory / "d"


def body(s3: Any, bucket: str, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def made_on_both_sides(fsx: Instance, path: Path, data: bytes) -> Path:
    """A resident file that is in sync."""
    path.write_bytes(data)
    fsx.settle()
    return path


def held_up(fsx: Instance) -> str:
    """What is pending, after it was pending for long enough to be gone."""
    done = fsx.run("wait", "--timeout", "1.5")
    assert done.code == 1
    return done.err


def conflict_copies(d: Path) -> list[bytes]:
    return [path.read_bytes() for path in d.iterdir() if ".conflict-" in path.name]


# ---------------------------------------------------------------- export


def test_a_file_is_exported_after_the_last_of_its_writers_has_closed(
    fsx: Instance, d: Path, s3: Any, bucket: str
) -> None:
    """Handles opened, dup'ed and inherited by a child, and a mapping that has no descriptor any more."""
    made_on_both_sides(fsx, d / "f", b"before" + bytes(BLOCK))
    child = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; print('up', flush=True); sys.stdin.readline(); os.pwrite(3, b'C', 3)"],
        preexec_fn=lambda: os.dup2(os.open(d / "f", os.O_RDWR), 3),  # noqa: PLW1509
        pass_fds=[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    fd = os.open(d / "f", os.O_RDWR)
    duplicate = os.dup(fd)
    mapped = mmap.mmap(fd, BLOCK)

    def still_waits(step: bytes, at: int) -> None:
        assert (d / "f").read_bytes()[at : at + 1] == step
        assert "/d/f (open for writing)" in held_up(fsx)
        assert body(s3, bucket, "f") == b"before" + bytes(BLOCK)

    os.pwrite(fd, b"A", 0)
    os.close(fd)
    still_waits(b"A", 0)
    os.pwrite(duplicate, b"B", 1)
    os.close(duplicate)
    mapped[2:3] = b"M"
    still_waits(b"M", 2)
    mapped.close()
    child.communicate("\n")
    fsx.settle()

    assert body(s3, bucket, "f") == b"ABMCre" + bytes(BLOCK)


@pytest.mark.parametrize("how", ["write", "map"])
def test_no_version_of_an_object_is_torn(fsx: Instance, d: Path, s3: Any, bucket: str, how: str) -> None:
    """A writer that opens, writes all of the file piece by piece, closes, while exports run as fast as they can."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made_on_both_sides(fsx, d / "f", bytes(SIZE))
    ended = threading.Event()

    def rewrite() -> None:
        generation = 0
        while not ended.is_set():
            generation = generation % 255 + 1
            piece = bytes([generation]) * BLOCK
            with (d / "f").open("r+b", buffering=0) as file:
                mapped = mmap.mmap(file.fileno(), SIZE) if how == "map" else None
                for at in range(0, SIZE, BLOCK):
                    if mapped is None:
                        os.pwrite(file.fileno(), piece, at)
                    else:
                        mapped[at : at + BLOCK] = piece
            if mapped is not None:
                mapped.close()  # after its descriptor
            ended.wait(generation % 4 * 0.1)  # sometimes long enough for an upload to begin

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        eventually(lambda: len(s3.list_object_versions(Bucket=bucket, Prefix="f")["Versions"]) >= 8, timeout_s=90)
    finally:
        ended.set()
        writer.join()
    fsx.settle()

    versions = s3.list_object_versions(Bucket=bucket, Prefix="f")["Versions"]
    for version in versions:
        data = s3.get_object(Bucket=bucket, Key="f", VersionId=version["VersionId"])["Body"].read()
        assert data == data[:1] * SIZE
    assert body(s3, bucket, "f") == (d / "f").read_bytes()


# ---------------------------------------------------------------- import


def test_an_import_is_exchanged_in_and_readers_keep_what_they_opened(
    fsx: Instance, d: Path, s3: Any, bucket: str
) -> None:
    old, new = b"old" + bytes(2 * BLOCK), b"another one, and longer" + bytes(3 * BLOCK)
    made_on_both_sides(fsx, d / "f", old)
    with (d / "f").open("rb", buffering=0) as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        s3.put_object(Bucket=bucket, Key="f", Body=new)
        eventually(lambda: (d / "f").read_bytes() == new)

        assert mapped[:] == old
        assert os.pread(reader.fileno(), 1 << 20, 0) == old
        assert os.fstat(reader.fileno()).st_nlink == 0
        assert os.fstat(reader.fileno()).st_size == len(old)
        with (d / "f").open("r+b") as writer:  # the new one, while the old one is read
            writer.write(b"ANOTHER")
        assert mapped[:7] == old[:7]
    fsx.settle()

    assert body(s3, bucket, "f") == b"ANOTHER" + new[7:]
    assert conflict_copies(d) == []


def test_a_file_that_is_being_written_is_not_replaced_and_both_versions_are_kept(
    fsx: Instance, d: Path, s3: Any, bucket: str
) -> None:
    made_on_both_sides(fsx, d / "f", b"before" + bytes(BLOCK))
    with (d / "f").open("r+b", buffering=0) as writer:
        mapped = mmap.mmap(writer.fileno(), 0)
        writer.write(b"here")
        s3.put_object(Bucket=bucket, Key="f", Body=b"there")
        assert "/d/f (open for writing)" in held_up(fsx)
        assert (d / "f").read_bytes()[:6] == b"herere"
    mapped[4:6] = b"!!"  # nobody has a descriptor any more
    assert "/d/f" in held_up(fsx)
    mapped.close()
    fsx.settle()

    assert (d / "f").read_bytes() == body(s3, bucket, "f") == b"there"
    assert conflict_copies(d) == [b"here!!" + bytes(BLOCK)]
    (copy,) = (key for key in keys_of(s3, bucket) if ".conflict-" in key)
    assert body(s3, bucket, copy) == b"here!!" + bytes(BLOCK)


def test_writers_and_imports_of_one_file_lose_no_line(fsx: Instance, d: Path, s3: Any, bucket: str) -> None:
    """Each line that a writer closed is in some version on both sides, however often the object is replaced."""
    made_on_both_sides(fsx, d / "log", b"")
    theirs: list[bytes] = []
    for number in range(12):
        with (d / "log").open("ab", buffering=0) as file:
            file.write(b"here %d\n" % number)
            if number % 3 == 1:
                theirs.append(b"there %d\n" % number)
                s3.put_object(Bucket=bucket, Key="log", Body=theirs[-1])
            fsx.run("wait", "--timeout", "0.5")  # an export, an import, or nothing: all at the same time
    fsx.settle()

    here = {path.name: path.read_bytes() for path in d.iterdir()}
    assert here == {key: body(s3, bucket, key) for key in keys_of(s3, bucket)}
    lines = b"".join(here.values())
    assert [number for number in range(12) if b"here %d\n" % number not in lines] == []
    assert theirs[-1] in lines


def test_a_file_deleted_over_there_stays_for_its_readers_and_for_its_writer(
    fsx: Instance, d: Path, s3: Any, bucket: str
) -> None:
    for name in ("read", "written"):
        made_on_both_sides(fsx, d / name, b"before")
    with (d / "read").open("rb", buffering=0) as reader, (d / "written").open("r+b", buffering=0) as writer:
        for name in ("read", "written"):
            s3.delete_object(Bucket=bucket, Key=name)
        eventually(lambda: not (d / "read").exists())
        writer.write(b"edited")
        assert "/d/written (open for writing)" in held_up(fsx)

        assert os.pread(reader.fileno(), 10, 0) == b"before"
    fsx.settle()

    assert body(s3, bucket, "written") == (d / "written").read_bytes() == b"edited"
    assert keys_of(s3, bucket) == ["written"]


def test_a_program_that_runs_goes_on_when_an_import_replaces_it(fsx: Instance, d: Path, s3: Any, bucket: str) -> None:
    shutil.copy(Path("/bin/sleep").resolve(), d / "program")
    fsx.settle()
    running = subprocess.Popen([d / "program", "1000"])
    try:
        eventually(lambda: os.readlink(f"/proc/{running.pid}/exe") == str(d / "program"))
        s3.put_object(
            Bucket=bucket, Key="program", Body=b"#!/bin/sh\necho new\n", Metadata={"file-permissions": "0100755"}
        )
        eventually(lambda: subprocess.run([d / "program"], capture_output=True, check=False).stdout == b"new\n")

        assert running.poll() is None
        assert Path(f"/proc/{running.pid}/exe").read_bytes() == Path("/bin/sleep").read_bytes()
    finally:
        running.kill()
        running.wait()
    fsx.settle()
    assert body(s3, bucket, "program") == (d / "program").read_bytes() == b"#!/bin/sh\necho new\n"
    assert conflict_copies(d) == []


# ---------------------------------------------------------------- a handle that outlives the daemon


@pytest.mark.parametrize("theirs", [b"", b"there"], ids=["alone", "against an import"])
def test_what_is_written_through_a_handle_of_a_killed_daemon_is_not_lost(
    fsx: Instance, d: Path, s3: Any, bucket: str, theirs: bytes
) -> None:
    """The kernel goes on writing to the host's file, and the next daemon was never told of that handle."""
    made_on_both_sides(fsx, d / "f", bytes(2 * BLOCK))
    writer = os.open(d / "f", os.O_RDWR)
    mapped = mmap.mmap(writer, 0)
    os.pwrite(writer, b"one", 0)
    fsx.kill()
    os.pwrite(writer, b"two", 10)

    fsx.start()
    assert "open for writing" in held_up(fsx)  # nothing of it is exported before its last close
    assert body(s3, bucket, "f") == bytes(2 * BLOCK)
    os.pwrite(writer, b"three", 20)
    mapped[30:34] = b"four"
    if theirs:
        s3.put_object(Bucket=bucket, Key="f", Body=theirs)
        assert "open for writing" in held_up(fsx)
    os.pwrite(writer, b"five", 40)
    with pytest.raises(OSError, match="not connected"):
        os.close(writer)
    mapped[50:53] = b"six"
    mapped.close()

    expected = bytearray(2 * BLOCK)
    for at, text in ((0, b"one"), (10, b"two"), (20, b"three"), (30, b"four"), (40, b"five"), (50, b"six")):
        expected[at : at + len(text)] = text
    if theirs:
        eventually(lambda: conflict_copies(d) == [bytes(expected)])
    else:
        eventually(lambda: body(s3, bucket, "f") == expected)
    fsx.settle()
    assert body(s3, bucket, "f") == (d / "f").read_bytes() == (theirs or expected)
