"""When files were last used, over restarts: the front knows it of this run, the catalog of all before."""

from __future__ import annotations

import logging

import trio

from fsxsync.errors import CatalogError, NoSpace
from fsxsync.sync.served import Shared

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""So much of it `kill -9` may cost; of a minute, one transaction is written."""
KEPT = 200_000
"""Files whose last use is written down, as many as the front remembers: some 6 MB."""


class LastUses:
    """One per daemon, in the trio thread."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def used_ns(self, ino: int) -> int:
        """When an application last opened or closed the file; 0 if nothing is known of it."""
        return self._shared.front.last_use_ns(ino) or self._shared.catalog.uses.get(ino)

    async def run(self) -> None:
        """Write down what was used, for ever and at the end."""
        try:
            while True:
                await trio.sleep(EVERY_S)
                self.write()
        finally:
            self.write()

    def write(self) -> None:
        """What was used since the last time."""
        uses = self._shared.front.take_uses()
        if not uses:
            return
        try:
            self._shared.catalog.uses.put_many(uses.items(), keep=KEPT)
        except (CatalogError, NoSpace) as error:
            log.warning("when files were last used can't be written down", extra={"reason": str(error)})
