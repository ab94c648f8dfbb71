"""Situations of Lustre's HSM regression list that make sense on one host, a test each, where no other file has one.

docs/SEMANTICS.md holds the whole list with its tests; `test_hsm_races.py` has the races.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hsm import CHUNK, Tiering, tiering
from support.instance import eventually
from support.moto_server import MotoServer
from support.proxy import Answer, Request

from fsxsync.control.client import Document

SIZE = 3 * CHUNK + 55
BODY = bytes(range(256)) * (SIZE // 256 + 1)
BODY = BODY[:SIZE]


@pytest.fixture(scope="module")
def shared(moto: MotoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiering]:
    with tiering(tmp_path_factory.mktemp("hsm"), moto, f"b-{uuid.uuid4().hex[:12]}") as made:
        yield made


@pytest.fixture
def tier(shared: Tiering) -> Iterator[Tiering]:
    yield shared
    shared.proxy.rule = None


class Held:
    """A rule: requests of one method for one object wait, each told of, until they are let go."""

    def __init__(self, method: str, key: str) -> None:
        self._wanted = (method, key)
        self.came, self.let_go = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Answer | None:
        if request.method == self._wanted[0] and request.path.endswith("/" + self._wanted[1]):
            self.came.set()
            assert self.let_go.wait(60)
        return None


def exported(tier: Tiering, place: Path, *names: str) -> None:
    """Files of an association that does nothing by itself, in sync."""
    for name in names:
        (place / name).write_bytes(BODY)
    done = tier.task("EXPORT_TO_REPOSITORY", place)
    assert done["failed"] == 0, done["failures"]


# ---------------------------------------------------------------- what makes a file dirty


def write(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"new")


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def store_through_a_mapping(path: Path) -> None:
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[10:13] = b"new"


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": write,
    "append": append,
    "overwrite": lambda path: path.write_bytes(b"all new"),
    "truncate": lambda path: os.truncate(path, 10),
    "extend": lambda path: os.truncate(path, SIZE + 10),
    "mapping": store_through_a_mapping,
}
NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "read": Path.read_bytes,
    "chmod": lambda path: path.chmod(0o640),
    "chown": lambda path: os.chown(path, 12, 34),
    "touch": os.utime,
    "open for writing": lambda path: path.open("r+b").close(),
    "xattr": lambda path: os.setxattr(path, "user.mine", b"1"),
    "link": lambda path: os.link(path, f"{path}-2"),
}


def test_what_makes_a_file_dirty_and_what_does_not(tier: Tiering) -> None:
    place = tier.place("manual", "dirty")
    exported(tier, place, *CHANGES, *NO_CHANGES)
    for name, act in {**CHANGES, **NO_CHANGES}.items():
        act(place / name)
    tier.settle(place)

    assert {name: tier.flags(place / name) for name in CHANGES} == {
        key: ["exists", "dirty", "archived"] for key in CHANGES
    }
    assert {name: tier.flags(place / name) for name in NO_CHANGES} == {
        key: ["exists", "archived"] for key in NO_CHANGES
    }
    assert tier.try_to_release(place) == dict.fromkeys(
        [*CHANGES, "chmod", "chown", "link", "link-2"], "OperationNotPermitted"
    )


def test_a_dirty_file_is_archived_again_and_then_may_go(tier: Tiering) -> None:
    place = tier.place("manual", "again")
    exported(tier, place, "f")
    tier.release(place)
    append(place / "f")
    tier.settle(place)
    assert tier.flags(place / "f") == ["exists", "dirty", "archived"]
    assert tier.try_to_release(place) == {"f": "OperationNotPermitted"}
    assert tier.body(place / "f") == BODY
    tier.task("EXPORT_TO_REPOSITORY", place)

    tier.release(place)
    assert tier.flags(place / "f") == ["released", "exists", "archived"]
    assert tier.body(place / "f") == BODY + b"more"
    assert (place / "f").read_bytes() == BODY + b"more"


def test_releasing_and_restoring_twice_changes_nothing(tier: Tiering) -> None:
    place = tier.place("manual", "twice")
    exported(tier, place, "f")
    os.utime(place / "f", ns=(1_400_000_000_000_000_005, 1_500_000_000_000_000_007))
    tier.settle(place)
    before = (place / "f").stat()
    for _ in range(2):
        tier.release(place)
    for _ in range(2):
        assert tier.restore(place) == {}

    after = (place / "f").stat()
    assert (after.st_mtime_ns, after.st_atime_ns, after.st_mode) == (
        *(before.st_mtime_ns, before.st_atime_ns, before.st_mode),
    )
    assert tier.flags(place / "f") == ["exists", "archived"]
    assert (tier.fsx.tree / "manual/twice/f").read_bytes() == BODY


def test_what_was_loaded_of_a_released_file_is_released_again(tier: Tiering) -> None:
    place = tier.place("manual", "partly")
    exported(tier, place, "f")
    tier.release(place)
    with (place / "f").open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 100, 2 * CHUNK) == BODY[2 * CHUNK : 2 * CHUNK + 100]
        assert tier.try_to_release(place) == {"f": "ResourceBusy"}
    assert tier.state(place / "f")["resident_bytes"] >= CHUNK
    tier.release(place)
    tier.release(place)

    assert (tier.state(place / "f")["resident_bytes"], (place / "f").stat().st_blocks <= 8) == (0, True)
    assert tier.flags(place / "f") == ["released", "exists", "archived"]
    assert (place / "f").read_bytes() == BODY


# ---------------------------------------------------------------- changes during an archive


@pytest.mark.parametrize("change", ["write", "truncate", "overwrite", "chmod", "rename", "unlink"])
def test_changed_while_it_is_archived(tier: Tiering, change: str) -> None:
    place = tier.place("held", f"archive-{change}")
    path = place / "f"
    held = tier.proxy.rule = Held("PUT", tier.key(path))
    path.write_bytes(BODY)
    assert held.came.wait(60)
    if change == "rename":
        path.rename(place / "new")
    elif change == "unlink":
        path.unlink()
    else:
        {**CHANGES, **NO_CHANGES}[change](path)
    expected = {entry.name: entry.read_bytes() for entry in place.iterdir()}
    held.let_go.set()

    tier.agree(place, expected)
    if change == "chmod":
        head = tier.s3.head_object(Bucket=tier.bucket, Key=tier.key(path))
        assert head["Metadata"]["file-permissions"] == "0100640"


def test_a_cancelled_archive_finishes_what_is_in_flight(tier: Tiering) -> None:
    place = tier.place("manual", "cancel-archive")
    names = [f"f{number:02d}" for number in range(60)]
    for name in names:
        (place / name).write_bytes(name.encode())
    held = tier.proxy.rule = Held("PUT", tier.key(place / "f00"))
    task = tier.client.create_task({"type": "EXPORT_TO_REPOSITORY", "paths": [tier.inside(place)]})["id"]
    assert held.came.wait(60)
    assert tier.client.cancel_task(task)["lifecycle"] == "CANCELING"
    held.let_go.set()

    assert tier.ended(task)["lifecycle"] == "CANCELED"
    there = tier.keys(place)
    assert "f00" in there
    tier.settle(place)
    for name in names:
        assert (place / name).read_bytes() == name.encode()
        assert tier.flags(place / name) == (["exists", "archived"] if name in there else [])
        assert name not in there or tier.body(place / name) == name.encode()


# ---------------------------------------------------------------- changes during a restore


@pytest.mark.parametrize("change", ["overwrite", "rename", "unlink", "chmod"])
def test_changed_while_it_is_restored(tier: Tiering, change: str) -> None:
    place = tier.place("held", f"restore-{change}")
    path = place / "f"
    path.write_bytes(BODY)
    tier.settle(place)
    tier.release(place)
    held = tier.proxy.rule = Held("GET", tier.key(path))
    task = tier.client.create_task({"type": "RESTORE_DATA", "paths": [tier.inside(place)]})["id"]
    assert held.came.wait(60)
    expected = {"f": BODY}
    if change == "rename":
        path.rename(place / "new")
        expected = {"new": BODY}
    elif change == "unlink":
        path.unlink()
        expected = {}
    elif change == "chmod":
        path.chmod(0o640)
    else:
        path.write_bytes(b"all new")
        expected = {"f": b"all new"}
    held.let_go.set()
    tier.ended(task)

    tier.agree(place, expected)


# ---------------------------------------------------------------- programs and mappings


def test_a_released_program_is_loaded_to_run_and_is_busy_while_it_runs(tier: Tiering) -> None:
    place = tier.place("manual", "exec")
    program = shutil.which("sleep")
    assert program is not None
    shutil.copy(program, place / "sleep")
    tier.task("EXPORT_TO_REPOSITORY", place)
    tier.release(place)

    with subprocess.Popen([place / "sleep", "600"]) as running:  # noqa: S603
        try:
            with pytest.raises(OSError, match="Text file busy") as busy:
                (place / "sleep").open("ab").close()
            assert busy.value.errno == errno.ETXTBSY
            assert tier.try_to_release(place) == {"sleep": "ResourceBusy"}
        finally:
            running.kill()
    assert (place / "sleep").read_bytes() == Path(program).read_bytes()
    eventually(lambda: tier.try_to_release(place) == {})


_HOLD = """
import mmap, os, sys
with open(sys.argv[1], sys.argv[2]) as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ if sys.argv[2] == "rb" else mmap.PROT_WRITE)
os.closerange(3, 100)  # mmap has a descriptor of its own
print(flush=True)
sys.stdin.readline()
if sys.argv[2] == "rb":
    sys.stdout.buffer.write(mapped[:])
