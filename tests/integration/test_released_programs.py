# ruff: noqa: S603, S607 - programs that are on every host
"""Programs that read released trees get the data and never a hole (FSX-FACTS §6.3), on each of the two data paths."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hsm import CHUNK, Tiering, tiering
from support.moto_server import MotoServer

WORD = b"needle in a haystack\n"
BODIES = {
    "small": b"#!/bin/sh\n" + WORD,
    "large": os.urandom(5 * CHUNK) + WORD + os.urandom(777),
    "zeros": bytes(3 * CHUNK) + WORD,
    "sub/other": WORD * 9000,
    "empty": b"",
}
"""``zeros`` is what a sparse copy may make holes of, up to its last block."""


@pytest.fixture(scope="module", params=["auto", "off"])
def tier(
    request: pytest.FixtureRequest, moto: MotoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiering]:
    base = tmp_path_factory.mktemp(request.param)
    with tiering(base, moto, f"b-{uuid.uuid4().hex[:12]}", "-o", f"passthrough={request.param}") as made:
        place = made.place("auto", "t")
        (place / "sub").mkdir()
        for name, body in BODIES.items():
            (place / name).write_bytes(body)
        made.settle(place)
        yield made


@pytest.fixture
def released(tier: Tiering) -> Path:
    """A directory, all of whose files are released."""
    place = tier.fsx.directory / "auto" / "t"
    tier.release(place)
    assert {name for name in BODIES if "released" in tier.flags(place / name)} == set(BODIES) - {"empty"}
    return place


def same(copy: Path) -> None:
    assert {name: (copy / name).read_bytes() == body for name, body in BODIES.items()} == dict.fromkeys(BODIES, True)


@pytest.mark.parametrize("options", ["-cf", "-cSf"])
def test_tar_of_a_released_tree(released: Path, tmp_path: Path, options: str) -> None:
    subprocess.run(["tar", options, tmp_path / "t.tar", "-C", released, "."], check=True)
    (tmp_path / "copy").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "t.tar", "-C", tmp_path / "copy"], check=True)
    same(tmp_path / "copy")


@pytest.mark.parametrize("sparse", ["auto", "always"])
def test_cp_of_a_released_tree(released: Path, tmp_path: Path, sparse: str) -> None:
    subprocess.run(["cp", "-a", f"--sparse={sparse}", released, tmp_path / "copy"], check=True)
    same(tmp_path / "copy")


@pytest.mark.parametrize("options", [["-a"], ["-aS", "--checksum"]])
def test_rsync_of_a_released_tree(released: Path, tmp_path: Path, options: list[str]) -> None:
    subprocess.run(["rsync", *options, f"{released}/", tmp_path / "copy"], check=True)
    same(tmp_path / "copy")


def test_grep_of_a_released_tree(released: Path) -> None:
    found = subprocess.run(["grep", "-rlac", "needle", "."], cwd=released, check=True, capture_output=True, text=True)
    assert sorted(found.stdout.split()) == ["./large", "./small", "./sub/other", "./zeros"]


def test_file_of_a_released_tree(released: Path) -> None:
    told = subprocess.run(["file", "-b", *BODIES], cwd=released, check=True, capture_output=True, text=True)
    kinds = dict(zip(BODIES, told.stdout.splitlines(), strict=True))
    assert (kinds["small"].partition(",")[0], kinds["sub/other"], kinds["empty"]) == (
        "POSIX shell script",
        "ASCII text",
        "empty",
    )


def test_md5sum_of_a_released_tree(released: Path) -> None:
    sums = "".join(f"{hashlib.md5(body).hexdigest()}  {name}\n" for name, body in BODIES.items())  # noqa: S324
    subprocess.run(["md5sum", "-c", "--quiet"], cwd=released, input=sums, text=True, check=True)


def test_du_is_small_and_ls_true_and_neither_loads(tier: Tiering, released: Path) -> None:
    used = subprocess.run(["du", "-sB1", released], check=True, capture_output=True, text=True).stdout
    listed = subprocess.run(["ls", "-ln", *BODIES], cwd=released, check=True, capture_output=True, text=True).stdout
    assert int(used.split()[0]) < CHUNK
    assert {line.split()[-1]: int(line.split()[4]) for line in listed.splitlines()} == {
        name: len(body) for name, body in BODIES.items()
    }
    assert all(os.stat(released / name).st_blocks >= 1 for name, body in BODIES.items() if body)
    assert "released" in tier.flags(released / "large")


def test_seeking_finds_no_hole_where_the_object_has_data(tier: Tiering, released: Path) -> None:
    with (released / "large").open("rb", buffering=0) as stream:
        size = len(BODIES["large"])
        for part_here in (False, True):
            assert os.lseek(stream.fileno(), 0, os.SEEK_HOLE) == size
            assert os.lseek(stream.fileno(), 3 * CHUNK, os.SEEK_DATA) == 3 * CHUNK
            if not part_here:
                assert os.pread(stream.fileno(), 10, 4 * CHUNK) == BODIES["large"][4 * CHUNK : 4 * CHUNK + 10]


def test_getfattr_of_a_released_tree(tier: Tiering, released: Path) -> None:
    def told(word: str) -> str:
        command = ["getfattr", "--only-values", "-n", f"user.fsxsync.{word}", "large"]
        done = subprocess.run(command, cwd=released, check=False, capture_output=True, text=True)
        assert done.returncode == 0 or "No such attribute" in done.stderr
        return done.stdout

    state = tier.state(released / "large")
    assert {word: told(word) for word in ("state", "etag", "version", "key", "association", "error")} == {
        "state": "(0x0000000d) released exists archived",
        "etag": state["etag"],
        "version": "",
        "key": "auto/t/large",
        "association": state["association"],
        "error": "",
    }
    dumped = subprocess.run(["getfattr", "-d", "large"], cwd=released, check=True, capture_output=True, text=True)
    assert dumped.stdout == ""  # what is not listed, no copy takes along
