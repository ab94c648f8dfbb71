"""Values as JSON documents: what `--json` prints, and what our client reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from json.encoder import encode_basestring_ascii
from typing import Any

from fsxsync.model.association import DEFAULT_EXCLUDES, Association, Event
from fsxsync.model.difference import Difference
from fsxsync.model.finding import Finding
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.model.open_conflict import Conflict
from fsxsync.model.task import Failure, Task
from fsxsync.model.why import Evidence, explain, next_step, what_it_is
from fsxsync.ports import AssociationStatus, FileState, PendingItem, Planned, Status

Document = dict[str, Any]
PATHS_SHOWN = 3
"""Of a task in a status: it may have thousands."""


def event_words(events: Iterable[Event]) -> list[str]:
    """A policy in the words of the command line, in their order there."""
    chosen = set(events)
    return [event.value.lower() for event in Event if event in chosen]


def of_association(association: Association) -> Document:
    """What was configured, and its life cycle."""
    access, defaults, limits = association.access, association.defaults, association.limits
    return {
        "id": association.id,
        "path": association.file_system_path,
        "repository": association.uri,
        "bucket": association.bucket,
        "prefix": association.prefix,
        "state": association.lifecycle.value,
        "failure": association.failure,
        "import": event_words(association.policy.imports),
        "export": event_words(association.policy.exports),
        "on_conflict": association.policy.on_conflict.value,
        "events": f"sqs:{association.events}" if association.events else None,
        "events_made": association.events_made,
        "poll_s": association.poll_s,
        "read_only": association.read_only,
        "import_metadata": association.import_metadata,
        "include": list(association.include),
        "exclude": list(association.exclude),
        "default_excludes": list(DEFAULT_EXCLUDES) if association.default_excludes else [],
        "min_size": limits.min_size,
        "max_size": limits.max_size,
        "min_age_s": _seconds(limits.min_age_ns),
        "max_age_s": _seconds(limits.max_age_ns),
        "endpoint_url": access.endpoint_url,
        "region": access.region,
        "profile": access.profile,
        "anonymous": access.anonymous,
        "requester_pays": access.requester_pays,
        "acl": access.acl,
        "sse": access.sse,
        "storage_class": access.storage_class,
        "export_xattrs": association.export_xattrs,
        "restore_archived": association.restore_archived,
        "restore_days": association.restore_days,
        "uid": defaults.uid,
        "gid": defaults.gid,
        "file_mode": f"{defaults.file_mode:04o}",
        "dir_mode": f"{defaults.dir_mode:04o}",
        "squash": None if association.squash is None else "{}:{}".format(*association.squash),
        "created_s": association.created_s,
        "tags": dict(association.tags),
    }


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / 1e9


def of_row(row: AssociationStatus) -> Document:
    """An association with its counters."""
    return of_association(row.association) | {
        "pending": row.pending,
        "pending_imports": row.pending_imports,
        "pending_exports": row.pending_exports,
        "oldest_pending_s": round(row.oldest_pending_s, 3),
        "import_lag_s": round(row.import_lag_s, 3),
        "export_lag_s": round(row.export_lag_s, 3),
        "conflicts": row.conflicts,
        "errors": row.errors,
        "not_exportable": row.not_exportable,
        "held": row.held,
        "restoring": row.restoring,
        "imported": row.imported,
        "exported": row.exported,
        "released": row.counts.released,
        "restored": row.counts.restored,
        "lost": row.lost,
        "failures": sum(row.counts.failures.values()),
        "cache_bytes": row.cache_bytes,
        "bytes_down": row.counts.requests.bytes_down,
        "bytes_up": row.counts.requests.bytes_up,
        "bytes_down_per_s": round(row.down_per_s),
        "bytes_up_per_s": round(row.up_per_s),
        "source": row.source,
        "ignored": list(row.ignored),
        "features": asdict(row.conditions) if row.conditions is not None else None,
        "recent_errors": [of_pending(item) for item in row.recent_errors],
    }


def of_pending(item: PendingItem) -> Document:
    return {
        "path": item.path,
        "association": item.association,
        "age_s": round(item.age_s, 3),
        "attempts": item.attempts,
        "error": item.error,
        "waiting_for": item.waiting_for,
    }


def of_status(status: Status) -> Document:
    rows = status.associations
    return {
        "version": status.version,
        "state_dir": status.state_dir,
        "tree": status.tree,
        "mount": status.mount,
        "data_path": status.data_path,
        "data_path_reason": status.data_path_reason,
        "watch": status.watch,
        "pid": status.pid,
        "started_s": status.started_s,
        "pending": sum(row.pending for row in rows),
        "oldest_pending_s": round(max((row.oldest_pending_s for row in rows), default=0.0), 3),
        "conflicts": sum(row.conflicts for row in rows),
        "errors": sum(row.errors for row in rows),
        "open_for_writing": status.open_for_writing,
        "cache_bytes": status.cache_bytes,
        "cache_free_bytes": status.cache_free_bytes,
        "transfers": dict(status.transfers),
        "associations": [of_row(row) for row in rows],
        "needs_person": list(status.needs_person),
        "tasks": [of_task(task) | {"paths": list(task.order.paths[:PATHS_SHOWN])} for task in status.tasks],
    }


def state_lines(index: int, states: Iterable[FileState]) -> bytes:
    """A line for each: ``{"index": …, "state": …}``. ``state`` is Lustre's bits as a number; ``path`` is below the
    tree's root. Written out here: there may be a million of them, and `json.dumps` takes three times as long."""
    return "".join(
        f'{{"index": {index}, "state": {{"path": {_text(path)}, "state": {bits}, "flags": {_words(flags)}, '
        f'"kind": {_word(kind)}, "resident_bytes": {here}, "size": {size}, "etag": {_text(etag)}, '
        f'"version_id": {_text(version_id)}, "key": {_text(key)}, "association": {_text(association)}, '
        f'"pending": {"true" if pending else "false"}, "error": {_text(error)}}}}}\n'
        for path, bits, flags, kind, here, size, etag, version_id, key, association, pending, error in states
    ).encode("ascii")


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


