"""Whose trees are doubted when a daemon starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hydrating import World

from fsxsync.catalog.database import Catalog
from fsxsync.catalog.facts import Facts
from fsxsync.sync import boot as boots
from fsxsync.sync import doubt, looker


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Facts]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog.facts
    catalog.close()


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "boot_id"
    file.write_text("one\n")
    monkeypatch.setattr(boots, "BOOT_ID", file)
    return file


def test_a_machine_that_went_down_is_known_by_its_boot(facts: Facts, boot: Path) -> None:
    assert doubt.begin(facts, ["a"]) == {}  # the first one
    assert doubt.begin(facts, ["a"]) == {}  # after a kill
    boot.write_text("two\n")
    assert doubt.begin(facts, ["a", "b"]) == {"a": False, "b": False}
    doubt.settled(facts, "a")
    assert doubt.begin(facts, ["a", "b"]) == {"b": True}
    doubt.settled(facts, "b")
    doubt.end(facts)
    boot.write_text("three\n")
    assert doubt.begin(facts, ["a", "b"]) == {}


def test_a_second_cut_makes_no_word_of_what_the_first_one_left(facts: Facts, boot: Path) -> None:
    """What the scan after the first one found waits in the changelog."""
    doubt.begin(facts, ["a"])
    for name in ("two", "three"):
        boot.write_text(name)
        found = doubt.begin(facts, ["a"])
    assert found == {"a": True}


def test_an_association_that_is_gone_is_doubted_no_more(facts: Facts, boot: Path) -> None:
    doubt.begin(facts, ["a"])
    boot.write_text("two")
    doubt.begin(facts, ["a"])
    assert doubt.begin(facts, []) == {}
    assert doubt.begin(facts, ["a"]) == {}


def test_where_the_kernel_names_no_boot_each_end_that_is_none_is_doubted(facts: Facts, boot: Path) -> None:
    boot.unlink()
    assert doubt.begin(facts, ["a"]) == {}
    assert doubt.begin(facts, ["a"]) == {"a": False}
    doubt.settled(facts, "a")
    doubt.end(facts)
    assert doubt.begin(facts, ["a"]) == {}


async def test_what_is_refused_is_doubted_no_more(world: World) -> None:
    """A FIFO, say: that is all there is to be said of it, and the doubt comes to its end."""
    os.mkfifo(world.tree.root / "fifo")
    async with world.daemon() as daemon:
        served = daemon.served
        served.shared.doubts[served.id] = doubt.Doubt(0, again=False, noted=set(), scanned=True, paths={b"fifo"})
        served.add_hint(b"fifo", local=True)
        [entry] = world.catalog.changelog.claim(served.shared.now_ns() + 10**12, 1, [served.id])

        await looker._handle(served, entry)

        assert served.doubt is None
