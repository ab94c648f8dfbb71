"""RECONCILE looks at both sides of a path together, so that it is one path and counts once.

Tree, rows and listing are merged. What is new in the listing is imported at once; what is to be exported, and what is
gone, is noted for later stages: files are deleted only once the whole listing was seen, and exports come after that.
What could not be imported as something else has its name is tried once more at the end, when that may be gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from fsxsync.errors import TypeClash
from fsxsync.model.association import Policy
from fsxsync.model.task import Failure, Task
from fsxsync.ports import Planned
from fsxsync.sync.served import Served
from fsxsync.sync.task_imports import ImportStage, Object, known_of, lies_at
from fsxsync.sync.task_looks import ExportStage, Side
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry, entries
from fsxsync.sync.under_way import Going


@dataclass(slots=True)
class Both(Batch):
    """``exports`` are left to a later stage, and so are ``gone_here``, sort keys of what the tree lacks, and ``gone``,
    which the listing does. ``doubtful`` of ``todo`` are new or changed on both sides."""

    exports: list[Entry] = field(default_factory=list)
    gone_here: list[bytes] = field(default_factory=list)
    doubtful: set[bytes] = field(default_factory=set)
    is_last: bool = False
    seen: int = 0
    """Paths that were looked at for it, whatever came of them: also what is left out takes time."""


class ReconcileStage:
    """All of what is at and below a path, here and there."""

    at_once = 1

    def __init__(
        self,
        served: Served,
        task: Task,
        under: bytes,
        policy: Policy,
        *,
        exports_at: int,
        deletes_at: int,
        again_at: int,
    ) -> None:
        """The last three are the numbers under which exports, what the tree lacks, and what is to be tried again are
        noted."""
        self.served = served
        self._task = task
        self._under = under
        self._policy = policy
        self._exports_at = exports_at
        self._deletes_at = deletes_at
        self._again_at = again_at
        self._import = ImportStage(served, [under], policy, deletes=True)
        self._export = ExportStage(served, [under], policy, deletes=True)

    async def estimate(self, goes_on: Going) -> int:
        return max(await self._import.estimate(goes_on), await self._export.estimate(goes_on))

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        batch = Both(after=after)
        async with aclosing(self._merged(after)) as merged:
            async for entry, found in merged:
                batch.seen += 1
                if isinstance(found, Failure):
                    batch.failures.append(found)
                else:
                    self._judge(entry, found, batch)
                    batch.after = entry.key if found is None else found.key
                if batch.seen >= BATCH:
                    yield batch
                    batch = Both(after=batch.after)
        batch.is_last = True
        yield batch

    async def _merged(self, after: bytes) -> AsyncGenerator[tuple[Entry, Object | Failure | None], None]:
        """In catalog order, what tree and catalog have at a path and what the listing does."""
        nothing = Entry(b"", None, None)
        walked, listed = entries(self.served, [self._under], after), self._import.pages(after)
        async with aclosing(walked), aclosing(listed):
            here = _Entries(walked)
            async for page in listed:
                for found in page:
                    if isinstance(found, Failure):
                        yield nothing, found
                        continue
                    while (entry := await here.head()) is not None and entry.key < found.key:
                        yield here.take(), None
                    if entry is not None and entry.key == found.key:
                        yield here.take(), found
                    else:
                        yield Entry(found.path, None, None), found
            while await here.head() is not None:
                yield here.take(), None

    def _judge(self, entry: Entry, found: Object | None, batch: Both) -> None:
        known = known_of(entry.base) if entry.base is not None else None
        here, there = self._export.side(entry), self._import.side(found, known)
        if found is not None and there is Side.CHANGED:
            self._import.take(found, known, batch)
            if here is Side.CHANGED:
                batch.doubtful.add(entry.path)
        elif there is Side.GONE:  # whatever is here: its look tells of that too
            batch.gone.append(entry.key)
        elif here is Side.CHANGED:
            batch.exports.append(entry)
        elif here is Side.GONE:
            batch.gone_here.append(entry.key)
        elif Side.QUIET in {here, there}:
            batch.quiet += 1

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        assert isinstance(batch, Both)
        tasks = self.served.shared.catalog.tasks
        tasks.add_gone(self._task.id, self._deletes_at, batch.gone_here)
        tasks.add_gone(self._task.id, self._exports_at, [entry.key for entry in batch.exports])
        done = await self._import.perform(batch, goes_on)
        clashing = {failure.path for failure in done.failures if failure.code == TypeClash.code}
        done.failures = [failure for failure in done.failures if failure.path not in clashing]
        again = [entry.path for entry in batch.todo if self.served.tree_path(entry.path) in clashing]
        tasks.add_gone(self._task.id, self._again_at, again)
        if batch.is_last:
            tasks.add_gone(self._task.id, self._exports_at, self._copies())
        return done

    def _copies(self) -> list[bytes]:
        """What conflicts were kept as has never been exported, and the walk had passed its directory. All of them, when
        everything was looked at: after a crash nothing else tells which conflicts are of this task."""
        catalog, tree, here = self.served.shared.catalog, self.served.shared.tree, self.served.id
        kept = [one.kept_as for one in catalog.conflicts.all(here) if lies_at(one.path, self._under)]
        new = [path for path in kept if path and catalog.files.get(here, path) is None]
        return [path for path in new if tree.identify(self.served.tree_path(path)) is not None]

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        assert isinstance(batch, Both)
        doubtful = {self.served.tree_path(path) for path in batch.doubtful}
        async with aclosing(self._import.plan(batch)) as imports:
            async for one in imports:
                yield replace(one, action="compare") if one.path in doubtful and not one.code else one
        if not self._policy.exports:  # a read-only association
            return
        exports = Batch(todo=batch.exports, gone=batch.gone_here)
        async with aclosing(self._export.plan(exports)) as planned:
            async for one in planned:
                yield one


class _Entries:
    """Entries one by one, the first of which can be looked at before it is taken."""

    def __init__(self, batches: AsyncGenerator[list[Entry], None]) -> None:
        self._batches = batches
        self._found: list[Entry] = []
        self._place = 0

    async def head(self) -> Entry | None:
        if self._place == len(self._found):
            self._found, self._place = await anext(self._batches, []), 0
        return self._found[self._place] if self._found else None

    def take(self) -> Entry:
        self._place += 1
        return self._found[self._place - 1]
