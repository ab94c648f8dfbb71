"""`fsxsync check --repair`: what is broken is brought in order, by the ways that everything else goes.

Mostly a look is all it takes: row and file disagree, nobody was told, and the look that follows a hint sees what is
there, asks the repository, and acts under the same conditions as always. What is done besides loses nothing either: a
row is dropped only so that its object comes back, a mark is set only on a file without a byte, and a reserved attribute
holds no data. Everything else is left for a person, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import FsxSyncError, LocalChanged, TreeMoved
from fsxsync.model.association import Event, Lifecycle
from fsxsync.model.finding import Finding, Rule
from fsxsync.model.identity import Local
from fsxsync.sync import releaser
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.pairs import Pair
from fsxsync.sync.rescan import check_directory
from fsxsync.sync.served import Served, Shared
from fsxsync.tree.attributes import take_off
from fsxsync.tree.stub_data import holds_data

LOOKS_S = 60.0
"""How long the looks at one batch may take; what is still pending then is told as that."""
_EVERY_S = 0.02

_LEFT: Mapping[Rule, str] = {
    Rule.STUB_ASTRAY: "move it back to where it came from, or remove it; the object is not touched by that",
    Rule.STAGING_LEFTOVER: "a restart clears it away, puts it back beside its path, or says in the event log why not",
    Rule.LOCAL_DAMAGED: "copy the file aside to compare; 'fsxsync release' it, and the next read loads the object",
    Rule.OBJECT_DIFFERS: "find out which side is right: writing the file anew exports it, releasing takes the object",
    Rule.OBJECT_CHANGED: "the association imports no changes; 'fsxsync import PATH' brings it",
}
LEFTOVER = _LEFT[Rule.STAGING_LEFTOVER]
_HELD_BACK = "it has bytes that the repository does not: copy it aside, remove it here, and the object comes back"
_NOTHING_DONE = "its object is gone, or a rename is under way, or nothing is exported; 'fsxsync why' tells more"
_LOOKED = "looked at, and brought in line with its object"

Judge = Callable[[Pair], list[Finding]]


class Repairer:
    """Of one check. ``see`` is the pair as it is now, ``judge`` what is still broken about it."""

    def __init__(self, shared: Shared, *, see: Callable[[Pair], Pair], judge: Judge) -> None:
        self._shared = shared
        self._see = see
        self._judge = judge

    async def repair(self, broken: Sequence[tuple[Pair, list[Finding]]]) -> list[Finding]:
        """Repair one batch; the same findings, with what became of each.

        Raises:
            TreeError: the disk failed.
        """
        done: dict[bytes, str] = {}
        slots = trio.Semaphore(self._shared.settings.look_workers)

        async def one(pair: Pair, rules: set[Rule]) -> None:
            async with slots:
                done[pair.tree_path] = await self._act(pair, rules)

        try:
            async with trio.open_nursery() as nursery:
                for pair, findings in broken:
                    nursery.start_soon(one, pair, {finding.rule for finding in findings})
        except* Exception as failures:
            raise first_leaf(failures) from failures
        await self._until_looked_at([pair for pair, _ in broken if pair.served is not None and done[pair.tree_path]])
        return [finding for pair, findings in broken for finding in self._outcome(pair, findings, done[pair.tree_path])]

    # ------------------------------------------------------------- the means

    async def _act(self, pair: Pair, rules: set[Rule]) -> str:
        """Do what there is to do; '' if that is nothing."""
        what = ""
        if Rule.RESERVED_ATTRIBUTE in rules and self._take_off(pair):
            what = "the attribute was taken off"
        if rules & set(_LEFT) or pair.served is None:
            return what
        if rules == {Rule.RESERVED_ATTRIBUTE} or self._why_not_served(pair.served):
            return what
        if Rule.ROW_WITHOUT_FILE in rules:
            return self._bring_back(pair)
        if Rule.OBJECT_GONE in rules:
            return self._export_anew(pair)
        if Rule.RELEASED_WITHOUT_MARK in rules and await self._mark_again(pair):
            return "it held no data: marked as released again"
        if await self._is_gone(pair):
            # A look would remove the file, as after any delete there. What was found broken is no time for that.
            return self._export_anew(pair) if pair.local is not None and pair.local.stub is None else ""
        self._hint(pair)
        return _LOOKED

    @staticmethod
    def _why_not_served(served: Served) -> str:
        """'' if it is, in the directory that is known: else everything would look broken that lies elsewhere now
        (DESIGN §3.6)."""
        association = served.association
        if association.lifecycle is not Lifecycle.AVAILABLE:
            return f"the association is {association.lifecycle.value}: {association.failure or 'wait until it is not'}"
        try:
            check_directory(served)
        except TreeMoved as error:
            return str(error)
        return ""

    async def _is_gone(self, pair: Pair) -> bool:
        """The row knows an object, and it is not there any more. False where nobody can tell: the look will meet the
        same error, and keep it."""
        served, row = pair.served, pair.row
        if served is None or row is None or row.etag is None or pair.local is None:
            return False
        try:
            return await served.store.head(served.key(pair.path, row.kind)) is None
        except FsxSyncError:
            return False

    def _hint(self, pair: Pair) -> None:
        assert pair.served is not None
        ino = pair.local.ino if pair.local is not None else None
        pair.served.add_hint(pair.path, local=True, remote=True, ino=ino)

    def _bring_back(self, pair: Pair) -> str:
        """The file is gone and nobody was told. It may have been removed, or the row may be wrong: the object stays,
        and the file comes back as a released one where the policy imports. No await."""
        served, row = pair.served, pair.row
        assert served is not None
        assert row is not None
        catalog = self._shared.catalog
        elsewhere = any(entry.path != row.path for entry in catalog.changelog.by_inode(row.ino))
        if elsewhere or catalog.moves.of_source(served.id, row.path):
            return ""  # a rename is under way, which needs the row
        with catalog.transaction():
            catalog.files.delete(served.id, row.path)
            self._hint(pair)
        if row.etag is None:
            return "its row was dropped"
        if Event.NEW in served.association.policy.imports:
            return "its row was dropped; its object, if there is one, is here again as a released file"
        return "its row was dropped; its object, if there is one, stays"

    def _export_anew(self, pair: Pair) -> str:
        """The bytes are here only. No await."""
        served = pair.served
        assert served is not None
        if not {Event.NEW, Event.CHANGED} & served.association.policy.exports:
            return ""
        with self._shared.catalog.transaction():
            self._shared.catalog.files.delete(served.id, pair.path)
            self._hint(pair)
        return "exported again"

    async def _mark_again(self, pair: Pair) -> bool:
        """A stub that lost its mark, and has no byte of its own. Marking is what a release does: it makes sure that
        nobody has the file open, and that it still is what was looked at."""
        served, row, local = pair.served, pair.row, pair.local
        if served is None or row is None or local is None or row.etag is None or local.size != row.remote_size:
            return False
        if local.nlink > 1 or not await trio.to_thread.run_sync(self._is_hole, pair.tree_path, local):
            return False
        if await releaser.mark_empty(served, row, local) is not None:
            return False
        self._shared.catalog.problems.clear(served.id, row.path, ["damaged"])
        return True

    def _is_hole(self, tree_path: bytes, local: Local) -> bool:
        """Blocking."""
        try:
            fd = self._shared.tree.open_read(tree_path, local)
        except LocalChanged:
            return False
        try:
            return not holds_data(fd)
        except OSError:
            return False
        finally:
            os.close(fd)

    def _take_off(self, pair: Pair) -> bool:
        if pair.seen is None:
            return False
        take_off(self._shared.tree.root_fd, pair.tree_path, pair.seen)
        return True

    # ------------------------------------------------------------- what came of it

    async def _until_looked_at(self, pairs: Sequence[Pair]) -> None:
        with trio.move_on_after(LOOKS_S):
            for pair in pairs:
                while self._is_open(pair):  # noqa: ASYNC110  rows, not events
                    await trio.sleep(_EVERY_S)

    def _is_open(self, pair: Pair) -> bool:
        """A look is to come that did not fail before."""
        served = pair.served
        assert served is not None
        return any(entry.attempts == 0 for entry in _entries(served, pair.path))

    def _outcome(self, pair: Pair, findings: Sequence[Finding], what: str) -> list[Finding]:
        now = self._see(pair)
        left = {one.rule for one in self._judge(now)}
        told = []
        for finding in findings:
            is_gone = finding.rule not in left and (finding.rule is not Rule.OBJECT_GONE or now.row is not None)
            if is_gone and what and not self._why_failed(pair):
                told.append(replace(finding, repaired=True, repair=what))
            else:
                why = self._why_open(pair) or _LEFT.get(finding.rule) or (_HELD_BACK if what else _NOTHING_DONE)
                told.append(replace(finding, repair=why))
        return told

    def _why_failed(self, pair: Pair) -> str:
        """What a look met; '' if nothing, or if it is still to come: what was done here is a change like any other."""
        if pair.served is None:
            return ""
        if why := self._why_not_served(pair.served):
            return why
        if error := next((entry.last_error for entry in _entries(pair.served, pair.path) if entry.last_error), ""):
            return error
        problems = self._shared.catalog.problems.get(pair.served.id, pair.path)
        return next((one.message for one in problems), "")

    def _why_open(self, pair: Pair) -> str:
        """Why a look did not bring it in order."""
        if (why := self._why_failed(pair)) or pair.served is None:
            return why
        waiting = [entry.waiting_for or "its look is still to come" for entry in _entries(pair.served, pair.path)]
        return waiting[0] if waiting else ""


def _entries(served: Served, path: bytes) -> list[Entry]:
    found = served.shared.catalog.changelog.pending(served.id, path, 1)
    return [entry for entry in found if entry.path == path]
