"""How far the batches of a task are that are being done: what is written down of it comes when they are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from fsxsync.model.task import Counts


class Going(Protocol):
    """Whether to begin with the next path."""

    def __call__(self) -> bool: ...


class Watcher(Protocol):
    """Who wants to know how far it is."""

    def came(self, size: int) -> None:
        """A file of that size is whole."""

    def loading(self, arrived: Callable[[], int]) -> AbstractContextManager[None]:
        """Inside, bytes of one file come; ``arrived`` tells how many of it there are by now."""


class _Nobody:
    """Who does not."""

    def came(self, size: int) -> None:
        return

    def loading(self, arrived: Callable[[], int]) -> AbstractContextManager[None]:
        return nullcontext()


NOBODY = _Nobody()


class UnderWay:
    """How far a batch is that is being done, for whoever asks meanwhile; what it comes to is its `Done`. Asked like a
    function it says whether to begin with the next path (`Going`)."""

    def __init__(self, goes_on: Going) -> None:
        self._goes_on = goes_on
        self._succeeded = 0
        self._moved = 0
        self._loading: set[Callable[[], int]] = set()

    def __call__(self) -> bool:
        return self._goes_on()

    def came(self, size: int) -> None:
        """One path is as it shall be, after that many bytes."""
        self._succeeded += 1
        self._moved += size

    @contextmanager
    def loading(self, arrived: Callable[[], int]) -> Iterator[None]:
        """Inside, bytes of one file come; ``arrived`` tells how many of it there are by now."""
        self._loading.add(arrived)
        try:
            yield
        finally:
            self._loading.discard(arrived)

    def counted(self, counts: Counts) -> Counts:
        """As a task stands with what is under way."""
        partly = sum(max(0, arrived()) for arrived in self._loading)
        return counts.plus(succeeded=self._succeeded, moved=self._moved + partly)
