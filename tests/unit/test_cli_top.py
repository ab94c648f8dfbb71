"""The picture of `fsxsync top` fits every terminal and says what matters; names can't steer the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.administration import FakeAdministration
from rich.cells import cell_len

from fsxsync.cli.frame import Line, frame
from fsxsync.cli.shortening import told_apart
from fsxsync.control.documents import of_status
from fsxsync.model.association import Association, Lifecycle
from fsxsync.model.task import Counts, Order, Task, TaskLifecycle, TaskType
from fsxsync.ports import PendingItem

NOW_S = 1_700_007_384.0


async def status(*directories: bytes, **more: Any) -> dict[str, Any]:
    """A daemon's status with an association for each directory, each with ``more``."""
    administration = FakeAdministration()
    for directory in directories:
        await administration.create(Association("", directory, "bucket", f"{len(administration.rows)}/"), wait=True)
    told = administration.status()
    rows = tuple(replace(row, **{"conflicts": 0, "errors": 0, **more}) for row in told.associations)
    document = of_status(replace(told, associations=rows))
    return document | {"transfers": {"bytes_down_per_s": 2048.0, "bytes_up_per_s": 0.0, "in_flight": 3.0}}


def picture(told: dict[str, Any], width: int = 80, height: int | None = 24, note: str = "") -> list[Line]:
    return frame(told, width=width, height=height, now_s=NOW_S, note=note)


async def test_an_association_is_a_line_with_its_numbers() -> None:
    failing = PendingItem("/d/file", "dra-1", 5, 2, "403: grant it")
    told = await status(
        b"d", pending=12, oldest_pending_s=5.0, errors=3, conflicts=2, up_per_s=1536.0, recent_errors=(failing,)
    )

    lines = picture(told)

    (row,) = [line for line in lines if line.text.startswith("/d ")]
    assert row.text.split() == ["/d", "AVAILABLE", "12", "5.0s", "0", "B", "1.5", "KiB", "3", "2"]
    assert row.style == "yellow"
    assert any(line.text == "/d/file: 403: grant it" for line in lines)
    assert "2h3m" in lines[0].text
    assert "down 2.0 KiB/s" in lines[1].text
    assert lines[-1].text == "q quits"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (9, 3), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 40])
async def test_it_fits_every_terminal(width: int, height: int, count: int) -> None:
    failing = tuple(PendingItem(f"/d/{number}", "dra-1", 5, 2, "no " * 90) for number in range(10))
    told = await status(
        *(f"{number:03}".encode() + "数据集".encode() * 20 for number in range(count)), recent_errors=failing
    )

    lines = picture(told, width, height, note="no daemon answers since 5s")

    assert len(lines) <= height
    assert all(cell_len(line.text) <= width for line in lines)
    if height > 20:
        assert len(lines) == height
        assert any(line.text.startswith("… and ") for line in lines) or count < 40 or height > 50


async def test_names_can_not_steer_the_terminal() -> None:
    failing = PendingItem("/d/\x1b[2J\nname", "dra-1", 5, 2, "\x9b31m")
    told = await status(b"evil\x1b]0;title\x07\n", recent_errors=(failing,))

    text = "".join(line.text for line in picture(told, width=120))
    assert text.isprintable()
    assert "evil\\x1b" in text


async def test_what_is_bad_is_seen() -> None:
    told = await status(b"d", lost=4)
    told["needs_person"] = ["/d: 4 lost files"]
    assert any("4 lost files" in line.text and line.style == "bold red" for line in picture(told))
    told["associations"][0] |= {"lost": 0, "state": Lifecycle.MISCONFIGURED.value}
    assert any("MISCONFIGURED" in line.text and line.style == "bold red" for line in picture(told))
    assert any(line.text == "no answer" for line in picture(told, note="no answer"))


@pytest.mark.parametrize(
    "trouble",
    [{"state": "MISCONFIGURED"}, {"state": "CREATING"}, {"lost": 1}, {"errors": 1}, {"conflicts": 1}, {"pending": 1}],
    ids=str,
)
async def test_what_is_in_trouble_is_among_what_is_shown(trouble: dict[str, Any]) -> None:
    told = await status(*(b"many/a-rather-long-name-%02d" % number for number in range(26)))
    told["associations"][25] |= trouble

    rows = [line.text for line in picture(told) if line.text.startswith("/many")]

    assert 10 < len(rows) < 26
    assert rows[0].split()[0].endswith("-25")
    assert rows[1].split()[0].endswith("-00")


async def test_lines_do_not_jump_where_there_is_room_for_all() -> None:
    told = await status(b"a", b"b")
    told["associations"][1]["pending"] = 1
    assert [line.text[:2] for line in picture(told) if line.text.startswith("/")] == ["/a", "/b"]


@pytest.mark.parametrize(
    "names",
    [
        [f"/many/a-rather-long-name-{number:02}" for number in range(13)],
        [f"/many/a-rather-long-name-{number:02}-and-much-more-behind-it" for number in range(13)],
        [f"/数据集数据集数据集数据集/{number}" for number in range(13)],
    ],
)
def test_shortened_names_can_be_told_apart(names: list[str]) -> None:
    short = told_apart(names, 19)
    assert len(set(short)) == len(names)
    assert all(cell_len(name) <= 19 for name in short)
    assert told_apart(["/one", "/two"], 19) == ["/one", "/two"]


def running(kind: TaskType, *paths: str) -> Task:
    began_ns = int((NOW_S - 100) * 1e9)
    order = Order(kind, paths)
    return Task("task-1", order, began_ns, TaskLifecycle.EXECUTING, began_ns, counts=Counts(1000, 250, 0, 1 << 30))


async def test_running_tasks_are_shown_where_lines_are_left() -> None:
    told = await status(b"d")
    tasks = (running(TaskType.RELEASE, "d/" + "x" * 90), Task("task-2", Order(TaskType.IMPORT, ("",)), 1))
    told["tasks"] = of_status(replace(FakeAdministration().status(), tasks=tasks))["tasks"]

    texts = [line.text for line in picture(told, width=120)]

    place = texts.index("TASKS")
    assert texts[place + 1].startswith("release /d/xxx")
    assert texts[place + 1].endswith("250/1000 files  1.0 GiB  2 files/s  10.2 MiB/s  5m0s left")
    assert texts[place + 2] == "import /  pending"
    assert not any(line.text == "TASKS" for line in picture(told, height=8))
    assert all(cell_len(line.text) <= 30 for line in picture(told, width=30))
