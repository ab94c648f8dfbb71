"""``python -m bench NAME [--objects N] [--json FILE]``; ``all`` runs every one."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from bench.harness import CannotRun, Report, machine, printed, row_document, versions, write_json

NAMES = (
    "import",
    "visibility",
    "export",
    "memory",
    "idle",
    "metadata",
    "read",
    "hashing",
    "transfer",
    "mount",
    "floor",
    "tasks",
    "watermark",
)
"""Each is a module ``bench/NAME_.py`` (``import`` is a word of the language) with a function ``run(report)``."""


ROUNDS = 5
"""Of a benchmark that has no ``ROUNDS`` of its own."""


def main(arguments: list[str]) -> int:
    """Run what was asked for, print a table as rows come, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--objects", type=int, default=200_000, help="objects of the bulk benchmarks (200000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long an idle daemon is watched (60)")
    parser.add_argument("--share", type=float, default=1.0, help="of what `transfer` and `mount` move (1.0)")
    parser.add_argument("--rounds", type=int, help="of `transfer`, `hashing` and `floor` (5), and `mount` (3)")
    parser.add_argument(
        "--only", default="", choices=("release", "lists", "diff", "restore"), help="this part of `tasks`"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and rows there")
    given = parser.parse_args(arguments)
    report = Report(
        objects=given.objects,
        seconds=given.seconds,
        share=given.share,
        only=given.only,
        on_row=lambda row: print(printed(row), flush=True),
    )
    failed = False
    for name in NAMES if given.name == "all" else (given.name,):
        print(f"# {name}", flush=True)
        module = importlib.import_module(f"bench.{name}_")
        report.rounds = given.rounds or getattr(module, "ROUNDS", ROUNDS)
        try:
            module.run(report)
        except CannotRun as error:
            print(f"bench {name} can't run here: {error}", file=sys.stderr, flush=True)
            failed = given.name != "all"  # of all, what can be measured is enough
    if given.json is not None:
        write_json(given.json, machine(), versions(), [row_document(row) for row in report.rows])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
