"""The table of deviations and docs/SEMANTICS.md say the same, and both are about cases that there are."""

from __future__ import annotations

import re
from pathlib import Path

from posix_suite.deviations import DEVIATIONS, lines
from posix_suite.registry import CASES
from posix_suite.stage import load_cases

DOCUMENT = Path(__file__).parents[2] / "docs" / "SEMANTICS.md"
HEADING = "## Where the mount differs from a bare file system"


def _documented() -> list[str]:
    """The items of the section's list, each on one line."""
    _, found, rest = DOCUMENT.read_text().partition(f"{HEADING}\n")
    assert found, f"docs/SEMANTICS.md has no section {HEADING!r}"
    section = rest.partition("\n## ")[0]
    return [" ".join(item.split()) for item in re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)]


def test_the_document_lists_every_deviation_and_no_other() -> None:
    assert _documented() == lines()


def test_every_deviation_is_of_a_case() -> None:
    load_cases()
    names = [name for each in DEVIATIONS for name in each.observed]

    assert {name for name in names if not name.startswith("ro_")} <= CASES.keys()
    assert len(names) == len(set(names))
