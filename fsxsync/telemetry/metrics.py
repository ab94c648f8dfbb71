"""``/metrics`` for Prometheus: what ``fsxsync status`` says, as numbers, when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fsxsync.model.association import Lifecycle
from fsxsync.ports import AssociationStatus, Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PER_ASSOCIATION: tuple[tuple[str, str, Callable[[AssociationStatus], float]], ...] = (
    ("imported", "Objects that became files or changed them since the start", lambda row: row.imported),
    ("exported", "Files that became objects or changed them since the start", lambda row: row.exported),
)
_GAUGES: tuple[tuple[str, str, Callable[[AssociationStatus], float]], ...] = (
    ("pending_imports", "Paths that wait for a look at their object", lambda row: row.pending_imports),
    ("pending_exports", "Paths that wait for a look at their file", lambda row: row.pending_exports),
    ("oldest_pending_seconds", "Age of the oldest change that is not through", lambda row: row.oldest_pending_s),
    ("import_lag_seconds", "Age of the oldest change of an object that is not here yet", lambda row: row.import_lag_s),
    ("conflicts", "Open conflicts", lambda row: row.conflicts),
    ("errors", "Paths with an error", lambda row: row.errors),
    ("held", "Paths that wait for something in the repository", lambda row: row.held),
    ("restoring", "Archived objects whose restore was asked for", lambda row: row.restoring),
    ("not_exportable", "Files that no object can hold", lambda row: row.not_exportable),
    ("available", "1 if the association is AVAILABLE", lambda row: row.association.lifecycle is Lifecycle.AVAILABLE),
)


def render(status: Status) -> bytes:
    """The body of ``/metrics``, of type `CONTENT_TYPE`."""
    # Here, because the import costs 50 ms that nobody without a scraper need pay.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    class Snapshot:
        """A collector, as prometheus-client wants it."""

        def collect(self) -> Iterator[Metric]:
            return _families(status)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    return generate_latest(registry)


def _families(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    labels = ("association", "path")
    for kind, rows in ((CounterMetricFamily, _PER_ASSOCIATION), (GaugeMetricFamily, _GAUGES)):
        for name, text, value in rows:
            family = kind(f"fsxsync_{name}", text, labels=labels)
            for row in status.associations:
                family.add_metric((row.association.id, row.association.file_system_path), value(row))
            yield family
    for direction in ("down", "up"):
        text = f"Bytes moved {direction} since the start"
        yield CounterMetricFamily(
            f"fsxsync_bytes_{direction}", text, value=status.transfers.get(f"bytes_{direction}", 0)
        )
    yield GaugeMetricFamily("fsxsync_in_flight", "Transfers under way", value=status.transfers.get("in_flight", 0))
    yield GaugeMetricFamily("fsxsync_open_for_writing", "Files open for writing", value=status.open_for_writing)
    yield GaugeMetricFamily("fsxsync_cache_bytes", "Bytes of data in the tree", value=status.cache_bytes)
    yield GaugeMetricFamily("fsxsync_cache_free_bytes", "Free bytes of its file system", value=status.cache_free_bytes)
    yield GaugeMetricFamily(
        "fsxsync_needs_person", "Things that a person has to see to", value=len(status.needs_person)
    )
