"""What `fsxsync diff` says of one path: how tree and repository differ there, judged by what both last agreed on."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Change(enum.Enum):
    """The values are letters of the command line (CLI.md): they stay as they are."""

    ONLY_LOCAL = "A"
    ONLY_REMOTE = "R"
    LOCAL = "L"
    REMOTE = "M"
    BOTH = "C"
    TYPE = "T"


@dataclass(frozen=True, slots=True)
class Difference:
    """``path`` is below the tree's root; bytes that are no UTF-8 are surrogates."""

    change: Change
    path: str
    association: str
