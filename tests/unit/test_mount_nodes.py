"""The table of what the kernel knows: paths by walking up, renames that touch one node, and nothing kept for ever."""

from __future__ import annotations

import errno
import random
import stat
import tracemalloc

import pytest
from pyfuse3 import ROOT_INODE

from fsxsync.mount.nodes import Node, Nodes

ROOT = 500
FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


@pytest.fixture
def nodes() -> Nodes:
    return Nodes(ROOT, DIRECTORY)


def look_up(
    nodes: Nodes, parent: Node, name: bytes, ino: int, kind: int = FILE, *, nlink: int = 1, pinned: bool = False
) -> Node:
    """As the kernel does: the reply counts."""
    node = nodes.met(ino, kind, parent, name, pinned=pinned, nlink=nlink)
    node.lookups += 1
    return node


def test_the_root_is_1_and_who_else_would_be_takes_its_number(nodes: Nodes) -> None:
    one = look_up(nodes, nodes.root, b"f", 1)

    assert nodes.nodeid(ROOT) == ROOT_INODE
    assert nodes.named(ROOT_INODE) is nodes.root
    assert nodes.named(nodes.nodeid(1)) is one
    assert nodes.nodeid(77) == 77


def test_paths_are_found_by_walking_up(nodes: Nodes) -> None:
    a = look_up(nodes, nodes.root, b"a", 1001, DIRECTORY)
    b = look_up(nodes, a, b"b", 1002, DIRECTORY)
    f = look_up(nodes, b, b"f", 1003)

    assert [nodes.path(node) for node in (nodes.root, a, b, f)] == [b"", b"a", b"a/b", b"a/b/f"]


def test_a_directory_moves_by_one_node(nodes: Nodes) -> None:
    a = look_up(nodes, nodes.root, b"a", 1001, DIRECTORY)
    to = look_up(nodes, nodes.root, b"to", 1002, DIRECTORY)
    below = [look_up(nodes, a, b"%d" % number, 2000 + number) for number in range(100)]
    untouched = [(node.parent, node.name) for node in below]

    nodes.move(a, (nodes.root, b"a"), (to, b"c"))

    assert [(node.parent, node.name) for node in below] == untouched
    assert nodes.path(below[7]) == b"to/c/7"


def test_an_exchange_is_two_moves(nodes: Nodes) -> None:
    a = look_up(nodes, nodes.root, b"a", 1001, DIRECTORY)
    f = look_up(nodes, nodes.root, b"f", 1002)

    nodes.move(f, (nodes.root, b"f"), (nodes.root, b"a"))
    nodes.move(a, (nodes.root, b"a"), (nodes.root, b"f"))

    assert (nodes.path(a), nodes.path(f)) == (b"f", b"a")


def test_a_hard_link_keeps_a_path_as_long_as_it_has_a_name(nodes: Nodes) -> None:
    d = look_up(nodes, nodes.root, b"d", 1001, DIRECTORY)
    f = look_up(nodes, nodes.root, b"one", 1002, nlink=1)
    look_up(nodes, d, b"two", 1002, nlink=2)
    assert set(f.links()) == {(nodes.root, b"one"), (d, b"two")}

    nodes.move(f, (nodes.root, b"one"), (nodes.root, b"three"))
    assert set(f.links()) == {(nodes.root, b"three"), (d, b"two")}
    nodes.unlink(f, nodes.root, b"three")
    assert nodes.path(f) == b"d/two"
    nodes.unlink(f, d, b"two")

    assert nodes.path(f) is None


def test_a_single_name_replaces_what_was_believed(nodes: Nodes) -> None:
    f = look_up(nodes, nodes.root, b"one", 1002, nlink=2)
    look_up(nodes, nodes.root, b"two", 1002, nlink=2)

    look_up(nodes, nodes.root, b"moved-behind-the-mount", 1002, nlink=1)

    assert list(f.links()) == [(nodes.root, b"moved-behind-the-mount")]
    assert nodes.root.children == 1


def test_forgetting_is_counted_and_keeps_ancestors_that_are_needed(nodes: Nodes) -> None:
    d = look_up(nodes, nodes.root, b"d", 1001, DIRECTORY)
    f = look_up(nodes, d, b"f", 1002)
    look_up(nodes, d, b"f", 1002)

    assert nodes.forget(1001, 1) is None  # f's path needs it
    assert nodes.path(f) == b"d/f"
    assert nodes.forget(1002, 1) is None
    assert nodes.forget(1002, 1) is f

    assert len(nodes) == 1
    assert nodes.find(1001) is None
    with pytest.raises(OSError, match="forgot") as caught:
        nodes.named(1002)
    assert caught.value.errno == errno.ESTALE


