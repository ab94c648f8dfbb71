"""The objects of many rows as they are now: in a listing where they lie close together, else one by one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import trio

from fsxsync.errors import (
    BadCredentials,
    BucketMissing,
    EndpointUnreachable,
    FsxSyncError,
    RepositoryError,
    Throttled,
)
from fsxsync.model.identity import Base, Kind
from fsxsync.model.release import Seen, Unseen
from fsxsync.model.task import report_code
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.served import Served

log = logging.getLogger(__name__)

LISTED_FROM = 16
"""So many files in a row are looked up in a listing, a request for a thousand of them; fewer one by one."""
PAGES_FOR = 200
"""A listing is read on as long as each page still brings that many of a thousand files that are asked for."""


_OF_ALL = (BadCredentials, BucketMissing, EndpointUnreachable, Throttled)
"""What is no trouble of one object: who asks for the next one gets no other answer."""

Looked: TypeAlias = Seen | Unseen | None


async def see_objects(served: Served, rows: Sequence[Base]) -> dict[bytes, Looked]:
    """The objects of rows in catalog order, as they are now; None: it is gone.

    Raises:
        RepositoryError: none can be looked at.
    """
    seen: dict[bytes, Looked] = {}
    left: Sequence[Base] = rows
    if len(rows) >= LISTED_FROM:
        try:
            seen, upto = await trio.to_thread.run_sync(_listed, served, rows)
            left = () if upto is None else [row for row in rows if served.key(row.path, Kind.FILE) > upto]
        except RepositoryError as error:
            if type(error) is not RepositoryError:
                raise
            # It has an order of its own, say; each by itself can still be asked for.
            log.warning("a listing can't be used", extra={"association": served.id, "reason": str(error)})

    async def ask(row: Base) -> None:
        try:
            found = await served.store.head(served.key(row.path, Kind.FILE))
        except _OF_ALL:
            raise
        except RepositoryError as error:
            seen[row.path] = Unseen(report_code(error.code), str(error))
            return
        seen[row.path] = (
            None
            if found is None or found.kind is not Kind.FILE
            else Seen(found.etag, found.size, found.storage_class, found.archived)
        )

    await all_of(partial(ask, row) for row in left)
    return seen


def _listed(served: Served, rows: Sequence[Base]) -> tuple[dict[bytes, Looked], str | None]:
    """What a listing says of them, and up to which key it was read; None: for all of them. Blocking."""
    wanted = {served.key(row.path, Kind.FILE): row.path for row in rows}
    last = served.key(rows[-1].path, Kind.FILE)
    first = served.key(rows[0].path, Kind.FILE)
    seen: dict[bytes, Looked] = {}
    upto = ""
    # The key before the first one is not known; what its beginning stands for comes before it.
    for page in served.store.list_pages(served.association.prefix, start_after=first[:-1]):
        found = 0
        for listed in page:
            if (path := wanted.get(listed.key)) is not None:
                seen[path] = Seen(listed.etag, listed.size, listed.storage_class)
                found += 1
        upto = page[-1].key if page else upto
        if upto >= last:
            break
        if found * 1000 < PAGES_FOR * len(page):
            break  # they lie too far apart
    else:
        upto = last
    upto = min(upto, last)
    for key, path in wanted.items() if len(seen) < len(wanted) else ():
        if key <= upto:
            seen.setdefault(path, None)
    return seen, upto if upto < last else None


async def all_of(acts: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """All at the same time. Raises what the first of them raised."""
    try:
        async with trio.open_nursery() as nursery:
            for act in acts:
                nursery.start_soon(act)
    except* FsxSyncError as failures:
        raise first_leaf(failures) from None
