"""Above ``cache_high`` whoever writes through the mount is slowed down to the speed of exports: what the repository
does not have yet can't be released, and who writes faster than it is exported fills any disk.

He waits as long as that helps. Where nothing moves (the repository is down, one file is larger than the cache) he goes
on at once and for a while, and the disk fills up as it would without a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from fsxsync.sync.served import Served

LOOK_S = 0.05
STALLED_S = 2.0
"""Nothing was exported or released for so long: it does not help to wait."""
FREE_S = 30.0
"""So long nobody is held up then."""


class Slowing:
    """One per daemon, in the trio thread."""

    def __init__(
        self, served: Mapping[str, Served], is_high: Callable[[], bool], is_in_motion: Callable[[], bool]
    ) -> None:
        """``is_high``: about as much is used as the mark allows. ``is_in_motion``: there are changes to be exported."""
        self._served = served
        self._is_high = is_high
        self._is_in_motion = is_in_motion
        self._free_until = 0.0
        self.held = 0
        """Writes that wait."""

    async def wait(self) -> None:
        """Called before a write. Returns when there is room below the mark, or waiting does not help."""
        if not self._is_high() or trio.current_time() < self._free_until:
            return
        self.held += 1
        try:
            await self._wait()
        finally:
            self.held -= 1

    async def _wait(self) -> None:
        before, since = self._moved(), trio.current_time()
        while self._is_high() and trio.current_time() >= self._free_until:
            await trio.sleep(LOOK_S)
            now = self._moved()
            if now != before:
                before, since = now, trio.current_time()
            elif not self._is_in_motion() or trio.current_time() - since > STALLED_S:
                self._free_until = trio.current_time() + FREE_S

    def _moved(self) -> int:
        """Changes whenever something is sent to a repository or released."""
        counts = [served.counts for served in self._served.values()]
        return sum(one.requests.bytes_up + one.exported + one.released for one in counts)
