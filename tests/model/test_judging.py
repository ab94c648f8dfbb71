"""What the model says against a version of another user's that the daemon replaced."""

from __future__ import annotations

from typing import Any

import pytest
from model.history import Made, Replaced, Row
from model.judging import Circumstances, reason_for

THEIRS = Made("theirs", by_ours=False, version_id="1", at_s=1000.0)
OURS = Made("ours", by_ours=True, version_id="2", at_s=1010.0)
DELETE = Made("", by_ours=True, version_id="2", at_s=1010.0)
OLDER = Row("older")
NOTHING: dict[str, Any] = {
    "policy": "keep-both",
    "edited_s": None,
    "is_decided": False,
    "has_its_bytes": False,
    "was_copied": False,
}


def _replaced(place: str = "/b/k", ours: Made = OURS, row: Row = OLDER, *, was_told: bool = True) -> Replaced:
    return Replaced(place, THEIRS, ours, row, was_told)


@pytest.mark.parametrize(
    ("one", "there"),
    [
        (_replaced(), {}),
        (_replaced(row=Row(None)), {}),
        (_replaced(row=Row(None, is_known=False), was_told=False), {}),
        (_replaced(), {"edited_s": 1005.0}),
        (_replaced(), {"edited_s": 1005.0, "policy": "remote"}),
        (_replaced(), {"policy": "local"}),
        (_replaced(), {"edited_s": 998.0, "policy": "newest"}),
        (_replaced(), {"was_copied": True}),
        (_replaced("/b/k/", row=Row(None)), {}),
        (_replaced("/b/k", row=Row("")), {}),
    ],
)
def test_what_was_overwritten_unseen(one: Replaced, there: dict[str, Any]) -> None:
    assert reason_for(one, Circumstances(**{**NOTHING, **there})) == ""


@pytest.mark.parametrize(
    ("one", "there"),
    [
        (_replaced(row=Row("theirs")), {}),
        (_replaced(row=Row(None, is_known=False)), {}),
        (_replaced(), {"edited_s": 1005.0, "policy": "local"}),
        (_replaced(), {"edited_s": 1005.0, "policy": "newest"}),
        (_replaced(), {"is_decided": True}),
        (_replaced(), {"has_its_bytes": True}),
        (_replaced(ours=DELETE), {"was_copied": True}),
        (_replaced("/b/k/", row=Row("")), {}),
    ],
)
def test_what_was_not(one: Replaced, there: dict[str, Any]) -> None:
    assert reason_for(one, Circumstances(**{**NOTHING, **there}))
