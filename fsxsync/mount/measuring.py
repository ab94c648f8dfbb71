"""What the requests of applications cost: counted by whoever answers them, read by `fsxsync.telemetry.metrics`.

Reads and writes of files in passthrough never come here: the kernel does them by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from fsxsync.model.measures import Histogram


class Measuring:
    """Of one session. In the trio thread."""

    def __init__(self, channel_counts: Callable[[], Mapping[str, tuple[int, list[int]]]]) -> None:
        """``channel_counts``: what the channel answered by itself, see `_core.Channel.counts`."""
        self._channel_counts = channel_counts
        self._handled: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.resident_opens = 0
        """Files opened for reading whose data was here."""
        self.released_opens = 0

    def handled(self, operation: str, duration_ns: int) -> None:
        self._handled[operation].note(duration_ns)

    def operations(self) -> Mapping[tuple[str, str], Histogram]:
        """See `ports.Front`."""
        told = {(name, "python"): histogram for name, histogram in self._handled.items()}
        for name, (total_ns, buckets) in self._channel_counts().items():
            told[name, "channel"] = Histogram(buckets, total_ns)
        return told
