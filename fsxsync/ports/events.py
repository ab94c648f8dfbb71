"""What event queues tell. Implementation: repository/queue.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectHint:
    """Look at ``key`` in ``bucket``; ``etag`` and ``version_id`` where the event told them."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    happened_ns: int | None = None
    is_removal: bool = False
    is_copy: bool = False
    """ObjectCreated:Copy: metadata may have changed under an unchanged etag."""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One received message: its hints, or why it could not be read (``poison``). ``receipt`` deletes it."""

    receipt: str
    hints: tuple[ObjectHint, ...] = ()
    poison: str | None = None
    body_excerpt: str = ""


class EventQueue(Protocol):
    """An SQS queue. Blocking. Raises RepositoryError."""

    url: str

    def check(self) -> None:
        """The queue exists and may be read; raises what a person has to mend."""

    def receive(self, wait_s: int) -> list[QueueMessage]: ...

    def left(self) -> int | None:
        """Messages that nobody has deleted yet, also those that somebody holds; None where asking is not allowed."""

    def delete(self, receipts: Sequence[str]) -> None:
        """Only after the hints are in the changelog (DESIGN §7)."""
