"""`--events create`: the queue and the bucket's notification that we make ourselves, and take away again.

What is to be made is written down before it is, and forgotten only after it is gone: a crash in between, or a store
that can't be reached, leaves a note, and the next start clears up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import trio

from fsxsync.catalog.documents import decode, encode
from fsxsync.errors import FsxSyncError, RepositoryError
from fsxsync.model.association import Association
from fsxsync.ports import EventRoute
from fsxsync.sync.served import Shared

CHECK_S = 600.0
"""How often it is looked whether the bucket still sends its events: whoever writes a bucket's notifications without
reading them first takes ours away, and nothing else would tell."""
CLEAN_UP_S = 60.0
_FACT = "event routes"

T = TypeVar("T")


class RouteBroken(RepositoryError):
    """The bucket's events do not come any more."""

    code = "EventRouteBroken"
    advice = "it is made again; whoever changes the bucket's notifications has to leave ours in them"


class Routes:
    """One per association that asked for it."""

    def __init__(self, shared: Shared, open_route: Callable[[Association], EventRoute]) -> None:
        self._shared = shared
        self._open_route = open_route

    async def make(self, association: Association) -> Association:
        """Have its events sent; the association with the queue's URL. Idempotent.

        Raises:
            RepositoryError: what a person has to mend. Some of it may be made; `remove` takes it away.
        """
        if not association.events_made:
            return association
        self._note(association)
        return replace(association, events=await self._ask(association, lambda route: route.ensure()))

    async def watch(self, association: Association) -> None:
        """Look now and then whether it is still there.

        Raises:
            RouteBroken
        """
        while association.events_made:
            await trio.sleep(CHECK_S)
            if not await self._ask(association, lambda route: route.is_whole()):
                raise RouteBroken(f"events of {association.uri}", "they are not sent to our queue any more")

    async def remove(self, association: Association) -> None:
        """Take away what was made.

        Raises:
            RepositoryError: some of it may be left; it is tried again at the next start.
        """
        if association.id not in self._noted():
            return
        await self._ask(association, lambda route: route.remove())
        self._forget(association.id)

    async def clean_up(self, association: Association) -> None:
        """The same where nobody can be told otherwise what went wrong, also while the daemon ends."""
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            try:
                await self.remove(association)
            except FsxSyncError as error:
                self._shared.eventlog.emit(
                    level="WARN",
                    code=error.code,
                    flow="association",
                    association=association.id,
                    message=f"queue or notification are left in {association.uri}; the next start tries again: {error}",
                )

    def left_over(self, is_used: Callable[[str], bool]) -> list[Association]:
        """What a daemon before this one made and could not remove."""
        noted = self._noted().items()
        return [decode(Association, document) for association_id, document in noted if not is_used(association_id)]

    async def sweep(self, left: Iterable[Association], is_used: Callable[[str], bool]) -> None:
        """Remove what belongs to no association any more."""
        for association in left:
            if not is_used(association.id):
                await self.clean_up(association)

    async def _ask(self, association: Association, what: Callable[[EventRoute], T]) -> T:
        route = self._open_route(association)
        try:
            return await trio.to_thread.run_sync(what, route)
        finally:
            route.close()

    def _noted(self) -> dict[str, object]:
        found = self._shared.catalog.facts.get(_FACT)
        return dict(found) if isinstance(found, dict) else {}

    def _note(self, association: Association) -> None:
        """As it is reached now: the profile may have changed since."""
        noted, document = self._noted(), encode(association)
        if noted.get(association.id) != document:
            self._shared.catalog.facts.set(_FACT, {**noted, association.id: document})

    def _forget(self, association_id: str) -> None:
        noted = self._noted()
        noted.pop(association_id, None)
        self._shared.catalog.facts.set(_FACT, noted)
