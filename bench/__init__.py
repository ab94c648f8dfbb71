"""Benchmarks: ``python -m bench NAME [--json FILE]``. Not part of the tests; ratios are taken side by side."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The instance and moto's server are the tests' own, so that a benchmark measures what the tests prove.
sys.path.insert(0, str(ROOT / "tests"))
