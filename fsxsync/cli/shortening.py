"""Names that fit into so many cells of a terminal: characters may be two cells wide, or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile

BEFORE = 2
"""Characters that are shown before the first one that tells names apart."""


def fit(text: str, width: int) -> str:
    """At most so many cells; the end goes."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415  rich only where a picture is due

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…" if width > 0 else ""


def told_apart(names: Sequence[str], width: int) -> list[str]:
    """Each in at most so many cells: what is too long loses its middle, or its beginning where several would look the
    same."""
    short = [_without_middle(name, width) for name in names]
    alike: dict[str, list[str]] = defaultdict(list)
    for name, shown in zip(names, short, strict=True):
        alike[shown].append(name)
    return [
        shown if len(set(alike[shown])) == 1 else _from(name, _in_common(alike[shown]), width)
        for name, shown in zip(names, short, strict=True)
    ]


def _in_common(names: Sequence[str]) -> int:
    """Characters with which all begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(names), max(names), strict=False)))


def _from(name: str, begin: int, width: int) -> str:
    return fit("…" + name[max(0, begin - BEFORE) :], width)


def _without_middle(text: str, width: int) -> str:
    """The end has more of it: that is where names differ that some program made."""
    from rich.cells import cell_len  # noqa: PLC0415

    if cell_len(text) <= width or width < 4:
        return fit(text, width)
    head = (width - 1) // 3
    return _up_to(text, head) + "…" + _up_to(reversed(text), width - 1 - head)[::-1]


def _up_to(text: Iterable[str], width: int) -> str:
    """Its first characters, as many as so many cells hold."""
    from rich.cells import cell_len  # noqa: PLC0415

    used = 0

    def has_room(character: str) -> bool:
        nonlocal used
        used += cell_len(character)
        return used <= width

    return "".join(takewhile(has_room, text))
