"""``/metrics`` for Prometheus: what ``fsxsync status`` says, and what was counted since the start, when somebody asks.

docs/METRICS.md has a line for each name; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fsxsync.model.association import Lifecycle
from fsxsync.model.measures import Histogram
from fsxsync.ports import AssociationStatus, Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Reading = Callable[[AssociationStatus], float]
_COUNTERS: tuple[tuple[str, str, Reading], ...] = (
    ("imported", "Objects that became files or changed them", lambda row: row.imported),
    ("imported_bytes", "Their bytes, whether or not they were loaded", lambda row: row.counts.imported_bytes),
    ("exported", "Files that became objects or changed them", lambda row: row.exported),
    ("exported_bytes", "Bytes of the files that were uploaded", lambda row: row.counts.exported_bytes),
    ("deleted_files", "Files removed because their objects were", lambda row: row.counts.deleted_local),
    ("deleted_objects", "Objects deleted because their files were", lambda row: row.counts.deleted_remote),
    ("released", "Files whose data went, and stays in the repository", lambda row: row.counts.released),
    ("released_bytes", "Their bytes", lambda row: row.counts.released_bytes),
    ("restored", "Released files that were loaded whole", lambda row: row.counts.restored),
    ("restored_bytes", "Their bytes", lambda row: row.counts.restored_bytes),
    ("conflicts_seen", "Times that both sides had changed", lambda row: row.counts.conflicts),
    ("echoes_dropped", "Events of own writes that cost nothing more", lambda row: row.counts.echoes_dropped),
    ("cache_hits", "Reads of released files whose bytes were here", lambda row: row.counts.hits),
    ("cache_hit_bytes", "Bytes that these asked for", lambda row: row.counts.hit_bytes),
    ("cache_misses", "Reads of released files that waited for the repository", lambda row: row.counts.misses),
    ("cache_miss_bytes", "Bytes that these asked for", lambda row: row.counts.miss_bytes),
    ("downloaded_bytes", "Bytes of answers from the repository", lambda row: row.counts.requests.bytes_down),
    ("uploaded_bytes", "Bytes that the repository took", lambda row: row.counts.requests.bytes_up),
)
_GAUGES: tuple[tuple[str, str, Reading], ...] = (
    ("pending", "Paths that wait for a look", lambda row: row.pending),
    ("pending_imports", "Paths that wait for a look at their object", lambda row: row.pending_imports),
    ("pending_exports", "Paths that wait for a look at their file", lambda row: row.pending_exports),
    ("oldest_pending_seconds", "Age of the oldest change that is not through", lambda row: row.oldest_pending_s),
    ("import_lag_seconds", "Age of the oldest change of an object that is not here yet", lambda row: row.import_lag_s),
    ("export_lag_seconds", "Age of the oldest change of a file that is not there yet", lambda row: row.export_lag_s),
    ("conflicts", "Open conflicts", lambda row: row.conflicts),
    ("errors", "Paths with an error", lambda row: row.errors),
    ("lost", "Released files whose objects are gone", lambda row: row.lost),
    ("held", "Paths that wait for something in the repository", lambda row: row.held),
    ("restoring", "Archived objects whose restore was asked for", lambda row: row.restoring),
    ("not_exportable", "Files that no object can hold", lambda row: row.not_exportable),
    ("available", "1 if the association is AVAILABLE", lambda row: row.association.lifecycle is Lifecycle.AVAILABLE),
    ("resident_bytes", "Bytes of its data in the tree", lambda row: row.cache_bytes),
    ("download_bytes_per_second", "Over the last ten seconds", lambda row: row.down_per_s),
    ("upload_bytes_per_second", "Over the last ten seconds", lambda row: row.up_per_s),
)
_LABELS = ("association", "path")
Labels = tuple[str, str]


def render(status: Status) -> bytes:
    """The body of ``/metrics``, of type `CONTENT_TYPE`."""
    # Here, because the import costs 50 ms that nobody without a scraper need pay.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    class Snapshot:
        """A collector, as prometheus-client wants it."""

        def collect(self) -> Iterator[Metric]:
            yield from _of_associations(status)
            yield from _as_fsx_does(status)
            yield from _of_daemon(status)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    return generate_latest(registry)


def _labels(row: AssociationStatus) -> Labels:
    return row.association.id, row.association.file_system_path


def _of_associations(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    for kind, rows in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
        for name, text, value in rows:
            family = kind(f"fsxsync_{name}", text, labels=_LABELS)
            for row in status.associations:
                family.add_metric(_labels(row), value(row))
            yield family
    failures = CounterMetricFamily(
        "fsxsync_failures", "Attempts that failed, by the code of the event log", labels=(*_LABELS, "flow", "code")
    )
    requests = CounterMetricFamily(
        "fsxsync_s3_requests",
        "Requests that the repository got, repeated ones too; status none: nobody answered",
        labels=(*_LABELS, "operation", "status"),
    )
    for row in status.associations:
        for words, count in sorted(row.counts.failures.items()):
            failures.add_metric((*_labels(row), *words), count)
        for words, count in sorted(row.counts.requests.counts().items()):
            requests.add_metric((*_labels(row), *words), count)
    yield failures
    yield requests
    yield _histogram(
        "fsxsync_hydration_seconds",
        "How long opens and reads of released files waited for the repository",
        _LABELS,
        ((_labels(row), row.counts.waits) for row in status.associations),
    )


def _histogram(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

    family = HistogramMetricFamily(name, text, labels=labels)
    for words, histogram in rows:
        buckets = [("+Inf" if upto == float("inf") else repr(upto), float(count)) for upto, count in histogram.upto()]
        family.add_metric(words, buckets, histogram.total_ns / 1e9)
    return family


def _as_fsx_does(status: Status) -> Iterator[Metric]:
    """CloudWatch's names in AWS/FSx (FSX-FACTS §5.2), and the dimension that FSx lacks: the association."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    labels = ("Publisher", *_LABELS)
    age = GaugeMetricFamily(
        "AgeOfOldestQueuedMessage", "Seconds since the oldest change that is not brought over", labels=labels
    )
    renames = CounterMetricFamily(
        "RepositoryRenameOperations", "Objects copied on the server because their files were renamed", labels=labels
    )
    for row in status.associations:
        age.add_metric(("AutoImport", *_labels(row)), row.import_lag_s)
        age.add_metric(("AutoExport", *_labels(row)), row.export_lag_s)
        renames.add_metric(("AutoExport", *_labels(row)), row.counts.renamed)
    yield age
    yield renames


