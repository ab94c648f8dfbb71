"""A process that dies before the so-many-th of some calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

DIED = 9
"""Its exit code."""


def die_before(step: int, calls: Iterable[tuple[Any, str]]) -> None:
    """Let this process, a child of a test's, die before the ``step``-th of all calls of these functions: (module, its
    name there) of each."""
    left = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(DIED)
            return call(*args, **kwargs)

        return run

    for module, name in calls:
        setattr(module, name, counted(getattr(module, name)))
