"""`fsxsync check`: tree against catalog against stubs, and with --verify against the repository. Changes nothing, but
with --repair (`repairing`).

Another streaming merge of the tree's entries with the catalog's rows. What looks broken is looked at a second time,
after all that was done before has come to the changelog: between a change and its hint there is always a moment.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from fsxsync.errors import BadInput, NotExportable
from fsxsync.model.association import Lifecycle, Policy
from fsxsync.model.finding import Finding, Rule, Tally
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.sync.excluded import takes_no_part
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.pairs import Pair
from fsxsync.sync.repairing import LEFTOVER, Repairer
from fsxsync.sync.rules import Place, broken, misplaced
from fsxsync.sync.served import Served, Shared
from fsxsync.sync.verifying import Verifier
from fsxsync.tree.attributes import Seen, see, see_all
from fsxsync.tree.flags import FlagReader

BATCH = 200
"""Entries that one hop to a worker thread looks at; other tasks run between two."""
SETTLE_S = 30.0
"""How long changes may take to come to the changelog; what looks broken after that is not judged."""
_SEEN_AT_START = frozenset({Rule.ROW_WITHOUT_FILE, Rule.FILE_WITHOUT_ROW, Rule.UNSEEN_CHANGE})
"""What also a change looks like that was made while no daemon ran."""
_STAYS = frozenset({"not-exportable", "refused"})
Broken = tuple[Pair, list[Finding]]
_STARTING = frozenset({Lifecycle.CREATING, Lifecycle.DELETING})


class Checker:
    """One check. ``settle`` returns when all that was done in the tree is in the changelog; ``is_scanned`` says of an
    association that its tree was compared with the catalog since the daemon started. ``is_offline``: none runs."""

    def __init__(
        self,
        shared: Shared,
        served: Mapping[str, Served],
        *,
        settle: Callable[[], Awaitable[None]],
        is_scanned: Callable[[str], bool],
        verify: bool,
        repair: bool = False,
        is_offline: bool = False,
    ) -> None:
        self._shared = shared
        self._served = sorted(served.values(), key=lambda one: _directory(one.association.directory))
        self._settle = settle
        self._is_scanned = is_scanned
        self._is_offline = is_offline
        self._tally = Tally()
        self._verifier = Verifier(shared, self._tally, is_busy=self._is_busy, repairs=repair) if verify else None
        self._repairer = Repairer(shared, see=self._now, judge=self._judge_now) if repair else None

    async def run(self, tree_paths: Sequence[bytes]) -> AsyncGenerator[Finding | Tally, None]:
        """Every broken rule at these paths and below them, none twice; the tally last.

        Raises:
            BadInput: nothing is at a path, and nothing is known of it. TreeError: a directory can't be read.
            RepositoryError: the repository can't be asked.
        """
        self._shared.tree.verify()
        await self._settle_what_is_verified()
        for tree_path in _outermost(tree_paths):
            async for batch in self._pairs(tree_path):
                for finding in await self._treated(await self._check(batch)):
                    yield self._told(finding)
        if self._repairer is not None:
            # Last: a row without a file may be where another file was renamed from, and that is known by now.
            for tree_path in _outermost(tree_paths):
                async for batch in self._pairs(tree_path):
                    alone = [pair for pair in batch if pair.seen is None]
                    for finding in await self._repairer.repair(await self._look_again(alone) if alone else []):
                        yield self._told(finding)
        if b"" in tree_paths and not self._is_offline:  # the next start clears them or puts them back
            for finding in await trio.to_thread.run_sync(self._leftovers):
                yield self._told(finding if self._repairer is None else replace(finding, repair=LEFTOVER))
        yield self._tally

    async def _settle_what_is_verified(self) -> None:
        """What was just read or written is verified too."""
        if self._verifier is not None:
            with trio.move_on_after(SETTLE_S):
                await self._settle()

    def _told(self, finding: Finding) -> Finding:
        self._tally.broken += 1
        self._tally.repaired += finding.repaired
        return finding

    async def _treated(self, broken: Sequence[Broken]) -> list[Finding]:
        """What is told of a batch: with what became of it, where that was asked for."""
        if self._repairer is None:
            return [finding for _, findings in broken for finding in findings]
        return await self._repairer.repair([one for one in broken if one[0].seen is not None])

    # ------------------------------------------------------------- the merge

    async def _pairs(self, tree_path: bytes) -> AsyncGenerator[list[Pair], None]:
        rows = self._rows(tree_path)
        row = next(rows, None)
        if tree_path and row is None and self._see(tree_path) is None:
            raise BadInput(f"/{tree_path.decode('utf-8', 'backslashreplace')}", "no such file or directory")
        batches = self._entries(tree_path)
        pairs: list[Pair] = []
        while (batch := await trio.to_thread.run_sync(next, batches, None)) is not None:
            for path, seen in batch:
                here = _directory(path) if seen.local.kind is Kind.DIRECTORY else path
                while row is not None and row[0] < here:
                    pairs.append(self._row_alone(row))
                    row = next(rows, None)
                    if len(pairs) >= BATCH:
                        yield pairs
                        pairs = []
                known = None
                if row is not None and row[0] == here:
                    known = row[2]
                    row = next(rows, None)
                pairs.append(Pair(path, self._owner(path), known, seen))
            yield pairs
            pairs = []
        while row is not None:
            pairs.append(self._row_alone(row))
            row = next(rows, None)
            if len(pairs) >= BATCH or row is None:
                yield pairs
                pairs = []

    def _rows(self, tree_path: bytes) -> Iterator[tuple[bytes, Served, Base]]:
        """The rows at a path and below it with their places in a walk. Associations don't overlap: one comes wholly
        before the other."""
        files = self._shared.catalog.files
        for served in self._served:
            inside = served.association.relative(tree_path)
            if inside is None:
                if tree_path and not served.association.directory.startswith(tree_path + b"/"):
                    continue
                inside = b""
            for row in files.iterate(served.id, inside, page=BATCH):
                path = served.tree_path(row.path)
                yield _directory(path) if row.kind is Kind.DIRECTORY else path, served, row

    @staticmethod
    def _row_alone(row: tuple[bytes, Served, Base]) -> Pair:
        return Pair(row[1].tree_path(row[2].path), row[1], row[2], None)

    def _entries(self, tree_path: bytes) -> Iterator[list[tuple[bytes, Seen]]]:
        """What stands at a path and below it. Blocking: each step belongs into a worker thread."""
        tree = self._shared.tree
        itself = self._see(tree_path) if tree_path else None
        if itself is not None:
            yield [(tree_path, itself)]
        if itself is None and tree_path:
            return
        for batch in tree.walk_batches(tree_path, BATCH):
            paths = [path for path, _ in batch]
            found = see_all(tree.root_fd, tree.dev, paths)
            yield [(path, seen) for path, seen in zip(paths, found, strict=True) if seen is not None]

    def _see(self, tree_path: bytes) -> Seen | None:
        return see(self._shared.tree.root_fd, self._shared.tree.dev, tree_path)

    def _owner(self, tree_path: bytes) -> Served | None:
        for served in self._served:
            inside = served.association.relative(tree_path)
            if inside is not None:
                return served if inside else None  # an association's own directory has no row
        return None

    # ------------------------------------------------------------- judging

    async def _check(self, pairs: Sequence[Pair]) -> list[Broken]:
        self._tally.entries += len(pairs)
        flags = self._shared.tree.flags()
        flags.read([pair.tree_path for pair in pairs])
        suspects = [pair for pair in pairs if self._judge(pair, pending=False, flags=flags)]
        found = await self._look_again(suspects) if suspects else []
        if self._verifier is None:
            return found
        suspected = {pair.tree_path for pair in suspects}
        sound = [
            (pair.served, pair.row, pair.local)
            for pair in pairs
            if pair.served and pair.row and pair.local and pair.tree_path not in suspected
        ]
        damaged = await self._verifier.verify(sound)
        if damaged:
            with trio.move_on_after(SETTLE_S):
                await self._settle()
        for claim in damaged:
            if findings := self._verifier.confirmed(claim):
                served, row, _ = claim.candidate
                found.append((self._now(Pair(served.tree_path(row.path), served, row, None)), findings))
        return found

    async def _look_again(self, suspects: Iterable[Pair]) -> list[Broken]:
        with trio.move_on_after(SETTLE_S) as limit:
            await self._settle()
        found: list[Broken] = []
        for pair in suspects:
            now = self._now(pair)
            pending = (
                limit.cancelled_caught
                or self._is_busy(now.served, now.row, now.local, now.tree_path)
                or self._is_written(now)
            )
            findings = self._judge(now, pending=pending)
            if self._is_offline:
                findings = [finding for finding in findings if finding.rule not in _SEEN_AT_START]
            if (pending or self._is_offline) and not findings:
                self._tally.skipped += 1
            if findings:
                found.append((now, findings))
            await trio.lowlevel.checkpoint()
        return found

    def _now(self, pair: Pair) -> Pair:
        row = None
        if pair.served is not None:
            path = pair.served.association.relative(pair.tree_path)
            assert path
            row = self._shared.catalog.files.get(pair.served.id, path)
        return Pair(pair.tree_path, pair.served, row, self._see(pair.tree_path))

    def _judge_now(self, pair: Pair) -> list[Finding]:
        return self._judge(pair, pending=False)

    def _judge(self, pair: Pair, *, pending: bool, flags: FlagReader | None = None) -> list[Finding]:
        """``flags``: where those of a batch were read just now."""
        place = self._place(pair, full=not pending, flags=flags)
        attributes = misplaced(pair.seen.misplaced, place) if pair.seen is not None else []
        return broken(pair.row, pair.local, pending, place) + attributes

    def _place(self, pair: Pair, *, full: bool, flags: FlagReader | None) -> Place:
        shown, served = os.fsdecode(pair.tree_path), pair.served
        path = served.association.relative(pair.tree_path) if served is not None else None
        if served is None or not path:
            return Place(shown, served.id if served else "", None, Policy())
        kind = pair.local.kind if pair.local else pair.row.kind if pair.row else Kind.FILE
        key = exportable_key(served, path, kind, flags.of(pair.tree_path) if flags is not None else None)
        stays = isinstance(key, NotExportable) or takes_no_part(served, path, pair.row, pair.local, None)
        if full and not stays and (pair.row is None or pair.local is None or not pair.row.matches_local(pair.local)):
            stays = self._is_refused(served, path)
        return Place(
            shown, served.id, None if isinstance(key, NotExportable) else key, served.association.policy, stays
        )

    def _is_refused(self, served: Served, path: bytes) -> bool:
        """A person was told of it, and it is not tried again by itself."""
        problems = self._shared.catalog.problems.get(served.id, path)
        return any(one.kind in _STAYS or one.kind == "conflict" for one in problems)

    def _is_busy(self, served: Served | None, row: Base | None, local: Local | None, tree_path: bytes) -> bool:
        """Somebody writes, loads or will look at it."""
        if local is not None and (self._shared.is_written(local.ino) or local.ino in self._shared.hydrating):
            return True
        if served is None:
            return False
        if served.association.lifecycle in _STARTING:
            return True
        if not self._is_scanned(served.id) and (row is None or local is None or not row.matches_local(local)):
            return True  # the scan will see it
        path = served.association.relative(tree_path)
        assert path is not None
        pending = self._shared.catalog.changelog.pending(served.id, path, 1)
        return any(entry.path == path for entry in pending)

    def _is_written(self, pair: Pair) -> bool:
        """Somebody has it open behind the mount: the hint comes when it is closed."""
        local = pair.local
        if local is None or local.kind is not Kind.FILE or local.stub is not None:
            return False
        return self._shared.tree.is_written(pair.tree_path, local)

    # ------------------------------------------------------------- staging

    def _leftovers(self) -> list[Finding]:
        """What was staged before this daemon started, and is there still: a start clears it or puts it back."""
        tree = self._shared.tree
        directory = self._shared.settings.state_dir / "staging"
        if tree.staging_name is not None:
            directory = tree.root / os.fsdecode(tree.staging_name)
        return [
            Finding(
                str(path), Rule.STAGING_LEFTOVER, "left behind by an earlier daemon; it may be somebody's only copy"
            )
            for path in _older(directory, self._shared.started_ns)
        ]


def _older(directory: Path, before_ns: int) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        try:
            status = path.lstat()
        except FileNotFoundError:  # it took its place meanwhile
            continue
        if status.st_ctime_ns < before_ns:  # not mtime: a stub has its object's
            yield path


def _directory(path: bytes) -> bytes:
    return path + b"/" if path else b""


def _outermost(tree_paths: Sequence[bytes]) -> list[bytes]:
    """Without those that lie in another one, so that nothing is told twice."""
    chosen: list[bytes] = []
    for path in sorted(set(tree_paths), key=_directory):
        if not any(_directory(path).startswith(_directory(outer)) for outer in chosen):
            chosen.append(path)
    return chosen
