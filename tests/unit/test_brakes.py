"""What is too much to be believed: more than a hundred and more than half, or all of ten."""

from __future__ import annotations

import pytest

from fsxsync.sync.brakes import implausible_listing, implausible_scan


@pytest.mark.parametrize(
    ("known", "gone", "stops"),
    [
        (0, 0, False),
        (9, 9, False),
        (10, 10, True),
        (100, 99, False),
        (102, 100, False),
        (102, 101, True),
        (201, 101, True),
        (202, 101, False),
        (1_000_000, 500_000, False),
        (1_000_000, 500_001, True),
    ],
)
def test_more_than_half_and_more_than_a_hundred_or_all_of_ten(known: int, gone: int, stops: bool) -> None:
    assert bool(implausible_scan(known, gone)) is stops
    assert bool(implausible_listing(known, gone, known - gone)) is stops


def test_a_listing_of_other_keys_is_no_empty_one() -> None:
    assert implausible_listing(20, 20, listed=3) == ""
    assert "empty" in implausible_listing(20, 20, listed=0)
