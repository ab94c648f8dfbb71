"""`fsxsync state`: a path in Lustre's words and bits (FSX-FACTS §6.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import trio

from fsxsync.errors import BadInput, NotExportable
from fsxsync.model.identity import Kind, Local
from fsxsync.ports import FileState
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served
from fsxsync.tree.flags import FlagReader
from fsxsync.tree.tree import Tree

EXISTS, DIRTY, RELEASED, ARCHIVED, NORELEASE, NOARCHIVE, LOST = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
WORDS = (
    (RELEASED, "released"),
    (EXISTS, "exists"),
    (DIRTY, "dirty"),
    (ARCHIVED, "archived"),
    (NORELEASE, "never_release"),
    (NOARCHIVE, "never_archive"),
    (LOST, "lost_from_hsm"),
)


VIRTUAL = frozenset({"state", "etag", "version", "key", "association", "error"})
"""Attributes that the mount shows as ``user.fsxsync.WORD`` to who asks for them by name."""


def virtual_attribute(state: FileState, word: str) -> bytes | None:
    """What one of `VIRTUAL` says; None if there is nothing to say."""
    text = {
        "state": f"(0x{state.bits:08x}) {' '.join(state.flags)}".rstrip(),
        "etag": state.etag,
        "version": state.version_id,
        "key": state.key,
        "association": state.association,
        "error": state.error,
    }[word]
    return text.encode("utf-8", "surrogateescape") if text is not None else None


async def states_below(
    tree: Tree,
    tree_paths: Sequence[bytes],
    state_at: Callable[[bytes, Local, FlagReader], FileState],
    *,
    recursive: bool,
) -> AsyncIterator[FileState]:
    """The states at these paths, and below them if it is ``recursive``.

    Raises:
        BadInput: nothing stands at one of them.
    """
    for path in tree_paths:
        local = tree.identify(path)
        if local is None:
            raise BadInput(f"/{path.decode('utf-8', 'backslashreplace')}", "no such file or directory")
        yield state_at(path, local, tree.flags())
        if recursive and local.kind is Kind.DIRECTORY:
            batches = tree.walk_batches(path)
            while batch := await trio.to_thread.run_sync(next, batches, None):
                flags = tree.flags()
                for below, _ in batch:
                    found = tree.identify(below)
                    if found is not None:
                        yield state_at(below, found, flags)


def state_of(
    served: Served | None, tree_path: bytes, local: Local, resident_bytes: int | None, flags: FlagReader
) -> FileState:
    """The state of what stands at a path; ``resident_bytes`` where somebody is loading it."""
    shown = tree_path.decode("utf-8", "surrogateescape")
    size = 0 if local.kind is Kind.DIRECTORY else local.size
    here = size if local.stub is None else resident_bytes or 0
    path = served.association.relative(tree_path) if served is not None else None
    if served is None or not path:
        return FileState(
            shown, 0, (), local.kind, here, size, None, None, None, served.id if served else None, False, None
        )
    catalog = served.shared.catalog
    base = catalog.files.get(served.id, path)
    is_any_pending = catalog.changelog.count(served.id)[0] > 0
    entries = catalog.changelog.pending(served.id, path, 1) if is_any_pending else []
    pending = [entry for entry in entries if entry.path == path]
    problems = catalog.problems.get(served.id, path)
    bits = 0
    if base is not None and base.etag is not None:
        bits = EXISTS | ARCHIVED
        if local.stub is None and local_delta(base, local) is Delta.CONTENT:
            bits |= DIRTY
    if local.stub is not None:
        bits |= RELEASED
    if any(problem.kind == "lost" for problem in problems):
        bits = (bits | LOST) & ~ARCHIVED
    said = flags.of(tree_path)
    bits |= NORELEASE * said.norelease | NOARCHIVE * said.noarchive
    key = exportable_key(served, path, local.kind)
    error = next((entry.last_error for entry in pending if entry.last_error), None)
    return FileState(
        path=shown,
        bits=bits,
        flags=tuple(word for bit, word in WORDS if bits & bit),
        kind=local.kind,
        resident_bytes=here,
        size=size,
        etag=base.etag if base else None,
        version_id=base.version_id if base else None,
        key=None if isinstance(key, NotExportable) else key,
        association=served.id,
        pending=bool(pending),
        error=error or next((problem.message for problem in problems), None),
    )
