"""A request of the daemon's that stands still until it is let go: something can be done in the middle of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

HELD_S = 1.5
"""At most: what is done meanwhile may need the request itself, as who reads a file needs its data."""
KINDS = ("PUT", "COMPLETE", "COPY", "GET")
MOMENTS = ("begun", "half", "sent", "done")
"""Nothing of its body is read; half of that (of a GET: of the answer's); all, and nothing is carried out; it is carried
out, and no answer has been sent."""


@dataclass
class Gate:
    """For one request, the first that fits."""

    kind: str
    place: str
    """/bucket/key, of a copy also that of its source."""
    moment: str
    _taken: bool = False
    _met: threading.Event = field(default_factory=threading.Event)
    _open: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, kind: str, *places: str) -> bool:
        """The request that asks is the one."""
        with self._lock:
            if self._taken or self._open.is_set() or kind != self.kind or self.place not in places:
                return False
            self._taken = True
            return True

    def pause(self, moment: str) -> None:
        """The request has come to that moment."""
        if moment == self.moment:
            self._met.set()
            self._open.wait(HELD_S)

    def is_met(self, timeout_s: float) -> bool:
        """It stands still now."""
        return self._met.wait(timeout_s)

    def open(self) -> None:
        self._open.set()
