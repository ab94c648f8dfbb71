"""`fsxsync state`: a path in Lustre's words and bits (FSX-FACTS §6.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from itertools import groupby

from fsxsync.errors import BadInput, NotExportable
from fsxsync.model.flags import XATTRS, Flags
from fsxsync.model.identity import KINDS, Base, Kind, Local
from fsxsync.ports import FileState
from fsxsync.sync.ahead import ReadAhead
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.reconcile import Delta, local_delta
from fsxsync.sync.served import Served
from fsxsync.tree.flags import FlagReader
from fsxsync.tree.tree import Tree
from fsxsync.tree.walk import Entry

BATCH = 500
"""Entries that one hop to a worker thread reads; other tasks run between two."""
NOISY = 1000
"""Pending paths and problems among a batch's, and between them, that are too many to be read at once."""

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

    async def told(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[Sequence[FileState]]:
        """Each path, and all below it, some hundreds at a time. Raises BadInput: there is nothing at one of them."""
        for path in tree_paths:
            local = self._tree.identify(path)
            if local is None:
                raise BadInput(f"/{path.decode('utf-8', 'backslashreplace')}", "no such file or directory")
            yield [self._state(path, local, self._tree.flags())]
            if recursive and local.kind is Kind.DIRECTORY:
                async for batch in ReadAhead(self._tree.entry_batches(path, BATCH, marks=XATTRS)):
                    yield self._states_below(batch)

    def _state(self, path: bytes, local: Local, flags: FlagReader) -> FileState:
        return state_of(self._served_for(path), path, local, self._resident_bytes(local.ino), flags)

    def _states_below(self, batch: Sequence[Entry]) -> list[FileState]:
        """Of what a walk found, as far as it is there still. No await: what is asked once for all holds for each."""
        states: list[FileState] = []
        flags = self._tree.flags()
        owner_of = cache(self._served_for)
        for served, entries in groupby(batch, key=lambda entry: owner_of(_directory_of(entry[0]))):
            run = list(entries)
            known = self._known(served, run, flags) if served is not None else {}
            for key, _ in run:
                if (state := known.get(key)) is not None:
                    states.append(state)
                elif (local := self._tree.identify(path := key.removesuffix(b"/"))) is not None:
                    states.append(self._state(path, local, flags))
        return states

    @staticmethod
    def _known(served: Served, entries: Sequence[Entry], flags: FlagReader) -> dict[bytes, FileState]:
        """The states of those that are what the catalog knows of them, and of which there is nothing else to tell.

        A walk reads no marks of stubs, but a row that fits says whether there is one: ctime would have moved with it.
        """
        catalog, start = served.shared.catalog, served.association.start
        paths = [key[start:].removesuffix(b"/") for key, _ in entries]
        where = (served.id, min(paths), max(paths), NOISY)
        noisy = {*catalog.changelog.between(*where), *catalog.problems.between(*where)}
        if len(noisy) >= NOISY:
            return {}
        rows = catalog.briefs.get_many(served.id, [key[start:] for key, _ in entries])
        loading = served.shared.hydrating
        states: dict[bytes, FileState] = {}
        for (key, found), path in zip(entries, paths, strict=True):
            row = rows.get(key[start:])
            if row is None or path in noisy or not row.matches(found) or found.ino in loading:
                continue
            kind = KINDS[found.kind]
            size = 0 if kind is Kind.DIRECTORY else found.size
            said = flags.inside(_directory_of(key))
            if found.marks:
                said |= Flags(*(bool(found.marks >> bit & 1) for bit in range(len(XATTRS))))
            bits = 0 if row.etag is None else EXISTS | ARCHIVED
            bits |= RELEASED * row.released | NORELEASE * said.norelease | NOARCHIVE * said.noarchive
            exported_as = exportable_key(served, path, kind, said)
            states[key] = FileState(
                key.removesuffix(b"/").decode("utf-8", "surrogateescape"),
                bits,
                words_of(bits),
                kind,
                row.resident_bytes or 0 if row.released else size,
                size,
                row.etag,
                row.version_id,
                None if isinstance(exported_as, NotExportable) else exported_as,
                served.id,
                False,
                None,
            )
        return states


@cache
def words_of(bits: int) -> tuple[str, ...]:
    """Lustre's words, in Lustre's order."""
    return tuple(word for bit, word in WORDS if bits & bit)


def _directory_of(key: bytes) -> bytes:
    return key.removesuffix(b"/").rpartition(b"/")[0]


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
) -> FileState:
    shown = tree_path.decode("utf-8", "surrogateescape")
    size = 0 if local.kind is Kind.DIRECTORY else local.size
    here = size if not is_stub else resident_bytes or 0
    catalog = served.shared.catalog
    entries = catalog.changelog.pending(served.id, path, 1)
    pending = [entry for entry in entries if entry.path == path]
    problems = catalog.problems.get(served.id, path)
    bits = 0
    if base is not None and base.etag is not None:
        bits = EXISTS | ARCHIVED
        if not is_stub and local_delta(base, local) is Delta.CONTENT:
            bits |= DIRTY
            if not pending and base.may_match(local) and local.ino not in served.shared.hydrating:
                served.add_hint(path, local=True)  # a name more or less, of which nobody was told: no change, perhaps
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
        flags=words_of(bits),
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
