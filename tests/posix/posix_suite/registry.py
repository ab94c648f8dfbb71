"""The list of cases, and what POSIX or Linux demands of each.

A case is a function that acts on the working directory, which is empty and belongs to ``me``, and returns what it
observed: errnos, modes, owners, what moved. It must not return what differs from run to run (times, inode numbers).

    @case("EEXIST")
    def mkdir_over_a_file(me: Identity) -> Observed:
        touch("f")
        return outcome(os.mkdir, "f")

What is demanded is checked where the case runs on the bare directory, so that neither a wrong case nor a wrong
harness passes because it is wrong on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posix_suite.identities import Identity

Observed = Any
"""Anything of JSON; tuples become lists."""


class Unsaid:
    """No definite result is demanded: it is the host file system's own, and the mount has to show the same."""


UNSAID = Unsaid()


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    act: Callable[[Identity], Observed]
    demanded: dict[str, Observed | Unsaid]
    """By actor."""

    def demands(self, actor: str) -> Observed | Unsaid:
        demanded = self.demanded[actor]
        return demanded if isinstance(demanded, Unsaid) else as_json(demanded)


CASES: dict[str, Case] = {}


def case(
    demanded: Observed | Unsaid = UNSAID, *, root: Observed = UNSAID, user: Observed = UNSAID
) -> Callable[[Callable[[Identity], Observed]], Callable[[Identity], Observed]]:
    """Add a case; what is demanded of both actors, or of one of them."""

    def add(act: Callable[[Identity], Observed]) -> Callable[[Identity], Observed]:
        name: str = act.__name__
        assert name not in CASES, f"two cases are called {name}"
        by_actor = {"root": root, "user": user}
        CASES[name] = Case(name, act, {who: demanded if what is UNSAID else what for who, what in by_actor.items()})
        return act

    return add


def as_json(observed: Observed) -> Observed:
    return json.loads(json.dumps(observed))
