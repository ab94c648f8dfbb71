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
    is_purge: bool = False
    """One version or a delete marker is gone for good: an undelete, too, is told like this."""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One received message: its hints, or why it could not be read (``poison``). ``receipt`` deletes it."""

    receipt: str
    hints: tuple[ObjectHint, ...] = ()
    poison: str | None = None
    body_excerpt: str = ""
    deliveries: int = 1
    """How often somebody was given it, this time included."""


HELD_S = 30
"""How long a received message is ours, whatever the queue's own setting: two of ours must not work on one."""


class EventRoute(Protocol):
    """The way of one association's events, made by ourselves: a queue, its policy and the bucket's notification.
    Blocking. Raises RepositoryError. Implementation: repository/route.py."""

    def ensure(self) -> str:
        """Make what is not there yet; the queue's URL. Raises EventsOverlap."""

    def is_whole(self) -> bool:
        """The bucket still sends its events there."""

    def remove(self) -> None:
        """Take away what was made, however much of it there is. Nothing of anybody else's is touched."""

    def close(self) -> None: ...


class EventQueue(Protocol):
    """An SQS queue. Blocking. Raises RepositoryError."""

    url: str

    def check(self) -> None:
        """The queue exists and may be read; raises what a person has to mend."""

    def receive(self, wait_s: int) -> list[QueueMessage]:
        """Up to ten; nobody else is given them for `HELD_S` seconds."""

    def hold(self, receipts: Sequence[str], seconds: int) -> None:
        """Keep received messages from others for so long from now on; 0 gives them back at once."""

    def keeps_dead_letters(self) -> bool:
        """What is given out too often goes to a dead-letter queue; False also where asking is not allowed."""

    def left(self) -> int | None:
        """Messages that nobody has deleted yet, also those that somebody holds; None where asking is not allowed."""

    def delete(self, receipts: Sequence[str]) -> None:
        """Only after the hints are in the changelog (DESIGN §7)."""
