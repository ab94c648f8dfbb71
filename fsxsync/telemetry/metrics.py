"""Counters: plain integers, counted from everywhere, rendered for Prometheus when somebody asks.

The one list of names is `COUNTERS`. Counting costs a dictionary entry; prometheus-client is imported by
`render` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counter:
    """``labels`` are the names of what a count is told apart by."""

    help: str
    labels: tuple[str, ...] = ()


IMPORTED = "fsxsync_imported"
EXPORTED = "fsxsync_exported"
DELETED_LOCAL = "fsxsync_deleted_local"
DELETED_REMOTE = "fsxsync_deleted_remote"
HYDRATED = "fsxsync_hydrated"
BYTES_DOWN = "fsxsync_downloaded_bytes"
BYTES_UP = "fsxsync_uploaded_bytes"
REQUESTS = "fsxsync_requests"
FAILURES = "fsxsync_failures"
HINTS = "fsxsync_hints"
ECHOES_DROPPED = "fsxsync_echoes_dropped"

COUNTERS: Mapping[str, Counter] = {
    IMPORTED: Counter("Objects that became files or stubs, or changed them", ("association",)),
    EXPORTED: Counter("Files that became objects or changed them", ("association",)),
    DELETED_LOCAL: Counter("Files removed because their object was", ("association",)),
    DELETED_REMOTE: Counter("Objects removed because their file was", ("association",)),
    HYDRATED: Counter("Released files whose data was loaded", ("association",)),
    BYTES_DOWN: Counter("Bytes read from repositories", ("association",)),
    BYTES_UP: Counter("Bytes written to repositories", ("association",)),
    REQUESTS: Counter("Requests to repositories and queues", ("operation",)),
    FAILURES: Counter("Looks, transfers and requests that failed", ("association", "code")),
    HINTS: Counter("Hints that reached the changelog", ("association", "origin")),
    ECHOES_DROPPED: Counter("Hints that were only our own actions coming back", ("association",)),
}


class Metrics:
    """All counts of a process. Used from the trio thread; a worker thread reports through its caller."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in COUNTERS}

    def add(self, name: str, *labels: str, amount: int = 1) -> None:
        """Count; ``labels`` are the values for the labels of `COUNTERS`, in that order."""
        counts = self._counts[name]
        if labels not in counts and len(labels) != len(COUNTERS[name].labels):
            raise ValueError(f"{name} has the labels {COUNTERS[name].labels}, not {labels}")
        counts[labels] = counts.get(labels, 0) + amount

    def value(self, name: str, *labels: str) -> int:
        """One count; with fewer labels than there are, the sum over the rest."""
        return sum(count for key, count in self._counts[name].items() if key[: len(labels)] == labels)

    def items(self, name: str) -> Iterator[tuple[tuple[str, ...], int]]:
        """Every combination of label values that was counted."""
        return iter(sorted(self._counts[name].items()))

    def forget(self, association: str) -> None:
        """An association was deleted: its counts go, or a long-lived daemon would tell of them for ever."""
        for name, counter in COUNTERS.items():
            if counter.labels[:1] == ("association",):
                for key in [key for key in self._counts[name] if key[0] == association]:
                    del self._counts[name][key]


METRICS = Metrics()
"""The process's own."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Metrics = METRICS) -> bytes:
    """The body of ``/metrics``, of type `CONTENT_TYPE`."""
    # Here, because the import costs 50 ms that nobody without a scraper need pay.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415
    from prometheus_client.core import CounterMetricFamily, Metric  # noqa: PLC0415

    class Snapshot:
        """A collector, as prometheus-client wants it."""

        def collect(self) -> Iterator[Metric]:
            for name, counter in COUNTERS.items():
                family = CounterMetricFamily(name, counter.help, labels=counter.labels)
                for labels, count in metrics.items(name):
                    family.add_metric(labels, count)
                yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    return generate_latest(registry)
