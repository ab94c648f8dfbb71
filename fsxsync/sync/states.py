"""`fsxsync state`: a path in Lustre's words and bits (FSX-FACTS §6.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import trio

from fsxsync.errors import BadInput, NotExportable
from fsxsync.model.identity import Base, Kind, Local
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


class States:
    """What `fsxsync state` tells, of one path or of a whole tree."""

    def __init__(
        self,
        tree: Tree,
        served_for: Callable[[bytes], Served | None],
        resident_bytes: Callable[[int], int | None],
    ) -> None:
        """``resident_bytes`` of an inode that is being loaded."""
        self._tree = tree
        self._served_for = served_for
        self._resident_bytes = resident_bytes

    async def told(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[FileState]:
        """Each path, and all below it. Raises BadInput: there is nothing at one of them."""
        for path in tree_paths:
            local = self._tree.identify(path)
            if local is None:
                raise BadInput(f"/{path.decode('utf-8', 'backslashreplace')}", "no such file or directory")
            yield self._state(path, local, self._tree.flags())
            if recursive and local.kind is Kind.DIRECTORY:
                batches = self._tree.walk_batches(path)
                while batch := await trio.to_thread.run_sync(next, batches, None):
                    for state in self._states_below(batch):
                        yield state

    def _state(self, path: bytes, local: Local, flags: FlagReader) -> FileState:
        return state_of(self._served_for(path), path, local, self._resident_bytes(local.ino), flags)

    def _states_below(self, batch: Sequence[tuple[bytes, Local]]) -> list[FileState]:
        """Of what a walk found, as far as it is there still. No await: what is asked once for all holds for each."""
        states: list[FileState] = []
        flags = self._tree.flags()
        placed: dict[str, list[tuple[bytes, bytes]]] = {}
        for path, _ in batch:
            served = self._served_for(path)
            if served is not None and (relative := served.association.relative(path)):
                placed.setdefault(served.id, []).append((path, relative))
        known: dict[bytes, tuple[Served, bytes, Base, bool]] = {}
        for within in placed.values():
            served = self._served_for(within[0][0])
            assert served is not None
            rows = served.shared.catalog.files.get_many(served.id, [relative for _, relative in within])
            quiet = _is_quiet(served)
            known |= {path: (served, relative, rows[relative], quiet) for path, relative in within if relative in rows}
        for path, shallow in batch:
            place = known.get(path)
            # A walk reads no marks, but a row that fits says whether there is one: ctime would have moved with it.
            if place is not None and place[2].matches_local(shallow):
                served, relative, base, quiet = place
                here = self._resident_bytes(shallow.ino) if base.released and shallow.blocks else None
                states.append(
                    _state_in(served, path, relative, shallow, base, here, flags, is_stub=base.released, is_quiet=quiet)
                )
            elif (local := self._tree.identify(path)) is not None:
                states.append(self._state(path, local, flags))
        return states


def state_of(
    served: Served | None, tree_path: bytes, local: Local, resident_bytes: int | None, flags: FlagReader
) -> FileState:
    """The state of what stands at a path; ``resident_bytes`` where somebody is loading it."""
    is_stub = local.stub is not None
    path = served.association.relative(tree_path) if served is not None else None
    if served is None or not path:
        shown = tree_path.decode("utf-8", "surrogateescape")
        size = 0 if local.kind is Kind.DIRECTORY else local.size
        here = size if not is_stub else resident_bytes or 0
        owner = served.id if served else None
        return FileState(shown, 0, (), local.kind, here, size, None, None, None, owner, False, None)
    base = served.shared.catalog.files.get(served.id, path)
    return _state_in(served, tree_path, path, local, base, resident_bytes, flags, is_stub=is_stub)


def _is_quiet(served: Served) -> bool:
    catalog = served.shared.catalog
    return catalog.changelog.count(served.id)[0] == 0 and catalog.problems.count(served.id) == 0


def _state_in(
    served: Served,
    tree_path: bytes,
    path: bytes,
    local: Local,
    base: Base | None,
    resident_bytes: int | None,
    flags: FlagReader,
    *,
    is_stub: bool,
    is_quiet: bool = False,
) -> FileState:
    """``is_quiet``: nothing is pending or wrong in the whole association."""
    shown = tree_path.decode("utf-8", "surrogateescape")
    size = 0 if local.kind is Kind.DIRECTORY else local.size
    here = size if not is_stub else resident_bytes or 0
    catalog = served.shared.catalog
    entries = [] if is_quiet else catalog.changelog.pending(served.id, path, 1)
    pending = [entry for entry in entries if entry.path == path]
    problems = [] if is_quiet else catalog.problems.get(served.id, path)
    bits = 0
    if base is not None and base.etag is not None:
        bits = EXISTS | ARCHIVED
        if not is_stub and local_delta(base, local) is Delta.CONTENT:
            bits |= DIRTY
    if is_stub:
        bits |= RELEASED
    if any(problem.kind == "lost" for problem in problems):
        bits = (bits | LOST) & ~ARCHIVED
    said = flags.of(tree_path)
    bits |= NORELEASE * said.norelease | NOARCHIVE * said.noarchive
    key = exportable_key(served, path, local.kind, said)
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
