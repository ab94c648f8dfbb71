"""Where the mount differs from the bare directory, and why. docs/SEMANTICS.md has a line for each of these.

A deviation that does not occur any more fails its test: then it leaves both lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from posix_suite.registry import Observed, as_json

BOTH = ("auto", "off")
ACTORS = ("root", "user")


@dataclass(frozen=True, slots=True)
class Deviation:
    reason: str
    """One sentence or two; the document has them word for word."""
    observed: dict[str, Observed]
    """By case: what the mount shows instead."""
    data_paths: tuple[str, ...] = BOTH
    actors: tuple[str, ...] = ACTORS


DEVIATIONS: tuple[Deviation, ...] = ()


def expected_instead(name: str, actor: str, data_path: str) -> tuple[Observed] | None:
    """What the mount is known to show instead, in a tuple; None: what the bare directory shows."""
    for deviation in DEVIATIONS:
        if name in deviation.observed and actor in deviation.actors and data_path in deviation.data_paths:
            return (as_json(deviation.observed[name]),)
    return None