def test_the_root_is_never_forgotten(nodes: Nodes) -> None:
    assert nodes.forget(ROOT_INODE, 10) is None
    assert nodes.named(ROOT_INODE) is nodes.root


def test_a_number_given_to_a_new_file_gets_a_generation_of_its_own(nodes: Nodes) -> None:
    f = look_up(nodes, nodes.root, b"f", 1002)
    first = f.generation
    f.cached = (1, 2)
    nodes.unlink(f, nodes.root, b"f")

    again = look_up(nodes, nodes.root, b"g", 1002)

    assert again is f  # the kernel still counts lookups on the number
    assert again.generation > first
    assert again.cached is None


@pytest.mark.parametrize(("pinned", "nlink"), [(True, 1), (False, 2)])
def test_the_same_file_found_again_keeps_its_generation(nodes: Nodes, pinned: bool, nlink: int) -> None:
    f = look_up(nodes, nodes.root, b"f", 1002, nlink=2)
    first = f.generation
    nodes.unlink(f, nodes.root, b"f")

    look_up(nodes, nodes.root, b"g", 1002, nlink=nlink, pinned=pinned)

    assert f.generation == first


def test_another_kind_is_another_file(nodes: Nodes) -> None:
    f = look_up(nodes, nodes.root, b"f", 1002)
    first = f.generation

    look_up(nodes, nodes.root, b"f", 1002, DIRECTORY, nlink=2)

    assert f.generation > first
    assert f.kind == DIRECTORY


def test_a_ring_of_stale_links_has_no_path(nodes: Nodes) -> None:
    a = look_up(nodes, nodes.root, b"a", 1001, DIRECTORY)
    b = look_up(nodes, a, b"b", 1002, DIRECTORY)

    look_up(nodes, b, b"a", 1001, DIRECTORY)  # moved into each other behind the mount

    assert nodes.path(b) is None


def test_whatever_comes_and_goes_children_are_counted_and_all_is_given_back(nodes: Nodes) -> None:
    chance = random.Random(7)  # noqa: S311 - a test's
    directories = [nodes.root] + [look_up(nodes, nodes.root, b"d%d" % n, 900 + n, DIRECTORY) for n in range(3)]
    counted: dict[int, int] = {directory.ino: 1 for directory in directories[1:]}
    for _ in range(5_000):
        ino, parent, name = chance.randrange(1000, 1020), chance.choice(directories), b"%d" % chance.randrange(5)
        node = nodes.find(ino)
        match chance.randrange(4):
            case 0:
                look_up(nodes, parent, name, ino, nlink=chance.choice([1, 2, 3]), pinned=chance.random() < 0.5)
                counted[ino] = counted.get(ino, 0) + 1
            case 1 if node is not None:
                nodes.unlink(node, parent, name)
            case 2 if node is not None and node.parent is not None:
                nodes.move(node, (node.parent, node.name), (parent, name))
            case 3 if counted.get(ino):
                counted[ino] -= 1
                nodes.forget(ino, 1)
        links = [parent for n in range(1000, 1020) if (found := nodes.find(n)) for parent, _ in found.links()]
        for directory in directories:
            expected = links.count(directory) + (3 if directory is nodes.root else 0)
            assert directory.children == expected

    for ino, lookups in counted.items():
        nodes.forget(ino, lookups)
    assert len(nodes) == 1
    assert nodes.root.children == 0


def test_two_hundred_thousand_nodes_cost_less_than_64_mib(nodes: Nodes) -> None:
    share = 10  # of them are made here; tracing is slow
    tracemalloc.start()
    try:
        for directory_number in range(200 // share):
            name = b"directory-%d" % directory_number
            directory = look_up(nodes, nodes.root, name, 10_000 + directory_number, DIRECTORY)
            for number in range(1_000):
                ino = 1_000_000 + directory_number * 1_000 + number
                look_up(nodes, directory, b"a-name-of-usual-length-%d.dat" % number, ino)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(nodes) == 20_021
    assert used * share < 64 * 2**20