@cache
def _words(flags: tuple[str, ...]) -> str:
    return json.dumps(flags)


@cache
def _word(kind: Kind) -> str:
    return json.dumps(kind.value)


def of_finding(finding: Finding) -> Document:
    """``path`` is below the tree's root, or absolute."""
    return {
        "path": finding.path,
        "rule": finding.rule.value,
        "message": finding.message,
        "association": finding.association or None,
        "repaired": finding.repaired,
        "repair": finding.repair or None,
    }


def of_evidence(seen: Evidence) -> Document:
    """``path`` is from the file system's root. Each version is null where there is none; times are epoch seconds."""
    waiting = seen.waiting
    return {
        "path": seen.path,
        "association": seen.association or None,
        "directory": seen.directory or None,
        "repository": seen.repository or None,
        "state": what_it_is(seen),
        "key": seen.key or None,
        "base": None if seen.base is None else _of_base(seen.base),
        "local": None if seen.local is None else _of_local(seen.local),
        "remote": None if seen.remote is None else _of_remote(seen.remote),
        "remote_error": seen.remote_error or None,
        "excluded_by": seen.left_out or None,
        "pending": None if waiting is None else asdict(waiting),
        "problems": [{"kind": kind, "message": message} for kind, message in seen.problems],
        "why": [said.text for said in explain(seen)],
        "advice": [said.advice for said in explain(seen) if said.advice],
        "verdict": seen.verdict or None,
        "suppressed": seen.suppressed or None,
        "next": next_step(seen),
    }


def _of_base(base: Base) -> Document:
    return {
        "kind": base.kind.value,
        "size": base.size,
        "mtime_s": base.mtime_ns / 1e9,
        "mode": f"{base.mode:04o}",
        "etag": base.etag,
        "version_id": base.version_id,
        "released": base.released,
    }


def _of_local(local: Local) -> Document:
    return {
        "kind": local.kind.value,
        "size": local.size,
        "mtime_s": local.mtime_ns / 1e9,
        "mode": f"{local.mode:04o}",
        "uid": local.uid,
        "gid": local.gid,
        "released": local.stub is not None,
    }


def _of_remote(remote: Remote) -> Document:
    return {
        "kind": remote.kind.value,
        "size": remote.size,
        "last_modified_s": remote.last_modified_ns / 1e9,
        "etag": remote.etag,
        "version_id": remote.version_id,
        "storage_class": remote.storage_class,
    }


def of_difference(difference: Difference) -> Document:
    """``change`` is the letter of the command line; ``path`` is below the tree's root."""
    return {"change": difference.change.value, "path": difference.path, "association": difference.association}


def of_conflict(conflict: Conflict) -> Document:
    """Paths are below the tree's root. ``local`` and ``remote`` are null where that version is not known, or gone."""
    local, remote = conflict.local, conflict.remote
    return {
        "path": conflict.path.decode("utf-8", "surrogateescape"),
        "association": conflict.association,
        "kind": conflict.kind.value,
        "detected_s": conflict.detected_ns / 1e9,
        "kept_as": conflict.kept_as.decode("utf-8", "surrogateescape") or None,
        "local": None if local is None else {"size": local.size, "mtime_s": local.mtime_ns / 1e9},
        "remote": None
        if remote is None
        else {
            "size": remote.size,
            "etag": remote.etag,
            "last_modified_s": remote.last_modified_ns / 1e9,
            "version_id": remote.version_id,
        },
    }


def of_task(task: Task) -> Document:
    """``total`` is an estimate until the task ends. Times are epoch seconds, null for what has not come yet."""
    order, counts = task.order, task.counts
    return {
        "id": task.id,
        "type": order.type.value,
        "lifecycle": task.lifecycle.value,
        "paths": list(order.paths),
        "total": counts.total,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "bytes": counts.moved,
        "created_s": task.created_ns / 1e9,
        "start_s": _seconds(task.started_ns),
        "end_s": _seconds(task.ended_ns),
        "updated_s": task.updated_ns / 1e9,
        "failure": task.failure,
        "report": order.report,
        "idle_s": order.idle_ns / 1e9,
        "deletes": order.deletes,
        "ended": task.lifecycle.has_ended,
    }


def of_failure(failure: Failure) -> Document:
    """``path`` is below the tree's root."""
    return {
        "path": failure.path.decode("utf-8", "surrogateescape"),
        "status": failure.status,
        "code": failure.code,
        "message": failure.message,
    }


def of_planned(planned: Planned) -> Document:
    """``path`` is below the tree's root; ``code`` and ``why`` are null for what would succeed."""
    return {
        "path": planned.path.decode("utf-8", "surrogateescape"),
        "action": planned.action,
        "size": planned.size,
        "code": planned.code or None,
        "why": planned.why or None,
    }
