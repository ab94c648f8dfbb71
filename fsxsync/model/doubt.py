"""How far the tree is believed where it is not what the catalog knows."""

from __future__ import annotations

import enum


class Trust(enum.Enum):
    """What a look may take for somebody's word."""

    FULL = "whatever is found was done by somebody"
    EDITS = "changed content was written by somebody; what is missing may have got lost"
    NONE = "what is missing or changed may be what a power cut left"
