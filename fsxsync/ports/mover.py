"""Bytes between repository and file. Implementation: transfer/engine.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fsxsync.model.identity import Remote
from fsxsync.model.stub import StubMark
from fsxsync.ports.store import Fetched, ObjectHeaders, ObjectStore, Written
from fsxsync.ports.wire import End, Priority, Sink


@dataclass(frozen=True, slots=True)
class ChunkJob:
    """Move ``length`` bytes of one object version (``size`` bytes in all) to ``fd`` at ``offset``, the same offset on
    both sides."""

    store: ObjectStore
    key: str
    etag: str
    version_id: str | None
    size: int
    fd: int
    offset: int
    length: int


class Mover(Protocol):
    """transfer/: bytes between socket and file. Raises RepositoryError, NoSpace, LocalChanged."""

    async def fetch(self, job: ChunkJob, priority: Priority) -> Fetched: ...

    async def fetch_many(
        self,
        store: ObjectStore,
        wanted: Sequence[StubMark],
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Fetched | None], None],
    ) -> None:
        """See `ObjectStore.fetch_many`."""

    async def upload(
        self,
        store: ObjectStore,
        key: str,
        fd: int,
        size: int,
        headers: ObjectHeaders,
        *,
        replaces: Remote | None,
        still: Callable[[], None],
    ) -> tuple[Written, bytes]:
        """Upload ``size`` bytes of ``fd`` and return (answer, XXH3-128 of what was sent).

        ``still()`` is called in the trio thread right before the object can become visible and raises LocalChanged if
        the file moved on.
        """
