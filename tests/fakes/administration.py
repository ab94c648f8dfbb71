"""A daemon's engine in memory, as the control server sees it (`ports.Administration`).

Tests put in what it shall answer (``pending``, ``states``, ``needs_person``), let the next requests fail
(``failures``) or wait (``gate``), and see what was asked (``asked``) and what was given up (``abandoned``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio
from fakes.tasks import FakeTasks

from fsxsync.errors import AssociationNotFound, BadInput, StillPending
from fsxsync.model.association import Association, Lifecycle, check_overlap
from fsxsync.model.difference import Difference
from fsxsync.model.finding import Finding, Tally
from fsxsync.model.identity import Kind
from fsxsync.model.open_conflict import Conflict, Keep
from fsxsync.model.why import Evidence
from fsxsync.ports import AssociationStatus, Conditions, FileState, PendingItem, Status


def file_state(path: str, **more: object) -> FileState:
    """A released file, unless ``more`` says otherwise."""
    plain = FileState(
        path=path,
        bits=0x0D,
        flags=("released", "exists", "archived"),
        kind=Kind.FILE,
        resident_bytes=0,
        size=7,
        etag="e1",
        version_id=None,
        key=path,
        association="dra-00000000000000001",
        pending=False,
        error=None,
    )
    return plain._replace(**more)  # type: ignore[arg-type]


class FakeAdministration:
    """See `ports.Administration`. Without a ``gate`` nothing waits."""

    def __init__(self) -> None:
        self.rows: dict[str, Association] = {}
        self.tasks = FakeTasks()
        self.states: dict[bytes, list[FileState]] = {}
        self.findings: list[Finding] = []
        self.differences: list[Difference] = []
        self.tally = Tally()
        self.evidence = Evidence("/d/a")
        self.open_conflicts: list[Conflict] = []
        self.pending: tuple[PendingItem, ...] = ()
        self.needs_person: tuple[str, ...] = ()
        self.undrained = 0
        self.released = 0
        self.mount: str | None = None
        self.tree = "/nowhere/tree"
        self.state_dir = "/nowhere"
        self.failures: list[BaseException] = []
        self.gate: trio.Event | None = None
        self.late_failure: Exception | None = None
        """Raised behind the gate."""
        self.begun = trio.Event()
        """Set when a request has come to the gate."""
        self.asked: list[tuple[str, object]] = []
        self.abandoned: list[str] = []
        self.stopping = trio.Event()

    @contextmanager
    def _note(self, name: str, what: object = None) -> Iterator[None]:
        self.asked.append((name, what))
        if self.failures:
            raise self.failures.pop(0)
        try:
            yield
        except trio.Cancelled:
            self.abandoned.append(name)
            raise

    async def _pass_gate(self) -> None:
        if self.gate is not None:
            self.begun.set()
            await self.gate.wait()
        if self.late_failure is not None:
            raise self.late_failure

    def _known(self, association_id: str) -> Association:
        if association_id not in self.rows:
            raise AssociationNotFound(f"association {association_id}", "there is none of that id")
        return self.rows[association_id]

    async def create(self, association: Association, *, wait: bool) -> Association:
        with self._note("create", (association, wait)):
            check_overlap(association, self.associations())
            number = len([name for name, _ in self.asked if name == "create"])
            made = replace(
                association,
                id=f"dra-{number:017x}",
                lifecycle=Lifecycle.AVAILABLE if wait else Lifecycle.CREATING,
                created_s=1_700_000_000.25 + number,
            )
            await self._pass_gate()
            self.rows[made.id] = made
            return made

    async def update(self, association: Association) -> Association:
        with self._note("update", association):
            self._known(association.id)
            await self._pass_gate()
            self.rows[association.id] = replace(association, lifecycle=Lifecycle.AVAILABLE, failure="")
            return self.rows[association.id]

    def accept_deletes(self, association_id: str) -> None:
        with self._note("accept_deletes", association_id):
            self._known(association_id)

    async def delete(self, association_id: str, *, delete_data: bool, force: bool, hydrate: bool) -> Association:
        with self._note("delete", (association_id, delete_data, force, hydrate)):
            found = self._known(association_id)
            if self.released and not (delete_data or force or hydrate):
                raise StillPending("it can't be deleted", f"{self.released} released files", advice="say how")
            self.rows[association_id] = replace(found, lifecycle=Lifecycle.DELETING)
            await self._pass_gate()
            return self.rows.pop(association_id)

    def associations(self) -> tuple[Association, ...]:
        return tuple(self.rows.values())

    def status(self) -> Status:
        with self._note("status"):
            return Status(
                version="0.1.0",
                state_dir=self.state_dir,
                tree=self.tree,
                mount=self.mount,
                data_path="fuse",
                data_path_reason="no root",
                watch="inotify, 3 directories",
                pid=4711,
                started_s=1_700_000_000.0,
                associations=tuple(map(self._row, self.rows.values())),
                open_for_writing=1,
                cache_bytes=3 << 30,
                cache_free_bytes=2 << 30,
                transfers={"bytes_down": 2048.0, "in_flight": 1.0},
                needs_person=self.needs_person,
            )

    def _row(self, association: Association) -> AssociationStatus:
        return AssociationStatus(
            association=association,
            pending=len(self.pending),
            pending_imports=0,
            pending_exports=len(self.pending),
            oldest_pending_s=max((item.age_s for item in self.pending), default=0.0),
            conflicts=2,
            errors=1,
            not_exportable=0,
            imported=5,
            exported=6,
            conditions=Conditions(put_if_match=True),
            source="poll",
            recent_errors=self.pending[:1],
        )

    async def state(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[Sequence[FileState]]:
        with self._note("state", (tuple(tree_paths), recursive)):
            for path in tree_paths:
                if path not in self.states:
                    raise BadInput(f"/{path.decode('utf-8', 'backslashreplace')}", "no such file or directory")
                for state in self.states[path] if recursive else self.states[path][:1]:
                    await self._pass_gate()
                    yield [state]

    async def check(
        self, tree_paths: Sequence[bytes], *, verify: bool, repair: bool = False
    ) -> AsyncIterator[Finding | Tally]:
        with self._note("check", (tuple(tree_paths), verify)):
            await self._pass_gate()
            for finding in self.findings:
                yield finding
            yield replace(self.tally, broken=len(self.findings))

    async def why(self, tree_path: bytes) -> Evidence:
        with self._note("why", tree_path):
            return self.evidence

    async def diff(self, tree_path: bytes) -> AsyncIterator[Difference]:
        with self._note("diff", (tree_path,)):
            for difference in self.differences:
                yield difference

    def conflicts(self) -> tuple[Conflict, ...]:
        with self._note("conflicts"):
            return tuple(self.open_conflicts)

    async def resolve(self, tree_path: bytes, keep: Keep) -> tuple[Conflict, ...]:
        with self._note("resolve", (tree_path, keep)):
            await self._pass_gate()
            return tuple(one for one in self.open_conflicts if tree_path in {one.path, one.kept_as})

    async def wait(self, tree_path: bytes, timeout_s: float) -> tuple[PendingItem, ...]:
        with self._note("wait", (tree_path, timeout_s)):
            await self._pass_gate()
            return self.pending

    async def drain(self, timeout_s: float) -> int:
        with self._note("drain", timeout_s):
            await self._pass_gate()
            return self.undrained

    def stop(self) -> None:
        with self._note("stop"):
            self.stopping.set()
