"""A bucket's notification rules: which of them would send the same event twice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*", "s3:ObjectRestore:*")
"""What changes an object, or whether it can be read (FSX-FACTS §11.2)."""
_PLAIN = re.compile(r"[A-Za-z0-9!\-_.*'()/]*")


@dataclass(frozen=True, slots=True)
class Rule:
    """One of a bucket's notifications: ``events`` of keys with that prefix and suffix go to ``target``."""

    id: str
    target: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""


def route_name(association_id: str) -> str:
    """How the queue and the rule of an association are called: nobody else's have that name."""
    return f"fsxsync-{association_id}"


def filter_prefix(prefix: str) -> str:
    """What a rule's filter says for the keys below ``prefix``: its beginning without special characters.

    How those have to be encoded differs between stores, and a wrong filter sends nothing. A wide one sends too much,
    which costs a glance at each message.
    """
    plain = _PLAIN.match(prefix)
    assert plain is not None
    return plain[0]


def overlapping(rule: Rule, others: Iterable[Rule]) -> Rule | None:
    """The first of ``others`` that would tell of the same event of the same key, which S3 does not allow."""
    for other in others:
        if other.id == rule.id:
            continue
        if (
            _nested(rule.prefix, other.prefix)
            and _nested(rule.suffix[::-1], other.suffix[::-1])
            and any(_same(one, another) for one in rule.events for another in other.events)
        ):
            return other
    return None


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _same(one: str, other: str) -> bool:
    """``s3:ObjectCreated:*`` is also ``s3:ObjectCreated:Put``."""
    return one == other or any(
        wide.endswith(":*") and narrow.startswith(wide[:-1]) for wide, narrow in ((one, other), (other, one))
    )