def _of_daemon(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    for direction in ("down", "up"):
        yield CounterMetricFamily(
            f"fsxsync_bytes_{direction}",
            f"Bytes of files that were moved {direction}",
            value=status.transfers.get(f"bytes_{direction}", 0),
        )
    yield GaugeMetricFamily("fsxsync_in_flight", "Transfers under way", value=status.transfers.get("in_flight", 0))
    yield GaugeMetricFamily("fsxsync_open_for_writing", "Files open for writing", value=status.open_for_writing)
    yield GaugeMetricFamily("fsxsync_cache_bytes", "Bytes of data in the tree", value=status.cache_bytes)
    yield GaugeMetricFamily("fsxsync_cache_free_bytes", "Free bytes of its file system", value=status.cache_free_bytes)
    yield GaugeMetricFamily(
        "fsxsync_needs_person", "Things that a person has to see to", value=len(status.needs_person)
    )
    yield GaugeMetricFamily("fsxsync_start_time_seconds", "When the daemon started", value=status.started_s)
    opens = CounterMetricFamily("fsxsync_opens", "Files opened for reading, by where their data was", labels=("data",))
    for word, count in zip(("resident", "released"), status.opens, strict=True):
        opens.add_metric((word,), count)
    yield opens
    yield _histogram(
        "fsxsync_fuse_seconds",
        "Requests of applications, by kind and by who answered; what the kernel does by itself is not among them",
        ("operation", "by"),
        sorted(status.operations.items()),
    )
