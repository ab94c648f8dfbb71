"""Where hints come in: from the watcher, the front, event queues and scans, into the changelog.

Local hints are gathered for a moment, so that a burst costs one row, and dropped if the tree shows what the
base knows: our own imports and hydrations trip inotify too (DESIGN §2).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import trio

from fsxsync.catalog.changelog import Hint
from fsxsync.errors import KeyNotPosix, NotExportable, TreeError
from fsxsync.model.flags import Flags
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.keys import key_of, path_of
from fsxsync.ports import ObjectHint
from fsxsync.sync import brakes, conflicts, ignoring
from fsxsync.sync.carrying import do_differ
from fsxsync.sync.excluded import is_left_out, leave_unseen
from fsxsync.sync.filters import IGNORE_FILE
from fsxsync.sync.names import is_loading, names_left, other_names
from fsxsync.sync.refused_keys import refuse_key
from fsxsync.sync.served import Served, Shared

log = logging.getLogger(__name__)

FLUSH_S = 0.05
FLUSH_BUSY_S = 0.25
"""While the mount is hard at work, or files are restored or released, a path is told of several times within moments:
it costs one row and one look at the tree if these are gathered."""
STEP = 128
"""So many are looked at in one step of the event loop: some two milliseconds."""
OWN_STEP = 1024
"""So many are compared with what our own work left, in as long: what lags behind a release is no longer known as its
work, and costs ten times as much."""
BATCH = 500
NOARCHIVE = "noarchive is set on it or above it"


@dataclass(frozen=True, slots=True)
class _Expansion:
    """A directory whose content must be looked at: what is there now, or what the catalog knows below it."""

    tree_path: bytes
    appeared: bool


_BY_INOTIFY = 1
_BY_US = 2
"""The mount, a scan, whoever changed what is wanted of a path. Numbers: two of `enum.Flag` take a microsecond to add,
and there is one of these for each record of inotify."""


class Intake:
    """Turns what happened into hints. All methods are called from the trio thread."""

    def __init__(self, shared: Shared, served_for: Callable[[bytes], Served | None]) -> None:
        self._shared = shared
        self._served_for = served_for
        self._paths: dict[bytes, int] = {}
        self._in_hand: dict[bytes, int] = {}
        """Told of before those, and being looked at step by step."""
        self._held: AbstractSet[bytes] = frozenset()
        """They have waited once until they are restored."""
        self._wake = trio.Event()
        self._expansions: dict[_Expansion, None] = {}
        self.on_overflow: Callable[[], None] = lambda: None

    # ------------------------------------------------------------- local hints

    def changed(self, tree_path: bytes) -> None:
        """Look at one path of the tree."""
        self._told(tree_path, _BY_US)

    def noticed(self, tree_path: bytes) -> None:
        """The same where inotify tells of it, so that the front may not know."""
        self._told(tree_path, _BY_INOTIFY)

    def _told(self, tree_path: bytes, by: int) -> None:
        self._paths[tree_path] = self._paths.get(tree_path, 0) | by
        self._wake.set()

    def renamed(self, old: bytes, new: bytes, is_directory: bool) -> None:
        """A path moved; for a directory, everything below moved with it."""
        if is_directory:
            self.appeared(new)
            self.gone(old)
        self.changed(new)
        self.changed(old)

    def appeared(self, tree_path: bytes) -> None:
        """A directory with unknown content is there."""
        self._expand(_Expansion(tree_path, appeared=True))

    def gone(self, tree_path: bytes) -> None:
        """A directory went away, with everything that the catalog knows below it."""
        self._expand(_Expansion(tree_path, appeared=False))

    def _expand(self, expansion: _Expansion) -> None:
        if expansion not in self._expansions:
            self._expansions[expansion] = None
            self._shared.expanding += 1
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        is_all_seen = not self._paths and not self._in_hand
        return is_all_seen and not self._expansions and self._shared.expanding == 0

    async def run(self) -> None:
        """Flush what was gathered, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            shared = self._shared
            is_busy = shared.restoring or shared.releasing or shared.courtesy.is_busy()
            await trio.sleep(FLUSH_BUSY_S if is_busy else FLUSH_S)
            await self._flush_in_steps()
            while self._expansions:
                expansion = next(iter(self._expansions))
                del self._expansions[expansion]  # first: what comes while it runs has to run again
                await self._try_to_expand(expansion)
                self._shared.expanding -= 1
                self.flush()

    def flush(self) -> None:
        """Write the gathered paths to the changelog."""
        in_hand, self._in_hand = self._in_hand, {}
        self._write(in_hand)
        paths, self._paths = self._paths, {}
        self._put_back(self._shared.releasing & paths.keys(), paths)
        self._read_ignore_lists(paths)
        self._write(paths)

    async def _flush_in_steps(self) -> None:
        """The same, between which others have their turn. What is being restored waits once: soon most of what was told
        of it is known to be our own, and needs no row."""
        self._in_hand, self._paths = self._paths, {}
        restoring = (self._shared.restoring & self._in_hand.keys()) - self._held
        self._held = {tree_path for tree_path in restoring if self._in_hand[tree_path] == _BY_INOTIFY}
        self._put_back(self._held | (self._shared.releasing & self._in_hand.keys()), self._in_hand)
        self._read_ignore_lists(self._in_hand)
        while self._in_hand:
            step = dict(itertools.islice(self._in_hand.items(), OWN_STEP))
            for tree_path in self._drop_own(step):
                del self._in_hand[tree_path]
            left = list(step)
            for start in range(0, max(len(left), 1), STEP):
                part = [path for path in left[start : start + STEP] if path in self._in_hand]  # nobody flushed it
                self._look_at({path: self._in_hand.pop(path) for path in part})
                await trio.lowlevel.checkpoint()

    def _put_back(self, some: Iterable[bytes], paths: dict[bytes, int]) -> None:
        for tree_path in some:
            self._told(tree_path, paths.pop(tree_path))

    def _write(self, paths: dict[bytes, int]) -> None:
        self._drop_own(paths)
        self._look_at(paths)

    def _look_at(self, paths: dict[bytes, int]) -> None:
        if paths:
            found = self._shared.tree.identify_many(list(paths))
            self._shared.noticed((tree_path for tree_path, by in paths.items() if by & _BY_INOTIFY), found)
            self._add_local(list(found.items()))

    def _drop_own(self, paths: dict[bytes, int]) -> list[bytes]:
        """inotify tells of files, and these stand as we left them: they are taken out, and given. Anybody else's hint
        may be about the row: a filter was lifted, say."""
        dropped: list[bytes] = []
        by_inotify = [tree_path for tree_path, by in paths.items() if by == _BY_INOTIFY]
        for tree_path, association, path in self._shared.own_work.unchanged(by_inotify):
            if (served := self._shared.served.get(association)) is None:
                continue  # who noted it is gone, and its rows with it: of the next one nothing is known yet
            if not self._shared.catalog.problems.has(association, path):
                del paths[tree_path]
                dropped.append(tree_path)
                served.counts.echoes_dropped += 1
        return dropped

    def _read_ignore_lists(self, paths: Iterable[bytes]) -> None:
        """First of all: what was written after a list is judged by it."""
        for tree_path in paths:
            served = self._served_for(tree_path) if tree_path.endswith(IGNORE_FILE) else None
            if served is not None and served.association.relative(tree_path) == IGNORE_FILE:
                ignoring.refresh(served)

    def _add_local(self, found: Sequence[tuple[bytes, Local | None]]) -> int:
        """How many of them have rows."""
        known = 0
        hints: list[Hint] = []
        left: set[int] = set()
        for served, paths in self._by_association(found):
            bases = self._shared.catalog.files.get_many(served.id, [path for path, _ in paths])
            known += len(bases)
            for path, local in paths:
                base = bases.get(path)
                hints += self._local_hints(served, path, base, local)
                if base is not None and base.kind is Kind.FILE and (local is None or local.ino != base.ino):
                    left.add(base.ino)
        hints += names_left(self._shared, left, {tree_path for tree_path, _ in found})
        if hints:
            settings = self._shared.settings
            self._shared.catalog.changelog.add(
                hints,
                now_ns=self._shared.now_ns(),
                delay_ns=int(settings.export_delay_s * 1e9),
                cap_ns=int(settings.export_cap_s * 1e9),
            )
        return known

    def _by_association(
        self, found: Sequence[tuple[bytes, Local | None]]
    ) -> Iterable[tuple[Served, list[tuple[bytes, Local | None]]]]:
        owned: dict[str, tuple[Served, list[tuple[bytes, Local | None]]]] = {}
        for tree_path, local in found:
            served = self._served_for(tree_path)
            path = served.association.relative(tree_path) if served is not None else None
            if served is not None and path:
                owned.setdefault(served.id, (served, []))[1].append((path, local))
        return owned.values()

    def _local_hints(self, served: Served, path: bytes, base: Base | None, local: Local | None) -> Iterator[Hint]:
        if local is not None and local.kind is Kind.FILE and local.nlink > 1:
            yield from other_names(self._shared, served, path, local)
        if base is None and local is None and not self._is_open(served, path):
            conflicts.look_again_below(served, path)  # nobody knew it, but it may have been in the way
            return
        if is_left_out(served, path, base, local) and not leave_unseen(served, path, base, local):
            return
        if base is not None and local is not None:
            if is_loading(self._shared, base, local) and not do_differ(served, path, base, local):
                return
            if is_known(base, local) and not self._is_open(served, path):
                served.counts.echoes_dropped += 1
                return
        ino = local.ino if local is not None and local.kind is not Kind.DIRECTORY else None
        yield Hint(served.id, path, local=True, remote=False, ino=ino)
        served.wake()

    def _is_open(self, served: Served, path: bytes) -> bool:
        """What could not be done is undone, perhaps, so that nothing is left to be reported."""
        return self._shared.catalog.problems.has(served.id, path)

    async def _try_to_expand(self, expansion: _Expansion) -> None:
        try:
            await self._expand_one(expansion)
        except TreeError as error:
            # What could not be read is not gone. A scan looks again; what that can't read is the association's trouble.
            log.warning("directory can't be looked through", extra={"reason": str(error)})
            self.on_overflow()

    async def _expand_one(self, expansion: _Expansion) -> None:
        if expansion.appeared:
            known = 0
            batches = self._shared.tree.walk_batches(expansion.tree_path, BATCH)
            while batch := await trio.to_thread.run_sync(next, batches, None):
                known += self._add_local(batch)
            if self._count_below(expansion.tree_path) > known:
                await self._notice_missing(expansion.tree_path)
        else:
            for served in list(self._shared.served.values()):
                await self._hint_rows(served, expansion.tree_path)

    def _count_below(self, tree_path: bytes) -> int:
        """Rows of what is below the path."""
        files = self._shared.catalog.files
        under = [(served.id, served.association.relative(tree_path)) for served in self._shared.served.values()]
        return sum(files.count_under(name, path) - (files.get(name, path) is not None) for name, path in under if path)

    async def _notice_missing(self, tree_path: bytes) -> None:
        """What an import put into a new directory was removed before that was watched: nobody else tells of it. Where
        it is so much that it may be no removal, a scan looks, and has a brake."""
        files = self._shared.catalog.files
        for served in list(self._shared.served.values()):
            if not (under := served.association.relative(tree_path)):
                continue
            missing: list[Base] = []
            for part in _batched(files.iterate(served.id, under)):
                found = self._shared.tree.identify_many([served.tree_path(row.path) for row in part])
                missing += [row for row in part if found[served.tree_path(row.path)] is None]
                await trio.lowlevel.checkpoint()
            if brakes.implausible_scan(files.count(served.id), sum(row.kind is not Kind.DIRECTORY for row in missing)):
                self.on_overflow()
            else:
                self._add_local([(served.tree_path(row.path), None) for row in missing])

    async def _hint_rows(self, served: Served, tree_path: bytes) -> None:
        """Every row below a directory that went away: each is looked at, and found gone or found again. So is what is
        reported of paths without a row."""
        under = served.association.relative(tree_path)
        if under is None:
            return  # an association's own directory never goes away by a hint (DESIGN §3.6)
        files = self._shared.catalog.files
        start = b""
        while rows := files.after(served.id, start, BATCH, under):
            start = files.sort_key(rows[-1])
            self._add_local(list(self._shared.tree.identify_many([served.tree_path(row.path) for row in rows]).items()))
            await trio.lowlevel.checkpoint()
        await self.look_at_reports(served, under)

    async def look_at_reports(self, served: Served, under: bytes = b"") -> None:
        """Look again at what is reported of paths below a directory, or of all: what it was said of may have gone, and
        for a path with neither file nor row nothing else tells of that."""
        after = b""
        while paths := self._shared.catalog.problems.under(served.id, under, after, BATCH):
            after = paths[-1]
            self._add_local(list(self._shared.tree.identify_many([served.tree_path(path) for path in paths]).items()))
            await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- remote hints

    def object_hints(self, served: Served, hints: Iterable[ObjectHint]) -> None:
        """Write hints of events to the changelog; when this returns, the message may be deleted."""
        rows: list[Hint] = []
        for hint in hints:
            try:
                path, is_directory = path_of(hint.key, served.association.prefix)
            except KeyNotPosix as error:
                if hint.is_removal:
                    served.shared.catalog.refused_keys.forget(served.id, hint.key)
                else:
                    refuse_key(served, hint.key, error)
                continue
            if not path or not served.filters.wants(path, directory=is_directory):
                continue
            base = self._shared.catalog.files.get(served.id, path)
            if served.is_echo(hint, base):
                continue
            if (
                base is not None
                and hint.version_id is not None
                and (base.etag, base.version_id) == (hint.etag, hint.version_id)
                and (base.kind is Kind.DIRECTORY) == is_directory
            ):
                served.counts.echoes_dropped += 1
                continue
            if is_directory and not hint.is_removal and (base is None or base.kind is not Kind.DIRECTORY):
                served.markers_beside_files.add(path)
            if hint.is_removal and not hint.is_purge and base is None and not self._is_pending(served, path):
                # Our own delete, most of the time. Should the object be there again, its creation tells of it.
                served.counts.echoes_dropped += 1
                continue
            rows.append(Hint(served.id, path, local=False, remote=True, happened_ns=hint.happened_ns))
        if rows:
            self._shared.catalog.changelog.add(
                rows,
                now_ns=self._shared.now_ns(),
                delay_ns=0,
                cap_ns=int(self._shared.settings.export_cap_s * 1e9),
            )
            served.wake()

    def _is_pending(self, served: Served, path: bytes) -> bool:
        """Somebody looks at the path, or will: a look that is under way may have seen the object before it went."""
        if self._shared.tree.identify(served.tree_path(path)) is not None:
            return True
        catalog = self._shared.catalog
        if catalog.conflicts.at(served.id, path) or catalog.changelog.is_looked_at(served.id, path):
            return True
        return any(entry.path == path for entry in catalog.changelog.pending(served.id, path, 1))


def _batched(rows: Iterator[Base]) -> Iterator[list[Base]]:
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch


def is_known(base: Base, local: Local) -> bool:
    """The tree shows what the row knows. A directory's mtime counts only where somebody set it: what the entries
    below do to it is no change of its own, and leaves mtime equal to ctime."""
    if not base.matches_local(local):
        return False
    return base.kind is not Kind.DIRECTORY or local.mtime_ns in {base.mtime_ns, local.ctime_ns}


def exportable_key(served: Served, path: bytes, kind: Kind, flags: Flags | None = None) -> str | NotExportable:
    """The key of a path, or why it has none; ``flags`` where somebody has read them just now."""
    if (flags or served.shared.tree.flags().of(served.tree_path(path))).noarchive:
        return NotExportable(f"/{served.tree_path(path).decode('utf-8', 'backslashreplace')}", NOARCHIVE)
    if kind is Kind.OTHER:
        return NotExportable("FIFOs, sockets and devices", "S3 has no such objects")
    try:
        return key_of(path, served.association.prefix, directory=kind is Kind.DIRECTORY)
    except NotExportable as error:
        return error
