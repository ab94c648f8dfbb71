"""What a look could not do, as the event log has it: FSx's level of the code, and paths as people write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.errors import FsxSyncError, NotExportable, StubDamaged, TreeMoved, TypeClash
from fsxsync.sync.importer import ensure_parents
from fsxsync.sync.journal import record_failure, record_problem
from fsxsync.telemetry.codes import CODES


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "code", "told", "level"),
    [
        ("not-exportable", "InternalError", "S3ExportInternalError", "ERROR"),
        ("not-exportable", "PathSizeTooLong", "S3ExportPathSizeTooLong", "ERROR"),
        ("not-exportable", "FileSizeTooLarge", "S3ExportFileSizeTooLarge", "ERROR"),
        ("not-exportable", "OperationNotPermitted", "OperationNotPermitted", "WARN"),
        (
            "damaged",
            "S3ExportLocalObjectReleaseWithoutS3Source",
            "S3ExportLocalObjectReleaseWithoutS3Source",
            "WARN",
        ),
        ("refused", "S3ObjectTypeMismatch", "S3ImportObjectTypeMismatch", "ERROR"),
        ("lost", "S3ObjectNotFound", "S3ImportObjectDeleted", "ERROR"),
        ("held", "S3ObjectInUnsupportedTier", "S3ImportUnsupportedTierWarning", "WARN"),
        ("held", "S3SymlinkInUnsupportedTier", "S3ImportSymlinkInUnsupportedTierWarning", "ERROR"),
        ("restoring", "S3ObjectRestoreRequested", "S3ObjectRestoreRequested", "INFO"),
        ("conflict", "Conflict", "Conflict", "ERROR"),
    ],
)
async def test_a_problem_has_the_level_of_its_code(world: World, kind: str, code: str, told: str, level: str) -> None:
    async with world.daemon() as daemon:
        record_problem(daemon.served, b"f", kind, "why", code)

    ((event,), _) = world.eventlog.read()
    assert (event.code, event.level) == (told, level)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (TreeMoved("x"), "WARN"),
        (StubDamaged("x"), "WARN"),
        (NotExportable("x", code="InternalError"), "ERROR"),
        (FsxSyncError("x"), "ERROR"),
    ],
)
async def test_a_failure_has_the_level_of_its_code(world: World, error: FsxSyncError, level: str) -> None:
    async with world.daemon() as daemon:
        record_failure(daemon.served, b"f", error, first=True, local=True)

    ((event,), _) = world.eventlog.read()
    assert (CODES[event.code].level, event.level) == (level, level)


async def test_a_message_shows_paths_as_people_write_them(world: World) -> None:
    (world.tree.root / "d x").write_bytes(b"a file")
    async with world.daemon() as daemon:
        with pytest.raises(TypeClash) as refused:
            ensure_parents(daemon.served, b"d x/inn\xff")

    assert str(refused.value).startswith(
        "import of /d x/inn\\xff: a file stands at /d x, where a directory is needed; rename"
    )


def test_no_message_shows_the_repr_of_bytes() -> None:
    """As Python would write them: b'…'."""
    source = Path(__file__).parents[2] / "fsxsync"
    found = [
        f"{file.relative_to(source)}: {line.strip()}"
        for room in ("sync", "tree")
        for file in (source / room).glob("*.py")
        for line in file.read_text().splitlines()
        if "!r}" in line
    ]
    assert found == []
