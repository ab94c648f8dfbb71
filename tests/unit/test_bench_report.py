"""What a benchmark writes: machine, versions and rows of one shape. Nothing is measured here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.harness")


def test_the_document_holds_machine_versions_and_rows(harness: Any, tmp_path: Path) -> None:
    report = harness.Report(objects=1, seconds=1)
    report.add("case", "metric", "unit", 3.0, boto3=1.5, goal=2.0)
    report.add("alone", "metric", "unit", 4.0)

    rows = [harness.row_document(row) for row in report.rows]
    harness.write_json(tmp_path / "out.json", harness.machine(), harness.versions(), rows)

    document = json.loads((tmp_path / "out.json").read_text())
    assert document["rows"] == [
        {
            "case": "case",
            "metric": "metric",
            "unit": "unit",
            "ours": 3.0,
            "others": {"boto3": 1.5, "goal": 2.0},
            "ratio": 2.0,
        },
        {"case": "alone", "metric": "metric", "unit": "unit", "ours": 4.0, "others": {}, "ratio": None},
    ]
    assert {"cpu", "cores", "memory_mib", "kernel", "file_system"} <= document["machine"].keys()
    assert {"python", "boto3", "pyfuse3", "trio", "commit"} <= document["versions"].keys()


def test_every_name_is_a_module_with_a_run(harness: Any) -> None:
    names = importlib.import_module("bench.__main__").NAMES

    for name in names:
        assert callable(importlib.import_module(f"bench.{name}_").run)


def test_what_a_benchmark_lacks_is_said_and_not_a_traceback(
    harness: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")

    code = importlib.import_module("bench.__main__").main(["mount"])

    assert code == 1
    assert "there is no fio: apt-get install fio" in capsys.readouterr().err
