# ruff: noqa: S311 - what is random here is no secret
"""Races of Lustre's HSM regression list (docs/SEMANTICS.md names the situations): release and restore against readers,
writers and those who change names. Each is raced in many rounds, and every byte is compared on both sides."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.hsm import CHUNK, Over, Tiering, race, tiering
from support.moto_server import MotoServer

ROUNDS = 3
"""Releases of a directory in each race; between two of them the others do hundreds of things."""
SIZE = 4 * CHUNK + 777
AGAIN = {"ResourceBusy", "OperationNotPermitted", "S3ObjectUpdateInProgressFromFileRename"}
"""Why a file stays that somebody uses or changes."""


@pytest.fixture(scope="module", params=["auto", "off"])
def tier(
    request: pytest.FixtureRequest, moto: MotoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiering]:
    """On each of the two data paths."""
    base = tmp_path_factory.mktemp(request.param)
    with tiering(base, moto, f"b-{uuid.uuid4().hex[:12]}", "-o", f"passthrough={request.param}") as made:
        yield made


def filled(tier: Tiering, place: Path, count: int = 4) -> dict[str, bytes]:
    bodies = {f"f{number}": os.urandom(SIZE) for number in range(count)}
    for name, body in bodies.items():
        (place / name).write_bytes(body)
    tier.settle(place)
    return bodies


def keep_releasing(tier: Tiering, place: Path) -> None:
    for _ in range(ROUNDS):
        assert set(tier.try_to_release(place).values()) <= AGAIN


def test_release_while_reading(tier: Tiering) -> None:
    place = tier.place("auto", "release-read")
    bodies = filled(tier, place)

    def read_whole(over: Over) -> None:
        while not over.is_set():
            for name, body in bodies.items():
                assert (place / name).read_bytes() == body

    def read_parts(over: Over) -> None:
        chosen = random.Random(1)
        while not over.is_set():
            name = chosen.choice(list(bodies))
            with (place / name).open("rb", buffering=0) as stream:
                for _ in range(5):
                    offset = chosen.randrange(SIZE)
                    assert os.pread(stream.fileno(), 9000, offset) == bodies[name][offset : offset + 9000]

    race(lambda: keep_releasing(tier, place), [read_whole, read_parts, read_parts])
    tier.agree(place, bodies)


def test_release_while_writing(tier: Tiering) -> None:
    place = tier.place("auto", "release-write")
    expected = {name: bytearray(body) for name, body in filled(tier, place).items()}

    def change(name: str, over: Over) -> None:
        chosen = random.Random(name)
        while not over.is_set():
            body = expected[name]
            with (place / name).open("r+b", buffering=0) as stream:
                offset, new = chosen.randrange(SIZE), chosen.randbytes(300)
                assert os.pread(stream.fileno(), 100, offset) == body[offset : offset + 100]
                os.pwrite(stream.fileno(), new, offset)
            body[offset : offset + 300] = new
            with (place / name).open("ab", buffering=0) as stream:
                stream.write(new)
            body += new
            assert (place / name).stat().st_size == len(body)

    def act() -> None:
        for _ in range(ROUNDS):
            assert set(tier.try_to_release(place).values()) <= AGAIN
            tier.client.wait(tier.inside(place).encode(), 1)  # now and then something is in sync, and may go

    names = list(expected)
    race(act, [lambda over, name=name: change(name, over) for name in names[:3]])
    tier.agree(place, {name: bytes(body) for name, body in expected.items()})


def test_restore_while_writing(tier: Tiering) -> None:
    place = tier.place("auto", "restore-write")
    path = place / "f0"
    body = bytearray(filled(tier, place, 1)["f0"])
    for number in range(ROUNDS):
        tier.release(path)
        new = os.urandom(5000)
        offset = random.Random(number).randrange(SIZE - 5000)
        with ThreadPoolExecutor(3) as pool:
            restored = pool.submit(tier.restore, place)
            read = pool.submit(path.read_bytes)
            with path.open("r+b", buffering=0) as stream:
                os.pwrite(stream.fileno(), new, offset)
            assert restored.result(60) == {}
            got = read.result(60)
        before, body[offset : offset + 5000] = bytes(body), new
        assert len(got) == SIZE
        assert (got[:offset], got[offset + 5000 :]) == (before[:offset], before[offset + 5000 :])
        tier.settle(place)
    tier.agree(place, {"f0": bytes(body)})


def test_rename_races_release_and_restore(tier: Tiering) -> None:
    place = tier.place("auto", "rename")
    bodies = filled(tier, place, 3)
    names = {name: name for name in bodies}

    def rename(over: Over) -> None:
        count = 0
        while not over.is_set():
            count += 1
            for name in bodies:
                new = f"{name}-{count % 3}"
                (place / names[name]).rename(place / new)
                names[name] = new
            if count % 4 == 0:
                name = f"f{count % 3}"
                assert (place / names[name]).read_bytes() == bodies[name]

    def act() -> None:
        for _ in range(ROUNDS):
            tier.try_to_release(place)
            tier.restore(place)

    race(act, [rename])
    tier.agree(place, {names[name]: body for name, body in bodies.items()})


def test_truncate_races_release_and_restore(tier: Tiering) -> None:
    place = tier.place("auto", "truncate")
    expected = filled(tier, place, 3)

    def cut(over: Over) -> None:
        chosen = random.Random(3)
        while not over.is_set():
            for name, body in expected.items():
                size = chosen.choice([0, 5, CHUNK - 1, len(body) // 2, len(body) + 1000])
                os.truncate(place / name, size)
                expected[name] = body[:size].ljust(size, b"\0") if size else os.urandom(SIZE)
                if not size:
                    (place / name).write_bytes(expected[name])
                assert (place / name).stat().st_size == len(expected[name])

    def act() -> None:
        for _ in range(ROUNDS):
            tier.try_to_release(place)
            tier.client.wait(tier.inside(place).encode(), 1)
            tier.restore(place)

    race(act, [cut])
    tier.agree(place, expected)


def test_unlink_races_release_and_restore(tier: Tiering) -> None:
    place = tier.place("auto", "unlink")
    expected = filled(tier, place, 3)

    def remake(over: Over) -> None:
        count = 0
        while not over.is_set():
            name = f"f{count % 3}"
            count += 1
            with (place / name).open("rb", buffering=0) as stream:
                (place / name).unlink()
                new = b"%d " % count * 40_000
                (place / name).write_bytes(new)
                assert stream.read() == expected[name][: 1 << 20]
            expected[name] = new

    def act() -> None:
        for _ in range(ROUNDS):
            tier.try_to_release(place)
            tier.client.wait(tier.inside(place).encode(), 1)
            tier.restore(place)

    race(act, [remake])
    tier.agree(place, expected)


def test_names_and_contents_change_while_a_directory_is_restored(tier: Tiering) -> None:
    place = tier.place("auto", "restore-directory")
    expected = filled(tier, place, 24)
    tier.release(place)
    task = tier.client.create_task({"type": "RESTORE_DATA", "paths": [tier.inside(place)]})["id"]
    for number in reversed(range(24)):  # from the end: the restore comes towards us
        path = place / f"f{number}"
        if number % 4 == 0:
            path.unlink()
            del expected[path.name]
        elif number % 4 == 1:
            path.write_bytes(b"new")
            expected[path.name] = b"new"
        elif number % 4 == 2:
            path.rename(place / f"moved-{number}")
            expected[f"moved-{number}"] = expected.pop(path.name)
    tier.ended(task)

    tier.agree(place, expected)


def test_exec_races_release(tier: Tiering) -> None:
    place = tier.place("auto", "exec")
    program = shutil.which("true")
    assert program is not None
    shutil.copy(program, place / "true")
    tier.settle(place)

    def run(over: Over) -> None:
        while not over.is_set():
            assert subprocess.run([place / "true"], check=False).returncode == 0  # noqa: S603

    race(lambda: keep_releasing(tier, place), [run, run])
    tier.agree(place, {"true": Path(program).read_bytes()})


_MAP = """
import mmap, os, sys
expected = open(sys.argv[2], "rb").read()
while True:
    with open(sys.argv[1], "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    os.closerange(3, 100)  # the mapping outlives all descriptors
    assert mapped[:] == expected
    mapped.close()
    print(flush=True)
"""


def test_mmap_races_release(tier: Tiering, tmp_path: Path) -> None:
    place = tier.place("auto", "mmap")
    bodies = filled(tier, place, 1)
    (tmp_path / "expected").write_bytes(bodies["f0"])
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _MAP, place / "f0", tmp_path / "expected"], stdout=subprocess.PIPE
    ) as mapping:
        assert mapping.stdout is not None
        mapping.stdout.readline()
        race(lambda: keep_releasing(tier, place), [lambda over: drain(mapping, over)])
        mapping.kill()
    tier.agree(place, bodies)


def drain(process: subprocess.Popen[bytes], over: Over) -> None:
    assert process.stdout is not None
    while not over.is_set():
        assert process.stdout.readline()


def test_a_release_succeeds_beside_a_reader(tier: Tiering) -> None:
    """The test of the tests: what races with a release meets one that succeeds."""
    place = tier.place("auto", "meets")
    bodies = filled(tier, place, 2)
    left: list[dict[str, str]] = []

    def read(over: Over) -> None:
        while not over.wait(0.01):
            assert (place / "f0").read_bytes() == bodies["f0"]

    def release_once() -> None:
        while len(left) < 50 and {} not in left:
            left.append(tier.try_to_release(place))

    race(release_once, [read])
    assert {} in left
    assert {name: (place / name).read_bytes() for name in bodies} == bodies
