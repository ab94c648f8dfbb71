"""Watermarks as they are written: sizes, percent, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsxsync.config import load
from fsxsync.errors import BadInput
from fsxsync.sync.watermark import bytes_of, low_of

GIB = 1 << 30


@pytest.mark.parametrize(
    ("high", "low", "total", "expected"),
    [
        ("100 GiB", "80 GiB", 200 * GIB, (100 * GIB, 80 * GIB)),
        ("80%", "50%", 100 * GIB, (80 * GIB, 50 * GIB)),
        ("80%", "", 100 * GIB, (80 * GIB, 76 * GIB)),
        ("50%", "90 GiB", 100 * GIB, (50 * GIB, 50 * GIB)),
    ],
)
def test_marks_are_bytes_or_percent(high: str, low: str, total: int, expected: tuple[int, int]) -> None:
    made = load(None, {"FSXSYNC_CACHE_HIGH": high, "FSXSYNC_CACHE_LOW": low}, {"state_dir": Path("/s")})
    assert (bytes_of(made.cache_high, total), low_of(made.cache_high, made.cache_low, total)) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"cache_high": "100%"},
        {"cache_high": "much"},
        {"cache_low": "50%"},
        {"cache_high": "50%", "cache_low": "60%"},
        {"cache_high": "5 GiB", "cache_low": "6 GiB"},
    ],
)
def test_marks_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"(?i)cache"):
        load(None, {f"FSXSYNC_{name.upper()}": value for name, value in wrong.items()}, {"state_dir": Path("/s")})
