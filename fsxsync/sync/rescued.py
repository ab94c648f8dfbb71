"""Tell of files that a crash or a power cut had caught between two places: they may be somebody's only copy."""

from __future__ import annotations

import os

from fsxsync.sync.served import Shared
from fsxsync.tree.beneath import shown
from fsxsync.tree.recovery import Rescued


def tell_rescued(shared: Shared) -> None:
    """One event for each. Of what had to stay in the staging directory, every start tells again."""
    for rescued in shared.tree.rescued:
        shared.eventlog.emit(
            code="FileRecovered",
            flow="daemon",
            path="" if rescued.was is None else rescued.was,
            message=_sentence(rescued, os.path.join(os.fsencode(shared.tree.staging_path), rescued.name)),
        )


def _sentence(rescued: Rescued, staged: bytes) -> str:
    if rescued.now is not None:
        return f"the last daemon died while it was taken out of its place; it is {shown(rescued.now)} now"
    lies = staged.decode("utf-8", "backslashreplace")
    if rescued.was is not None:
        return (
            f"the last daemon died while it was taken out of its place, where it can't be put back; it lies at {lies}: "
            "move it to where it belongs, or remove it"
        )
    return (
        "a power cut came while a file was taken out of its place or was about to be put there, and its former path is "
        f"unknown; it lies at {lies}: look what it is, move it to where it belongs, or remove it"
    )
