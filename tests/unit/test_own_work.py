"""Files that our own work left, of which inotify tells afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsxsync.sync import own_work
from fsxsync.sync.own_work import OwnWork
from fsxsync.tree.tree import Tree

A = "dra-1"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree.open(tmp_path / "tree", tmp_path / "staging", instance=None, new_instance="one")
    yield tree
    tree.close()


def noted(tree: Tree, work: OwnWork, *names: str) -> None:
    for name in names:
        (tree.root / name).write_text(name)
        local = tree.identify(name.encode())
        assert local is not None
        work.note(A, [(name.encode(), name.encode(), local)])


def test_a_file_is_known_as_long_as_it_is_the_one_that_was_left(tree: Tree) -> None:
    work = OwnWork(tree)
    noted(tree, work, "a", "b", "c")
    (tree.root / "b").chmod(0o600)
    (tree.root / "c").unlink()

    for _ in ("one reading of records", "the next"):
        assert list(work.unchanged([b"a", b"b", b"c", b"other"])) == [(b"a", A, b"a")]
    (tree.root / "a").chmod(0o600)
    assert list(work.unchanged([b"a", b"b", b"c"])) == []


def test_a_file_with_another_name_is_not_remembered(tree: Tree) -> None:
    work = OwnWork(tree)
    (tree.root / "a").touch()
    (tree.root / "b").hardlink_to(tree.root / "a")
    local = tree.identify(b"a")
    assert local is not None
    work.note(A, [(b"a", b"a", local)])

    assert list(work.unchanged([b"a"])) == []


def test_who_was_noted_first_is_forgotten_first(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_work, "MOST", 2)
    work = OwnWork(tree)
    noted(tree, work, "a", "b", "c")

    assert sorted(path for path, _, _ in work.unchanged([b"a", b"b", b"c"])) == [b"b", b"c"]


def test_who_was_asked_for_is_forgotten_no_later_for_that(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those would go first whose records are still to come."""
    monkeypatch.setattr(own_work, "MOST", 2)
    work = OwnWork(tree)
    noted(tree, work, "a", "b")
    assert list(work.unchanged([b"a"])) == [(b"a", A, b"a")]
    noted(tree, work, "c")

    assert sorted(path for path, _, _ in work.unchanged([b"a", b"b", b"c"])) == [b"b", b"c"]


def test_who_is_noted_again_is_new(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_work, "MOST", 2)
    work = OwnWork(tree)
    noted(tree, work, "a", "b", "a", "c")

    assert sorted(path for path, _, _ in work.unchanged([b"a", b"b", b"c"])) == [b"a", b"c"]
