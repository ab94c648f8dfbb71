"""Tree against catalog: the other streaming merge. Runs at start and whenever inotify lost records."""

from __future__ import annotations

import trio

from fsxsync.errors import TreeMoved
from fsxsync.model.identity import Kind
from fsxsync.sync.excluded import forget
from fsxsync.sync.intake import BATCH, Intake
from fsxsync.sync.served import Served


async def rescan(served: Served, intake: Intake) -> int:
    """Hint at every path where the tree is not what the catalog knows; returns the number of entries seen.

    What is there is hinted before what is gone, and deletes wait until the scan is through: a file that moved while
    nobody watched must not lose its object before its new name is known.

    Raises:
        TreeMoved: the root or the association's directory is not the one that was linked; nothing is hinted.
    """
    check_directory(served)
    shared = served.shared
    shared.expanding += 1
    try:
        gone, seen = await _merge(served, intake)
        for start in range(0, len(gone), BATCH):
            for path in gone[start : start + BATCH]:
                intake.changed(served.tree_path(path))
            intake.flush()
            await trio.lowlevel.checkpoint()
    finally:
        shared.expanding -= 1
    return seen


async def _merge(served: Served, intake: Intake) -> tuple[list[bytes], int]:
    files = served.shared.catalog.files
    rows = files.iterate(served.id)
    row = next(rows, None)
    gone: list[bytes] = []
    seen = 0
    batches = served.shared.tree.walk_batches(served.association.directory, BATCH)
    while batch := await trio.to_thread.run_sync(next, batches, None):
        for tree_path, local in batch:
            path = served.association.relative(tree_path)
            if not path:
                continue
            seen += 1
            here = path + b"/" if local.kind is Kind.DIRECTORY else path
            while row is not None and files.sort_key(row) < here:
                gone.append(row.path)
                row = next(rows, None)
            if row is not None and files.sort_key(row) == here:
                if not served.filters.keeps(row):  # before it can be removed, and the filter changed once more
                    forget(served, row, local)
                    intake.changed(tree_path)
                elif not row.matches_local(local):
                    intake.changed(tree_path)
                row = next(rows, None)
            else:
                intake.changed(tree_path)
        intake.flush()
    while row is not None:
        gone.append(row.path)
        row = next(rows, None)
    return gone, seen


def check_directory(served: Served) -> None:
    """The association's directory is the one that was linked (DESIGN §3.6).

    Raises:
        TreeMoved
    """
    served.shared.tree.verify()
    association = served.association
    local = served.shared.tree.identify(association.directory)
    if local is None or local.kind is not Kind.DIRECTORY:
        raise TreeMoved(f"{association.file_system_path}", "the association's directory is gone")
    if association.directory_ino not in {0, local.ino}:
        raise TreeMoved(
            f"{association.file_system_path}",
            "the association's directory is not the one that was associated",
        )