else:
    mapped[5:8] = b"new"
"""


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_mapped_file_is_not_released_though_its_descriptor_is_closed(tier: Tiering, mode: str) -> None:
    place = tier.place("manual", f"mapped-{len(mode)}")
    exported(tier, place, "f")
    tier.release(place)
    assert tier.restore(place) == {}
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _HOLD, place / "f", mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as mapping:
        assert mapping.stdout is not None
        assert mapping.stdout.readline() == b"\n"
        refused = tier.try_to_release(place)
        shown = mapping.communicate(b"\n")[0]

    assert refused == {"f": "ResourceBusy"}
    assert shown == (BODY if mode == "rb" else b"")
    assert (place / "f").read_bytes() == (BODY if mode == "rb" else BODY[:5] + b"new" + BODY[8:])


# ---------------------------------------------------------------- lost objects


def test_a_lost_file_can_be_given_new_content_or_removed(tier: Tiering) -> None:
    place = tier.place("manual", "lost")
    exported(tier, place, "rewritten", "removed", "put back")
    tier.release(place)
    for name in ("rewritten", "removed", "put back"):
        tier.s3.delete_object(Bucket=tier.bucket, Key=tier.key(place / name))
        with pytest.raises(OSError, match=r"No such file|Input/output"):
            (place / name).read_bytes()
    eventually(lambda: "lost_from_hsm" in tier.flags(place / "rewritten"))
    assert tier.restore(place / "removed") == {"removed": "S3ObjectNotFound"}
    assert (place / "removed").stat().st_size == SIZE

    (place / "rewritten").write_bytes(b"new")
    (place / "removed").unlink()
    tier.s3.put_object(Bucket=tier.bucket, Key=tier.key(place / "put back"), Body=BODY)
    eventually(lambda: (place / "put back").read_bytes() == BODY)
    tier.task("EXPORT_TO_REPOSITORY", place)
    assert {name: tier.flags(place / name) for name in ("rewritten", "put back")} == {
        key: ["exists", "archived"] for key in ("rewritten", "put back")
    }
    tier.agree(place, {"rewritten": b"new", "put back": BODY})


def test_state_of_a_tree_says_of_each_what_state_says_of_it_alone(tier: Tiering) -> None:
    """A tree is told batch by batch, from what a walk reads and what the catalog knows."""
    place = tier.place("manual", "each")
    for name in ("kept", "released", "partial", "dirty", "never", "deep/est/f", "deep-/f", "gone"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(BODY)
    (place / "link").symlink_to("kept")
    (place / "empty").mkdir()
    done = tier.task("EXPORT_TO_REPOSITORY", place)
    assert done["lifecycle"] == "SUCCEEDED", done["failures"]
    tier.release(place / "released", place / "partial", place / "deep")
    with (place / "partial").open("rb") as reader:
        reader.read(10)
    os.setxattr(place / "never", "user.fsxsync.norelease", b"1")
    os.setxattr(place / "deep-", "user.fsxsync.noarchive", b"1")
    (place / "dirty").write_bytes(b"other")
    (place / "new").write_bytes(b"x")
    (place / "late").symlink_to("nowhere")
    (place / os.fsdecode(b"\xff")).touch()
    os.mkfifo(place / "pipe")
    (place / "gone").unlink()
    (place / "gone").mkdir()

    tier.settle(place)

    def told() -> list[Document]:
        return [line["state"] for line in tier.client.states([tier.inside(place).encode()], recursive=True)]

    def alone() -> list[Document]:
        lines = tier.client.states([os.fsencode(one["path"]) for one in told()], recursive=False)
        return [line["state"] for line in lines]

    eventually(lambda: told() == alone())  # what was read in part may be loaded just now
    found = told()
    below = [Path(directory) / name for directory, *names in os.walk(place) for name in (*names[0], *names[1])]
    keys = sorted(os.fsencode(tier.inside(path)) + b"/" * (path.is_dir() and not path.is_symlink()) for path in below)
    assert [one["path"] for one in found] == [tier.inside(place), *(os.fsdecode(key.rstrip(b"/")) for key in keys)]
    flags = {Path(one["path"]).name: one["flags"] for one in found}
    assert flags["link"] == flags["kept"] == ["exists", "archived"]
    assert flags["released"] == ["released", "exists", "archived"]
    assert flags["dirty"] == ["exists", "dirty", "archived"]
    assert flags["never"] == ["exists", "archived", "never_release"]
    shown = tier.fsx.ok("state", "-r", "--json", place).json
    assert shown == [one | {"path": str(tier.fsx.directory / one["path"])} for one in found]
