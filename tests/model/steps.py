"""A step of a world is written down when it is taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Scripted(Protocol):
    """What a step wants of its world."""

    script: list[str]
    called: str
    depth: int
    failed: bool

    def described(self) -> str: ...


P = ParamSpec("P")
W = TypeVar("W", bound=Scripted)


def step(method: Callable[Concatenate[W, P], None]) -> Callable[Concatenate[W, P], None]:
    """Write the call down, so that a failure prints a script for `test_regressions.py`."""

    @wraps(method)
    def noted(self: W, *args: P.args, **kwargs: P.kwargs) -> None:
        words = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        if self.depth == 0:  # a step within a step comes by itself
            self.script.append(f"{self.called}.{method.__name__}({', '.join(words)})")
        self.depth += 1
        try:
            method(self, *args, **kwargs)
        except BaseException as error:
            if not self.failed:
                error.add_note(self.described())
            self.failed = True
            raise
        finally:
            self.depth -= 1

    return noted
