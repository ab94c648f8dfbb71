"""What `fsxsync check` looks at: which paths, and what is left in staging."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from fakes.store import FakeStore

from fsxsync.catalog.database import Catalog
from fsxsync.config import Settings
from fsxsync.model.association import Association, Lifecycle
from fsxsync.model.finding import Finding, Rule, Tally
from fsxsync.model.identity import Kind, Local, Remote, base_of
from fsxsync.sync import checking
from fsxsync.sync.checking import BATCH, Checker, _older, _outermost
from fsxsync.sync.served import Served, Shared
from fsxsync.tree.attributes import Seen, see_all
from fsxsync.tree.tree import Tree


@pytest.mark.parametrize(
    ("asked", "looked_at"),
    [
        ([b""], [b""]),
        ([b"a", b""], [b""]),
        ([b"a", b"a"], [b"a"]),
        ([b"a/b", b"a"], [b"a"]),
        ([b"ab", b"a", b"a-b/c"], [b"a-b/c", b"a", b"ab"]),
    ],
)
def test_no_path_is_looked_at_twice(asked: list[bytes], looked_at: list[bytes]) -> None:
    assert _outermost(asked) == looked_at


def test_only_what_was_staged_before_the_start_is_left_over(tmp_path: Path) -> None:
    old, new = tmp_path / "old-1-1", tmp_path / "new-2-1"
    old.write_bytes(b"only copy")
    os.utime(old, ns=(2**62, 2**62))  # a stub has its object's times: they tell nothing
    started_ns = old.stat().st_ctime_ns + 1
    while time.time_ns() < started_ns + 20_000_000:  # a tick of the clock that stamps files
        pass
    new.touch()
    os.utime(new, ns=(0, 0))

    assert list(_older(tmp_path, started_ns)) == [old]


# ---------------------------------------------------------------- the merge


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    catalog = Catalog.open(state_dir / "catalog.db")
    tree = Tree.open(tmp_path / "tree", state_dir / "staging", instance=None, new_instance="1")
    settings = Settings(state_dir=state_dir)
    yield Shared(settings, catalog, tree, mover=None, eventlog=None, eager=False)  # type: ignore[arg-type]
    tree.close()
    catalog.close()


async def rules_of(shared: Shared, served: Served, *paths: bytes) -> tuple[dict[str, Rule], Tally]:
    async def settle() -> None:
        await trio.lowlevel.checkpoint()

    checker = Checker(shared, {served.id: served}, settle=settle, is_scanned=lambda _: True, verify=False)
    *findings, tally = [one async for one in checker.run(paths or (b"",))]
    assert isinstance(tally, Tally)
    assert tally.broken == len(findings)
    return {one.path: one.rule for one in findings if isinstance(one, Finding)}, tally


async def test_any_number_of_rows_may_have_lost_their_files(shared: Shared) -> None:
    """Before, between and after what is there, more than a batch each."""
    association = Association("dra-1", b"d", "bucket", "", lifecycle=Lifecycle.AVAILABLE)
    shared.catalog.associations.put(association)
    served = Served(shared, association, FakeStore())
    root = shared.tree.root / "d"
    root.mkdir()
    names = [f"{place}{number:04}" for place in "acegi" for number in range(2 * BATCH + 1)]
    here = {name for name in names if name[0] in "ce"}
    gone = set(names) - here
    for name in here:
        (root / name).touch()
    was = Local(Kind.FILE, 1, 0, 0, 0, 0o644, 0, 0)
    shared.catalog.files.put_many(
        base_of("dra-1", name.encode(), shared.tree.identify(f"d/{name}".encode()) or was, Remote(Kind.FILE, "e", 0, 1))
        for name in names
    )

    found, tally = await rules_of(shared, served)
    assert found == dict.fromkeys((f"d/{name}" for name in gone), Rule.ROW_WITHOUT_FILE)
    assert tally.entries == len(names) + 1

    found, tally = await rules_of(shared, served, b"d/a0007", b"d/c0007")
    assert (found, tally.entries) == ({"d/a0007": Rule.ROW_WITHOUT_FILE}, 2)


async def test_a_batch_that_vanished_is_not_the_end(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    association = Association("dra-1", b"", "bucket", "", lifecycle=Lifecycle.AVAILABLE)
    shared.catalog.associations.put(association)
    for number in range(BATCH + 1):
        (shared.tree.root / f"{number:04}").touch()

    def first_batch_vanishes(root_fd: int, dev: int, paths: list[bytes]) -> list[Seen | None]:
        return [None] * len(paths) if len(paths) == BATCH else see_all(root_fd, dev, paths)

    monkeypatch.setattr(checking, "see_all", first_batch_vanishes)
    found, _ = await rules_of(shared, Served(shared, association, FakeStore()))

    assert found == {f"{BATCH:04}": Rule.FILE_WITHOUT_ROW}
