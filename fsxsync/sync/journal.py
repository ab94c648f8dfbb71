"""What a look did or could not do, for people: event log entries and open problems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsxsync.catalog.problems import Problem
from fsxsync.errors import FsxSyncError
from fsxsync.model.identity import Base, Local
from fsxsync.model.open_conflict import ConflictKind
from fsxsync.sync.reconcile import Action, Verdict
from fsxsync.sync.served import Served
from fsxsync.telemetry.codes import Flow, Level, as_event

_DONE: dict[Verdict, tuple[str, str]] = {
    Verdict.EXPORT: ("export", "exported"),
    Verdict.MERGE_EXPORT: ("export", "exported with merged metadata"),
    Verdict.EXPORT_META: ("export", "metadata exported"),
    Verdict.EXPORT_DELETE: ("export", "object deleted"),
    Verdict.IMPORT: ("import", "imported"),
    Verdict.MERGE_IMPORT: ("import", "imported with merged metadata"),
    Verdict.IMPORT_META: ("import", "metadata imported"),
    Verdict.IMPORT_DELETE: ("import", "removed, as its object was"),
    Verdict.KEEP_BOTH: ("import", "conflict: the object took the path, the file was kept beside it"),
}

_METADATA = frozenset({Verdict.EXPORT_META, Verdict.IMPORT_META})

HELD, RESTORING = "held", "restoring"
"""Kinds of problems that go by themselves once something happens in the repository (holding.py, archives.py)."""
DAMAGED_OBJECT = "damaged-object"
"""Kind of the problem of a path whose object's bytes don't fit its own checksum."""
_OF_REPOSITORY = frozenset({"lost", "refused", "conflict"})
"""Kinds that say something of the object, too: only who sees it knows whether they still hold."""
_OF_STUB = ("lost", DAMAGED_OBJECT)
"""Kinds that say that a stub's data can't be had."""
_LEVELS: dict[str, Level] = {"conflict": "ERROR"}
"""Kinds that are worse than their codes: nothing is synced at the path until a person decides. All others have the
level of their code, as FSx gives it (FSX-FACTS §5.3)."""
_FLOWS: dict[str, Flow] = {
    "not-exportable": "export",
    "damaged": "export",
    DAMAGED_OBJECT: "restore",
    RESTORING: "restore",
}
"""Where a problem of that kind comes from; all others from imports."""


def shown(served: Served, path: bytes) -> str:
    """The path from the file system's root, for people."""
    return "/" + served.tree_path(path).decode("utf-8", "backslashreplace")


def record_action(served: Served, path: bytes, action: Action, kept: bytes | None, *, again: bool) -> None:
    """One line in the event log for a conflict; routine work is counted, not written down. ``again``: the path is to be
    looked at once more, and that look asks whether what clashed with it still does."""
    same_bytes = action.verdict in _METADATA
    if again and is_clash(served, path):
        _forget_all_but_clash(served, path, same_bytes=same_bytes)
    else:
        forget_problems(served, path, same_bytes=same_bytes)
    if not action.conflict:
        return
    flow, what = _DONE[action.verdict]
    served.counts.conflicts += 1
    name = kept.rpartition(b"/")[2].decode("utf-8", "backslashreplace") if kept else ""
    message = f"both sides changed: {what}" + (f" as {name}" if name else "")
    served.shared.eventlog.emit(
        level="WARN",
        code="Conflict",
        flow=flow,
        association=served.id,
        path=served.tree_path(path),
        message=message,
    )


def forget_problems(served: Served, path: bytes, *, same_bytes: bool = False) -> None:
    """A path is in order again. Its object may be under restore all the same; a HEAD that shows it readable ends that
    (`archives.see`). A conflict copy stays in conflict as long as it lies there: a person decides on it.

    ``same_bytes``: the object's data is what it was, so that what is wrong with that still is.
    """
    but = (RESTORING, DAMAGED_OBJECT) if same_bytes else (RESTORING,)
    served.shared.catalog.problems.clear(served.id, path, but=but)
    served.shared.catalog.conflicts.delete(served.id, path)


