"""docs/SEMANTICS.md: every statement names a test that holds it, and the test is there.

The page is plain Markdown. A *statement* is an item of a list, or a paragraph; a paragraph right before a list or a
table only introduces it. Tables and headings are none. A test is named in backticks: `test_x`, `test_x[parameter]`, or
`tests/unit/test_y.py::test_x` where several files have one of that name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs/SEMANTICS.md"
PROMISES = (
    "No acknowledged byte is lost",
    "Nothing is overwritten unseen",
    "No torn objects",
    "No zeros for data",
    "Convergence",
    "No mass accident",
    "Nothing escapes",
)
"""DESIGN §3, in its order."""

_ITEM = re.compile(r"(?:-|\d+\.) ")
_NAMED = re.compile(r"`(?:(?P<file>tests/[\w/]+\.py)::)?(?P<name>test_\w+)(?:\[[^`]*\])?`")


def blocks(page: str) -> Iterator[str]:
    """Headings, tables, paragraphs, and each item of a list by itself."""
    for chunk in re.split(r"\n\s*\n", page):
        block: list[str] = []
        for line in chunk.splitlines():
            if block and (_ITEM.match(line) or (line.startswith("|") and not block[0].startswith("|"))):
                yield "\n".join(block)
                block = []
            block.append(line)
        if block:
            yield "\n".join(block)


def statements(page: str) -> list[str]:
    """All that a user may rely on."""
    found = [block for block in blocks(page) if block.strip()]
    return [
        block
        for block, after in zip(found, [*found[1:], ""], strict=True)
        if not block.startswith(("#", "|"))
        and (_ITEM.match(block) or not (_ITEM.match(after) or after.startswith("|")))
    ]


def existing() -> dict[str, set[str]]:
    """Every test function, and the files that have one of that name."""
    found: dict[str, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, set()).add(str(file.relative_to(TESTS.parent)))
    return found


def faults(page: str, tests: dict[str, set[str]]) -> list[str]:
    """What is wrong with the page."""
    found = [f"names no test: {statement}" for statement in statements(page) if not _NAMED.search(statement)]
    for named in _NAMED.finditer(page):
        files = tests.get(named["name"], set())
        if not files or (named["file"] and named["file"] not in files):
            found.append(f"there is no {named[0]}")
        elif not named["file"] and len(files) > 1:
            found.append(f"{named[0]} is in {', '.join(sorted(files))}: say which one")
    return found


def test_every_statement_names_a_test_that_exists() -> None:
    page = PAGE.read_text()
    assert len(statements(page)) > 100
    assert faults(page, existing()) == []


def test_the_seven_promises_are_stated() -> None:
    section = PAGE.read_text().partition("## The promises\n")[2].partition("\n## ")[0]
    stated = [item for item in statements(section) if re.match(r"\d+\. ", item)]
    assert [re.findall(r"\d+\. \*\*(.+?)\.?\*\*", item) for item in stated] == [[promise] for promise in PROMISES]


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("A promise.\n", "names no test: A promise."),
        ("An introduction:\n\n- one `test_a`\n- two\n  more\n", "names no test: - two\n  more"),
        ("- one `test_a`\n- two `test_gone`\n", "there is no `test_gone`"),
        ("- one `tests/unit/test_y.py::test_a`\n", "there is no `tests/unit/test_y.py::test_a`"),
        ("1. one `test_twice`\n", "`test_twice` is in tests/x.py, tests/y.py: say which one"),
        ("| a | b |\n|---|---|\n| c | d |\n\nAfter the table.\n", "names no test: After the table."),
    ],
)
def test_what_is_wrong_is_found(page: str, fault: str) -> None:
    tests = {"test_a": {"tests/unit/test_x.py"}, "test_twice": {"tests/y.py", "tests/x.py"}}
    assert faults(page, tests) == [fault]


def test_what_is_right_is_not_complained_of() -> None:
    page = "# Title\n\nIntroduces:\n\n| a |\n|---|\n\n- one `test_a[x y]` `tests/x.py::test_twice`\n\nText. `test_a`\n"
    assert faults(page, {"test_a": {"tests/x.py"}, "test_twice": {"tests/y.py", "tests/x.py"}}) == []
