"""The picture that `fsxsync top` draws, line by line. Pure: a test can look at every line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fsxsync.cli import output
from fsxsync.cli.progress import progress
from fsxsync.cli.shortening import fit, told_apart
from fsxsync.control.client import Document
from fsxsync.telemetry.log import escape

_NUMBERS = (("PENDING", 8), ("OLDEST", 7), ("DOWN/s", 10), ("UP/s", 10), ("ERR", 5), ("CONFL", 6))
_STATE = 14
"""Columns of the longest life cycle, and one between."""
_PATH_MIN = 12
_ERRORS_MIN = 4
"""Lines that the errors get even where associations would fill the screen."""
_TASKS_MIN = 3
"""Lines of a list of tasks that says anything."""
_BAD, _WARN, _HEAD, _DIM = "bold red", "yellow", "bold", "dim"


@dataclass(frozen=True, slots=True)
class Line:
    """``text`` has at most the width that was asked for; ``style`` is rich's."""

    text: str
    style: str = ""


def frame(told: Document, *, width: int, height: int | None, now_s: float, note: str) -> list[Line]:
    """``told`` as `documents.of_status` makes it; ``height`` None: as many lines as it takes. ``note``: what has to be
    said of the picture itself."""
    head = _head(told, now_s)
    rows, tasks, errors = told["associations"], _tasks(told, width, now_s), _errors(told)
    foot = [Line(note, _BAD)] if note else []
    if height is not None:
        foot.append(Line("q quits", _DIM))
        room = max(0, height - len(head) - 1 - len(foot))
        kept = min(len(errors), max(min(_ERRORS_MIN, room // 2), room - len(rows)))
        shown = _cut(_table(_troubled_first(rows, is_cut=len(rows) > room - kept), width), room - kept)
        errors = _cut(errors, kept)
        left = room - len(shown) - len(errors)
        tasks = _cut(tasks, left) if left >= _TASKS_MIN else []
        body = [*head, _columns(width), *shown, *tasks, *errors]
        lines = [*body, *[Line("")] * (height - len(body) - len(foot)), *foot][:height]
    else:
        lines = [*head, _columns(width), *_table(_troubled_first(rows), width), *tasks, *errors, *foot]
    return [Line(fit(line.text, width), line.style) for line in lines]


def _head(told: Document, now_s: float) -> list[Line]:
    transfers = told["transfers"]
    where = told["mount"] or told["tree"]
    up_s = max(0.0, now_s - told["started_s"])
    busy = (
        f"pending {told['pending']}, oldest {output.age(told['oldest_pending_s'])}"
        f"   open for writing {told['open_for_writing']}   in flight {transfers.get('in_flight', 0):.0f}"
    )
    cache = f"cache {output.size(told['cache_bytes'])} used, {output.size(told['cache_free_bytes'])} free"
    rates = (
        f"down {output.size(transfers.get('bytes_down_per_s', 0))}/s"
        f"   up {output.size(transfers.get('bytes_up_per_s', 0))}/s"
    )
    clock = time.strftime("%H:%M:%S", time.localtime(now_s))
    return [
        Line(f"{clock}  fsxsync {told['version']}, up {output.age(up_s)}, {told['data_path']}  {escape(where)}", _HEAD),
        Line(f"{cache}   {rates}"),
        Line(f"{busy}   conflicts {told['conflicts']}", _WARN if told["conflicts"] else ""),
        Line(""),
    ]


def _columns(width: int) -> Line:
    return Line(_row("ASSOCIATION", "STATE", [name for name, _ in _NUMBERS], width), _HEAD)


def _troubled_first(rows: Sequence[Document], *, is_cut: bool = False) -> list[Document]:
    """What somebody should see is not among those that find no room. What is pending comes and goes, and lines that
    jump can't be read: it counts only where there is no room for all."""

    def key(row: Document) -> tuple[bool, bool, bool, bool, bool, str]:
        is_available, is_idle = row["state"] == "AVAILABLE", not (is_cut and row["pending"])
        return (is_available, not row["lost"], not row["errors"], not row["conflicts"], is_idle, str(row["path"]))

    return sorted(rows, key=key)


def _table(rows: Sequence[Document], width: int) -> list[Line]:
    if not rows:
        return [Line("no associations: 'fsxsync associate S3URI PATH' makes one", _DIM)]
    names = told_apart([escape(row["path"]) for row in rows], _path_width(width)[0] - 1)
    return [_association(row, name, width) for row, name in zip(rows, names, strict=True)]


def _association(row: Document, name: str, width: int) -> Line:
    numbers = [
        str(row["pending"]),
        output.age(row["oldest_pending_s"]) if row["pending"] else "-",
        output.size(row["bytes_down_per_s"]),
        output.size(row["bytes_up_per_s"]),
        str(row["errors"]),
        str(row["conflicts"]),
    ]
    style = ""
    if row["state"] in {"MISCONFIGURED", "FAILED"} or row["lost"]:
        style = _BAD
    elif row["errors"] or row["conflicts"]:
        style = _WARN
    return Line(_row(name, row["state"], numbers, width), style)


def _row(path: str, state: str, numbers: Sequence[str], width: int) -> str:
    path_width, shown = _path_width(width)
    columns = [f"{number:>{size}}" for number, (_, size) in zip(numbers[:shown], _NUMBERS, strict=False)]
    return f"{_padded(path, path_width)}{state:<{_STATE}}{''.join(columns)}"


def _path_width(width: int) -> tuple[int, int]:
    """Of the path, and how many numbers are shown: on a narrow terminal the last columns go, and the path stays."""
    room, shown = width - _PATH_MIN - _STATE, 0
    for _, size in _NUMBERS:
        if size > room:
            break
        room -= size
        shown += 1
    return max(1, min(_PATH_MIN, width) + max(0, room)), shown


def _padded(text: str, width: int) -> str:
    """With a blank after it at least."""
    from rich.cells import set_cell_size  # noqa: PLC0415

    return set_cell_size(fit(text, width - 1), width)


def _errors(told: Document) -> list[Line]:
    found = [Line(f"needs you: {escape(one)}", _BAD) for one in told["needs_person"]]
    for row in told["associations"]:
        for item in row["recent_errors"]:
            line = f"{item['path']}: {item['error']}"
            if line not in told["needs_person"]:
                found.append(Line(escape(line), _WARN))
    return [Line(""), Line("ERRORS", _HEAD), *found] if found else []


def _tasks(told: Document, width: int, now_s: float) -> list[Line]:
    """Those that run or are to be run."""
    tasks = told.get("tasks") or ()  # a daemon that was started before they were told
    if not tasks:
        return []
    return [Line(""), Line("TASKS", _HEAD), *(Line(_task(task, width, now_s)) for task in tasks)]


def _task(task: Document, width: int, now_s: float) -> str:
    word = task["type"].partition("_")[0].lower()
    where = escape(", ".join(path if "://" in path else f"/{path}" for path in task["paths"]) or "/")
    elapsed_s = max(0.0, now_s - (task["start_s"] or now_s))
    how = progress(task, elapsed_s, bar=False) if task["start_s"] else "pending"
    room = max(_PATH_MIN, width - len(word) - len(how) - 4)
    return f"{word} {told_apart([where], room)[0]}  {how}"


def _cut(lines: list[Line], room: int) -> list[Line]:
    """The last line tells how many more there are."""
    if len(lines) <= room:
        return lines
    if room <= 0:
        return []
    return [*lines[: room - 1], Line(f"… and {len(lines) - room + 1} more", _DIM)]
