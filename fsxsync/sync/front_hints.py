"""What the front tells of, and asks about paths: the half of `ports.Hydrator` that loads nothing."""

from __future__ import annotations

from collections.abc import Callable

from fsxsync.model.identity import Kind
from fsxsync.sync.intake import Intake
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.states import VIRTUAL, state_of, virtual_attribute


class FrontHints:
    """Hints go to the intake. Everything runs in the trio thread."""

    def __init__(self, shared: Shared, intake: Intake, served_for: Callable[[bytes], Served | None]) -> None:
        self._shared = shared
        self._intake = intake
        self._served_for = served_for

    async def make_room(self, since: float) -> bool:
        return await self._shared.make_room(since)

    async def slow_down(self) -> None:
        await self._shared.slow_down()

    def least_free(self) -> int:
        return self._shared.least_free()

    def is_tight(self) -> bool:
        return self._shared.is_tight()

    def writer_opened(self, path: bytes, ino: int) -> None:
        self._shared.writers[ino] = self._shared.writers.get(ino, 0) + 1

    def writer_closed(self, path: bytes, ino: int) -> None:
        left = self._shared.writers.get(ino, 0) - 1
        if left > 0:
            self._shared.writers[ino] = left
            return
        self._shared.writers.pop(ino, None)
        self._intake.changed(path)

    def changed(self, path: bytes) -> None:
        self._intake.changed(path)

    def told(self, path: bytes, word: str) -> bytes | None:
        if word not in VIRTUAL or (local := self._shared.tree.identify(path)) is None:
            return None
        state = state_of(self._served_for(path), path, local, None, self._shared.tree.flags())
        return virtual_attribute(state, word)

    def flagged(self, path: bytes) -> None:
        local = self._shared.tree.identify(path)
        if local is not None and local.kind is Kind.DIRECTORY:
            self._intake.appeared(path)
        self._intake.changed(path)

    def renamed(self, old: bytes, new: bytes, *, exchanged: bool) -> None:
        local = self._shared.tree.identify(new)
        is_directory = local is not None and local.kind is Kind.DIRECTORY
        self._intake.renamed(old, new, is_directory)
        if exchanged:
            other = self._shared.tree.identify(old)
            self._intake.renamed(new, old, other is not None and other.kind is Kind.DIRECTORY)

    def may_write(self, path: bytes) -> bool:
        served = self._served_for(path)
        return served is None or not served.association.read_only

    def may_rename(self, old: bytes, new: bytes) -> bool:
        one, other = self._served_for(old), self._served_for(new)
        return (one.id if one else None) == (other.id if other else None)

    def is_association_root(self, path: bytes) -> bool:
        return self._is_root(path)

    _is_root: Callable[[bytes], bool] = staticmethod(lambda _path: False)

    def set_roots(self, is_root: Callable[[bytes], bool]) -> None:
        """How to tell an association's directory or an ancestor of one."""
        self._is_root = is_root
