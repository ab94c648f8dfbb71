"""How answers look: tables, JSON documents, ages and sizes. Names from outside are escaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click

from fsxsync.telemetry.log import escape

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
WIDE = 10_000
"""Columns of a table that no terminal shows: scripts get every cell whole."""


def document(value: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2))


def documents(values: Iterable[object]) -> None:
    """One JSON document, a list, written as its elements come: there may be a million of them."""
    written_documents([json.dumps(value).encode()] for value in values)


def written_documents(batches: Iterable[Sequence[bytes]]) -> None:
    """The same where each element is JSON already."""
    separator = "[\n"
    for batch in batches:
        if batch:
            click.echo(separator + b",\n".join(batch).decode(), nl=False)
            separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rich costs 50 ms to import, so only a table that is due pays it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(escape(cell)) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    with console.capture() as captured:
        console.print(made)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """``name  value`` lines, aligned; a value of several lines goes on below itself."""
    told = list(pairs)
    width = max((len(name) for name, _ in told), default=0)
    for name, value in told:
        for number, line in enumerate(value.split("\n")):
            click.echo(f"{name if number == 0 else '':<{width}}  {escape(line)}".rstrip())


def age(seconds: float) -> str:
    """``0.4s``, ``12s``, ``5m12s``, ``3h20m``, ``2d4h``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, length, lower, below in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // below}{lower}"
    return f"{whole}s"


def size(count: float) -> str:
    """``512 B``, ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def words(values: Iterable[str]) -> str:
    return ",".join(values) or "none"
