"""Times that files get while their data is loaded, and when what is known of them says so. In the trio thread."""

from __future__ import annotations

from collections.abc import Mapping

from fsxsync.errors import LocalChanged
from fsxsync.sync.hydration import Hydration
from fsxsync.sync.served import Shared
from fsxsync.tree.beneath import shown


class LoadedMetadata:
    """Of a hydrator's hydrations."""

    def __init__(self, shared: Shared, active: Mapping[int, Hydration]) -> None:
        self._active = active
        shared.give_times = self.give_times
        shared.own_times = lambda ino: self.retimed(ino, atime_ns=None, mtime_ns=None)

    async def until_settled(self, ino: int) -> None:
        while (hydration := self._active.get(ino)) is not None and hydration.settling is not None:
            await hydration.settling.wait()

    async def until_all_settled(self) -> None:
        """Return when all that are being settled now are settled, well or not."""
        for over in [one.settling for one in self._active.values() if one.settling is not None]:
            await over.wait()

    def retimed(self, ino: int, *, atime_ns: int | None, mtime_ns: int | None) -> tuple[int, int] | None:
        """See `ports.Hydrator.retimed`."""
        if (hydration := self._active.get(ino)) is None:
            return None
        if atime_ns is not None:
            hydration.atime_ns = atime_ns
        if mtime_ns is not None:
            hydration.mtime_ns = mtime_ns
        return hydration.atime_ns, hydration.mtime_ns

    def give_times(self, ino: int, atime_ns: int | None, mtime_ns: int | None) -> None:
        """See `Shared.give_times`."""
        hydration = self._active.get(ino)
        if hydration is not None and (hydration.settling is not None or hydration.sent_times is not None):
            raise LocalChanged(f"new times of {shown(hydration.path)}", "its data is just coming")
        self.retimed(ino, atime_ns=atime_ns, mtime_ns=mtime_ns)
