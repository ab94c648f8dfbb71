"""The table of watched directories, and files that were created but not closed."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from fsxsync.tree.watch_created import Created
from fsxsync.tree.watches import Directory, Watches


@pytest.fixture
def table() -> Watches:
    return Watches()


def grow(table: Watches, root: Directory, *paths: bytes) -> list[Directory]:
    """Directories with watch descriptors 1, 2, 3 … in the order of the paths."""
    made = []
    for number, path in enumerate(paths, 1):
        node = root
        for name in path.split(b"/"):
            node = table.place(node, name)
        table.watched(node, number)
        made.append(node)
    return made


@pytest.mark.parametrize(("root", "path"), [(b"", b"a/b"), (b"data/sets", b"data/sets/a/b")])
def test_a_path_is_that_of_the_root_and_the_names_below(table: Watches, root: bytes, path: bytes) -> None:
    _, node = grow(table, table.add_root(root), b"a", b"a/b")

    assert table.path(node) == path


def test_a_move_changes_the_path_of_everything_below(table: Watches) -> None:
    a, b, c, other = grow(table, table.add_root(b""), b"a", b"a/b", b"a/b/c", b"other")

    table.attach(b, other, b"z")

    assert [table.path(node) for node in (a, b, c)] == [b"a", b"other/z", b"other/z/c"]
    assert table.child(a, b"b") is None


def test_a_directory_on_its_way_keeps_its_path_and_frees_its_name(table: Watches) -> None:
    root = table.add_root(b"")
    a, *_ = grow(table, root, b"a")

    table.take_out(a)
    again = table.place(root, b"a")

    assert again is not a
    assert table.path(a) == table.path(again) == b"a"
    assert (table.stands(a), table.stands(again)) == (False, True)


def test_what_is_dropped_gives_all_its_descriptors_back(table: Watches) -> None:
    a, b, _ = grow(table, table.add_root(b""), b"a", b"a/b", b"c")

    table.drop(a)

    assert (table.path(a), table.path(b)) == (None, None)
    assert sorted(filter(None, table.leave())) == [1, 2]
    assert (len(table), table.get(1), table.get(2)) == (1, None, None)


def test_what_was_dropped_and_is_attached_again_keeps_its_descriptors(table: Watches) -> None:
    root = table.add_root(b"")
    a, b = grow(table, root, b"a", b"a/b")

    table.drop(a)
    table.attach(a, root, b"z")

    assert list(filter(None, table.leave())) == []
    assert table.path(b) == b"z/b"


def test_a_descriptor_found_at_another_place_is_taken_from_the_first(table: Watches) -> None:
    root = table.add_root(b"")
    a, _ = grow(table, root, b"a", b"a/b")
    z = table.place(root, b"z")

    assert table.watched(z, 1)

    assert table.get(1) is z
    assert a.wd == 0
    assert not table.watched(z, 1)


def test_another_directory_at_a_place_makes_what_was_below_unknown(table: Watches) -> None:
    a, b = grow(table, table.add_root(b""), b"a", b"a/b")

    assert table.watched(a, 7)

    assert table.path(b) is None
    assert sorted(filter(None, table.leave())) == [1, 2]
    assert table.get(7) is a


def test_a_descriptor_that_stands_for_something_again_is_not_given_back(table: Watches) -> None:
    root = table.add_root(b"")
    table.disown(5)
    table.watched(root, 5)

    assert list(filter(None, table.leave())) == []


def test_a_removed_root_has_no_paths_and_gives_all_descriptors_back(table: Watches) -> None:
    root = table.add_root(b"one")
    (a,) = grow(table, root, b"a")
    table.watched(root, 9)

    table.remove_root(b"one")
    again = table.add_root(b"one")

    assert (table.path(a), table.path(root), table.path(again)) == (None, None, b"one")
    assert sorted(filter(None, table.leave())) == [1, 9]


def test_a_directory_is_within_itself_and_what_lies_above(table: Watches) -> None:
    root = table.add_root(b"")
    a, b, c = grow(table, root, b"a", b"a/b", b"c")

    assert [table.is_within(b, top) for top in (b, a, root, c)] == [True, True, True, False]


@pytest.mark.parametrize("width", [2, 1000])
def test_a_hundred_thousand_directories_take_less_than_forty_mebibytes(table: Watches, width: int) -> None:
    tracemalloc.start()
    nodes: list[Directory] = [table.add_root(b"data")]
    for wd in range(1, 100_001):
        node = table.place(nodes[(wd - 1) // width], b"directory-%06d" % wd)
        table.watched(node, wd)
        nodes.append(node)
    del nodes
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert used < 40 * 2**20


def test_a_file_being_written_is_asked_about_again_later_or_when_all_is_asked(tmp_path: Path, table: Watches) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        root = table.add_root(b"")
        created = Created(table, root_fd)
        with (tmp_path / "log").open("wb"):
            created.add(root, b"log")
            assert list(created.due(100.0, everything=True)) == [None]
            assert created.next_s == 101.0
            assert list(created.due(100.5, everything=False)) == []
            assert list(created.due(101.0, everything=False)) == [None]
            assert created.next_s == 103.0

        assert list(created.due(101.5, everything=True)) == [b"log"]
        assert (root, b"log") not in created
    finally:
        os.close(root_fd)
