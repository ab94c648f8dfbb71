"""Stages that act on what an earlier one noted: exports that come after imports, and the deletes of either side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fsxsync.errors import RepositoryError
from fsxsync.model.association import Policy
from fsxsync.model.task import Task
from fsxsync.ports import Planned
from fsxsync.sync import brakes
from fsxsync.sync.served import Served
from fsxsync.sync.task_looks import each
from fsxsync.sync.task_settling import settle_path
from fsxsync.sync.task_stages import BATCH, Batch, Done, Entry
from fsxsync.sync.under_way import Going


class DeletesRefused(RepositoryError):
    """So much is gone on one side that it is not believed; nothing was deleted."""

    code = "MassDeleteStopped"
    advice = "check that disks are mounted and the prefix is right; if it really is to go, add --accept-deletes"


class LeftStage:
    """Paths that were noted under the number of a stage. Each counts here, and nowhere else."""

    at_once = 1

    def __init__(self, served: Served, task: Task, noted_by: int, policy: Policy, *, remote: bool) -> None:
        """``remote``: it was a listing that told of them."""
        self.served = served
        self._task = task
        self._noted_by = noted_by
        self._policy = policy
        self._remote = remote

    async def estimate(self, goes_on: Going) -> int:
        return 0  # whoever noted them has counted them already

    def check(self) -> None:
        return

    async def batches(self, after: bytes) -> AsyncGenerator[Batch, None]:
        tasks = self.served.shared.catalog.tasks
        while keys := tasks.gone(self._task.id, self._noted_by, after, BATCH):
            after = keys[-1]
            yield Batch(todo=[Entry(key.removesuffix(b"/"), None, None) for key in keys], after=after)

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        async def act(entry: Entry) -> None:
            await settle_path(self.served, entry.path, self._policy, remote=self._remote)

        return await each(self.served, batch.todo, goes_on, act)

    async def plan(self, batch: Batch) -> AsyncGenerator[Planned, None]:
        """A dry run notes nothing: who would have noted it has told of it."""
        for entry in batch.todo:
            yield Planned(self.served.tree_path(entry.path), "look")


class DeleteStage(LeftStage):
    """What another stage found gone on one side, once it is plausible that it is (DESIGN §3.6)."""

    def __init__(
        self, served: Served, task: Task, found_by: int, unders: Sequence[bytes], policy: Policy, *, remote: bool
    ) -> None:
        """``remote``: the listing lacks it, and the files go; otherwise the tree does, and the objects go."""
        super().__init__(served, task, found_by, policy, remote=remote)
        self._unders = unders

    def check(self) -> None:
        if self._task.order.accept_deletes:
            return
        catalog, found = self.served.shared.catalog, (self._task.id, self._noted_by)
        gone, gone_files = catalog.tasks.count_gone(*found), catalog.tasks.count_gone_files(*found)
        known = [catalog.files.count_objects(self.served.id, under) for under in self._unders]
        files = max(gone_files, sum(count for count, _ in known))
        if self._remote:
            markers = max(gone - gone_files, sum(count for _, count in known))
            why = brakes.implausible_listing(
                files + markers,
                gone,
                files - gone_files,
                missing_files=gone_files,
                markers=markers - (gone - gone_files),
            )
        else:  # an empty directory is left of a disk that is not mounted
            why = brakes.implausible_scan(files, gone_files)
        if why:
            raise DeletesRefused(f"deletes of {self.served.association.file_system_path}", why)

    async def perform(self, batch: Batch, goes_on: Going) -> Done:
        done = await super().perform(batch, goes_on)
        done.moved = 0
        return done