def forget_refuted(served: Served, path: bytes, base: Base | None, local: Local | None) -> None:
    """Forget what the tree alone shows to be true no longer: it was said of a file that stands there no more."""
    is_stub = local is not None and local.stub is not None
    kinds = [] if is_stub else [*_OF_STUB]
    is_sound = local is not None and is_stub and not local.written_in_part
    if is_sound or local is None or base is None or not base.released:
        kinds.append("damaged")
    served.shared.catalog.problems.clear(served.id, path, kinds)


def was_damaged(served: Served, path: bytes) -> bool:
    """It is reported that a released file lost its mark, or was written to in part."""
    return any(problem.kind == "damaged" for problem in served.shared.catalog.problems.get(served.id, path))


def asks_repository(served: Served, path: bytes) -> bool:
    """Something is reported of the path that a look can neither repeat nor take back without its object's HEAD."""
    return any(problem.kind in _OF_REPOSITORY for problem in served.shared.catalog.problems.get(served.id, path))


def let_go(served: Served, path: bytes, *, seen: bool) -> None:
    """Both sides agree, as the row knows them or (``seen``) as they were read: nothing is left of what waited for the
    repository, and nothing to be decided. What clashes with the path is another key's (`conflicts.close_clash`)."""
    catalog = served.shared.catalog
    if not seen:
        catalog.problems.clear(served.id, path, [HELD, "not-exportable"])
    elif is_clash(served, path):
        _forget_all_but_clash(served, path, same_bytes=True)
    else:
        forget_problems(served, path, same_bytes=True)


def is_clash(served: Served, path: bytes) -> bool:
    """It was one when somebody looked last."""
    return any(one.kind is ConflictKind.CLASH for one in served.shared.catalog.conflicts.at(served.id, path))


def _forget_all_but_clash(served: Served, path: bytes, *, same_bytes: bool) -> None:
    but = (RESTORING, DAMAGED_OBJECT, "refused") if same_bytes else (RESTORING, "refused")
    served.shared.catalog.problems.clear(served.id, path, but=but)


@contextmanager
def going_its_way(verdict: Verdict) -> Iterator[None]:
    """What fails here is told as a failure of an export or import, whoever asked for the look."""
    try:
        yield
    except FsxSyncError as error:
        error.flow = _DONE[verdict][0] if verdict in _DONE else ""
        raise


def record_problem(served: Served, path: bytes, kind: str, message: str, code: str, flow: str = "") -> None:
    """A state that a person should see; written to the event log when it is news. ``flow``: where it came from, if
    that is not what such a kind usually comes from."""
    problems = served.shared.catalog.problems
    known = any(p.kind == kind and p.message == message for p in problems.get(served.id, path))
    problems.put(
        Problem(
            association=served.id,
            path=path,
            kind=kind,
            code=code,
            message=message,
            detected_ns=served.shared.now_ns(),
            kept_as=None,
        )
    )
    if not known:
        flow = flow or _FLOWS.get(kind, "import")
        if kind == "conflict":
            served.counts.conflicts += 1
        elif kind != RESTORING:
            served.counts.failures[flow, as_event(code, flow)] += 1
        served.shared.eventlog.emit(
            level=_LEVELS.get(kind),
            code=code,
            flow=flow,
            association=served.id,
            path=served.tree_path(path),
            message=message,
        )


def record_failure(served: Served, path: bytes, error: FsxSyncError, *, first: bool, local: bool) -> None:
    """A look failed and will be tried again; the first failure of a row is an event."""
    flow = error.flow or ("export" if local else "import")
    served.counts.failures[flow, as_event(error.code, flow)] += 1
    if not first:
        return
    served.shared.eventlog.emit(
        code=error.code,
        flow=flow,
        association=served.id,
        path=served.tree_path(path),
        message=str(error),
    )
